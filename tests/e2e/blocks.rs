//! Blocks: what was acknowledged reads back once, to the bit, whether it is in memory, in the log,
//! in one block or in several, and whenever the process is killed; old data comes in, is deleted
//! and ages out; damage is found and harms nothing else.

use crate::admin::{
    admin, ask, blocks, both, check, check_clean, compact, count_samples, flush, text,
};
use crate::body::{IMPORT_PATH, Series, json_lines, now_ms};
use crate::http::{Response, escape};
use crate::loadgen::{Sender, send, verify};
use crate::process::wait_for;
use crate::random::Random;
use crate::server::Server;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const KILLS: usize = 8;
/// A moment is this much later than the first acknowledgements after a start, at most.
const MOMENT_MS_MAX: usize = 500;
/// Small files, so that snapshots and recycled segments take part.
const SMALL_LOG: [&str; 4] = ["--log-segment-bytes", "8MiB", "--log-bytes-max", "64MiB"];
const DAY_MS: i64 = 86_400_000;
/// Retention and repairs come round by themselves.
const ROUND_DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn kills_while_flushing_one_shard() {
    kills_while_flushing(1);
}

#[test]
fn kills_while_flushing_two_shards() {
    kills_while_flushing(2);
}

/// `kill -9` at random moments of flushes and merges that follow each other without a pause.
fn kills_while_flushing(shards: u32) {
    let mut random = Random::from_environment();
    let mut server = Server::start_with(shards, None, &SMALL_LOG);
    let mut sender = Sender::start(&server, "remote-write", random.next());
    for kill in 1..=KILLS {
        sender.wait_for_acks(3);
        let moment = Duration::from_millis(u64::try_from(random.below(MOMENT_MS_MAX)).expect("ms"));
        let flushes = flush_until_killed(&mut server, moment);
        println!("kill {kill}: {moment:?} after the first acks, {flushes} flushes and merges");
        check_clean(server.data());
        server.restart(shards);
        assert!(!server.log().contains("ERROR"), "an alarm without a cause:\n{}", server.log());
    }
    sender.wait_for_acks(3);
    sender.stop();
    sender.verify(&server);
    flush(&server);
    sender.verify(&server);
    compact(&server);
    sender.verify(&server);
    server.kill9();
    check_clean(server.data());
    // Blocks are the node's: another number of shards reads them as well.
    server.restart(3 - shards);
    sender.verify(&server);
}

/// Flushes and merges in turn, and kills the server `moment` later; how many were done by then.
fn flush_until_killed(server: &mut Server, moment: Duration) -> usize {
    let killed = AtomicBool::new(false);
    let port = server.port();
    std::thread::scope(|scope| {
        let flusher = scope.spawn(|| {
            let mut done = 0;
            while !killed.load(Ordering::Relaxed) {
                // What the kill cuts off has no answer.
                let all_well = ["flush", "compact"]
                    .iter()
                    .all(|what| ask(port, what).is_ok_and(|answer| answer.status < 300));
                done += usize::from(all_well);
            }
            done
        });
        // The moment is the point of the test, not a way to wait for something.
        std::thread::sleep(moment);
        server.kill9();
        killed.store(true, Ordering::Relaxed);
        flusher.join().expect("it only asks")
    })
}

#[test]
fn backfill_one_shard() {
    backfill(1);
}

#[test]
fn backfill_two_shards() {
    backfill(2);
}

/// Live series get samples of a day and of a year ago.
fn backfill(shards: u32) {
    let options = ["--allow-backfill", "--retention", "1000d"];
    let mut server = Server::start_with(shards, None, &options);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = folder.path().join("ledger");
    let shape = "--shape tsbs --series 400 --step 10s";
    send(&server, &format!("{shape} --span 10m"), &ledger);
    let json = format!("{shape} --protocol vm-json --points-per-series 50");
    send(&server, &format!("{json} --span 3h --ago 25h"), &ledger);
    send(&server, &format!("{json} --span 3h --ago 365d"), &ledger);
    verify(&server, &ledger);
    flush(&server);
    verify(&server, &ledger);
    // Over it, into blocks that overlap: the same samples again, which must not count twice.
    send(&server, &format!("{json} --span 1h --ago 365d --seed 2"), &ledger);
    flush(&server);
    verify(&server, &ledger);
    server.kill9();
    check_clean(server.data());
    server.restart(shards);
    verify(&server, &ledger);
    compact(&server);
    verify(&server, &ledger);
}

