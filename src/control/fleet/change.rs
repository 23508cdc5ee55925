//! What an operator wants to change -> the next document.
//!
//! In: the newest document, the wish, who was met. Out: the document that would follow, or what is
//! wrong with the wish. Nothing is done here: `follower` proposes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::peers::Peers;
use crate::model::placement::{
    DocumentFault, EPOCHS_MAX, NodeId, PlacedNode, PlacementDocument, Regrouping, Strategy,
};

/// Fewer digits of an id name no node.
const ID_DIGITS_MIN: usize = 4;
/// Stands for the address of a node that goes while another one takes it over; never written.
const LINK_OF_LOST: &str = "lost.invalid:1";

/// What is to be another way, all at once. A node is named by its id, by the first digits of it if
/// no other begins so, or by the address of its first link port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// Nodes that come, by address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Nodes that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Weights of nodes, also of those that come; 100 is usual.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, u32>,
    /// Owners of each slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<u8>,
    /// Placed anew, as even as can be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub even: bool,
    /// How series find their slots and groups, as in the placement document. With rules, nodes take
    /// the groups that they have by their own configuration; without, none has a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Groups of nodes, also of those that come, whatever they say themselves; empty: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, String>,
    /// The addresses of names in the fields above: ways to one node.
    #[serde(skip)]
    pub looked_up: BTreeMap<String, Vec<SocketAddr>>,
}

/// Why a wish cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeFault {
    /// No node is named so.
    UnknownNode {
        /// As it was written.
        name: String,
    },
    /// Several nodes are.
    Ambiguous {
        /// As it was written.
        name: String,
    },
    /// A node is to be added that nobody has met there.
    NotMet {
        /// Where.
        address: SocketAddr,
        /// What the way there says.
        fault: Option<String>,
    },
    /// So many epochs are within retention that gateways could not follow another one.
    TooManyEpochs,
    /// The document would be wrong.
    Document(DocumentFault),
}

impl From<DocumentFault> for ChangeFault {
    fn from(fault: DocumentFault) -> Self {
        Self::Document(fault)
    }
}

