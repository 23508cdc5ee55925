//! Matchers -> where series that match can be, so that a query asks no more nodes than it must.
//!
//! In: a query's matchers. Out: groups and slots, a superset of the places of all series that
//! match. A label is pinned by `=`, and by `=~` with plain alternatives (`a|b`, as dashboards write
//! variables); all labels of `shard_by` pinned give slots, one for each combination of values.
//! Groups are left out when a pinned label rules them out.

use super::router::{GroupIndex, Router, Test, chain, chain_start, slot_of_chain};
use crate::model::matcher::{MatchOperator, Matcher, plain_alternatives};
use crate::model::series::{Slot, TenantId};

/// With more combinations of values than this a query goes to all: it would nearly anyhow.
pub const SLOTS_PINNED_MAX: usize = 64;

/// Where series that match can be: in these slots of these groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Ascending. None: no series can match.
    pub groups: Vec<GroupIndex>,
    /// In each of the groups.
    pub slots: SlotReach,
}

/// Which slots of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotReach {
    /// All: the matchers do not pin what decides.
    All,
    /// These, ascending.
    These(Vec<Slot>),
}

/// A label, and the only values it can have in a series that matches.
struct Pin<'a> {
    name: &'a str,
    values: Vec<String>,
}

/// What a rule does with the series of a query.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    None,
    Some,
    All,
}

impl Router {
    /// Where series of `tenant` can be that match all of `matchers`.
    pub fn reach(&self, tenant: TenantId, matchers: &[Matcher]) -> Reach {
        let pins = pins_of(matchers);
        if pins.iter().any(|pin| pin.values.is_empty()) {
            return Reach { groups: Vec::new(), slots: SlotReach::These(Vec::new()) };
        }
        Reach { groups: self.groups_reached(&pins), slots: self.slots_reached(tenant, &pins) }
    }

    fn groups_reached(&self, pins: &[Pin]) -> Vec<GroupIndex> {
        let mut groups = Vec::new();
        let mut is_rest_reached = true;
        for rule in &self.rules {
            let verdicts = || rule.tests.iter().map(|test| verdict(test, pins));
            if verdicts().any(|verdict| verdict == Verdict::None) {
                continue;
            }
            groups.push(rule.group);
            if verdicts().all(|verdict| verdict == Verdict::All) {
                is_rest_reached = false;
                break;
            }
        }
        if is_rest_reached {
            groups.push(GroupIndex(0));
        }
        groups.sort();
        groups.dedup();
        groups
    }

    fn slots_reached(&self, tenant: TenantId, pins: &[Pin]) -> SlotReach {
        let Some(names) = &self.labels else { return SlotReach::All };
        let mut hashes = vec![chain_start(tenant)];
        for name in names {
            let Some(pin) = pins.iter().find(|pin| *pin.name == **name) else {
                return SlotReach::All;
            };
            if hashes.len().saturating_mul(pin.values.len()) > SLOTS_PINNED_MAX {
                return SlotReach::All;
            }
            let with_each = |hash: &u64| {
                let hash = *hash;
                pin.values.iter().map(move |value| chain(hash, value.as_bytes()))
            };
            hashes = hashes.iter().flat_map(with_each).collect();
        }
        let mut slots: Vec<Slot> = hashes.into_iter().map(slot_of_chain).collect();
        slots.sort();
        slots.dedup();
        SlotReach::These(slots)
    }
}

/// Each pinned label once, with the values that all matchers of it allow.
fn pins_of(matchers: &[Matcher]) -> Vec<Pin<'_>> {
    let mut pins: Vec<Pin> = Vec::new();
    for matcher in matchers {
        let values = match matcher.operator {
            MatchOperator::Equal => vec![matcher.value.clone()],
            MatchOperator::Regex => match plain_alternatives(&matcher.value) {
                Some(values) => values,
                None => continue,
            },
            MatchOperator::NotEqual | MatchOperator::NotRegex => continue,
        };
        match pins.iter_mut().find(|pin| pin.name == matcher.name) {
            Some(pin) => pin.values.retain(|value| values.contains(value)),
            None => pins.push(Pin { name: &matcher.name, values }),
        }
    }
    for pin in &mut pins {
        pin.values.sort();
        pin.values.dedup();
    }
    pins
}

fn verdict(test: &Test, pins: &[Pin]) -> Verdict {
    let Some(pin) = pins.iter().find(|pin| *pin.name == *test.name) else { return Verdict::Some };
    let matching = pin.values.iter().filter(|value| test.matches(value.as_bytes())).count();
    match matching {
        0 => Verdict::None,
        count if count == pin.values.len() => Verdict::All,
        _ => Verdict::Some,
    }
}
