//! A whole folder is whole, and every kind of damage is found and named.

use std::fs;
use std::path::Path;

use super::folder::{
    Data, GROUPS, NODE, SAMPLES, files_below, new_segment, write_block, write_list,
};
use crate::background::folder::DataFolder;
use crate::offline::check::{CheckReport, check_folder};
use crate::offline::fault::OfflineFault;
use crate::offline::progress::Progress;

fn check(folder: &Path) -> CheckReport {
    check_folder(folder, &mut Progress::new("checked")).expect("a data folder")
}

/// Checks that something is wrong in the file of that name.
#[track_caller]
fn finds(data: &Data, name: &str, what: &str) {
    let report = check(data.path());
    let found = report
        .faults
        .iter()
        .any(|fault| fault.file.ends_with(name) && (fault.what.contains(what) || what.is_empty()));
    assert!(found, "no fault of {name} with {what:?}: {report:?}");
}

#[track_caller]
fn notes(data: &Data, name: &str, what: &str) {
    let report = check(data.path());
    assert_eq!(report.faults, []);
    let found = report.notes.iter().any(|n| n.file.ends_with(name) && n.what.contains(what));
    assert!(found, "no note of {name} with {what:?}: {report:?}");
}

/// Flips bits of a file, one at a time, at these bytes.
#[track_caller]
fn finds_flips(data: &Data, path: &Path, at: impl Iterator<Item = usize>) {
    let bytes = fs::read(path).expect("a file");
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let mut tried = 0;
    for at in at.take_while(|at| *at < bytes.len()) {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 7);
        fs::write(path, &bad).expect("a file");
        let report = check(data.path());
        let is_found = report.faults.iter().any(|fault| fault.file.ends_with(&name));
        assert!(is_found, "{name}, byte {at} of {}: {report:?}", bytes.len());
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
    fs::write(path, &bytes).expect("a file");
    assert_eq!(check(data.path()).faults, []);
}

#[test]
fn a_whole_folder_is_whole_and_stays_as_it_is() {
    let data = Data::new();
    let before = files_below(data.path());
    let report = check(data.path());
    assert_eq!((report.faults, report.notes), (vec![], vec![]));
    assert_eq!((report.files, report.samples), (7, SAMPLES));
    let bytes: usize = before.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(report.bytes, bytes as u64 - 2, "all but LOCK");
    assert!(files_below(data.path()) == before, "a check writes nothing");
}

/// Red without the comparison with `encode` in `check_manifest` (the end of the last line).
#[test]
fn flips_in_texts_are_found() {
    let data = Data::new();
    finds_flips(&data, &data.path().join("MANIFEST"), 0..);
    let list = (0..160).chain((160..).step_by(131));
    finds_flips(&data, &data.list(), list);
}

/// Every single bit of a block is flipped in `node/block/tests.rs`.
#[test]
fn flips_in_blocks_are_found() {
    let data = Data::new();
    finds_flips(&data, &data.block(1), (0..).step_by(53));
}

/// Red without `check_padding` in `offline/head.rs`.
#[test]
fn flips_in_head_snapshots_are_found() {
    let data = Data::new();
    let len = fs::metadata(data.head()).expect("a file").len();
    let len = usize::try_from(len).expect("small");
    finds_flips(&data, &data.head(), (0..len).step_by(101).chain(len - 30..len));
}

/// In records that a later one calls durable; the zeros between groups mean nothing. Red without
/// the holes of `SegmentWalk`: a record whose first bytes changed is then found, but not where.
#[test]
fn flips_in_log_segments_are_found() {
    let data = Data::new();
    let header = (0..4096).step_by(397);
    // The second record is called durable by the third. Its 64 bytes of header, and behind them.
    let second = usize::try_from(GROUPS[1]).expect("small");
    finds_flips(&data, &data.segment(1), header.chain((second..second + 300).step_by(7)));
    for at in [second, second + 4, second + 17, second + 80] {
        let bytes = fs::read(data.segment(1)).expect("a file");
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        fs::write(data.segment(1), &bad).expect("a file");
        let report = check(data.path());
        let fault = &report.faults[0];
        // Behind the first record, up to where the second was.
        let place = GROUPS[0]..=GROUPS[1];
        assert!(place.contains(&fault.offset), "byte {at}: {fault:?}");
        assert!(fault.what.contains("1 acknowledged record lost"), "byte {at}: {fault:?}");
        fs::write(data.segment(1), &bytes).expect("a file");
    }
}

