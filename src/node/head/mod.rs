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
//! A series has a *row* in the columns for as long as it is here, and an *id*, by which frames and
//! log records name it. An id is given once: when a series leaves (`retire`), its row serves
//! another, and its id nobody (`ids`). So memory follows the series that are here.
//!
//! In: columns of rows, timestamps and values (`append`, `replay`), pieces of a snapshot. Out:
//! refusals, chunks, points. Cost: see the measurements in `measure.rs`. Columns and tables double
//! when full: a pause of tens of milliseconds at a million series. Samples leave into blocks
//! (`flush`), or for good (`delete`).

mod append;
mod buffer;
mod delete;
mod flush;
mod grace;
mod ids;
mod points;
mod read;
mod retire;
mod snapshot;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod measure;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers from a seeded generator")]
pub(in crate::node) mod tests;

use hashbrown::HashMap;

use super::index::{IdTable, Index, IndexFault, Vacant};
use crate::model::chunk::Chunk;
use crate::model::refusal::Refusal;
use crate::model::series::{SeriesHash, SeriesId, TenantId};
use crate::wire::write::NEW_SERIES;
use buffer::Buffer;
use grace::Grace;
use ids::{Ids, NO_ROW};
use points::Points;

pub use flush::{FlushCut, TakenSeries};
pub use grace::Reader;
pub(in crate::node) use read::TimeRange;
use retire::LeftRows;
pub use retire::{IDLE_MS, LeftSeries, RetireCourse};
pub use snapshot::{SnapshotFault, SnapshotPiece, SnapshotSeries};

/// What a head may hold and take.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// A sample older than its series' newest by more than this is refused as [`Refusal::TooOld`].
    pub out_of_order_window_ms: i64,
    /// Beyond this many bytes new series and samples are refused as [`Refusal::HeadFull`].
    pub bytes_max: u64,
}

/// [`HeadLimits::out_of_order_window_ms`] of tests: an hour, as by default.
#[cfg(test)]
pub const OUT_OF_ORDER_WINDOW_MS: i64 = 3_600_000;

/// A place in the columns of a head, which a series has while it is there. `u32::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row(pub u32);

impl Row {
    /// No row.
    pub const NONE: Self = Self(NO_ROW);
}

/// Ids are below this: frames mark with the bit that a series has none yet.
const IDS_MAX: u32 = NEW_SERIES;
/// In the id column: the row is free.
const NO_ID: SeriesId = SeriesId(u32::MAX);

