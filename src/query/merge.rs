//! What shards selected of one series -> one run of samples: sorted, each timestamp once, the last
//! write wins.
//!
//! In: chunks in order of write priority and loose samples (`wire/select.rs`). Out: samples inside
//! the window. O(samples) where they are already in order, which is nearly always; a stable sort
//! where chunks overlap.

use crate::model::chunk::ChunkFault;
use crate::model::sample::{Sample, order_by_time};
use crate::wire::select::SelectedSeries;

/// A window of time, both ends inclusive, Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Oldest.
    pub start_ms: i64,
    /// Newest.
    pub end_ms: i64,
}

impl Window {
    fn holds(self, timestamp_ms: i64) -> bool {
        self.start_ms <= timestamp_ms && timestamp_ms <= self.end_ms
    }
}

/// Why a series' samples cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeFault {
    /// A chunk does not decode: our fault, or the memory's.
    Chunk(ChunkFault),
    /// The query has decoded its share.
    TooManySamples,
}

/// Decodes what was selected, within a budget of samples, reusing its memory from series to series.
#[derive(Debug)]
pub struct Merger {
    samples_left: u64,
    decoded: Vec<Sample>,
}

impl Merger {
    /// A merger that decodes at most `samples_max` samples inside windows.
    pub fn new(samples_max: u64) -> Self {
        Self { samples_left: samples_max, decoded: Vec::new() }
    }

    /// Appends the samples of `series` inside `window` to `run`, and keeps `run` sorted with each
    /// timestamp once.
    ///
    /// What is in `run` already (the same series from another owner) loses against `series` at
    /// equal timestamps. `run` is as it was before on a fault.
    pub fn merge(
        &mut self,
        series: &SelectedSeries,
        window: Window,
        run: &mut Vec<Sample>,
    ) -> Result<(), MergeFault> {
        let len_before = run.len();
        let merged = self.append(series, window, run);
        if let Err(fault) = merged {
            run.truncate(len_before);
            return Err(fault);
        }
        self.samples_left -= (run.len() - len_before) as u64;
        order_by_time(run);
        Ok(())
    }

    /// As `merge`, but what is in `run` already wins at equal timestamps: `series` is of an older
    /// layer.
    pub fn merge_below(
        &mut self,
        series: &SelectedSeries,
        window: Window,
        run: &mut Vec<Sample>,
    ) -> Result<(), MergeFault> {
        let mut below = Vec::new();
        self.merge(series, window, &mut below)?;
        if run.is_empty() {
            *run = below;
            return Ok(());
        }
        let count = (run.len() + below.len()) as u64;
        below.extend_from_slice(run);
        order_by_time(&mut below);
        // Those that were there twice are not held twice.
        self.samples_left += count - below.len() as u64;
        *run = below;
        Ok(())
    }

    /// Takes `count` samples from the budget for what is made of the decoded ones.
    pub fn take(&mut self, count: u64) -> Result<(), MergeFault> {
        self.samples_left =
            self.samples_left.checked_sub(count).ok_or(MergeFault::TooManySamples)?;
        Ok(())
    }

