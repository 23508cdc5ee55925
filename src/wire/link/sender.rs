//! A gateway's half of one link: `Write` frames to one node shard, their answers back.
//!
//! Keeps every frame until the node has answered for it, over as many connections as that takes.
//! After a reconnect it goes on behind the last frame that the node has taken; if the node does not
//! know the link any more, it sends everything without an answer again (a sample written twice is
//! written once). If the node's ids are others now, frames are handed back to be made anew.
//! In: frames, bytes, time. Out: bytes to send, events. Not here: which series go where, dialling.

use std::collections::VecDeque;
use std::sync::Arc;

use super::dialled::{Dialled, Heard};
use super::fault::LinkFault;
use super::kept::{KeptFrames, OutgoingFrame, Window};
use super::silence::{Silence, SilenceLimits};
use crate::base::time::Instant;
use crate::model::refusal::Refusal;
use crate::wire::ack::{Ack, AckView, FrameAnswer};
use crate::wire::frame::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Memory, decode_header,
};
use crate::wire::health::NodeState;
use crate::wire::hello::{Hello, LinkPurpose, VERSIONS, Welcome};
use crate::wire::proof::{LinkSecret, NONCE_BYTES};

/// Who a gateway shard is, and whom it dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialler {
    /// The gateway.
    pub gateway: u128,
    /// The gateway shard.
    pub gateway_shard: u32,
    /// Of how many.
    pub gateway_shard_count: u32,
    /// The node that should answer; 0 if any may.
    pub node_expected: u128,
    /// The node shard that should answer.
    pub node_shard: u32,
}

impl Dialler {
    /// The first word on a connection, of a link that keeps nothing.
    pub(super) fn hello(&self, nonce: [u8; NONCE_BYTES], purpose: LinkPurpose) -> Hello {
        Hello {
            gateway: self.gateway,
            node_expected: self.node_expected,
            link_incarnation: 0,
            oldest_sequence: 0,
            placement_epoch: 0,
            nonce,
            gateway_shard: self.gateway_shard,
            gateway_shard_count: self.gateway_shard_count,
            node_shard: self.node_shard,
            versions: VERSIONS,
            purpose,
        }
    }
}

/// A sender's settings.
#[derive(Clone, Copy, Debug)]
pub struct SenderConfig {
    /// Both ends.
    pub dialler: Dialler,
    /// Drawn by chance when the link is made: tells its frames from those of a link before.
    pub link_incarnation: u64,
    /// Most frames that are kept.
    pub kept_frames_max: u32,
    /// Most bytes of frames that are kept; one frame always may be.
    pub kept_bytes_max: u64,
    /// When silence means what.
    pub silence: SilenceLimits,
}

/// What happened to a sender.
#[derive(Debug)]
pub enum SenderEvent {
    /// The node proved itself; frames flow.
    Welcomed(Box<Welcome>),
    /// The node's ids are others than before: forget all that were learned. The frames that were
    /// kept follow as `Returned`, and the connection is to be closed and opened again.
    IdsForgotten,
    /// A frame that was not answered, oldest first: its samples are to be sent in another one, with
    /// labels where it named ids. The node may have taken it, which does no harm.
    Returned(Arc<Memory>),
    /// A frame is durable.
    Acked {
        /// What the node says to it.
        ack: Ack,
        /// Its memory, for another frame, unless it is still being sent.
        memory: Option<Memory>,
    },
    /// The node took nothing of a frame.
    FrameRefused {
        /// Of the frame.
        sequence: u64,
        /// Why.
        reason: Refusal,
        /// Its memory, unless it is still being sent.
        memory: Option<Memory>,
    },
    /// The node is heard.
    Healthy,
    /// The node was not heard for the health timeout.
    Unhealthy,
    /// How the node is, or the newest placement that it knows, is not what it said before.
    State {
        /// How it is.
        state: NodeState,
        /// The newest placement that it knows.
        placement_epoch: u64,
    },
    /// The node's last words, for people. `Close` follows.
    NodeRefused {
        /// Why.
        text: String,
    },
    /// The connection is of no more use: close it, then say so by [`Sender::handle_closed`].
    Close(LinkFault),
}

/// A frame that the sender does not take.
#[derive(Debug)]
pub struct Unsent {
    /// The frame.
    pub frame: OutgoingFrame,
    /// Why.
    pub reason: UnsentReason,
}

/// Why a sender does not take a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsentReason {
    /// As many are kept as may be: offer it again after the next answer.
    Full,
    /// It names ids that are not the node's any more: make it anew.
    ForeignIds,
    /// Its sequence is not the next one: seal it with [`Sender::next_sequence`].
    WrongSequence,
}

