//! Series in order -> the bytes of a block, in order.
//!
//! In: series by tenant and labels (as Prometheus sorts them), each with its chunks in time order.
//! Out: bytes to append, and with `finish` the end of the file. Memory: every distinct label pair
//! with its postings as runs (a few bytes a run), a page of series, a few timestamp columns.
//! Layout: `format`.

use hashbrown::{Equivalent, HashMap, HashTable};
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::directory::{Directory, NameEntry, PairPage, SeriesPage, TenantEntry};
use super::format::{
    BLOCK_ALIGN_BYTES, BLOCK_EDGE_BYTES, HEADER_MAGIC, ORDER_ENTRIES, PAGE_BYTES, PageRef,
    TRAILER_MAGIC, VERSION, shared_len, write_text, write_zigzag,
};
use super::meta::BlockMeta;
use super::pair_page::RESTART_PAIRS;
use crate::base::checksum::{crc32c, crc32c_append};
use crate::base::varint::write_varint;
use crate::model::chunk::ChunkColumns;
use crate::model::labels;
use crate::model::series::TenantId;

/// Timestamp columns that can be referred to again.
const TIMES_KEPT: usize = 256;
/// Lists of more runs than this are stored as bitmaps.
const RUNS_MAX: u32 = 4096;

/// What a block is to say of itself, besides what its series tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOrigin {
    /// See [`BlockMeta`].
    pub id: u64,
    /// See [`BlockMeta`].
    pub node: u128,
    /// See [`BlockMeta`].
    pub level: u32,
    /// See [`BlockMeta`].
    pub oldest_flush: u64,
    /// See [`BlockMeta`].
    pub newest_flush: u64,
    /// See [`BlockMeta`].
    pub tombstones_applied: u64,
    /// See [`BlockMeta`].
    pub sources: Vec<u64>,
}

/// Writes one block.
pub struct BlockWriter {
    origin: BlockOrigin,
    out: Vec<u8>,
    /// Of the first byte of `out`.
    out_offset: u64,
    times: HashMap<Box<[u8]>, u64>,
    names: Vec<Name>,
    name_ids: HashMap<(TenantId, Box<[u8]>), u32>,
    pairs: Vec<Pair>,
    pair_ids: HashTable<u32>,
    tenants: Vec<TenantEntry>,
    page: Page,
    /// Series pages wait here until the columns end.
    pages: Vec<u8>,
    series_pages: Vec<SeriesPage>,
    series: u32,
    last_labels: Vec<u8>,
    chunks: u64,
    samples: u64,
    range: Option<(i64, i64)>,
}

struct Name {
    tenant: TenantId,
    text: Box<[u8]>,
    having: Runs,
}

struct Pair {
    name: u32,
    value: Box<[u8]>,
    postings: Runs,
}

/// Ascending ids as runs, the last of them open.
#[derive(Default)]
struct Runs {
    encoded: Vec<u8>,
    run_count: u32,
    count: u32,
    /// End of the last run in `encoded`.
    end: u32,
    open: Option<(u32, u32)>,
}

impl Runs {
    fn push(&mut self, id: u32) {
        self.count += 1;
        match &mut self.open {
            Some((_, end)) if *end == id => *end += 1,
            _ => {
                self.close();
                self.open = Some((id, id + 1));
            }
        }
    }

    fn close(&mut self) {
        let Some((start, end)) = self.open.take() else { return };
        write_varint(&mut self.encoded, u64::from(start - self.end));
        write_varint(&mut self.encoded, u64::from(end - start - 1));
        self.run_count += 1;
        self.end = end;
    }

    fn encode(&mut self, out: &mut Vec<u8>) {
        self.close();
        if self.run_count <= RUNS_MAX {
            out.push(0);
            out.extend_from_slice(&self.encoded);
            return;
        }
        let mut bitmap = RoaringBitmap::new();
        super::directory::decode_runs(&self.encoded, &mut bitmap).expect("our own runs");
        bitmap.optimize();
        out.push(1);
        bitmap.serialize_into(out).expect("a vector");
    }
}

/// The series page that is being filled.
#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    first: u32,
    tenant: TenantId,
    pairs: Vec<u32>,
    min_ms: i64,
    span: i64,
    count: i64,
    times_at: i64,
    values_base: u64,
    values_end: u64,
}

