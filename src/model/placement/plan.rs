//! What a next document would change: numbers for `cluster plan`.
//!
//! In: two placements. Out: per group and node the slots before, after and by right; how even it
//! is, how much moves, and how much would have to. O(slots x owners + nodes). Not here: printing.

use super::document::{NodeId, PlacementDocument};
use super::share::shares;
use super::table::{Contest, Placement, SlotTable};
use crate::model::placement::router::GroupIndex;
use crate::model::series::{SLOT_COUNT, Slot};

/// The difference between two placements.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Series find their slots or groups in another way: whatever the slots say, most series move.
    pub is_resharded: bool,
    /// Groups of either, the one without a name first.
    pub groups: Vec<GroupPlan>,
}

/// The difference within a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupPlan {
    /// `None`: the nodes without a group.
    pub group: Option<String>,
    /// Nodes of either, ascending by id.
    pub nodes: Vec<NodeChange>,
    /// `None` if there was no such group.
    pub even_before: Option<Evenness>,
    /// `None` if there will be no such group.
    pub even_after: Option<Evenness>,
    /// Pairs of slot and owner after, of 16384 times the owners of a slot.
    pub slots_owned_after: u32,
    /// Those of them whose owner did not own the slot before.
    pub slots_moved: u32,
    /// How many would have to move, by the rights of before and after: a new node's share.
    pub slots_moved_fair: f64,
}

/// One node of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeChange {
    /// Which.
    pub id: NodeId,
    /// Slots that it owns before; 0 if it is not there.
    pub slots_before: u32,
    /// And after.
    pub slots_after: u32,
    /// Slots that it owns after and not before.
    pub slots_gained: u32,
    /// Slots that it owns before and not after.
    pub slots_lost: u32,
    /// What it should own before, by weight and as far as zones allow.
    pub fair_before: f64,
    /// And after.
    pub fair_after: f64,
}

/// How even nodes are: 0 and 1 are perfect. Of the ratio of owned slots to those by right, or to
/// the weight; the latter cannot be perfect where a zone or node is too large for the replication.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evenness {
    /// Standard deviation over mean, against the share that zones allow.
    pub deviation: f64,
    /// Maximum over mean, against the same.
    pub maximum: f64,
    /// Standard deviation over mean, against the weight alone.
    pub deviation_by_weight: f64,
    /// Maximum over mean, against the weight alone.
    pub maximum_by_weight: f64,
}

/// One side of a group.
struct Side<'a> {
    placement: &'a Placement,
    table: &'a SlotTable,
    /// By index in the document; 0 for those of other groups.
    owned: Vec<u32>,
    /// The same.
    fair: Vec<f64>,
    even: Evenness,
}

/// Compares `after` with `before`.
pub fn plan(before: &Placement, after: &Placement) -> Plan {
    let mut groups: Vec<Option<&str>> = Vec::new();
    for placement in [before, after] {
        groups.extend(placement.router().groups().iter().map(Option::as_deref));
    }
    groups.sort();
    groups.dedup();
    let (old, new) = (before.document(), after.document());
    Plan {
        is_resharded: old.strategy != new.strategy,
        groups: groups.into_iter().map(|group| plan_group(before, after, group)).collect(),
    }
}

impl Placement {
    /// How even the nodes of a group are.
    pub fn evenness(&self, group: GroupIndex) -> Evenness {
        Side::new(self, group).even
    }
}

fn plan_group(before: &Placement, after: &Placement, group: Option<&str>) -> GroupPlan {
    let side_of = |placement| Side::of_group(placement, group);
    let (old, new) = (side_of(before), side_of(after));
    let mut ids: Vec<NodeId> = Vec::new();
    for document in [before.document(), after.document()] {
        ids.extend(
            document.nodes.iter().filter(|node| node.group.as_deref() == group).map(|node| node.id),
        );
    }
    ids.sort();
    ids.dedup();
    let mut nodes: Vec<NodeChange> =
        ids.into_iter().map(|id| change_of(old.as_ref(), new.as_ref(), id)).collect();
    let mut slots_moved = 0;
    for slot in (0..SLOT_COUNT).map(Slot) {
        let owners_of = |side: &Option<Side>| side.as_ref().map_or(Vec::new(), |s| s.ids(slot));
        let (was, is) = (owners_of(&old), owners_of(&new));
        let mut count = |id: &NodeId, gained, lost| {
            let at = nodes.binary_search_by_key(id, |node| node.id);
            let node = &mut nodes[at.expect("an owner is of one of the documents")];
            node.slots_gained += gained;
            node.slots_lost += lost;
        };
        is.iter().filter(|id| !was.contains(id)).for_each(|id| {
            count(id, 1, 0);
            slots_moved += 1;
        });
        was.iter().filter(|id| !is.contains(id)).for_each(|id| count(id, 0, 1));
    }
    let fair = nodes.iter().map(|node| (node.fair_after - node.fair_before).max(0.0)).sum();
    GroupPlan {
        group: group.map(Into::into),
        slots_owned_after: nodes.iter().map(|node| node.slots_after).sum(),
        nodes,
        even_before: old.map(|side| side.even),
        even_after: new.map(|side| side.even),
        slots_moved,
        slots_moved_fair: fair,
    }
}

fn change_of(old: Option<&Side>, new: Option<&Side>, id: NodeId) -> NodeChange {
    let of = |side: Option<&Side>| {
        let Some(side) = side else { return (0, 0.0) };
        let index = side.document().find(id);
        index.map_or((0, 0.0), |index| (side.owned[index], side.fair[index]))
    };
    let ((slots_before, fair_before), (slots_after, fair_after)) = (of(old), of(new));
    NodeChange {
        id,
        slots_before,
        slots_after,
        slots_gained: 0,
        slots_lost: 0,
        fair_before,
        fair_after,
    }
}

impl<'a> Side<'a> {
    fn of_group(placement: &'a Placement, group: Option<&str>) -> Option<Self> {
        let index =
            placement.router().groups().iter().position(|known| known.as_deref() == group)?;
        Some(Self::new(placement, GroupIndex(u16::try_from(index).expect("few groups"))))
    }

    fn new(placement: &'a Placement, group: GroupIndex) -> Self {
        let document = placement.document();
        let name = placement.router().groups()[usize::from(group.0)].as_deref();
        let contest = Contest::new(document, name);
        let table = placement.table(group);
        let owned = table.slots_owned(document.nodes.len());
        let mut fair = vec![0.0; document.nodes.len()];
        let (mut by_share, mut by_weight) = (Vec::new(), Vec::new());
        for (member, share) in contest.members.iter().zip(shares(&contest)) {
            let node = usize::from(member.node);
            let slots = f64::from(owned[node]);
            fair[node] = share;
            by_share.push(slots / share);
            by_weight.push(slots / f64::from(member.weight));
        }
        let (deviation, maximum) = spread(&by_share);
        let (deviation_by_weight, maximum_by_weight) = spread(&by_weight);
        let even = Evenness { deviation, maximum, deviation_by_weight, maximum_by_weight };
        Self { placement, table, owned, fair, even }
    }

    fn document(&self) -> &'a PlacementDocument {
        self.placement.document()
    }

    fn ids(&self, slot: Slot) -> Vec<NodeId> {
        let nodes = &self.document().nodes;
        self.table.owners(slot).iter().map(|&index| nodes[usize::from(index)].id).collect()
    }
}

/// Standard deviation and maximum, both over the mean.
fn spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (square.sqrt() / mean, values.iter().copied().fold(0.0, f64::max) / mean)
}