/// See the module's description.
pub struct Head {
    limits: HeadLimits,
    index: Index,
    /// From hashes to rows.
    table: IdTable,
    ids: Ids,
    /// Above every id that was ever given.
    next_id: u32,
    /// Rows that may be used again, and those that may not yet.
    vacant: Vacant,
    grace: Grace<LeftRows>,
    hash: Vec<SeriesHash>,
    /// Row -> id, [`NO_ID`] without a series.
    id: Vec<SeriesId>,
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
            ids: Ids::default(),
            next_id: 0,
            vacant: Vacant::default(),
            grace: Grace::new(),
            hash: Vec::new(),
            id: Vec::new(),
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
        self.find_row(hash).map(|row| self.id[row as usize])
    }

    #[inline]
    fn find_row(&self, hash: SeriesHash) -> Option<u32> {
        self.table.find(hash.table_hash(), |row| self.hash[row as usize] == hash)
    }

    /// The row of a series, [`Row::NONE`] if the id is none that is here.
    #[inline]
    pub fn row_of(&self, id: SeriesId) -> Row {
        Row(self.ids.row(id.0))
    }

    /// While no series ever left, ids are rows: how many there are.
    #[inline]
    pub fn count_if_ids_are_rows(&self) -> Option<u32> {
        self.ids.count_if_rows()
    }

    /// The id of a series, known or new. New ids ascend, and none is given twice.
    ///
    /// `labels` are canonical label bytes, and `hash` is [`SeriesHash::of`] them and `tenant`.
    /// # Errors
    /// [`Refusal::HeadFull`] for a new series at the limit, or when all ids were given;
    /// [`Refusal::CorruptBody`] if `labels` are not canonical.
    pub fn register(
        &mut self,
        tenant: TenantId,
        hash: SeriesHash,
        labels: &[u8],
    ) -> Result<SeriesId, Refusal> {
        if let Some(id) = self.find(hash) {
            return Ok(id);
        }
        if self.is_full() {
            return Err(Refusal::HeadFull);
        }
        self.register_new(tenant, hash, labels, SeriesId(self.next_id))
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
            None => self.register_new(tenant, hash, labels, SeriesId(self.next_id)),
        }
    }

    /// As [`Head::register_again`], and under the id that it had, or gets now if it is known: an id
    /// was given anew because the series had left in between. Another id only if that one is
    /// another series', which no log of ours says.
    pub fn register_as(
        &mut self,
        id: SeriesId,
        (tenant, hash): (TenantId, SeriesHash),
        labels: &[u8],
    ) -> Result<SeriesId, Refusal> {
        let is_free = id.0 < IDS_MAX && self.row_of(id) == Row::NONE;
        let Some(row) = self.find_row(hash) else {
            let id = if is_free { id } else { SeriesId(self.next_id) };
            return self.register_new(tenant, hash, labels, id);
        };
        if is_free {
            self.ids.remove(self.id[row as usize].0);
            self.ids.insert(id.0, row);
            self.id[row as usize] = id;
            self.set_next_id(id.0 + 1);
        }
        Ok(self.id[row as usize])
    }

    fn register_new(
        &mut self,
        tenant: TenantId,
        hash: SeriesHash,
        labels: &[u8],
        id: SeriesId,
    ) -> Result<SeriesId, Refusal> {
        if id.0 >= IDS_MAX {
            return Err(Refusal::HeadFull);
        }
        let row = self.vacant.lowest().unwrap_or_else(|| self.row_count());
        self.index.register(row, tenant, labels).map_err(|fault| match fault {
            IndexFault::Malformed => Refusal::CorruptBody,
            IndexFault::Full => Refusal::HeadFull,
        })?;
        self.table.insert(hash.table_hash(), row);
        self.ids.insert(id.0, row);
        self.set_next_id(id.0 + 1);
        let at = row as usize;
        if at < self.hash.len() {
            self.vacant.take(row);
            (self.hash[at], self.id[at], self.hot[at]) = (hash, id, Hot::NEW);
        } else {
            self.hash.push(hash);
            self.id.push(id);
            self.hot.push(Hot::NEW);
            self.sealed.push(Vec::new());
        }
        Ok(id)
    }

    /// New ids are at least this. Ids are never given again, so it only rises.
    pub fn set_next_id(&mut self, id: u32) {
        self.next_id = self.next_id.max(id.min(IDS_MAX));
    }

    /// Above every id that was ever given.
    pub fn next_id(&self) -> u32 {
        self.next_id
    }

    /// Whether most ids were given: the next restart should begin a new incarnation, which counts
    /// from 0.
    pub fn are_ids_scarce(&self) -> bool {
        self.next_id > IDS_MAX / 2
    }

    /// Series that are here.
    pub fn series_count(&self) -> u32 {
        self.index.series_count()
    }

    /// Rows, of series or free: all are below this.
    pub fn row_count(&self) -> u32 {
        u32::try_from(self.hash.len()).expect("there are fewer rows than ids")
    }

    /// The series in a row.
    #[inline]
    pub fn id_at(&self, row: Row) -> Option<SeriesId> {
        self.id.get(row.0 as usize).copied().filter(|id| *id != NO_ID)
    }

    /// The identity of a known series.
    pub fn identity(&self, id: SeriesId) -> (TenantId, SeriesHash) {
        let Row(row) = self.row_of(id);
        (self.index.tenant_of(row), self.hash[row as usize])
    }

    /// For a select to hold while it runs: what leaves meanwhile is not used again before it is
    /// over, so that a row, pair or name that it remembers stays what it was, or is empty.
    pub fn reader(&self) -> Reader {
        self.grace.reader()
    }

    /// Whether nothing more is taken. What series and samples left behind inside arenas counts as
    /// room, up to half of the limit: it never goes back to the system, and a head that was full
    /// once would stay so. So it may take one and a half times its limit, if what comes does not
    /// fit into what left.
    pub fn is_full(&self) -> bool {
        let free = self.points.bytes_free() + self.index.bytes_free();
        let free = free.min(self.limits.bytes_max / 2);
        self.bytes() - free >= self.limits.bytes_max
    }

    /// Bytes of everything, room that is free inside arenas included. O(1).
    pub fn bytes(&self) -> u64 {
        let index = self.index.bytes();
        self.points.bytes() + self.sealed_bytes + index.labels + index.index + self.column_bytes()
    }

    fn column_bytes(&self) -> u64 {
        let columns = self.hash.capacity() * size_of::<SeriesHash>()
            + self.id.capacity() * size_of::<SeriesId>()
            + self.hot.capacity() * size_of::<Hot>()
            + self.sealed.capacity() * size_of::<Vec<Sealed>>()
            + self.side.allocation_size();
        columns as u64 + self.table.bytes() + self.ids.bytes() + self.vacant.bytes()
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

    /// Seals the first `count` points of `buffer`, which is one of the series in `row`.
    fn seal(&mut self, row: u32, buffer: &mut Buffer, count: u8) {
        let mut first = None;
        let mut others = Vec::new();
        buffer.seal(&mut self.points, count, |chunk| match first {
            None => first = Some(chunk),
            Some(_) => others.push(chunk),
        });
        for chunk in first.into_iter().chain(others) {
            self.push_sealed(row, chunk);
        }
    }

    /// Adds a chunk behind all others of the series.
    fn push_sealed(&mut self, row: u32, chunk: Chunk) {
        let sealed = Sealed::new(chunk);
        self.sealed_bytes += sealed.heap_bytes();
        self.counts.chunks += 1;
        let list = &mut self.sealed[row as usize];
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
