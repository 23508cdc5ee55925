//! A segment of a hint log: its name, its header block, and what a file of it says.
//!
//! ```text
//! | header block, 4096 | group | zeros to 4096 | group | ... |
//!                        `-- record | record | ...  each 16-aligned, none spans two segments
//!
//!  the header block, little-endian; the rest of it is zero:
//!  0       8         12       16     32        40       48        56        64       72     80
//!  | magic | version | header | node | segment | first  | durable | records | samples | made |
//!  |       |         | crc32c |      |         | number | number  | before  | before  | ms   |
//!  | u64   | u32     | u32    | u128 | u64     | u64    | u64     | u64     | u64     | i64  |
//! ```
//! A group is what gathered while the write before was under way. `header crc32c` covers bytes
//! 8..12 and 16..80. `before`: what was acknowledged in the segments before this one, since the log
//! began; so the headers say what each segment but the last holds. `durable number`: the last
//! record before this segment that was durable.
//!
//! Damage never ends the reading: behind a header that is not whole the next one is looked for at
//! every 16 bytes. Series whose labels were in a damaged record are lost, and counted.

use std::sync::Arc;

use crate::base::checksum::{crc32c, crc32c_append};
use crate::gateway::request::{LabelSpan, RequestBytes};
use crate::model::placement::NodeId;
use crate::model::series::SeriesHash;

use super::HintPart;
use super::record::{RECORD_ALIGN_BYTES, Record, RecordHeader, decode_header, read_u32, read_u64};

/// Groups are whole blocks, and so is the header.
pub const BLOCK_BYTES: usize = 4096;
/// Spans of a segment's bytes are below 2 GiB.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The version that is written.
pub const SEGMENT_VERSION: u32 = 1;

const MAGIC: u64 = u64::from_le_bytes(*b"tdghints");
const HEADER_BYTES: usize = 80;
const NAME_PREFIX: &str = "hints-";
const NAME_SUFFIX: &str = ".log";
/// What the first sample of a new series takes: hash, label end, entry, timestamp and value.
const ENTRY_BYTES_MIN: usize = 16 + 4 + 4 + 16;
/// Stands for no shard: a record whose series are those of several has this one.
const SEVERAL: u32 = u32::MAX;

const _: () = assert!(HEADER_BYTES == 8 + 4 + 4 + 16 + 8 * 6);
const _: () = assert!(HEADER_BYTES <= BLOCK_BYTES);

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose hints.
    pub node: NodeId,
    /// Its number, from 1, rising.
    pub segment: u64,
    /// The number of its first record.
    pub first_number: u64,
    /// The last record that was durable when it was made.
    pub durable_number: u64,
    /// Records that were acknowledged in the segments before.
    pub records_before: u64,
    /// And their samples.
    pub samples_before: u64,
    /// When its first record was made, Unix milliseconds.
    pub made_ms: i64,
}

/// Why a header block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFault {
    /// Torn or damaged; the records may be whole.
    Damaged,
    /// Written by a later program.
    UnknownVersion { version: u32 },
    /// Of another node or segment than the name says.
    Foreign { node: NodeId, segment: u64 },
}

impl std::fmt::Display for SegmentFault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged => out.write_str("its header is damaged"),
            Self::UnknownVersion { version } => {
                write!(out, "version {version} is not known; upgrade this gateway")
            }
            Self::Foreign { node, segment } => {
                write!(out, "it is segment {segment} of node {node}; was it moved?")
            }
        }
    }
}

/// The name of a segment's file.
pub fn segment_file_name(segment: u64) -> String {
    format!("{NAME_PREFIX}{segment:020}{NAME_SUFFIX}")
}

/// The segment of a file's name; `None` if it is no segment.
pub fn parse_segment_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(NAME_PREFIX)?.strip_suffix(NAME_SUFFIX)?;
    let segment = digits.parse().ok()?;
    (segment_file_name(segment) == name).then_some(segment)
}

/// What the checksums of the segment's records begin with, so that no record of another is taken
/// for one of its own.
pub fn record_seed(node: NodeId, segment: u64) -> u32 {
    let mut identity = [0; 24];
    identity[..16].copy_from_slice(&node.0.to_le_bytes());
    identity[16..].copy_from_slice(&segment.to_le_bytes());
    crc32c(&identity)
}

fn header_checksum(header: &[u8]) -> u32 {
    crc32c_append(crc32c(&header[8..12]), &header[16..])
}

