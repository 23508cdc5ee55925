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

    /// How many nodes hold a sample, at most.
    pub fn replication_max(&self, window: Window) -> u64 {
        let range = (window.start_ms, window.end_ms);
        let overlapping = self.history.overlapping(range, self.bounds);
        overlapping.map(|placement| u64::from(placement.document().replication)).max().unwrap_or(1)
    }
}

impl ReadPlan {
    /// How many slots are reached that no node of `answered` owns, over all placements; 0: the
    /// answer is complete. O(slots), to be asked when somebody is missing.
    pub fn slots_lost(&self, answered: &BTreeSet<NodeId>) -> u32 {
        self.parts.iter().map(|(placement, reach)| slots_lost(placement, reach, answered)).sum()
    }
}

fn slots_lost(placement: &Placement, reach: &Reach, answered: &BTreeSet<NodeId>) -> u32 {
    let nodes = &placement.document().nodes;
    let has_answered: Vec<bool> = nodes.iter().map(|node| answered.contains(&node.id)).collect();
    let is_lost = |group: GroupIndex, slot: Slot| {
        let owners = placement.table(group).owners(slot);
        !owners.iter().any(|owner| has_answered[usize::from(*owner)])
    };
    let mut lost = 0;
    for &group in &reach.groups {
        lost += match &reach.slots {
            SlotReach::All => (0..SLOT_COUNT).filter(|slot| is_lost(group, Slot(*slot))).count(),
            SlotReach::These(slots) => slots.iter().filter(|slot| is_lost(group, **slot)).count(),
        };
    }
    u32::try_from(lost).unwrap_or(u32::MAX)
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
        let of = |nodes: &[u128]| nodes.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let both = plan(&view, 0, 2000);
        assert_eq!(both.slots_lost(&of(&[1, 2, 3])), 0);
        assert_eq!(both.slots_lost(&of(&[1, 3])), 0);
        assert_eq!(both.slots_lost(&of(&[1, 2])), u32::from(SLOT_COUNT), "all of the second");
        let lost = both.slots_lost(&of(&[3]));
        assert!(lost > 0 && lost < u32::from(SLOT_COUNT), "those of 1 and 2: {lost}");
        assert_eq!(both.slots_lost(&of(&[])), 2 * u32::from(SLOT_COUNT));
        let pin = [Matcher::equal("instance", "a")];
        let pinned = view.plan(TenantId(0), &pin, Window { start_ms: 0, end_ms: 10 });
        assert_eq!(pinned.nodes.len(), 2);
        assert_eq!(pinned.slots_lost(&of(&[])), 1);
    }
}
