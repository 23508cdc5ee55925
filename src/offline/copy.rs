//! Copies of files that are whole and durable under their names, or not there.
//!
//! Generic over the disk, so that tests can let it fail at every step.

use std::path::Path;

use super::fault::{OfflineFault, errno_fault};
use super::progress::Progress;
use crate::background::blocks::list::BlockList;
use crate::background::blocks::store::LIST_NAME;
use crate::background::disk::{DISK_BLOCK_BYTES, Disk, DiskFile};
use crate::background::folder::{
    BLOCKS_NAME, INCARNATION_PREFIX, LOCK_NAME, MANIFEST_NAME, Manifest, TEMPORARY_SUFFIX,
};

/// What is read and written at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Texts are short; what is longer is none.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// A snapshot or a backup: whose it is, and which blocks are in it.
#[derive(Clone, Debug)]
pub struct Contents {
    /// As it lies on the disk.
    pub manifest_text: String,
    /// What it says.
    pub manifest: Manifest,
    /// Which blocks.
    pub list: BlockList,
}

/// Reads what says what a snapshot or backup holds.
pub async fn read_contents<D: Disk>(disk: &D, folder: &Path) -> Result<Contents, OfflineFault> {
    let path = folder.join(MANIFEST_NAME);
    let manifest_text = read_text(disk, &path).await?;
    let damaged = |path: &Path, what: String| OfflineFault::Damaged { path: path.into(), what };
    let manifest = Manifest::decode(&manifest_text);
    let manifest = manifest.map_err(|fault| damaged(&path, format!("{fault:?}")))?;
    let path = folder.join(BLOCKS_NAME).join(LIST_NAME);
    let list = BlockList::decode(&read_text(disk, &path).await?);
    let list = list.map_err(|fault| damaged(&path, format!("{fault:?}")))?;
    if list.node != manifest.node {
        return Err(damaged(&path, format!("it is that of node {:032x}", list.node)));
    }
    Ok(Contents { manifest_text, manifest, list })
}

/// Whether a server ever ran on the folder: then it has a log, and is no backup.
pub async fn check_unserved<D: Disk>(disk: &D, folder: &Path) -> Result<(), OfflineFault> {
    let entries = disk.list(folder).await.map_err(errno_fault("list", folder))?;
    let is_served = |name: &str| name == LOCK_NAME || name.starts_with(INCARNATION_PREFIX);
    if !entries.iter().any(|entry| is_served(&entry.name)) {
        return Ok(());
    }
    Err(OfflineFault::Unfit {
        path: folder.to_owned(),
        cause: "a server ran on it, so it is a data folder of its own and no backup any more; \
                give another folder"
            .into(),
    })
}

/// The text of a small file.
pub async fn read_text<D: Disk>(disk: &D, path: &Path) -> Result<String, OfflineFault> {
    let read = async {
        let file = disk.open(path).await?;
        let len = file.len_bytes().await?;
        let len = usize::try_from(len.min(TEXT_BYTES_MAX)).map_err(|_| libc::EFBIG)?;
        let mut bytes = Vec::new();
        file.read_at(0, len, &mut bytes).await?;
        Ok(bytes)
    };
    let bytes = read.await.map_err(errno_fault("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Copies `from` to `to`, which is durable then but for its name. Returns its length.
pub async fn copy_file<D: Disk>(
    disk: &D,
    from: &Path,
    to: &Path,
    progress: &mut Progress,
) -> Result<u64, OfflineFault> {
    let source = disk.open(from).await.map_err(errno_fault("open", from))?;
    let len = source.len_bytes().await.map_err(errno_fault("read", from))?;
    let target = disk.create(to).await.map_err(errno_fault("make", to))?;
    target.allocate(len).await.map_err(errno_fault("write", to))?;
    let mut piece = Vec::new();
    let mut at = 0;
    while at < len {
        let wanted = usize::try_from((len - at).min(PIECE_BYTES)).expect("at most a piece");
        source.read_at(at, wanted, &mut piece).await.map_err(errno_fault("read", from))?;
        if piece.len() < wanted {
            let what = "it became shorter while it was copied".into();
            return Err(OfflineFault::Damaged { path: from.to_owned(), what });
        }
        // Disks take whole blocks; what is too much is cut off below.
        piece.resize(wanted.next_multiple_of(DISK_BLOCK_BYTES), 0);
        target.write_at(&piece, at).await.map_err(errno_fault("write", to))?;
        at += wanted as u64;
        progress.add(wanted as u64);
    }
    target.set_len(len).await.map_err(errno_fault("write", to))?;
    target.sync().await.map_err(errno_fault("sync", to))?;
    Ok(len)
}

/// Makes `text` the whole of `folder`/`name`, durably.
pub async fn write_text<D: Disk>(
    disk: &D,
    folder: &Path,
    name: &str,
    text: &str,
) -> Result<(), OfflineFault> {
    let path = folder.join(name);
    let temporary = folder.join(format!("{name}{TEMPORARY_SUFFIX}"));
    let write = async {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(text.len().next_multiple_of(DISK_BLOCK_BYTES), 0);
        let file = disk.create(&temporary).await?;
        file.write_at(&bytes, 0).await?;
        file.set_len(text.len() as u64).await?;
        // Its bytes before its name.
        file.sync().await?;
        disk.rename(&temporary, &path).await?;
        disk.sync_folder(folder).await
    };
    write.await.map_err(errno_fault("write", &path))
}

/// Makes the names in the folder that holds `path` durable.
pub async fn sync_parent<D: Disk>(disk: &D, path: &Path) -> Result<(), OfflineFault> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    disk.sync_folder(parent).await.map_err(errno_fault("sync", parent))
}
