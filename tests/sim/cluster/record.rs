//! What clients sent and what they were told, kept in the plainest way, and what nodes must hold
//! because of it.
//!
//! A series has one client. It gives a sample another value only if every attempt to write the last
//! one was answered, by one gateway: what got no answer may still be under way, and arrive late.
//! Hints of an older value are under way for long: they must do no harm to what the same gateway
//! took in since. Two gateways know nothing of each other's hints.

use std::collections::{BTreeMap, BTreeSet};

use tidegate::gateway::owner::AckPolicy;
use tidegate::model::placement::NodeId;

use super::keeper::HintKey;
use super::plan::{NODES_MAX, Plan, index_of};
use crate::oracle::Found;
use crate::series::Pool;

/// A value of a sample.
struct Version {
    bits: u64,
    /// Under which epoch it was acknowledged, and by which gateway.
    acked: Option<(u64, usize)>,
    /// The how manieth that was.
    number: u64,
    /// Whether what was sent before it may still be under way, and come behind it.
    is_doubtful: bool,
}

/// Who must have been told of damage, because something is missing that only it excuses.
#[derive(Debug, Default)]
pub struct Excused {
    /// And one such sample.
    pub nodes: BTreeMap<usize, HintKey>,
    pub hints: bool,
}

/// A gateway was to keep a value.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hinted {
    gateway: usize,
    bits: u64,
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
    /// Node and sample: a bit flipped in the file of its hint, or may have.
    damaged_hints: BTreeSet<(usize, HintKey)>,
    /// By node: how many samples were acknowledged when a bit flipped there.
    damaged: BTreeMap<usize, u64>,
    /// Node and sample: the values of which there were hints, or may have been, and where.
    hinted: BTreeMap<(usize, HintKey), Vec<Hinted>>,
    next_value: u64,
    /// Samples that were acknowledged.
    pub acknowledged: u64,
    /// Of those, the ones that had an earlier value.
    pub rewritten: u64,
}

