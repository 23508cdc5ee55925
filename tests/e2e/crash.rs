//! `kill -9` at 20 random moments under load, and a restart each time: no acknowledged sample is
//! missing, none is invented. Also with another number of shards each time, and with the end of
//! each log damaged as a torn write does.
//!
//! Seen red when: a request is answered before its write begins; replay leaves out the newest
//! segments, or ends at the first torn tail; a part of a request goes missing between two shards; a
//! rebuild for another number of shards leaves an old shard out; only records count towards the
//! next
//! snapshot (the folder grows with each start); a start does not wait for the listener of the
//! killed
//! process. Not seen here: a missing sync, which only a power cut shows (`tests/sim`).

use crate::loadgen::Sender;
use crate::random::Random;
use crate::server::Server;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KILLS: usize = 20;
/// A moment is this much later than the first acknowledgements after a start, at most.
const MOMENT_MS_MAX: usize = 400;
/// After every so many kills comes one more, at most this long after the start.
const KILL_AT_START_EVERY: usize = 4;
const START_MS_MAX: usize = 100;
/// Small files, so that kills also hit rotations, snapshots and recycled segments; a snapshot only
/// every few starts, so that replay also reads what several killed processes left.
const SMALL_LOG: [&str; 4] = ["--log-segment-bytes", "8MiB", "--log-bytes-max", "64MiB"];
/// The newest of each shard: two spares, the one that is written to, and the one before it.
const SEGMENTS_TORN: usize = 4;
/// The unit in which the log is written.
const BLOCK_BYTES: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Restart {
    SameShards,
    OtherShards,
    TornTail,
}

#[test]
fn same_shards_one() {
    run(1, "remote-write", Restart::SameShards);
}

#[test]
fn same_shards_two() {
    run(2, "vm-json", Restart::SameShards);
}

#[test]
fn other_shards_each_time() {
    run(2, "remote-write", Restart::OtherShards);
}

#[test]
fn torn_tail_one_shard() {
    run(1, "remote-write", Restart::TornTail);
}

#[test]
fn torn_tail_two_shards() {
    run(2, "remote-write", Restart::TornTail);
}

fn run(shards: u32, protocol: &str, restart: Restart) {
    let mut random = Random::from_environment();
    let mut server = Server::start_with(shards, None, &SMALL_LOG);
    let mut sender = Sender::start(&server, protocol, random.next());
    for kill in 1..=KILLS {
        sender.wait_for_acks(3);
        let moment_ms = random.below(MOMENT_MS_MAX);
        // The moment is the point of the test, not a way to wait for something.
        std::thread::sleep(milliseconds(moment_ms));
        assert!(server.is_running(), "it ended by itself before kill {kill}");
        server.kill9();
        let mut shards_now = shards;
        match restart {
            Restart::SameShards => {}
            Restart::OtherShards => shards_now = [3, 1, 2][kill % 3],
            Restart::TornTail => tear_tails(server.data(), &mut random),
        }
        println!("kill {kill}: {moment_ms} ms after the first acks, {shards_now} shards next");
        if kill % KILL_AT_START_EVERY == 0 {
            let moment_ms = random.below(START_MS_MAX);
            println!("and once more {moment_ms} ms after the start");
            server.kill9_at_start(shards_now, milliseconds(moment_ms));
        }
        restart_unharmed(&mut server, shards_now);
    }
    sender.wait_for_acks(3);
    sender.stop();
    println!("{} requests acknowledged", sender.acked_requests());
    sender.verify(&server);
    check_size(server.data());
    // What was verified out of memory must be on the disk too.
    server.kill9();
    restart_unharmed(&mut server, shards);
    sender.verify(&server);
}

fn milliseconds(count: usize) -> Duration {
    Duration::from_millis(u64::try_from(count).expect("small"))
}

/// Each start makes new segments; the log must not grow with their number.
fn check_size(data: &Path) {
    const SHARD_MIB_MAX: u64 = 200;
    for shard in newest_shards(data) {
        let files = sorted_entries(&shard, "").into_iter();
        let bytes: u64 = files.map(|file| file.metadata().map_or(0, |file| file.len())).sum();
        assert!(bytes >> 20 < SHARD_MIB_MAX, "{} holds {} MiB", shard.display(), bytes >> 20);
    }
}

