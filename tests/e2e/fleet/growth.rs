//! Fleets that change: a node more, a node lost for good. Under load, verified through every
//! gateway.
//!
//! Seen red when: a read leaves out the owners of an earlier epoch (`a_node_is_taken_out`) or of a
//! later one (`a_third_node_is_added`).

use super::cluster::{Fleet, Network};
use crate::random::Random;

/// Samples of new slots go to a new node from the moment that its placement starts; what it was not
/// given it is asked for by nobody.
#[test]
fn a_third_node_is_added() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 2 --gateways 2");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    fleet.run(&["add", "node"]);
    fleet.cluster(&["add", &fleet.link("n3")]);
    fleet.wait_for_metric("n3", "tidegate_link_port_epoch", |epoch| epoch >= 2.0);
    // Until it is in force, and then some.
    fleet.wait_for_metric("n3", "tidegate_link_port_frames_total", |frames| frames > 20.0);
    sender.wait_for_acks(50);
    let report = sender.finish();
    assert_eq!(report["points_refused"], 0, "{report}");
    fleet.verify(&sender);
    // Both gateways took the same way.
    for gateway in ["g1", "g2"] {
        assert!(fleet.metric(gateway, "tidegate_placement_epoch") >= 2.0, "{gateway} lags");
    }
}

/// Nobody else has what a node without replicas was given: it is asked until retention is over.
#[test]
fn a_node_is_taken_out() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 3 --gateways 2");
    let mut sender = fleet.send("vm-json", Random::from_environment().next());
    sender.wait_for_acks(50);
    fleet.cluster(&["remove", &fleet.node_id("n2")]);
    for gateway in ["g1", "g2"] {
        fleet.wait_for_metric(gateway, "tidegate_placement_epoch", |epoch| epoch >= 2.0);
    }
    sender.wait_for_acks(50);
    let report = sender.finish();
    assert_eq!(report["points_refused"], 0, "{report}");
    fleet.verify(&sender);
}

/// A node's disk is lost. Its replica has everything; a new node takes its place.
#[test]
fn a_node_is_lost_for_good() {
    let fleet = Fleet::start(Network::Loopback, "--nodes 3 --gateways 2 --replication 2");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    let lost = fleet.node_id("n2");
    fleet.kill("n2");
    sender.wait_for_acks(50);
    fleet.run(&["start", "n2", "--empty"]);
    fleet.cluster(&["plan", "--remove", &lost, "--add", &fleet.link("n2"), "--apply"]);
    fleet.wait_for_metric("n2", "tidegate_link_port_frames_total", |frames| frames > 20.0);
    sender.wait_for_acks(50);
    let report = sender.finish();
    assert_eq!(report["points_refused"], 0, "{report}");
    fleet.verify(&sender);
}
