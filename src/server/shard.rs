//! DRIVER: one shard's thread: its ring, and everything that happens on it, one turn after the
//! other.
//!
//! A turn: wait for completions -> handle them -> empty the mailboxes -> offer frames to the node
//! half -> start file work -> send answers. It decides nothing itself: connections, ingest, owner
//! and node half do, each in its own file.

use crate::background::command::BackgroundEvent;
use crate::base::queue::QueueSender;
use crate::base::time::{Duration, Now};
use crate::control::config::Config;
use crate::control::readiness::ServerState;
use crate::control::server::ControlRequest;
use crate::control::shards::ShardRequest;
use crate::gateway::owner::Owner;
use crate::gateway::part::ShardMessage;
use crate::http::reader::HttpLimits;
use crate::node::head::LeftSeries;
use crate::ring::{Event, Idle, Ring, SendBuffer, Token};
use crate::server::clients::{ClientKey, Clients};
use crate::server::connection::ConnectionRules;
use crate::server::halves::Halves;
use crate::server::ingest::Ingest;
use crate::server::life::Life;
use crate::server::node_side::NodeSide;
use crate::server::post::Post;
use crate::server::report::ShardStats;
use crate::server::rules;
use crate::server::threads::NodeHandover;
use crate::server::traffic::has_stream_to_pump;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// How often deadlines are looked at, and what the disk refused is tried again.
const TICK: Duration = Duration::from_millis(250);
/// How soon a full mailbox of another shard is tried again if nothing else happens.
const POST_RETRY: Duration = Duration::from_millis(1);

/// What a token names, in its top byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A listening socket; the rest is its index.
    Listener,
    /// A client; the rest is its [`ClientKey`].
    Client,
    /// The write of the log.
    LogWrite,
    /// A gateway's link; the rest is its lane.
    Link,
    /// A node's link port.
    LinkListener,
    /// A gateway's connection to it; the rest is its [`ConnectionId`].
    LinkPeer,
    /// The tick.
    Tick,
}

impl TokenKind {
    /// A token of this kind.
    pub fn token(self, rest: u64) -> Token {
        Token((self as u64) << 56 | rest)
    }

    fn of(token: Token) -> (Self, u64) {
        let kind = match token.0 >> 56 {
            0 => Self::Listener,
            1 => Self::Client,
            2 => Self::LogWrite,
            3 => Self::Link,
            4 => Self::LinkListener,
            5 => Self::LinkPeer,
            _ => Self::Tick,
        };
        (kind, token.0 & ((1 << 56) - 1))
    }
}

/// What the other threads can put into a shard's hands.
pub struct Mailboxes {
    /// Parts and answers of other shards.
    pub gateway: flume::Receiver<ShardMessage>,
    /// Questions of the control plane.
    pub control: flume::Receiver<ShardRequest>,
    /// Files and snapshots that the background is done with.
    pub background: flume::Receiver<BackgroundEvent>,
    /// The node half, once, when its log has been replayed.
    pub node: flume::Receiver<NodeHandover>,
}

impl Mailboxes {
    fn is_empty(&self) -> bool {
        self.gateway.is_empty()
            && self.control.is_empty()
            && self.background.is_empty()
            && self.node.is_empty()
    }
}

/// What a shard's thread is given once the mailboxes exist.
pub struct ShardParts {
    /// Which shard it is.
    pub index: u32,
    /// The process' configuration.
    pub config: Config,
    /// One per address.
    pub listeners: Vec<socket2::Socket>,
    /// What it is.
    pub halves: Halves,
    /// Its ends of the queues to it.
    pub mail: Mailboxes,
    /// The ways to the other shards.
    pub neighbours: Neighbours,
    /// The way to the control plane.
    pub control: flume::Sender<ControlRequest>,
    /// Shutdown.
    pub life: Arc<Life>,
    /// Readiness.
    pub state: Arc<ServerState>,
}

/// How a shard reaches the others: one queue each, its own place empty.
pub type Neighbours = Vec<Option<QueueSender<ShardMessage>>>;

