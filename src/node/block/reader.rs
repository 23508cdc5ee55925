//! A block's file -> the series that match, their labels and chunks.
//!
//! In: a source of bytes. Out: sets of series (ids count the series of the block, in order), label
//! bytes, chunks. Memory: the directory, a few decoded pages. Every part is checked before it is
//! used. Not here: files and caches (`background/reads`), which blocks there are.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::directory::{Directory, NameEntry, decode_postings};
use super::format::{
    BLOCK_EDGE_BYTES, BlockFault, HEADER_MAGIC, ORDER_ENTRIES, PART_BYTES_MAX, PageRef,
    TRAILER_MAGIC, VERSION, Walk,
};
use super::meta::BlockMeta;
use super::pair_page::PairPostings;
use super::series_page::{self, PageSeries};
use crate::base::checksum::crc32c;
use crate::model::labels::encode_label;
use crate::model::series::TenantId;

/// Decoded label pairs that a reader keeps, so that series in a row share them.
const PAIRS_KEPT: usize = 1 << 16;

/// Room that is made for labels and values before they are seen: most fit.
const LABEL_BYTES_AHEAD: usize = 512;
const VALUE_BYTES_AHEAD: usize = 64;

/// Where the bytes of one block come from.
#[expect(async_fn_in_trait, reason = "readers are local to their thread")]
pub trait BlockSource {
    /// The bytes of a part, checked, perhaps from a cache.
    async fn page(&self, page: PageRef) -> Result<Arc<[u8]>, BlockFault>;
    /// Exactly `len` bytes; checked by the caller.
    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockFault>;
    /// Lets others run, if this task has run for long.
    async fn yield_if_needed(&self);
}

/// What is known of a block once its end was read.
#[derive(Clone, Debug)]
pub struct BlockIndex {
    meta: BlockMeta,
    directory: Rc<Directory>,
}

/// The parts that the trailer refers to.
struct Trailer {
    directory: PageRef,
    meta: PageRef,
}

async fn read_trailer(source: &impl BlockSource, len: u64) -> Result<Trailer, BlockFault> {
    let edge = BLOCK_EDGE_BYTES as u64;
    if len < 2 * edge {
        return Err(BlockFault::Truncated { offset: 2 * edge });
    }
    let header = source.read(0, BLOCK_EDGE_BYTES).await?;
    check_edge(&header, HEADER_MAGIC, 0, 0)?;
    let offset = len - edge;
    let bytes = source.read(offset, BLOCK_EDGE_BYTES).await?;
    check_edge(&bytes, TRAILER_MAGIC, BLOCK_EDGE_BYTES - 8, offset)?;
    let mut walk = Walk::new(&bytes);
    let malformed = BlockFault::Malformed { offset };
    let directory = walk.page_ref().ok_or(malformed)?;
    let meta = walk.page_ref().ok_or(malformed)?;
    for part in [directory, meta] {
        if part.len > PART_BYTES_MAX || part.offset.saturating_add(u64::from(part.len)) > offset {
            return Err(malformed);
        }
    }
    Ok(Trailer { directory, meta })
}

/// Checks header or trailer, whose magic number lies at `magic_at`.
fn check_edge(bytes: &[u8], magic: u32, magic_at: usize, offset: u64) -> Result<(), BlockFault> {
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes.len() < BLOCK_EDGE_BYTES || word(magic_at) != magic {
        return Err(BlockFault::NotABlock);
    }
    if word(BLOCK_EDGE_BYTES - 4) != crc32c(&bytes[..BLOCK_EDGE_BYTES - 4]) {
        return Err(BlockFault::Corrupt { offset });
    }
    let version_at = if magic_at == 0 { 4 } else { magic_at - 4 };
    match word(version_at) {
        VERSION => Ok(()),
        version => Err(BlockFault::UnknownVersion { version }),
    }
}

/// Reads what a block of `len` bytes says of itself.
pub async fn read_meta(source: &impl BlockSource, len: u64) -> Result<BlockMeta, BlockFault> {
    let Trailer { meta, .. } = read_trailer(source, len).await?;
    let bytes = source.page(meta).await?;
    BlockMeta::decode(&bytes).ok_or(BlockFault::Malformed { offset: meta.offset })
}

/// Where the last part before the padding ends.
pub(super) async fn parts_end(source: &impl BlockSource, len: u64) -> Result<u64, BlockFault> {
    let Trailer { meta, .. } = read_trailer(source, len).await?;
    Ok(meta.offset + u64::from(meta.len))
}

/// Sizes of a block's parts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSections {
    /// Timestamps and values.
    pub columns: u64,
    /// Labels, postings and where the chunks lie.
    pub index: u64,
}

/// A series of a block.
#[derive(Clone, Debug)]
pub struct BlockSeries {
    /// Its id in the block.
    pub id: u32,
    /// Whose.
    pub tenant: TenantId,
    /// Canonical label bytes.
    pub labels: Box<[u8]>,
    /// In time order, not overlapping.
    pub chunks: Vec<ChunkEntry>,
}

pub use super::series_page::ChunkEntry;

impl BlockIndex {
    /// Reads the directory of a block of `len` bytes.
    pub async fn open(source: &impl BlockSource, len: u64) -> Result<Self, BlockFault> {
        let trailer = read_trailer(source, len).await?;
        let bytes = source.page(trailer.meta).await?;
        let malformed = |part: PageRef| BlockFault::Malformed { offset: part.offset };
        let meta = BlockMeta::decode(&bytes).ok_or(malformed(trailer.meta))?;
        let bytes = source.page(trailer.directory).await?;
        let directory = Directory::decode(&bytes).ok_or(malformed(trailer.directory))?;
        let columns = BLOCK_EDGE_BYTES as u64..=trailer.directory.offset;
        if u64::from(directory.series) != meta.series || !columns.contains(&directory.columns_end) {
            return Err(malformed(trailer.directory));
        }
        Ok(Self { meta, directory: Rc::new(directory) })
    }

