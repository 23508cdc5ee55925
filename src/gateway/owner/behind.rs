//! Nodes that hints are still to reach, and up to which time, series by series.
//!
//! A sample that is not newer than the hints of its series may be another value of the same time:
//! it goes to the node at once, and behind the hints once more, or the hint would have the last
//! word. Series beyond a million a node share one time, that of the newest of their hints.

use hashbrown::HashMap;

use crate::gateway::request::SeriesBatch;
use crate::gateway::route::Route;
use crate::model::placement::NodeId;
use crate::model::series::SeriesHash;

/// Series that are told apart, a node.
const SERIES_MAX: usize = 1 << 20;

/// The nodes.
#[derive(Default)]
pub(super) struct Behinds(Vec<Behind>);

/// One of them.
pub(super) struct Behind {
    pub(super) node: NodeId,
    /// Parts that may become hints for it, and hints that are not durable yet.
    pub(super) making: u32,
    /// Whether some are durable, and not known to be delivered.
    pub(super) is_kept: bool,
    /// Whether it was in no placement since the oldest of them: some went to whoever owned their
    /// series then, and those have to get what comes behind them too.
    pub(super) has_left: bool,
    series: HashMap<SeriesHash, i64>,
    /// Of all others.
    others_ms: i64,
}

impl Behinds {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Behind> {
        self.0.iter()
    }

    pub(super) fn find(&self, node: NodeId) -> Option<&Behind> {
        self.0.iter().find(|behind| behind.node == node)
    }

    /// What is known of `node`, made if it is nothing.
    pub(super) fn of(&mut self, node: NodeId) -> &mut Behind {
        let known = self.0.iter().position(|behind| behind.node == node);
        let place = known.unwrap_or_else(|| {
            let (series, others_ms) = (HashMap::new(), i64::MIN);
            let (is_kept, has_left) = (false, false);
            self.0.push(Behind { node, making: 0, is_kept, has_left, series, others_ms });
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    /// Notes who is not in the placement that is followed.
    pub(super) fn note_left(&mut self, route: &Route) {
        for behind in self.0.iter_mut().filter(|_| route.epoch() > 0) {
            behind.has_left |= route.lanes_to(behind.node).is_none();
        }
    }

    /// Forgets `node` if no hint is on its way there.
    pub(super) fn forget_drained(&mut self, node: NodeId) {
        self.0.retain(|it| it.node != node || it.making > 0 || it.is_kept);
    }
}

impl Behind {
    /// All of `batch` may become hints.
    pub(super) fn note(&mut self, batch: &SeriesBatch) {
        for (index, hash) in batch.hash.iter().enumerate() {
            let samples = batch.samples_of(index);
            let times = &batch.timestamp_ms[samples.start as usize..samples.end as usize];
            let Some(&newest_ms) = times.iter().max() else { continue };
            let until_ms = match self.series.len() {
                SERIES_MAX.. => self.series.get_mut(hash).unwrap_or(&mut self.others_ms),
                _ => self.series.entry(*hash).or_insert(newest_ms),
            };
            *until_ms = newest_ms.max(*until_ms);
        }
    }

    /// Hints of any series, up to `until_ms`.
    pub(super) fn note_all(&mut self, until_ms: i64) {
        self.others_ms = self.others_ms.max(until_ms);
    }

    /// All hints that were noted are delivered.
    pub(super) fn clear(&mut self) {
        self.has_left = false;
        self.series.clear();
        self.others_ms = i64::MIN;
    }

    /// The lanes that hints of it go by; `None`: by any, to whoever owns their series.
    pub(super) fn lanes<'route>(&self, route: &'route Route) -> Option<&'route [u16]> {
        route.lanes_to(self.node).filter(|_| !self.has_left)
    }

    /// The newest time that a hint of the series may have.
    pub(super) fn until_ms(&self, hash: SeriesHash) -> i64 {
        self.series.get(&hash).copied().unwrap_or(i64::MIN).max(self.others_ms)
    }

    /// Whether the series at `index` has a sample that a hint could undo.
    pub(super) fn could_undo(&self, batch: &SeriesBatch, index: usize) -> bool {
        let until_ms = self.until_ms(batch.hash[index]);
        let samples = batch.samples_of(index);
        let times = &batch.timestamp_ms[samples.start as usize..samples.end as usize];
        times.iter().any(|timestamp_ms| *timestamp_ms <= until_ms)
    }
}
