//! A node shard's half of all its links: frames come out in place, answers go in.
//!
//! Checks who connects, then each frame's checksum, sequence, shard and ids before it is handed
//! out, in turn over the connections. Remembers of each link what its sender may still need to hear
//! (`memory`), so that a lost connection loses no answer. Acks are gathered until the caller asks
//! for bytes to send. In: bytes, time, what became of frames. Out: frames, bytes, events.
//! Not here: what frames mean, sockets.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::accepted::{Accepted, Stage};
use super::fault::LinkFault;
use super::memory::{LinkKey, LinkNumber, Links, WindowLimits};
use super::silence::SilenceLimits;
use super::{ArrivedFrame, ConnectionId, EpochFit};
use crate::base::time::Instant;
use crate::model::refusal::Refusal;
use crate::wire::ack::{Ack, FrameAnswer};
use crate::wire::frame::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Memory, PAYLOAD_ALIGN,
    decode_header,
};
use crate::wire::health::{NodeState, Ping, Pong};
use crate::wire::hello::{
    Challenge, Hello, LINK_PORTS_MAX, LinkPurpose, Refused, VERSIONS, Welcome, id_space,
};
use crate::wire::proof::{LinkSecret, NONCE_BYTES};
use crate::wire::write::{WRITE_SCHEMA, WriteView};

/// No link comes so far in a million years; what begins behind it could overflow.
const SEQUENCE_MAX: u64 = 1 << 62;

/// A receiver's settings.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// The node.
    pub node: u128,
    /// Of its ids.
    pub incarnation: u64,
    /// The node shard; `shard_count` for the port for reads.
    pub shard: u32,
    /// Shards of the node.
    pub shard_count: u32,
    /// The link port of each of the node's shards, then the port for reads, if there is one; at
    /// most [`LINK_PORTS_MAX`].
    pub link_ports: Vec<u16>,
    /// What each link may have in flight.
    pub window: WindowLimits,
    /// Most links that are remembered, connected or not.
    pub links_max: u32,
    /// Most connections that have not said who they are.
    pub strangers_max: u32,
    /// Most bytes of answers to a reader that wait to be sent; one frame always may.
    pub answer_bytes_max: usize,
    /// When silence means what; pings are the gateway's.
    pub silence: SilenceLimits,
}

/// What happened to a receiver.
#[derive(Debug, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// A gateway proved itself.
    Opened {
        /// Where.
        connection: ConnectionId,
        /// What it said.
        hello: Box<Hello>,
    },
    /// There is something to send: ask [`Receiver::poll_transmit`] until it has nothing, at the
    /// pace of the socket.
    Transmit(ConnectionId),
    /// A connection is of no more use: send what is left, close it, then say so by
    /// [`Receiver::handle_closed`].
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        fault: LinkFault,
    },
}

/// A node shard's half of its links.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    secret: LinkSecret,
    connections: HashMap<ConnectionId, Accepted>,
    next_connection: u64,
    links: Links,
    /// Connections that have a whole frame; the first is the one that was polled.
    ready: VecDeque<ConnectionId>,
    /// Frames that were taken and have no answer, in the order they were taken: link, sequence.
    taken: VecDeque<(LinkNumber, u64)>,
    placement_epoch: u64,
    state: NodeState,
    credit_bytes: u64,
    /// No connection is over before.
    next_timeout: Option<Instant>,
    events: VecDeque<ReceiverEvent>,
}

impl Receiver {
    /// A receiver without connections, links and credit.
    pub fn new(config: ReceiverConfig, secret: LinkSecret) -> Self {
        config.silence.assert_ascending();
        assert!(config.link_ports.len() <= LINK_PORTS_MAX);
        let (ports, shards) = (config.link_ports.len(), config.shard_count as usize);
        assert!(ports == shards || ports == shards + 1);
        assert!((config.shard as usize) < ports);
        Self {
            secret,
            connections: HashMap::new(),
            next_connection: 1,
            links: Links::new(config.links_max, config.window),
            ready: VecDeque::new(),
            taken: VecDeque::new(),
            placement_epoch: 0,
            state: NodeState::Replaying,
            credit_bytes: 0,
            next_timeout: None,
            events: VecDeque::new(),
            config,
        }
    }

