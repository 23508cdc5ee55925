//! Frees samples that are older than a horizon, a few series at a time. The series themselves stay
//! known.

use super::Head;

/// Where the walk over the series stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    next: u32,
    generation: u64,
}

impl Cursor {
    pub(super) fn generation(self) -> u64 {
        self.generation
    }
}

/// What one call of [`Head::drop_before`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropProgress {
    /// Samples that it freed.
    pub samples: u64,
    /// Whether it came to the last series: the next call begins anew.
    pub finished: bool,
}

impl Head {
    /// Frees chunks, and runs of raw points, all of whose samples are older than `timestamp_ms`.
    ///
    /// Looks at the next `series_max` series, so that a call is short; call it again, now and then,
    /// for ever.
    pub fn drop_before(&mut self, timestamp_ms: i64, series_max: u32) -> DropProgress {
        let count = self.series_count();
        let start = self.retention.next.min(count);
        let end = start.saturating_add(series_max).min(count);
        let before = self.counts.samples;
        for id in start..end {
            self.drop_sealed(id, timestamp_ms);
            self.drop_points(id, timestamp_ms);
        }
        let finished = end == count;
        self.retention.next = if finished { 0 } else { end };
        DropProgress { samples: before.saturating_sub(self.counts.samples), finished }
    }

    fn drop_sealed(&mut self, id: u32, timestamp_ms: i64) {
        let list = &mut self.sealed[id as usize];
        let before = (list.len(), list.capacity());
        let mut samples = 0;
        let mut bytes = 0;
        list.retain(|sealed| {
            let keep = sealed.max_ms >= timestamp_ms;
            if !keep {
                samples += u64::from(sealed.chunk.count());
                bytes += sealed.heap_bytes();
            }
            keep
        });
        if list.len() == before.0 {
            return;
        }
        if list.len() < list.capacity() / 2 {
            list.shrink_to_fit();
        }
        bytes += ((before.1 - list.capacity()) * size_of::<super::Sealed>()) as u64;
        self.counts.chunks -= (before.0 - list.len()) as u64;
        self.counts.samples = self.counts.samples.saturating_sub(samples);
        self.sealed_bytes -= bytes;
        self.retention.generation += 1;
    }

    fn drop_points(&mut self, id: u32, timestamp_ms: i64) {
        // The newest stays noted in `newest_ms`: what may still come late is measured against it.
        let open = &mut self.hot[id as usize].open;
        let newest = open.points(&self.points).last();
        if newest.is_some_and(|newest| newest.timestamp_ms < timestamp_ms) {
            self.counts.samples = self.counts.samples.saturating_sub(u64::from(open.len));
            open.release(&mut self.points);
        }
        let Some(side) = self.side.get_mut(&id) else { return };
        let newest = side.points(&self.points).last();
        if newest.is_none_or(|newest| newest.timestamp_ms < timestamp_ms) {
            self.counts.samples = self.counts.samples.saturating_sub(u64::from(side.len));
            side.release(&mut self.points);
            self.side.remove(&id);
        }
    }
}
