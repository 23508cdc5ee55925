//! DRIVER: the link port of a node's shard on its ring: accepts gateways, receives frames, sends
//! acks.

use crate::base::chance::Chance;
use crate::base::time::Instant;
use crate::model::refusal::Refusal;
use crate::node::links::{NodeLinkAction, NodeLinkNotice, NodeLinks};
use crate::node::shard::NodeShard;
use crate::ring::{BufferLease, ReceiveEnd, Ring, SocketOptions, Token};
use crate::server::shard::TokenKind;
use crate::wire::link::{ConnectionId, ReceiverConfig};
use crate::wire::proof::LinkSecret;
use hashbrown::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the link port of a shard is made of.
pub struct LinkPortParts {
    /// Bound and listening.
    pub listener: socket2::Socket,
    /// What both ends know.
    pub secret: LinkSecret,
    /// For nonces.
    pub chance: Chance,
    /// The placement that is in force, as the node knows it.
    pub epoch: Arc<AtomicU64>,
}

/// The port. Before the node has replayed nobody is let in.
pub struct LinkPort {
    listener: Option<socket2::Socket>,
    secret: LinkSecret,
    chance: Chance,
    epoch: Arc<AtomicU64>,
    links: Option<NodeLinks>,
    sockets: HashMap<ConnectionId, OwnedFd>,
    parked: Vec<ConnectionId>,
}

impl LinkPort {
    /// A closed port.
    pub fn new(parts: LinkPortParts) -> Self {
        let LinkPortParts { listener, secret, chance, epoch } = parts;
        Self {
            listener: Some(listener),
            secret,
            chance,
            epoch,
            links: None,
            sockets: HashMap::new(),
            parked: Vec::new(),
        }
    }

    /// The node takes frames from now on.
    pub fn open(&mut self, config: ReceiverConfig, ring: &mut Ring) {
        self.links = Some(NodeLinks::new(config, self.secret.clone()));
        if let Some(listener) = &self.listener {
            ring.accept(TokenKind::LinkListener.token(0), listener.as_raw_fd());
        }
    }

    /// The links, once the port is open.
    pub fn links(&self) -> Option<&NodeLinks> {
        self.links.as_ref()
    }

    /// The placement that is in force.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// A gateway, or a stranger.
    pub fn handle_accepted(&mut self, now: Instant, socket: OwnedFd, ring: &mut Ring) {
        let nonce = self.chance.draw();
        let Some(links) = &mut self.links else { return };
        // A socket that refuses the options works as well.
        let _ = SocketOptions::default().apply(&socket);
        if let Some(connection) = links.handle_connected(now, nonce) {
            ring.receive(token(connection), socket.as_raw_fd());
            self.sockets.insert(connection, socket);
        }
    }

    /// Bytes came.
    pub fn handle_received(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        (lease, ring): (BufferLease, &mut Ring),
    ) {
        if let Some(links) = &mut self.links {
            links.handle_bytes(now, connection, ring.buffer(&lease));
        }
        ring.recycle(lease);
    }

    /// Nothing more comes, or not now.
    pub fn handle_receive_ended(&mut self, connection: ConnectionId, reason: ReceiveEnd) {
        let Some(links) = &mut self.links else { return };
        match reason {
            ReceiveEnd::NoBuffers => self.parked.push(connection),
            ReceiveEnd::Cancelled => {}
            ReceiveEnd::PeerClosed | ReceiveEnd::Failed(_) => links.handle_broken(connection),
        }
    }

    /// A send is over.
    pub fn handle_sent(&mut self, connection: ConnectionId, is_ok: bool) {
        if let Some(links) = &mut self.links {
            links.handle_sent(connection, is_ok);
        }
    }

    /// A connection is closed.
    pub fn handle_closed(&mut self, connection: ConnectionId) {
        if let Some(links) = &mut self.links {
            links.handle_closed(connection);
        }
    }

    /// The log failed.
    pub fn handle_log_failed(&mut self) {
        if let Some(links) = &mut self.links {
            links.handle_log_failed();
        }
    }

    /// Four times a second.
    pub fn handle_tick(&mut self, now: Instant) {
        if let Some(links) = &mut self.links {
            links.handle_timer(now);
        }
    }

    /// Moves frames into `node` and acks out of it. `low`: why no sample can be taken now.
    pub fn work(&mut self, node: Option<&mut NodeShard>, low: Option<Refusal>, ring: &mut Ring) {
        let (Some(links), Some(node)) = (&mut self.links, node) else { return };
        links.handle_placement(self.epoch.load(Ordering::Relaxed));
        links.work(node, low);
        while let Some(action) = links.poll_action() {
            match action {
                NodeLinkAction::Send { connection, bytes } => {
                    if let Some(socket) = self.sockets.get(&connection) {
                        ring.send(token(connection), socket.as_raw_fd(), bytes);
                    }
                }
                NodeLinkAction::Close { connection } => {
                    if let Some(socket) = self.sockets.remove(&connection) {
                        ring.close(token(connection), socket);
                    }
                }
            }
        }
        while let Some(notice) = links.poll_notice() {
            match notice {
                NodeLinkNotice::Opened(hello) => tracing::info!(
                    gateway = %format_args!("{:032x}", hello.gateway),
                    gateway_shard = hello.gateway_shard,
                    "a gateway came"
                ),
                NodeLinkNotice::Closed(fault) => tracing::warn!("{fault}"),
            }
        }
        if !self.parked.is_empty() && ring.free_buffers() > 0 {
            for connection in std::mem::take(&mut self.parked) {
                if let Some(socket) = self.sockets.get(&connection) {
                    ring.receive(token(connection), socket.as_raw_fd());
                }
            }
        }
    }

    /// Lets nobody in and takes no more frames; acks still leave.
    pub fn drain(&mut self, ring: &mut Ring) {
        if let Some(listener) = self.listener.take()
            && self.links.is_some()
        {
            ring.close(TokenKind::LinkListener.token(0), listener.into());
        }
        if let Some(links) = &mut self.links {
            links.drain();
        }
    }

    /// Whether every answer has left.
    pub fn is_idle(&self) -> bool {
        self.links.as_ref().is_none_or(NodeLinks::is_idle)
    }
}

fn token(connection: ConnectionId) -> Token {
    TokenKind::LinkPeer.token(connection.0)
}
