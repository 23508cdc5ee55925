//! Snapshots and backups while samples come in: what was acknowledged before one began is in it,
//! whatever happens to the server afterwards.

use crate::admin::{admin, check_clean, command, compact, flush, text};
use crate::loadgen::{Sender, verify};
use crate::random::Random;
use crate::server::Server;
use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[test]
fn backup_one_shard() {
    backup(1);
}

#[test]
fn backup_two_shards() {
    backup(2);
}

fn backup(shards: u32) {
    let mut random = Random::from_environment();
    let mut server = Server::start(shards);
    let mut sender = Sender::start(&server, "remote-write", random.next());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = folder.path().join("backup");
    sender.wait_for_acks(50);
    flush(&server);
    command(&["backup", "--url", &server.url(), text(&target)]);
    let first = files_of(&target);
    sender.wait_for_acks(50);
    let known = sender.ledger_text();
    command(&["backup", "--url", &server.url(), text(&target)]);
    check_incremental(&first, &files_of(&target));
    sender.wait_for_acks(10);
    sender.stop();
    let ledger = folder.path().join("ledger");
    std::fs::write(&ledger, as_known_at(&known, &sender.ledger_text())).expect("a file");
    // The server goes on and changes its blocks; the backup is not a link to them.
    compact(&server);
    server.kill9();
    std::fs::remove_dir_all(server.data()).expect("its data");

    let restored = folder.path().join("restored");
    command(&["restore", text(&target), text(&restored)]);
    check_clean(&restored);
    let mut server = Server::start_with(3 - shards, Some(&restored), &[]);
    verify(&server, &ledger);
    server.kill9();
    server.restart(shards);
    verify(&server, &ledger);
}

/// A restore into a folder that holds something would mix two histories.
#[test]
fn restore_wants_an_empty_folder() {
    let server = Server::start(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = folder.path().join("backup");
    command(&["backup", "--url", &server.url(), text(&target)]);
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).expect("a folder");
    std::fs::write(taken.join("notes.txt"), "mine").expect("a file");
    let output = crate::server::run_to_end(&["restore", text(&target), text(&taken)]);
    assert_eq!(output.status.code(), Some(1), "{}", crate::admin::both(&output));
    assert_eq!(std::fs::read_dir(&taken).expect("a folder").count(), 1);
}

#[test]
fn snapshot_one_shard() {
    snapshot(1);
}

#[test]
fn snapshot_two_shards() {
    snapshot(2);
}

/// As in Prometheus: a folder that a server can be started on, of blocks that take no room twice.
fn snapshot(shards: u32) {
    let mut random = Random::from_environment();
    let mut server = Server::start(shards);
    let mut sender = Sender::start(&server, "vm-json", random.next());
    sender.wait_for_acks(50);
    flush(&server);
    sender.wait_for_acks(50);
    let known = sender.ledger_text();
    let answer = admin(&server, "snapshot").json();
    let name = answer["data"]["name"].as_str().expect("a name").to_owned();
    sender.wait_for_acks(10);
    sender.stop();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = folder.path().join("ledger");
    std::fs::write(&ledger, as_known_at(&known, &sender.ledger_text())).expect("a file");
    let taken = server.data().join("snapshots").join(name);
    let linked = files_of(&taken).values().filter(|file| file.links > 1).count();
    assert!(linked > 0, "no block of the snapshot is a hard link");
    compact(&server);
    server.terminate();

    let mut copy = Server::start_with(shards, Some(&taken), &[]);
    verify(&copy, &ledger);
    copy.terminate();
    check_clean(&taken);
}

/// The ledger as it ended, but only what was acknowledged at the time of `known` must be there:
/// what came later may be in a copy or not.
fn as_known_at(known: &str, ended: &str) -> String {
    let acked: HashSet<&str> = known.lines().filter(|line| line.contains("\"done\"")).collect();
    let keeps = |line: &&str| !line.contains("\"done\"") || acked.contains(line);
    let lines: Vec<&str> = ended.lines().filter(keeps).collect();
    lines.join("\n") + "\n"
}

struct Copied {
    inode: u64,
    modified_s: (i64, i64),
    links: u64,
}

/// The blocks anywhere below `folder`, by name.
fn files_of(folder: &Path) -> BTreeMap<PathBuf, Copied> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.append(&mut files_of(&path));
        } else if path.extension().is_some_and(|extension| extension == "blk") {
            let facts = path.metadata().expect("a file");
            let modified_s = (facts.mtime(), facts.mtime_nsec());
            found.insert(path, Copied { inode: facts.ino(), modified_s, links: facts.nlink() });
        }
    }
    found
}

/// Blocks of the first backup that are in the second were not written again.
#[track_caller]
fn check_incremental(first: &BTreeMap<PathBuf, Copied>, second: &BTreeMap<PathBuf, Copied>) {
    assert!(!first.is_empty(), "a backup behind a flush has blocks");
    let mut kept = 0;
    for (path, after) in second {
        if let Some(before) = first.get(path) {
            assert_eq!(before.inode, after.inode, "{} was written again", path.display());
            assert_eq!(before.modified_s, after.modified_s, "{}", path.display());
            kept += 1;
        }
    }
    println!("{kept} of {} blocks were there already", second.len());
}
