//! What jobs ask of a disk, so that the same jobs run on glommio, on plain files and in the
//! simulator.
//!
//! In: paths and whole blocks. Out: done, or an errno. Every method may fail at any time. A file's
//! bytes are durable after `sync`, a name after `sync_folder` of its folder; before that a power
//! cut may keep any part of them, in any order. Not here: retries (there are none), clocks.
#![expect(async_fn_in_trait, reason = "jobs are local to their thread; no future has to be Send")]

use std::path::Path;

pub mod direct;
pub mod plain;

/// Writes and their offsets are multiples of this, as `O_DIRECT` asks.
pub const DISK_BLOCK_BYTES: usize = 4096;
/// The longest single write or read; a longer one is done in several.
pub const WRITE_BYTES_MAX: usize = 1 << 20;

/// A disk; cheap to clone.
pub trait Disk: Clone {
    /// An open file.
    type File: DiskFile;

    /// Makes an empty file, or empties the one there is, for writing and reading.
    async fn create(&self, path: &Path) -> Result<Self::File, i32>;
    /// Opens a file for reading; `ENOENT` if it is not there.
    async fn open(&self, path: &Path) -> Result<Self::File, i32>;
    /// Opens a file for writing and reading.
    async fn open_to_write(&self, path: &Path) -> Result<Self::File, i32>;
    /// Renames, replacing what is there.
    async fn rename(&self, from: &Path, to: &Path) -> Result<(), i32>;
    /// A second name for a file (`EEXIST` if the name is taken).
    async fn link(&self, from: &Path, to: &Path) -> Result<(), i32>;
    /// Removes a file.
    async fn remove(&self, path: &Path) -> Result<(), i32>;
    /// Makes a folder and those above it; well if it is there.
    async fn make_folder(&self, path: &Path) -> Result<(), i32>;
    /// Removes an empty folder.
    async fn remove_folder(&self, path: &Path) -> Result<(), i32>;
    /// What lies in a folder, in no order.
    async fn list(&self, folder: &Path) -> Result<Vec<DiskEntry>, i32>;
    /// Makes the names in a folder durable.
    async fn sync_folder(&self, folder: &Path) -> Result<(), i32>;
    /// Room on the disk that holds `path`.
    async fn space(&self, path: &Path) -> Result<DiskSpace, i32>;
    /// Lets others run, if this task has run for long; long loops over memory call it now and then.
    async fn yield_if_needed(&self);
}

/// An open file; closed when dropped.
pub trait DiskFile {
    /// Its length.
    async fn len_bytes(&self) -> Result<u64, i32>;
    /// Reserves room, so that a full disk is found now.
    async fn allocate(&self, bytes: u64) -> Result<(), i32>;
    /// Writes all of `bytes`, whole blocks, at `offset`, a multiple of a block.
    async fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), i32>;
    /// Reads `len` bytes at `offset`, neither aligned, into `out` (emptied first); fewer only at
    /// the end of the file.
    async fn read_at(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), i32>;
    /// Cuts or extends the file.
    async fn set_len(&self, len: u64) -> Result<(), i32>;
    /// Makes the bytes and the length durable.
    async fn sync(&self) -> Result<(), i32>;
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskEntry {
    /// Without its folder.
    pub name: String,
    /// Whether it is a folder itself.
    pub is_folder: bool,
    /// Bytes of a file.
    pub len_bytes: u64,
}

/// Room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// For this process.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}
