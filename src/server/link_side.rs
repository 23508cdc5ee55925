//! DRIVER: the links of a gateway's shard on its ring: dials, receives, sends, closes what `Links`
//! says.

use crate::background::hints::HintSender;
use crate::base::time::{Duration, Instant};
use crate::gateway::fleet::FleetMail;
use crate::gateway::hint::command::HintEvent;
use crate::gateway::hint::side::HintSide;
use crate::gateway::links::{LinkAction, LinkNotice, Links};
use crate::gateway::owner::Owner;
use crate::model::placement::NodeId;
use crate::model::refusal::RefusalCounts;
use crate::ring::{BufferLease, ConnectOptions, Errno, ReceiveEnd, Ring, SocketOptions, Token};
use crate::server::shard::TokenKind;
use std::os::fd::{AsRawFd, OwnedFd};

/// What the keeper of hints says that is taken in at once.
const HINT_EVENTS_A_TURN: usize = 16;
/// How long a dial may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// The links, their sockets, and the way by which fleets come.
pub struct LinkSide {
    links: Links,
    sockets: Vec<Option<OwnedFd>>,
    /// Links that could not receive for want of buffers.
    parked: Vec<u16>,
    fleets: flume::Receiver<FleetMail>,
    has_fleet: bool,
    hints: HintSide,
    keeper: HintSender,
    hint_events: flume::Receiver<HintEvent>,
    shard: u32,
}

/// A shard's way to the keeper of hints.
pub struct HintWay {
    /// To it.
    pub sender: HintSender,
    /// From it.
    pub events: flume::Receiver<HintEvent>,
    /// Nodes for which hints were found on the disk.
    pub waiting: Vec<NodeId>,
    /// When, Unix milliseconds.
    pub started_ms: i64,
}

impl LinkSide {
    /// Links without a fleet, which follows by mail.
    pub fn new(
        shard: u32,
        links: Links,
        fleets: flume::Receiver<FleetMail>,
        hints: HintWay,
    ) -> Self {
        let HintWay { sender, events, waiting, started_ms } = hints;
        Self {
            links,
            sockets: Vec::new(),
            parked: Vec::new(),
            fleets,
            has_fleet: false,
            hints: HintSide::new(shard, waiting, started_ms),
            keeper: sender,
            hint_events: events,
            shard,
        }
    }

    /// Whether it is known where samples go.
    pub fn has_fleet(&self) -> bool {
        self.has_fleet
    }

    /// Whether nobody said anything that is not handled.
    pub fn is_mail_empty(&self) -> bool {
        self.fleets.is_empty() && self.hint_events.is_empty()
    }

    /// The process ends: no more hints are handed out.
    pub fn drain(&mut self) {
        self.hints.drain();
    }

    /// Samples of hints that nodes will never take, and why.
    pub fn hints_refused(&self) -> &RefusalCounts {
        self.hints.refused()
    }

    /// The links, to report on.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// A dial is over.
    pub fn handle_connected(
        &mut self,
        now: Instant,
        link: u16,
        (result, ring): (Result<OwnedFd, Errno>, &mut Ring),
    ) {
        let is_ok = result.is_ok();
        if let Ok(socket) = result {
            ring.receive(token(link), socket.as_raw_fd());
            self.sockets[usize::from(link)] = Some(socket);
        }
        self.links.handle_connected(now, link, is_ok);
    }

    /// Bytes came.
    pub fn handle_received(
        &mut self,
        now: Instant,
        link: u16,
        lease: BufferLease,
        ring: &mut Ring,
    ) {
        self.links.handle_bytes(now, link, ring.buffer(&lease));
        ring.recycle(lease);
    }

    /// Nothing more comes, or not now.
    pub fn handle_receive_ended(&mut self, link: u16, reason: ReceiveEnd) {
        match reason {
            ReceiveEnd::NoBuffers => self.parked.push(link),
            ReceiveEnd::Cancelled => {}
            ReceiveEnd::PeerClosed | ReceiveEnd::Failed(_) => self.links.handle_broken(link),
        }
    }

