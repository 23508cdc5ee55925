//! Fleets over bad networks, in namespaces. Skipped with a word where these are not allowed. The
//! long ones run when asked for: `scripts/e2e fleet`.
//!
//! Seen red when: hints are forgotten instead of delivered (all but the last); samples of a node
//! that is not heard are acknowledged without anybody having them (`a_gateway_alone`).

use super::cluster::{Fleet, Network, has_namespaces};
use crate::random::Random;
use std::time::Duration;

/// Two gateways and three nodes, each sample on two of them; all hosts send over `network`.
fn run_over(network: &str, acks: usize) {
    if !has_namespaces() {
        return;
    }
    let fleet = Fleet::start(Network::Namespaces, "--replication 2");
    for name in ["g1", "g2", "n1", "n2", "n3"] {
        fleet.run(&["netem", name, network]);
    }
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(acks);
    fleet.kill("n3");
    sender.wait_for_acks(acks);
    fleet.start_again("n3");
    sender.wait_for_acks(acks);
    sender.finish();
    fleet.verify(&sender);
    fleet.run(&["heal"]);
    fleet.wait_for_hints(&["g1", "g2"]);
    // What n3 missed it has now: of some series nobody else is left.
    fleet.kill("n1");
    fleet.verify(&sender);
}

#[test]
fn with_delay_and_loss() {
    run_over("delay 5ms 2ms loss 1%", 20);
}

#[test]
#[ignore = "long: scripts/e2e fleet"]
fn with_reordering() {
    run_over("delay 10ms 5ms reorder 25% duplicate 1%", 50);
}

#[test]
#[ignore = "long: scripts/e2e fleet"]
fn with_narrow_bandwidth() {
    run_over("delay 2ms rate 10mbit", 50);
}

#[test]
#[ignore = "long: scripts/e2e fleet"]
fn with_heavy_loss() {
    run_over("delay 20ms loss 10%", 20);
}

/// One way, then the other way, then both: between a gateway and a node, and between two nodes,
/// which have nothing to say to each other.
#[test]
fn with_partitions() {
    if !has_namespaces() {
        return;
    }
    let fleet = Fleet::start(Network::Namespaces, "--replication 2");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(20);
    for cut in [&["g1", "n1", "--one-way"][..], &["n2", "g2", "--one-way"], &["g1", "n3"]] {
        fleet.run(&[&["partition"], cut].concat());
        // Longer than the health timeout, so that everybody has noticed.
        std::thread::sleep(Duration::from_secs(3));
        sender.wait_for_acks(20);
        fleet.run(&["heal"]);
        sender.wait_for_acks(20);
    }
    sender.finish();
    for gateway in ["g1", "g2"] {
        fleet.wait_for_reads(gateway);
    }
    fleet.verify(&sender);
    fleet.wait_for_hints(&["g1", "g2"]);
    // What n1 was not told it has now: of some series nobody else is left.
    fleet.verify_with_and_without("n2", &sender);
}

/// A gateway that hears no node at all says 503, and its clients go to the other.
#[test]
#[ignore = "long: scripts/e2e fleet"]
fn a_gateway_alone() {
    if !has_namespaces() {
        return;
    }
    let fleet = Fleet::start(Network::Namespaces, "--replication 2");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(20);
    for node in ["n1", "n2", "n3"] {
        fleet.run(&["partition", node, "g1"]);
    }
    std::thread::sleep(Duration::from_secs(5));
    sender.wait_for_acks(50);
    fleet.run(&["heal"]);
    sender.wait_for_acks(20);
    sender.finish();
    fleet.wait_for_reads("g1");
    fleet.verify(&sender);
}
