//! A record of the hint log: samples of some series of one part, as columns.
//!
//! ```text
//!  0       4        8         16        24        32
//!  | magic | header | number  | durable | made    |
//!  |       | crc32c |         | number  | ms      |
//!  | u32   | u32    | u64     | u64     | i64     |
//!  32       36     40       44         48       52        56      60      64
//!  | length | body   | tenant | lateness | series | samples | new   | first |
//!  |        | crc32c |        |          |        |         |       | entry |
//!  | u32    | u32    | u32    | u32      | u32    | u32     | u32   | u32   |
//!  64       + 16 * new    + 8 * samples  + 8 * samples + 4 * series
//!  | hashes | timestamps  | values       | entries     |
//!  | u128   | i64         | f64          | u32         |
//!           + 4 * series, or nothing     + 4 * new               length
//!  | sample ends          | label ends    | labels, zeros to 16  |
//!  | u32                  | u32           |                      |
//! ```
//! All little-endian. Labels travel once per segment: a record brings `new` series, which are the
//! segment's entries from `first entry` on, and names all of its series by their entries. Where
//! there are as many samples as series, each has one and the sample ends are left out: 20 bytes a
//! sample. `header crc32c` covers bytes 8..64 and is seeded with node and segment; `body crc32c`
//! covers the rest. `durable number`: all records up to it were durable when this one was made.
//! The gateway shard is not in it: which shard owns a series follows from the hash, for any number
//! of shards.

use hashbrown::HashMap;

use crate::base::checksum::{crc32c, crc32c_append};
use crate::gateway::part::Lateness;
use crate::gateway::request::SeriesBatch;
use crate::model::series::{SeriesHash, TenantId};

use super::HintPart;

/// Bytes in front of the columns.
pub const RECORD_HEADER_BYTES: usize = 64;
/// Records start on this.
pub const RECORD_ALIGN_BYTES: usize = 16;
/// Samples of one record at most: what a shard is handed at once when hints are replayed.
pub const RECORD_SAMPLES_MAX: usize = 32 << 10;
/// A record is ended once it is this long; one series with long labels may be more.
pub const RECORD_BYTES_GATHERED: usize = 1 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"tdgH");
/// Columns of a series that is new: hash, entry, sample end, label end.
pub(super) const SERIES_BYTES_MAX: usize = 16 + 4 + 4 + 4;
/// Columns of a sample.
pub(super) const SAMPLE_BYTES: usize = 16;

const _: () = assert!(RECORD_HEADER_BYTES == 4 + 4 + 8 + 8 + 8 + 8 * 4);
const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));

/// What the log says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordNumbers {
    /// Its number in the node's log.
    pub number: u64,
    /// All up to this one were durable when it was made.
    pub durable_number: u64,
    /// When it was made, Unix milliseconds.
    pub made_ms: i64,
}

/// How far a part has been encoded: a part may be several records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    series: usize,
    sample: usize,
}

impl Progress {
    /// Whether nothing of `part` is left.
    pub fn is_end(self, part: &HintPart) -> bool {
        self.series == part.batch.len()
    }

    /// Behind series of which nothing is left.
    fn behind_series(mut self, part: &HintPart) -> Self {
        while !self.is_end(part) && self.sample == part.samples_of(self.series).len() {
            self = Self { series: self.series + 1, sample: 0 };
        }
        self
    }

    /// The sample that it is at.
    pub(super) fn sample_index(self, batch: &SeriesBatch) -> usize {
        let before = self.series.checked_sub(1).map_or(0, |series| batch.sample_end[series]);
        before as usize + self.sample
    }
}

/// Makes the records of one segment after the other.
#[derive(Debug, Default)]
pub struct Encoder {
    /// What the segment has told of: hash -> entry.
    entries: HashMap<SeriesHash, u32>,
    columns: Columns,
}

#[derive(Debug, Default)]
struct Columns {
    hash: Vec<u8>,
    timestamp_ms: Vec<u8>,
    value: Vec<u8>,
    entry: Vec<u8>,
    sample_end: Vec<u8>,
    labels_end: Vec<u8>,
    labels: Vec<u8>,
}

