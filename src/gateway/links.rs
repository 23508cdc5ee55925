//! The links of a gateway shard: one for each lane, dialled, watched and fed. Pure: the driver owns
//! sockets, clock and chance.
//!
//! In: fleets, connections, bytes, time. Out: [`LinkAction`]s, and what nodes say, told to the
//! [`Owner`]. A link that fails is dialled again, later each time; a node that is not heard for the
//! health timeout is down until it proves itself again, and what it has not answered goes back to
//! the owner. A frame is handed to a link only when nothing waits there, so that under load frames
//! grow instead of queues.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::time::{Duration, Instant};
use crate::gateway::fleet::{Fleet, IdsPage};
use crate::gateway::owner::Owner;
use crate::gateway::route::Route;
use crate::model::placement::NodeId;
use crate::model::series::{SLOT_COUNT, Slot};
use crate::wire::frame::Memory;
use crate::wire::link::{
    Dialler, LinkFault, OutgoingFrame, Sender, SenderConfig, SenderEvent, SilenceLimits,
};
use crate::wire::proof::{LinkSecret, NONCE_BYTES};

/// The first pause before a link is dialled again; it doubles up to the last.
const DIAL_AGAIN_FIRST: Duration = Duration::from_millis(50);
const DIAL_AGAIN_LAST: Duration = Duration::from_secs(1);
/// Frames that a link keeps at most: more than any window.
const KEPT_FRAMES_MAX: u32 = 1024;
/// What no sample came of for so long, up to twice, is forgotten: its labels travel again then.
const IDS_AGE_EVERY: Duration = Duration::from_secs(3600);
/// A lane of a slot that another gateway shard owns.
const NO_LANE: u16 = u16::MAX;

/// Where nonces come from: never the same twice, not to be guessed.
pub type Nonces = Box<dyn FnMut() -> [u8; NONCE_BYTES] + Send>;

/// What the links of a shard are made with.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// The gateway, drawn when it started.
    pub gateway: u128,
    /// The shard.
    pub shard: u32,
    /// Of how many.
    pub shard_count: u32,
    /// What both ends know.
    pub secret: LinkSecret,
    /// When silence means what.
    pub silence: SilenceLimits,
    /// Bytes of frames that a link keeps at most.
    pub kept_bytes_max: u64,
}

/// What the driver is to do. Links are named by their lane.
#[derive(Debug)]
pub enum LinkAction {
    /// Connect; then [`Links::handle_connected`].
    Dial {
        /// Which.
        link: u16,
        /// Where to.
        address: SocketAddr,
    },
    /// Send, and then call [`Links::handle_sent`].
    Send {
        /// Which.
        link: u16,
        /// What.
        bytes: Arc<Memory>,
    },
    /// Close the connection, or give the dialling up; then [`Links::handle_closed`].
    Close {
        /// Which.
        link: u16,
    },
}

/// The links of a shard.
pub struct Links {
    config: LinksConfig,
    nonces: Nonces,
    /// By lane.
    lanes: Vec<Link>,
    actions: VecDeque<LinkAction>,
    notices: VecDeque<LinkNotice>,
    /// The newest placement that a node spoke of.
    epoch_heard: u64,
    /// When ids age next.
    age_at: Option<Instant>,
}

/// What people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkNotice {
    /// The node proved itself.
    Up {
        /// Which.
        node: NodeId,
        /// Its shard.
        shard: u32,
    },
    /// The node was not heard for the health timeout.
    Down {
        /// Which.
        node: NodeId,
        /// Its shard.
        shard: u32,
    },
    /// A connection was of no more use.
    Closed {
        /// Which.
        node: NodeId,
        /// Its shard.
        shard: u32,
        /// Why.
        fault: LinkFault,
    },
    /// The node's last words.
    Refused {
        /// Which.
        node: NodeId,
        /// Why.
        text: String,
    },
}

struct Link {
    node: NodeId,
    node_shard: u32,
    /// How many shards the node had when the link was made; 0 if nobody knew.
    shard_count: u32,
    address: Option<SocketAddr>,
    sender: Sender,
    stage: Stage,
    again_after: Duration,
    is_retired: bool,
    /// Since when samples wait for a newer placement.
    parked_since: Option<Instant>,
    /// How many answers had come, and since when none has though frames wait.
    unacked: Option<(u64, Instant)>,
    stats: LinkStats,
}

