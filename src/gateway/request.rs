//! A decoded request: the series that each shard owns, as columns over the request's own bytes. No
//! label is copied.

use std::ops::Range;

use crate::model::refusal::{Refusal, RefusalCounts};
use crate::model::series::SeriesHash;

/// The bytes of a request that spans point into; shared by reference with the shards that own its
/// series.
#[derive(Debug, Default)]
pub struct RequestBytes {
    /// The decompressed body.
    pub body: Vec<u8>,
    /// Canonical label bytes that had to be written anew: sorted ones, and those of every format
    /// but remote write 1.0.
    pub labels: Vec<u8>,
}

/// Where the canonical label bytes of a series lie in a [`RequestBytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelSpan {
    /// Offset; with [`LabelSpan::IN_LABELS`] set it points into `labels`, else into `body`.
    offset_bytes: u32,
    len_bytes: u32,
}

impl LabelSpan {
    const IN_LABELS: u32 = 1 << 31;

    /// A span of the body as received. Bodies are shorter than 2 GiB.
    #[inline]
    pub fn in_body(offset_bytes: u32, len_bytes: u32) -> Self {
        debug_assert!(offset_bytes < Self::IN_LABELS);
        Self { offset_bytes, len_bytes }
    }

    /// A span of label bytes written anew.
    #[inline]
    pub fn in_labels(offset_bytes: u32, len_bytes: u32) -> Self {
        debug_assert!(offset_bytes < Self::IN_LABELS);
        Self { offset_bytes: offset_bytes | Self::IN_LABELS, len_bytes }
    }
}

impl RequestBytes {
    /// Memory that it keeps when it is used again.
    pub fn memory_bytes(&self) -> usize {
        self.body.capacity() + self.labels.capacity()
    }

    /// The label bytes of `span`.
    #[inline]
    pub fn labels(&self, span: LabelSpan) -> &[u8] {
        let start = (span.offset_bytes & !LabelSpan::IN_LABELS) as usize;
        let source =
            if span.offset_bytes & LabelSpan::IN_LABELS == 0 { &self.body } else { &self.labels };
        &source[start..start + span.len_bytes as usize]
    }
}

/// The series of one request that one shard owns. Struct of arrays; cleared and used again, never
/// freed.
///
/// Which samples a series has: [`SeriesBatch::samples_of`].
#[derive(Debug, Default)]
pub struct SeriesBatch {
    /// Identity.
    pub hash: Vec<SeriesHash>,
    /// Canonical labels, structurally checked (ascending names, no duplicates, nothing empty),
    /// grammar not yet.
    pub labels: Vec<LabelSpan>,
    /// Exclusive end of the series' samples.
    pub sample_end: Vec<u32>,
    /// Unix milliseconds.
    pub timestamp_ms: Vec<i64>,
    /// Any f64.
    pub value: Vec<f64>,
}

impl SeriesBatch {
    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.hash.clear();
        self.labels.clear();
        self.sample_end.clear();
        self.timestamp_ms.clear();
        self.value.clear();
    }

    /// Memory that it keeps when it is used again.
    pub fn memory_bytes(&self) -> usize {
        self.hash.capacity() * size_of::<SeriesHash>()
            + self.labels.capacity() * size_of::<LabelSpan>()
            + self.sample_end.capacity() * size_of::<u32>()
            + self.value.capacity() * (size_of::<i64>() + size_of::<f64>())
    }

    /// Series in it.
    pub fn len(&self) -> usize {
        self.hash.len()
    }

    /// Whether it holds no series.
    pub fn is_empty(&self) -> bool {
        self.hash.is_empty()
    }

    /// The samples of the series at `index`, by their places in the two sample columns.
    #[inline]
    pub fn samples_of(&self, index: usize) -> Range<u32> {
        let start = if index == 0 { 0 } else { self.sample_end[index - 1] };
        start..self.sample_end[index]
    }

    /// Closes the series whose samples were just pushed to the columns.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a body below 2 GiB holds fewer samples")]
    pub fn push_series(&mut self, hash: SeriesHash, labels: LabelSpan) {
        self.hash.push(hash);
        self.labels.push(labels);
        self.sample_end.push(self.timestamp_ms.len() as u32);
    }
}

/// What a decoder makes of a body. Cleared and used again.
#[derive(Debug, Default)]
pub struct DecodedRequest {
    /// One per gateway shard: the shard of a series is `hash.slot().shard(batches.len())`.
    pub batches: Vec<SeriesBatch>,
    /// Samples in `batches`.
    pub samples: u64,
    /// Samples refused by the decoder, by reason.
    pub refused: RefusalCounts,
    /// The first refusal, for the answer's text: why, and where (a body offset, or a line number
    /// from 1).
    pub first_refusal: Option<(Refusal, u64)>,
    /// Lines refused whole (JSON lines and text formats).
    pub failed_lines: u64,
    /// The first three of them, each cut at 200 bytes (on a character boundary; invalid UTF-8
    /// replaced).
    pub failed_line_texts: Vec<String>,
    /// What is counted and not stored yet.
    pub ignored: IgnoredCounts,
}

/// Parts of a request that are understood but not stored yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IgnoredCounts {
    /// Exemplars.
    pub exemplars: u64,
    /// Metric metadata entries.
    pub metadata: u64,
    /// Native histogram samples.
    pub histograms: u64,
}

impl DecodedRequest {
    /// An empty one for `shard_count` gateway shards.
    pub fn new(shard_count: u32) -> Self {
        Self {
            batches: (0..shard_count).map(|_| SeriesBatch::default()).collect(),
            ..Self::default()
        }
    }

    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.batches.iter_mut().for_each(SeriesBatch::clear);
        self.samples = 0;
        self.refused = RefusalCounts::default();
        self.first_refusal = None;
        self.failed_lines = 0;
        self.failed_line_texts.clear();
        self.ignored = IgnoredCounts::default();
    }

    /// Counts `samples` refused for `reason` at `position`.
    pub fn refuse(&mut self, reason: Refusal, samples: u64, position: u64) {
        self.refused.add(reason, samples);
        self.first_refusal.get_or_insert((reason, position));
    }
}