    fn append(
        &mut self,
        series: &SelectedSeries,
        window: Window,
        run: &mut Vec<Sample>,
    ) -> Result<(), MergeFault> {
        let len_max = (run.len() as u64).saturating_add(self.samples_left);
        for chunk in &series.chunks {
            if chunk.max_timestamp_ms() < window.start_ms
                || chunk.min_timestamp_ms() > window.end_ms
            {
                continue;
            }
            self.decoded.clear();
            chunk.decode(&mut self.decoded).map_err(MergeFault::Chunk)?;
            // A chunk is in order of time.
            let (start_ms, end_ms) = (window.start_ms, window.end_ms);
            let first = self.decoded.partition_point(|sample| sample.timestamp_ms < start_ms);
            let inside = &self.decoded[first..];
            let count = inside.partition_point(|sample| sample.timestamp_ms <= end_ms);
            run.extend_from_slice(&inside[..count]);
            if run.len() as u64 > len_max {
                return Err(MergeFault::TooManySamples);
            }
        }
        run.extend(series.samples.iter().filter(|sample| window.holds(sample.timestamp_ms)));
        if run.len() as u64 > len_max {
            return Err(MergeFault::TooManySamples);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chunk::Chunk;

    const ALL: Window = Window { start_ms: i64::MIN, end_ms: i64::MAX };

    fn series(chunks: &[&[(i64, f64)]], samples: &[(i64, f64)]) -> SelectedSeries {
        let encode = |points: &&[(i64, f64)]| {
            let (times, values): (Vec<_>, Vec<_>) = points.iter().copied().unzip();
            Chunk::encode(&times, &values)
        };
        SelectedSeries {
            labels: Box::default(),
            chunks: chunks.iter().map(encode).collect(),
            samples: samples
                .iter()
                .map(|&(timestamp_ms, value)| Sample { timestamp_ms, value })
                .collect(),
        }
    }

    #[track_caller]
    fn check(series: &SelectedSeries, window: Window, want: &[(i64, f64)]) {
        let mut run = Vec::new();
        Merger::new(100).merge(series, window, &mut run).expect("within the budget");
        let run: Vec<_> = run.iter().map(|sample| (sample.timestamp_ms, sample.value)).collect();
        assert_eq!(run, want);
    }

    #[test]
    fn last_write_wins() {
        // In order: nothing to do.
        check(&series(&[&[(1, 1.0), (2, 2.0)]], &[(3, 3.0)]), ALL, &[(1, 1.0), (2, 2.0), (3, 3.0)]);
        // The later chunk wins, the loose samples win over both, the last of them wins over the
        // first.
        check(
            &series(
                &[&[(1, 1.0), (3, 1.0), (5, 1.0)], &[(2, 2.0), (3, 2.0), (5, 2.0)]],
                &[(5, 3.0), (4, 3.0), (5, 4.0)],
            ),
            ALL,
            &[(1, 1.0), (2, 2.0), (3, 2.0), (4, 3.0), (5, 4.0)],
        );
        check(&series(&[], &[]), ALL, &[]);
    }

    #[test]
    fn window_cuts_inclusively() {
        let selected = series(&[&[(1, 1.0), (2, 2.0), (3, 3.0)]], &[(4, 4.0), (5, 5.0)]);
        check(&selected, Window { start_ms: 2, end_ms: 4 }, &[(2, 2.0), (3, 3.0), (4, 4.0)]);
        check(&selected, Window { start_ms: 6, end_ms: 9 }, &[]);
    }

    #[test]
    fn union_of_owners() {
        let mut run = Vec::new();
        let mut merger = Merger::new(100);
        merger.merge(&series(&[&[(1, 1.0), (4, 1.0)]], &[]), ALL, &mut run).expect("fits");
        merger.merge(&series(&[&[(2, 2.0), (4, 2.0)]], &[]), ALL, &mut run).expect("fits");
        let run: Vec<_> = run.iter().map(|sample| (sample.timestamp_ms, sample.value)).collect();
        assert_eq!(run, [(1, 1.0), (2, 2.0), (4, 2.0)]);
    }

    #[test]
    fn an_older_layer_loses() {
        let mut run = Vec::new();
        let mut merger = Merger::new(100);
        merger.merge(&series(&[&[(5, 1.0), (7, 1.0)]], &[]), ALL, &mut run).expect("fits");
        let below = series(&[&[(1, 2.0), (5, 2.0), (6, 2.0), (9, 2.0)]], &[]);
        merger.merge_below(&below, ALL, &mut run).expect("fits");
        let run: Vec<_> = run.iter().map(|sample| (sample.timestamp_ms, sample.value)).collect();
        assert_eq!(run, [(1, 2.0), (5, 1.0), (6, 2.0), (7, 1.0), (9, 2.0)]);
        assert_eq!(merger.take(95), Ok(()));
        assert_eq!(merger.take(1), Err(MergeFault::TooManySamples));
    }

    #[test]
    fn budget_is_exact_and_counts_only_the_window() {
        let selected = series(&[&[(1, 1.0), (2, 2.0), (3, 3.0)]], &[(4, 4.0)]);
        let mut run = Vec::new();
        let mut merger = Merger::new(4);
        assert_eq!(merger.merge(&selected, ALL, &mut run), Ok(()));
        assert_eq!(merger.merge(&selected, ALL, &mut run), Err(MergeFault::TooManySamples));
        assert_eq!(run.len(), 4);
        let window = Window { start_ms: 2, end_ms: 3 };
        assert_eq!(Merger::new(2).merge(&selected, window, &mut Vec::new()), Ok(()));
        assert_eq!(merger.take(1), Err(MergeFault::TooManySamples));
    }
}