impl Change {
    /// Addresses that are to be dialled before it can be known what the change comes to.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.add.iter().flat_map(|name| self.addresses_of(name))
    }

    /// None: it is no address, and no name that was looked up.
    fn addresses_of(&self, name: &str) -> Vec<SocketAddr> {
        let looked_up = || self.looked_up.get(name).cloned().unwrap_or_default();
        name.parse::<SocketAddr>().map_or_else(|_| looked_up(), |address| vec![address])
    }

    /// The document that follows `base`, or `None` if nothing changes.
    pub(super) fn apply(
        &self,
        base: &PlacementDocument,
        peers: &Peers,
        start_ms: i64,
    ) -> Result<Option<PlacementDocument>, ChangeFault> {
        let start_ms = start_ms.max(base.start_ms);
        let mut next = base.clone();
        let remove = self.remove.iter().map(|name| self.find_node(name, base, peers));
        let remove: Vec<NodeId> = remove.collect::<Result<_, _>>()?;
        let is_regrouped = self.strategy.is_some() || !self.groups.is_empty();
        let mut comes: Vec<PlacedNode> = Vec::new();
        for name in &self.add {
            let node = self.node_to_add(name, base, peers)?;
            if next.find(node.id).is_some() || comes.iter().any(|each| each.id == node.id) {
                continue;
            }
            // A node that was lost is replaced by an empty one at the same address.
            let lost = next.nodes.iter().find(|each| each.link == node.link);
            if let Some((id, shards)) = lost.map(|lost| (lost.id, lost.shards))
                && remove.contains(&id)
            {
                next = next.with_link(start_ms, id, (LINK_OF_LOST, shards))?;
            }
            if is_regrouped {
                comes.push(node);
            } else {
                next = next.with_node(start_ms, node)?;
            }
        }
        if is_regrouped {
            let groups = self.groups_after(&next, &comes, peers)?;
            let strategy = self.strategy.clone();
            next = next.regrouped(start_ms, Regrouping { strategy, groups, nodes: comes })?;
        }
        let mut weights = Vec::new();
        for (name, weight) in &self.weights {
            let id = self.find_node(name, &next, peers)?;
            let is_new = next.find(id).is_some_and(|index| next.nodes[index].weight != *weight);
            if is_new {
                weights.push((id, *weight));
            } else if next.find(id).is_none() {
                return Err(ChangeFault::UnknownNode { name: name.clone() });
            }
        }
        if !weights.is_empty() {
            next = next.with_weights(start_ms, &weights)?;
        }
        for id in remove {
            // Whoever is gone already, and was there once, is no fault: somebody was faster.
            if next.find(id).is_some() {
                next = next.without_node(start_ms, id)?;
            }
        }
        if let Some(replication) = self.replication.filter(|wanted| *wanted != next.replication) {
            next = next.with_replication(start_ms, replication)?;
        }
        if self.even {
            next = next.evened(start_ms)?;
        }
        let what = |document: &PlacementDocument| (document.replication, document.strategy.clone());
        if next.nodes == base.nodes && what(&next) == what(base) {
            return Ok(None);
        }
        // Each step counted one up; together they are one.
        next.epoch = base.epoch + 1;
        Ok(Some(next))
    }

    /// The group of each node that has to have another one, or may.
    fn groups_after(
        &self,
        document: &PlacementDocument,
        comes: &[PlacedNode],
        peers: &Peers,
    ) -> Result<Vec<(NodeId, Option<String>)>, ChangeFault> {
        let mut groups = BTreeMap::new();
        if let Some(strategy) = &self.strategy {
            let own = |node: &PlacedNode| match peers.said_by(node.id) {
                _ if strategy.rules().is_empty() => None,
                Some(peer) => peer.group.clone(),
                None => node.group.clone(),
            };
            groups.extend(document.nodes.iter().chain(comes).map(|node| (node.id, own(node))));
        }
        for (name, group) in &self.groups {
            let id = self.find_node(name, document, peers)?;
            groups.insert(id, (!group.is_empty()).then(|| group.clone()));
        }
        let is_there =
            |id: NodeId| document.find(id).is_some() || comes.iter().any(|node| node.id == id);
        match groups.keys().find(|id| !is_there(**id)) {
            Some(id) => Err(ChangeFault::UnknownNode { name: id.to_string() }),
            None => Ok(groups.into_iter().collect()),
        }
    }

    fn node_to_add(
        &self,
        name: &str,
        base: &PlacementDocument,
        peers: &Peers,
    ) -> Result<PlacedNode, ChangeFault> {
        let mut addresses = self.addresses_of(name);
        if addresses.is_empty() {
            let id = self.find_node(name, base, peers)?;
            if let Some(index) = base.find(id) {
                return Ok(base.nodes[index].clone());
            }
            let unknown = || ChangeFault::UnknownNode { name: name.into() };
            addresses.push(peers.address_of(id).ok_or_else(unknown)?);
        }
        let met = addresses.iter().filter_map(|address| placed_node(peers, *address));
        let met: Vec<PlacedNode> = met.collect();
        let ids: BTreeSet<NodeId> = met.iter().map(|node| node.id).collect();
        if ids.len() > 1 {
            return Err(ChangeFault::Ambiguous { name: name.into() });
        }
        met.into_iter().next().ok_or_else(|| {
            let address = addresses[0];
            let fault = peers.by_address.get(&address).and_then(|peer| peer.fault.clone());
            ChangeFault::NotMet { address, fault }
        })
    }

    /// Who is meant, in the document or not.
    fn find_node(
        &self,
        name: &str,
        document: &PlacementDocument,
        peers: &Peers,
    ) -> Result<NodeId, ChangeFault> {
        if let Some(node) = document.nodes.iter().find(|node| node.link == name) {
            return Ok(node.id);
        }
        let addresses = self.addresses_of(name);
        if !addresses.is_empty() {
            let is_it = |link: &str| addresses.iter().any(|address| address.to_string() == link);
            let placed = document.nodes.iter().find(|node| is_it(&node.link)).map(|node| node.id);
            let met = || {
                let met = peers.last_met.values().find(|(met_at, _)| addresses.contains(met_at));
                met.map(|(_, met)| met.node)
            };
            let unknown = || ChangeFault::UnknownNode { name: name.into() };
            return placed.or_else(met).ok_or_else(unknown);
        }
        let known = document.nodes.iter().map(|node| node.id).chain(peers.last_met.keys().copied());
        let is_meant =
            |id: &NodeId| name.len() >= ID_DIGITS_MIN && id.to_string().starts_with(name);
        let meant: BTreeSet<NodeId> = known.filter(is_meant).collect();
        let mut meant = meant.into_iter();
        match (meant.next(), meant.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(ChangeFault::UnknownNode { name: name.into() }),
            _ => Err(ChangeFault::Ambiguous { name: name.into() }),
        }
    }
}

/// A node as it says itself that it is.
pub(super) fn placed_node(peers: &Peers, address: SocketAddr) -> Option<PlacedNode> {
    let peer = peers.by_address.get(&address)?;
    let met = peer.met.as_ref()?;
    // Without its answer its zone is not known.
    peer.newest_epoch?;
    let shards = u32::try_from(met.shards.len()).ok()?;
    let node = PlacedNode::new(met.node, &address.to_string(), shards);
    Some(PlacedNode { zone: peer.zone.clone(), group: peer.group.clone(), ..node })
}

impl std::fmt::Display for ChangeFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownNode { name } => write!(
                f,
                "no node {name:?}: `tidegate cluster status` lists ids and addresses; write an \
                 address as IP:PORT"
            ),
            Self::Ambiguous { name } => {
                write!(f, "several nodes are {name:?}: write more digits of the id, or one address")
            }
            Self::NotMet { address, fault } => {
                write!(f, "cannot add the node at {address}: ")?;
                match fault {
                    Some(fault) => write!(f, "{fault}"),
                    None => write!(f, "nobody answers there; is it the first link port?"),
                }
            }
            Self::TooManyEpochs => write!(
                f,
                "cannot change the fleet once more: {EPOCHS_MAX} epochs can be followed, and as \
                 many are within retention. Wait until the oldest is past it, or lower the \
                 retention"
            ),
            Self::Document(fault) => write!(f, "{fault}"),
        }
    }
}

impl std::error::Error for ChangeFault {}
