//! Networks that fall apart while the fleet changes. Nodes have nothing to say to each other; a
//! gateway needs most of them to change anything, and says so.
//!
//! Seen red when: reads ask the owners of the first epoch only; one vote decides; gateways do not
//! tell nodes what they have missed.

use super::cluster::{Fleet, Network, cluster_at, has_namespaces};
use crate::random::Random;
use std::time::Duration;

/// Nodes do not hear each other at all: samples, reads and a change of the fleet do without.
#[test]
fn nodes_do_not_hear_each_other() {
    if !has_namespaces() {
        return;
    }
    let fleet = Fleet::start(Network::Namespaces, "--replication 2");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(20);
    fleet.run(&["add", "node"]);
    for [one, other] in
        [["n1", "n2"], ["n1", "n3"], ["n2", "n3"], ["n1", "n4"], ["n2", "n4"], ["n3", "n4"]]
    {
        fleet.run(&["partition", one, other]);
    }
    fleet.cluster(&["add", &fleet.link("n4")]);
    fleet.wait_for_metric("n4", "tidegate_link_port_frames_total", |frames| frames > 20.0);
    for node in ["n1", "n2", "n3", "n4"] {
        fleet.wait_for_metric(node, "tidegate_link_port_epoch", |epoch| epoch >= 2.0);
    }
    sender.wait_for_acks(50);
    sender.finish_without_refusal();
    fleet.verify_with_and_without("n1", &sender);
}

/// A gateway that is cut off from most nodes cannot add one, and says who is missing; one that is
/// cut off from the fewest can. Whoever heard nothing is told by the other gateway.
#[test]
#[ignore = "long: scripts/e2e fleet"]
fn a_node_is_added_through_a_broken_network() {
    if !has_namespaces() {
        return;
    }
    let fleet = Fleet::start(Network::Namespaces, "--replication 2");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(20);
    fleet.run(&["add", "node"]);
    let lost = fleet.node_id("n3");
    // One is not heard, one does not hear.
    fleet.run(&["partition", "n2", "g1", "--one-way"]);
    fleet.run(&["partition", "g1", "n3", "--one-way"]);
    let refused = cluster_at(&fleet.url("g1"), &["add", &fleet.link("n4")]);
    let text = refused.expect_err("one of three nodes is not most of them");
    assert!(text.contains(&lost), "it says who is missing: {text}");
    sender.wait_for_acks(20);

    fleet.run(&["heal"]);
    fleet.run(&["partition", "g1", "n3"]);
    fleet.wait_for_reads("g1");
    let added = cluster_at(&fleet.url("g1"), &["add", &fleet.link("n4")]);
    added.unwrap_or_else(|errors| panic!("two of three nodes are most of them: {errors}"));
    for node in ["n1", "n2", "n3", "n4"] {
        fleet.wait_for_metric(node, "tidegate_link_port_epoch", |epoch| epoch >= 2.0);
    }
    fleet.wait_for_metric("n4", "tidegate_link_port_frames_total", |frames| frames > 20.0);
    sender.wait_for_acks(50);
    fleet.run(&["heal"]);
    sender.wait_for_acks(20);
    sender.finish();
    for gateway in ["g1", "g2"] {
        fleet.wait_for_reads(gateway);
    }
    fleet.wait_for_hints(&["g1", "g2"]);
    fleet.verify_with_and_without("n1", &sender);
}

/// The network falls apart at a random moment of the change, and heals: it happened or it did not,
/// and everybody agrees.
#[test]
#[ignore = "long: scripts/e2e fleet"]
fn the_network_breaks_while_a_node_is_added() {
    if !has_namespaces() {
        return;
    }
    let fleet = Fleet::start(Network::Namespaces, "--replication 2");
    let mut random = Random::from_environment();
    let mut sender = fleet.send("remote-write", random.next());
    sender.wait_for_acks(20);
    // Slow, so that there are moments between question and answer.
    for name in ["g1", "g2", "n1", "n2", "n3"] {
        fleet.run(&["netem", name, "delay 40ms 20ms"]);
    }
    fleet.run(&["add", "node"]);
    let (url, link) = (fleet.url("g1"), fleet.link("n4"));
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| cluster_at(&url, &["add", &link]));
        std::thread::sleep(Duration::from_millis(random.next() % 400));
        for cut in [["n1", "g1"], ["n2", "g1"], ["g1", "n3"]] {
            fleet.run(&["partition", cut[0], cut[1], "--one-way"]);
        }
        sender.wait_for_acks(20);
        drop(adding.join());
    });
    fleet.run(&["heal"]);
    fleet.wait_for_reads("g1");
    // Again: what happened already is no fault.
    fleet.cluster(&["add", &link]);
    for gateway in ["g1", "g2"] {
        fleet.wait_for_metric(gateway, "tidegate_placement_epoch", |epoch| epoch >= 2.0);
    }
    fleet.wait_for_metric("n4", "tidegate_link_port_frames_total", |frames| frames > 20.0);
    let documents = ["g1", "g2"].map(|gateway| {
        fleet.get(gateway, "/api/v1/cluster/status").json()["data"]["document"].clone()
    });
    assert_eq!(documents[0], documents[1], "one document");
    sender.wait_for_acks(20);
    sender.finish();
    fleet.wait_for_hints(&["g1", "g2"]);
    fleet.verify_with_and_without("n1", &sender);
}
