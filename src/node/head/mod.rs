//! The head of one node shard: the series it knows and their recent samples, in memory. Pure: no
//! I/O, no clock.
//!
//! ```text
//! series   open:   raw points, newer than what it sealed <- samples in order, or hardly late
//!          side:   raw points older than the open ones   <- samples late by more; mostly none
//!          sealed: chunks in the order of sealing        <- either of them at 64 points
//! ```
//! No chunk spans two of the aligned ranges that blocks are made of.
//!
//! Invariants, on which "the last write wins" rests:
//! - What is sealed from `open` ascends in time from chunk to chunk, and the open points are newer
//!   still.
//! - A late sample not older than the first open point goes into its place in `open`, so `side` and
//!   `open` never share a timestamp, and whatever is in `side` was written after everything sealed
//!   at that time.
//! - So readers take the sealed chunks in order, then side, then open, and at equal timestamps the
//!   later one.
//! - The newest point of a series is always in `open` (unless a flush took it): a repeat of it
//!   overwrites in place.
//!
//! In: columns of ids, timestamps and values (`append`, `replay`), pieces of a snapshot. Out:
//! refusals, chunks, points. Cost: see the measurements in `measure.rs`. Columns and tables double
//! when full: a pause of tens of milliseconds at a million series. Series are never removed within
//! an incarnation, only their samples: into blocks (`flush`), or for good (`delete`).

mod append;
mod buffer;
mod delete;
mod flush;
mod points;
mod read;
mod snapshot;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod measure;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers from a seeded generator")]
mod tests;

use hashbrown::HashMap;

use super::index::{IdTable, Index, IndexFault};
use crate::model::chunk::Chunk;
use crate::model::refusal::Refusal;
use crate::model::series::{SeriesHash, SeriesId, TenantId};
use buffer::Buffer;
use points::Points;

pub use flush::{FlushCut, TakenSeries};
pub(in crate::node) use read::TimeRange;
pub use snapshot::{SnapshotFault, SnapshotPiece, SnapshotSeries};

/// What a head may hold and take.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// A sample older than its series' newest by more than this is refused as [`Refusal::TooOld`].
    pub out_of_order_window_ms: i64,
    /// Beyond this many bytes new series and samples are refused as [`Refusal::HeadFull`].
    pub bytes_max: u64,
}

/// The default of [`HeadLimits::out_of_order_window_ms`]: one hour.
pub const OUT_OF_ORDER_WINDOW_MS: i64 = 3_600_000;

/// See the module's description.
pub struct Head {
    limits: HeadLimits,
    index: Index,
    table: IdTable,
    hash: Vec<SeriesHash>,
    tenant: Vec<TenantId>,
    /// What an append touches, 16 bytes a series.
    hot: Vec<Hot>,
    sealed: Vec<Vec<Sealed>>,
    side: HashMap<u32, Buffer>,
    points: Points,
    /// Heap bytes of all lists in `sealed` and of their chunks.
    sealed_bytes: u64,
    counts: Counts,
    /// Older samples are refused.
    oldest_kept_ms: i64,
    /// Changes whenever chunks leave.
    drop_generation: u64,
}

/// The state of a series that each of its samples touches.
#[derive(Clone, Copy)]
struct Hot {
    /// Time of the newest sample ever taken; `i64::MIN` before the first.
    newest_ms: i64,
    open: Buffer,
}

const _: () = assert!(size_of::<Hot>() == 16);

impl Hot {
    const NEW: Self = Self { newest_ms: i64::MIN, open: Buffer { line: 0, len: 0, capacity: 0 } };
}

/// A sealed chunk, and its range, so that a reader looks at its bytes only if they overlap.
#[derive(Clone, Debug)]
struct Sealed {
    min_ms: i64,
    max_ms: i64,
    chunk: Chunk,
}

/// What `malloc` and the reference counts take beside a chunk's bytes.
const CHUNK_OVERHEAD_BYTES: u64 = 16 + 8;

impl Sealed {
    fn new(chunk: Chunk) -> Self {
        Self { min_ms: chunk.min_timestamp_ms(), max_ms: chunk.max_timestamp_ms(), chunk }
    }

    fn heap_bytes(&self) -> u64 {
        self.chunk.len_bytes() as u64 + CHUNK_OVERHEAD_BYTES
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    samples: u64,
    chunks: u64,
    out_of_order: u64,
    duplicates: u64,
}

/// What a head holds, for `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadReport {
    /// Series known.
    pub series: u32,
    /// Distinct label pairs.
    pub label_pairs: u32,
    /// Samples held, late rewrites of sealed ones counted again.
    pub samples: u64,
    /// Sealed chunks held.
    pub chunks: u64,
    /// Samples taken in order of time later than a newer one of their series, since the start.
    pub out_of_order: u64,
    /// Samples that overwrote one of the same timestamp that was not sealed yet, since the start.
    pub duplicates: u64,
    /// Series that have late samples not sealed yet.
    pub side_series: u32,
    /// Bytes of raw points, in use.
    pub open_bytes: u64,
    /// Bytes of sealed chunks and their lists.
    pub sealed_bytes: u64,
    /// Bytes of label texts and of each series' list of pairs.
    pub label_bytes: u64,
    /// Bytes of tables and postings.
    pub index_bytes: u64,
    /// Bytes of everything, free room included: what is held against the limit.
    pub bytes: u64,
}

