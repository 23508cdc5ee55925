//! A whole block, byte by byte: every checksum, and whether the parts say the same.
//!
//! In: a source of its bytes. Out: what is wrong, and where. Memory: the postings that the series
//! imply, and one page. Time: that of reading and decoding everything.

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::directory::{NameEntry, PairPage};
use super::format::{BLOCK_EDGE_BYTES, BlockFault};
use super::meta::BlockMeta;
use super::pair_page::{Malformed, RESTART_PAIRS};
use super::reader::{BlockIndex, BlockReader, BlockSections, BlockSource};
use crate::model::labels;
use crate::model::series::TenantId;

/// Faults that are listed; the rest is like them.
const FAULTS_MAX: usize = 100;
/// What is read at once where nothing else divides it.
const READ_BYTES: usize = 1 << 20;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockCheck {
    /// What the block says of itself.
    pub meta: BlockMeta,
    /// Sizes of its parts.
    pub sections: BlockSections,
    /// What is wrong, and where; empty if nothing is.
    pub faults: Vec<BlockFlaw>,
}

/// Something wrong in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFlaw {
    /// Near this byte.
    pub offset: u64,
    /// What.
    pub text: String,
}

/// The state of a check.
struct Check<'a, S> {
    reader: BlockReader<'a, S>,
    faults: Vec<BlockFlaw>,
    /// Postings that the series imply, by tenant, name and value.
    implied: HashMap<(TenantId, Vec<u8>, Vec<u8>), RoaringBitmap>,
    /// Bytes of the columns that a chunk refers to.
    used: Vec<(u64, u64)>,
    totals: (u64, u64, u64),
    range: (i64, i64),
    last: Option<(TenantId, Box<[u8]>)>,
}

/// Checks a block of `len` bytes. An `Err` means that not even its end can be read.
pub async fn check_block<S: BlockSource>(source: &S, len: u64) -> Result<BlockCheck, BlockFault> {
    let index = BlockIndex::open(source, len).await?;
    let mut check = Check {
        reader: BlockReader::new(&index, source),
        faults: Vec::new(),
        implied: HashMap::new(),
        used: Vec::new(),
        totals: (0, 0, 0),
        range: (i64::MAX, i64::MIN),
        last: None,
    };
    check.check_series().await;
    check.check_totals();
    check.check_columns();
    check.check_postings().await;
    check.check_padding(source, len).await;
    let (meta, sections) = (index.meta().clone(), index.sections(len));
    Ok(BlockCheck { meta, sections, faults: check.faults })
}

