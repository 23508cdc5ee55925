//! The folder of a backup, from one backup to the next.
//!
//! ```text
//! TARGET/MANIFEST               the server's
//! TARGET/blocks/BLOCKS          which blocks are in it; replaced last
//! TARGET/blocks/block-<id>.blk  a block that is there already is not copied again
//! *.tmp of these                unfinished; removed by the next backup
//! ```
//! Blocks never change, so those of the backup before and the new ones lie side by side until the
//! list is replaced; then the ones that it does not name go. An interrupted backup so leaves the
//! one before, and some blocks that the next one finds there.

use std::path::Path;

use super::BackupReport;
use crate::background::blocks::block::{RawSource, block_file_name, parse_block_file_name};
use crate::background::blocks::store::LIST_NAME;
use crate::background::disk::{Disk, DiskFile};
use crate::background::folder::{BLOCKS_NAME, MANIFEST_NAME, Manifest, TEMPORARY_SUFFIX};
use crate::node::block::format::BLOCK_EDGE_BYTES;
use crate::node::block::reader::read_meta;
use crate::offline::copy::{
    check_unserved, copy_file, read_contents, read_text, sync_parent, write_text,
};
use crate::offline::fault::{OfflineFault, errno_fault};
use crate::offline::progress::Progress;

/// Checks that the folder, which exists, is a backup or empty, and removes what an interrupted one
/// left.
pub async fn prepare<D: Disk>(disk: &D, target: &Path) -> Result<(), OfflineFault> {
    check_unserved(disk, target).await?;
    let entries = disk.list(target).await.map_err(errno_fault("list", target))?;
    // A first backup that was interrupted has blocks only.
    let is_ours = |name: &str| name == MANIFEST_NAME || name == BLOCKS_NAME;
    if !entries.is_empty() && !entries.iter().any(|entry| is_ours(&entry.name)) {
        return Err(OfflineFault::Unfit {
            path: target.to_owned(),
            cause: "it is neither empty nor a backup; give a folder of its own".into(),
        });
    }
    let blocks = target.join(BLOCKS_NAME);
    disk.make_folder(&blocks).await.map_err(errno_fault("make", &blocks))?;
    disk.sync_folder(target).await.map_err(errno_fault("sync", target))?;
    sync_parent(disk, target).await?;
    for folder in [target, &blocks] {
        for entry in disk.list(folder).await.map_err(errno_fault("list", folder))? {
            let path = folder.join(&entry.name);
            if !entry.is_folder && is_unfinished(&entry.name) {
                disk.remove(&path).await.map_err(errno_fault("remove", &path))?;
            }
        }
    }
    Ok(())
}

/// Whether a file is one of ours that was not finished. Others' files are left alone.
fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(TEMPORARY_SUFFIX).is_some_and(|name| {
        name == MANIFEST_NAME || name == LIST_NAME || parse_block_file_name(name).is_some()
    })
}

/// Makes the backup in `target`, which was prepared, one of `snapshot`.
pub async fn update<D: Disk>(
    disk: &D,
    snapshot: &Path,
    target: &Path,
    progress: &mut Progress,
) -> Result<BackupReport, OfflineFault> {
    let contents = read_contents(disk, snapshot).await?;
    check_node(disk, target, &contents.manifest).await?;
    let (from, to) = (snapshot.join(BLOCKS_NAME), target.join(BLOCKS_NAME));
    let mut report =
        BackupReport { blocks: contents.list.blocks.len() as u64, ..BackupReport::default() };
    let mut missing = Vec::new();
    for id in &contents.list.blocks {
        let name = block_file_name(*id);
        let (path, copy) = (from.join(&name), to.join(&name));
        let len = len_of(disk, &path).await?;
        if is_there(disk, &path, &copy).await? {
            report.reused_blocks += 1;
            report.reused_bytes += len;
        } else {
            progress.add_total(len);
            missing.push(name);
        }
    }
    for name in missing {
        let temporary = to.join(format!("{name}{TEMPORARY_SUFFIX}"));
        report.copied_bytes += copy_file(disk, &from.join(&name), &temporary, progress).await?;
        report.copied_blocks += 1;
        let path = to.join(&name);
        disk.rename(&temporary, &path).await.map_err(errno_fault("rename", &temporary))?;
    }
    // The names of the blocks before the list that says that they are there.
    disk.sync_folder(&to).await.map_err(errno_fault("sync", &to))?;
    write_text(disk, target, MANIFEST_NAME, &contents.manifest_text).await?;
    write_text(disk, &to, LIST_NAME, &contents.list.encode()).await?;
    report.removed_blocks = remove_unlisted(disk, &to, &contents.list.blocks).await?;
    Ok(report)
}

