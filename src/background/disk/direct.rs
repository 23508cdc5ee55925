//! DRIVER: a [`Disk`] of glommio, for the background: `O_DIRECT` where the file system takes it, so
//! that bulk work neither fills the page cache nor waits in a system call.
//!
//! Names are changed by plain system calls: glommio would put them on a thread of its own, and they
//! are rare.
//!
//! glommio 0.9.0 finds out once per device whether the device can be polled for completions: by a
//! read of the first file that is opened on it. If that file has no bytes on the disk yet, as a new
//! segment has not, the read is well whatever the device can do, and every later read and write
//! fails with `EOPNOTSUPP`. So the first file is one of ours that has bytes (`probe`).

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use glommio::GlommioError;
use glommio::io::{BufferedFile, Directory, DmaFile, OpenOptions, ReadResult};

use super::plain::{self, PlainDisk};
use super::{DISK_BLOCK_BYTES, Disk, DiskEntry, DiskFile, DiskSpace, WRITE_BYTES_MAX};

/// See the module's description.
#[derive(Clone, Copy, Debug, Default)]
pub struct DirectDisk;

/// An open file.
pub enum DirectFile {
    /// Past the page cache.
    Direct(Rc<DmaFile>),
    /// Through it.
    Buffered(BufferedFile),
}

enum How {
    Create,
    Read,
    Write,
}

thread_local! {
    /// Devices that glommio has read bytes of.
    static PROBED: RefCell<HashSet<u64>> = RefCell::default();
}

/// A name for a moment. What a crash leaves of it is removed by the next start, as all `.tmp`.
const PROBE_NAME: &str = "probe.tmp";

/// A file that has bytes, has no name any more, and is in `folder`.
fn nameless_file(folder: &Path) -> std::io::Result<File> {
    let path = folder.join(PROBE_NAME);
    let mut file =
        File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(&path)?;
    file.write_all(&[0x5a; DISK_BLOCK_BYTES])?;
    file.sync_data()?;
    Ok(file)
}

/// Lets glommio look at the device of `folder`; false if that was not possible (a full disk), and
/// the page cache is to be used this time.
async fn probe(folder: &Path) -> bool {
    let Ok(device) = std::fs::metadata(folder).map(|folder| folder.dev()) else { return true };
    if PROBED.with_borrow(|probed| probed.contains(&device)) {
        return true;
    }
    let Ok(file) = nameless_file(folder) else { return false };
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match OpenOptions::new().read(true).dma_open(&path).await {
        Ok(file) => {
            PROBED.with_borrow_mut(|probed| probed.insert(device));
            // It has no name and no readers: nothing is lost if closing it fails.
            let _ = file.close().await;
            true
        }
        // Not a file system for direct writes, which its files will say themselves.
        Err(_) => true,
    }
}