impl Head {
    /// An empty head.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            index: Index::default(),
            table: IdTable::default(),
            hash: Vec::new(),
            tenant: Vec::new(),
            hot: Vec::new(),
            sealed: Vec::new(),
            side: HashMap::new(),
            points: Points::new(),
            sealed_bytes: 0,
            counts: Counts::default(),
            oldest_kept_ms: i64::MIN,
            drop_generation: 0,
        }
    }

    /// The id of a known series.
    #[inline]
    pub fn find(&self, hash: SeriesHash) -> Option<SeriesId> {
        let found = self.table.find(hash.table_hash(), |id| self.hash[id as usize] == hash);
        found.map(SeriesId)
    }

    /// The id of a series, known or new. Ids are dense from 0.
    ///
    /// `labels` are canonical label bytes, and `hash` is [`SeriesHash::of`] them and `tenant`.
    /// # Errors
    /// [`Refusal::HeadFull`] for a new series at the limit, [`Refusal::CorruptBody`] if `labels`
    /// are not canonical.
    pub fn register(
        &mut self,
        tenant: TenantId,
        hash: SeriesHash,
        labels: &[u8],
    ) -> Result<SeriesId, Refusal> {
        if let Some(id) = self.find(hash) {
            return Ok(id);
        }
        if self.bytes() >= self.limits.bytes_max {
            return Err(Refusal::HeadFull);
        }
        self.register_new(tenant, hash, labels)
    }

    /// As [`Head::register`], but for what was accepted once already: the byte limit does not
    /// refuse it.
    pub fn register_again(
        &mut self,
        tenant: TenantId,
        hash: SeriesHash,
        labels: &[u8],
    ) -> Result<SeriesId, Refusal> {
        match self.find(hash) {
            Some(id) => Ok(id),
            None => self.register_new(tenant, hash, labels),
        }
    }

    fn register_new(
        &mut self,
        tenant: TenantId,
        hash: SeriesHash,
        labels: &[u8],
    ) -> Result<SeriesId, Refusal> {
        let id = self.index.register(tenant, labels).map_err(|fault| match fault {
            IndexFault::Malformed => Refusal::CorruptBody,
            IndexFault::Full => Refusal::HeadFull,
        })?;
        assert!(id as usize == self.hash.len());
        self.table.insert(hash.table_hash(), id);
        self.hash.push(hash);
        self.tenant.push(tenant);
        self.hot.push(Hot::NEW);
        self.sealed.push(Vec::new());
        Ok(SeriesId(id))
    }

    /// Series known: ids are below this.
    pub fn series_count(&self) -> u32 {
        self.index.series_count()
    }

    /// The identity of a known series.
    pub fn identity(&self, id: SeriesId) -> (TenantId, SeriesHash) {
        (self.tenant[id.0 as usize], self.hash[id.0 as usize])
    }

    /// Appends the canonical label bytes of a known series.
    pub fn encode_labels(&self, id: SeriesId, out: &mut Vec<u8>) {
        self.index.encode_labels(id.0, out);
    }

    /// Bytes of everything, as held against [`HeadLimits::bytes_max`]. O(1).
    pub fn bytes(&self) -> u64 {
        let index = self.index.bytes();
        self.points.bytes() + self.sealed_bytes + index.labels + index.index + self.column_bytes()
    }

    fn column_bytes(&self) -> u64 {
        let columns = self.hash.capacity() * size_of::<SeriesHash>()
            + self.tenant.capacity() * size_of::<TenantId>()
            + self.hot.capacity() * size_of::<Hot>()
            + self.sealed.capacity() * size_of::<Vec<Sealed>>()
            + self.side.allocation_size();
        columns as u64 + self.table.bytes()
    }

    /// What [`Head::bytes`] is held against.
    pub fn bytes_max(&self) -> u64 {
        self.limits.bytes_max
    }

    /// What it holds. O(1).
    pub fn report(&self) -> HeadReport {
        let index = self.index.bytes();
        HeadReport {
            series: self.series_count(),
            label_pairs: self.index.pair_count(),
            samples: self.counts.samples,
            chunks: self.counts.chunks,
            out_of_order: self.counts.out_of_order,
            duplicates: self.counts.duplicates,
            side_series: u32::try_from(self.side.len()).unwrap_or(u32::MAX),
            open_bytes: self.points.bytes_used(),
            sealed_bytes: self.sealed_bytes,
            label_bytes: index.labels,
            index_bytes: index.index + self.column_bytes(),
            bytes: self.bytes(),
        }
    }

    /// What `select` looks series up in.
    pub(in crate::node) fn index(&self) -> &Index {
        &self.index
    }

    /// Seals the first `count` points of `buffer`, which is one of series `id`.
    fn seal(&mut self, id: u32, buffer: &mut Buffer, count: u8) {
        let mut first = None;
        let mut others = Vec::new();
        buffer.seal(&mut self.points, count, |chunk| match first {
            None => first = Some(chunk),
            Some(_) => others.push(chunk),
        });
        for chunk in first.into_iter().chain(others) {
            self.push_sealed(id, chunk);
        }
    }

    /// Adds a chunk behind all others of the series.
    fn push_sealed(&mut self, id: u32, chunk: Chunk) {
        let sealed = Sealed::new(chunk);
        self.sealed_bytes += sealed.heap_bytes();
        self.counts.chunks += 1;
        let list = &mut self.sealed[id as usize];
        if list.len() == list.capacity() {
            // By half, from two: most series of a head have few chunks, and there may be a million
            // of them.
            let before = list.capacity();
            list.reserve_exact((before / 2).max(2));
            self.sealed_bytes += ((list.capacity() - before) * size_of::<Sealed>()) as u64;
        }
        list.push(sealed);
    }
}
