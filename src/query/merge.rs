//! What shards selected of one series -> one run of samples: sorted, each timestamp once, the last
//! write wins.
//!
//! In: chunks in order of write priority and loose samples (`wire/select.rs`). Out: samples inside
//! the window. O(samples) where they are already in order, which is nearly always; a stable sort
//! where chunks overlap.
//!
//! Three rules say which sample wins at a timestamp: within a layer the last write; heads over
//! blocks; and between the nodes that hold a series the fuller answer ([`merge_replicas`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Samples that may still be held; shared by all mergers of a query.
#[derive(Clone, Debug)]
pub struct SampleBudget {
    left: Arc<AtomicU64>,
}

impl SampleBudget {
    /// So many.
    pub fn new(samples_max: u64) -> Self {
        Self { left: Arc::new(AtomicU64::new(samples_max)) }
    }

    /// How many are left, for now.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Takes so many, or none if fewer are left.
    pub fn take(&self, count: u64) -> Result<(), MergeFault> {
        let take = |left: u64| left.checked_sub(count);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|_| MergeFault::TooManySamples)
    }

    fn give_back(&self, count: u64) {
        self.left.fetch_add(count, Ordering::Relaxed);
    }
}

/// Decodes what was selected, within a budget of samples, reusing its memory from series to series.
#[derive(Debug)]
pub struct Merger {
    budget: SampleBudget,
    decoded: Vec<Sample>,
}

impl Merger {
    /// A merger that decodes at most `samples_max` samples inside windows.
    pub fn new(samples_max: u64) -> Self {
        Self::within(SampleBudget::new(samples_max))
    }

    /// A merger that takes what it holds from `budget`.
    pub fn within(budget: SampleBudget) -> Self {
        Self { budget, decoded: Vec::new() }
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
        let appended = self.append(series, window, run);
        let taken = appended.and_then(|()| self.budget.take((run.len() - len_before) as u64));
        if let Err(fault) = taken {
            run.truncate(len_before);
            return Err(fault);
        }
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
        self.budget.give_back(count - below.len() as u64);
        *run = below;
        Ok(())
    }

    /// Takes `count` samples from the budget for what is made of the decoded ones.
    pub fn take(&self, count: u64) -> Result<(), MergeFault> {
        self.budget.take(count)
    }

    fn append(
        &mut self,
        series: &SelectedSeries,
        window: Window,
        run: &mut Vec<Sample>,
    ) -> Result<(), MergeFault> {
        let len_max = (run.len() as u64).saturating_add(self.budget.left());
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

/// One series as several nodes hold it -> one run: every sample that any of them has, and at a
/// timestamp that several have, the one of the fuller run.
///
/// Fuller is the run with more samples; of equals the one that comes first, so that who gives runs
/// in an order of their own (nodes by id) gets the same answer each time. Replicas differ where one
/// was away: it may also have missed a later write to a timestamp, which is why the one that missed
/// least is believed.
pub fn merge_replicas(mut runs: Vec<Vec<Sample>>) -> Vec<Sample> {
    runs.sort_by_key(|run| std::cmp::Reverse(run.len()));
    let mut runs = runs.into_iter();
    let mut all = runs.next().unwrap_or_default();
    for run in runs {
        // Nearly always the same, and then nothing is to be done.
        let is_known = |sample: &Sample| {
            let at = |held: &Sample| held.timestamp_ms.cmp(&sample.timestamp_ms);
            all.binary_search_by(at).is_ok()
        };
        let is_same_length = run.len() == all.len();
        let is_same = is_same_length
            && run.iter().zip(&all).all(|(one, other)| one.timestamp_ms == other.timestamp_ms);
        if is_same || run.iter().all(is_known) {
            continue;
        }
        // Of equals the later one in the list stays.
        let mut both = run;
        both.append(&mut all);
        order_by_time(&mut both);
        all = both;
    }
    all
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
    fn the_fuller_replica_wins_and_nothing_is_lost() {
        // Red if the order of the nodes decides over fullness, if a sample that only the emptier
        // one has is lost, or if a timestamp comes twice.
        #[track_caller]
        fn check(runs: &[&[(i64, f64)]], want: &[(i64, f64)]) {
            let sample = |&(timestamp_ms, value): &(i64, f64)| Sample { timestamp_ms, value };
            let runs = runs.iter().map(|run| run.iter().map(sample).collect()).collect();
            let merged: Vec<_> =
                merge_replicas(runs).iter().map(|one| (one.timestamp_ms, one.value)).collect();
            assert_eq!(merged, want);
        }
        let (few, many) = (&[(2, 1.0), (9, 1.0)][..], &[(1, 2.0), (2, 2.0), (3, 2.0)][..]);
        let want = &[(1, 2.0), (2, 2.0), (3, 2.0), (9, 1.0)];
        check(&[few, many], want);
        check(&[many, few], want);
        // As full as each other: the first.
        check(&[few, &[(2, 3.0), (9, 3.0)]], few);
        check(&[&[(2, 3.0), (8, 3.0)], few], &[(2, 3.0), (8, 3.0), (9, 1.0)]);
        check(&[few, &[], many, few], want);
        check(&[&[], &[]], &[]);
        check(&[], &[]);
    }

    #[test]
    fn a_budget_is_shared() {
        // Red if each merger had its own.
        let budget = SampleBudget::new(5);
        let selected = series(&[&[(1, 1.0), (2, 2.0), (3, 3.0)]], &[]);
        let mut one = Merger::within(budget.clone());
        let mut other = Merger::within(budget.clone());
        assert_eq!(one.merge(&selected, ALL, &mut Vec::new()), Ok(()));
        let mut run = Vec::new();
        let merged = other.merge(&selected, ALL, &mut run);
        assert_eq!((merged, run.len()), (Err(MergeFault::TooManySamples), 0));
        assert_eq!(budget.left(), 2);
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
