//! DRIVER: a block's file as a source of bytes for its reader, through a few windows, so that the
//! many small reads of a whole walk become few large ones.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use super::progress::Progress;
use crate::background::disk::{Disk, DiskFile};
use crate::node::block::BlockFault;
use crate::node::block::format::PageRef;
use crate::node::block::reader::BlockSource;

const WINDOW_BYTES: u64 = 256 << 10;
/// Pages of series, of labels, of the order, and columns are read in turns.
const WINDOWS: usize = 16;

/// See the module's description.
pub struct FileSource<'a, D: Disk> {
    file: D::File,
    len_bytes: u64,
    /// By the number of the window, the last used at the end.
    windows: RefCell<Vec<(u64, Vec<u8>)>>,
    progress: RefCell<&'a mut Progress>,
    /// What was not said to `progress` yet.
    unsaid_bytes: RefCell<u64>,
}

impl<'a, D: Disk> FileSource<'a, D> {
    /// Opens a file.
    pub async fn open(disk: &D, path: &Path, progress: &'a mut Progress) -> Result<Self, i32> {
        let file = disk.open(path).await?;
        let len_bytes = file.len_bytes().await?;
        Ok(Self {
            file,
            len_bytes,
            windows: RefCell::default(),
            progress: RefCell::new(progress),
            unsaid_bytes: RefCell::new(len_bytes),
        })
    }

    /// Its length.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    async fn load(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockFault> {
        let mut bytes = Vec::new();
        let read = self.file.read_at(offset, len, &mut bytes).await;
        read.map_err(|errno| BlockFault::Io { errno })?;
        // The same bytes may be read again: progress ends at the file's length.
        let said = (*self.unsaid_bytes.borrow()).min(bytes.len() as u64);
        *self.unsaid_bytes.borrow_mut() -= said;
        self.progress.borrow_mut().add(said);
        Ok(bytes)
    }

    async fn append(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), BlockFault> {
        let number = offset / WINDOW_BYTES;
        let at = self.windows.borrow().iter().position(|(known, _)| *known == number);
        let window = if let Some(at) = at {
            self.windows.borrow_mut().remove(at)
        } else {
            let len = usize::try_from(WINDOW_BYTES).expect("64 bits");
            (number, self.load(number * WINDOW_BYTES, len).await?)
        };
        let start = usize::try_from(offset % WINDOW_BYTES).expect("64 bits");
        let taken = window.1.get(start..start + len).map(|bytes| out.extend_from_slice(bytes));
        let mut windows = self.windows.borrow_mut();
        if windows.len() >= WINDOWS {
            windows.remove(0);
        }
        windows.push(window);
        taken.ok_or(BlockFault::Truncated { offset: offset + len as u64 })
    }
}

impl<D: Disk> Drop for FileSource<'_, D> {
    /// What was not read is done as well.
    fn drop(&mut self) {
        self.progress.borrow_mut().add(*self.unsaid_bytes.borrow());
    }
}

impl<D: Disk> BlockSource for FileSource<'_, D> {
    async fn page(&self, page: PageRef) -> Result<Arc<[u8]>, BlockFault> {
        let bytes = self.read(page.offset, page.len as usize).await?;
        page.check(&bytes)?;
        Ok(bytes.into())
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockFault> {
        let end = offset.saturating_add(len as u64);
        if end > self.len_bytes {
            return Err(BlockFault::Truncated { offset: end });
        }
        if len as u64 > WINDOW_BYTES {
            let bytes = self.load(offset, len).await?;
            let is_whole = bytes.len() == len;
            return is_whole.then_some(bytes).ok_or(BlockFault::Truncated { offset: end });
        }
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            let to_edge = WINDOW_BYTES - at % WINDOW_BYTES;
            let piece = (end - at).min(to_edge);
            let piece = usize::try_from(piece).expect("64 bits");
            self.append(at, piece, &mut bytes).await?;
        }
        Ok(bytes)
    }

    async fn yield_if_needed(&self) {}
}