/// A backup is of one node.
async fn check_node<D: Disk>(
    disk: &D,
    target: &Path,
    manifest: &Manifest,
) -> Result<(), OfflineFault> {
    let path = target.join(MANIFEST_NAME);
    let text = match disk.open(&path).await {
        Err(libc::ENOENT) => return Ok(()),
        _ => read_text(disk, &path).await?,
    };
    match Manifest::decode(&text) {
        Ok(before) if before.node != manifest.node => Err(OfflineFault::Unfit {
            path: target.to_owned(),
            cause: format!(
                "it is a backup of node {:032x}, the server is {:032x}; give another folder",
                before.node, manifest.node
            ),
        }),
        // A damaged one is replaced.
        _ => Ok(()),
    }
}

async fn len_of<D: Disk>(disk: &D, path: &Path) -> Result<u64, OfflineFault> {
    let file = disk.open(path).await.map_err(errno_fault("open", path))?;
    file.len_bytes().await.map_err(errno_fault("read", path))
}

/// Whether the block `path` is at `copy` already.
///
/// A block's ends name it and hold the checksums of what holds the checksums of the rest, so equal
/// lengths and ends are equal blocks.
async fn is_there<D: Disk>(disk: &D, path: &Path, copy: &Path) -> Result<bool, OfflineFault> {
    let file = match disk.open(copy).await {
        Ok(file) => file,
        Err(libc::ENOENT) => return Ok(false),
        Err(errno) => return Err(errno_fault("open", copy)(errno)),
    };
    let source = disk.open(path).await.map_err(errno_fault("open", path))?;
    let ends = ends_of(&source).await.map_err(errno_fault("read", path))?;
    let copied = ends_of(&file).await.map_err(errno_fault("read", copy))?;
    if ends == copied {
        return Ok(true);
    }
    let raw = RawSource { disk, file: &file };
    if read_meta(&raw, copied.0).await.is_err() {
        // Damaged: whoever needs the backup before has lost it already.
        return Ok(false);
    }
    // The server was restored to an older state and went on from there: its new blocks have the
    // names of others, and replacing those would break the backup before.
    Err(OfflineFault::Unfit {
        path: copy.to_owned(),
        cause: "the server has another block of this name, as after a restore of an older backup; \
                give another folder for backups from now on"
            .into(),
    })
}

async fn ends_of<F: DiskFile>(file: &F) -> Result<(u64, Vec<u8>, Vec<u8>), i32> {
    let len = file.len_bytes().await?;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    file.read_at(0, BLOCK_EDGE_BYTES, &mut first).await?;
    let at = len.saturating_sub(BLOCK_EDGE_BYTES as u64);
    file.read_at(at, BLOCK_EDGE_BYTES, &mut last).await?;
    Ok((len, first, last))
}

/// Removes the blocks that are not in the backup any more; how many.
async fn remove_unlisted<D: Disk>(
    disk: &D,
    folder: &Path,
    listed: &[u64],
) -> Result<u64, OfflineFault> {
    let mut removed = 0;
    for entry in disk.list(folder).await.map_err(errno_fault("list", folder))? {
        let id = parse_block_file_name(&entry.name);
        if id.is_some_and(|id| !listed.contains(&id)) {
            let path = folder.join(&entry.name);
            disk.remove(&path).await.map_err(errno_fault("remove", &path))?;
            removed += 1;
        }
    }
    disk.sync_folder(folder).await.map_err(errno_fault("sync", folder))?;
    Ok(removed)
}
