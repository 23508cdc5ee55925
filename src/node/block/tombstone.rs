//! What was deleted, for blocks that cannot change: series by matchers, in a range of time.
//!
//! A tombstone is written down before the shards are told (`NodeShard` logs the deletion and
//! applies it to its head at once). It hides samples of blocks whose
//! `tombstones_applied` is below its id, and is dropped when there is no such block left.

pub use crate::wire::delete::Deletion as Tombstone;

/// A range of time whose samples are hidden, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiddenRange {
    /// Oldest, Unix milliseconds.
    pub start_ms: i64,
    /// Newest.
    pub end_ms: i64,
}

impl HiddenRange {
    /// Whether a sample of that time is hidden.
    pub fn holds(&self, timestamp_ms: i64) -> bool {
        self.start_ms <= timestamp_ms && timestamp_ms <= self.end_ms
    }
}

impl Tombstone {
    /// The range that it hides.
    pub fn range(&self) -> HiddenRange {
        HiddenRange { start_ms: self.start_ms, end_ms: self.end_ms }
    }
}