/// A series that is being written.
struct Open {
    chunks: u64,
    bytes: Vec<u8>,
}

impl BlockWriter {
    /// Begins a block.
    pub fn new(origin: BlockOrigin) -> Self {
        let mut header = [0; BLOCK_EDGE_BYTES];
        header[..4].copy_from_slice(&HEADER_MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&VERSION.to_le_bytes());
        header[8..16].copy_from_slice(&origin.id.to_le_bytes());
        header[16..32].copy_from_slice(&origin.node.to_le_bytes());
        let crc = crc32c(&header[..BLOCK_EDGE_BYTES - 4]);
        header[BLOCK_EDGE_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        Self {
            origin,
            out: header.to_vec(),
            out_offset: 0,
            times: HashMap::new(),
            names: Vec::new(),
            name_ids: HashMap::new(),
            pairs: Vec::new(),
            pair_ids: HashTable::new(),
            tenants: Vec::new(),
            page: Page::default(),
            pages: Vec::new(),
            series_pages: Vec::new(),
            series: 0,
            last_labels: Vec::new(),
            chunks: 0,
            samples: 0,
            range: None,
        }
    }

    /// Adds a series with its chunks, at least one, in time order and not overlapping.
    ///
    /// `labels` are canonical, and above those of the series before.
    pub fn add_series<'a>(
        &mut self,
        tenant: TenantId,
        labels: &[u8],
        chunks: impl IntoIterator<Item = ChunkColumns<'a>>,
    ) {
        let mut series = self.begin_series(tenant, labels);
        for chunk in chunks {
            self.add_chunk(&mut series, &chunk);
        }
        self.end_series(&series);
    }

    fn begin_series(&mut self, tenant: TenantId, labels: &[u8]) -> Open {
        let is_above = self.tenants.last().is_none_or(|last| {
            last.tenant < tenant
                || last.tenant == tenant
                    && labels::iterate(&self.last_labels).lt(labels::iterate(labels))
        });
        assert!(is_above, "series come in order");
        self.last_labels.clear();
        self.last_labels.extend_from_slice(labels);
        if self.page.tenant != tenant || self.page.bytes.len() >= PAGE_BYTES {
            self.close_page();
        }
        let id = self.series;
        if self.page.bytes.is_empty() {
            self.page.values_base = self.offset();
            self.page.first = id;
            self.page.tenant = tenant;
            self.page.pairs.clear();
            (self.page.min_ms, self.page.span, self.page.count) = (0, 0, 0);
            (self.page.times_at, self.page.values_end) = (0, self.page.values_base);
        }
        if self.tenants.last().is_none_or(|last| last.tenant != tenant) {
            self.tenants.push(TenantEntry { tenant, first: id });
        }
        let mut pairs = Vec::new();
        for (name, value) in labels::iterate(labels) {
            pairs.push(self.pair(tenant, name, value, id));
        }
        let shared = pairs.iter().zip(&self.page.pairs).take_while(|(a, b)| a == b).count();
        let bytes = &mut self.page.bytes;
        write_varint(bytes, shared as u64);
        write_varint(bytes, (pairs.len() - shared) as u64);
        for pair in &pairs[shared..] {
            write_varint(bytes, u64::from(*pair));
        }
        self.page.pairs = pairs;
        Open { chunks: 0, bytes: Vec::new() }
    }

    fn pair(&mut self, tenant: TenantId, name: &[u8], value: &[u8], id: u32) -> u32 {
        let name_id = match self.name_ids.get(&NameRef { tenant, name }) {
            Some(id) => *id,
            None => self.add_name(tenant, name),
        };
        self.names[name_id as usize].having.push(id);
        let hash = xxh3_64_with_seed(value, u64::from(name_id));
        let is_it = |pair: &u32| {
            let pair = &self.pairs[*pair as usize];
            pair.name == name_id && *pair.value == *value
        };
        if let Some(pair) = self.pair_ids.find(hash, is_it) {
            self.pairs[*pair as usize].postings.push(id);
            return *pair;
        }
        let pair = u32::try_from(self.pairs.len()).expect("fewer pairs than 2^32");
        let mut postings = Runs::default();
        postings.push(id);
        self.pairs.push(Pair { name: name_id, value: value.into(), postings });
        let pairs = &self.pairs;
        self.pair_ids.insert_unique(hash, pair, |pair| {
            let pair = &pairs[*pair as usize];
            xxh3_64_with_seed(&pair.value, u64::from(pair.name))
        });
        pair
    }