    /// A send is over.
    pub fn handle_sent(&mut self, link: u16, is_ok: bool) {
        self.links.handle_sent(link, is_ok);
    }

    /// A connection is closed.
    pub fn handle_closed(&mut self, now: Instant, link: u16) {
        self.links.handle_closed(now, link);
    }

    /// Four times a second.
    pub fn handle_tick(&mut self, now: Instant, owner: &mut Owner) {
        self.links.handle_timer(now, owner);
        if self.has_fleet {
            self.hints.handle_nodes(&self.links.nodes_up(owner));
        }
    }

    /// Follows the newest fleet, moves frames and answers, and does what that asks for.
    pub fn work(&mut self, now: Instant, owner: &mut Owner, ring: &mut Ring) {
        // A page of ids a turn, as it takes a while.
        if let Ok(mail) = self.fleets.try_recv() {
            match mail {
                FleetMail::Fleet(fleet) => {
                    self.links.handle_fleet(now, &fleet, owner);
                    self.has_fleet = true;
                }
                FleetMail::Ids(page) => self.links.handle_ids(&page, owner),
            }
        }
        for event in self.hint_events.try_iter().take(HINT_EVENTS_A_TURN) {
            self.hints.handle_event(event, owner);
        }
        self.links.work(now, owner);
        self.work_hints(now, owner);
        while let Some(action) = self.links.poll_action() {
            self.act(now, action, ring);
        }
        while let Some(notice) = self.links.poll_notice() {
            self.tell(&notice);
        }
        if !self.parked.is_empty() && ring.free_buffers() > 0 {
            for link in std::mem::take(&mut self.parked) {
                if let Some(socket) = &self.sockets[usize::from(link)] {
                    ring.receive(token(link), socket.as_raw_fd());
                }
            }
        }
    }

    fn work_hints(&mut self, now: Instant, owner: &mut Owner) {
        self.hints.work(now, owner);
        while let Some(command) = self.hints.poll_command() {
            if let Err(command) = self.keeper.try_send(command) {
                self.hints.handle_command_delayed(command);
                break;
            }
        }
    }

    fn act(&mut self, now: Instant, action: LinkAction, ring: &mut Ring) {
        match action {
            LinkAction::Dial { link, address } => {
                if self.sockets.len() <= usize::from(link) {
                    self.sockets.resize_with(usize::from(link) + 1, || None);
                }
                let deadline = now + CONNECT_WITHIN;
                let options = ConnectOptions { deadline, socket: SocketOptions::default() };
                ring.connect(token(link), address, &options);
            }
            LinkAction::Send { link, bytes } => {
                // One that is being closed loses its sends, as on the network.
                if let Some(socket) = &self.sockets[usize::from(link)] {
                    ring.send(token(link), socket.as_raw_fd(), bytes);
                }
            }
            LinkAction::Close { link } => match self.sockets[usize::from(link)].take() {
                Some(socket) => ring.close(token(link), socket),
                None => ring.cancel_connect(token(link)),
            },
        }
    }

    fn tell(&self, notice: &LinkNotice) {
        let gateway_shard = self.shard;
        match notice {
            LinkNotice::Up { node, shard } => {
                tracing::info!(gateway_shard, %node, shard, "a link is up");
            }
            LinkNotice::Down { node, shard } => tracing::warn!(
                gateway_shard, %node, shard,
                "a node is not heard: it gets no samples until it is"
            ),
            LinkNotice::Closed { node, shard, fault } => {
                tracing::warn!(gateway_shard, %node, shard, "{fault}");
            }
            LinkNotice::Refused { node, text } => {
                tracing::warn!(gateway_shard, %node, text, "a node refused a link");
            }
        }
    }
}

fn token(link: u16) -> Token {
    TokenKind::Link.token(link.into())
}
