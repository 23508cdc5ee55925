//! DRIVER: `tidegate restore`: a backup or snapshot -> a data folder that a server starts on.
//!
//! Every block is read back and checked before it counts. The manifest comes last: without it no
//! server starts on what an interrupted restore left.

use std::io::{self, Write};
use std::path::Path;

use nix::fcntl::FlockArg;
use serde::Serialize;

use super::backup::lock_folder;
use super::copy::{Contents, check_unserved, copy_file, read_contents, sync_parent, write_text};
use super::fault::{OfflineFault, errno_fault};
use super::progress::Progress;
use super::quantity::{bytes, of};
use super::source::FileSource;
use crate::background::blocks::block::block_file_name;
use crate::background::blocks::store::LIST_NAME;
use crate::background::disk::Disk;
use crate::background::disk::plain::PlainDisk;
use crate::background::folder::{BLOCKS_NAME, MANIFEST_NAME, TEMPORARY_SUFFIX};
use crate::base::ready::run_ready;
use crate::node::block::check::check_block;

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their samples.
    pub samples: u64,
}

/// Restores `target` to `folder`, and prints what was done.
pub fn run(
    target: &Path,
    folder: &Path,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<(), OfflineFault> {
    let _lock = lock_folder(target, FlockArg::LockSharedNonblock)?;
    let mut progress = Progress::new("copied and checked");
    let restored = run_ready(restore(&PlainDisk, target, folder, &mut progress));
    drop(progress);
    let report = restored?;
    if is_json {
        serde_json::to_writer(&mut *out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        let (all, size, samples) =
            (of(report.blocks, "block"), bytes(report.bytes), of(report.samples, "sample"));
        let folder = folder.display();
        writeln!(out, "{folder}: {all}, {size}, {samples}, all checked")?;
        writeln!(out, "start it with: tidegate serve --data {folder}")?;
    }
    out.flush()?;
    Ok(())
}

/// Copies everything, or nothing.
pub(super) async fn restore<D: Disk>(
    disk: &D,
    target: &Path,
    folder: &Path,
    progress: &mut Progress,
) -> Result<RestoreReport, OfflineFault> {
    check_unserved(disk, target).await?;
    let contents = read_contents(disk, target).await?;
    let is_new = match disk.list(folder).await {
        Ok(entries) if entries.is_empty() => false,
        Ok(_) => {
            return Err(OfflineFault::Unfit {
                path: folder.to_owned(),
                cause: "it is not empty; restore into a new or an empty folder".into(),
            });
        }
        Err(libc::ENOENT) => true,
        Err(errno) => return Err(errno_fault("list", folder)(errno)),
    };
    let copied = copy(disk, (target, &contents), folder, progress).await;
    if copied.is_err() {
        remove_copied(disk, folder, is_new, &contents).await;
    }
    copied
}

async fn copy<D: Disk>(
    disk: &D,
    (target, contents): (&Path, &Contents),
    folder: &Path,
    progress: &mut Progress,
) -> Result<RestoreReport, OfflineFault> {
    let (from, to) = (target.join(BLOCKS_NAME), folder.join(BLOCKS_NAME));
    disk.make_folder(&to).await.map_err(errno_fault("make", &to))?;
    for entry in disk.list(&from).await.map_err(errno_fault("list", &from))? {
        // Written, and read back.
        progress.add_total(2 * entry.len_bytes);
    }
    let mut report = RestoreReport::default();
    for id in &contents.list.blocks {
        let name = block_file_name(*id);
        let temporary = to.join(format!("{name}{TEMPORARY_SUFFIX}"));
        let source = from.join(&name);
        report.bytes += copy_file(disk, &source, &temporary, progress).await?;
        let samples = check_copy(disk, &temporary, (*id, contents.list.node), progress).await?;
        report.samples += samples.map_err(|what| OfflineFault::Damaged { path: source, what })?;
        report.blocks += 1;
        let path = to.join(&name);
        disk.rename(&temporary, &path).await.map_err(errno_fault("rename", &temporary))?;
    }
    disk.sync_folder(&to).await.map_err(errno_fault("sync", &to))?;
    write_text(disk, &to, LIST_NAME, &contents.list.encode()).await?;
    disk.sync_folder(folder).await.map_err(errno_fault("sync", folder))?;
    write_text(disk, folder, MANIFEST_NAME, &contents.manifest_text).await?;
    sync_parent(disk, folder).await?;
    Ok(report)
}

/// Checks every byte of a block; how many samples it has, or what is wrong with it.
async fn check_copy<D: Disk>(
    disk: &D,
    path: &Path,
    (id, node): (u64, u128),
    progress: &mut Progress,
) -> Result<Result<u64, String>, OfflineFault> {
    let source = FileSource::open(disk, path, progress).await;
    let source = source.map_err(errno_fault("open", path))?;
    let check = match check_block(&source, source.len_bytes()).await {
        Ok(check) => check,
        Err(fault) => return Ok(Err(format!("it {fault}"))),
    };
    if check.meta.id != id || check.meta.node != node {
        return Ok(Err("it is another block".into()));
    }
    Ok(match check.faults.first() {
        None => Ok(check.meta.samples),
        Some(flaw) => Err(format!("{}, near byte {}", flaw.text, flaw.offset)),
    })
}

/// As it was before, as far as the disk lets it: nothing was in the folder.
async fn remove_copied<D: Disk>(disk: &D, folder: &Path, is_new: bool, contents: &Contents) {
    let blocks = folder.join(BLOCKS_NAME);
    let names = contents.list.blocks.iter().map(|id| block_file_name(*id));
    for name in names.chain([LIST_NAME.to_owned()]) {
        let _ = disk.remove(&blocks.join(format!("{name}{TEMPORARY_SUFFIX}"))).await;
        let _ = disk.remove(&blocks.join(&name)).await;
    }
    let _ = disk.remove_folder(&blocks).await;
    let _ = disk.remove(&folder.join(format!("{MANIFEST_NAME}{TEMPORARY_SUFFIX}"))).await;
    let _ = disk.remove(&folder.join(MANIFEST_NAME)).await;
    if is_new {
        let _ = disk.remove_folder(folder).await;
    }
}
