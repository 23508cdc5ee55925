//! A block's file: read through the cache, and written under a temporary name until it is durable.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::cache::PageCache;
use crate::background::disk::{DISK_BLOCK_BYTES, Disk, DiskFile};
use crate::model::chunk::ChunkColumns;
use crate::model::series::TenantId;
use crate::node::block::format::PageRef;
use crate::node::block::reader::{BlockIndex, BlockSource, read_meta};
use crate::node::block::writer::{BlockOrigin, BlockWriter};
use crate::node::block::{BlockFault, BlockMeta};

/// What is written at once.
const WRITE_BYTES: usize = 1 << 20;
const PREFIX: &str = "block-";
const SUFFIX: &str = ".blk";
/// What is not complete.
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The name of a block's file.
pub fn block_file_name(id: u64) -> String {
    format!("{PREFIX}{id:020}{SUFFIX}")
}

/// The block that `name` is the file name of.
pub fn parse_block_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let is_ours = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_ours { digits.parse().ok() } else { None }
}

/// A block that can be read. Its file stays open, so a reader may finish after it was removed.
pub struct Block<D: Disk> {
    /// What it is.
    pub meta: BlockMeta,
    /// Length of the file.
    pub len_bytes: u64,
    disk: D,
    file: D::File,
    cache: Rc<PageCache>,
    index: RefCell<Option<Rc<BlockIndex>>>,
}

impl<D: Disk> Block<D> {
    /// Opens the file at `path` and reads its end; the index waits for the first query.
    pub async fn open(disk: &D, path: &Path, cache: &Rc<PageCache>) -> Result<Self, BlockFault> {
        let io = |errno| BlockFault::Io { errno };
        let file = disk.open(path).await.map_err(io)?;
        let len_bytes = file.len_bytes().await.map_err(io)?;
        let raw = RawSource { disk, file: &file };
        let meta = read_meta(&raw, len_bytes).await?;
        let (disk, cache) = (disk.clone(), Rc::clone(cache));
        Ok(Self { meta, len_bytes, disk, file, cache, index: RefCell::new(None) })
    }

    /// Its index, read at the first call.
    pub async fn index(&self) -> Result<Rc<BlockIndex>, BlockFault> {
        if let Some(index) = &*self.index.borrow() {
            return Ok(Rc::clone(index));
        }
        let raw = RawSource { disk: &self.disk, file: &self.file };
        let index = Rc::new(BlockIndex::open(&raw, self.len_bytes).await?);
        *self.index.borrow_mut() = Some(Rc::clone(&index));
        Ok(index)
    }
}

impl<D: Disk> BlockSource for Block<D> {
    async fn page(&self, page: PageRef) -> Result<Arc<[u8]>, BlockFault> {
        CachedSource { block: self, cache: &self.cache }.page(page).await
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockFault> {
        RawSource { disk: &self.disk, file: &self.file }.read(offset, len).await
    }

    async fn yield_if_needed(&self) {
        self.disk.yield_if_needed().await;
    }
}

/// A block through another cache than that of queries.
pub struct CachedSource<'a, D: Disk> {
    /// It.
    pub block: &'a Block<D>,
    /// The cache.
    pub cache: &'a PageCache,
}

impl<D: Disk> BlockSource for CachedSource<'_, D> {
    async fn page(&self, page: PageRef) -> Result<Arc<[u8]>, BlockFault> {
        let Self { block, cache } = self;
        if let Some(bytes) = cache.get(block.meta.id, page.offset) {
            return Ok(bytes);
        }
        let bytes = RawSource { disk: &block.disk, file: &block.file }.page(page).await?;
        cache.put(block.meta.id, page.offset, Arc::clone(&bytes));
        Ok(bytes)
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockFault> {
        self.block.read(offset, len).await
    }

    async fn yield_if_needed(&self) {
        self.block.disk.yield_if_needed().await;
    }
}

/// A file without a cache.
pub struct RawSource<'a, D: Disk> {
    /// Its disk.
    pub disk: &'a D,
    /// It.
    pub file: &'a D::File,
}

impl<D: Disk> BlockSource for RawSource<'_, D> {
    async fn page(&self, page: PageRef) -> Result<Arc<[u8]>, BlockFault> {
        let bytes = self.read(page.offset, page.len as usize).await?;
        page.check(&bytes)?;
        Ok(bytes.into())
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockFault> {
        let mut bytes = Vec::new();
        let read = self.file.read_at(offset, len, &mut bytes).await;
        read.map_err(|errno| BlockFault::Io { errno })?;
        if bytes.len() < len {
            return Err(BlockFault::Truncated { offset: offset + len as u64 });
        }
        Ok(bytes)
    }

    async fn yield_if_needed(&self) {
        self.disk.yield_if_needed().await;
    }
}

/// A block that is being written. Dropped without `finish` it leaves a temporary file, which the
/// next start removes, as `abandon` does now.
pub struct BlockSink<D: Disk> {
    disk: D,
    folder: PathBuf,
    temporary: PathBuf,
    file: D::File,
    writer: BlockWriter,
    written: u64,
    id: u64,
}

impl<D: Disk> BlockSink<D> {
    /// Makes the temporary file.
    pub async fn create(disk: &D, folder: &Path, origin: BlockOrigin) -> Result<Self, i32> {
        let id = origin.id;
        let temporary = folder.join(format!("{PREFIX}{id:020}{TEMPORARY_SUFFIX}"));
        let file = disk.create(&temporary).await?;
        let (disk, folder) = (disk.clone(), folder.to_owned());
        Ok(Self { disk, folder, temporary, file, writer: BlockWriter::new(origin), written: 0, id })
    }

    /// See [`BlockWriter::add_series`].
    pub async fn add_series<'a>(
        &mut self,
        tenant: TenantId,
        labels: &[u8],
        chunks: impl IntoIterator<Item = ChunkColumns<'a>>,
    ) -> Result<(), i32> {
        self.writer.add_series(tenant, labels, chunks);
        if self.writer.output_len() >= WRITE_BYTES {
            self.write().await?;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), i32> {
        let bytes = self.writer.take_output(DISK_BLOCK_BYTES);
        self.file.write_at(&bytes, self.written).await?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Makes the block durable under its name. `None`: there was no series, and there is no file.
    /// After a fault the temporary file is gone, as far as the disk lets it; the block may have its
    /// name, and is to be discarded.
    pub async fn finish(mut self) -> Result<Option<BlockMeta>, i32> {
        let Some(meta) = self.writer.finish() else {
            self.abandon().await;
            return Ok(None);
        };
        match self.seal().await {
            Ok(()) => Ok(Some(meta)),
            Err(errno) => {
                self.abandon().await;
                Err(errno)
            }
        }
    }

    async fn seal(&mut self) -> Result<(), i32> {
        self.write().await?;
        // Its bytes before its name: a name must never lead to half a block.
        self.file.sync().await?;
        let path = self.folder.join(block_file_name(self.id));
        self.disk.rename(&self.temporary, &path).await?;
        self.disk.sync_folder(&self.folder).await
    }

    /// Removes the temporary file.
    pub async fn abandon(self) {
        // The next start removes it otherwise.
        let _ = self.disk.remove(&self.temporary).await;
    }
}