    fn add_name(&mut self, tenant: TenantId, text: &[u8]) -> u32 {
        let id = u32::try_from(self.names.len()).expect("fewer names than 2^32");
        self.names.push(Name { tenant, text: text.into(), having: Runs::default() });
        self.name_ids.insert((tenant, text.into()), id);
        id
    }

    fn add_chunk(&mut self, series: &mut Open, chunk: &ChunkColumns<'_>) {
        let crc = crc32c_append(crc32c(chunk.timestamps), chunk.values);
        let times_at = self.place_times(chunk.timestamps);
        let values_at = self.offset();
        self.out.extend_from_slice(chunk.values);
        let page = &mut self.page;
        let span = chunk.max_ms.wrapping_sub(chunk.min_ms);
        let count = i64::from(chunk.count);
        let bytes = &mut series.bytes;
        write_zigzag(bytes, chunk.min_ms.wrapping_sub(page.min_ms));
        write_zigzag(bytes, span.wrapping_sub(page.span));
        write_zigzag(bytes, count - page.count);
        assert!(chunk.timestamp_codec < 16 && chunk.value_codec < 16);
        bytes.push(chunk.timestamp_codec | chunk.value_codec << 4);
        write_varint(bytes, chunk.timestamps.len() as u64);
        if !chunk.timestamps.is_empty() {
            let times_at = times_at.cast_signed();
            write_zigzag(bytes, times_at - page.times_at);
            page.times_at = times_at;
        }
        write_varint(bytes, chunk.values.len() as u64);
        write_varint(bytes, values_at - page.values_end);
        bytes.extend_from_slice(&crc.to_le_bytes());
        (page.min_ms, page.span, page.count) = (chunk.min_ms, span, count);
        page.values_end = values_at + chunk.values.len() as u64;
        series.chunks += 1;
        self.samples += u64::from(chunk.count);
        let (min_ms, max_ms) = self.range.unwrap_or((i64::MAX, i64::MIN));
        self.range = Some((min_ms.min(chunk.min_ms), max_ms.max(chunk.max_ms)));
    }

    fn place_times(&mut self, times: &[u8]) -> u64 {
        if let Some(at) = self.times.get(times) {
            return *at;
        }
        let at = self.offset();
        self.out.extend_from_slice(times);
        if self.times.len() >= TIMES_KEPT {
            self.times.clear();
        }
        self.times.insert(times.into(), at);
        at
    }

    fn end_series(&mut self, series: &Open) {
        assert!(series.chunks > 0, "a series without samples is not in a block");
        write_varint(&mut self.page.bytes, series.chunks);
        self.page.bytes.extend_from_slice(&series.bytes);
        self.chunks += series.chunks;
        self.series = self.series.checked_add(1).expect("fewer series than 2^32");
    }

    fn close_page(&mut self) {
        if self.page.bytes.is_empty() {
            return;
        }
        // The offset is that within the pages; `finish` adds where they begin.
        let page = PageRef::of(self.pages.len() as u64, &self.page.bytes);
        let Page { first, tenant, values_base, .. } = self.page;
        self.series_pages.push(SeriesPage { page, first, tenant, values_base });
        self.pages.append(&mut self.page.bytes);
    }

    fn offset(&self) -> u64 {
        self.out_offset + self.out.len() as u64
    }

    /// Takes what is ready to be appended to the file: whole multiples of `align` bytes.
    pub fn take_output(&mut self, align: usize) -> Vec<u8> {
        let rest = self.out.split_off(self.out.len() / align * align);
        self.out_offset += self.out.len() as u64;
        std::mem::replace(&mut self.out, rest)
    }

    /// Bytes that wait to be taken.
    pub fn output_len(&self) -> usize {
        self.out.len()
    }

