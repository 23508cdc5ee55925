//! Samples of some series in a range of time leave the head, at once and for good.
//!
//! In one go, because what is written after a deletion must survive it, here and when the log is
//! replayed. Chunks that lie inside the range are dropped unread; those that it cuts are decoded,
//! some microseconds each.

use super::buffer::{Buffer, Put};
use super::points::Points;
use super::{Head, Sealed};
use crate::model::chunk::Chunk;
use crate::model::sample::Sample;
use crate::node::block::tombstone::HiddenRange;
use crate::node::select::matching_series;
use crate::wire::delete::Deletion;

impl Head {
    /// Deletes what `deletion` names. A matcher that does not compile names nothing: it was checked
    /// when the deletion was asked for.
    pub fn delete(&mut self, deletion: &Deletion) {
        let Ok(rows) = matching_series(self.index(), deletion.tenant, &deletion.matchers) else {
            return;
        };
        let range = HiddenRange { start_ms: deletion.start_ms, end_ms: deletion.end_ms };
        for row in rows {
            self.delete_in_row(row, range);
        }
    }

    fn delete_in_row(&mut self, row: u32, range: HiddenRange) {
        let mut deleted = 0;
        let list = std::mem::take(&mut self.sealed[row as usize]);
        self.counts.chunks -= list.len() as u64;
        self.sealed_bytes -= list.iter().map(Sealed::heap_bytes).sum::<u64>()
            + (list.capacity() * size_of::<Sealed>()) as u64;
        for sealed in list {
            if sealed.max_ms < range.start_ms || range.end_ms < sealed.min_ms {
                self.push_sealed(row, sealed.chunk);
                continue;
            }
            let before = u64::from(sealed.chunk.count());
            let kept = keep(&sealed.chunk, range);
            deleted += before - kept.as_ref().map_or(0, |chunk| u64::from(chunk.count()));
            if let Some(chunk) = kept {
                self.push_sealed(row, chunk);
            }
        }
        let mut open = self.hot[row as usize].open;
        deleted += delete_points(&mut open, &mut self.points, range);
        self.hot[row as usize].open = open;
        if let Some(mut side) = self.side.get(&row).copied() {
            deleted += delete_points(&mut side, &mut self.points, range);
            match side.len {
                0 => self.side.remove(&row),
                _ => self.side.insert(row, side),
            };
        }
        self.lower_newest(row, range);
        self.counts.samples = self.counts.samples.saturating_sub(deleted);
        self.drop_generation += 1;
    }

    /// The newest point of those in open is the newest of all: writers and snapshots rely on it.
    /// With none there, and the newest sample deleted, it is what is left: else a sample of a wrong
    /// clock would, also when it is deleted, keep others out until that time has come.
    fn lower_newest(&mut self, row: u32, range: HiddenRange) {
        let hot = &mut self.hot[row as usize];
        if let Some(newest) = hot.open.points(&self.points).last() {
            hot.newest_ms = newest.timestamp_ms;
        } else if range.holds(hot.newest_ms) {
            let sealed = self.sealed[row as usize].iter().map(|sealed| sealed.max_ms);
            let side = self.side.get(&row).and_then(|side| side.points(&self.points).last());
            // Above all of side: what is as new as the newest goes into open.
            let side = side.map(|newest| newest.timestamp_ms.saturating_add(1));
            hot.newest_ms = sealed.chain(side).max().unwrap_or(i64::MIN);
        }
    }
}

/// What is left of a chunk. One that does not decode stays as it is.
fn keep(chunk: &Chunk, range: HiddenRange) -> Option<Chunk> {
    if range.holds(chunk.min_timestamp_ms()) && range.holds(chunk.max_timestamp_ms()) {
        return None;
    }
    let mut samples = Vec::new();
    if chunk.decode(&mut samples).is_err() {
        return Some(chunk.clone());
    }
    samples.retain(|sample| !range.holds(sample.timestamp_ms));
    let times: Vec<_> = samples.iter().map(|sample| sample.timestamp_ms).collect();
    let values: Vec<_> = samples.iter().map(|sample| sample.value).collect();
    if times.is_empty() { None } else { Some(Chunk::encode(&times, &values)) }
}

fn delete_points(buffer: &mut Buffer, points: &mut Points, range: HiddenRange) -> u64 {
    let own = buffer.points(points);
    let kept: Vec<Sample> =
        own.iter().copied().filter(|point| !range.holds(point.timestamp_ms)).collect();
    let deleted = own.len() - kept.len();
    if deleted > 0 {
        buffer.release(points);
        for sample in kept {
            let put = buffer.put(points, sample);
            assert!(put == Put::Added); // Fewer than before, and in order.
        }
    }
    deleted as u64
}