async fn open(path: &Path, how: How) -> Result<DirectFile, i32> {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o640);
    match how {
        How::Create => {
            options.write(true).create(true).truncate(true);
        }
        How::Write => {
            options.write(true);
        }
        How::Read => {}
    }
    if probe(path.parent().unwrap_or(Path::new("."))).await {
        match options.dma_open(path).await.map_err(errno_of) {
            Ok(file) => return Ok(DirectFile::Direct(Rc::new(file))),
            Err(libc::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    options.buffered_open(path).await.map(DirectFile::Buffered).map_err(errno_of)
}

impl Disk for DirectDisk {
    type File = DirectFile;

    async fn create(&self, path: &Path) -> Result<DirectFile, i32> {
        open(path, How::Create).await
    }

    async fn open(&self, path: &Path) -> Result<DirectFile, i32> {
        open(path, How::Read).await
    }

    async fn open_to_write(&self, path: &Path) -> Result<DirectFile, i32> {
        open(path, How::Write).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), i32> {
        PlainDisk.rename(from, to).await
    }

    async fn link(&self, from: &Path, to: &Path) -> Result<(), i32> {
        PlainDisk.link(from, to).await
    }

    async fn remove(&self, path: &Path) -> Result<(), i32> {
        glommio::io::remove(path).await.map_err(errno_of)
    }

    async fn make_folder(&self, path: &Path) -> Result<(), i32> {
        PlainDisk.make_folder(path).await
    }

    async fn remove_folder(&self, path: &Path) -> Result<(), i32> {
        PlainDisk.remove_folder(path).await
    }

    async fn list(&self, folder: &Path) -> Result<Vec<DiskEntry>, i32> {
        plain::list(folder)
    }

    async fn sync_folder(&self, folder: &Path) -> Result<(), i32> {
        let folder = Directory::open(folder).await.map_err(errno_of)?;
        folder.sync().await.map_err(errno_of)?;
        folder.close().await.map_err(errno_of)
    }

    async fn space(&self, path: &Path) -> Result<DiskSpace, i32> {
        plain::space(path)
    }

    async fn yield_if_needed(&self) {
        glommio::yield_if_needed().await;
    }
}

impl DiskFile for DirectFile {
    async fn len_bytes(&self) -> Result<u64, i32> {
        match self {
            Self::Direct(file) => file.file_size().await.map_err(errno_of),
            Self::Buffered(file) => file.file_size().await.map_err(errno_of),
        }
    }

    async fn allocate(&self, bytes: u64) -> Result<(), i32> {
        let outcome = match self {
            Self::Direct(file) => file.pre_allocate(bytes, true).await,
            Self::Buffered(file) => file.pre_allocate(bytes, true).await,
        };
        match outcome.map_err(errno_of) {
            Err(libc::EOPNOTSUPP) => Ok(()), // The writes will tell.
            outcome => outcome,
        }
    }

    async fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), i32> {
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
            if written == 0 || !written.is_multiple_of(DISK_BLOCK_BYTES) {
                return Err(libc::ENOSPC);
            }
            done += written;
            glommio::yield_if_needed().await;
        }
        Ok(())
    }

    async fn read_at(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), i32> {
        out.clear();
        out.reserve(len);
        while out.len() < len {
            let at = offset + out.len() as u64;
            let piece = (len - out.len()).min(WRITE_BYTES_MAX);
            let read: ReadResult = match self {
                Self::Direct(file) => file.read_at(at, piece).await.map_err(errno_of)?,
                Self::Buffered(file) => file.read_at(at, piece).await.map_err(errno_of)?,
            };
            if read.is_empty() {
                break;
            }
            out.extend_from_slice(&read);
        }
        Ok(())
    }

    async fn set_len(&self, len: u64) -> Result<(), i32> {
        match self {
            Self::Direct(file) => file.truncate(len).await.map_err(errno_of),
            Self::Buffered(file) => file.truncate(len).await.map_err(errno_of),
        }
    }

    async fn sync(&self) -> Result<(), i32> {
        match self {
            Self::Direct(file) => file.fdatasync().await.map_err(errno_of),
            Self::Buffered(file) => file.fdatasync().await.map_err(errno_of),
        }
    }
}

/// The errno of `error`; EIO where it has none.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn errno_of(error: GlommioError<()>) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first file that the background opened was a new log segment: glommio took the read of
    /// its no bytes for a device that can be polled, no block and no list could be read any more,
    /// and queries were answered 503 until the next start, which was no better.
    ///
    /// Red without `probe` on devices without polling, which most are.
    #[test]
    fn a_new_file_may_be_the_first_that_is_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new");
        let executor = glommio::LocalExecutorBuilder::default().make().expect("an executor");
        executor.run(async {
            let file = DirectDisk.create(&path).await.expect("it can be made");
            file.write_at(&[7; 2 * DISK_BLOCK_BYTES], 0).await.expect("and written");
            file.sync().await.expect("and synced");
            let mut bytes = Vec::new();
            file.read_at(1, DISK_BLOCK_BYTES, &mut bytes).await.expect("and read");
            assert_eq!(bytes, [7; DISK_BLOCK_BYTES]);
        });
        let names = std::fs::read_dir(folder.path()).expect("it is there").count();
        assert_eq!(names, 1, "nothing else is left there");
    }
}
