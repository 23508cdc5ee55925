//! Slot -> owners: the contest of a group's nodes for each slot.
//!
//! In: a checked document. Out: up to three node indices per slot, the best draw first, 32 KiB per
//! replica and group. O(slots x nodes).
//! The owners are the best node of each zone, best first; where zones are fewer than owners, then
//! the best of the rest. A node without a zone is a zone of its own. So a node that comes takes its
//! slots from others and changes nothing else, and one that leaves only leaves its slots.

use super::document::{PlacedNode, PlacementDocument};
use super::fault::DocumentFault;
use super::reach::{Reach, SlotReach};
use super::rendezvous::{Divisor, Draws};
use super::router::{GroupIndex, Place, Router};
use crate::model::matcher::Matcher;
use crate::model::placement::REPLICATION_MAX;
use crate::model::series::{SLOT_COUNT, SeriesHash, Slot, TenantId};

const OWNERS_MAX: usize = REPLICATION_MAX as usize;

/// A document made ready: where each series goes, and whom a query has to ask.
#[derive(Debug)]
pub struct Placement {
    document: PlacementDocument,
    router: Router,
    /// By [`GroupIndex`].
    tables: Vec<SlotTable>,
}

/// The owners of the slots of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotTable {
    replication: usize,
    /// `replication` indices into the document's nodes for each slot.
    owners: Box<[u16]>,
}

impl Placement {
    /// Checks the document and computes its tables.
    pub fn new(document: PlacementDocument) -> Result<Self, DocumentFault> {
        document.check()?;
        let router = Router::new(&document)?;
        let groups = router.groups().iter();
        let tables = groups.map(|group| Contest::new(&document, group.as_deref()).table());
        Ok(Self { tables: tables.collect(), router, document })
    }

    /// What it was made of. Owners are indices into its nodes.
    pub fn document(&self) -> &PlacementDocument {
        &self.document
    }

    /// Names the place of a series.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The owners of a series; see [`Router::place`].
    #[inline]
    pub fn owners_of(&self, tenant: TenantId, hash: SeriesHash, canonical: &[u8]) -> &[u16] {
        self.owners(self.router.place(tenant, hash, canonical))
    }

    /// The owners of a place, the best draw first.
    #[inline]
    pub fn owners(&self, place: Place) -> &[u16] {
        self.table(place.group).owners(place.slot)
    }

    /// The table of a group.
    #[inline]
    pub fn table(&self, group: GroupIndex) -> &SlotTable {
        &self.tables[usize::from(group.0)]
    }

    /// Where series that match may be; see `reach.rs`.
    pub fn reach(&self, tenant: TenantId, matchers: &[Matcher]) -> Reach {
        self.router.reach(tenant, matchers)
    }

    /// All owners of what a query reaches: ascending indices. Each slot reached has all of its
    /// owners among them.
    pub fn nodes_reached(&self, reach: &Reach) -> Vec<u16> {
        let mut is_reached = vec![false; self.document.nodes.len()];
        for &group in &reach.groups {
            let table = self.table(group);
            let owners: &mut dyn Iterator<Item = &u16> = match &reach.slots {
                SlotReach::All => &mut table.owners.iter(),
                SlotReach::These(slots) => &mut slots.iter().flat_map(|slot| table.owners(*slot)),
            };
            for &owner in owners {
                is_reached[usize::from(owner)] = true;
            }
        }
        (0..).zip(is_reached).filter(|(_, is_reached)| *is_reached).map(|(node, _)| node).collect()
    }
}

impl SlotTable {
    /// Indices into the document's nodes, all different, the best draw first.
    #[inline]
    pub fn owners(&self, slot: Slot) -> &[u16] {
        let start = usize::from(slot.0) * self.replication;
        &self.owners[start..start + self.replication]
    }

    /// How many slots each node of the document owns, by its index.
    pub fn slots_owned(&self, node_count: usize) -> Vec<u32> {
        let mut counts = vec![0; node_count];
        for &owner in &self.owners {
            counts[usize::from(owner)] += 1;
        }
        counts
    }
}