/// A shard; lives on its own thread.
pub struct Shard {
    pub(super) index: u32,
    pub(super) ring: Ring,
    pub(super) now: Now,
    pub(super) rules: ConnectionRules,
    pub(super) request_bytes_max: u64,
    pub(super) connections_max: usize,
    pub(super) listeners: Vec<socket2::Socket>,
    pub(super) clients: Clients,
    pub(super) parked: Vec<ClientKey>,
    pub(super) streaming: Vec<ClientKey>,
    pub(super) ingest: Ingest,
    pub(super) owner: Owner,
    pub(super) node: NodeSide,
    pub(super) halves: Halves,
    /// Of the node, for its link port.
    pub(super) link_first_port: u16,
    pub(super) post: Post,
    pub(super) mail: Mailboxes,
    pub(super) control: flume::Sender<ControlRequest>,
    pub(super) life: Arc<Life>,
    pub(super) state: Arc<ServerState>,
    pub(super) reading_bytes: u64,
    pub(super) stats: ShardStats,
    /// Series that left the node half in this turn; kept for its memory.
    pub(super) left: Vec<LeftSeries>,
    pub(super) is_draining: bool,
    pub(super) is_quiet: bool,
}

impl Shard {
    /// A shard on `ring`, which the calling thread made. Its node half follows by mail.
    pub fn new(ring: Ring, parts: ShardParts) -> Self {
        let ShardParts { index, config, listeners, halves, .. } = parts;
        let ShardParts { mail, neighbours, control, life, state, .. } = parts;
        let now = Now::read();
        let shard_count = u32::try_from(neighbours.len()).expect("shards are counted in u32");
        let ingest = rules::ingest_limits(&config);
        let rules = ConnectionRules {
            http: HttpLimits { body_bytes_max: ingest.body_bytes_max, ..HttpLimits::default() },
            body_bytes_max: ingest.body_bytes_max,
            is_overloaded: false,
        };
        Self {
            index,
            ring,
            now,
            rules,
            request_bytes_max: config.request_bytes_max.0 / u64::from(shard_count),
            connections_max: config.connections_max.div_ceil(shard_count) as usize,
            listeners,
            clients: Clients::default(),
            parked: Vec::new(),
            streaming: Vec::new(),
            ingest: Ingest::new(index, shard_count, ingest),
            owner: match &halves {
                Halves::Gateway(_) => {
                    let lane_bytes_max = rules::lane_bytes_max(&config);
                    Owner::placed(
                        rules::label_limits(&config),
                        lane_bytes_max,
                        rules::ack_policy(&config),
                    )
                    .with_hints()
                }
                Halves::Together | Halves::Node(_) => {
                    Owner::single(index, rules::label_limits(&config))
                }
            },
            node: NodeSide::new(index, now.monotonic),
            halves,
            link_first_port: config.link.port(),
            post: Post::new(neighbours),
            mail,
            control,
            life,
            state,
            reading_bytes: 0,
            stats: ShardStats::default(),
            left: Vec::new(),
            is_draining: false,
            is_quiet: false,
        }
    }

    /// Runs until the process is told to end and everything that was accepted is answered.
    pub fn run(mut self) {
        for (index, listener) in (0u64..).zip(&self.listeners) {
            self.ring.accept(TokenKind::Listener.token(index), listener.as_raw_fd());
        }
        self.ring.set_timer(self.now.monotonic + TICK, TokenKind::Tick.token(0));
        let mut events = Vec::new();
        while !self.is_done() {
            self.wait(&mut events);
            self.now = Now::read();
            for event in events.drain(..) {
                self.handle_event(event);
            }
            self.handle_mail();
            self.work_halves();
            self.post.flush();
            self.pump_streams();
            self.unpark();
        }
        self.life.shard_ended();
    }

