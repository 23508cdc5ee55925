//! A series page's bytes -> its series: refs of their label pairs, and where their chunks lie.
//!
//! The layout stands in `format`.

use super::format::Walk;

/// Pairs of a series, as many as a frame's label bytes can hold; bounds what damage can make.
const PAIRS_MAX: usize = 1 << 16;

/// A series of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PageSeries {
    /// Refs, in the order of the labels.
    pub pairs: Vec<u32>,
    pub chunks: Vec<ChunkEntry>,
}

/// Where a chunk lies, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Oldest sample, Unix milliseconds.
    pub min_ms: i64,
    /// Newest sample.
    pub max_ms: i64,
    /// Samples.
    pub count: u32,
    pub(super) timestamp_codec: u8,
    pub(super) value_codec: u8,
    pub(super) times_at: u64,
    pub(super) times_len: u32,
    pub(super) values_at: u64,
    pub(super) values_len: u32,
    pub(super) crc: u32,
}

impl ChunkEntry {
    /// Bytes of its columns; that of the timestamps may be shared.
    pub fn len_bytes(&self) -> u64 {
        u64::from(self.times_len) + u64::from(self.values_len)
    }

    /// How its timestamps and its values are coded (`model/chunk`).
    pub fn codecs(&self) -> (u8, u8) {
        (self.timestamp_codec, self.value_codec)
    }

    /// Bytes of its two columns, timestamps first.
    pub fn column_bytes(&self) -> (u64, u64) {
        (u64::from(self.times_len), u64::from(self.values_len))
    }

    /// Whether a sample of it may lie in the range, both ends inclusive.
    pub fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.min_ms <= end_ms && start_ms <= self.max_ms
    }
}

/// Calls `found` with each series of a page, by its place there, and returns how many there are;
/// `None` if it is no such page. Its first value lies at or behind `values_base`, columns below
/// `columns_end`. Most callers want few of a page, so the series is in memory that the next one
/// uses again.
pub(super) fn decode(
    bytes: &[u8],
    (values_base, columns_end): (u64, u64),
    mut found: impl FnMut(u32, &PageSeries),
) -> Option<u32> {
    let mut walk = Walk::new(bytes);
    let mut series = PageSeries::default();
    let mut series_count = 0;
    let mut last = Last { min_ms: 0, span: 0, count: 0, times_at: 0, values_end: values_base };
    while !walk.is_done() {
        let PageSeries { pairs, chunks } = &mut series;
        let shared = walk.len()?;
        let rest = walk.len()?;
        if shared > pairs.len() || rest > PAIRS_MAX {
            return None;
        }
        pairs.truncate(shared);
        for _ in 0..rest {
            pairs.push(walk.varint_u32()?);
        }
        chunks.clear();
        for _ in 0..walk.len()? {
            let chunk = last.next(&mut walk)?;
            let times_end = chunk.times_at.checked_add(u64::from(chunk.times_len))?;
            if times_end > columns_end || last.values_end > columns_end {
                return None;
            }
            chunks.push(chunk);
        }
        found(series_count, &series);
        series_count += 1;
    }
    Some(series_count)
}

/// The chunk before in the page.
struct Last {
    min_ms: i64,
    span: i64,
    count: i64,
    times_at: i64,
    values_end: u64,
}

impl Last {
    fn next(&mut self, walk: &mut Walk<'_>) -> Option<ChunkEntry> {
        self.min_ms = self.min_ms.wrapping_add(walk.zigzag()?);
        self.span = self.span.wrapping_add(walk.zigzag()?);
        self.count = self.count.wrapping_add(walk.zigzag()?);
        let codecs = walk.u8()?;
        let times_len = walk.varint_u32()?;
        if times_len > 0 {
            self.times_at = self.times_at.wrapping_add(walk.zigzag()?);
        }
        let values_len = walk.varint_u32()?;
        let values_at = self.values_end.checked_add(walk.varint()?)?;
        self.values_end = values_at.checked_add(u64::from(values_len))?;
        Some(ChunkEntry {
            min_ms: self.min_ms,
            max_ms: self.min_ms.wrapping_add(self.span),
            count: u32::try_from(self.count).ok()?,
            timestamp_codec: codecs & 15,
            value_codec: codecs >> 4,
            times_at: if times_len > 0 { u64::try_from(self.times_at).ok()? } else { 0 },
            times_len,
            values_at,
            values_len,
            crc: walk.u32()?,
        })
    }
}
