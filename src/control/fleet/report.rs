//! What the cluster API answers, as values: what a gateway writes and the command line reads. JSON;
//! fields are only ever added.

use serde::{Deserialize, Serialize};

use super::follower::FleetView;
use super::peers::Peers;
use crate::model::placement::{
    EPOCHS_MAX, Evenness, GroupIndex, NodeId, Placement, PlacementDocument, Plan, Strategy, plan,
};

/// How the fleet is, as one gateway sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The newest epoch; 0: the fleet is not founded.
    pub epoch: u64,
    /// The epoch that samples follow now; a newer one has not started yet.
    pub epoch_in_force: u64,
    /// When the newest starts, Unix milliseconds.
    pub start_ms: i64,
    /// Owners of each slot.
    pub replication: u8,
    /// `hash`, `shard_by`, `tags`.
    pub strategy: String,
    /// With `tags`: the rules, in the order in which they are asked.
    #[serde(default)]
    pub rules: Vec<String>,
    /// How even it is; of each group.
    pub groups: Vec<GroupReport>,
    /// Its nodes, ascending by id.
    pub nodes: Vec<NodeReport>,
    /// Nodes that were met and belong to no fleet, or did once.
    pub others: Vec<NodeReport>,
    /// Addresses at which nobody answers.
    pub silent: Vec<SilentReport>,
    /// Epochs that this gateway knows, and how many it can.
    pub epochs_known: usize,
    /// See `epochs_known`.
    pub epochs_max: usize,
    /// What is wrong, for people.
    pub faults: Vec<String>,
    /// The document.
    pub document: Option<serde_json::Value>,
}

/// Nodes that share series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// `null`: those without a group.
    pub group: Option<String>,
    /// Standard deviation of slots over their mean, against what zones allow.
    pub deviation: f64,
    /// The fullest node over the mean, against the same.
    pub maximum: f64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// 32 hex digits.
    pub id: String,
    /// Of its first link port.
    pub address: String,
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// Its group, if it has one.
    pub group: Option<String>,
    /// Beside the others.
    pub weight: u32,
    /// How many it has.
    pub shards: u32,
    /// Slots that it owns.
    pub slots: u32,
    /// Slots that it should own.
    pub slots_fair: f64,
    /// Whether it answers this gateway.
    pub is_reachable: bool,
    /// The newest epoch that it follows, if it answers.
    pub epoch: Option<u64>,
    /// What it says is wrong, or the way to it.
    pub fault: Option<String>,
}

/// An address without a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SilentReport {
    /// As it is dialled.
    pub address: String,
    /// Why nobody is there.
    pub fault: Option<String>,
}

/// What a change would come to, or came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// The epoch that it begins with.
    pub epoch_before: u64,
    /// The epoch that it makes; the same if nothing changes.
    pub epoch_after: u64,
    /// When that starts, Unix milliseconds; of a plan: about.
    pub start_ms: i64,
    /// Whether it was done.
    pub is_done: bool,
    /// Whether series find their slots in another way: most of them move, whatever the slots say.
    pub is_resharded: bool,
    /// Per group.
    pub groups: Vec<GroupPlanReport>,
}

/// A change within a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPlanReport {
    /// `null`: the nodes without a group.
    pub group: Option<String>,
    /// Nodes of either side, ascending by id.
    pub nodes: Vec<NodePlanReport>,
    /// Standard deviation of slots over their mean; `null` if there was no such group.
    pub deviation_before: Option<f64>,
    /// And after.
    pub deviation_after: Option<f64>,
    /// Pairs of slot and owner.
    pub slots_owned: u32,
    /// Those with another owner than before. New samples go there; nothing is copied.
    pub slots_moved: u32,
    /// How many had to move.
    pub slots_moved_fair: f64,
}

/// A node in a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodePlanReport {
    /// 32 hex digits.
    pub id: String,
    /// Of its first link port.
    pub address: String,
    /// Slots before; 0 if it was not there.
    pub slots_before: u32,
    /// Slots after; 0 if it is gone.
    pub slots_after: u32,
    /// What it should own after.
    pub slots_fair: f64,
    /// Slots that come.
    pub slots_gained: u32,
    /// Slots that go.
    pub slots_lost: u32,
}