    /// Ends the block; `take_output` gives the rest of the file. `None` if there is no series.
    pub fn finish(&mut self) -> Option<BlockMeta> {
        let (min_ms, max_ms) = self.range?;
        self.close_page();
        let columns_end = self.offset();
        self.out.append(&mut self.pages);
        for page in &mut self.series_pages {
            page.page.offset += columns_end;
        }
        let (names, order) = self.write_pairs();
        let order_pages = self.write_order(&order);
        let directory = Directory {
            columns_end,
            tenants: std::mem::take(&mut self.tenants),
            names,
            series_pages: std::mem::take(&mut self.series_pages),
            order_pages,
            pairs: u32::try_from(order.len()).expect("fewer pairs than 2^32"),
            series: self.series,
        };
        let BlockOrigin { id, node, level, oldest_flush, newest_flush, .. } = self.origin;
        let meta = BlockMeta {
            id,
            node,
            min_ms,
            max_ms,
            level,
            oldest_flush,
            newest_flush,
            tombstones_applied: self.origin.tombstones_applied,
            series: u64::from(self.series),
            chunks: self.chunks,
            samples: self.samples,
            sources: self.origin.sources.clone(),
        };
        let directory = self.write_part(&directory.encode());
        let meta_part = self.write_part(&meta.encode());
        let end = self.offset() + BLOCK_EDGE_BYTES as u64;
        let padding = end.next_multiple_of(BLOCK_ALIGN_BYTES as u64) - end;
        self.out.resize(self.out.len() + usize::try_from(padding).expect("below 4096"), 0);
        let mut trailer = Vec::with_capacity(BLOCK_EDGE_BYTES);
        directory.encode(&mut trailer);
        meta_part.encode(&mut trailer);
        trailer.resize(BLOCK_EDGE_BYTES - 12, 0);
        trailer.extend_from_slice(&VERSION.to_le_bytes());
        trailer.extend_from_slice(&TRAILER_MAGIC.to_le_bytes());
        let crc = crc32c(&trailer);
        trailer.extend_from_slice(&crc.to_le_bytes());
        self.out.extend_from_slice(&trailer);
        Some(meta)
    }

    fn write_part(&mut self, bytes: &[u8]) -> PageRef {
        let part = PageRef::of(self.offset(), bytes);
        self.out.extend_from_slice(bytes);
        part
    }

    /// Pair pages, then the postings; returns the names in order, and the refs by rank.
    fn write_pairs(&mut self) -> (Vec<NameEntry>, Vec<u32>) {
        let mut name_order: Vec<u32> = (0..).take(self.names.len()).collect();
        name_order.sort_by(|one, other| {
            let key = |id: &u32| {
                let name = &self.names[*id as usize];
                (name.tenant, &name.text)
            };
            key(one).cmp(&key(other))
        });
        let mut name_rank = vec![0; self.names.len()];
        for (rank, id) in (0u32..).zip(&name_order) {
            name_rank[*id as usize] = rank;
        }
        let mut order: Vec<u32> = (0..).take(self.pairs.len()).collect();
        order.sort_unstable_by(|one, other| {
            let key = |id: &u32| {
                let pair = &self.pairs[*id as usize];
                (name_rank[pair.name as usize], &pair.value)
            };
            key(one).cmp(&key(other))
        });
        let mut postings = Vec::new();
        let mut names = Vec::new();
        let mut at = 0;
        for name_id in &name_order {
            let start = at;
            while at < order.len() && self.pairs[order[at] as usize].name == *name_id {
                at += 1;
            }
            names.push(self.write_name(*name_id, (start, &order[start..at]), &mut postings));
        }
        let postings_at = self.offset();
        self.out.append(&mut postings);
        for name in &mut names {
            name.having.offset += postings_at;
            for page in &mut name.pages {
                page.postings_at += postings_at;
            }
        }
        (names, order)
    }

