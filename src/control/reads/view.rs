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