/// A gateway's half of a link.
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    secret: LinkSecret,
    kept: KeptFrames,
    connection: Option<Dialled>,
    window: Window,
    /// Of the ids that the caller may name; `None` before the first welcome.
    id_space: Option<u64>,
    /// The same as the caller knows it, from the events that it has polled.
    id_space_told: u64,
    /// What `State` said last.
    state: Option<(NodeState, u64)>,
    placement_epoch: u64,
    silence: Silence,
    events: VecDeque<SenderEvent>,
}

impl Sender {
    /// A sender without a connection.
    pub fn new(now: Instant, config: SenderConfig, secret: LinkSecret) -> Self {
        assert!(config.kept_frames_max > 0);
        Self {
            secret,
            kept: KeptFrames::default(),
            connection: None,
            window: Window { frames: 0, bytes: 0, credit_bytes: 0 },
            id_space: None,
            id_space_told: 0,
            state: None,
            placement_epoch: 0,
            silence: Silence::new(now, config.silence),
            events: VecDeque::new(),
            config,
        }
    }

    /// The sequence that the next frame must have.
    pub fn next_sequence(&self) -> u64 {
        self.kept.last_sequence() + 1
    }

    /// Whose ids the next frame may name; 0: it may name none. It changes when `Welcomed` is
    /// polled, so that ids which the caller has not forgotten yet never pass for the new ones.
    pub fn id_space(&self) -> u64 {
        self.id_space_told
    }

    /// Takes a frame.
    pub fn handle_frame(&mut self, frame: OutgoingFrame) -> Result<(), Box<Unsent>> {
        let header = decode_header(&frame.bytes).expect("the caller sealed it");
        assert!(header.kind == FrameKind::Write && frame.bytes.len() <= FRAME_BYTES_MAX);
        let unsent = |reason, frame| Err(Box::new(Unsent { frame, reason }));
        if header.id_space != 0 && Some(header.id_space) != self.id_space {
            return unsent(UnsentReason::ForeignIds, frame);
        }
        if header.sequence != self.next_sequence() {
            return unsent(UnsentReason::WrongSequence, frame);
        }
        if !self.has_room(frame.bytes.len()) {
            return unsent(UnsentReason::Full, frame);
        }
        self.kept.push(frame);
        Ok(())
    }

    /// Whether a frame of so many bytes would be taken.
    pub fn has_room(&self, len_bytes: usize) -> bool {
        let bytes = self.kept.bytes() + len_bytes as u64;
        let fits = bytes <= self.config.kept_bytes_max
            && self.kept.len() < self.config.kept_frames_max as usize;
        fits || self.kept.len() == 0
    }

    /// The newest placement, to be said in the next hello.
    pub fn handle_placement(&mut self, epoch: u64) {
        self.placement_epoch = epoch;
    }

    /// A connection was opened. `nonce` was never used before and cannot be guessed.
    pub fn handle_connected(&mut self, now: Instant, nonce: [u8; NONCE_BYTES]) {
        let hello = Hello {
            link_incarnation: self.config.link_incarnation,
            oldest_sequence: self.kept.acked_sequence() + 1,
            placement_epoch: self.placement_epoch,
            ..self.config.dialler.hello(nonce, LinkPurpose::Write)
        };
        self.connection = Some(Dialled::new(now, hello));
    }

    /// The connection is closed, whoever did it. Frames stay.
    pub fn handle_closed(&mut self) {
        self.connection = None;
    }

    /// Bytes came.
    pub fn handle_bytes(&mut self, now: Instant, mut bytes: &[u8]) {
        while let Some(connection) = &mut self.connection {
            let outcome = match connection.handle_bytes(now, &mut bytes, &self.secret) {
                Ok(None) => return,
                Ok(Some(heard)) => self.handle_heard(now, heard),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = outcome {
                self.give_up(fault);
            }
        }
    }

    /// Time went by; to be called at [`Sender::poll_timeout`]. Silence while nobody called it does
    /// not count.
    pub fn handle_timer(&mut self, now: Instant) {
        let (is_unhealthy, timed) = self.silence.handle_timer(now, self.connection.as_mut());
        if is_unhealthy {
            self.events.push_back(SenderEvent::Unhealthy);
        }
        if let Err(fault) = timed {
            self.give_up(fault);
        }
    }

    /// When to call [`Sender::handle_timer`]; bytes that come may put it off.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.silence.poll_timeout(self.connection.as_ref())
    }

