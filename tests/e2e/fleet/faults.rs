//! Processes of a fleet die, hang and start again, under load. After each: nothing acknowledged is
//! missing and nothing was invented, whichever gateway is asked.
//!
//! Seen red when: samples of a node that is down are acknowledged without anybody having them; what
//! an owner lacks does not become a hint; a gateway forgets its hints when it starts; a gateway
//! waits for a node three times as long as the health timeout; reads leave a node out
//! (`two_gateways_take_in_the_same_series`); a start replays nothing
//! (`every_process_is_restarted_in_turn`); a node acknowledges before it writes
//! (`a_node_without_replicas_is_killed`, two runs of five).

use super::cluster::{Fleet, Network};
use crate::random::Random;
use std::time::{Duration, Instant};

/// The default of `--health-timeout`.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// What a client may see of a fault that the fleet hides, in milliseconds.
const FAILING_MS_MAX: u64 = 2000;
/// How long a request may hang because of a process that is stopped: the health timeout, and room
/// for a slow, busy machine.
const HANGING_MS_MAX: u64 = 3500;

#[test]
fn two_gateways_take_in_the_same_series() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 2");
    let mut senders = ["remote-write", "vm-json"].map(|protocol| {
        let seed = Random::from_environment().next();
        fleet.send(protocol, seed)
    });
    for sender in &mut senders {
        sender.wait_for_acks(200);
    }
    for sender in &mut senders {
        // Nothing is wrong, so nobody sees an error.
        sender.finish_without_refusal();
        fleet.verify(sender);
    }
    for node in ["n1", "n2"] {
        assert!(fleet.metric(node, "tidegate_link_port_frames_total") > 0.0, "{node} idles");
    }
}

/// A node that is back within the health timeout costs nobody an error; one that stays away costs
/// 503s until it is back, where nobody else has its slots.
#[test]
fn a_node_without_replicas_is_killed() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 2 --gateways 2 --replication 1");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    for _ in 0..3 {
        sender.wait_for_acks(20);
        fleet.kill("n1");
        fleet.start_again("n1");
    }
    sender.wait_for_acks(20);
    let report = sender.finish();
    assert_eq!(report["statuses"]["503"].as_u64().unwrap_or(0), 0, "{report}");
    fleet.verify(&sender);

    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(20);
    fleet.kill("n1");
    // The moment is the point: longer than a gateway waits before it says so.
    std::thread::sleep(HEALTH_TIMEOUT * 2);
    fleet.start_again("n1");
    sender.wait_for_acks(20);
    let report = sender.finish();
    assert!(report["statuses"]["503"].as_u64().unwrap_or(0) > 0, "{report}");
    fleet.verify(&sender);
}

/// With a replica no client sees an error for longer than the health timeout; what the node missed
/// it is given later.
#[test]
fn a_node_with_replicas_is_killed() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 2 --gateways 2 --replication 2");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    fleet.kill("n2");
    std::thread::sleep(HEALTH_TIMEOUT);
    sender.wait_for_acks(100);
    // Reads are whole meanwhile.
    sender.verify_while_sending(&fleet.url("g1"));
    fleet.start_again("n2");
    sender.wait_for_acks(50);
    let report = sender.finish();
    assert_short(&report);
    fleet.verify(&sender);
    fleet.wait_for_hints(&["g1", "g2"]);
    // Everything is on both: each alone answers for all.
    fleet.kill("n1");
    fleet.verify(&sender);
}

#[test]
fn a_gateway_is_killed() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 2 --gateways 2");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    for gateway in ["g1", "g2", "g1"] {
        sender.wait_for_acks(30);
        fleet.kill(gateway);
        sender.wait_for_acks(30);
        fleet.start_again(gateway);
    }
    sender.wait_for_acks(30);
    assert_short(&sender.finish());
    fleet.verify(&sender);
}

#[test]
fn every_process_is_restarted_in_turn() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 3 --gateways 2 --replication 2");
    let mut sender = fleet.send("vm-json", Random::from_environment().next());
    for name in ["n1", "g1", "n2", "g2", "n3"] {
        sender.wait_for_acks(30);
        fleet.run(&["term", name]);
        fleet.start_again(name);
    }
    sender.wait_for_acks(30);
    assert_short(&sender.finish());
    fleet.verify(&sender);
}

/// A node that hangs delays what must wait for it, for the health timeout; then its replica and
/// hints serve.
#[test]
fn a_node_hangs() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 3 --gateways 2 --replication 2");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    fleet.run(&["stop", "n3"]);
    let stopped_at = Instant::now();
    sender.wait_for_acks(50);
    // Five seconds in all: longer than the health timeout, shorter than a link is kept.
    std::thread::sleep(Duration::from_secs(5).saturating_sub(stopped_at.elapsed()));
    sender.wait_for_acks(50);
    fleet.run(&["cont", "n3"]);
    sender.wait_for_acks(50);
    let report = sender.finish();
    assert_short(&report);
    let slowest_ms = report["latency"]["max_us"].as_u64().expect("a latency") / 1000;
    assert!(slowest_ms < HANGING_MS_MAX, "a request took {slowest_ms} ms\n{report}");
    fleet.verify(&sender);
    fleet.wait_for_hints(&["g1", "g2"]);
    // What n3 missed it has now: of some series nobody else is left.
    fleet.kill("n1");
    fleet.verify(&sender);
}

/// A gateway that dies with hints still owes them when it is back.
#[test]
fn a_gateway_is_killed_with_hints() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 2 --gateways 1 --replication 2");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    fleet.kill("n2");
    std::thread::sleep(HEALTH_TIMEOUT);
    sender.wait_for_acks(200);
    fleet.wait_for_metric("g1", "tidegate_hint_samples", |samples| samples > 0.0);
    fleet.kill("g1");
    fleet.start_again("g1");
    sender.wait_for_acks(50);
    sender.finish();
    fleet.start_again("n2");
    fleet.wait_for_hints(&["g1"]);
    fleet.kill("n1");
    fleet.verify(&sender);
}

#[track_caller]
fn assert_short(report: &serde_json::Value) {
    let failing_ms = report["failing_ms_max"].as_u64().expect("a length of time");
    assert!(failing_ms <= FAILING_MS_MAX, "a client saw errors for {failing_ms} ms\n{report}");
}
