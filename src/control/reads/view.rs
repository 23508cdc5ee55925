//! The fleet as a query sees it, whom it has to ask, and what is lost when some do not answer.
//! Pure.
//!
//! In: placements, where the nodes are, a query's matchers and range. Out: nodes; and, of those
//! that answered, whether every slot that the query reaches has an owner among them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::matcher::Matcher;
use crate::model::placement::{
    GroupIndex, History, NodeId, Placement, Reach, SampleBounds, SlotReach,
};
use crate::model::series::{SLOT_COUNT, Slot, TenantId};
use crate::query::merge::Window;

/// The fleet. A new value for every change, shared by reference.
#[derive(Clone, Debug)]
pub struct ReadView {
    /// Where the nodes are that are known, in any order. A node of a placement that is not here is
    /// one that does not answer.
    pub nodes: Vec<ReadNode>,
    /// The placements.
    pub history: History,
    /// How far samples may be from their arrival.
    pub bounds: SampleBounds,
}

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadNode {
    /// Which.
    pub id: NodeId,
    /// How many shards it has, as it says itself.
    pub shard_count: u32,
    /// Its port for reads.
    pub address: SocketAddr,
}

/// Whom one group of matchers has to be asked of.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    /// Each placement that the range overlaps, and what of it is reached.
    parts: Vec<(Arc<Placement>, Reach)>,
    /// All owners of all of it.
    pub nodes: BTreeSet<NodeId>,
}

/// Who answered a question.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    /// All that did.
    pub all: BTreeSet<NodeId>,
    /// Those of them that have everything, as far as they know.
    pub whole: BTreeSet<NodeId>,
    /// Those of them that lost blocks: no other owner need have what was in them.
    pub damaged: BTreeSet<NodeId>,
}

/// What an answer lacks, over all placements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotsMissing {
    /// Slots of which no owner answered.
    pub lost: u32,
    /// Slots of which some did, all of them nodes that lack samples: one that did not answer may
    /// have them, or nobody.
    pub doubtful: u32,
}

impl ReadView {
    /// A fleet that nothing is known of.
    pub fn unknown(bounds: SampleBounds) -> Self {
        Self { nodes: Vec::new(), history: History::default(), bounds }
    }

    /// Whom to ask for series of `tenant` that match all of `matchers`.
    pub fn plan(&self, tenant: TenantId, matchers: &[Matcher], window: Window) -> ReadPlan {
        let range = (window.start_ms, window.end_ms);
        let overlapping = self.history.overlapping(range, self.bounds);
        let parts: Vec<_> = overlapping
            .map(|placement| (Arc::clone(placement), placement.reach(tenant, matchers)))
            .collect();
        let nodes = parts.iter().flat_map(|(placement, reach)| {
            let nodes = &placement.document().nodes;
            placement.nodes_reached(reach).into_iter().map(|index| nodes[usize::from(index)].id)
        });
        ReadPlan { nodes: nodes.collect(), parts }
    }

    /// Whether a placement that is followed now, or will be, has this node: samples may be on their
    /// way to it.
    pub fn is_in_any(&self, id: NodeId, now_ms: i64) -> bool {
        self.followed(now_ms).any(|placement| placement.document().find(id).is_some())
    }

    /// Whether each of them has it: what waits for it goes to nobody else. So it is while no
    /// placement is known.
    pub fn is_in_all(&self, id: NodeId, now_ms: i64) -> bool {
        self.followed(now_ms).all(|placement| placement.document().find(id).is_some())
    }

    fn followed(&self, now_ms: i64) -> impl Iterator<Item = &Arc<Placement>> {
        [self.history.current(now_ms), self.history.newest()].into_iter().flatten()
    }

    /// How many nodes hold a sample, at most.
    pub fn replication_max(&self, window: Window) -> u64 {
        let range = (window.start_ms, window.end_ms);
        let overlapping = self.history.overlapping(range, self.bounds);
        overlapping.map(|placement| u64::from(placement.document().replication)).max().unwrap_or(1)
    }
}

impl ReadPlan {
    /// What is lacking of the slots that are reached if only these nodes answered. Nothing is if
    /// all owners did, and none is damaged: a sample that one lacks another has. O(slots), to be
    /// asked when somebody is missing or damaged.
    pub fn slots_missing(&self, answered: &Answered) -> SlotsMissing {
        let mut missing = SlotsMissing::default();
        for (placement, reach) in &self.parts {
            add_missing(placement, reach, answered, &mut missing);
        }
        missing
    }
}

