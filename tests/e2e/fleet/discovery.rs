//! Nodes are found by name, of a name server in a namespace of the fleet's (nsd): SRV for the
//! fleet, A or AAAA for each node, to live for a second. Nodes move, and the name server hangs,
//! fails and ends, under load.
//!
//! Seen red when: addresses that are known are never replaced; a name that failed is not asked
//! again.

use super::cluster::{Fleet, Network, has_namespaces};
use crate::process::wait_for;
use crate::random::Random;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// A node comes back at another address: its id stays, and with it what it has and its share. One
/// of them has an address of IPv4, one of IPv6.
#[test]
fn nodes_move() {
    if !has_namespaces() {
        return;
    }
    let fleet = Fleet::start(Network::Namespaces, "--replication 2 --dns");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(20);
    let ids = ["n1", "n2"].map(|node| fleet.node_id(node));
    for node in ["n1", "n2"] {
        fleet.run(&["move", node]);
        fleet.run(&["dns", "update"]);
        // Samples reach it before the document says where it is.
        fleet.wait_for_metric(node, "tidegate_link_port_frames_total", |frames| frames > 20.0);
        sender.wait_for_acks(20);
    }
    for (node, id) in ["n1", "n2"].iter().zip(&ids) {
        let moved = wait_for(DEADLINE, || (fleet.find_node(node)? == *id).then_some(()));
        assert!(moved.is_some(), "no document says where {node} is now");
    }
    sender.wait_for_acks(20);
    sender.finish();
    fleet.wait_for_hints(&["g1", "g2"]);
    fleet.verify_with_and_without("n3", &sender);
}

/// While the name server hangs, fails or is away, what was known stays; a gateway that starts then
/// knows nobody, refuses with the reason, and is ready once there are answers.
#[test]
#[ignore = "long: scripts/e2e fleet"]
fn the_name_server_fails() {
    if !has_namespaces() {
        return;
    }
    let fleet = Fleet::start(Network::Namespaces, "--replication 2 --dns");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(20);
    for (harm, mending) in [("stop", "cont"), ("kill", "start"), ("fail", "update")] {
        let (failures, recoveries) = (failures(&fleet), recoveries(&fleet));
        fleet.run(&["dns", harm]);
        let failing = wait_for(DEADLINE, || (self::failures(&fleet) > failures).then_some(()));
        assert!(failing.is_some(), "after {harm}: it does not say that names fail");
        sender.wait_for_acks(20);
        // Nodes come and go meanwhile.
        fleet.kill("n3");
        fleet.start_again("n3");
        sender.wait_for_acks(20);
        fleet.run(&["dns", mending]);
        let better = wait_for(DEADLINE, || (self::recoveries(&fleet) > recoveries).then_some(()));
        assert!(better.is_some(), "after {mending}: it does not say that names are resolved");
    }

    fleet.run(&["dns", "fail"]);
    fleet.kill("g2");
    fleet.run(&["start", "g2", "--no-wait"]);
    let waits = wait_for(DEADLINE, || {
        let answer = fleet.try_get("g2", "/-/ready")?;
        (answer.status == 503).then_some(answer)
    });
    assert!(waits.is_some(), "it is ready without knowing anybody");
    let refused = fleet.write("g2");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().starts_with("no_placement"), "the reason: {}", refused.text());
    sender.wait_for_acks(20);
    fleet.run(&["dns", "update"]);
    let ready =
        wait_for(DEADLINE, || (fleet.try_get("g2", "/-/ready")?.status == 200).then_some(()));
    assert!(ready.is_some(), "it knows nobody yet: {}", fleet.get("g2", "/-/ready").text());
    sender.wait_for_acks(20);
    sender.finish();
    fleet.wait_for_reads("g2");
    fleet.wait_for_hints(&["g1", "g2"]);
    fleet.verify(&sender);
}

fn failures(fleet: &Fleet) -> usize {
    fleet.log("g1").matches("cannot resolve").count()
}

fn recoveries(fleet: &Fleet) -> usize {
    fleet.log("g1").matches("is resolved again").count()
}
