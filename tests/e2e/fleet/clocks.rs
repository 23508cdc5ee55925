//! Hosts whose clocks are apart, and clocks that are set under load (libfaketime; timeouts go by
//! another clock, which nobody sets). Only a change of the fleet minds: an epoch begins when the
//! clock says so. Beyond the few seconds that a start leaves, a gateway that is behind is refused
//! as stale until it has caught up; a document from too far in the future gets no votes.
//!
//! Seen red when: reads ask the owners of the first epoch only; hints are forgotten instead of
//! delivered; nodes take frames of an old epoch; nodes vote for any future.

use super::cluster::{Fleet, Network, cluster_at};
use crate::random::Random;
use std::time::Duration;

/// Clocks of their own, and each sample on two nodes.
const OPTIONS: &str = "--replication 2 --clocks";
/// The default of `--health-timeout`.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// What is refused as stale.
const STALE: &str = "tidegate_link_port_frames_stale_total";

/// Without a change of the fleet clocks may say what they like: nobody is refused anything.
#[test]
#[ignore = "long: scripts/e2e fleet"]
fn clocks_are_apart_and_set() {
    let fleet = Fleet::start(Network::Loopback, OPTIONS);
    for (name, offset_s) in [("n1", 90), ("n2", -300), ("g1", 5), ("g2", -120)] {
        fleet.set_clock(name, offset_s);
    }
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    for (name, offset_s) in [("n3", 240), ("n1", -90), ("g1", -240), ("g2", 240), ("n3", 0)] {
        fleet.set_clock(name, offset_s);
        sender.wait_for_acks(30);
    }
    sender.finish_without_refusal();
    fleet.verify(&sender);

    // What logs and hints say of times is read back by another clock.
    let mut later = fleet.send("vm-json", Random::from_environment().next());
    later.wait_for_acks(50);
    fleet.kill("n1");
    std::thread::sleep(HEALTH_TIMEOUT);
    later.wait_for_acks(100);
    fleet.run(&["clock", "n1", "200"]);
    fleet.set_clock("g2", -240);
    fleet.start_again("n1");
    later.wait_for_acks(50);
    later.finish();
    fleet.wait_for_hints(&["g1", "g2"]);
    fleet.kill("n2");
    fleet.verify(&later);
    fleet.verify(&sender);
}

/// Within the seconds that a start leaves nobody notices.
#[test]
fn a_node_is_added_while_clocks_are_seconds_apart() {
    let fleet = Fleet::start(Network::Loopback, OPTIONS);
    for (name, offset_s) in [("n1", 1), ("n2", -1), ("g1", 1), ("g2", -1)] {
        fleet.set_clock(name, offset_s);
    }
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    add_node(&fleet, "g1");
    sender.wait_for_acks(100);
    sender.finish_without_refusal();
    // Of some series only the new node is left.
    fleet.verify_with_and_without("n1", &sender);
}

/// A gateway that is minutes behind stays with the old epoch, which the nodes refuse: its clients
/// hear why, and go to the other. When its clock is set it goes on.
#[test]
fn a_gateway_is_minutes_behind_when_a_node_is_added() {
    let fleet = Fleet::start(Network::Loopback, OPTIONS);
    fleet.set_clock("g2", -300);
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    add_node(&fleet, "g1");
    // The first node whose epoch begins refuses, and the clients may all be gone before the next.
    fleet.wait_for_sum(&["n1", "n2", "n3"], STALE, |frames| frames > 0.0);
    std::thread::sleep(HEALTH_TIMEOUT * 2);
    sender.wait_for_acks(100);
    let refused = "tidegate_refused_samples_total{reason=\"stale_epoch\"";
    fleet.wait_for_metric("g2", refused, |samples| samples > 0.0);
    assert!(fleet.metric("g2", "tidegate_placement_epoch") < 2.0, "it is behind");
    let refused = fleet.write("g2");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().starts_with("stale_epoch"), "the reason: {}", refused.text());
    fleet.set_clock("g2", 0);
    fleet.wait_for_metric("g2", "tidegate_placement_epoch", |epoch| epoch >= 2.0);
    let written = fleet.write("g2");
    assert_eq!(written.status, 204, "it goes on: {}", written.text());
    sender.wait_for_acks(100);
    let report = sender.finish();
    assert!(report["statuses"]["503"].as_u64().unwrap_or(0) > 0, "{report}");
    // The new node has its share on each way.
    fleet.verify_with_and_without("n1", &sender);
}