fn add_missing(
    placement: &Placement,
    reach: &Reach,
    answered: &Answered,
    missing: &mut SlotsMissing,
) {
    let nodes = &placement.document().nodes;
    let of = |set: &BTreeSet<NodeId>| -> Vec<bool> {
        nodes.iter().map(|node| set.contains(&node.id)).collect()
    };
    let (has_answered, is_whole) = (of(&answered.all), of(&answered.whole));
    let is_damaged = of(&answered.damaged);
    let mut add = |group: GroupIndex, slot: Slot| {
        let owners = placement.table(group).owners(slot);
        let count = owners.iter().filter(|owner| has_answered[usize::from(**owner)]).count();
        let has = |set: &[bool]| owners.iter().any(|owner| set[usize::from(*owner)]);
        let is_certain = has(&is_whole) || count == owners.len() && !has(&is_damaged);
        match count {
            0 => missing.lost += 1,
            _ if !is_certain => missing.doubtful += 1,
            _ => {}
        }
    };
    for &group in &reach.groups {
        match &reach.slots {
            SlotReach::All => (0..SLOT_COUNT).for_each(|slot| add(group, Slot(slot))),
            SlotReach::These(slots) => slots.iter().for_each(|slot| add(group, *slot)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::placement::{PlacedNode, PlacementDocument, Strategy};

    fn view(epochs: &[(i64, &[u128], u8)]) -> ReadView {
        let mut view = ReadView::unknown(SampleBounds { ahead_ms: 5, behind_ms: 10 });
        for (epoch, (start_ms, ids, replication)) in (1..).zip(epochs) {
            let nodes = ids.iter().map(|id| PlacedNode::new(NodeId(*id), &format!("n{id}:1"), 1));
            let document = PlacementDocument {
                epoch,
                start_ms: *start_ms,
                replication: *replication,
                strategy: Strategy::ShardBy { labels: vec!["instance".into()] },
                nodes: nodes.collect(),
            };
            let placement = Placement::new(document).expect("a good document");
            view.history.handle_placement(placement.into()).expect("in order");
        }
        view
    }

    fn plan(view: &ReadView, start_ms: i64, end_ms: i64) -> ReadPlan {
        view.plan(TenantId(0), &[], Window { start_ms, end_ms })
    }

    fn ids(nodes: &BTreeSet<NodeId>) -> Vec<u128> {
        nodes.iter().map(|node| node.0).collect()
    }

    #[test]
    fn all_epochs_that_can_hold_the_range_are_asked() {
        // Red if the bounds of a sample's distance from its arrival are left out.
        let view = view(&[(0, &[1, 2], 1), (1000, &[2, 3], 2)]);
        assert_eq!(ids(&plan(&view, 0, 989).nodes), [1, 2]);
        assert_eq!(ids(&plan(&view, 0, 990).nodes), [1, 2, 3]);
        assert_eq!(ids(&plan(&view, 1005, 2000).nodes), [1, 2, 3]);
        assert_eq!(ids(&plan(&view, 1006, 2000).nodes), [2, 3]);
        let window = |start_ms, end_ms| Window { start_ms, end_ms };
        assert_eq!(view.replication_max(window(0, 989)), 1);
        assert_eq!(view.replication_max(window(0, 990)), 2);
    }

    #[test]
    fn a_slot_is_lost_when_none_of_its_owners_answered() {
        // Red if one of several owners is not enough, if an epoch is forgotten, or if slots are
        // counted that were not asked for.
        let view = view(&[(0, &[1, 2, 3], 2), (1000, &[3], 1)]);
        let lost = |plan: &ReadPlan, nodes: &[u128]| {
            let missing = plan.slots_missing(&answered(nodes, nodes));
            assert_eq!(missing.doubtful, 0);
            missing.lost
        };
        let both = plan(&view, 0, 2000);
        assert_eq!(lost(&both, &[1, 2, 3]), 0);
        assert_eq!(lost(&both, &[1, 3]), 0);
        assert_eq!(lost(&both, &[1, 2]), u32::from(SLOT_COUNT), "all of the second");
        let some = lost(&both, &[3]);
        assert!(some > 0 && some < u32::from(SLOT_COUNT), "those of 1 and 2: {some}");
        assert_eq!(lost(&both, &[]), 2 * u32::from(SLOT_COUNT));
        let pin = [Matcher::equal("instance", "a")];
        let pinned = view.plan(TenantId(0), &pin, Window { start_ms: 0, end_ms: 10 });
        assert_eq!(pinned.nodes.len(), 2);
        assert_eq!(lost(&pinned, &[]), 1);
    }

    fn answered(all: &[u128], whole: &[u128]) -> Answered {
        let of = |nodes: &[u128]| nodes.iter().copied().map(NodeId).collect();
        Answered { all: of(all), whole: of(whole), ..Answered::default() }
    }

    #[test]
    fn a_slot_is_doubtful_when_who_answered_lacks_samples_and_another_owner_may_have_them() {
        // Red if what a node lacks is believed to be nowhere although all owners answered, if one
        // whole owner is not enough, or if an owner that lacks samples is as good as a whole one.
        let of = |replication| view(&[(0, &[1, 2, 3], replication)]);
        let missing = |replication, all: &[u128], whole: &[u128]| {
            let plan = plan(&of(replication), 0, 100);
            let SlotsMissing { lost, doubtful } = plan.slots_missing(&answered(all, whole));
            (lost, doubtful)
        };
        let all = u32::from(SLOT_COUNT);
        // One owner: nobody else could have it.
        assert_eq!(missing(1, &[1, 2, 3], &[]), (0, 0));
        assert_eq!(missing(3, &[1, 2, 3], &[]), (0, 0));
        assert_eq!(missing(3, &[1, 2], &[]), (0, all));
        assert_eq!(missing(3, &[1, 2], &[2]), (0, 0));
        // Two owners: those of 1 and 2, where 1 has answered alone.
        let (lost, doubtful) = missing(2, &[1, 3], &[3]);
        assert_eq!(lost, 0);
        assert!(doubtful > all / 4 && doubtful < all / 2, "{doubtful}");
        assert_eq!(missing(2, &[1, 3], &[1, 3]), (0, 0));
    }
}
