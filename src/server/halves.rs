//! DRIVER: how the gateway half and the node half of a shard meet: by a function call in one
//! process, by links where they are apart.

use crate::background::folder::Manifest;
use crate::gateway::lane::Frame;
use crate::gateway::part::ShardMessage;
use crate::model::refusal::Refusal;
use crate::node::head::LeftSeries;
use crate::node::shard::FrameReceipt;
use crate::ring::{BufferLease, Errno, ReceiveEnd};
use crate::server::link_port::LinkPort;
use crate::server::link_side::LinkSide;
use crate::server::shard::{Shard, TokenKind};
use crate::wire::link::{ConnectionId, ReceiverConfig, SilenceLimits, WindowLimits};
use std::os::fd::OwnedFd;

/// The only lane of an owner whose node is in the same process.
pub const LANE: u16 = 0;
/// What a link may have in flight: some milliseconds of a fast gateway, while the log syncs.
pub const WINDOW: WindowLimits = WindowLimits { frames: 256, bytes: 16 << 20 };
/// Links that a node shard remembers: gateway shards that come to it, and came.
const LINKS_MAX: u32 = 4096;
/// Connections that have not said who they are.
const STRANGERS_MAX: u32 = 64;
/// Answers to readers that wait; they have a port of their own.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How a shard's gateway half and node half meet.
pub enum Halves {
    /// Both are here: a function call.
    Together,
    /// This is a gateway's; nodes are behind links.
    Gateway(Box<LinkSide>),
    /// This is a node's; gateways come to its port.
    Node(Box<LinkPort>),
}

