//! What a gateway says to readers while something of the fleet is missing, over real processes.

use super::cluster::{Fleet, Network};
use crate::loadgen::Sender;
use crate::process::wait_for;
use crate::random::Random;
use std::time::Duration;

/// What the head of a node may hold in the first test: less than the load needs, so that the node
/// answers, and takes nothing.
const NO_ROOM: [&str; 2] = ["--head-bytes-max", "64KiB"];
/// Longer than hints take to be delivered.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longer than a node that was just reached waits for gateways to tell it what it missed.
const NEWS_WITHIN: Duration = Duration::from_secs(4);

/// A replica was down and is back; a gateway still keeps what it missed, and the other replica
/// goes: the other gateway's answers lack samples, and have to say so.
///
/// Seen red when: a gateway does not tell nodes what it keeps for them; a node does not say it; a
/// reader does not look at it; what was delivered is still said to wait.
#[test]
fn an_owner_that_waits_for_hints_says_so() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 2 --gateways 2 --replication 2");
    let seed = Random::from_environment().next();
    // All hints are g1's; g2 is asked.
    let mut sender = Sender::start_to(&[fleet.url("g1")], "remote-write", seed);
    sender.wait_for_acks(50);
    fleet.kill("n2");
    fleet.wait_for_metric("g1", "tidegate_hint_samples", |samples| samples > 0.0);
    sender.wait_for_acks(50);
    sender.finish();
    fleet.change_command("n2", &NO_ROOM);
    fleet.start_again("n2");
    fleet.wait_for_reads("g2");
    std::thread::sleep(NEWS_WITHIN);
    assert!(fleet.metric("g1", "tidegate_hint_samples") > 0.0, "n2 takes them all the same");
    // Both are there: whatever one lacks, the other has.
    assert_eq!(fleet.warnings("g2"), serde_json::Value::Null);
    fleet.kill("n1");
    let warnings = fleet.warnings("g2").to_string();
    assert!(warnings.contains("samples that a gateway kept for it"), "{warnings}");
    let answer = fleet.get("g2", "/api/v1/labels?partial_response=false");
    assert_eq!(answer.status, 503, "{}", answer.text());
    fleet.start_again("n1");
    fleet.run(&["term", "n2"]);
    fleet.change_command("n2", &[]);
    fleet.start_again("n2");
    fleet.wait_for_hints(&["g1"]);
    std::thread::sleep(NEWS_WITHIN);
    // Now it has everything, and answers alone.
    fleet.kill("n1");
    assert_eq!(fleet.warnings("g2"), serde_json::Value::Null);
    fleet.verify(&sender);
}

/// What a gateway deletes is gone on every node, also when one of them answers alone.
///
/// Seen red when: one owner is asked for all.
#[test]
fn a_deletion_reaches_every_owner() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 2 --gateways 2 --replication 2");
    let seed = Random::from_environment().next();
    let mut sender = Sender::start_to(&[fleet.url("g1")], "remote-write", seed);
    sender.wait_for_acks(20);
    sender.finish();
    let series = |gateway: &str| {
        let path = "/api/v1/series?match[]={__name__=~%22.%2B%22}&start=0";
        let answer = fleet.get(gateway, path).json();
        answer["data"].as_array().map_or(0, Vec::len)
    };
    assert!(series("g2") > 0);
    let delete = "/api/v1/admin/tsdb/delete_series?match[]={__name__=~%22.%2B%22}";
    fleet.kill("n2");
    let answer = fleet.post("g1", delete);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("cannot delete"), "{}", answer.text());
    fleet.start_again("n2");
    let deleted = wait_for(DEADLINE, || (fleet.post("g1", delete).status == 204).then_some(()));
    assert!(deleted.is_some(), "{}", fleet.post("g1", delete).text());
    assert_eq!(series("g1"), 0);
    for (dead, alive) in [("n1", "g1"), ("n2", "g2")] {
        fleet.kill(dead);
        assert_eq!(series(alive), 0, "without {dead}");
        fleet.start_again(dead);
        fleet.wait_for_reads(alive);
    }
}