/// Without leave an old sample of a live series is refused; before the retention every one is.
#[test]
fn old_samples_need_leave() {
    let server = Server::start_with(1, None, &["--retention", "30d"]);
    let now = now_ms();
    assert_eq!(import(&server, "live", now - 60_000).status, 204);
    let (window, retention) = ("out-of-order-window", "retention");
    for (name, days, reason, limit) in
        [("live", 1, "too_old", window), ("ancient", 31, "older_than_retention", retention)]
    {
        let response = import(&server, name, now - days * DAY_MS);
        // An import is answered with 200 and what of it was refused.
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        let want = format!("\"refused\":{{\"{reason}\":1}},\"limits\":[\"{limit}\"]");
        assert!(response.text().contains(&want), "{name}: {}", response.text());
    }
    assert_eq!(count_samples(&server, "{__name__=~\"live|ancient\"}"), 1);
}

/// Whole blocks go once they are older than the retention.
#[test]
fn retention() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let now = now_ms();
    {
        let mut server =
            Server::start_with(1, Some(&data), &["--allow-backfill", "--retention", "30d"]);
        for days in [20, 5] {
            assert_eq!(import(&server, "aging", now - days * DAY_MS).status, 204);
        }
        flush(&server);
        assert_eq!(blocks(&server).len(), 2, "one block a range");
        server.terminate();
    }
    let mut server = Server::start_with(1, Some(&data), &["--retention", "10d"]);
    let gone = wait_for(ROUND_DEADLINE, || (blocks(&server).len() == 1).then_some(()));
    assert!(gone.is_some(), "the old block stays: {:?}\n{}", blocks(&server), server.log());
    assert_eq!(count_samples(&server, "aging"), 1);
    server.terminate();
    check_clean(&data);
}

#[test]
fn delete_one_shard() {
    delete(1);
}

#[test]
fn delete_two_shards() {
    delete(2);
}

/// Deleted samples are gone at once, for good, wherever they are; new ones of the same series stay.
fn delete(shards: u32) {
    let mut server = Server::start(shards);
    let now = now_ms();
    let start = now - 1_000_000;
    write_deletable(&server, start);
    flush(&server);
    write_deletable(&server, start + 500_000);
    assert_eq!(count_samples(&server, "deletable"), 400);
    // One of the two jobs whole; of the other only what is in the block.
    admin(&server, &format!("delete_series?match[]={}", escape("deletable{job=\"a\"}")));
    let end = (start + 400_000) as f64 / 1000.0;
    let partly = escape("deletable{job=\"b\"}");
    admin(&server, &format!("delete_series?match[]={partly}&start=0&end={end:.3}"));
    let check_all = |server: &Server, when: &str| {
        assert_eq!(count_samples(server, "deletable{job=\"a\"}"), 0, "{when}");
        assert_eq!(count_samples(server, "deletable{job=\"b\"}"), 100, "{when}");
        assert_eq!(count_samples(server, "kept"), 200, "{when}");
    };
    check_all(&server, "at once");
    server.kill9();
    check_clean(server.data());
    server.restart(shards);
    check_all(&server, "after a crash");
    flush(&server);
    check_all(&server, "after a flush");
    admin(&server, "clean_tombstones");
    check_all(&server, "without tombstones");
    compact(&server);
    check_all(&server, "merged");
    // A deleted series is not banned.
    write_deletable(&server, start + 900_000);
    assert_eq!(count_samples(&server, "deletable{job=\"a\"}"), 100);
    server.terminate();
    check_clean(server.data());
    server.restart(shards);
    assert_eq!(count_samples(&server, "deletable{job=\"a\"}"), 100);
}

/// 100 samples each of `deletable{job=a|b}`, ten series a job, and of `kept`.
fn write_deletable(server: &Server, start_ms: i64) {
    let mut series = Vec::new();
    for (name, job) in [("deletable", "a"), ("deletable", "b"), ("kept", "a")] {
        for number in 0..10 {
            let number = number.to_string();
            let labels = [("__name__", name), ("job", job), ("number", number.as_str())];
            let samples: Vec<(i64, f64)> =
                (0..10).map(|step| (start_ms + step * 1000, 1.5)).collect();
            series.push(Series::new(&labels, &samples));
        }
    }
    let response = server.client().request("POST", IMPORT_PATH, &[], &json_lines(&series));
    assert_eq!(response.expect("an answer").status, 204);
}