impl SegmentHeader {
    /// Appends the header block.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + BLOCK_BYTES, 0);
        let block = &mut out[start..];
        block[..8].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..12].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        block[16..32].copy_from_slice(&self.node.0.to_le_bytes());
        let words = [
            self.segment,
            self.first_number,
            self.durable_number,
            self.records_before,
            self.samples_before,
            self.made_ms.cast_unsigned(),
        ];
        for (place, word) in block[32..HEADER_BYTES].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let crc = header_checksum(&block[..HEADER_BYTES]);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the header block of what should be segment `segment` of `node`.
    pub fn decode(bytes: &[u8], node: NodeId, segment: u64) -> Result<Self, SegmentFault> {
        let header = bytes.get(..HEADER_BYTES).ok_or(SegmentFault::Damaged)?;
        if read_u64(header, 0) != MAGIC {
            return Err(SegmentFault::Damaged);
        }
        // A version that a bit made is damage: nobody has to upgrade for it.
        if read_u32(header, 12) != header_checksum(header) {
            return Err(SegmentFault::Damaged);
        }
        let version = read_u32(header, 8);
        if version != SEGMENT_VERSION {
            return Err(SegmentFault::UnknownVersion { version });
        }
        let low = u128::from(read_u64(header, 16));
        let found = Self {
            node: NodeId(low | u128::from(read_u64(header, 24)) << 64),
            segment: read_u64(header, 32),
            first_number: read_u64(header, 40),
            durable_number: read_u64(header, 48),
            records_before: read_u64(header, 56),
            samples_before: read_u64(header, 64),
            made_ms: read_u64(header, 72).cast_signed(),
        };
        if (found.node, found.segment) != (node, segment) {
            return Err(SegmentFault::Foreign { node: found.node, segment: found.segment });
        }
        Ok(found)
    }
}

/// What was found in a segment, and what should have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentTally {
    /// Whole records.
    pub records: u64,
    /// Samples in them.
    pub samples: u64,
    /// When the oldest of them was made.
    pub oldest_ms: Option<i64>,
    /// The highest number found.
    pub last_number: u64,
    /// All up to this one were durable: a record says so, or none is missing before it.
    pub durable_number: u64,
    /// Records that were acknowledged and are not there, or not whole.
    pub records_lost: u64,
    /// Samples of acknowledged, whole records whose labels are not there.
    pub samples_lost: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: SeriesHash,
    labels: LabelSpan,
    shard: u32,
}

#[derive(Debug)]
struct RecordPlace {
    header: RecordHeader,
    offset: usize,
    /// The shard that owns all of its series, or [`SEVERAL`].
    shard: u32,
    /// Samples whose labels are not there.
    samples_lost: u64,
}

/// A segment in memory, checked and indexed. Label sets are handed out by reference to its bytes.
#[derive(Debug)]
pub struct LoadedSegment {
    bytes: Arc<RequestBytes>,
    entries: Vec<Option<Entry>>,
    records: Vec<RecordPlace>,
    shard_count: u32,
    entries_max: usize,
    tally: SegmentTally,
}

