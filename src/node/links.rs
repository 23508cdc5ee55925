//! The links of a node shard, glued to what stores: frames in, to head and log; acks back. Pure:
//! the driver owns sockets, clock and chance.
//!
//! A frame is taken where it lies when the log has room, and refused as a whole if it follows an
//! older placement than the node knows: its samples would lie where nobody looks for them.
//! Not here: reads, which have a port of their own; what a frame means (`receiver`).

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::time::Instant;
use crate::model::refusal::Refusal;
use crate::node::shard::{FrameReceipt, NodeShard};
use crate::wire::frame::{FrameKind, Memory};
use crate::wire::health::NodeState;
use crate::wire::hello::Hello;
use crate::wire::link::{
    ConnectionId, EpochFit, LinkFault, Receiver, ReceiverConfig, ReceiverEvent,
};
use crate::wire::proof::{LinkSecret, NONCE_BYTES};

/// What the driver is to do.
#[derive(Debug)]
pub enum NodeLinkAction {
    /// Send, and then call [`NodeLinks::handle_sent`].
    Send {
        /// Over which.
        connection: ConnectionId,
        /// What.
        bytes: Arc<Memory>,
    },
    /// Close it, and then call [`NodeLinks::handle_closed`].
    Close {
        /// Which.
        connection: ConnectionId,
    },
}

/// What people should know.
#[derive(Debug)]
pub enum NodeLinkNotice {
    /// A gateway shard proved itself.
    Opened(Box<Hello>),
    /// A connection was of no more use.
    Closed(LinkFault),
}

/// The links of a node shard.
pub struct NodeLinks {
    receiver: Receiver,
    connections: HashMap<ConnectionId, Sending>,
    actions: VecDeque<NodeLinkAction>,
    notices: VecDeque<NodeLinkNotice>,
    window_bytes: u64,
    is_draining: bool,
    stats: NodeLinkStats,
}

#[derive(Default)]
struct Sending {
    is_busy: bool,
    /// To be closed once all is sent.
    is_over: bool,
    is_closing: bool,
}

/// What came over the links of a node shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeLinkStats {
    /// Frames taken.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames refused as a whole.
    pub frames_refused: u64,
    /// Of those, the ones that followed an older placement.
    pub frames_stale: u64,
    /// Connections accepted.
    pub connections: u64,
}

impl NodeLinks {
    /// No links yet.
    pub fn new(config: ReceiverConfig, secret: LinkSecret) -> Self {
        let window_bytes = config.window.bytes;
        let mut receiver = Receiver::new(config, secret);
        receiver.handle_state(NodeState::Ready);
        receiver.handle_credit(window_bytes);
        Self {
            receiver,
            connections: HashMap::new(),
            actions: VecDeque::new(),
            notices: VecDeque::new(),
            window_bytes,
            is_draining: false,
            stats: NodeLinkStats::default(),
        }
    }

    /// A connection was accepted; `None`: it is not wanted, close it.
    pub fn handle_connected(
        &mut self,
        now: Instant,
        nonce: [u8; NONCE_BYTES],
    ) -> Option<ConnectionId> {
        if self.is_draining {
            return None;
        }
        let connection = self.receiver.handle_connected(now, nonce)?;
        self.stats.connections += 1;
        self.connections.insert(connection, Sending::default());
        Some(connection)
    }

    /// Bytes came.
    pub fn handle_bytes(&mut self, now: Instant, connection: ConnectionId, bytes: &[u8]) {
        self.receiver.handle_bytes(now, connection, bytes);
    }

    /// A send is over; `is_ok` if the connection still works.
    pub fn handle_sent(&mut self, connection: ConnectionId, is_ok: bool) {
        if let Some(sending) = self.connections.get_mut(&connection) {
            sending.is_busy = false;
        }
        if is_ok {
            self.pump(connection);
        } else {
            self.handle_broken(connection);
        }
    }

    /// The other end closed, or the connection broke.
    pub fn handle_broken(&mut self, connection: ConnectionId) {
        if let Some(sending) = self.connections.get_mut(&connection)
            && !std::mem::replace(&mut sending.is_closing, true)
        {
            self.receiver.handle_closed(connection);
            self.actions.push_back(NodeLinkAction::Close { connection });
        }
    }

    /// The connection is closed.
    pub fn handle_closed(&mut self, connection: ConnectionId) {
        if self.connections.remove(&connection).is_some() {
            self.receiver.handle_closed(connection);
        }
    }