/// The end of the last write may be torn by any crash.
#[test]
fn a_torn_end_of_the_log_is_a_note() {
    let data = Data::new();
    let mut bytes = fs::read(data.segment(1)).expect("a file");
    let third = usize::try_from(GROUPS[2]).expect("small");
    bytes[third + 200..].fill(0);
    fs::write(data.segment(1), &bytes).expect("a file");
    notes(&data, "segment-00000000000000000001.log", "torn write at byte 12288");
}

#[test]
fn missing_files_are_found() {
    let data = Data::new();
    fs::remove_file(data.block(2)).expect("a file");
    finds(&data, "block-00000000000000000002.blk", "listed, and missing");
    let data = Data::new();
    fs::remove_file(data.list()).expect("a file");
    finds(&data, "BLOCKS", "missing");
    let data = Data::new();
    fs::remove_file(data.path().join("MANIFEST")).expect("a file");
    finds(&data, "MANIFEST", "missing");
    let data = Data::new();
    fs::remove_file(data.segment(1)).expect("a file");
    finds(&data, "segment-00000000000000000001.log", "missing between others");
    let data = Data::new();
    let bytes = fs::read(data.segment(2)).expect("a file");
    fs::write(data.segment(2), &bytes[..500_000]).expect("a file");
    finds(&data, "segment-00000000000000000002.log", "the file should have 1048576 bytes");
}

#[test]
fn what_lies_there_besides_is_noted() {
    let data = Data::new();
    let blocks = data.path().join("blocks");
    fs::create_dir_all(data.path().join("snapshots/one")).expect("a folder");
    notes(&data, "snapshots", "1 snapshot, not checked");
    fs::write(blocks.join("notes.txt"), "mine").expect("a file");
    notes(&data, "blocks/notes.txt", "not ours");
    fs::write(data.path().join("notes.txt"), "mine").expect("a file");
    notes(&data, "notes.txt", "not ours");
    fs::write(data.block(9999), "no block").expect("a file");
    notes(&data, "block-00000000000000009999.blk", "sets it aside");
    fs::write(blocks.join("block-00000000000000000077.tmp"), "half").expect("a file");
    notes(&data, "block-00000000000000000077.tmp", "unfinished");
    fs::create_dir_all(blocks.join("aside")).expect("a folder");
    fs::write(blocks.join("aside/block"), "damaged").expect("a file");
    notes(&data, "blocks/aside", "1 set aside before");
    fs::create_dir_all(data.path().join("incarnation-7/shard-0")).expect("a folder");
    notes(&data, "incarnation-7", "not the one that counts");
    write_block(data.path(), NODE, 3, Vec::new());
    notes(&data, "block-00000000000000000003.blk", "not listed");
    // The list names the third, which replaces the second.
    write_block(data.path(), NODE, 3, vec![2]);
    write_list(data.path(), NODE, &[1, 3]);
    notes(&data, "block-00000000000000000002.blk", "replaced by block 3");
    write_list(data.path(), NODE, &[1, 2, 3]);
    finds(&data, "block-00000000000000000002.blk", "block 3 has replaced it");
}

#[test]
fn files_of_others_are_found() {
    let data = Data::new();
    write_block(data.path(), NODE + 1, 2, Vec::new());
    finds(&data, "block-00000000000000000002.blk", "of node");
    let data = Data::new();
    write_list(data.path(), NODE + 1, &[1, 2]);
    finds(&data, "BLOCKS", "it is that of node");
    let data = Data::new();
    fs::write(data.segment(2), new_segment(3)).expect("a file");
    finds(&data, "segment-00000000000000000002.log", "belongs elsewhere");
}

#[test]
fn a_folder_in_use_and_what_is_none_cannot_be_checked() {
    let data = Data::new();
    let server = DataFolder::open(data.path(), 1).expect("a good folder");
    let fault = check_folder(data.path(), &mut Progress::new("checked")).expect_err("in use");
    assert!(matches!(fault, OfflineFault::Locked { .. }), "{fault}");
    drop(server);
    assert_eq!(check(data.path()).faults, []);
    let other = tempfile::tempdir().expect("a folder");
    let fault = check_folder(other.path(), &mut Progress::new("checked")).expect_err("empty");
    assert!(fault.to_string().contains("no data folder"), "{fault}");
    let fault = check_folder(&data.list(), &mut Progress::new("checked")).expect_err("a file");
    assert!(fault.to_string().contains("no folder"), "{fault}");
}