/// What a link did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames that were handed to it.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Samples in them.
    pub rows: u64,
    /// Samples that the node took nothing of, or not all.
    pub refused: u64,
    /// Connections that proved themselves.
    pub connections: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No connection; the next attempt.
    Waiting(Instant),
    Dialling,
    Open {
        is_sending: bool,
    },
    /// To be closed.
    Closing,
}

/// How a link is, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// Its lane.
    pub lane: u16,
    /// The node.
    pub node: NodeId,
    /// Its shard.
    pub shard: u32,
    /// Whether the node is heard.
    pub is_up: bool,
    /// Frames without an answer.
    pub unacked_frames: u64,
    /// Their bytes.
    pub unacked_bytes: u64,
    /// How long the oldest of them has waited, to a quarter of a second.
    pub unacked_age: Duration,
    /// Bytes that the node has room for.
    pub credit_bytes: u64,
    /// Counters.
    pub stats: LinkStats,
}

impl Links {
    /// No links.
    pub fn new(config: LinksConfig, nonces: Nonces) -> Self {
        Self {
            config,
            nonces,
            lanes: Vec::new(),
            actions: VecDeque::new(),
            notices: VecDeque::new(),
            epoch_heard: 0,
            age_at: None,
        }
    }

    /// Follows a placement and addresses. Links that are no longer needed are closed.
    pub fn handle_fleet(&mut self, now: Instant, fleet: &Fleet, owner: &mut Owner) {
        let mut used = vec![false; self.lanes.len()];
        let mut lanes = Vec::with_capacity(fleet.nodes.len());
        for node in &fleet.nodes {
            let shard_count = u32::try_from(node.shards.len()).expect("at most 1024");
            let mut of_node = Vec::new();
            for shard in 0..shard_count.max(1) {
                if !self.needs(shard, shard_count.max(1)) {
                    of_node.push(NO_LANE);
                    continue;
                }
                let address = node.shards.get(shard as usize).copied();
                let link = self.link_for(now, (node.id, shard, shard_count), owner);
                used.resize(self.lanes.len(), false);
                used[usize::from(link)] = true;
                let one = &mut self.lanes[usize::from(link)];
                one.address = address;
                of_node.push(link);
            }
            lanes.push(of_node);
        }
        owner.handle_route(Route::placed(Arc::clone(&fleet.placement), lanes));
        let epoch = fleet.placement.document().epoch;
        for (link, is_used) in (0u16..).zip(used) {
            self.lanes[usize::from(link)].sender.handle_placement(epoch);
            if !is_used {
                self.retire(link, owner);
            }
        }
    }

    /// Learns ids ahead of the samples that need them.
    pub fn handle_ids(&mut self, page: &IdsPage, owner: &mut Owner) {
        let is_it = |link: &Link| {
            !link.is_retired && (link.node, link.node_shard) == (page.node, page.node_shard)
        };
        if let Some(link) = self.lanes.iter().position(is_it) {
            let link = u16::try_from(link).expect("as many as lanes");
            owner.lane_mut(link).learn(page.id_space, &page.ids);
        }
    }

    /// The node that a lane leads to.
    pub fn node_of(&self, lane: u16) -> NodeId {
        self.lanes[usize::from(lane)].node
    }

    /// The nodes that are in use, and whether every link of the shard to them is up.
    pub fn nodes_up(&self, owner: &Owner) -> BTreeMap<NodeId, bool> {
        let mut nodes = BTreeMap::new();
        for (lane, link) in (0u16..).zip(&self.lanes).filter(|(_, link)| !link.is_retired) {
            *nodes.entry(link.node).or_insert(true) &= !owner.is_lane_down(lane);
        }
        nodes
    }

    /// A connection was made, or not.
    pub fn handle_connected(&mut self, now: Instant, link: u16, is_ok: bool) {
        let one = &mut self.lanes[usize::from(link)];
        if !is_ok {
            one.wait(now);
        } else if one.is_retired {
            one.stage = Stage::Closing;
            self.actions.push_back(LinkAction::Close { link });
        } else {
            one.sender.handle_connected(now, (self.nonces)());
            one.stage = Stage::Open { is_sending: false };
        }
    }

