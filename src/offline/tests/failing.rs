//! A disk that stops working after so many changes, in the middle of one: what a power cut or a
//! full disk does to a copy.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use crate::background::disk::plain::{PlainDisk, PlainFile};
use crate::background::disk::{Disk, DiskEntry, DiskFile, DiskSpace};

#[derive(Clone)]
pub struct FailingDisk {
    /// Changes that still work.
    left: Rc<Cell<u64>>,
}

pub struct FailingFile {
    file: PlainFile,
    left: Rc<Cell<u64>>,
}

fn spend(left: &Cell<u64>) -> Result<(), i32> {
    let rest = left.get().checked_sub(1).ok_or(libc::EIO)?;
    left.set(rest);
    Ok(())
}

impl FailingDisk {
    pub fn new(changes: u64) -> Self {
        Self { left: Rc::new(Cell::new(changes)) }
    }

    fn file(&self, file: PlainFile) -> FailingFile {
        FailingFile { file, left: Rc::clone(&self.left) }
    }
}

impl Disk for FailingDisk {
    type File = FailingFile;

    async fn create(&self, path: &Path) -> Result<FailingFile, i32> {
        spend(&self.left)?;
        PlainDisk.create(path).await.map(|file| self.file(file))
    }

    async fn open(&self, path: &Path) -> Result<FailingFile, i32> {
        PlainDisk.open(path).await.map(|file| self.file(file))
    }

    async fn open_to_write(&self, path: &Path) -> Result<FailingFile, i32> {
        PlainDisk.open_to_write(path).await.map(|file| self.file(file))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), i32> {
        spend(&self.left)?;
        PlainDisk.rename(from, to).await
    }

    async fn link(&self, from: &Path, to: &Path) -> Result<(), i32> {
        spend(&self.left)?;
        PlainDisk.link(from, to).await
    }

    async fn remove(&self, path: &Path) -> Result<(), i32> {
        spend(&self.left)?;
        PlainDisk.remove(path).await
    }

    async fn make_folder(&self, path: &Path) -> Result<(), i32> {
        spend(&self.left)?;
        PlainDisk.make_folder(path).await
    }

    async fn remove_folder(&self, path: &Path) -> Result<(), i32> {
        spend(&self.left)?;
        PlainDisk.remove_folder(path).await
    }

    async fn list(&self, folder: &Path) -> Result<Vec<DiskEntry>, i32> {
        PlainDisk.list(folder).await
    }

    async fn sync_folder(&self, folder: &Path) -> Result<(), i32> {
        spend(&self.left)?;
        PlainDisk.sync_folder(folder).await
    }

    async fn space(&self, path: &Path) -> Result<DiskSpace, i32> {
        PlainDisk.space(path).await
    }

    async fn yield_if_needed(&self) {}
}

impl DiskFile for FailingFile {
    async fn len_bytes(&self) -> Result<u64, i32> {
        self.file.len_bytes().await
    }

    async fn allocate(&self, bytes: u64) -> Result<(), i32> {
        self.file.allocate(bytes).await
    }

    async fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), i32> {
        if let Err(errno) = spend(&self.left) {
            // Half of it arrives.
            self.file.write_at(&bytes[..bytes.len() / 2], offset).await?;
            return Err(errno);
        }
        self.file.write_at(bytes, offset).await
    }

    async fn read_at(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), i32> {
        self.file.read_at(offset, len, out).await
    }

    async fn set_len(&self, len: u64) -> Result<(), i32> {
        spend(&self.left)?;
        self.file.set_len(len).await
    }

    async fn sync(&self) -> Result<(), i32> {
        spend(&self.left)?;
        self.file.sync().await
    }
}