impl Columns {
    fn clear(&mut self) {
        self.all_mut().into_iter().for_each(Vec::clear);
    }

    fn all_mut(&mut self) -> [&mut Vec<u8>; 7] {
        let Self { hash, timestamp_ms, value, entry, sample_end, labels_end, labels } = self;
        [hash, timestamp_ms, value, entry, sample_end, labels_end, labels]
    }

    fn len_bytes(&mut self) -> usize {
        self.all_mut().iter().map(|column| column.len()).sum()
    }

    fn samples(&self) -> usize {
        self.value.len() / 8
    }

    fn series(&self) -> usize {
        self.entry.len() / 4
    }
}

impl Encoder {
    /// The records that follow are those of another segment: it knows no labels yet.
    pub fn begin_segment(&mut self) {
        self.entries.clear();
    }

    /// Entries that the segment has.
    #[expect(clippy::cast_possible_truncation, reason = "a segment is below 1 GiB")]
    fn entry_count(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Appends a record of what is left of `part` at `from`, as much as fits `room` bytes and a
    /// record; says how far it came. Where not one sample fits, nothing is appended.
    pub fn encode(
        &mut self,
        out: &mut Vec<u8>,
        (numbers, seed): (&RecordNumbers, u32),
        (part, from): (&HintPart, Progress),
        room: usize,
    ) -> Progress {
        let first_entry = self.entry_count();
        let room = room & !(RECORD_ALIGN_BYTES - 1);
        let mut at = from;
        self.columns.clear();
        let mut len = RECORD_HEADER_BYTES;
        while at.series < part.batch.len() && len < RECORD_BYTES_GATHERED {
            let samples = part.samples_of(at.series);
            let start = samples.start + at.sample;
            if start == samples.end {
                at = at.behind_series(part);
                continue;
            }
            let hash = part.batch.hash[at.series];
            let labels = part.bytes.labels(part.batch.labels[at.series]);
            let entry = self.entries.get(&hash).copied();
            let known = SERIES_BYTES_MAX - 16 - 4;
            let fixed = if entry.is_some() { known } else { SERIES_BYTES_MAX + labels.len() };
            let fitting = room.saturating_sub(len + fixed) / SAMPLE_BYTES;
            let fitting = fitting.min(RECORD_SAMPLES_MAX - self.columns.samples());
            let count = fitting.min(samples.end - start);
            if count == 0 {
                break;
            }
            let entry = entry.unwrap_or_else(|| self.add_entry(hash, labels));
            self.push_run(entry, part, start..start + count);
            len += fixed + count * SAMPLE_BYTES;
            at.sample += count;
        }
        if self.columns.series() > 0 {
            self.write(out, (numbers, seed), part, first_entry);
        }
        // Whoever is at the end hears so: no record follows that would hold nothing.
        at.behind_series(part)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a record is far below 4 GiB")]
    fn add_entry(&mut self, hash: SeriesHash, labels: &[u8]) -> u32 {
        let entry = self.entry_count();
        self.entries.insert(hash, entry);
        let columns = &mut self.columns;
        columns.hash.extend_from_slice(&hash.0.to_le_bytes());
        columns.labels.extend_from_slice(labels);
        columns.labels_end.extend_from_slice(&(columns.labels.len() as u32).to_le_bytes());
        entry
    }

    #[expect(clippy::cast_possible_truncation, reason = "a record is far below 4 GiB")]
    fn push_run(&mut self, entry: u32, part: &HintPart, samples: std::ops::Range<usize>) {
        let columns = &mut self.columns;
        columns.entry.extend_from_slice(&entry.to_le_bytes());
        for timestamp in &part.batch.timestamp_ms[samples.clone()] {
            columns.timestamp_ms.extend_from_slice(&timestamp.to_le_bytes());
        }
        for value in &part.batch.value[samples] {
            columns.value.extend_from_slice(&value.to_le_bytes());
        }
        columns.sample_end.extend_from_slice(&(columns.samples() as u32).to_le_bytes());
    }

    #[expect(clippy::cast_possible_truncation, reason = "a record is far below 4 GiB")]
    fn write(
        &mut self,
        out: &mut Vec<u8>,
        (numbers, seed): (&RecordNumbers, u32),
        part: &HintPart,
        first_entry: u32,
    ) {
        let start = out.len();
        assert!(start.is_multiple_of(RECORD_ALIGN_BYTES));
        let (series, samples) = (self.columns.series(), self.columns.samples());
        if series == samples {
            self.columns.sample_end.clear();
        }
        let len = RECORD_HEADER_BYTES + self.columns.len_bytes();
        let len = len.next_multiple_of(RECORD_ALIGN_BYTES);
        let mut header = [0; RECORD_HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[8..16].copy_from_slice(&numbers.number.to_le_bytes());
        header[16..24].copy_from_slice(&numbers.durable_number.to_le_bytes());
        header[24..32].copy_from_slice(&numbers.made_ms.to_le_bytes());
        let new = self.entry_count() - first_entry;
        let lateness = match part.lateness {
            Lateness::Window => 0,
            Lateness::Backfill => 1,
        };
        let tenant = part.tenant.0;
        let words =
            [len as u32, 0, tenant, lateness, series as u32, samples as u32, new, first_entry];
        for (place, word) in header[32..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&header);
        for column in self.columns.all_mut() {
            out.extend_from_slice(column);
        }
        out.resize(start + len, 0);
        let record = &mut out[start..];
        let body_crc = crc32c(&record[RECORD_HEADER_BYTES..]);
        record[36..40].copy_from_slice(&body_crc.to_le_bytes());
        let header_crc = crc32c_append(seed, &record[8..RECORD_HEADER_BYTES]);
        record[4..8].copy_from_slice(&header_crc.to_le_bytes());
    }
}

/// A record's header whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the log says of it.
    pub numbers: RecordNumbers,
    /// Whose series.
    pub tenant: TenantId,
    /// Whether its samples are taken however late they are.
    pub lateness: Lateness,
    /// Bytes of the whole record.
    pub len_bytes: u32,
    /// Runs of samples, each of one series.
    pub series: u32,
    /// Samples.
    pub samples: u32,
    /// Series that it brings the labels of.
    pub new: u32,
    /// The entry of the first of them in the segment.
    pub first_entry: u32,
    body_crc: u32,
}

/// Reads the header at the start of `bytes`; `None` if there is none that is whole.
pub fn decode_header(bytes: &[u8], seed: u32) -> Option<RecordHeader> {
    let header = bytes.get(..RECORD_HEADER_BYTES)?;
    if read_u32(header, 0) != MAGIC || read_u32(header, 4) != crc32c_append(seed, &header[8..]) {
        return None;
    }
    let lateness = match read_u32(header, 44) {
        0 => Lateness::Window,
        1 => Lateness::Backfill,
        _ => return None,
    };
    Some(RecordHeader {
        numbers: RecordNumbers {
            number: read_u64(header, 8),
            durable_number: read_u64(header, 16),
            made_ms: read_u64(header, 24).cast_signed(),
        },
        tenant: TenantId(read_u32(header, 40)),
        lateness,
        len_bytes: read_u32(header, 32),
        series: read_u32(header, 48),
        samples: read_u32(header, 52),
        new: read_u32(header, 56),
        first_entry: read_u32(header, 60),
        body_crc: read_u32(header, 36),
    })
}

/// The columns of a record that is whole, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its header.
    pub header: RecordHeader,
    hash: &'a [u8],
    timestamp_ms: &'a [u8],
    value: &'a [u8],
    entry: &'a [u8],
    /// Empty where each series has one sample.
    sample_end: &'a [u8],
    labels_end: &'a [u8],
    /// Where the labels start in the record.
    labels_start: usize,
}

impl<'a> Record<'a> {
    /// The record of `header` at the start of `bytes`; `None` if it is torn or damaged. Its ends
    /// are ascending and within bounds; that its entries are there is for the segment to say.
    pub fn decode(header: RecordHeader, bytes: &'a [u8]) -> Option<Self> {
        let record = bytes.get(..header.len_bytes as usize)?;
        if crc32c(record.get(RECORD_HEADER_BYTES..)?) != header.body_crc {
            return None;
        }
        Self::columns(header, record)
    }