    /// Bytes came.
    pub fn handle_bytes(&mut self, now: Instant, link: u16, bytes: &[u8]) {
        self.lanes[usize::from(link)].sender.handle_bytes(now, bytes);
    }

    /// A send is over; `is_ok` if the connection still works.
    pub fn handle_sent(&mut self, link: u16, is_ok: bool) {
        let one = &mut self.lanes[usize::from(link)];
        if let Stage::Open { is_sending } = &mut one.stage {
            *is_sending = false;
            if !is_ok {
                self.close(link);
            }
        }
    }

    /// The other end closed, or the connection broke: it is to be closed here too.
    pub fn handle_broken(&mut self, link: u16) {
        if matches!(self.lanes[usize::from(link)].stage, Stage::Open { .. }) {
            self.close(link);
        }
    }

    /// The connection is closed.
    pub fn handle_closed(&mut self, now: Instant, link: u16) {
        let one = &mut self.lanes[usize::from(link)];
        one.sender.handle_closed();
        one.wait(now);
    }

    /// Time went by: four times a second, or more often.
    pub fn handle_timer(&mut self, now: Instant, owner: &mut Owner) {
        let is_due = *self.age_at.get_or_insert(now + IDS_AGE_EVERY) <= now;
        if is_due {
            self.age_at = Some(now + IDS_AGE_EVERY);
            (0..owner.lane_count()).for_each(|lane| owner.lane_mut(lane).age_ids());
        }
        for link in 0..self.count() {
            let one = &mut self.lanes[usize::from(link)];
            if one.sender.poll_timeout().is_some_and(|due| due <= now) {
                one.sender.handle_timer(now);
                // At once: what comes after it must find the owner as it left it.
                self.take_events(link, owner);
            }
            let one = &mut self.lanes[usize::from(link)];
            one.note_unacked(now);
            if !owner.has_parked(link) {
                one.parked_since = None;
            } else if now
                >= *one.parked_since.get_or_insert(now) + self.config.silence.unhealthy_after
            {
                owner.refuse_parked(link);
                one.parked_since = None;
            }
        }
    }

    /// Moves frames and answers between owner and links, and dials.
    pub fn work(&mut self, now: Instant, owner: &mut Owner) {
        for link in 0..self.count() {
            self.work_link(now, link, owner);
        }
    }

    /// What the driver is to do next.
    pub fn poll_action(&mut self) -> Option<LinkAction> {
        self.actions.pop_front()
    }

    /// What happened, for people.
    pub fn poll_notice(&mut self) -> Option<LinkNotice> {
        self.notices.pop_front()
    }

    /// The newest placement that a node spoke of.
    pub fn epoch_heard(&self) -> u64 {
        self.epoch_heard
    }

