//! The commands on files, on what a real server wrote: every kind of damage is found and named, and
//! the exit codes say what happened.

use crate::admin::{both, check, check_clean, command, flush, text};
use crate::loadgen::{send, verify};
use crate::random::Random;
use crate::server::{Server, free_port, run_to_end};
use std::path::{Path, PathBuf};

/// Snapshots of the head come soon.
const SMALL_LOG: [&str; 4] = ["--log-segment-bytes", "8MiB", "--log-bytes-max", "8MiB"];

/// A stopped server's folder with a file of every kind, and the ledger of what is in it.
fn stopped_server(folder: &Path) -> (Server, PathBuf) {
    let mut server = Server::start_with(1, None, &SMALL_LOG);
    let ledger = folder.join("ledger");
    send(&server, "--shape tsbs --series 2000 --step 10s --span 40m", &ledger);
    flush(&server);
    send(&server, "--shape tsbs --series 2000 --step 10s --span 30m --seed 2", &ledger);
    server.terminate();
    (server, ledger)
}

fn find(data: &Path, folder: &str, ending: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir(data.join(folder))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("there is no *{ending} in {folder}"))
}

#[test]
fn damage_is_found_in_every_kind_of_file() {
    let mut random = Random::from_environment();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (server, _) = stopped_server(folder.path());
    let data = server.data();
    check_clean(data);
    let shard = "incarnation-1/shard-0";
    let files = [
        data.join("MANIFEST"),
        data.join("blocks/BLOCKS"),
        find(data, "blocks", ".blk"),
        find(data, shard, ".snap"),
    ];
    for file in files {
        let whole = std::fs::read(&file).expect("a file");
        for _ in 0..10 {
            let mut bytes = whole.clone();
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            std::fs::write(&file, &bytes).expect("a file");
            let output = check(data);
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            assert_eq!(output.status.code(), Some(1), "{name}, byte {at}: {}", both(&output));
            assert!(both(&output).contains(&name), "{name}, byte {at}: {}", both(&output));
            let inspected = run_to_end(&["inspect", text(&file)]);
            assert!(inspected.status.code().is_some(), "{name}, byte {at}: it crashed");
        }
        std::fs::write(&file, &whole).expect("a file");
    }
    // In the log what no later record calls durable may be torn: the first record is not that.
    let (file, first) = segment_with_records(data, shard);
    let at = first + random.below(1000);
    let whole = std::fs::read(&file).expect("a file");
    let mut bytes = whole.clone();
    bytes[at] ^= 1 << random.below(8);
    std::fs::write(&file, &bytes).expect("a file");
    let output = check(data);
    assert_eq!(output.status.code(), Some(1), "byte {at}: {}", both(&output));
    assert!(both(&output).contains("acknowledged record"), "byte {at}: {}", both(&output));
    let inspected = run_to_end(&["inspect", text(&file), "--json"]);
    assert_eq!(inspected.status.code(), Some(1), "byte {at}");
    std::fs::write(&file, &whole).expect("a file");
    check_clean(data);
}

/// A segment with several records, and where the first of them begins.
fn segment_with_records(data: &Path, shard: &str) -> (PathBuf, usize) {
    let entries = std::fs::read_dir(data.join(shard)).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_segment = |path: &PathBuf| path.to_string_lossy().contains("/segment-");
    for file in paths.filter(is_segment) {
        let output = run_to_end(&["inspect", text(&file), "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        // Older ones than the snapshot do not count any more.
        let is_needed =
            !both(&check(data)).contains(&*file.file_name().expect("a name").to_string_lossy());
        if json["record_count"].as_u64().is_some_and(|count| count > 2) && is_needed {
            let offset = json["records"][0]["offset"].as_u64().expect("a number");
            return (file, usize::try_from(offset).expect("small"));
        }
    }
    panic!("no segment has records")
}

#[test]
fn exit_codes_and_messages() {
    #[track_caller]
    fn says(arguments: &[&str], code: i32, what: &str) {
        let output = run_to_end(arguments);
        let said = both(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(what), "{arguments:?}: no {what:?} in: {said}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = folder.path().join("backup");
    let server = Server::start(1);
    says(&["check", "data", text(server.data())], 2, "a server runs on it");
    says(&["check", "data", "/nonexistent"], 2, "it is no folder");
    says(&["check", "data", text(folder.path())], 2, "it has no MANIFEST");
    says(&["inspect", "/nonexistent"], 2, "cannot open");
    says(&["inspect", "/bin/sh"], 2, "it begins as no block");
    says(&["inspect", text(&server.data().join("MANIFEST"))], 0, "shards");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    says(&["backup", "--url", &nobody, text(&target)], 1, "cannot POST");
    says(&["backup", "--url", "https://127.0.0.1:1", text(&target)], 1, "TLS is not spoken");
    // Of nothing, and into what is no backup.
    command(&["backup", "--url", &server.url(), text(&target)]);
    says(&["check", "data", text(&target)], 0, "nothing is wrong");
    says(&["backup", "--url", &server.url(), text(server.data())], 1, "a server ran on it");
    let snapshots = server.data().join("snapshots");
    let left = std::fs::read_dir(&snapshots).map_or(0, Iterator::count);
    assert_eq!(left, 0, "snapshots stay behind");
}

#[test]
fn a_damaged_backup_is_not_restored_and_the_next_one_is_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut server, ledger) = stopped_server(folder.path());
    server.restart(1);
    let (target, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    command(&["backup", "--url", &server.url(), text(&target)]);
    let block = find(&target, "blocks", ".blk");
    let whole = std::fs::read(&block).expect("a block");
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 4;
    std::fs::write(&block, &bytes).expect("a block");
    let output = run_to_end(&["restore", text(&target), text(&restored)]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let name = block.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(both(&output).contains(&name), "{}", both(&output));
    assert!(!restored.exists(), "something of it stays");
    std::fs::remove_file(&block).expect("a block");
    command(&["backup", "--url", &server.url(), text(&target)]);
    server.kill9();
    command(&["restore", text(&target), text(&restored)]);
    let copy = Server::start_with(1, Some(&restored), &[]);
    verify(&copy, &ledger);
}
