//! DRIVER: a file written in whole blocks through glommio, with `O_DIRECT` where the file system
//! takes it.
//!
//! In: slices of whole 4096-byte blocks. Out: done, or an errno. One copy into aligned memory per
//! write.

use std::path::Path;

use glommio::GlommioError;
use glommio::io::{BufferedFile, Directory, DmaFile, OpenOptions};

use crate::node::log::BLOCK_BYTES;

/// The longest single write.
pub(super) const WRITE_BYTES_MAX: usize = 1 << 20;

pub(super) enum BlockFile {
    Direct(DmaFile),
    Buffered(BufferedFile),
}

impl BlockFile {
    /// Opens `path` for writing, made anew or as it is.
    pub async fn open(path: &Path, how: OpenHow) -> Result<Self, i32> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o640);
        if matches!(how, OpenHow::CreateEmpty) {
            options.create(true).truncate(true);
        }
        match options.dma_open(path).await.map_err(errno_of) {
            Ok(file) => Ok(Self::Direct(file)),
            Err(libc::EINVAL) => {
                let file = options.buffered_open(path).await.map_err(errno_of)?;
                Ok(Self::Buffered(file))
            }
            Err(errno) => Err(errno),
        }
    }

    /// Reserves `bytes` of the disk, so that a full one is found now.
    pub async fn allocate(&self, bytes: u64) -> Result<(), i32> {
        let outcome = match self {
            Self::Direct(file) => file.pre_allocate(bytes, false).await,
            Self::Buffered(file) => file.pre_allocate(bytes, false).await,
        };
        match outcome.map_err(errno_of) {
            Err(libc::EOPNOTSUPP) => Ok(()), // The zeros written next reserve it as well.
            outcome => outcome,
        }
    }

    /// Writes all of `bytes`, whole blocks, at `offset`.
    pub async fn write_all(&self, bytes: &[u8], offset: u64) -> Result<(), i32> {
        assert!(bytes.len().is_multiple_of(BLOCK_BYTES));
        let mut done = 0;
        while done < bytes.len() {
            let piece = &bytes[done..bytes.len().min(done + WRITE_BYTES_MAX)];
            let at = offset + done as u64;
            let written = match self {
                Self::Direct(file) => {
                    let mut buffer = file.alloc_dma_buffer(piece.len());
                    buffer.as_bytes_mut()[..piece.len()].copy_from_slice(piece);
                    buffer.trim_to_size(piece.len());
                    file.write_at(buffer, at).await.map_err(errno_of)?
                }
                Self::Buffered(file) => {
                    file.write_at(piece.to_vec(), at).await.map_err(errno_of)?
                }
            };
            // A short write that ends within a block is a disk that just filled up.
            if written == 0 || !written.is_multiple_of(BLOCK_BYTES) {
                return Err(libc::ENOSPC);
            }
            done += written;
            glommio::yield_if_needed().await;
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub async fn sync(&self) -> Result<(), i32> {
        match self {
            Self::Direct(file) => file.fdatasync().await.map_err(errno_of),
            Self::Buffered(file) => file.fdatasync().await.map_err(errno_of),
        }
    }

    /// Closes it.
    pub async fn close(self) -> Result<(), i32> {
        match self {
            Self::Direct(file) => file.close().await.map_err(errno_of),
            Self::Buffered(file) => file.close().await.map_err(errno_of),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum OpenHow {
    CreateEmpty,
    Existing,
}

/// Renames a file and makes the new name durable.
pub(super) async fn rename_durably(from: &Path, to: &Path, folder: &Path) -> Result<(), i32> {
    glommio::io::rename(from, to).await.map_err(errno_of)?;
    sync_folder(folder).await
}

/// Makes the names in `folder` durable.
pub(super) async fn sync_folder(folder: &Path) -> Result<(), i32> {
    let folder = Directory::open(folder).await.map_err(errno_of)?;
    folder.sync().await.map_err(errno_of)?;
    folder.close().await.map_err(errno_of)
}

/// The errno of `error`; EIO where it has none.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(super) fn errno_of(error: GlommioError<()>) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