#[test]
fn bit_flips() {
    let mut random = Random::from_environment();
    let mut server = Server::start(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = folder.path().join("ledger");
    send(&server, "--shape tsbs --series 400 --step 10s --span 2h", &ledger);
    flush(&server);
    compact(&server);
    verify(&server, &ledger);
    server.terminate();
    check_clean(server.data());
    let whole = count_files_aside(server.data());
    for file in blocks(&server) {
        let before = std::fs::read(&file).expect("a block");
        for _ in 0..12 {
            let mut bytes = before.clone();
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            std::fs::write(&file, &bytes).expect("a block");
            let output = check(server.data());
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            let said = both(&output);
            assert_eq!(output.status.code(), Some(1), "byte {at} of {}: {said}", bytes.len());
            assert!(said.contains(&name), "it does not say which file: {said}");
        }
        // Left damaged: whatever is read of it, the process stays.
    }
    server.restart(1);
    for selector in ["{hostname=~\".+\"}", "{__name__=~\"cpu_.*\"}"] {
        // Some may be lost, none may be made up; an honest error is fine too.
        let path = format!("/api/v1/export?match[]={}", escape(selector));
        server.client().get(&path).ok();
    }
    assert!(server.is_running(), "damage takes the process down\n{}", server.log());
    assert_eq!(server.get("/-/healthy").status, 200);
    let now = now_ms();
    assert_eq!(import(&server, "after_damage", now).status, 204);
    assert_eq!(count_samples(&server, "after_damage"), 1);
    let counted =
        wait_for(ROUND_DEADLINE, || (count_files_aside(server.data()) > whole).then_some(()));
    assert!(counted.is_some(), "the damaged block is not set aside\n{}", server.log());
}

fn count_files_aside(data: &Path) -> usize {
    std::fs::read_dir(data.join("blocks/aside")).map_or(0, Iterator::count)
}

/// What is not ours is left alone, what is missing is said.
#[test]
fn foreign_and_missing_files() {
    let mut server = Server::start(1);
    let now = now_ms();
    assert_eq!(import(&server, "first", now).status, 204);
    flush(&server);
    assert_eq!(import(&server, "second", now).status, 204);
    flush(&server);
    server.terminate();
    let files = blocks(&server);
    assert_eq!(files.len(), 2);
    let folder = server.data().join("blocks");
    std::fs::write(folder.join("notes.txt"), "mine").expect("a file");
    std::fs::write(folder.join("block-00000000000000009999.blk"), "no block").expect("a file");
    std::fs::write(folder.join("block-00000000000000000077.blk.tmp"), "half").expect("a file");
    std::fs::remove_file(&files[0]).expect("a block");
    let output = check(server.data());
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let lost = files[0].file_stem().expect("a name").to_string_lossy().into_owned();
    assert!(both(&output).contains(&lost), "it does not say which is lost: {}", both(&output));
    server.restart(1);
    // Of what the lost block held, the log may still have some: what it has comes back.
    assert!(count_samples(&server, "first") <= 1);
    assert_eq!(count_samples(&server, "second"), 1);
    assert!(server.log().contains(&lost), "the loss is not said\n{}", server.log());
    assert!(count_files_aside(server.data()) >= 1, "what is no block is set aside, not deleted");
    server.terminate();
}

/// One sample of `<name>{job="e2e"}` by JSON lines.
#[track_caller]
fn import(server: &Server, name: &str, timestamp_ms: i64) -> Response {
    let series = [Series::new(&[("__name__", name), ("job", "e2e")], &[(timestamp_ms, 1.0)])];
    let response = server.client().request("POST", IMPORT_PATH, &[], &json_lines(&series));
    response.expect("an answer")
}

#[test]
fn inspect_says_what_a_block_holds() {
    let server = Server::start(1);
    assert_eq!(import(&server, "inspected", now_ms()).status, 204);
    flush(&server);
    for file in blocks(&server) {
        let output = crate::server::run_to_end(&["inspect", text(&file), "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", both(&output));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(json.to_string().contains("\"index_bytes\""), "{json}");
    }
}

/// A series that has no samples for a while leaves the memory, and comes back under its name.
#[test]
fn churn() {
    const WAVES: u32 = 5;
    const SERIES: u32 = 4000;
    let server = Server::start_with(1, None, &["--allow-backfill", "--retention", "30d"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = folder.path().join("ledger");
    for wave in 1..=WAVES {
        // Each wave is over for hours before the next one begins.
        let ago = 50 - wave * 5;
        let options = format!("--series {SERIES} --step 10s --span 1m --ago {ago}h --seed {wave}");
        send(&server, &options, &ledger);
        flush(&server);
    }
    let series = || server.metric_sum("tidegate_head_series").expect("a metric");
    let left = wait_for(ROUND_DEADLINE, || (series() < f64::from(2 * SERIES)).then_some(()));
    assert!(left.is_some(), "{} series stay in memory", series());
    verify(&server, &ledger);
    send(&server, "--series 100 --step 10s --span 1m --ago 2h --seed 1", &ledger);
    verify(&server, &ledger);
}