    fn write_name(
        &mut self,
        name_id: u32,
        (first_rank, pairs): (usize, &[u32]),
        postings: &mut Vec<u8>,
    ) -> NameEntry {
        let mut pages = Vec::new();
        let mut open = OpenPairPage::default();
        let mut rank = u32::try_from(first_rank).expect("fewer pairs than 2^32");
        for pair in pairs {
            let Pair { value, postings: runs, .. } = &mut self.pairs[*pair as usize];
            if open.bytes.is_empty() {
                open.begin(rank, postings.len() as u64, value);
            }
            open.add(value, runs, postings);
            rank += 1;
            if open.bytes.len() >= PAGE_BYTES {
                pages.push(open.close(rank, self.out_offset, &mut self.out));
            }
        }
        if !open.bytes.is_empty() {
            pages.push(open.close(rank, self.out_offset, &mut self.out));
        }
        let name = &mut self.names[name_id as usize];
        let start = postings.len();
        name.having.encode(postings);
        NameEntry {
            tenant: name.tenant,
            name: name.text.clone(),
            series: name.having.count,
            having: PageRef::of(start as u64, &postings[start..]),
            pages,
        }
    }

    fn write_order(&mut self, order: &[u32]) -> Vec<PageRef> {
        let mut rank_of = vec![0_u32; order.len()];
        for (rank, pair) in (0..).zip(order) {
            rank_of[*pair as usize] = rank;
        }
        let pages = rank_of.chunks(ORDER_ENTRIES as usize).map(|entries| {
            let bytes: Vec<u8> = entries.iter().flat_map(|rank| rank.to_le_bytes()).collect();
            let part = PageRef::of(self.out_offset + self.out.len() as u64, &bytes);
            self.out.extend_from_slice(&bytes);
            part
        });
        pages.collect()
    }
}

/// The pair page that is being filled.
#[derive(Default)]
struct OpenPairPage {
    bytes: Vec<u8>,
    first_rank: u32,
    postings_at: u64,
    first_value: Box<[u8]>,
    before: Vec<u8>,
    count: u32,
    restarts: Vec<u8>,
}

impl OpenPairPage {
    fn begin(&mut self, rank: u32, postings_at: u64, value: &[u8]) {
        (self.first_rank, self.postings_at) = (rank, postings_at);
        self.first_value = value.into();
        self.before.clear();
        self.count = 0;
    }

    fn add(&mut self, value: &[u8], runs: &mut Runs, postings: &mut Vec<u8>) {
        let start = postings.len();
        runs.encode(postings);
        if self.count.is_multiple_of(RESTART_PAIRS) {
            self.before.clear();
            let postings = start as u64 - self.postings_at;
            for number in [self.bytes.len() as u64, postings] {
                let number = u32::try_from(number).expect("postings of a page are below 4 GiB");
                self.restarts.extend_from_slice(&number.to_le_bytes());
            }
        }
        self.count += 1;
        let shared = shared_len(&self.before, value);
        write_varint(&mut self.bytes, shared as u64);
        write_text(&mut self.bytes, &value[shared..]);
        write_varint(&mut self.bytes, u64::from(runs.count));
        if runs.count == 1 {
            postings.truncate(start);
            write_varint(&mut self.bytes, u64::from(runs.end - 1));
        } else {
            let list = &postings[start..];
            write_varint(&mut self.bytes, list.len() as u64);
            self.bytes.extend_from_slice(&crc32c(list).to_le_bytes());
        }
        self.before.clear();
        self.before.extend_from_slice(value);
    }

    /// Appends the page to `out`, whose first byte lies at `out_offset`.
    fn close(&mut self, next_rank: u32, out_offset: u64, out: &mut Vec<u8>) -> PairPage {
        self.bytes.append(&mut self.restarts);
        let page = PageRef::of(out_offset + out.len() as u64, &self.bytes);
        out.append(&mut self.bytes);
        PairPage {
            page,
            first_rank: self.first_rank,
            count: next_rank - self.first_rank,
            postings_at: self.postings_at,
            first_value: std::mem::take(&mut self.first_value),
        }
    }
}

/// Looks names up without copying them.
struct NameRef<'a> {
    tenant: TenantId,
    name: &'a [u8],
}

impl std::hash::Hash for NameRef<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.tenant, self.name).hash(state);
    }
}

impl Equivalent<(TenantId, Box<[u8]>)> for NameRef<'_> {
    fn equivalent(&self, key: &(TenantId, Box<[u8]>)) -> bool {
        key.0 == self.tenant && *key.1 == *self.name
    }
}