    /// The same of bytes that were checked before.
    pub(super) fn columns(header: RecordHeader, record: &'a [u8]) -> Option<Self> {
        let (series, samples, new) =
            (header.series as usize, header.samples as usize, header.new as usize);
        let mut rest = record.get(RECORD_HEADER_BYTES..header.len_bytes as usize)?;
        let mut column = |count: usize, bytes: usize| {
            let (column, behind) = rest.split_at_checked(count.checked_mul(bytes)?)?;
            rest = behind;
            Some(column)
        };
        let hash = column(new, 16)?;
        let timestamp_ms = column(samples, 8)?;
        let value = column(samples, 8)?;
        let entry = column(series, 4)?;
        let sample_end = column(if series == samples { 0 } else { series }, 4)?;
        let labels_end = column(new, 4)?;
        let labels_start = record.len() - rest.len();
        let labels_len = last_end(labels_end, rest.len())?;
        let last_sample = last_end(sample_end, samples)?;
        let is_whole = (labels_start + labels_len).next_multiple_of(RECORD_ALIGN_BYTES)
            == record.len()
            && (sample_end.is_empty() || last_sample == samples);
        let columns =
            Self { header, hash, timestamp_ms, value, entry, sample_end, labels_end, labels_start };
        is_whole.then_some(columns)
    }

