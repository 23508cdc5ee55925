//! Disks of a fleet run full under load: a node's, and a gateway's that is needed for hints.
//! Nothing acknowledged is lost, whoever is refused hears why, and with room again everything goes
//! on. The disks are tmpfs of bounded size that `scripts/cluster` mounts in the fleet's own folder.
//!
//! Seen red when: hints are forgotten instead of delivered; what a full node refuses counts as
//! done; a hint that could not be written is acknowledged; the limit of hints is not looked at.

use super::cluster::{Fleet, Network, WIDE_DISK, has_namespaces};
use crate::http::Response;
use crate::process::wait_for;
use crate::random::Random;
use std::time::Duration;

/// Small segments of the log, so that a disk is soon full. Samples are refused below 4 KiB...
const NODE_OPTIONS: [&str; 2] = ["--node-options", "--log-segment-bytes 8MiB --disk-free-min 4KiB"];
/// ...or when the disk itself refuses.
const NO_FLOOR: [&str; 2] = ["--node-options", "--log-segment-bytes 8MiB --disk-free-min 0"];
/// Room for the first segments.
const NODE_DISK: &str = "128m";
const DEADLINE: Duration = Duration::from_secs(60);
/// The default of `--health-timeout`.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// What the full node refuses, its replica has: hints wait for room, and no client sees an error.
#[test]
fn a_node_with_replicas_has_a_full_disk() {
    if !has_namespaces() {
        return;
    }
    let disk = format!("--replication 2 --disk n1={NODE_DISK}");
    let fleet = Fleet::start_with(Network::Namespaces, &disk, &NODE_OPTIONS);
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    fleet.run(&["disk", "n1", "full"]);
    fleet.wait_for_metric("g1", "tidegate_hint_samples", |samples| samples > 0.0);
    let refused = "tidegate_link_port_frames_refused_total";
    fleet.wait_for_metric("n1", refused, |frames| frames > 0.0);
    fleet.wait_for_log("n1", "less than disk-free-min is free");
    sender.wait_for_acks(100);
    sender.verify_while_sending(&fleet.url("g2"));

    fleet.run(&["disk", "n1", WIDE_DISK]);
    sender.wait_for_acks(50);
    sender.finish_without_refusal();
    fleet.wait_for_hints(&["g1", "g2"]);
    // What n1 had no room for it has now: of some series nobody else is left.
    fleet.verify_with_and_without("n2", &sender);
}

/// Where nobody else has a node's slots, its clients get 503 and the reason, and come again.
#[test]
#[ignore = "long: scripts/e2e fleet"]
fn a_node_without_replicas_has_a_full_disk() {
    if !has_namespaces() {
        return;
    }
    let disk = format!("--nodes 2 --replication 1 --disk n1={NODE_DISK}");
    let fleet = Fleet::start_with(Network::Namespaces, &disk, &NO_FLOOR);
    let mut sender = fleet.send("vm-json", Random::from_environment().next());
    sender.wait_for_acks(50);
    fleet.run(&["disk", "n1", "full"]);
    for gateway in ["g1", "g2"] {
        check_refused(&fleet, gateway, "disk_full");
    }
    fleet.wait_for_log("n1", "cannot make the next log segment");
    fleet.run(&["disk", "n1", WIDE_DISK]);
    sender.wait_for_acks(100);
    let report = sender.finish();
    assert!(report["statuses"]["503"].as_u64().unwrap_or(0) > 0, "{report}");
    fleet.verify(&sender);
    // What was acknowledged is in the log, not only in memory.
    fleet.kill("n1");
    fleet.start_again("n1");
    fleet.wait_for_reads("g1");
    fleet.wait_for_reads("g2");
    fleet.verify(&sender);
}

/// A gateway that has no room for hints while a node is away says so with 503 to each request; its
/// clients go to the other, which has.
#[test]
fn a_gateway_has_no_room_for_hints() {
    if !has_namespaces() {
        return;
    }
    let fleet = Fleet::start(Network::Namespaces, "--nodes 2 --replication 2 --disk g1=32m");
    let mut sender = fleet.send("remote-write", Random::from_environment().next());
    sender.wait_for_acks(50);
    fleet.kill("n2");
    fleet.wait_for_metric("g1", "tidegate_hint_samples", |samples| samples > 0.0);
    fleet.run(&["disk", "g1", "full"]);
    check_refused(&fleet, "g1", "disk_full");
    fleet.wait_for_log("g1", "cannot keep hints for node");
    // The other gateway has room: it takes in what this one refuses.
    sender.wait_for_acks(100);
    assert_eq!(fleet.write("g2").status, 204, "g2 has room");
    check_refused(&fleet, "g1", "disk_full");

    fleet.run(&["disk", "g1", WIDE_DISK]);
    let recovered = wait_for(DEADLINE, || (fleet.write("g1").status == 204).then_some(()));
    assert!(recovered.is_some(), "no recovery: {}", fleet.write("g1").text());
    sender.wait_for_acks(50);
    // Hints that it had before survive a start, whatever a failed write left behind.
    fleet.kill("g1");
    fleet.start_again("g1");
    sender.wait_for_acks(50);
    sender.finish();
    fleet.start_again("n2");
    fleet.wait_for_hints(&["g1", "g2"]);
    fleet.verify_with_and_without("n1", &sender);
}

/// The same at the limit of bytes instead of the disk's.
#[test]
#[ignore = "long: scripts/e2e fleet"]
fn hints_reach_their_limit() {
    if !has_namespaces() {
        return;
    }
    let options = ["--gateway-options", "--hint-bytes-max 64MiB"];
    let fleet = Fleet::start_with(Network::Namespaces, "--nodes 2 --replication 2", &options);
    let mut sender = fleet.send("vm-json", Random::from_environment().next());
    sender.wait_for_acks(50);
    fleet.kill("n2");
    std::thread::sleep(HEALTH_TIMEOUT);
    for gateway in ["g1", "g2"] {
        let full = check_refused(&fleet, gateway, "hints_full");
        assert!(full.text().contains("hint-bytes-max"), "the limit: {}", full.text());
    }
    fleet.start_again("n2");
    sender.wait_for_acks(50);
    sender.finish();
    fleet.wait_for_hints(&["g1", "g2"]);
    fleet.verify_with_and_without("n1", &sender);
}

/// Waits until a gateway refuses samples, with 503, the reason first and when to come again.
#[track_caller]
fn check_refused(fleet: &Fleet, gateway: &str, reason: &str) -> Response {
    let refused = wait_for(DEADLINE, || {
        let response = fleet.write(gateway);
        (response.status != 204).then_some(response)
    });
    let refused = refused.unwrap_or_else(|| panic!("{gateway} refuses nothing"));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().starts_with(reason), "the reason comes first: {}", refused.text());
    assert!(refused.header("retry-after").is_some(), "503 says when to come again: {refused:?}");
    refused
}