    /// The next bytes to send, whole and in this order: a frame's own memory, shared until it is
    /// sent.
    pub fn poll_transmit(&mut self) -> Option<Arc<Memory>> {
        let connection = self.connection.as_mut()?;
        let control = connection.poll_transmit();
        if control.is_some() || !connection.is_open() {
            return control;
        }
        self.kept.poll_send(&self.window)
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<SenderEvent> {
        let event = self.events.pop_front()?;
        if let SenderEvent::Welcomed(welcome) = &event {
            self.id_space_told = welcome.id_space();
        }
        Some(event)
    }

    /// Hands all frames back as `Returned`, to go elsewhere. The connection is to be closed.
    pub fn return_frames(&mut self) {
        self.connection = None;
        self.forget_sequence();
    }

    /// Whether the node proved itself on this connection.
    pub fn is_open(&self) -> bool {
        self.connection.as_ref().is_some_and(Dialled::is_open)
    }

    /// Whether the node was heard within the health timeout.
    pub fn is_healthy(&self) -> bool {
        self.silence.is_healthy()
    }

    /// Frames without an answer, and their bytes.
    pub fn kept(&self) -> (usize, u64) {
        (self.kept.len(), self.kept.bytes())
    }

    /// Of these the ones in flight, and their bytes.
    pub fn in_flight(&self) -> (usize, u64) {
        self.kept.in_flight()
    }

    /// Bytes that the node had room for when it last said so.
    pub fn credit_bytes(&self) -> u64 {
        self.window.credit_bytes
    }

    fn handle_heard(&mut self, now: Instant, heard: Heard) -> Result<(), LinkFault> {
        match heard {
            Heard::Nothing => return Ok(()),
            Heard::Refused(refused) => {
                self.events.push_back(SenderEvent::NodeRefused { text: refused.text });
                return Err(LinkFault::Refused);
            }
            Heard::Welcome(welcome) => self.handle_welcome(welcome)?,
            Heard::Pong(pong) => {
                let (state, placement_epoch) = (pong.state, pong.placement_epoch);
                if self.state.replace((state, placement_epoch)) != Some((state, placement_epoch)) {
                    self.events.push_back(SenderEvent::State { state, placement_epoch });
                }
            }
            Heard::Frame(header) => {
                self.handle_ack(&header)?;
                if let Some(connection) = &mut self.connection {
                    connection.drop_last();
                }
            }
        }
        if self.silence.handle_heard(now) {
            self.events.push_back(SenderEvent::Healthy);
        }
        Ok(())
    }

    fn handle_welcome(&mut self, welcome: Welcome) -> Result<(), LinkFault> {
        self.window = Window {
            frames: welcome.window_frames,
            bytes: welcome.window_bytes,
            credit_bytes: welcome.credit_bytes,
        };
        let id_space = welcome.id_space();
        let known = self.id_space.replace(id_space);
        self.state = Some((welcome.state, welcome.placement_epoch));
        let applied = welcome.applied_sequence.unwrap_or(self.kept.acked_sequence());
        self.events.push_back(SenderEvent::Welcomed(Box::new(welcome)));
        if known.is_some_and(|known| known != id_space) {
            self.events.push_back(SenderEvent::IdsForgotten);
            self.forget_sequence();
            return Err(LinkFault::ForeignIds);
        }
        if !self.kept.resume(applied) {
            // Under another incarnation the node does not know the link, and takes all again.
            self.config.link_incarnation = self.config.link_incarnation.wrapping_add(1);
            return Err(LinkFault::UnknownFrames { applied });
        }
        Ok(())
    }

    /// Hands frames back. What comes next is another link to the node, so that no sequence ever
    /// stands for two frames.
    fn forget_sequence(&mut self) {
        self.events.extend(self.kept.take_all().map(SenderEvent::Returned));
        self.config.link_incarnation = self.config.link_incarnation.wrapping_add(1);
    }

    fn handle_ack(&mut self, header: &FrameHeader) -> Result<(), LinkFault> {
        let Some(connection) = &self.connection else { return Ok(()) };
        if header.kind != FrameKind::Ack {
            return Err(LinkFault::Unexpected { kind: header.kind });
        }
        let view = AckView::check(header, &connection.last()[FRAME_HEADER_BYTES..])?;
        let mut answers = view.answers().peekable();
        while self.kept.acked_sequence() < view.answered_sequence() {
            let sequence = self.kept.acked_sequence() + 1;
            let answer = answers.next_if(|answer| answer.sequence() == sequence);
            let settled = self.kept.settle(answer);
            let (answer, memory) = settled.ok_or(LinkFault::BadAck { sequence })?;
            let memory = Arc::into_inner(memory);
            self.events.push_back(match answer {
                FrameAnswer::Durable(ack) => SenderEvent::Acked { ack, memory },
                FrameAnswer::Refused { sequence, reason } => {
                    SenderEvent::FrameRefused { sequence, reason, memory }
                }
            });
        }
        if let Some(answer) = answers.next() {
            return Err(LinkFault::BadAck { sequence: answer.sequence() });
        }
        self.window.credit_bytes = view.credit_bytes();
        Ok(())
    }

    fn give_up(&mut self, fault: LinkFault) {
        self.connection = None;
        self.events.push_back(SenderEvent::Close(fault));
    }
}