    /// Time went by: four times a second, or more often.
    pub fn handle_timer(&mut self, now: Instant) {
        if self.receiver.poll_timeout().is_some_and(|due| due <= now) {
            self.receiver.handle_timer(now);
        }
    }

    /// The newest placement that the node knows.
    pub fn handle_placement(&mut self, epoch: u64) {
        self.receiver.handle_placement(epoch);
    }

    /// The log failed: what was taken and is not durable never will be.
    pub fn handle_log_failed(&mut self) {
        self.receiver.handle_log_failed(Refusal::LogFailed);
        self.receiver.handle_state(NodeState::LogFailed);
    }

    /// Takes no more frames: what is not taken will come again after a restart. Acks still leave.
    pub fn drain(&mut self) {
        self.is_draining = true;
        self.receiver.handle_state(NodeState::Draining);
        self.receiver.handle_credit(0);
    }

    /// Moves frames into `node`, and acks out of it. `low`: why no sample can be taken now, though
    /// the node would.
    pub fn work(&mut self, node: &mut NodeShard, low: Option<Refusal>) {
        while !self.is_draining
            && let Some(frame) = self.receiver.poll_frame()
        {
            if frame.header.kind != FrameKind::Write {
                // A reader that asks here: its questions belong to the port for reads.
                self.receiver.handle_frame_taken();
                continue;
            }
            let len_bytes = frame.bytes.len() as u64;
            let receipt = match (frame.epoch, low) {
                (EpochFit::Stale, _) => FrameReceipt::Refused(Refusal::StaleEpoch),
                (_, Some(reason)) => FrameReceipt::Refused(reason),
                (EpochFit::Current | EpochFit::Ahead, None) => node.handle_frame(frame.bytes),
            };
            match receipt {
                FrameReceipt::Taken => {
                    self.stats.frames += 1;
                    self.stats.bytes += len_bytes;
                    self.receiver.handle_frame_taken();
                }
                FrameReceipt::Refused(reason) => {
                    self.stats.frames_refused += 1;
                    self.stats.frames_stale += u64::from(reason == Refusal::StaleEpoch);
                    self.receiver.handle_frame_refused(reason);
                }
                FrameReceipt::Delayed => break,
            }
        }
        while let Some(ack) = node.poll_ack() {
            self.receiver.handle_ack(ack);
        }
        self.take_events();
    }

    /// What the driver is to do next.
    pub fn poll_action(&mut self) -> Option<NodeLinkAction> {
        self.actions.pop_front()
    }

    /// What happened, for people.
    pub fn poll_notice(&mut self) -> Option<NodeLinkNotice> {
        self.notices.pop_front()
    }

    /// Whether all that was answered has left, and nothing is in between.
    pub fn is_idle(&self) -> bool {
        self.receiver.counts().2 == 0 && !self.connections.values().any(|one| one.is_busy)
    }

    /// Connections, links, and frames that were taken and not acked.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.receiver.counts()
    }

    /// Bytes of what arrived and was not taken, and of answers that are remembered.
    pub fn memory_bytes(&self) -> usize {
        self.receiver.memory_bytes()
    }

    /// Bytes that each link may have in flight.
    pub fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    /// What came.
    pub fn stats(&self) -> NodeLinkStats {
        self.stats
    }

    fn take_events(&mut self) {
        while let Some(event) = self.receiver.poll_event() {
            match event {
                ReceiverEvent::Opened { hello, .. } => {
                    self.notices.push_back(NodeLinkNotice::Opened(hello));
                }
                ReceiverEvent::Transmit(connection) => self.pump(connection),
                ReceiverEvent::Close { connection, fault } => {
                    self.notices.push_back(NodeLinkNotice::Closed(fault));
                    if let Some(sending) = self.connections.get_mut(&connection) {
                        sending.is_over = true;
                    }
                    self.pump(connection);
                }
            }
        }
    }

    /// Sends the next bytes, if none are on their way; closes what is over and sent.
    fn pump(&mut self, connection: ConnectionId) {
        let Some(sending) = self.connections.get_mut(&connection) else { return };
        if sending.is_busy || sending.is_closing {
            return;
        }
        if let Some(bytes) = self.receiver.poll_transmit(connection) {
            sending.is_busy = true;
            self.actions.push_back(NodeLinkAction::Send { connection, bytes });
        } else if sending.is_over {
            self.handle_broken(connection);
        }
    }
}
