//! Backups are whole at every moment, hold what the server had, and are copied once; a restore is
//! all or nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::failing::FailingDisk;
use super::folder::{
    BLOCK_SAMPLES, Data, NODE, files_below, write_backup, write_block, write_list,
};
use crate::background::blocks::store::BlockStore;
use crate::background::disk::plain::PlainDisk;
use crate::background::folder::{DataFolder, FolderFault};
use crate::base::ready::run_ready;
use crate::offline::backup::{BackupReport, remove_snapshot, target};
use crate::offline::check::check_folder;
use crate::offline::copy::read_contents;
use crate::offline::fault::OfflineFault;
use crate::offline::progress::Progress;
use crate::offline::restore::{RestoreReport, restore};

/// Two snapshots of one server, between which block 2 went and block 3 came.
struct Server {
    folder: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = Self { folder };
        write_backup(&server.path("one"), NODE, &[1, 2]);
        write_backup(&server.path("two"), NODE, &[1, 3]);
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn back_up(&self, snapshot: &str) -> Result<BackupReport, OfflineFault> {
        back_up(&PlainDisk, &self.path(snapshot), &self.path("target"))
    }
}

fn back_up<D: crate::background::disk::Disk>(
    disk: &D,
    snapshot: &Path,
    target: &Path,
) -> Result<BackupReport, OfflineFault> {
    fs::create_dir_all(target).expect("a folder");
    run_ready(async {
        target::prepare(disk, target).await?;
        target::update(disk, snapshot, target, &mut Progress::new("copied")).await
    })
}

fn restore_to(target: &Path, folder: &Path) -> Result<RestoreReport, OfflineFault> {
    run_ready(restore(&PlainDisk, target, folder, &mut Progress::new("copied")))
}

fn blocks_of(folder: &Path) -> Vec<u64> {
    run_ready(read_contents(&PlainDisk, folder)).expect("a backup").list.blocks
}

#[test]
fn only_new_blocks_are_copied_and_old_ones_go() {
    let server = Server::new();
    let report = server.back_up("one").expect("a backup");
    assert_eq!((report.copied_blocks, report.reused_blocks, report.removed_blocks), (2, 0, 0));
    let kept = server.path("target/blocks/block-00000000000000000001.blk");
    let before = fs::metadata(&kept).expect("a block");
    let report = server.back_up("two").expect("a backup");
    assert_eq!((report.copied_blocks, report.reused_blocks, report.removed_blocks), (1, 1, 1));
    let after = fs::metadata(&kept).expect("a block");
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    let want: Vec<_> = files_below(&server.path("two"));
    let got = files_below(&server.path("target"));
    assert_eq!(want.len(), got.len());
    for ((name, want), (_, got)) in want.iter().zip(&got) {
        assert_eq!(want.trim_ascii_end(), got.trim_ascii_end(), "{}", name.display());
    }
    let report = server.back_up("two").expect("a backup");
    assert_eq!((report.copied_bytes, report.reused_blocks), (0, 2));
}

/// The disk fails at every single change of the second backup. Red if the list is written before
/// the blocks, or if the old blocks go before the list is replaced.
#[test]
fn an_interrupted_backup_leaves_the_one_before() {
    let mut changes = 0;
    loop {
        let server = Server::new();
        server.back_up("one").expect("a backup");
        let disk = FailingDisk::new(changes);
        let outcome = back_up(&disk, &server.path("two"), &server.path("target"));
        let listed = blocks_of(&server.path("target"));
        let is_new = listed == [1, 3];
        assert!(is_new || listed == [1, 2], "{changes}: {listed:?}");
        assert!(is_new || outcome.is_err(), "{changes}");
        let restored = server.path("restored");
        let report = restore_to(&server.path("target"), &restored).expect("a whole backup");
        assert_eq!((report.blocks, report.samples), (2, 2 * BLOCK_SAMPLES), "{changes}");
        let check = check_folder(&restored, &mut Progress::new("checked")).expect("a folder");
        assert_eq!(check.faults, [], "{changes}");
        // The next one finishes what this one began.
        server.back_up("two").expect("a backup");
        let check = check_folder(&server.path("target"), &mut Progress::new("checked"));
        let check = check.expect("a backup");
        assert_eq!((check.faults.len(), check.files), (0, 4), "{changes}: {check:?}");
        if outcome.is_ok() {
            break;
        }
        changes += 1;
    }
    assert!(changes > 15, "{changes}");
}

#[test]
fn a_restore_is_all_or_nothing() {
    let server = Server::new();
    server.back_up("one").expect("a backup");
    let (target, folder) = (server.path("target"), server.path("restored"));
    let mut changes = 0;
    loop {
        let disk = FailingDisk::new(changes);
        let outcome = run_ready(restore(&disk, &target, &folder, &mut Progress::new("copied")));
        if outcome.is_ok() {
            break;
        }
        // The disk did not even let it tidy up: no server takes it for the data.
        let is_there = folder.exists();
        match DataFolder::open(&folder, 1) {
            Err(FolderFault::NoManifest { .. }) => {}
            Ok(_) => {
                let list = fs::read_dir(folder.join("blocks")).into_iter().flatten();
                let names = list.map(|entry| entry.expect("an entry").file_name());
                let has_blocks = names.filter(|name| name.as_encoded_bytes().ends_with(b".blk"));
                let is_whole = folder.join("blocks/BLOCKS").exists();
                assert!(is_whole || has_blocks.count() == 0, "{changes}: {is_there}");
            }
            Err(fault) => panic!("{changes}: {fault}"),
        }
        let _ = fs::remove_dir_all(&folder);
        changes += 1;
    }
    assert!(changes > 15, "{changes}");
}

