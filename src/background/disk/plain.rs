//! DRIVER: a [`Disk`] of plain system calls, for what runs before any shard does and for commands
//! on a folder that nobody serves. Every future is ready when it is asked
//! (`base::ready`).

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

use super::{Disk, DiskEntry, DiskFile, DiskSpace};

/// See the module's description.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainDisk;

/// An open file.
#[derive(Debug)]
pub struct PlainFile(File);

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn plain<T>(outcome: std::io::Result<T>) -> Result<T, i32> {
    outcome.map_err(|error| errno(&error))
}

impl Disk for PlainDisk {
    type File = PlainFile;

    async fn create(&self, path: &Path) -> Result<PlainFile, i32> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o640);
        plain(options.open(path)).map(PlainFile)
    }

    async fn open(&self, path: &Path) -> Result<PlainFile, i32> {
        plain(File::open(path)).map(PlainFile)
    }

    async fn open_to_write(&self, path: &Path) -> Result<PlainFile, i32> {
        plain(OpenOptions::new().read(true).write(true).open(path)).map(PlainFile)
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), i32> {
        plain(fs::rename(from, to))
    }

    async fn link(&self, from: &Path, to: &Path) -> Result<(), i32> {
        plain(fs::hard_link(from, to))
    }

    async fn remove(&self, path: &Path) -> Result<(), i32> {
        plain(fs::remove_file(path))
    }

    async fn make_folder(&self, path: &Path) -> Result<(), i32> {
        plain(fs::create_dir_all(path))
    }

    async fn remove_folder(&self, path: &Path) -> Result<(), i32> {
        plain(fs::remove_dir(path))
    }

    async fn list(&self, folder: &Path) -> Result<Vec<DiskEntry>, i32> {
        list(folder)
    }

    async fn sync_folder(&self, folder: &Path) -> Result<(), i32> {
        plain(File::open(folder).and_then(|folder| folder.sync_all()))
    }

    async fn space(&self, path: &Path) -> Result<DiskSpace, i32> {
        space(path)
    }

    async fn yield_if_needed(&self) {}
}

/// What lies in a folder.
pub(super) fn list(folder: &Path) -> Result<Vec<DiskEntry>, i32> {
    let mut entries = Vec::new();
    for entry in plain(fs::read_dir(folder))? {
        let entry = plain(entry)?;
        // Gone since it was listed.
        let Ok(metadata) = entry.metadata() else { continue };
        entries.push(DiskEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_folder: metadata.is_dir(),
            len_bytes: metadata.len(),
        });
    }
    Ok(entries)
}

/// Room on the disk that holds `path`.
pub(super) fn space(path: &Path) -> Result<DiskSpace, i32> {
    let stat = statvfs(path).map_err(|errno| errno as i32)?;
    let unit = stat.fragment_size();
    Ok(DiskSpace { free_bytes: stat.blocks_available() * unit, total_bytes: stat.blocks() * unit })
}

impl DiskFile for PlainFile {
    async fn len_bytes(&self) -> Result<u64, i32> {
        plain(self.0.metadata()).map(|metadata| metadata.len())
    }

    async fn allocate(&self, bytes: u64) -> Result<(), i32> {
        let len = i64::try_from(bytes).map_err(|_| libc::EFBIG)?;
        match fallocate(&self.0, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, len) {
            // The writes will tell.
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno as i32),
        }
    }

    async fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), i32> {
        plain(self.0.write_all_at(bytes, offset))
    }

    async fn read_at(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), i32> {
        // Memory that is used again is not filled with zeros first.
        out.resize(len, 0);
        let mut done = 0;
        while done < len {
            match self.0.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(errno(&error)),
            }
        }
        out.truncate(done);
        Ok(())
    }

    async fn set_len(&self, len: u64) -> Result<(), i32> {
        plain(self.0.set_len(len))
    }

    async fn sync(&self) -> Result<(), i32> {
        plain(self.0.sync_all())
    }
}
