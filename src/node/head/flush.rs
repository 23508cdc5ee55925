//! What a flush takes of a series and, once it is in a block, what leaves the head.
//!
//! A chunk list only grows at its end while a flush runs, so what was taken is known by the length
//! that the list had: late samples that are sealed behind it stay for the next flush.

use super::{Head, Row};
use crate::model::series::SeriesId;
use crate::node::block::FlushSeries;

/// How far a flush goes. Unix milliseconds, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushCut {
    /// Chunks that end at or before it are taken.
    pub chunks_until_ms: i64,
    /// Points up to it are sealed first, so that they are taken too.
    pub points_until_ms: i64,
}

/// What was taken of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenSeries {
    /// Which.
    pub id: SeriesId,
    /// Its chunks at that time.
    chunk_count: u32,
}

impl Head {
    /// Takes what lies before `cut` of the series in `row`; `None` if there is nothing, or no
    /// series.
    pub fn take_flush(&mut self, row: Row, cut: FlushCut) -> Option<(FlushSeries, TakenSeries)> {
        let id = self.id_at(row)?;
        self.seal_points(row.0, cut.points_until_ms);
        let sealed = &self.sealed[row.0 as usize];
        let is_taken = |max_ms: i64| max_ms <= cut.chunks_until_ms;
        let count = sealed.iter().filter(|sealed| is_taken(sealed.max_ms)).count();
        if count == 0 {
            return None;
        }
        let mut chunks = Vec::with_capacity(count);
        let taken = sealed.iter().filter(|sealed| is_taken(sealed.max_ms));
        chunks.extend(taken.map(|sealed| sealed.chunk.clone()));
        let chunk_count = u32::try_from(sealed.len()).expect("a list is shorter than 2^32");
        let mut labels = Vec::new();
        self.index.encode_labels(row.0, &mut labels);
        let tenant = self.index.tenant_of(row.0);
        Some((
            FlushSeries { tenant, labels: labels.into(), chunks },
            TakenSeries { id, chunk_count },
        ))
    }

    /// Seals the points of side and open up to `until_ms`. What is in side was written after
    /// everything sealed, and is older than what is in open: so it is sealed first.
    fn seal_points(&mut self, id: u32, until_ms: i64) {
        if let Some(mut side) = self.side.get(&id).copied() {
            let count = count_until(side.points(&self.points), until_ms);
            if count > 0 {
                self.seal(id, &mut side, count);
                match side.len {
                    0 => self.side.remove(&id),
                    _ => self.side.insert(id, side),
                };
            }
        }
        let mut open = self.hot[id as usize].open;
        let count = count_until(open.points(&self.points), until_ms);
        if count > 0 {
            self.seal(id, &mut open, count);
            self.hot[id as usize].open = open;
        }
    }

    /// Frees the chunks that `taken` says were taken with `cut`: they are in a block. Nothing but
    /// appending has changed the series since: with its chunks it cannot have left.
    pub fn drop_flushed(&mut self, taken: TakenSeries, cut: FlushCut) {
        let Some(list) = self.sealed.get_mut(self.ids.row(taken.id.0) as usize) else { return };
        let (before_len, before_capacity) = (list.len(), list.capacity());
        let (mut samples, mut bytes, mut index) = (0, 0, 0);
        list.retain(|sealed| {
            let is_dropped = index < taken.chunk_count && sealed.max_ms <= cut.chunks_until_ms;
            index += 1;
            if is_dropped {
                samples += u64::from(sealed.chunk.count());
                bytes += sealed.heap_bytes();
            }
            !is_dropped
        });
        if list.len() < list.capacity() / 2 {
            list.shrink_to_fit();
        }
        bytes += ((before_capacity - list.capacity()) * size_of::<super::Sealed>()) as u64;
        self.counts.chunks -= (before_len - list.len()) as u64;
        self.counts.samples = self.counts.samples.saturating_sub(samples);
        self.sealed_bytes -= bytes;
        self.drop_generation += 1;
    }

    /// Bytes of what a flush could take at once.
    pub fn sealed_bytes(&self) -> u64 {
        self.sealed_bytes
    }

    /// Bytes of all samples: what a flush of everything could take.
    pub fn sample_bytes(&self) -> u64 {
        self.sealed_bytes + self.points.bytes_used()
    }
}

fn count_until(points: &[crate::model::sample::Sample], until_ms: i64) -> u8 {
    let count = points.partition_point(|point| point.timestamp_ms <= until_ms);
    u8::try_from(count).expect("at most 64 points")
}
