//! The `loadgen` command against a small server of the test's own, with faults put in: what is
//! lost, changed or made up must be found, and what is fine must pass.

mod server;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use loadgen::report::Report;
use loadgen::verify::VerifyResult;
use server::{Fault, Server};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loadgen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder takes folders");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("ASCII").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn loadgen(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(line.split_ascii_whitespace())
        .output()
        .expect("loadgen starts")
}

const SHAPE: &str = "--series 600 --points-per-request 200 --connections 2";

/// Sends `points` with `options` to a server with `fault`, then verifies.
fn round(name: &str, options: &str, fault: Fault) -> (Report, VerifyResult, bool) {
    let scratch = Scratch::new(name);
    let server = Server::start(fault);
    let (ledger, report) = (scratch.path("ledger"), scratch.path("report"));
    let url = server.url();
    let sent = loadgen(&format!(
        "send --url {url} --ledger {ledger} --json {report} --give-up 20s {SHAPE} {options}"
    ));
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let verdict = scratch.path("verdict");
    let verified = loadgen(&format!("verify --url {url} --ledger {ledger} --json {verdict}"));
    let code = verified.status.code();
    assert!(matches!(code, Some(0 | 1)), "{}", String::from_utf8_lossy(&verified.stderr));
    let read = |path: &str| std::fs::read(path).expect("written");
    let report: Report = serde_json::from_slice(&read(&report)).expect("a report");
    let verdict: VerifyResult = serde_json::from_slice(&read(&verdict)).expect("a verdict");
    assert_eq!(verdict.is_clean(), code == Some(0));
    (report, verdict, code == Some(0))
}

#[test]
fn what_was_sent_is_verified() {
    for (name, options) in [
        ("plain-rw", "--points 12000"),
        ("plain-vm", "--points 12000 --protocol vm-json --points-per-series 20"),
        ("gzip", "--points 12000 --protocol vm-json --gzip --points-per-series 7"),
        ("pipeline", "--points 12000 --pipeline 4"),
        ("prebuild", "--points 12000 --prebuild"),
        ("rate", "--points 12000 --rate 100000"),
        ("labels", "--points 12000 --labels 4 --interval 15s"),
        ("many-labels", "--points 12000 --labels 30 --seed 77"),
        ("churn", "--points 12000 --churn 5000 --rate 60000"),
        ("tsbs", "--points 12000 --shape tsbs --interval 10s"),
        ("tsbs-vm", "--points 12000 --shape tsbs --protocol vm-json --points-per-series 20"),
    ] {
        let (report, verdict, clean) = round(name, options, Fault::None);
        assert!(clean, "{name}: {verdict}");
        assert_eq!(report.points_acked, 12_000, "{name}");
        assert_eq!(verdict.acked_present, 12_000, "{name}");
        assert_eq!(verdict.samples_read, 12_000, "{name}");
        assert_eq!(report.stopped_by, "points", "{name}");
    }
}

#[test]
fn a_span_of_past_time_is_sent_whole() {
    for (name, options) in [
        ("span-rw", "--shape tsbs --span 10m --step 10s --ago 365d"),
        ("span-vm", "--shape tsbs --span 10m --step 10s --protocol vm-json --points-per-series 7"),
        ("span-start", "--span 10m --step 10s --start 1600000000000"),
    ] {
        let (report, verdict, clean) = round(name, options, Fault::None);
        assert!(clean, "{name}: {verdict}");
        assert_eq!(verdict.acked_present, 600 * 60, "{name}");
        assert_eq!(report.stopped_by, "span", "{name}");
    }
}

#[test]
fn changed_values_of_walks_are_wrong() {
    let options = "--shape tsbs --points 12000";
    let (_, verdict, clean) = round("tsbs-changed", options, Fault::FlipBitEvery(1000));
    assert!(!clean);
    assert_eq!((verdict.missing, verdict.wrong, verdict.extra), (0, 12, 0));
}

#[test]
fn lost_samples_are_missing() {
    let (_, verdict, clean) = round("lost", "--points 12000", Fault::LoseEvery(100));
    assert!(!clean);
    assert_eq!((verdict.missing, verdict.wrong, verdict.extra), (120, 0, 0));
    assert!(!verdict.examples.is_empty());
}

#[test]
fn changed_values_are_wrong() {
    let (_, verdict, clean) = round("changed", "--points 12000", Fault::FlipBitEvery(1000));
    assert!(!clean);
    assert_eq!((verdict.missing, verdict.wrong, verdict.extra), (0, 12, 0));
}

#[test]
fn made_up_samples_are_extra_and_doubles_are_repeated() {
    let (_, verdict, clean) = round("extra", "--points 12000", Fault::InventEvery(1000));
    assert!(!clean);
    // One at a time never sent, and one of a series never sent, each time.
    assert_eq!((verdict.missing, verdict.wrong, verdict.extra), (0, 0, 24));
    let (_, verdict, clean) = round("double", "--points 12000", Fault::DoubleEvery(1000));
    assert!(!clean);
    assert_eq!((verdict.extra, verdict.repeated), (0, 12));
}

