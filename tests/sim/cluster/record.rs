//! What clients sent and what they were told, kept in the plainest way, and what nodes must hold
//! because of it.
//!
//! A series has one client. It gives a sample another value only if every attempt to write the last
//! one was answered, by one gateway: what got no answer may still be under way, and arrive late.

use std::collections::BTreeMap;

use tidegate::gateway::owner::AckPolicy;

use crate::oracle::Found;

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

    /// Asserts that what each node holds is right; `owners` of a series under an epoch.
    pub fn check(
        &self,
        found: &[Found],
        (ack, owners): (AckPolicy, impl Fn(u64, usize) -> Vec<usize>),
        what: &str,
    ) {
        for ((series, at_ms), key) in &self.keys {
            let acked = key.versions.iter().rposition(|version| version.epoch.is_some());
            let Some(acked) = acked else { continue };
            let epoch = key.versions[acked].epoch.expect("looked for");
            let is_right = |node: usize| {
                let seen = found[node].get(series).and_then(|run| run.get(at_ms));
                let mut allowed = key.versions[acked..].iter();
                seen.is_some_and(|seen| allowed.any(|version| version.bits == *seen))
            };
            let is_kept = match ack {
                AckPolicy::All => owners(epoch, *series).into_iter().all(is_right),
                AckPolicy::One => (0..found.len()).any(is_right),
            };
            assert!(
                is_kept,
                "{what}: series {series} at {at_ms}, acknowledged under epoch {epoch} at its \
                 value {acked} of {:?}; owners {:?}; nodes have {:?}",
                key.versions.iter().map(|one| f64::from_bits(one.bits)).collect::<Vec<_>>(),
                owners(epoch, *series),
                found
                    .iter()
                    .map(|found| found.get(series).and_then(|run| run.get(at_ms)))
                    .map(|seen| seen.copied().map(f64::from_bits))
                    .collect::<Vec<_>>(),
            );
        }
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