impl LoadedSegment {
    /// Looks through the `bytes` of a segment's file, whatever they hold, for a gateway with
    /// `shard_count` shards. `durable_number`: what is known to have been durable from elsewhere.
    pub fn new(
        bytes: Vec<u8>,
        (node, segment): (NodeId, u64),
        shard_count: u32,
        durable_number: u64,
    ) -> Self {
        let first = SegmentHeader::decode(&bytes, node, segment).ok();
        let mut loaded = Self {
            bytes: Arc::default(),
            entries: Vec::new(),
            records: Vec::new(),
            shard_count,
            entries_max: bytes.len() / ENTRY_BYTES_MIN,
            tally: SegmentTally::default(),
        };
        let seed = record_seed(node, segment);
        let mut at = BLOCK_BYTES;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let header = decode_header(rest, seed);
            let record = header.and_then(|header| Record::decode(header, rest));
            // Of a damaged record only the header is believed, and that only so far: what lies
            // behind it is looked at again.
            at += match &record {
                Some(record) => record.header.len_bytes as usize,
                None => RECORD_ALIGN_BYTES,
            };
            if let Some(record) = record {
                loaded.add(&record, bytes.len() - rest.len());
            }
        }
        loaded.bytes = Arc::new(RequestBytes { body: bytes, labels: Vec::new() });
        loaded.count_lost(first.map(|header| header.first_number), durable_number);
        loaded
    }

    fn add(&mut self, record: &Record, offset: usize) {
        let header = record.header;
        let entry_end = header.first_entry as usize + header.new as usize;
        if entry_end > self.entries_max {
            return;
        }
        self.entries.resize(self.entries.len().max(entry_end), None);
        for (place, (hash, labels)) in (header.first_entry as usize..).zip(record.new_series()) {
            let len = u32::try_from(labels.len()).expect("below a segment");
            let start = u32::try_from(offset + labels.start).expect("below a segment");
            let shard = hash.slot().shard(self.shard_count);
            let labels = LabelSpan::in_body(start, len);
            self.entries[place] = Some(Entry { hash, labels, shard });
        }
        let mut shards =
            record.runs().filter_map(|(entry, _)| self.entry(entry)).map(|it| it.shard);
        let shard = shards.next().unwrap_or(SEVERAL);
        let shard = if shards.all(|other| other == shard) { shard } else { SEVERAL };
        let (mut start, mut samples_lost) = (0, 0);
        for (entry, end) in record.runs() {
            if self.entry(entry).is_none() {
                samples_lost += u64::from(end - start);
            }
            start = end;
        }
        self.records.push(RecordPlace { header, offset, shard, samples_lost });
        self.tally.records += 1;
        self.tally.samples += u64::from(header.samples);
        self.tally.last_number = self.tally.last_number.max(header.numbers.number);
        let made_ms = header.numbers.made_ms;
        let oldest_ms = self.tally.oldest_ms.map_or(made_ms, |oldest| oldest.min(made_ms));
        self.tally.oldest_ms = Some(oldest_ms);
    }

    fn count_lost(&mut self, first_number: Option<u64>, durable_number: u64) {
        let numbers = || self.records.iter().map(|record| record.header.numbers);
        let said = numbers().map(|numbers| numbers.durable_number).max().unwrap_or(0);
        let durable = said.max(durable_number);
        let first = first_number.or_else(|| numbers().map(|numbers| numbers.number).min());
        let Some(first) = first else { return };
        let found = numbers().filter(|it| (first..=durable).contains(&it.number)).count();
        let wanted = (durable + 1).saturating_sub(first);
        self.tally.records_lost = wanted.saturating_sub(found as u64);
        let unbroken =
            numbers().map(|it| it.number).zip(first..).take_while(|(is, want)| is == want);
        let unbroken = unbroken.last().map_or(0, |(number, _)| number);
        self.tally.durable_number = durable.max(unbroken);
        // What lies behind was part of a torn write, of which nobody was told anything.
        let durable = self.tally.durable_number;
        let promised = self.records.iter().filter(|it| it.header.numbers.number <= durable);
        self.tally.samples_lost = promised.map(|record| record.samples_lost).sum();
    }

    fn entry(&self, entry: u32) -> Option<&Entry> {
        self.entries.get(entry as usize)?.as_ref()
    }

    /// What is in it.
    pub fn tally(&self) -> &SegmentTally {
        &self.tally
    }

    /// How many records can be asked for.
    pub fn record_count(&self) -> usize {
        self.records.len()
    }

    /// When the record at `index` was made.
    pub fn made_ms(&self, index: usize) -> i64 {
        self.records[index].header.numbers.made_ms
    }

    /// Whether `shard` may own something of the record at `index`.
    pub fn has_share(&self, index: usize, shard: u32) -> bool {
        let owner = self.records[index].shard;
        owner == SEVERAL || owner == shard
    }

    /// What `shard` owns of the record at `index`; `None` if that is nothing. One pass over the
    /// record, 20 bytes a sample; no label is copied.
    pub fn part(&self, index: usize, shard: u32) -> Option<HintPart> {
        let place = &self.records[index];
        if !self.has_share(index, shard) {
            return None;
        }
        let header = place.header;
        let bytes = &self.bytes.body[place.offset..place.offset + header.len_bytes as usize];
        let record = Record::columns(header, bytes)?;
        let mut part = HintPart {
            tenant: header.tenant,
            lateness: header.lateness,
            bytes: Arc::clone(&self.bytes),
            ..HintPart::default()
        };
        let batch = &mut part.batch;
        if place.shard == shard {
            batch.hash.reserve(header.series as usize);
            batch.labels.reserve(header.series as usize);
            batch.sample_end.reserve(header.series as usize);
            batch.timestamp_ms.reserve(header.samples as usize);
            batch.value.reserve(header.samples as usize);
        }
        let mut start = 0;
        for (entry, end) in record.runs() {
            let samples = std::mem::replace(&mut start, end)..end;
            match self.entry(entry) {
                Some(entry) if entry.shard == shard => {
                    batch.timestamp_ms.extend(record.timestamp_ms(samples.clone()));
                    batch.value.extend(record.value(samples));
                    batch.push_series(entry.hash, entry.labels);
                }
                _ => {}
            }
        }
        (!batch.is_empty()).then_some(part)
    }
}
