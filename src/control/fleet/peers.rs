//! What is known of the nodes that this gateway talks to, by address and by id.
//!
//! In: who answered where, what it said. Out: where a node is. A node's address may change; its id
//! stays, and where it was met last is where it is. Bounded by the addresses that are dialled.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::base::time::Instant;
use crate::model::placement::NodeId;

/// Who answered at an address: what its `Welcome` said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// The node.
    pub node: NodeId,
    /// Of its ids.
    pub incarnation: u64,
    /// The link port of each of its shards.
    pub shards: Vec<SocketAddr>,
    /// Where it answers questions.
    pub read: SocketAddr,
}

/// An address that is dialled.
#[derive(Debug)]
pub(super) struct Peer {
    /// Who is there now; `None` while nobody answers.
    pub met: Option<Met>,
    /// Since when that is so.
    pub since: Instant,
    /// The highest epoch that it follows, once it said.
    pub newest_epoch: Option<u64>,
    /// Its zone, as it said.
    pub zone: Option<String>,
    /// Its group, as it said.
    pub group: Option<String>,
    /// From which epoch on it is to be read.
    pub read_from: u64,
    /// When it is to be asked next.
    pub ask_at: Instant,
    /// Whether it belongs to another fleet: it is told nothing of this one.
    pub is_foreign: bool,
    /// What it, or the way to it, says is wrong.
    pub fault: Option<String>,
}

impl Peer {
    pub fn new(now: Instant) -> Self {
        Self {
            met: None,
            since: now,
            newest_epoch: None,
            zone: None,
            group: None,
            read_from: 0,
            ask_at: now,
            is_foreign: false,
            fault: None,
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub by_address: BTreeMap<SocketAddr, Peer>,
    /// Where each node was met last, there now or not.
    pub last_met: BTreeMap<NodeId, (SocketAddr, Met)>,
}

impl Peers {
    /// Somebody answered.
    pub fn handle_met(&mut self, now: Instant, address: SocketAddr, met: Met) {
        let Some(peer) = self.by_address.get_mut(&address) else { return };
        *peer = Peer { met: Some(met.clone()), ..Peer::new(now) };
        self.last_met.insert(met.node, (address, met));
    }

    /// Nobody answers any more.
    pub fn handle_lost(&mut self, now: Instant, address: SocketAddr, fault: String) {
        let Some(peer) = self.by_address.get_mut(&address) else { return };
        if peer.met.take().is_some() {
            peer.since = now;
        }
        peer.newest_epoch = None;
        peer.fault = Some(fault);
    }

    /// Where the node is there now.
    pub fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        let is_there = |address: &SocketAddr| {
            let peer = self.by_address.get(address);
            peer.and_then(|peer| peer.met.as_ref()).is_some_and(|met| met.node == node)
        };
        let last = self.last_met.get(&node).map(|(address, _)| *address).filter(is_there);
        last.or_else(|| self.by_address.keys().copied().find(is_there))
    }

    /// The node that is there now and has said where it stands.
    pub fn said_by(&self, node: NodeId) -> Option<&Peer> {
        let peer = self.by_address.get(&self.address_of(node)?)?;
        peer.newest_epoch.map(|_| peer)
    }

    /// Who is there now, with its address.
    pub fn present(&self) -> impl Iterator<Item = (SocketAddr, &Peer, &Met)> {
        self.by_address
            .iter()
            .filter_map(|(address, peer)| Some((*address, peer, peer.met.as_ref()?)))
    }
}