impl<S: BlockSource> Check<'_, S> {
    fn flaw(&mut self, offset: u64, text: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(BlockFlaw { offset, text: text.into() });
        }
    }

    fn fault(&mut self, part: &str, fault: BlockFault) {
        let offset = fault.offset().unwrap_or(0);
        self.flaw(offset, format!("{part} {fault}"));
    }

    async fn check_series(&mut self) {
        for page in 0..self.reader.page_count() {
            let series = match self.reader.series_of_page(page, |_| true).await {
                Ok(series) => series,
                Err(fault) => {
                    self.fault("a page of series", fault);
                    continue;
                }
            };
            for series in series {
                self.check_one(series).await;
            }
            self.reader.source.yield_if_needed().await;
        }
    }

    async fn check_one(&mut self, series: super::reader::BlockSeries) {
        let at = series.chunks.first().map_or(0, |chunk| chunk.values_at);
        if let Some((tenant, before)) = &self.last {
            let is_above = *tenant < series.tenant
                || *tenant == series.tenant
                    && labels::iterate(before).lt(labels::iterate(&series.labels));
            if !is_above {
                self.flaw(at, format!("series {} is not in order", series.id));
            }
        }
        for (name, value) in labels::iterate(&series.labels) {
            let key = (series.tenant, name.to_vec(), value.to_vec());
            self.implied.entry(key).or_default().insert(series.id);
        }
        let is_ordered = series.chunks.is_sorted_by(|one, next| one.max_ms < next.min_ms);
        if !is_ordered || series.chunks.is_empty() {
            self.flaw(at, format!("the chunks of series {} overlap, or are none", series.id));
        }
        match self.reader.chunks(&series.chunks).await {
            Err(fault) => self.fault("a chunk", fault),
            Ok(chunks) => {
                let mut samples = Vec::new();
                let bad = chunks.iter().find_map(|chunk| chunk.decode(&mut samples).err());
                if let Some(fault) = bad {
                    let text =
                        format!("a chunk of series {} does not decode: {fault:?}", series.id);
                    self.flaw(at, text);
                }
                self.totals.2 += samples.len() as u64;
            }
        }
        for chunk in &series.chunks {
            self.range = (self.range.0.min(chunk.min_ms), self.range.1.max(chunk.max_ms));
            self.used.push((chunk.values_at, u64::from(chunk.values_len)));
            self.used.push((chunk.times_at, u64::from(chunk.times_len)));
        }
        self.totals.0 += 1;
        self.totals.1 += series.chunks.len() as u64;
        self.last = Some((series.tenant, series.labels));
    }

    fn check_totals(&mut self) {
        let meta = self.reader.meta().clone();
        if self.totals != (meta.series, meta.chunks, meta.samples) {
            let (said, found) = ((meta.series, meta.chunks, meta.samples), self.totals);
            self.flaw(0, format!("series, chunks and samples are {found:?}, not {said:?}"));
        }
        if self.range != (meta.min_ms, meta.max_ms) {
            let range = self.range;
            self.flaw(0, format!("times are {range:?}, not {:?}", (meta.min_ms, meta.max_ms)));
        }
    }

    /// Every byte of the columns belongs to a chunk, which has checked it.
    fn check_columns(&mut self) {
        self.used.sort_unstable();
        let mut end = BLOCK_EDGE_BYTES as u64;
        for (at, len) in std::mem::take(&mut self.used) {
            if at > end && len > 0 {
                self.flaw(end, "bytes that belong to no chunk");
            }
            end = end.max(at + len);
        }
        if end != self.reader.index.directory().columns_end {
            self.flaw(end, "bytes that belong to no chunk");
        }
    }

    async fn check_postings(&mut self) {
        let index = self.reader.index;
        let directory = index.directory();
        for name in &directory.names {
            let mut having = RoaringBitmap::new();
            let mut before: Option<Vec<u8>> = None;
            for page in &name.pages {
                let bytes = match self.reader.source.page(page.page).await {
                    Ok(bytes) => bytes,
                    Err(fault) => {
                        self.fault("a page of labels", fault);
                        continue;
                    }
                };
                let checked = self.check_pairs(name, page, &bytes, &mut having, &mut before).await;
                if checked.is_err() {
                    self.flaw(page.page.offset, "a page of labels contradicts itself");
                }
                self.reader.source.yield_if_needed().await;
            }
            match self.reader.having(name).await {
                Err(fault) => self.fault("postings", fault),
                Ok(set) if set != having || set.len() != u64::from(name.series) => {
                    self.flaw(name.having.offset, "a name's series are not those of its values");
                }
                Ok(_) => {}
            }
        }
        if !self.implied.is_empty() {
            self.flaw(directory.columns_end, "labels without postings");
        }
    }

    /// The pairs of one page: in order, found from each restart, with the postings of the series.
    async fn check_pairs(
        &mut self,
        name: &NameEntry,
        page: &PairPage,
        bytes: &[u8],
        having: &mut RoaringBitmap,
        before: &mut Option<Vec<u8>>,
    ) -> Result<(), Malformed> {
        let view = page.view(bytes)?;
        let mut pairs = view.walk();
        let mut index = 0;
        while let Some(pair) = pairs.next()? {
            if index == 0 && *pair.value != *page.first_value {
                self.flaw(page.page.offset, "a page of labels begins with another value");
            }
            if index % RESTART_PAIRS == 0
                && view.walk_from(index / RESTART_PAIRS)?.next()? != Some(pair)
            {
                self.flaw(page.page.offset, "a page of labels restarts elsewhere");
            }
            index += 1;
            if before.as_ref().is_some_and(|before| **before >= *pair.value) {
                self.flaw(page.page.offset, "values are not in order");
            }
            *before = Some(pair.value.to_vec());
            let mut set = RoaringBitmap::new();
            if let Err(fault) = self.reader.add_postings(pair.postings, &mut set).await {
                self.fault("postings", fault);
                continue;
            }
            let key = (name.tenant, name.name.to_vec(), pair.value.to_vec());
            let implied = self.implied.remove(&key).unwrap_or_default();
            if implied != set || set.len() != u64::from(pair.series) {
                self.flaw(page.page.offset, "postings are not those of the series");
            }
            *having |= set;
        }
        Ok(())
    }

    /// Between the last part and the trailer are zeros, and the parts follow each other.
    async fn check_padding(&mut self, source: &S, len: u64) {
        let end = match super::reader::parts_end(source, len).await {
            Ok(end) => end,
            Err(fault) => return self.fault("the trailer", fault),
        };
        let mut at = end;
        while at < len - BLOCK_EDGE_BYTES as u64 {
            let rest = len - BLOCK_EDGE_BYTES as u64 - at;
            let piece = usize::try_from(rest).unwrap_or(READ_BYTES).min(READ_BYTES);
            match source.read(at, piece).await {
                Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => {}
                Ok(_) => self.flaw(at, "bytes that belong to nothing"),
                Err(fault) => self.fault("the padding", fault),
            }
            at += piece as u64;
        }
        if !len.is_multiple_of(super::format::BLOCK_ALIGN_BYTES as u64) {
            self.flaw(len, "the length is no multiple of 4096");
        }
    }
}
