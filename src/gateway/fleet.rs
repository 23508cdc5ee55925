//! The fleet as the shards of a gateway see it: a placement, and where its nodes are. A new value
//! for every change, shared by reference. Not here: how it is found out (`control`).

use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::placement::{NodeId, Placement};
use crate::model::series::{SeriesHash, SeriesId};

/// Who owns what, and where they are.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// What samples that arrive now follow.
    pub placement: Arc<Placement>,
    /// One for each node of the placement's document, in its order.
    pub nodes: Vec<FleetNode>,
}

/// What the control plane tells a gateway shard.
#[derive(Debug)]
pub enum FleetMail {
    /// Follow this from now on.
    Fleet(Arc<Fleet>),
    /// Ids that a node gave to series of the shard, whoever asked for them.
    Ids(IdsPage),
}

/// Some ids of a node shard.
#[derive(Debug)]
pub struct IdsPage {
    /// The node.
    pub node: NodeId,
    /// Its shard.
    pub node_shard: u32,
    /// Whose ids they are ([`crate::wire::hello::id_space`]).
    pub id_space: u64,
    /// Them.
    pub ids: Vec<(SeriesHash, SeriesId)>,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetNode {
    /// Which.
    pub id: NodeId,
    /// The link port of each of its shards, in shard order, as the node itself says them. Empty
    /// while it was never heard: nobody knows how many shards it has.
    pub shards: Vec<SocketAddr>,
}