/// How the fleet is.
pub(super) fn status(
    (newest, view): (Option<&Placement>, &FleetView),
    peers: &Peers,
    faults: Vec<String>,
) -> StatusReport {
    let document = newest.map(Placement::document);
    let is_placed = |id: NodeId| document.is_some_and(|document| document.find(id).is_some());
    let silent = peers.by_address.iter().filter(|(_, peer)| peer.met.is_none());
    let silent = silent.map(|(address, peer)| SilentReport {
        address: address.to_string(),
        fault: peer.fault.clone(),
    });
    let others = peers.present().filter(|(_, _, met)| !is_placed(met.node));
    let others = others.map(|(address, peer, met)| NodeReport {
        id: met.node.to_string(),
        address: address.to_string(),
        zone: peer.zone.clone(),
        group: peer.group.clone(),
        weight: 0,
        shards: u32::try_from(met.shards.len()).unwrap_or(u32::MAX),
        slots: 0,
        slots_fair: 0.0,
        is_reachable: true,
        epoch: peer.newest_epoch,
        fault: peer.fault.clone(),
    });
    let in_force = view.fleet.as_ref().map_or(0, |fleet| fleet.placement.document().epoch);
    StatusReport {
        epoch: document.map_or(0, |document| document.epoch),
        epoch_in_force: in_force,
        start_ms: document.map_or(0, |document| document.start_ms),
        replication: document.map_or(0, |document| document.replication),
        strategy: document.map_or(String::new(), |document| strategy(&document.strategy)),
        rules: document.map_or(Vec::new(), |document| {
            document.strategy.rules().iter().map(ToString::to_string).collect()
        }),
        groups: newest.map_or(Vec::new(), groups),
        nodes: newest.map_or(Vec::new(), |newest| nodes(newest, peers)),
        others: others.collect(),
        silent: silent.collect(),
        epochs_known: view.history.count(),
        epochs_max: EPOCHS_MAX,
        faults,
        document: document.and_then(|document| serde_json::from_str(&document.encode()).ok()),
    }
}

fn strategy(strategy: &Strategy) -> String {
    match strategy {
        Strategy::Hash {} => "hash".into(),
        Strategy::ShardBy { labels } => format!("shard_by {}", labels.join(", ")),
        Strategy::Tags { rules, within } => {
            let count = rules.len();
            let rules = format!("tags, {count} rule{}", if count == 1 { "" } else { "s" });
            match within.labels() {
                None => rules,
                Some(labels) => format!("{rules}, shard_by {}", labels.join(", ")),
            }
        }
    }
}

fn groups(placement: &Placement) -> Vec<GroupReport> {
    let named = placement.router().groups().iter().enumerate();
    let report = |(index, group): (usize, &Option<String>)| {
        let index = GroupIndex(u16::try_from(index).ok()?);
        let Evenness { deviation, maximum, .. } = placement.evenness(index);
        Some(GroupReport { group: group.clone(), deviation, maximum })
    };
    named.filter_map(report).collect()
}

fn nodes(placement: &Placement, peers: &Peers) -> Vec<NodeReport> {
    // Compared with itself it tells what each node owns, and should.
    let owned = plan(placement, placement);
    let changes: Vec<_> = owned.groups.iter().flat_map(|group| &group.nodes).collect();
    let report = |node: &crate::model::placement::PlacedNode| {
        let address = peers.address_of(node.id);
        let peer = address.and_then(|address| peers.by_address.get(&address));
        let change = changes.iter().find(|change| change.id == node.id);
        let at_link = node.link.parse().ok().and_then(|link| peers.by_address.get(&link));
        NodeReport {
            id: node.id.to_string(),
            address: address.map_or_else(|| node.link.clone(), |address| address.to_string()),
            zone: node.zone.clone(),
            group: node.group.clone(),
            weight: node.weight,
            shards: node.shards,
            slots: change.map_or(0, |change| change.slots_after),
            slots_fair: change.map_or(0.0, |change| change.fair_after),
            is_reachable: peer.is_some(),
            epoch: peer.and_then(|peer| peer.newest_epoch),
            fault: peer.or(at_link).and_then(|peer| peer.fault.clone()),
        }
    };
    placement.document().nodes.iter().map(report).collect()
}

/// What the step from one placement to the next comes to.
pub(super) fn plan_report(before: &Placement, after: &Placement, is_done: bool) -> PlanReport {
    let Plan { is_resharded, groups } = plan(before, after);
    let (old, new) = (before.document(), after.document());
    let link_of = |id| {
        let find = |document: &PlacementDocument| {
            document.find(id).map(|index| document.nodes[index].link.clone())
        };
        find(new).or_else(|| find(old)).unwrap_or_default()
    };
    let groups = groups.into_iter().map(|group| GroupPlanReport {
        group: group.group,
        nodes: group
            .nodes
            .iter()
            .map(|node| NodePlanReport {
                id: node.id.to_string(),
                address: link_of(node.id),
                slots_before: node.slots_before,
                slots_after: node.slots_after,
                slots_fair: node.fair_after,
                slots_gained: node.slots_gained,
                slots_lost: node.slots_lost,
            })
            .collect(),
        deviation_before: group.even_before.map(|even| even.deviation),
        deviation_after: group.even_after.map(|even| even.deviation),
        slots_owned: group.slots_owned_after,
        slots_moved: group.slots_moved,
        slots_moved_fair: group.slots_moved_fair,
    });
    PlanReport {
        epoch_before: old.epoch,
        epoch_after: new.epoch,
        start_ms: new.start_ms,
        is_done,
        is_resharded,
        groups: groups.collect(),
    }
}
