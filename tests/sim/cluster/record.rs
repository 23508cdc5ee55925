//! What clients sent and what they were told, kept in the plainest way, and what nodes must hold
//! because of it.
//!
//! A series has one client. It gives a sample another value only if every attempt to write the last
//! one was answered, by one gateway: what got no answer may still be under way, and arrive late.
//! Hints of an older value are under way for long, and must do no harm then.

use std::collections::{BTreeMap, BTreeSet};

use tidegate::gateway::owner::AckPolicy;
use tidegate::model::placement::NodeId;

use super::keeper::HintKey;
use super::plan::{Plan, index_of};
use crate::oracle::Found;
use crate::series::Pool;

/// A value of a sample.
struct Version {
    bits: u64,
    /// Under which epoch it was acknowledged.
    epoch: Option<u64>,
}

#[derive(Default)]
struct Key {
    versions: Vec<Version>,
    /// Whether it may get another value.
    is_settled: bool,
}

/// By series and time.
#[derive(Default)]
pub struct Record {
    keys: BTreeMap<(usize, i64), Key>,
    /// Node and sample: its hints are gone, and were told to be.
    lost_hints: BTreeSet<(usize, HintKey)>,
    /// Node and sample: there was a hint, or may have been.
    hinted: BTreeSet<(usize, HintKey)>,
    next_value: u64,
    /// Samples that were acknowledged.
    pub acknowledged: u64,
    /// Of those, the ones that had an earlier value.
    pub rewritten: u64,
}

impl Record {
    /// A value that nobody had, as bits.
    #[expect(clippy::cast_precision_loss, reason = "few values")]
    pub fn value(&mut self) -> u64 {
        self.next_value += 1;
        (self.next_value as f64).to_bits()
    }

    /// Whether the sample may be written with another value, or for the first time.
    pub fn is_free(&self, series: usize, at_ms: i64) -> bool {
        self.keys.get(&(series, at_ms)).is_none_or(|key| key.is_settled)
    }

    /// Some sample of a series that may get another value.
    pub fn settled_near(&self, series: usize, at_ms: i64) -> Option<i64> {
        let before = self.keys.range((series, i64::MIN)..=(series, at_ms)).rev().take(8);
        let settled = before.filter(|(_, key)| key.is_settled);
        settled.map(|((_, at_ms), _)| *at_ms).last()
    }

    /// It is sent from now on.
    pub fn begin(&mut self, series: usize, at_ms: i64, bits: u64) {
        let key = self.keys.entry((series, at_ms)).or_default();
        key.versions.push(Version { bits, epoch: None });
        key.is_settled = false;
    }

    /// Its newest value was acknowledged; `is_certain`: no other attempt is under
    /// way.
    pub fn acknowledge(&mut self, series: usize, at_ms: i64, (epoch, is_certain): (u64, bool)) {
        let key = self.keys.get_mut(&(series, at_ms)).expect("it was sent");
        key.is_settled = is_certain;
        self.acknowledged += 1;
        self.rewritten += u64::from(key.versions.len() > 1);
        key.versions.last_mut().expect("it was sent").epoch = Some(epoch);
    }

    /// Hints are gone with the disk that they were on.
    pub fn lose_hints(&mut self, held: BTreeMap<NodeId, BTreeSet<HintKey>>) {
        for (node, keys) in held {
            self.lost_hints.extend(keys.into_iter().map(|key| (index_of(node), key)));
        }
    }

    /// A sample is to be kept for a node.
    pub fn note_hint(&mut self, node: usize, key: HintKey) {
        self.hinted.insert((node, key));
    }

    /// Hints that were ever kept, by node and sample, and those of them that are gone.
    pub fn hint_counts(&self) -> (usize, usize) {
        (self.hinted.len(), self.lost_hints.len())
    }

    /// Asserts that what each node holds is right.
    pub fn check(
        &self,
        found: &[Found],
        ack: AckPolicy,
        (plan, pool): (&Plan, &Pool),
        what: &str,
    ) {
        for (at, key) in &self.keys {
            let acked = key.versions.iter().rposition(|version| version.epoch.is_some());
            let Some(acked) = acked else { continue };
            let epoch = key.versions[acked].epoch.expect("looked for");
            let owners = plan.owners(epoch, pool, at.0);
            let has_it = |node: usize| {
                let seen = found[node].get(&at.0).and_then(|run| run.get(&at.1));
                let mut allowed = key.versions[acked..].iter();
                seen.is_some_and(|seen| allowed.any(|version| version.bits == *seen))
            };
            let is_right = |node: usize| {
                has_it(node)
                    || self.lost_hints.contains(&(node, *at))
                    || self.went_elsewhere((node, *at), epoch, (plan, pool), has_it)
            };
            let is_kept = match ack {
                AckPolicy::All => {
                    owners.iter().any(|node| has_it(*node))
                        && owners.iter().all(|node| is_right(*node))
                }
                AckPolicy::One => (0..found.len()).any(has_it),
            };
            assert!(
                is_kept,
                "{what}: series {} at {}, acknowledged under epoch {epoch} at its value {acked} of \
                 {:?}; owners {owners:?}; nodes have {:?}; hinted for {:?}",
                at.0,
                at.1,
                key.versions.iter().map(|one| f64::from_bits(one.bits)).collect::<Vec<_>>(),
                found
                    .iter()
                    .map(|found| found.get(&at.0).and_then(|run| run.get(&at.1)))
                    .map(|seen| seen.copied().map(f64::from_bits))
                    .collect::<Vec<_>>(),
                (0..found.len())
                    .filter(|node| self.hinted.contains(&(*node, *at)))
                    .collect::<Vec<_>>(),
            );
        }
        self.check_nothing_invented(found, what);
    }

    /// Whether a hint for a node went to others, which own the series since: the node was not in
    /// their document.
    fn went_elsewhere(
        &self,
        (node, key): (usize, HintKey),
        epoch: u64,
        (plan, pool): (&Plan, &Pool),
        has_it: impl Fn(usize) -> bool,
    ) -> bool {
        self.hinted.contains(&(node, key))
            && (epoch + 1..=plan.newest_epoch()).any(|later| {
                let owners = plan.owners(later, pool, key.0);
                !plan.has_node(later, node) && owners.into_iter().all(&has_it)
            })
    }

    fn check_nothing_invented(&self, found: &[Found], what: &str) {
        for (node, found) in found.iter().enumerate() {
            for (series, run) in found {
                for (at_ms, bits) in run {
                    let key = self.keys.get(&(*series, *at_ms));
                    let is_sent = key.is_some_and(|key| {
                        key.versions.iter().any(|version| version.bits == *bits)
                    });
                    assert!(is_sent, "{what}: node {node} invented series {series} at {at_ms}");
                }
            }
        }
    }
}
