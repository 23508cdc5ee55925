//! What was deleted, for blocks that cannot change: series by matchers, in a range of time.
//!
//! A tombstone is written down before the shards are told (`NodeShard` logs the deletion and
//! applies it to its head at once). It hides samples of blocks whose
//! `tombstones_applied` is below its id, and is dropped when there is no such block left.

use crate::model::matcher::Matcher;
use crate::model::series::TenantId;

/// One deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Node-wide, rising from 1.
    pub id: u64,
    /// Whose series.
    pub tenant: TenantId,
    /// A series that satisfies all of them; never empty.
    pub matchers: Vec<Matcher>,
    /// Oldest sample that is deleted, Unix milliseconds.
    pub start_ms: i64,
    /// Newest sample that is deleted.
    pub end_ms: i64,
}

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