    fn wait(&mut self, events: &mut Vec<Event>) {
        let (mail, node, halves) = (&self.mail, &self.node, &self.halves);
        let (clients, streaming) = (&self.clients, &self.streaming);
        let has_fleet = || match halves {
            Halves::Gateway(links) => !links.is_mail_empty(),
            Halves::Together | Halves::Node(_) => false,
        };
        let is_idle = || {
            mail.is_empty()
                && !has_fleet()
                && !node.has_answer_to_send()
                && !has_stream_to_pump(clients, streaming)
        };
        let until = (!self.post.is_empty()).then(|| self.now.monotonic + POST_RETRY);
        let may_retire = self.node.wants_retire() && !self.has_frames_for_node();
        let idle = if may_retire || self.node.has_slices_to_do() {
            Idle::Poll
        } else {
            Idle::Wait { until, is_idle: &is_idle }
        };
        let turned = self.ring.turn(self.now.monotonic, idle, events);
        turned.expect("the ring of a running shard works, or nothing does");
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Accepted { listener, socket } => match TokenKind::of(listener).0 {
                TokenKind::LinkListener => self.handle_peer_accepted(socket),
                _ => self.handle_accepted(socket),
            },
            Event::AcceptFailed { errno, .. } => {
                self.stats.accepts_failed += 1;
                tracing::warn!(shard = self.index, %errno, "cannot accept a connection");
            }
            Event::Received { token, lease } => match TokenKind::of(token) {
                (TokenKind::Client, rest) => {
                    self.handle_received(ClientKey::from_bits(rest), lease);
                }
                (kind, rest) => self.handle_link_received(kind, rest, lease),
            },
            Event::ReceiveEnded { token, reason } => match TokenKind::of(token) {
                (TokenKind::Client, rest) => {
                    self.handle_receive_ended(ClientKey::from_bits(rest), reason);
                }
                (kind, rest) => self.handle_link_receive_ended(kind, rest, reason),
            },
            Event::Sent { token, buffer, result } => match (TokenKind::of(token), buffer) {
                ((TokenKind::Client, rest), SendBuffer::Bytes(buffer)) => {
                    self.handle_sent(ClientKey::from_bits(rest), buffer, result.is_ok());
                }
                ((kind, rest), frame) => {
                    // The link hands the memory on when nobody else holds it.
                    drop(frame);
                    self.handle_link_sent(kind, rest, result.is_ok());
                }
            },
            Event::Written { buffer, result, .. } => {
                let outcome = result.map_err(|errno| errno.0);
                if self.node.handle_written(self.now, buffer, outcome).is_err() {
                    self.handle_log_failed();
                }
            }
            Event::Closed { token } => match TokenKind::of(token) {
                (TokenKind::Client, rest) => {
                    self.clients.remove(ClientKey::from_bits(rest));
                }
                (kind, rest) => self.handle_link_closed(kind, rest),
            },
            Event::Connected { token, result } => {
                let (_, rest) = TokenKind::of(token);
                self.handle_link_connected(rest, result);
            }
            Event::Timer { .. } => self.handle_tick(),
            Event::ReceivedInto { .. } | Event::Woken => {}
        }
    }

    fn handle_tick(&mut self) {
        self.ring.set_timer(self.now.monotonic + TICK, TokenKind::Tick.token(0));
        self.node.handle_tick(self.now);
        self.tick_halves();
        self.cut_off_slow_clients();
        if self.life.is_draining() && !self.is_draining {
            self.begin_drain();
        }
    }

    fn handle_mail(&mut self) {
        if let Ok(handover) = self.mail.node.try_recv() {
            let NodeHandover { node, background, manifest } = handover;
            self.node.handle_node(node, background, self.now);
            self.open_link_port(&manifest);
        }
        // As many as lay there at first: what arrives meanwhile is for the next turn.
        for _ in 0..self.mail.gateway.len() {
            match self.mail.gateway.try_recv() {
                Ok(ShardMessage::Part(part)) => {
                    self.stats.parts_received += 1;
                    self.owner.handle_part(part);
                }
                Ok(ShardMessage::Answer(answer)) => self.handle_part_answer(answer),
                Err(_) => break,
            }
        }
        while let Ok(event) = self.mail.background.try_recv() {
            self.node.handle_background(event);
        }
        while let Ok(request) = self.mail.control.try_recv() {
            match request {
                ShardRequest::Select { request, reply } => self.node.handle_select(request, reply),
                ShardRequest::Flush { reply } => self.node.handle_flush_request(reply),
                ShardRequest::Cardinality { tenant, limit, reply } => {
                    self.node.handle_cardinality(tenant, limit, reply);
                }
                ShardRequest::Registry { position, entries_max, reply } => {
                    self.node.handle_registry(position, entries_max, reply);
                }
                ShardRequest::Delete { tombstone, reply } => {
                    self.node.handle_delete(tombstone, reply);
                }
                ShardRequest::Report { reply } => {
                    // The asker may have given up; then nobody misses the report.
                    let _ = reply.try_send(Box::new(self.report()));
                }
            }
        }
    }

    fn begin_drain(&mut self) {
        self.is_draining = true;
        self.drain_halves();
        for (index, listener) in (0u64..).zip(self.listeners.drain(..)) {
            self.ring.close(TokenKind::Listener.token(index), listener.into());
        }
        for key in self.clients.keys() {
            if let Some(client) = self.clients.get_mut(key) {
                client.connection.drain();
            }
            self.pump(key);
        }
    }

    /// Whether this shard may end: it and all others have answered what they accepted.
    fn is_done(&mut self) -> bool {
        if !self.is_draining {
            return false;
        }
        let is_quiet = self.clients.is_empty() && self.ingest.open_count() == 0;
        if is_quiet && !self.is_quiet {
            self.is_quiet = true;
            self.life.shard_quiet();
        }
        self.life.all_quiet()
            && self.owner.is_idle()
            && self.post.is_empty()
            && self.node.is_idle()
            && self.are_halves_idle()
    }
}