/// The nodes of one group, ready to draw. Members are numbered in order of their ids.
pub(super) struct Contest {
    pub(super) members: Vec<Member>,
    zone_count: usize,
    pub(super) replication: usize,
}

pub(super) struct Member {
    /// Its index in the document.
    pub(super) node: u16,
    pub(super) weight: u32,
    pub(super) pull: u32,
    /// Of `pull`.
    divisor: Divisor,
    pub(super) draws: Draws,
    pub(super) zone: u16,
}

/// A key and the member that has it; the least is the best.
type Entry = (u64, u16);

/// What a member has to beat to own a slot, and the owner it would put out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hurdle {
    pub(super) key: u64,
    pub(super) member: u16,
}

/// The best few entries, ascending.
#[derive(Clone, Copy, Debug)]
struct Best {
    entries: [Entry; OWNERS_MAX],
    len: usize,
    len_max: usize,
}

impl Contest {
    /// Of a checked document.
    pub(super) fn new(document: &PlacementDocument, group: Option<&str>) -> Self {
        let mut zones: Vec<&str> = Vec::new();
        let mut members = Vec::new();
        for (node, placed) in (0..).zip(&document.nodes) {
            if placed.group.as_deref() != group {
                continue;
            }
            let number = zone_number(placed, members.len(), &mut zones);
            members.push(Member {
                node,
                weight: placed.weight,
                pull: placed.pull,
                divisor: Divisor::new(placed.pull),
                draws: Draws::of(placed),
                zone: u16::try_from(number).expect("as many as nodes at most"),
            });
        }
        let zone_count = if zones.is_empty() { members.len() } else { zones.len() };
        Self { members, zone_count, replication: document.replication.into() }
    }

    pub(super) fn zone_count(&self) -> usize {
        self.zone_count
    }

    fn table(&self) -> SlotTable {
        let mut owners = Vec::with_capacity(usize::from(SLOT_COUNT) * self.replication);
        let mut keys = Vec::new();
        for slot in (0..SLOT_COUNT).map(Slot) {
            self.draw(slot, &mut keys);
            let member_of = |&(_, member): &Entry| self.members[usize::from(member)].node;
            let (best, fill) = self.winners(&keys);
            owners.extend(best.as_slice().iter().map(member_of));
            owners.extend(fill.as_slice().iter().map(member_of));
        }
        SlotTable { replication: self.replication, owners: owners.into() }
    }

    /// The slots of each member.
    pub(super) fn loads(&self) -> Vec<u32> {
        let mut loads = vec![0; self.members.len()];
        let mut keys = Vec::new();
        for slot in (0..SLOT_COUNT).map(Slot) {
            self.draw(slot, &mut keys);
            self.count_owners(&keys, &mut loads);
        }
        loads
    }

    /// Counts one slot more for each member that owns it with these keys.
    pub(super) fn count_owners(&self, keys: &[u64], loads: &mut [u32]) {
        let (best, fill) = self.winners(keys);
        for &(_, member) in best.as_slice().iter().chain(fill.as_slice()) {
            loads[usize::from(member)] += 1;
        }
    }

    /// The keys of all members for `slot`.
    pub(super) fn draw(&self, slot: Slot, keys: &mut Vec<u64>) {
        keys.clear();
        keys.extend(self.members.iter().map(|each| each.divisor.key(each.draws.exponent(slot))));
    }

    /// The owners: the best of the best zones, and what fills up where zones are few.
    fn winners(&self, keys: &[u64]) -> (Best, Best) {
        let best = self.best_of_zones(keys, None);
        let mut fill = Best::new(self.replication - best.len);
        if fill.len_max > 0 {
            for entry in (0..).zip(keys).map(|(member, &key)| (key, member)) {
                if !best.as_slice().contains(&entry) {
                    fill.offer(entry);
                }
            }
        }
        (best, fill)
    }