#[test]
fn requests_without_an_answer_may_or_may_not_be_there() {
    for (name, fault) in [("kept", Fault::CutAfterKeeping(7)), ("dropped", Fault::CutBefore(7))] {
        let (report, verdict, clean) = round(name, "--points 12000", fault);
        assert!(clean, "{verdict}");
        assert!(report.requests_unknown > 0 && report.reconnects > 0);
        assert_eq!(report.points_acked + report.points_unknown, 12_000);
        assert_eq!(verdict.acked_present, report.points_acked);
        assert_eq!(verdict.uncertain_present + verdict.uncertain_absent, report.points_unknown);
        assert_eq!(verdict.uncertain_present > 0, name == "kept");
    }
}

#[test]
fn refused_requests_are_counted_and_retried_on_demand() {
    let (report, verdict, clean) = round("refused", "--points 12000", Fault::RefuseEvery(6));
    assert!(clean && report.requests_refused > 0);
    assert_eq!(report.statuses["503"], report.requests_refused);
    assert_eq!(verdict.uncertain_absent, report.points_refused);
    for (name, fault) in [
        ("retry-503", Fault::RefuseEvery(6)),
        ("retry-cut", Fault::CutBefore(7)),
        ("retry-kept", Fault::CutAfterKeeping(7)),
    ] {
        for pipeline in [1, 3] {
            let options = format!("--points 12000 --retry --pipeline {pipeline}");
            let (report, verdict, clean) = round(name, &options, fault);
            assert!(clean, "{name}: {verdict}");
            assert_eq!(report.points_acked, 12_000, "{name}");
            assert_eq!(verdict.acked_present, 12_000, "{name}");
            assert!(report.retries > 0, "{name}");
        }
    }
}

#[test]
fn a_ledger_with_a_torn_end_takes_another_run() {
    let scratch = Scratch::new("torn");
    let server = Server::start(Fault::None);
    let (ledger, url) = (scratch.path("ledger"), server.url());
    for seed in [1, 2] {
        // One connection: every request has 200 samples, the last one too.
        let shape = "--series 600 --points-per-request 200 --connections 1 --points 3000";
        let line = format!("send --url {url} --ledger {ledger} {shape} --seed {seed}");
        assert!(loadgen(&line).status.success());
        if seed == 1 {
            // The last answer's line is cut, as by a kill: its request is uncertain, and found
            // present.
            let text = std::fs::read(&ledger).expect("written");
            std::fs::write(&ledger, &text[..text.len() - 9]).expect("writable");
        }
    }
    let verdict = scratch.path("verdict");
    assert!(
        loadgen(&format!("verify --url {url} --ledger {ledger} --json {verdict}")).status.success()
    );
    let verdict = std::fs::read(verdict).expect("written");
    let verdict: VerifyResult = serde_json::from_slice(&verdict).expect("a verdict");
    assert_eq!((verdict.acked_present, verdict.uncertain_present), (5800, 200));
}

#[test]
fn a_killed_generator_leaves_nothing_that_its_ledger_does_not_know() {
    let scratch = Scratch::new("killed");
    let server = Server::start(Fault::None);
    let (ledger, url) = (scratch.path("ledger"), server.url());
    let line = format!("send --url {url} --ledger {ledger} {SHAPE} --pipeline 4 --duration 60s");
    let mut sender = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(line.split_ascii_whitespace())
        .stderr(Stdio::null())
        .spawn()
        .expect("loadgen starts");
    while std::fs::metadata(&ledger).map_or(0, |file| file.len()) < 20_000 {
        assert!(sender.try_wait().expect("a child").is_none(), "it sends for a minute");
        std::thread::yield_now();
    }
    sender.kill().expect("it runs");
    sender.wait().expect("it ran");
    let verified = loadgen(&format!("verify --url {url} --ledger {ledger}"));
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Red if a connection stays with a server that refuses, or with one that is not there: it gives up
/// then.
#[test]
fn of_several_servers_the_next_is_tried() {
    for pipeline in ["", "--pipeline 4"] {
        let scratch = Scratch::new("several");
        let (good, bad) = (Server::start(Fault::None), Server::start(Fault::RefuseEvery(1)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let nobody = listener.local_addr().expect("bound");
        drop(listener);
        let (ledger, report) = (scratch.path("ledger"), scratch.path("report"));
        let sent = loadgen(&format!(
            "send --url {} --url http://{nobody} --url {} --ledger {ledger} --json {report} \
             --retry --give-up 5s {SHAPE} --points 12000 {pipeline}",
            bad.url(),
            good.url()
        ));
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        let report = std::fs::read(&report).expect("written");
        let report: Report = serde_json::from_slice(&report).expect("a report");
        assert_eq!(report.points_acked, 12_000);
        assert!(report.failing_ms_max > 0, "{report}");
        let verified = loadgen(&format!("verify --url {} --ledger {ledger}", good.url()));
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }
}

#[test]
fn no_server_is_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let sent = loadgen(&format!("send --url http://127.0.0.1:{port} --points 10 --give-up 200ms"));
    assert_eq!(sent.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&sent.stdout).contains("gave-up"));
}