/// A kill and a torn write are everyday matters: the log speaks of no loss.
fn restart_unharmed(server: &mut Server, shards: u32) {
    server.restart(shards);
    let log = server.log();
    assert!(!log.contains("ERROR"), "an alarm without a cause:\n{log}");
}

/// Damages what lies behind the last byte written to each shard's newest segments.
fn tear_tails(data: &Path, random: &mut Random) {
    let segments = newest_segments(data);
    assert!(!segments.is_empty(), "no segment-*.log below {}", data.display());
    for segment in segments {
        let how = tear(&segment, random);
        println!("torn: {} {how}", segment.display());
    }
}

/// Only bytes behind the last written block are touched: those before it may have been
/// acknowledged, and no log can bring back what a disk has lost.
fn tear(segment: &Path, random: &mut Random) -> String {
    let file = OpenOptions::new().read(true).write(true).open(segment).expect("a segment");
    let bytes = std::fs::read(segment).expect("a segment");
    let end = written_end(&bytes);
    let write = |at: usize, torn: &[u8]| {
        file.write_all_at(torn, u64::try_from(at).expect("64 bits")).expect("a segment");
    };
    match random.below(5) {
        0 => {
            file.set_len(u64::try_from(end).expect("64 bits")).expect("a segment");
            format!("cut off at {end}")
        }
        1 => {
            let garbage_len = random.between(1, 64 << 10);
            let garbage = random.bytes(garbage_len);
            write(end, &garbage);
            format!("{garbage_len} random bytes at {end}")
        }
        2 if end > 0 => {
            // The front of something that was a record once, and then nothing; or not all of it.
            let blocks = end / BLOCK_BYTES;
            let from = random.below(blocks) * BLOCK_BYTES;
            let len = random.between(1, 64 << 10).min(end - from);
            let mut torn = bytes[from..from + len].to_vec();
            let flips = random.below(3);
            for _ in 0..flips {
                torn[random.below(len)] ^= 1 << random.below(8);
            }
            write(end, &torn);
            format!("{len} bytes of {from} again at {end}, {flips} bits flipped")
        }
        3 if bytes.len() > end => {
            let flips = random.between(1, 100);
            for _ in 0..flips {
                let at = random.between(end, bytes.len());
                write(at, &[1 << random.below(8)]);
            }
            format!("{flips} bits flipped behind {end}")
        }
        _ => format!("left alone at {end}"),
    }
}

/// The end of the last block that is not all zero: segments are preallocated.
fn written_end(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |at| (at + 1).next_multiple_of(BLOCK_BYTES))
}

/// `DIR/incarnation-N/shard-K/segment-*.log`: the last by name in each shard of the newest
/// incarnation.
fn newest_segments(data: &Path) -> Vec<PathBuf> {
    let newest_in = |shard: &PathBuf| {
        let segments = sorted_entries(shard, "segment-");
        let older = segments.len().saturating_sub(SEGMENTS_TORN);
        segments.into_iter().skip(older)
    };
    newest_shards(data).iter().flat_map(newest_in).collect()
}

fn newest_shards(data: &Path) -> Vec<PathBuf> {
    let incarnations = sorted_entries(data, "incarnation-");
    let newest = incarnations.iter().max_by_key(|path| number_in(path));
    newest.map_or_else(Vec::new, |path| sorted_entries(path, "shard-"))
}

fn sorted_entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a data folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    found.sort();
    found
}

/// The number behind the last `-` of a name, in hexadecimal, which orders decimal names of one
/// length too.
fn number_in(path: &Path) -> u64 {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let digits = stem.as_deref().and_then(|stem| stem.rsplit('-').next()).unwrap_or("");
    u64::from_str_radix(digits, 16).unwrap_or(0)
}

#[test]
fn tears_touch_nothing_before_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let shard = folder.path().join("incarnation-1/shard-0");
    std::fs::create_dir_all(&shard).expect("a folder");
    let segment = shard.join("segment-00000000000000000001.log");
    let mut random = Random::from_environment();
    let written = [vec![7; 3 * BLOCK_BYTES - 100], vec![0; 100]].concat();
    for _ in 0..200 {
        let file = File::create(&segment).expect("a segment");
        file.write_all_at(&written, 0).expect("a segment");
        file.set_len(1 << 20).expect("a segment");
        assert_eq!(newest_segments(folder.path()), [segment.as_path()]);
        tear_tails(folder.path(), &mut random);
        let torn = std::fs::read(&segment).expect("a segment");
        assert_eq!(torn[..written.len()], written);
    }
}
