//! A copy of all blocks at one moment, by second names for their files: it costs no room until they
//! are merged, and can be copied at leisure.

use std::path::Path;
use std::rc::Rc;

use super::block::block_file_name;
use super::store::BlockStore;
use crate::background::disk::{DISK_BLOCK_BYTES, Disk, DiskFile};

/// Where snapshots lie in the data folder.
pub const SNAPSHOTS: &str = "snapshots";

/// Makes `snapshots/<name>` with the blocks that there are now; returns its path. A name that was
/// used before is refused (EEXIST).
pub async fn take_snapshot<D: Disk>(store: &Rc<BlockStore<D>>, name: &str) -> Result<String, i32> {
    let disk = store.disk();
    let data = store.folder().parent().ok_or(libc::ENOENT)?.to_owned();
    let folder = data.join(SNAPSHOTS).join(name);
    let blocks = folder.join("blocks");
    if disk.list(&blocks).await.is_ok() {
        return Err(libc::EEXIST);
    }
    match fill(store, &data, &folder).await {
        Ok(()) => Ok(folder.to_string_lossy().into_owned()),
        Err(errno) => {
            remove(disk, &folder).await;
            Err(errno)
        }
    }
}

async fn fill<D: Disk>(store: &BlockStore<D>, data: &Path, folder: &Path) -> Result<(), i32> {
    let (disk, blocks) = (store.disk(), folder.join("blocks"));
    disk.make_folder(&blocks).await?;
    // No block goes while its second name is made: `list` holds the turn.
    let list = store.list_with(async |ids: &[u64]| {
        for id in ids {
            let file = block_file_name(*id);
            disk.link(&store.folder().join(&file), &blocks.join(&file)).await?;
        }
        Ok(())
    });
    let text = list.await?;
    write(disk, &blocks.join("BLOCKS"), text.into_bytes()).await?;
    disk.sync_folder(&blocks).await?;
    copy(disk, &data.join("MANIFEST"), &folder.join("MANIFEST")).await?;
    for parent in [folder, &data.join(SNAPSHOTS), data] {
        disk.sync_folder(parent).await?;
    }
    Ok(())
}

/// What was not finished goes, as far as the disk lets it: its names would keep blocks on the disk
/// that are merged or too old, and a full disk full.
async fn remove<D: Disk>(disk: &D, folder: &Path) {
    let blocks = folder.join("blocks");
    for entry in disk.list(&blocks).await.unwrap_or_default() {
        let _ = disk.remove(&blocks.join(entry.name)).await;
    }
    let _ = disk.remove(&folder.join("MANIFEST")).await;
    let _ = disk.remove_folder(&blocks).await;
    let _ = disk.remove_folder(folder).await;
}

async fn write<D: Disk>(disk: &D, path: &Path, mut bytes: Vec<u8>) -> Result<(), i32> {
    let len = bytes.len();
    bytes.resize(len.next_multiple_of(DISK_BLOCK_BYTES), b' ');
    let file = disk.create(path).await?;
    file.write_at(&bytes, 0).await?;
    file.set_len(len as u64).await?;
    file.sync().await
}

async fn copy<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), i32> {
    let file = disk.open(from).await?;
    let len = usize::try_from(file.len_bytes().await?).map_err(|_| libc::EFBIG)?;
    let mut bytes = Vec::new();
    file.read_at(0, len, &mut bytes).await?;
    write(disk, to, bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::background::disk::plain::PlainDisk;
    use crate::base::ready::run_ready;

    /// A snapshot that failed, for want of room perhaps, left second names of all blocks behind:
    /// what retention or a merge removed from then on stayed on the disk, and nobody knew why.
    #[test]
    fn a_snapshot_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        run_ready(async {
            let opened = BlockStore::open(&PlainDisk, &data.join("blocks"), 1, 0).await;
            let store = Rc::new(opened.expect("an empty folder").0);
            assert_eq!(take_snapshot(&store, "7").await, Err(libc::ENOENT), "no MANIFEST");
            assert!(!data.join(SNAPSHOTS).join("7").exists());
            std::fs::write(data.join("MANIFEST"), "whose").expect("a good disk");
            assert!(take_snapshot(&store, "7").await.is_ok());
            assert_eq!(take_snapshot(&store, "7").await, Err(libc::EEXIST));
            assert!(data.join(SNAPSHOTS).join("7/blocks/BLOCKS").exists());
        });
    }
}
