//! What a reader gets of a series: chunks in the order in which later ones win, and the points not
//! sealed yet.

use super::Head;
use crate::model::chunk::Chunk;
use crate::model::sample::Sample;

/// A range of time; both ends belong to it, Unix milliseconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct TimeRange {
    pub(in crate::node) start_ms: i64,
    pub(in crate::node) end_ms: i64,
}

impl TimeRange {
    #[inline]
    fn contains(self, timestamp_ms: i64) -> bool {
        self.start_ms <= timestamp_ms && timestamp_ms <= self.end_ms
    }

    #[inline]
    fn overlaps(self, min_ms: i64, max_ms: i64) -> bool {
        min_ms <= self.end_ms && self.start_ms <= max_ms
    }
}

impl Head {
    /// Whether the series in `row` has a sample in `range`. Decodes a chunk only if both its ends
    /// lie outside.
    pub(in crate::node) fn has_sample_in(&self, row: u32, range: TimeRange) -> bool {
        if self.raw_points(row).any(|point| range.contains(point.timestamp_ms)) {
            return true;
        }
        // From the newest, which most queries ask for.
        self.sealed[row as usize].iter().rev().any(|sealed| {
            if !range.overlaps(sealed.min_ms, sealed.max_ms) {
                return false;
            }
            if range.contains(sealed.min_ms) || range.contains(sealed.max_ms) {
                return true;
            }
            let mut samples = Vec::new();
            let decoded = sealed.chunk.decode(&mut samples);
            decoded.is_err() || samples.iter().any(|sample| range.contains(sample.timestamp_ms))
        })
    }

    /// The oldest and the newest sample of the series in `row`.
    pub(in crate::node) fn row_range_ms(&self, row: u32) -> Option<(i64, i64)> {
        let times = || self.raw_points(row).map(|point| point.timestamp_ms);
        let sealed = &self.sealed[row as usize];
        let min_ms = sealed.iter().map(|sealed| sealed.min_ms).chain(times()).min()?;
        let max_ms = sealed.iter().map(|sealed| sealed.max_ms).chain(times()).max()?;
        Some((min_ms, max_ms))
    }

    /// How many chunks the series in `row` has: the bound of the cursor of [`Head::copy_chunks`].
    pub(in crate::node) fn chunk_count(&self, row: u32) -> usize {
        self.sealed.get(row as usize).map_or(0, Vec::len)
    }

    /// Appends those of the chunks `from..from + count` of the series in `row` that overlap
    /// `range`.
    ///
    /// A cursor stays good while samples are written, and is void once [`Head::drop_generation`]
    /// changes.
    pub(in crate::node) fn copy_chunks(
        &self,
        row: u32,
        cursor: std::ops::Range<usize>,
        range: TimeRange,
        out: &mut Vec<Chunk>,
    ) {
        let list = &self.sealed[row as usize];
        let end = cursor.end.min(list.len());
        let part = list.get(cursor.start..end).unwrap_or(&[]);
        let wanted = part.iter().filter(|sealed| range.overlaps(sealed.min_ms, sealed.max_ms));
        out.extend(wanted.map(|sealed| sealed.chunk.clone()));
    }

    /// Appends the points of the series in `row` in `range` that are not sealed, ascending in time.
    pub(in crate::node) fn copy_points(&self, row: u32, range: TimeRange, out: &mut Vec<Sample>) {
        out.extend(self.raw_points(row).filter(|point| range.contains(point.timestamp_ms)));
    }

    /// Side, then open: each ascends, and all of side is older than all of open.
    fn raw_points(&self, row: u32) -> impl Iterator<Item = Sample> + '_ {
        // Few heads have late samples at all; then there is no table to ask.
        let side = if self.side.is_empty() { None } else { self.side.get(&row) };
        let side = side.map_or(&[][..], |side| side.points(&self.points));
        let open = self.hot[row as usize].open.points(&self.points);
        side.iter().chain(open).copied()
    }

    /// Changes whenever chunks leave the head.
    pub(in crate::node) fn drop_generation(&self) -> u64 {
        self.drop_generation
    }
}