/// A gateway that is a minute ahead plans the change: it goes the new way at once, the others when
/// their clocks say so, and nobody refuses either. Set back, it goes the old way again.
#[test]
#[ignore = "long: scripts/e2e fleet"]
fn a_gateway_is_a_minute_ahead_when_a_node_is_added() {
    let fleet = Fleet::start(Network::Loopback, OPTIONS);
    fleet.set_clock("g1", 60);
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    add_node(&fleet, "g1");
    fleet.wait_for_metric("g1", "tidegate_placement_epoch", |epoch| epoch >= 2.0);
    sender.wait_for_acks(100);
    assert!(fleet.metric("g2", "tidegate_placement_epoch") < 2.0, "it starts in a minute");
    sender.verify_while_sending(&fleet.url("g1"));
    fleet.set_clock("g1", 0);
    fleet.wait_for_metric("g1", "tidegate_placement_epoch", |epoch| epoch < 2.0);
    sender.wait_for_acks(100);
    // All at once: nobody waits for the minute to be over.
    for name in ["n1", "n2", "n3", "n4", "g1", "g2"] {
        fleet.set_clock(name, 70);
    }
    fleet.wait_for_metric("g2", "tidegate_placement_epoch", |epoch| epoch >= 2.0);
    sender.wait_for_acks(100);
    sender.finish();
    fleet.wait_for_hints(&["g1", "g2"]);
    fleet.verify_with_and_without("n2", &sender);
}

/// Nodes that are minutes off while a node is added: one that is ahead refuses the old epoch before
/// gateways have the new one, for the seconds until it starts; one that is behind takes what is
/// ahead of it.
#[test]
#[ignore = "long: scripts/e2e fleet"]
fn nodes_are_minutes_off_when_a_node_is_added() {
    let fleet = Fleet::start(Network::Loopback, OPTIONS);
    for (name, offset_s) in [("n1", 200), ("n2", -200)] {
        fleet.set_clock(name, offset_s);
    }
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    add_node(&fleet, "g1");
    for gateway in ["g1", "g2"] {
        fleet.wait_for_metric(gateway, "tidegate_placement_epoch", |epoch| epoch >= 2.0);
    }
    sender.wait_for_acks(100);
    for (name, offset_s) in [("n1", -200), ("n2", 200), ("n4", -200)] {
        fleet.set_clock(name, offset_s);
        sender.wait_for_acks(50);
    }
    let report = sender.finish();
    assert_eq!(report["points_refused"], 0, "{report}");
    fleet.wait_for_hints(&["g1", "g2"]);
    fleet.verify_with_and_without("n3", &sender);
}

/// More than five minutes ahead, a gateway's document gets no votes, and the operator hears why.
#[test]
#[ignore = "long: scripts/e2e fleet"]
fn a_gateway_is_too_far_ahead_to_change_the_fleet() {
    let fleet = Fleet::start(Network::Loopback, OPTIONS);
    fleet.set_clock("g1", 400);
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    fleet.run(&["add", "node"]);
    let refused = cluster_at(&fleet.url("g1"), &["add", &fleet.link("n4")]);
    let text = refused.expect_err("nobody votes for it");
    assert!(text.contains("set the clocks"), "{text}");
    // Another gateway, whose clock is right, adds it all the same.
    cluster_at(&fleet.url("g2"), &["add", &fleet.link("n4")]).expect("it is added");
    fleet.wait_for_metric("n4", "tidegate_link_port_frames_total", |frames| frames > 20.0);
    sender.wait_for_acks(100);
    let report = sender.finish();
    assert_eq!(report["points_refused"], 0, "{report}");
    fleet.verify(&sender);
}

/// Adds `n4`, by this gateway, and waits until it gets samples.
#[track_caller]
fn add_node(fleet: &Fleet, gateway: &str) {
    fleet.run(&["add", "node"]);
    let added = cluster_at(&fleet.url(gateway), &["add", &fleet.link("n4")]);
    added.unwrap_or_else(|errors| panic!("not added: {errors}"));
    fleet.wait_for_metric("n4", "tidegate_link_port_frames_total", |frames| frames > 20.0);
}
