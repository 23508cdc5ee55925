//! Pieces of answers -> series with their samples, for one holder of them: the shards and blocks of
//! one node. Pure. Memory is bounded by the query's limits.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::{GatherFault, GatherLimits, SeriesRun, check_series_count, into_series};
use crate::model::sample::Sample;
use crate::query::merge::{Merger, SampleBudget, Window};
use crate::wire::select::{SelectAnswer, SelectLayer};

/// Series by their labels, in the order in which they came: blocks give them sorted, and to sort
/// what is sorted costs little.
pub struct Runs {
    window: Window,
    limits: GatherLimits,
    merger: Merger,
    series: Vec<SeriesRun>,
    /// Places in `series`, by the labels there.
    places: HashTable<usize>,
    hasher: RandomState,
}

impl Runs {
    /// No series yet. What they hold is taken from `budget`.
    pub fn new(window: Window, limits: GatherLimits, budget: SampleBudget) -> Self {
        Self {
            window,
            limits,
            merger: Merger::within(budget),
            series: Vec::new(),
            places: HashTable::new(),
            hasher: RandomState::new(),
        }
    }

    /// Takes a piece: heads before blocks. A group of matchers may select again what an earlier one
    /// did: the same samples, which merge to themselves.
    pub fn take(&mut self, layer: SelectLayer, answer: SelectAnswer) -> Result<(), GatherFault> {
        for mut series in into_series(answer) {
            let labels = std::mem::take(&mut series.labels);
            let place = self.place_of(labels);
            let (window, run) = (self.window, &mut self.series[place].run);
            match layer {
                SelectLayer::Heads => self.merger.merge(&series, window, run)?,
                SelectLayer::Blocks => self.merger.merge_below(&series, window, run)?,
            }
        }
        check_series_count(self.series.len(), self.limits)
    }

    /// Those that have samples, in the order they came.
    pub fn into_series(mut self) -> Vec<SeriesRun> {
        self.series.retain(|series| !series.run.is_empty());
        self.series
    }

    fn place_of(&mut self, labels: Box<[u8]>) -> usize {
        let Self { series, places, hasher, .. } = self;
        let hash = hasher.hash_one(&labels);
        let is_it = |place: &usize| series[*place].labels == labels;
        match places.entry(hash, is_it, |at| hasher.hash_one(&series[*at].labels)) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(free) => {
                let place = series.len();
                free.insert(place);
                series.push(SeriesRun { labels, run: Vec::<Sample>::new() });
                place
            }
        }
    }
}