#[test]
fn a_damaged_block_is_not_restored() {
    let server = Server::new();
    server.back_up("one").expect("a backup");
    let block = server.path("target/blocks/block-00000000000000000002.blk");
    let mut bytes = fs::read(&block).expect("a block");
    bytes[100] ^= 1;
    fs::write(&block, bytes).expect("a file");
    let folder = server.path("restored");
    let fault = restore_to(&server.path("target"), &folder).expect_err("damaged");
    assert!(fault.to_string().contains("target/blocks/block-00000000000000000002.blk"), "{fault}");
    assert!(!folder.exists(), "what was copied is gone");
    // The next backup mends it: its ends are whole, so only a check finds this one; a damaged end
    // is copied again.
    let mut bytes = fs::read(&block).expect("a block");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&block, bytes).expect("a file");
    let report = server.back_up("one").expect("a backup");
    assert_eq!((report.copied_blocks, report.reused_blocks), (1, 1));
    restore_to(&server.path("target"), &folder).expect("a whole backup");
}

#[test]
fn restores_go_into_empty_folders_only() {
    let server = Server::new();
    server.back_up("one").expect("a backup");
    let folder = server.path("taken");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("notes.txt"), "mine").expect("a file");
    let fault = restore_to(&server.path("target"), &folder).expect_err("not empty");
    assert!(fault.to_string().contains("not empty"), "{fault}");
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
    fs::remove_file(folder.join("notes.txt")).expect("a file");
    restore_to(&server.path("target"), &folder).expect("an empty folder");
}

/// With another number of shards too; the log's folders are made, also after a start that was cut
/// off there.
#[test]
fn a_server_starts_on_a_restored_folder() {
    let server = Server::new();
    server.back_up("one").expect("a backup");
    let folder = server.path("restored");
    restore_to(&server.path("target"), &folder).expect("a whole backup");
    fs::create_dir_all(folder.join("incarnation-1")).expect("a folder");
    for _ in 0..2 {
        let data = DataFolder::open(&folder, 3).expect("a data folder");
        assert_eq!((data.manifest().node, data.manifest().shards), (NODE, 1));
        assert!(data.shard_folder(0).is_dir());
        let blocks = folder.join("blocks");
        let opened = BlockStore::open(&PlainDisk, &blocks, NODE, 0);
        let (_, report) = run_ready(opened).expect("blocks");
        assert_eq!(report.blocks, 2);
        assert!(report.adopted.is_empty() && report.set_aside.is_empty(), "{report:?}");
    }
    // It is a data folder of its own now.
    let fault = server_fault(back_up(&PlainDisk, &server.path("two"), &folder));
    assert!(fault.contains("a server ran on it"), "{fault}");
    let fault = server_fault(restore_to(&folder, &server.path("again")));
    assert!(fault.contains("a server ran on it"), "{fault}");
}

fn server_fault<T: std::fmt::Debug>(outcome: Result<T, OfflineFault>) -> String {
    outcome.expect_err("refused").to_string()
}

#[test]
fn histories_are_not_mixed() {
    let server = Server::new();
    server.back_up("one").expect("a backup");
    write_backup(&server.path("other"), NODE + 1, &[1]);
    let fault = server_fault(server.back_up("other"));
    assert!(fault.contains("it is a backup of node"), "{fault}");
    // The same node, restored to an older state: another block 2.
    write_backup(&server.path("later"), NODE, &[1]);
    write_block(&server.path("later"), NODE, 2, vec![1]);
    write_list(&server.path("later"), NODE, &[2]);
    let fault = server_fault(server.back_up("later"));
    assert!(fault.contains("another block of this name"), "{fault}");
    assert_eq!(blocks_of(&server.path("target")), [1, 2]);
    let notes = server.path("notes");
    fs::create_dir(&notes).expect("a folder");
    fs::write(notes.join("notes.txt"), "mine").expect("a file");
    let fault = server_fault(back_up(&PlainDisk, &server.path("one"), &notes));
    assert!(fault.contains("neither empty nor a backup"), "{fault}");
}

/// Its path came from a server: whatever else lies there stays.
/// A folder with any `*.tmp` file passed for a backup, and lost those files.
#[test]
fn a_backup_leaves_the_files_of_others_alone() {
    let server = Server::new();
    let target = server.path("target");
    fs::create_dir(&target).expect("a folder");
    let theirs = target.join("letter.tmp");
    fs::write(&theirs, "theirs").expect("a file");
    let fault = server_fault(server.back_up("one"));
    assert!(fault.contains("neither empty nor a backup"), "{fault}");
    assert!(theirs.exists());
    fs::create_dir(target.join("blocks")).expect("a folder");
    let ours = ["MANIFEST.tmp", "blocks/BLOCKS.tmp", "blocks/block-00000000000000000009.blk.tmp"];
    for name in ours {
        fs::write(target.join(name), "unfinished").expect("a file");
    }
    server.back_up("one").expect("a backup");
    assert!(theirs.exists() && ours.iter().all(|name| !target.join(name).exists()));
}

#[test]
fn a_snapshot_is_removed_and_nothing_else() {
    let server = Server::new();
    remove_snapshot(&server.path("one")).expect("a snapshot");
    assert!(!server.path("one").exists());
    fs::write(server.path("two/blocks/notes.txt"), "mine").expect("a file");
    remove_snapshot(&server.path("two")).expect_err("something is left");
    assert!(server.path("two/blocks/notes.txt").exists());
    let data = Data::new();
    remove_snapshot(data.path()).expect_err("a data folder");
    assert!(data.block(1).exists() && data.path().join("MANIFEST").exists());
}
