//! DRIVER: `tidegate backup`: a snapshot of a running server, copied to a folder that is a whole
//! backup at every moment: the one before until the new list of blocks is in place.
//!
//! `request` asks the server, `target` copies. The server must run on this host: what it names is a
//! folder of hard links in its data folder, which goes when it has been copied.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use super::fault::{OfflineFault, io_fault};
use super::progress::Progress;
use super::quantity::{bytes, of};
use crate::background::blocks::block::parse_block_file_name;
use crate::background::blocks::snapshot::SNAPSHOTS;
use crate::background::blocks::store::LIST_NAME;
use crate::background::disk::plain::PlainDisk;
use crate::background::folder::{BLOCKS_NAME, LOCK_NAME, MANIFEST_NAME};
use crate::base::ready::run_ready;

mod request;
pub(super) mod target;

/// What a backup did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackupReport {
    /// Blocks that are in it now.
    pub blocks: u64,
    /// Of these, written now, and their bytes.
    pub copied_blocks: u64,
    /// See `copied_blocks`.
    pub copied_bytes: u64,
    /// Of these, there before, and their bytes.
    pub reused_blocks: u64,
    /// See `reused_blocks`.
    pub reused_bytes: u64,
    /// Blocks of the backup before that are not in this one.
    pub removed_blocks: u64,
    /// What could not be tidied up.
    pub notes: Vec<String>,
}

/// Backs up the server at `url` into `target`, and prints what was done.
pub fn run(
    url: &str,
    target: &Path,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<(), OfflineFault> {
    fs::create_dir_all(target).map_err(io_fault("make", target))?;
    let _lock = lock_folder(target, FlockArg::LockExclusiveNonblock)?;
    // What is found out now needs no snapshot.
    run_ready(target::prepare(&PlainDisk, target))?;
    let snapshot = request::take_snapshot(url)?;
    let mut progress = Progress::new("copied");
    let copied = run_ready(target::update(&PlainDisk, &snapshot, target, &mut progress));
    drop(progress);
    let removed = remove_snapshot(&snapshot);
    let mut report = copied?;
    if let Err(error) = removed {
        let path = snapshot.display();
        report.notes.push(format!("cannot remove the server's {path}: {error}; remove it by hand"));
    }
    if is_json {
        serde_json::to_writer(&mut *out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(target, &report, out)?;
    }
    out.flush()?;
    Ok(())
}

fn print(target: &Path, report: &BackupReport, out: &mut dyn Write) -> io::Result<()> {
    for note in &report.notes {
        writeln!(out, "note  {note}")?;
    }
    let (all, target) = (of(report.blocks, "block"), target.display());
    let (copied, copied_bytes) = (report.copied_blocks, bytes(report.copied_bytes));
    let (reused, reused_bytes) = (report.reused_blocks, bytes(report.reused_bytes));
    let removed = report.removed_blocks;
    writeln!(
        out,
        "{target}: {all}: {copied} copied ({copied_bytes}), {reused} there before \
         ({reused_bytes}); {removed} removed"
    )
}

/// One backup at a time, and no restore from it meanwhile.
pub(super) fn lock_folder(path: &Path, how: FlockArg) -> Result<Flock<File>, OfflineFault> {
    let folder = File::open(path).map_err(io_fault("open", path))?;
    Flock::lock(folder, how).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => OfflineFault::Unfit {
            path: path.to_owned(),
            cause: "another backup or restore uses it; wait until that is done".into(),
        },
        errno => io_fault("lock", path)(errno.into()),
    })
}

/// Removes what a snapshot consists of, and nothing else: the path came over the network.
pub(super) fn remove_snapshot(snapshot: &Path) -> io::Result<()> {
    let is_served = snapshot.join(LOCK_NAME).exists();
    if is_served {
        return Err(io::Error::other("a server ran on it"));
    }
    let blocks = snapshot.join(BLOCKS_NAME);
    for entry in fs::read_dir(&blocks)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == LIST_NAME || parse_block_file_name(&name).is_some() {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(snapshot.join(MANIFEST_NAME))?;
    fs::remove_dir(&blocks)?;
    fs::remove_dir(snapshot)
}

/// The folder that a server's answer names, if it is one that this process can copy and remove.
fn check_snapshot(name: &str, path: &str) -> Result<PathBuf, String> {
    let folder = PathBuf::from(path);
    let is_plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    if !is_plain || !folder.is_absolute() || !folder.ends_with(Path::new(SNAPSHOTS).join(name)) {
        return Err(format!("it names {path:?}, which is no folder of a snapshot"));
    }
    match fs::metadata(folder.join(MANIFEST_NAME)) {
        Ok(_) => Ok(folder),
        Err(error) => Err(format!(
            "its snapshot {path} cannot be read here ({error}): run this on the server's host, as \
             a user that may read and write its data folder"
        )),
    }
}
