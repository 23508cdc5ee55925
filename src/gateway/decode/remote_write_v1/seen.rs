//! Label runs that were found canonical before, by their hash: they need not be walked again.
//!
//! Walking 11 labels costs 30 ns, each length waiting for the one before; hashing them costs 17 and
//! is due anyway. Who sends a series once sends it again, so the walk is done once per series and
//! shard. A hash stands for its bytes everywhere in tidegate, so it may stand for this check too.
//! Bounded: 1 MiB, the older of two entries in the same place is forgotten.

use crate::model::series::SeriesHash;

const SETS: usize = 1 << 15;

/// The hashes, two to a set.
#[derive(Default)]
pub struct SeenLabels {
    /// Empty until the first one is kept. 0 is no entry: its label run would be walked each time.
    sets: Vec<[u128; 2]>,
}

impl SeenLabels {
    /// Whether the label run with this hash was found canonical before.
    #[inline]
    pub fn contains(&self, hash: SeriesHash) -> bool {
        let Some(set) = self.sets.get(set_of(hash)) else { return false };
        set[0] == hash.0 || set[1] == hash.0
    }

    /// Remembers a hash that is not contained.
    pub fn insert(&mut self, hash: SeriesHash) {
        if self.sets.is_empty() {
            self.sets = vec![[0; 2]; SETS];
        }
        let set = &mut self.sets[set_of(hash)];
        *set = [hash.0, set[0]];
    }
}

#[expect(clippy::cast_possible_truncation, reason = "cut to the number of sets")]
fn set_of(hash: SeriesHash) -> usize {
    hash.table_hash() as usize % SETS
}

impl std::fmt::Debug for SeenLabels {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SeenLabels({} sets)", self.sets.len())
    }
}