    /// How each link is.
    pub fn views(&self, now: Instant) -> impl Iterator<Item = LinkView> + '_ {
        let used = (0u16..).zip(&self.lanes).filter(|(_, link)| !link.is_retired);
        used.map(move |(lane, link)| {
            let (frames, bytes) = link.sender.kept();
            let waited = link.unacked.map(|(_, since)| now.saturating_duration_since(since));
            LinkView {
                lane,
                node: link.node,
                shard: link.node_shard,
                is_up: link.sender.is_open() && link.sender.is_healthy(),
                unacked_frames: frames as u64,
                unacked_bytes: bytes,
                unacked_age: waited.unwrap_or_default(),
                credit_bytes: link.sender.credit_bytes(),
                stats: link.stats,
            }
        })
    }

    fn count(&self) -> u16 {
        u16::try_from(self.lanes.len()).expect("as many as lanes")
    }

    /// Whether slots of this gateway shard live on that shard of a node.
    fn needs(&self, node_shard: u32, node_shards: u32) -> bool {
        let (own, of) = (self.config.shard, self.config.shard_count);
        let mut slots = (0..SLOT_COUNT).map(Slot);
        slots.any(|slot| slot.shard(of) == own && slot.shard(node_shards) == node_shard)
    }

    /// The link to a node shard, made if there is none.
    fn link_for(
        &mut self,
        now: Instant,
        (node, node_shard, shard_count): (NodeId, u32, u32),
        owner: &mut Owner,
    ) -> u16 {
        let is_it = |link: &Link| {
            !link.is_retired
                && (link.node, link.node_shard, link.shard_count) == (node, node_shard, shard_count)
        };
        if let Some(found) = self.lanes.iter().position(is_it) {
            return u16::try_from(found).expect("as many as lanes");
        }
        // One that leads nowhere any more, and has no connection left, serves again.
        let is_free = |link: &Link| link.is_retired && matches!(link.stage, Stage::Waiting(_));
        let free = self.lanes.iter().position(is_free);
        let nonce = (self.nonces)();
        let incarnation = nonce.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let config = SenderConfig {
            dialler: Dialler {
                gateway: self.config.gateway,
                gateway_shard: self.config.shard,
                gateway_shard_count: self.config.shard_count,
                node_expected: node.0,
                node_shard,
            },
            link_incarnation: incarnation,
            kept_frames_max: KEPT_FRAMES_MAX,
            kept_bytes_max: self.config.kept_bytes_max,
            silence: self.config.silence,
        };
        let link = Link {
            node,
            node_shard,
            shard_count,
            address: None,
            sender: Sender::new(now, config, self.config.secret.clone()),
            stage: Stage::Waiting(now),
            again_after: DIAL_AGAIN_FIRST,
            is_retired: false,
            parked_since: None,
            unacked: None,
            stats: LinkStats::default(),
        };
        let Some(free) = free else {
            self.lanes.push(link);
            let lane = owner.add_lane(node_shard);
            assert!(usize::from(lane) + 1 == self.lanes.len(), "a link for each lane");
            return lane;
        };
        self.lanes[free] = link;
        let lane = u16::try_from(free).expect("as many as lanes");
        owner.reuse_lane(lane, node_shard);
        lane
    }

    /// No sample goes this way any more.
    fn retire(&mut self, link: u16, owner: &mut Owner) {
        let one = &mut self.lanes[usize::from(link)];
        if one.is_retired {
            return;
        }
        one.is_retired = true;
        one.sender.return_frames();
        while one.sender.poll_event().is_some() {}
        owner.retire_lane(link);
        if one.stage != Stage::Closing && !matches!(one.stage, Stage::Waiting(_)) {
            self.close(link);
        }
    }

    fn close(&mut self, link: u16) {
        let one = &mut self.lanes[usize::from(link)];
        one.sender.handle_closed();
        one.stage = Stage::Closing;
        self.actions.push_back(LinkAction::Close { link });
    }

    fn work_link(&mut self, now: Instant, link: u16, owner: &mut Owner) {
        let one = &mut self.lanes[usize::from(link)];
        if one.is_retired {
            return;
        }
        if let (Stage::Waiting(at), Some(address)) = (one.stage, one.address)
            && at <= now
        {
            one.stage = Stage::Dialling;
            self.actions.push_back(LinkAction::Dial { link, address });
        }
        self.take_events(link, owner);
        self.feed(link, owner);
        let one = &mut self.lanes[usize::from(link)];
        if one.stage == (Stage::Open { is_sending: false })
            && let Some(bytes) = one.sender.poll_transmit()
        {
            one.stage = Stage::Open { is_sending: true };
            self.actions.push_back(LinkAction::Send { link, bytes });
        }
    }

    /// All events come before the next frame is made: they change its sequence and its ids.
    fn take_events(&mut self, link: u16, owner: &mut Owner) {
        let one = &mut self.lanes[usize::from(link)];
        let (node, shard) = (one.node, one.node_shard);
        while let Some(event) = one.sender.poll_event() {
            match event {
                SenderEvent::Welcomed(welcome) if welcome.shard_count != one.shard_count => {
                    return self.give_up_node(link, welcome.shard_count, owner);
                }
                SenderEvent::Welcomed(welcome) => {
                    self.epoch_heard = self.epoch_heard.max(welcome.placement_epoch);
                    one.again_after = DIAL_AGAIN_FIRST;
                    one.stats.connections += 1;
                    // Not if it closed in the same breath: nobody would notice that the node is
                    // not heard any more.
                    if one.sender.is_healthy() {
                        owner.handle_lane_up(link, welcome.id_space());
                        self.notices.push_back(LinkNotice::Up { node, shard });
                    }
                }
                SenderEvent::IdsForgotten => owner.handle_ids_forgotten(link),
                // Their samples are the owner's, which was told by the event before.
                SenderEvent::Returned(_) | SenderEvent::Healthy => {}
                SenderEvent::Acked { ack, memory } => {
                    one.stats.refused += ack.refused.len() as u64;
                    owner.handle_ack(link, &ack);
                    if let Some(memory) = memory {
                        owner.lane_mut(link).keep_memory(memory);
                    }
                }
                SenderEvent::FrameRefused { sequence, reason, memory } => {
                    owner.handle_refused(link, sequence, reason);
                    if let Some(memory) = memory {
                        owner.lane_mut(link).keep_memory(memory);
                    }
                }
                SenderEvent::Unhealthy => {
                    one.sender.return_frames();
                    owner.handle_lane_down(link);
                    self.notices.push_back(LinkNotice::Down { node, shard });
                    if matches!(one.stage, Stage::Open { .. }) {
                        one.stage = Stage::Closing;
                        self.actions.push_back(LinkAction::Close { link });
                    }
                }
                SenderEvent::State { placement_epoch, .. } => {
                    self.epoch_heard = self.epoch_heard.max(placement_epoch);
                }
                SenderEvent::NodeRefused { text } => {
                    self.notices.push_back(LinkNotice::Refused { node, text });
                }
                SenderEvent::Close(fault) => {
                    self.notices.push_back(LinkNotice::Closed { node, shard, fault });
                    if matches!(one.stage, Stage::Open { .. }) {
                        one.stage = Stage::Closing;
                        self.actions.push_back(LinkAction::Close { link });
                    }
                }
            }
        }
    }

    /// The node has another number of shards than the fleet says: its series are elsewhere, and
    /// what this shard took of them would be found by nobody. Down until the fleet says so too.
    fn give_up_node(&mut self, link: u16, shard_count: u32, owner: &mut Owner) {
        let one = &mut self.lanes[usize::from(link)];
        one.sender.return_frames();
        while one.sender.poll_event().is_some() {}
        owner.handle_lane_down(link);
        owner.handle_ids_forgotten(link);
        let known = one.shard_count;
        let text = format!("it has {shard_count} shards now, not {known}: waiting for its ports");
        self.notices.push_back(LinkNotice::Refused { node: one.node, text });
        if matches!(one.stage, Stage::Open { .. }) {
            self.close(link);
        }
    }

    /// Hands frames over while the socket waits for nothing else.
    fn feed(&mut self, link: u16, owner: &mut Owner) {
        let one = &mut self.lanes[usize::from(link)];
        while one.stage == (Stage::Open { is_sending: false })
            && one.sender.is_open()
            && one.sender.kept().0 == one.sender.in_flight().0
            && let Some(frame) = owner.poll_frame(link)
        {
            if !one.sender.has_room(frame.bytes.len()) {
                return owner.lane_mut(link).handle_frame_delayed(frame);
            }
            one.stats.frames += 1;
            one.stats.bytes += frame.bytes.len() as u64;
            one.stats.rows += u64::from(frame.sample_count());
            let (new_series_count, sample_count) = (frame.new_series_count(), frame.sample_count());
            let bytes = owner.lane_mut(link).handle_frame_sent(frame);
            let outgoing = OutgoingFrame { bytes, new_series_count, sample_count };
            if let Err(unsent) = one.sender.handle_frame(outgoing) {
                unreachable!("{:?}: the lane keeps step with its link", unsent.reason);
            }
        }
    }
}

impl Link {
    /// The oldest frame without an answer is at least as old as the last answer but one look.
    fn note_unacked(&mut self, now: Instant) {
        let answered = self.stats.frames - self.sender.kept().0 as u64;
        self.unacked = match self.unacked {
            _ if self.sender.kept().0 == 0 => None,
            Some((known, since)) if known == answered => Some((known, since)),
            _ => Some((answered, now)),
        };
    }

    fn wait(&mut self, now: Instant) {
        self.stage = Stage::Waiting(now + self.again_after);
        self.again_after = (self.again_after * 2).min(DIAL_AGAIN_LAST);
    }
}

#[cfg(test)]
mod tests;
