//! Flushes of what is pending: begun, fed series by series, ended, given up.

use std::rc::Rc;

use tidegate::background::blocks::flush::Flush;
use tidegate::model::chunk::Chunk;
use tidegate::node::block::{FlushSeries, range_start_ms};

use super::World;
use crate::oracle::Token;

/// Time, bits and token of a sample.
type Written = (i64, u64, Token);

/// A flush under way.
pub struct OpenFlush {
    flush: Flush,
    /// Series that it has not seen.
    waiting: Vec<usize>,
    until_ms: i64,
    /// What it was given, in order: times and tokens of each series.
    sent: Vec<(usize, Vec<(i64, Token)>)>,
}

impl OpenFlush {
    pub fn tombstones_applied(&self) -> u64 {
        self.flush.tombstones_applied()
    }
}

impl World {
    /// The next step of the flush under way, or the first of a new one.
    pub fn step_flush(&mut self) -> Option<()> {
        let Some(mut open) = self.flush.take() else {
            let run_bytes = [1, 500, 1 << 20][self.random.below(3)];
            let hours = [0, 0, 2, 1_000][self.random.below(4)];
            self.flush = Some(OpenFlush {
                flush: Flush::new(self.applied, run_bytes),
                waiting: (0..self.pool.series.len()).collect(),
                until_ms: self.now_ms - hours * super::HOUR_MS,
                sent: Vec::new(),
            });
            return Some(());
        };
        let store = Rc::clone(&self.store);
        for _ in 0..=self.random.below(8) {
            let Some(series) = open.waiting.pop() else {
                if self.run(open.flush.finish(&store))?.is_ok() {
                    self.drop_published(&mut open, usize::MAX);
                }
                return Some(());
            };
            let Some(one) = self.take(series, &mut open) else { continue };
            match self.run(open.flush.handle_series(&store, vec![one]))? {
                Ok(None) => {}
                Ok(Some(published)) => {
                    let published = usize::try_from(published).expect("small");
                    self.drop_published(&mut open, published);
                }
                Err(_) => return Some(()),
            }
        }
        self.flush = Some(open);
        Some(())
    }

    /// Publishes all that is pending.
    pub fn flush_all(&mut self) {
        self.flush = None;
        let store = Rc::clone(&self.store);
        let flush = Flush::new(self.applied, 1 << 20);
        let mut open =
            OpenFlush { flush, waiting: Vec::new(), until_ms: i64::MAX, sent: Vec::new() };
        let all: Vec<_> =
            (0..self.pool.series.len()).filter_map(|one| self.take(one, &mut open)).collect();
        let taken = self.run(open.flush.handle_series(&store, all)).expect("power");
        taken.expect("no faults");
        self.run(open.flush.finish(&store)).expect("power").expect("no faults");
        self.drop_published(&mut open, usize::MAX);
    }

    /// What the flush takes of a series: chunks of one range each, two where chance says so.
    fn take(&mut self, series: usize, open: &mut OpenFlush) -> Option<FlushSeries> {
        let own = self.pending.range((series, i64::MIN)..=(series, open.until_ms));
        let taken: Vec<_> =
            own.map(|((_, at_ms), (bits, token))| (*at_ms, *bits, *token)).collect();
        if taken.is_empty() {
            return None;
        }
        let mut chunks = Vec::new();
        for range in taken.chunk_by(|one, next| range_start_ms(one.0) == range_start_ms(next.0)) {
            let (first, second): (Vec<Written>, Vec<Written>) =
                range.iter().partition(|_| !self.random.once_in(5));
            for part in [first, second].iter().filter(|part| !part.is_empty()) {
                let times: Vec<_> = part.iter().map(|sample| sample.0).collect();
                let values: Vec<_> = part.iter().map(|sample| f64::from_bits(sample.1)).collect();
                chunks.push(Chunk::encode(&times, &values));
            }
        }
        open.sent.push((series, taken.iter().map(|sample| (sample.0, sample.2)).collect()));
        let one = &self.pool.series[series];
        Some(FlushSeries { tenant: one.tenant, labels: one.labels.clone(), chunks })
    }

    /// The first `published` series are in blocks: what was taken of them is not pending any more,
    /// unless it was written again.
    fn drop_published(&mut self, open: &mut OpenFlush, published: usize) {
        for (series, taken) in open.sent.iter_mut().take(published) {
            for (at_ms, token) in taken.drain(..) {
                let key = (*series, at_ms);
                if self.pending.get(&key).is_some_and(|(_, newest)| *newest == token) {
                    self.pending.remove(&key);
                }
            }
        }
    }
}