    fn best_of_zones(&self, keys: &[u64], but_zone: Option<u16>) -> Best {
        let mut best = Best::new(self.replication);
        let zone_of = |(_, member): Entry| self.members[usize::from(member)].zone;
        // Keys that are no better are most of them, and are passed over by one comparison: of equal
        // keys the first member's counts, and members come in order.
        let mut bar = None;
        for (member, &key) in (0..).zip(keys) {
            if bar.is_some_and(|bar| key >= bar) || Some(zone_of((key, member))) == but_zone {
                continue;
            }
            best.offer_one_per((key, member), zone_of);
            bar = best.last().filter(|_| best.len == best.len_max).map(|(key, _)| key);
        }
        best
    }

    /// What member `newcomer` has to beat; `None` if it owns the slot whatever it draws.
    pub(super) fn hurdle(&self, keys: &[u64], newcomer: u16) -> Option<Hurdle> {
        let zone = self.members[usize::from(newcomer)].zone;
        let mut own_zone = Best::new(1);
        for (member, (&key, each)) in (0..).zip(keys.iter().zip(&self.members)) {
            if each.zone == zone && member != newcomer {
                own_zone.offer((key, member));
            }
        }
        let others = self.best_of_zones(keys, Some(zone));
        let entry = if others.len == self.replication {
            // Better than the others of its zone is not enough: one zone more than owners.
            own_zone.last().into_iter().chain(others.last()).min()
        } else {
            // All zones own the slot. The best of its own, or among those that fill up.
            let mut fill = Best::new(self.replication - others.len - 1);
            for entry in (0..).zip(keys).map(|(member, &key)| (key, member)) {
                let is_set = others.as_slice().contains(&entry) || own_zone.last() == Some(entry);
                if entry.1 != newcomer && !is_set {
                    fill.offer(entry);
                }
            }
            let has_room = fill.len < fill.len_max;
            let last = if has_room { None } else { own_zone.last() };
            last.map(|last| fill.last().map_or(last, |filler| filler.max(last)))
        };
        entry.map(|(key, member)| Hurdle { key, member })
    }
}

/// The number of the node's zone: in order of appearance, or, without zones, of its own.
fn zone_number<'a>(node: &'a PlacedNode, member: usize, zones: &mut Vec<&'a str>) -> usize {
    let Some(zone) = node.zone.as_deref() else { return member };
    zones.iter().position(|known| *known == zone).unwrap_or_else(|| {
        zones.push(zone);
        zones.len() - 1
    })
}

impl Member {
    /// Draws with another weight from now on.
    pub(super) fn set_pull(&mut self, pull: u32) {
        self.pull = pull;
        self.divisor = Divisor::new(pull);
    }
}

impl Best {
    fn new(len_max: usize) -> Self {
        Self { entries: [(u64::MAX, u16::MAX); OWNERS_MAX], len: 0, len_max }
    }

    fn as_slice(&self) -> &[Entry] {
        &self.entries[..self.len]
    }

    fn last(&self) -> Option<Entry> {
        self.as_slice().last().copied()
    }

    #[inline]
    fn would_take(&self, entry: Entry) -> bool {
        self.len < self.len_max || self.last().is_some_and(|last| entry < last)
    }

    fn offer(&mut self, entry: Entry) {
        self.offer_one_per(entry, |(_, member)| member);
    }

    /// Takes `entry` if it is good enough, in place of the one that is `alike`, if there is one.
    fn offer_one_per(&mut self, entry: Entry, alike: impl Fn(Entry) -> u16) {
        if !self.would_take(entry) {
            return;
        }
        let rival = self.as_slice().iter().position(|each| alike(*each) == alike(entry));
        let mut place = match rival {
            Some(place) if self.entries[place] < entry => return,
            Some(place) => place,
            None if self.len < self.len_max => {
                self.len += 1;
                self.len - 1
            }
            None => self.len - 1,
        };
        // It is better than what was there, so it can only have to go up.
        while place > 0 && entry < self.entries[place - 1] {
            self.entries[place] = self.entries[place - 1];
            place -= 1;
        }
        self.entries[place] = entry;
    }
}