impl Shard {
    /// Why no sample can be taken from a client now, if none can.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match &self.halves {
            Halves::Together => self.node.refusal().or_else(|| self.disk_refusal()),
            Halves::Gateway(links) => (!links.has_fleet()).then_some(Refusal::NoPlacement),
            Halves::Node(_) => Some(Refusal::NotAGateway),
        }
    }

    fn disk_refusal(&self) -> Option<Refusal> {
        self.state.store().is_disk_low().then_some(Refusal::DiskFull)
    }

    /// Moves frames and acks between the halves, and starts file work.
    pub(super) fn work_halves(&mut self) {
        match &mut self.halves {
            Halves::Together => {
                self.move_frames();
                self.retire();
                self.node.work(self.now, &mut self.ring);
                while let Some(ack) = self.node.poll_ack() {
                    self.owner.handle_ack(LANE, &ack);
                }
            }
            Halves::Gateway(links) => {
                links.work(self.now.monotonic, &mut self.owner, &mut self.ring);
            }
            Halves::Node(port) => {
                let low = self.state.store().is_disk_low().then_some(Refusal::DiskFull);
                port.work(self.node.node_mut(), low, &mut self.ring);
                // Nobody here knows ids: gateways hear that one is gone when they name it.
                self.node.retire(&mut self.left);
                self.left.clear();
                self.node.work(self.now, &mut self.ring);
            }
        }
        self.move_answers();
    }

    /// Hands over frames to which nothing more is added, before the turn is over.
    pub(super) fn move_full_frames(&mut self) {
        if !matches!(self.halves, Halves::Together) {
            return;
        }
        while let Some(frame) = self.owner.poll_full_frame(LANE) {
            if !self.offer_frame(frame) {
                break;
            }
        }
    }

    /// Whether frames wait that may name series which the node is about to let go.
    pub(super) fn has_frames_for_node(&self) -> bool {
        matches!(self.halves, Halves::Together) && self.owner.lane(LANE).has_frames_to_send()
    }

    /// The log failed: what is in it and not acked never will be.
    pub(super) fn handle_log_failed(&mut self) {
        self.state.set_log_failed(self.index as usize);
        match &mut self.halves {
            Halves::Together => self.owner.handle_node_failed(LANE, Refusal::LogFailed),
            Halves::Node(port) => port.handle_log_failed(),
            Halves::Gateway(_) => {}
        }
    }

    /// Four times a second.
    pub(super) fn tick_halves(&mut self) {
        match &mut self.halves {
            Halves::Together => {}
            Halves::Gateway(links) => links.handle_tick(self.now.monotonic, &mut self.owner),
            Halves::Node(port) => port.handle_tick(self.now.monotonic),
        }
    }

    /// The node half is there: gateways may come.
    pub(super) fn open_link_port(&mut self, manifest: &Manifest) {
        let Halves::Node(port) = &mut self.halves else { return };
        let config = receiver_config(manifest, self.index, self.link_first_port);
        port.open(config, &mut self.ring);
    }

    /// Nothing new from now on.
    pub(super) fn drain_halves(&mut self) {
        match &mut self.halves {
            Halves::Together => {}
            Halves::Gateway(links) => links.drain(),
            Halves::Node(port) => port.drain(&mut self.ring),
        }
    }

    /// Whether nothing is on its way between them.
    pub(super) fn are_halves_idle(&self) -> bool {
        match &self.halves {
            Halves::Together | Halves::Gateway(_) => true,
            Halves::Node(port) => port.is_idle(),
        }
    }

    pub(super) fn handle_peer_accepted(&mut self, socket: OwnedFd) {
        if let Halves::Node(port) = &mut self.halves {
            port.handle_accepted(self.now.monotonic, socket, &mut self.ring);
        }
    }

    pub(super) fn handle_link_connected(&mut self, rest: u64, result: Result<OwnedFd, Errno>) {
        if let Halves::Gateway(links) = &mut self.halves {
            let ring = &mut self.ring;
            links.handle_connected(self.now.monotonic, lane_of(rest), (result, ring));
        }
    }

    pub(super) fn handle_link_received(&mut self, kind: TokenKind, rest: u64, lease: BufferLease) {
        let (now, ring) = (self.now.monotonic, &mut self.ring);
        match (&mut self.halves, kind) {
            (Halves::Gateway(links), TokenKind::Link) => {
                links.handle_received(now, lane_of(rest), lease, ring);
            }
            (Halves::Node(port), TokenKind::LinkPeer) => {
                port.handle_received(now, ConnectionId(rest), (lease, ring));
            }
            _ => ring.recycle(lease),
        }
    }

    pub(super) fn handle_link_receive_ended(
        &mut self,
        kind: TokenKind,
        rest: u64,
        reason: ReceiveEnd,
    ) {
        match (&mut self.halves, kind) {
            (Halves::Gateway(links), TokenKind::Link) => {
                links.handle_receive_ended(lane_of(rest), reason);
            }
            (Halves::Node(port), TokenKind::LinkPeer) => {
                port.handle_receive_ended(ConnectionId(rest), reason);
            }
            _ => {}
        }
    }

    pub(super) fn handle_link_sent(&mut self, kind: TokenKind, rest: u64, is_ok: bool) {
        match (&mut self.halves, kind) {
            (Halves::Gateway(links), TokenKind::Link) => links.handle_sent(lane_of(rest), is_ok),
            (Halves::Node(port), TokenKind::LinkPeer) => {
                port.handle_sent(ConnectionId(rest), is_ok);
            }
            _ => {}
        }
    }

    pub(super) fn handle_link_closed(&mut self, kind: TokenKind, rest: u64) {
        match (&mut self.halves, kind) {
            (Halves::Gateway(links), TokenKind::Link) => {
                links.handle_closed(self.now.monotonic, lane_of(rest));
            }
            (Halves::Node(port), TokenKind::LinkPeer) => port.handle_closed(ConnectionId(rest)),
            _ => {}
        }
    }

    /// Offers what the owner gathered to the node half, until it has no room.
    fn move_frames(&mut self) {
        while let Some(frame) = self.owner.poll_frame(LANE) {
            if !self.offer_frame(frame) {
                break;
            }
        }
    }

    /// Whether there may be room for another.
    fn offer_frame(&mut self, frame: Frame) -> bool {
        match self.node.handle_frame(&frame.bytes) {
            FrameReceipt::Taken => self.owner.lane_mut(LANE).handle_frame_taken(frame),
            FrameReceipt::Refused(reason) => {
                self.owner.handle_frame_refused(LANE, frame, reason);
            }
            FrameReceipt::Delayed => {
                self.owner.lane_mut(LANE).handle_frame_delayed(frame);
                return false;
            }
        }
        true
    }

    /// Lets series without samples go. The gateway half forgets their ids before it makes another
    /// frame, and has none left that was made before.
    fn retire(&mut self) {
        if self.has_frames_for_node() {
            return;
        }
        self.node.retire(&mut self.left);
        for LeftSeries { hash, id } in self.left.drain(..) {
            self.owner.handle_left(LANE, hash, id);
        }
    }

    /// Carries answers back to where their requests came in.
    fn move_answers(&mut self) {
        while let Some(answer) = self.owner.poll_answer() {
            if answer.request.shard == self.index {
                self.handle_part_answer(answer);
            } else {
                self.post.push(answer.request.shard, ShardMessage::Answer(answer));
            }
        }
    }
}

/// How a node whose data folder has `manifest` says on port `shard` who it is.
pub fn receiver_config(manifest: &Manifest, shard: u32, first_port: u16) -> ReceiverConfig {
    let Manifest { node, incarnation, shards: shard_count } = *manifest;
    // One for each shard, and the one for reads.
    let ports = (0..=shard_count).map(|shard| u32::from(first_port) + shard);
    ReceiverConfig {
        node,
        incarnation,
        shard,
        shard_count,
        link_ports: ports.filter_map(|port| u16::try_from(port).ok()).collect(),
        window: WINDOW,
        links_max: LINKS_MAX,
        strangers_max: STRANGERS_MAX,
        answer_bytes_max: ANSWER_BYTES_MAX,
        silence: SilenceLimits::default(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "made of a lane")]
fn lane_of(rest: u64) -> u16 {
    rest as u16
}
