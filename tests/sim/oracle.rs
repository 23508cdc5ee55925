//! What a query must answer, kept in the plainest way: for each series and time, what was written
//! in the order of writing, from the last that is certain on.
//!
//! A write or deletion that was confirmed is certain, and so is the state that a restart found.
//! One that was not may have happened or not: until something later is certain, both are right.

use std::collections::BTreeMap;

use tidegate::model::sample::Sample;
use tidegate::node::block::Tombstone;

use crate::series::Pool;

/// What a query found: by series of the pool, the values' bits by time.
pub type Found = BTreeMap<usize, BTreeMap<i64, u64>>;

/// Adds a run to what was found; asserts that it is sorted, each time once.
pub fn note_run(found: &mut Found, series: usize, run: &[Sample]) {
    assert!(
        run.is_sorted_by(|one, next| one.timestamp_ms < next.timestamp_ms),
        "series {series} has a time twice"
    );
    let bits = run.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits()));
    let before = found.insert(series, bits.collect());
    assert!(before.is_none(), "series {series} is there twice");
}

/// Names a write or deletion; rising.
pub type Token = u64;

#[derive(Debug, Default)]
struct Key {
    /// From the last certain one on; `None`: nothing is there.
    possible: Vec<(Token, Option<u64>)>,
    /// Everything that was ever written here.
    history: Vec<u64>,
}

/// See the module's description.
#[derive(Default)]
pub struct Oracle {
    keys: BTreeMap<(usize, i64), Key>,
    next_token: Token,
}

impl Oracle {
    /// The token of what is written next.
    pub fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    /// Written, perhaps.
    pub fn write(&mut self, token: Token, series: usize, timestamp_ms: i64, bits: u64) {
        let key = self.keys.entry((series, timestamp_ms)).or_default();
        if key.possible.is_empty() {
            key.possible.push((0, None));
        }
        key.possible.push((token, Some(bits)));
        key.history.push(bits);
    }

    /// The write of this token is certain.
    pub fn confirm_write(&mut self, token: Token, series: usize, timestamp_ms: i64) {
        let key = self.keys.get_mut(&(series, timestamp_ms)).expect("it was written");
        key.possible.retain(|(each, _)| *each >= token);
        assert!(!key.possible.is_empty());
    }

    /// The write of this token was refused: it has not happened.
    pub fn refuse_write(&mut self, token: Token, series: usize, timestamp_ms: i64) {
        let key = self.keys.get_mut(&(series, timestamp_ms)).expect("it was written");
        key.possible.retain(|(each, _)| *each != token);
    }

    /// Deleted, perhaps.
    pub fn delete(&mut self, token: Token, pool: &Pool, tombstone: &Tombstone) {
        self.delete_of(token, pool, tombstone, |_| true);
    }

    /// Deleted from these series, perhaps.
    pub fn delete_of(
        &mut self,
        token: Token,
        pool: &Pool,
        tombstone: &Tombstone,
        is_asked: impl Fn(usize) -> bool,
    ) {
        for ((series, timestamp_ms), key) in &mut self.keys {
            if is_asked(*series) && pool.is_hit(*series, *timestamp_ms, tombstone) {
                key.possible.push((token, None));
            }
        }
    }

    /// The deletion of this token is certain.
    pub fn confirm_delete(&mut self, token: Token) {
        for key in self.keys.values_mut() {
            if key.possible.iter().any(|(each, value)| *each == token && value.is_none()) {
                key.possible.retain(|(each, _)| *each >= token);
            }
        }
    }

    /// Blocks of these times were retired: what they held may be gone, or what lay below it may be
    /// seen again.
    pub fn retire(&mut self, start_ms: i64, end_ms: i64) {
        for ((_, timestamp_ms), key) in &mut self.keys {
            if start_ms <= *timestamp_ms && *timestamp_ms <= end_ms {
                let below: Vec<_> = key.history.iter().map(|bits| (0, Some(*bits))).collect();
                key.possible.splice(..0, below);
                key.possible.push((0, None));
                // Whatever is confirmed later ends the doubt.
                key.possible.sort_by_key(|(token, _)| *token);
            }
        }
    }

    /// A restart found this, and it stays.
    pub fn settle(&mut self, found: &Found) {
        for ((series, timestamp_ms), key) in &mut self.keys {
            let seen = found.get(series).and_then(|run| run.get(timestamp_ms)).copied();
            key.possible = vec![(0, seen)];
        }
    }

    /// Asserts that `found` is a right answer.
    #[track_caller]
    pub fn check(&self, found: &Found, what: &str) {
        for ((series, timestamp_ms), key) in &self.keys {
            let seen = found.get(series).and_then(|run| run.get(timestamp_ms)).copied();
            assert!(
                key.possible.iter().any(|(_, value)| *value == seen),
                "{what}: series {series} at {timestamp_ms}: found {seen:x?}, expected one of \
                 {:x?}; ever written {:x?}",
                key.possible,
                key.history
            );
        }
        self.check_nothing_invented(found, what);
    }

    /// Asserts that everything in `found` was written at some time.
    #[track_caller]
    pub fn check_nothing_invented(&self, found: &Found, what: &str) {
        for (series, run) in found {
            for (timestamp_ms, bits) in run {
                let key = self.keys.get(&(*series, *timestamp_ms));
                assert!(
                    key.is_some_and(|key| key.history.contains(bits)),
                    "{what}: series {series} at {timestamp_ms}: {bits:x} was never written"
                );
            }
        }
    }

    /// Whether something is missing from `found` that must be there.
    pub fn is_missing_something(&self, found: &Found) -> bool {
        self.keys.iter().any(|((series, timestamp_ms), key)| {
            let is_there = found.get(series).is_some_and(|run| run.contains_key(timestamp_ms));
            !is_there && key.possible.iter().all(|(_, value)| value.is_some())
        })
    }
}