    /// A connection was accepted. `nonce` was never used before and cannot be guessed. `None`: too
    /// many have not said who they are; close it.
    pub fn handle_connected(
        &mut self,
        now: Instant,
        nonce: [u8; NONCE_BYTES],
    ) -> Option<ConnectionId> {
        let strangers = self.connections.values().filter(|one| one.is_stranger()).count();
        if strangers >= self.config.strangers_max as usize {
            return None;
        }
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let frame = Challenge { versions: VERSIONS, nonce }.encode_frame();
        let mut connection = Accepted::new(now, frame[FRAME_HEADER_BYTES..].into());
        connection.push(frame);
        self.note_timeout(connection.poll_timeout(&self.config.silence));
        self.connections.insert(id, connection);
        self.list_transmit(id);
        Some(id)
    }

    /// A connection is closed, whoever did it. What it brought and was not taken will come again.
    pub fn handle_closed(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id)
            && let Stage::Writer { link, .. } = connection.stage
        {
            self.links.close(link, id);
        }
        self.ready.retain(|ready| *ready != id);
    }

    /// Bytes came over a connection.
    pub fn handle_bytes(&mut self, now: Instant, id: ConnectionId, mut bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.handle_heard(now);
        }
        while let Some(connection) = self.connections.get_mut(&id) {
            if matches!(connection.stage, Stage::Over) {
                return;
            }
            let outcome = match connection.buffer.fill(&mut bytes) {
                Ok(None) => return,
                Ok(Some(header)) => self.handle_arrived(id, &header),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = outcome {
                self.give_up(id, fault);
            }
        }
    }

    /// The next frame, where it lies. One of `handle_frame_taken`, `handle_frame_refused` must
    /// follow, or nothing: then the same frame comes again, when there is room for it.
    pub fn poll_frame(&mut self) -> Option<ArrivedFrame<'_>> {
        let id = *self.ready.front()?;
        let connection = self.connections.get(&id).expect("closed ones are not ready");
        let bytes = connection.buffer.first().expect("ready ones have a frame");
        let header = decode_header(bytes).expect("checked on arrival");
        let epoch = EpochFit::of(header.epoch, self.placement_epoch);
        Some(ArrivedFrame { connection: id, header, epoch, bytes })
    }

    /// The frame that was polled is the caller's now: of a `Write` the answer follows, in the order
    /// that frames were taken.
    pub fn handle_frame_taken(&mut self) {
        self.take_first(None);
    }

    /// Nothing of the `Write` frame that was polled is taken, for this reason.
    pub fn handle_frame_refused(&mut self, reason: Refusal) {
        self.take_first(Some(reason));
    }

    /// The oldest frame that was taken and not acked is durable.
    pub fn handle_ack(&mut self, ack: Ack) {
        let (link, sequence) = self.taken.pop_front().expect("an ack follows a frame");
        assert!(ack.sequence == sequence, "acks come in the order of frames");
        self.answer(link, FrameAnswer::Durable(ack));
    }

    /// The log failed: frames that were taken and not acked never will be, for this reason.
    pub fn handle_log_failed(&mut self, reason: Refusal) {
        while let Some((link, sequence)) = self.taken.pop_front() {
            self.answer(link, FrameAnswer::Refused { sequence, reason });
        }
    }

    /// How many bytes of frames each link may have in flight from now on; at most the window's
    /// count. A link that was told of little or none hears of more at once, others with the next
    /// ack.
    pub fn handle_credit(&mut self, credit_bytes: u64) {
        self.credit_bytes = credit_bytes.min(self.config.window.bytes);
        let told = |one: &Accepted| matches!(one.stage, Stage::Writer { .. });
        let due = |one: &Accepted| told(one) && is_credit_due(one.credit_said, self.credit_bytes);
        let due: Vec<_> =
            self.connections.iter().filter(|(_, one)| due(one)).map(|(id, _)| *id).collect();
        for id in due {
            self.list_transmit(id);
        }
    }

    /// How the node is; said in pongs.
    pub fn handle_state(&mut self, state: NodeState) {
        self.state = state;
    }

    /// The newest placement; said in pongs, and frames are compared with it.
    pub fn handle_placement(&mut self, epoch: u64) {
        self.placement_epoch = epoch;
    }

    /// A frame for a reader. Given back if too much waits: offer it again when it was sent. Lost,
    /// if the connection is gone.
    pub fn handle_answer(&mut self, id: ConnectionId, frame: Memory) -> Result<(), Memory> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if !matches!(connection.stage, Stage::Reader) {
            return Ok(());
        }
        let room = self.config.answer_bytes_max.saturating_sub(connection.out_bytes);
        if !connection.out.is_empty() && frame.len() > room {
            return Err(frame);
        }
        connection.push(frame);
        self.list_transmit(id);
        Ok(())
    }

    /// Time went by; to be called at [`Receiver::poll_timeout`]. Silence while nobody called it
    /// does not count.
    pub fn handle_timer(&mut self, now: Instant) {
        let Some(due) = self.next_timeout else { return };
        if now < due {
            return;
        }
        let limits = self.config.silence;
        let late = now.saturating_duration_since(due);
        self.next_timeout = None;
        let mut over = Vec::new();
        for (id, connection) in &mut self.connections {
            if late > limits.ping_after {
                connection.handle_late(late);
            }
            let Some(timeout) = connection.poll_timeout(&limits) else { continue };
            if now >= timeout {
                over.push(*id);
            } else {
                self.next_timeout =
                    Some(self.next_timeout.map_or(timeout, |next| next.min(timeout)));
            }
        }
        for id in over {
            let is_stranger = self.connections[&id].is_stranger();
            let fault = if is_stranger { LinkFault::HandshakeTimeout } else { LinkFault::Silent };
            self.give_up(id, fault);
        }
    }

    /// When to call [`Receiver::handle_timer`]; never too late.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_timeout
    }

    /// The next bytes to send over a connection, whole and in this order.
    pub fn poll_transmit(&mut self, id: ConnectionId) -> Option<Arc<Memory>> {
        let connection = self.connections.get_mut(&id)?;
        if let Some(frame) = connection.pop() {
            return Some(frame);
        }
        if let Some(number) = connection.pong_due.take() {
            let (placement_epoch, state) = (self.placement_epoch, self.state);
            return Some(Arc::new(Pong { number, placement_epoch, state }.encode_frame()));
        }
        if let Stage::Writer { link, .. } = connection.stage
            && let Some(link) = self.links.get_mut(link)
            && (link.has_answers() || is_credit_due(connection.credit_said, self.credit_bytes))
        {
            connection.credit_said = self.credit_bytes;
            return Some(Arc::new(link.encode_ack(self.credit_bytes)));
        }
        connection.is_listed = false;
        None
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<ReceiverEvent> {
        self.events.pop_front()
    }

    /// Connections, links, and frames that were taken and not acked.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.connections.len(), self.links.len(), self.taken.len())
    }

    /// Bytes of what arrived and was not taken, and of answers that are remembered.
    pub fn memory_bytes(&self) -> usize {
        let buffers =
            self.connections.values().map(|one| one.buffer.memory_bytes() + one.out_bytes);
        buffers.sum::<usize>() + self.links.memory_bytes()
    }

    fn handle_arrived(&mut self, id: ConnectionId, header: &FrameHeader) -> Result<(), LinkFault> {
        let connection = self.connections.get_mut(&id).expect("the caller found it");
        match (&mut connection.stage, header.kind) {
            (Stage::Stranger { .. }, FrameKind::Hello) => return self.handle_hello(id, header),
            (Stage::Writer { link, next_sequence, waiting_bytes }, FrameKind::Write) => {
                let config = &self.config;
                check_write(config, header, (*next_sequence, connection.buffer.last()))?;
                let link = self.links.get_mut(*link).ok_or(LinkFault::Superseded)?;
                let len_bytes = connection.buffer.last().len() as u64;
                if !link.has_room(connection.buffer.kept_count(), *waiting_bytes, len_bytes) {
                    return Err(LinkFault::WindowExceeded);
                }
                *next_sequence += 1;
                *waiting_bytes += len_bytes;
                connection.buffer.keep_last();
            }
            (
                Stage::Reader,
                FrameKind::Select
                | FrameKind::RegistryRequest
                | FrameKind::PlacementRequest
                | FrameKind::HintsHeld
                | FrameKind::Delete,
            ) => {
                connection.buffer.keep_last();
            }
            (Stage::Writer { .. } | Stage::Reader, FrameKind::Ping) => {
                let payload = &connection.buffer.last()[FRAME_HEADER_BYTES..];
                connection.pong_due = Some(Ping::decode(header, payload)?.number);
                connection.buffer.drop_last();
                self.list_transmit(id);
                return Ok(());
            }
            (_, kind) => return Err(LinkFault::Unexpected { kind }),
        }
        if !std::mem::replace(&mut connection.is_ready, true) {
            self.ready.push_back(id);
        }
        Ok(())
    }

    fn handle_hello(&mut self, id: ConnectionId, header: &FrameHeader) -> Result<(), LinkFault> {
        let connection = self.connections.get_mut(&id).expect("the caller found it");
        let Stage::Stranger { challenge } = &connection.stage else {
            return Err(LinkFault::Unexpected { kind: header.kind });
        };
        let challenge = challenge.clone();
        let said: Box<[u8]> = connection.buffer.last()[FRAME_HEADER_BYTES..].into();
        let hello = Hello::decode(
            header,
            &connection.buffer.last()[FRAME_HEADER_BYTES..],
            (&self.secret, &challenge),
        )?;
        let hello = hello.ok_or(LinkFault::BadProof)?;
        connection.buffer.drop_last();
        // Whoever it is knows the secret: from here on it is told what is wrong.
        connection.stage = Stage::Reader;
        let version = self.check_hello(&hello)?;
        let (stage, applied_sequence, superseded) = self.open_link(id, &hello)?;
        if let Some(older) = superseded {
            self.give_up(older, LinkFault::Superseded);
        }
        let welcome = self.welcome(version, applied_sequence);
        let frame = welcome.encode_frame(&self.secret, &challenge, &said);
        // A window of frames with the padding between them, and the frame that is arriving.
        let bytes = usize::try_from(self.config.window.bytes).unwrap_or(usize::MAX / 2)
            + (self.config.window.frames as usize) * PAYLOAD_ALIGN
            + 2 * FRAME_BYTES_MAX;
        let connection = self.connections.get_mut(&id).expect("the caller found it");
        connection.stage = stage;
        connection.credit_said = welcome.credit_bytes;
        connection.buffer.set_limits(FRAME_BYTES_MAX, bytes);
        connection.push(frame);
        self.events.push_back(ReceiverEvent::Opened { connection: id, hello: Box::new(hello) });
        self.list_transmit(id);
        Ok(())
    }

    fn check_hello(&self, hello: &Hello) -> Result<u16, LinkFault> {
        let theirs = hello.versions;
        if hello.node_expected != 0 && hello.node_expected != self.config.node {
            return Err(LinkFault::WrongNode);
        }
        if hello.node_shard != self.config.shard {
            let (want, got) = (hello.node_shard, self.config.shard);
            return Err(LinkFault::WrongShard { want, got });
        }
        if hello.oldest_sequence > SEQUENCE_MAX {
            let (want, got) = (SEQUENCE_MAX, hello.oldest_sequence);
            return Err(LinkFault::OutOfSequence { want, got });
        }
        let version = VERSIONS.agree(theirs);
        version.ok_or(LinkFault::NoCommonVersion { min: theirs.min, max: theirs.max })
    }

    fn open_link(
        &mut self,
        id: ConnectionId,
        hello: &Hello,
    ) -> Result<(Stage, Option<u64>, Option<ConnectionId>), LinkFault> {
        if hello.purpose == LinkPurpose::Read {
            return Ok((Stage::Reader, None, None));
        }
        let key = LinkKey {
            gateway: hello.gateway,
            gateway_shard: hello.gateway_shard,
            incarnation: hello.link_incarnation,
        };
        let opened = self.links.open(key, hello.oldest_sequence, id)?;
        let stage = Stage::Writer {
            link: opened.number,
            next_sequence: opened.next_sequence,
            waiting_bytes: 0,
        };
        Ok((stage, opened.applied, opened.superseded))
    }

    fn welcome(&self, version: u16, applied_sequence: Option<u64>) -> Welcome {
        let config = &self.config;
        Welcome {
            node: config.node,
            incarnation: config.incarnation,
            placement_epoch: self.placement_epoch,
            window_bytes: config.window.bytes,
            credit_bytes: self.credit_bytes,
            window_frames: config.window.frames,
            frame_bytes_max: u32::try_from(FRAME_BYTES_MAX).expect("4 MiB"),
            applied_sequence,
            shard: config.shard,
            shard_count: config.shard_count,
            link_ports: config.link_ports.clone(),
            version,
            state: self.state,
        }
    }

    /// Takes the frame that was polled out of its connection.
    fn take_first(&mut self, refused: Option<Refusal>) {
        let id = self.ready.pop_front().expect("a frame was polled");
        let connection = self.connections.get_mut(&id).expect("closed ones are not ready");
        let frame_bytes = connection.buffer.first().expect("ready ones have a frame").len();
        connection.buffer.drop_first();
        if connection.buffer.kept_count() > 0 {
            self.ready.push_back(id);
        } else {
            connection.is_ready = false;
        }
        let Stage::Writer { link: number, waiting_bytes, .. } = &mut connection.stage else {
            return;
        };
        *waiting_bytes -= frame_bytes as u64;
        let number = *number;
        let link = self.links.get_mut(number).expect("a link lives while it is connected");
        let frame_bytes = u32::try_from(frame_bytes).expect("a frame is below 4 MiB");
        let sequence = link.next_sequence();
        let is_refused = refused.is_some();
        link.take(frame_bytes, refused.map(|reason| FrameAnswer::Refused { sequence, reason }));
        if is_refused {
            self.list_transmit(id);
        } else {
            self.taken.push_back((number, sequence));
        }
    }

    fn answer(&mut self, number: LinkNumber, answer: FrameAnswer) {
        let Some(link) = self.links.get_mut(number) else { return };
        link.answer(answer);
        if let Some(connection) = link.connection {
            self.list_transmit(connection);
        }
    }

    fn list_transmit(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.is_listed, true)
        {
            self.events.push_back(ReceiverEvent::Transmit(id));
        }
    }

    /// A stranger hears nothing; a gateway hears why.
    fn give_up(&mut self, id: ConnectionId, fault: LinkFault) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let stage = std::mem::replace(&mut connection.stage, Stage::Over);
        connection.out.clear();
        connection.out_bytes = 0;
        connection.pong_due = None;
        if !matches!(stage, Stage::Stranger { .. }) {
            connection.push(Refused::new(fault.to_string()).encode_frame());
        }
        connection.buffer = super::buffer::FrameBuffer::new(0, 0);
        connection.is_ready = false;
        self.ready.retain(|ready| *ready != id);
        if let Stage::Writer { link, .. } = stage {
            self.links.close(link, id);
        }
        self.events.push_back(ReceiverEvent::Close { connection: id, fault });
    }

    fn note_timeout(&mut self, timeout: Option<Instant>) {
        self.next_timeout = [self.next_timeout, timeout].into_iter().flatten().min();
    }
}

/// Whether a sender that was told of `said` bytes is told of `now` without another reason.
fn is_credit_due(said: u64, now: u64) -> bool {
    said == 0 && now > 0 || now / 2 > said
}

/// What can be said of a `Write` frame without looking at its samples.
fn check_write(
    config: &ReceiverConfig,
    header: &FrameHeader,
    (next_sequence, frame): (u64, &[u8]),
) -> Result<(), LinkFault> {
    if header.sequence != next_sequence {
        return Err(LinkFault::OutOfSequence { want: next_sequence, got: header.sequence });
    }
    if header.shard != config.shard {
        return Err(LinkFault::WrongShard { want: header.shard, got: config.shard });
    }
    header.check_schema(WRITE_SCHEMA)?;
    let view = WriteView::check(&frame[FRAME_HEADER_BYTES..])?;
    let is_ours = match header.id_space {
        0 => !view.names_ids(),
        named => named == id_space(config.node, config.incarnation, config.shard),
    };
    is_ours.then_some(()).ok_or(LinkFault::ForeignIds)
}