    /// The series that it brings: hash, and where in the record the labels lie.
    pub fn new_series(&self) -> impl Iterator<Item = (SeriesHash, std::ops::Range<usize>)> {
        let mut start = self.labels_start;
        let first = start;
        self.hash.chunks_exact(16).zip(self.labels_end.chunks_exact(4)).map(move |(hash, end)| {
            let hash = u128::from_le_bytes(hash.try_into().expect("16 bytes"));
            let end = first + read_u32(end, 0) as usize;
            (SeriesHash(hash), std::mem::replace(&mut start, end)..end)
        })
    }

    /// Its runs: the series' entry in the segment, and the end of its samples.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        let is_single = self.sample_end.is_empty();
        (0u32..).zip(self.entry.chunks_exact(4)).map(move |(index, entry)| {
            let many = || read_u32(self.sample_end, index as usize * 4);
            let end = if is_single { index + 1 } else { many() };
            (read_u32(entry, 0), end)
        })
    }

    /// Timestamps of the samples `range`.
    pub fn timestamp_ms(&self, range: std::ops::Range<u32>) -> impl Iterator<Item = i64> {
        let bytes = &self.timestamp_ms[range.start as usize * 8..range.end as usize * 8];
        bytes.chunks_exact(8).map(|bytes| read_u64(bytes, 0).cast_signed())
    }

    /// Values of the samples `range`.
    pub fn value(&self, range: std::ops::Range<u32>) -> impl Iterator<Item = f64> {
        let bytes = &self.value[range.start as usize * 8..range.end as usize * 8];
        bytes.chunks_exact(8).map(|bytes| f64::from_bits(read_u64(bytes, 0)))
    }
}

/// The last of `ends`, which must ascend and be at most `max`; 0 if there is none.
fn last_end(ends: &[u8], max: usize) -> Option<usize> {
    let mut last = 0;
    for end in ends.chunks_exact(4) {
        let end = read_u32(end, 0) as usize;
        if end < last || end > max {
            return None;
        }
        last = end;
    }
    Some(last)
}

/// The number at `at`, which lies in `bytes`.
#[inline]
pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// As [`read_u32`].
#[inline]
pub(super) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