impl Key {
    /// The oldest value that may be read once the one at `acked` was acknowledged: what was sent
    /// just before it, without waiting for the answer, may be late unless all is answered; and its
    /// hints may become durable behind those of the later value.
    fn first_allowed(&self, acked: usize, is_hinted: bool) -> usize {
        let has_before = acked > 0 && self.versions[acked - 1].acked.is_none();
        acked - usize::from(has_before && (is_hinted || self.versions[acked].is_doubtful))
    }
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
        key.versions.push(Version { bits, acked: None, number: 0, is_doubtful: false });
        key.is_settled = false;
    }

    /// Its newest value was acknowledged under an epoch by a gateway; `is_certain`: no other
    /// attempt is under way.
    pub fn acknowledge(&mut self, at: HintKey, (epoch, gateway): (u64, usize), is_certain: bool) {
        let key = self.keys.get_mut(&at).expect("it was sent");
        key.is_settled = is_certain;
        self.acknowledged += 1;
        self.rewritten += u64::from(key.versions.len() > 1);
        let version = key.versions.last_mut().expect("it was sent");
        (version.acked, version.number) = (Some((epoch, gateway)), self.acknowledged);
        version.is_doubtful = !is_certain;
    }

    /// Hints are gone with the disk that they were on.
    pub fn lose_hints(&mut self, held: BTreeMap<NodeId, BTreeSet<HintKey>>) {
        for (node, keys) in held {
            self.lost_hints.extend(keys.into_iter().map(|key| (index_of(node), key)));
        }
    }

    /// A bit flipped at a node.
    pub fn note_damage(&mut self, node: usize) {
        self.damaged.insert(node, self.acknowledged);
    }

    /// A bit flipped in what holds these hints for a node.
    pub fn note_hints_damage(&mut self, node: usize, keys: BTreeSet<HintKey>) {
        self.damaged_hints.extend(keys.into_iter().map(|key| (node, key)));
    }

    /// A gateway is to keep a value for a node.
    pub fn note_hint(&mut self, node: usize, key: HintKey, (gateway, bits): (usize, u64)) {
        let hinted = self.hinted.entry((node, key)).or_default();
        let one = Hinted { gateway, bits };
        if !hinted.contains(&one) {
            hinted.push(one);
        }
    }

    /// Whether a sample was ever to be kept for a node.
    pub fn is_hinted(&self, node: usize, key: HintKey) -> bool {
        self.hinted.contains_key(&(node, key))
    }

    /// Samples of which there ever were hints, by node, and of those the ones whose hints are gone.
    pub fn hint_counts(&self) -> (usize, usize) {
        (self.hinted.len(), self.lost_hints.len())
    }

    /// Asserts that what each node holds is right.
    pub fn check(
        &self,
        found: &[Found],
        (ack, plan, pool): (AckPolicy, &Plan, &Pool),
        what: &str,
    ) -> Excused {
        let mut excused = Excused::default();
        for (at, key) in &self.keys {
            let acked = key.versions.iter().rposition(|version| version.acked.is_some());
            let Some(acked) = acked else { continue };
            let (epoch, _) = key.versions[acked].acked.expect("looked for");
            let owners = plan.owners(epoch, pool, at.0);
            let is_hinted = (0..found.len()).any(|node| self.is_hinted(node, *at));
            let first = key.first_allowed(acked, is_hinted);
            let seen = |node: usize| found[node].get(&at.0)?.get(&at.1).copied();
            let has_it = |node: usize| {
                let mut allowed = key.versions[first..].iter();
                seen(node).is_some_and(|seen| allowed.any(|version| version.bits == seen))
            };
            // Also for a node that left, whose hints went to others.
            let is_lost = (0..NODES_MAX).any(|node| self.lost_hints.contains(&(node, *at)));
            // An older hint undid it: another gateway's, or that which was to follow is gone with
            // its disk.
            let is_undone = |node: usize| {
                seen(node).is_some_and(|seen| {
                    self.is_anothers_hint(*at, key, seen)
                        || is_lost && self.hints_of(*at).any(|hint| hint.bits == seen)
                })
            };
            let is_there = |node: usize| has_it(node) || is_undone(node);
            let number = key.versions[acked].number;
            let mut is_right = |node: usize| {
                let place = (node, *at);
                is_there(node)
                    || self.lost_hints.contains(&place)
                    || self.went_elsewhere(place, epoch, (plan, pool), is_there)
                    || self.is_damaged(place, number, &mut excused)
            };
            let is_kept = match ack {
                AckPolicy::All => {
                    owners.iter().any(|node| is_there(*node))
                        && owners.iter().all(|node| is_right(*node))
                }
                AckPolicy::One => (0..found.len()).any(has_it),
            };
            if !is_kept {
                let seen: Vec<_> =
                    (0..found.len()).map(|node| seen(node).map(f64::from_bits)).collect();
                self.fail((at, key, acked), &(owners, seen), what);
            }
        }
        self.check_nothing_invented(found, what);
        excused
    }

    /// Whether a flipped bit may be why a node lacks a sample.
    fn is_damaged(&self, place: (usize, HintKey), number: u64, excused: &mut Excused) -> bool {
        if self.damaged.get(&place.0).is_some_and(|until| number <= *until) {
            excused.nodes.insert(place.0, place.1);
            return true;
        }
        let is_hint = self.damaged_hints.contains(&place);
        excused.hints |= is_hint;
        is_hint
    }

    fn fail(
        &self,
        (at, key, acked): (&HintKey, &Key, usize),
        (owners, seen): &(Vec<usize>, Vec<Option<f64>>),
        what: &str,
    ) -> ! {
        let versions = key.versions.iter().map(|one| (f64::from_bits(one.bits), one.acked));
        let hinted =
            self.hinted.iter().filter(|((_, key), _)| key == at).map(|((node, _), all)| {
                let all = all.iter().map(|one| (one.gateway, f64::from_bits(one.bits)));
                (node, all.collect::<Vec<_>>())
            });
        panic!(
            "{what}: series {} at {}: value {acked} of {:?} (with epoch and gateway) was \
             acknowledged; owners {owners:?}; nodes have {seen:?}; hinted for (by gateway): {:?}",
            at.0,
            at.1,
            versions.collect::<Vec<_>>(),
            hinted.collect::<Vec<_>>(),
        );
    }

    /// Whether a node has an older value of a sample because another gateway than those that
    /// acknowledged the newer ones held a hint; also one for a node that left meanwhile.
    fn is_anothers_hint(&self, at: HintKey, key: &Key, seen: u64) -> bool {
        let Some(old) = key.versions.iter().position(|version| version.bits == seen) else {
            return false;
        };
        let newer = &key.versions[old + 1..];
        self.hints_of(at).filter(|one| one.bits == seen).any(|one| {
            !newer.iter().any(|version| version.acked.is_some_and(|(_, by)| by == one.gateway))
        })
    }

    /// Hints of a sample for any node, also one that left meanwhile.
    fn hints_of(&self, at: HintKey) -> impl Iterator<Item = &Hinted> {
        let places = (0..NODES_MAX).map(move |node| (node, at));
        places.filter_map(|place| self.hinted.get(&place)).flatten()
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
        self.hinted.contains_key(&(node, key))
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