    /// What it says of itself.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// What its parts take, in a file of `len` bytes.
    pub fn sections(&self, len: u64) -> BlockSections {
        let columns = self.directory.columns_end - BLOCK_EDGE_BYTES as u64;
        BlockSections { columns, index: len - columns }
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }
}

/// Reads one block; cheap to make, kept for as long as a query takes.
pub struct BlockReader<'a, S> {
    pub(super) index: &'a BlockIndex,
    pub(super) source: &'a S,
    /// Encoded labels by pair ref.
    labels: RefCell<HashMap<u32, Box<[u8]>>>,
}

impl<'a, S: BlockSource> BlockReader<'a, S> {
    /// A reader of the block that `index` was opened from.
    pub fn new(index: &'a BlockIndex, source: &'a S) -> Self {
        Self { index, source, labels: RefCell::default() }
    }

    /// What the block says of itself.
    pub fn meta(&self) -> &BlockMeta {
        &self.index.meta
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &S {
        self.source
    }

    /// How many pages of series there are.
    pub fn page_count(&self) -> usize {
        self.index.directory.series_pages.len()
    }

    /// The page that holds series `id`, and one above its last series.
    pub fn page_of(&self, id: u32) -> (usize, u32) {
        let page = self.index.directory.series_page(id);
        (page, self.index.directory.series_page_end(page))
    }

    /// The wanted series of a page, in order.
    pub async fn series_of_page(
        &self,
        page: usize,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Vec<BlockSeries>, BlockFault> {
        let directory = &self.index.directory;
        let Some(entry) = directory.series_pages.get(page) else { return Ok(Vec::new()) };
        let bytes = self.source.page(entry.page).await?;
        let malformed = BlockFault::Malformed { offset: entry.page.offset };
        let mut found: Vec<(u32, PageSeries)> = Vec::new();
        let place = (entry.values_base, directory.columns_end);
        let count = series_page::decode(&bytes, place, |at, one| {
            let id = entry.first.saturating_add(at);
            if wanted(id) {
                found.push((id, one.clone()));
            }
        });
        if count != Some(directory.series_page_end(page) - entry.first) {
            return Err(malformed);
        }
        let mut series = Vec::with_capacity(found.len());
        let mut labels = Vec::with_capacity(LABEL_BYTES_AHEAD);
        for (id, PageSeries { pairs, chunks }) in found {
            labels.clear();
            self.load_labels(&pairs, entry.tenant, &mut labels).await?;
            let labels = labels.as_slice().into();
            series.push(BlockSeries { id, tenant: entry.tenant, labels, chunks });
        }
        Ok(series)
    }

    async fn load_labels(
        &self,
        pairs: &[u32],
        tenant: TenantId,
        out: &mut Vec<u8>,
    ) -> Result<(), BlockFault> {
        for pair in pairs {
            if let Some(label) = self.labels.borrow().get(pair) {
                out.extend_from_slice(label);
                continue;
            }
            self.load_label(*pair, tenant, out).await?;
        }
        Ok(())
    }

    /// Appends a label, and keeps it if other series have it too.
    async fn load_label(
        &self,
        pair: u32,
        tenant: TenantId,
        out: &mut Vec<u8>,
    ) -> Result<(), BlockFault> {
        let directory = &self.index.directory;
        let order = directory.order_pages.get((pair / ORDER_ENTRIES) as usize);
        let malformed = BlockFault::Malformed { offset: directory.columns_end };
        let order = *order.ok_or(malformed)?;
        let bytes = self.source.page(order).await?;
        let at = (pair % ORDER_ENTRIES) as usize * 4;
        let malformed = BlockFault::Malformed { offset: order.offset };
        let rank = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        let rank = rank.map(u32::from_le_bytes).ok_or(malformed)?;
        let (name, page) = directory.pair_page(rank).ok_or(malformed)?;
        if name.tenant != tenant {
            return Err(malformed);
        }
        let bytes = self.source.page(page.page).await?;
        let mut value = Vec::with_capacity(VALUE_BYTES_AHEAD);
        let copied =
            page.view(&bytes).and_then(|view| view.copy_value(rank - page.first_rank, &mut value));
        let series = copied.map_err(|_| page.malformed())?;
        let start = out.len();
        encode_label(out, &name.name, &value);
        if series > 1 {
            let mut labels = self.labels.borrow_mut();
            if labels.len() >= PAIRS_KEPT {
                labels.clear();
            }
            labels.insert(pair, out[start..].into());
        }
        Ok(())
    }

    /// The series that have a name.
    pub(super) async fn having(&self, name: &NameEntry) -> Result<RoaringBitmap, BlockFault> {
        self.stored(name.having).await
    }

    /// Adds the series of a pair.
    pub(super) async fn add_postings(
        &self,
        postings: PairPostings,
        set: &mut RoaringBitmap,
    ) -> Result<(), BlockFault> {
        match postings {
            PairPostings::One(id) if id < self.index.directory.series => {
                set.insert(id);
            }
            PairPostings::One(_) => {
                let offset = self.index.directory.columns_end;
                return Err(BlockFault::Malformed { offset });
            }
            PairPostings::Stored(page) => *set |= self.stored(page).await?,
        }
        Ok(())
    }

    async fn stored(&self, page: PageRef) -> Result<RoaringBitmap, BlockFault> {
        let bytes = self.source.page(page).await?;
        let set = decode_postings(&bytes, self.index.directory.series);
        set.ok_or(BlockFault::Malformed { offset: page.offset })
    }
}
