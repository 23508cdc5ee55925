//! A node shard as its process would run the receiver: frames are applied at once and durable after
//! a sync, ids are given, acks follow in order. And what the tests compare with: everything that
//! was ever sealed, applied and durable.

use std::collections::{HashMap, HashSet, VecDeque};

use super::pipe::Pipe;
use super::{SILENCE, nonce, secret};
use crate::base::checksum::crc32c;
use crate::base::random::Random;
use crate::base::time::{Duration, Instant};
use crate::model::refusal::Refusal;
use crate::model::series::{SeriesHash, SeriesId};
use crate::wire::ack::{Ack, RefusedSample};
use crate::wire::frame::{FRAME_HEADER_BYTES, Memory};
use crate::wire::health::NodeState;
use crate::wire::hello::Hello;
use crate::wire::link::{
    ConnectionId, LinkFault, Receiver, ReceiverConfig, ReceiverEvent, WindowLimits,
};
use crate::wire::write::{NEW_SERIES, WriteView};

pub const NODE: u128 = 77;
pub const SHARD: u32 = 1;
pub const WINDOW: WindowLimits = WindowLimits { frames: 6, bytes: 3000 };
/// Buffers of all connections, and a window of answers for each link.
const MEMORY_BYTES_MAX: usize = 80 << 10;

/// Names a frame for ever: gateway, link incarnation, sequence.
type FrameName = (u128, u64, u64);

pub struct Node {
    pub receiver: Receiver,
    incarnation: u64,
    up_at: Option<Instant>,
    full_until: Option<Instant>,
    sync_done_at: Option<Instant>,
    syncing: usize,
    /// Taken, not acked: samples, the ack.
    pending: VecDeque<(Vec<(u64, SeriesHash)>, Ack)>,
    /// Ids that were given in this incarnation, and how many of them are durable.
    ids: Vec<SeriesHash>,
    id_of: HashMap<SeriesHash, u32>,
    durable_ids: usize,
    /// Which link a connection is of.
    links: HashMap<ConnectionId, (u128, u64)>,
    wants: HashSet<ConnectionId>,
    closing: Vec<ConnectionId>,
    /// What gateways sealed: checksum of the frame.
    pub sealed: HashMap<FrameName, u32>,
    /// The newest frame of each link that ever was taken, and those taken in this life.
    newest: HashMap<(u128, u64), u64>,
    taken_in_this_life: HashSet<FrameName>,
    /// Samples that are on the disk.
    pub durable: HashMap<u64, SeriesHash>,
    pub refused: HashSet<u64>,
    /// Connections that went on with a known link.
    pub resumed: u64,
}

impl Node {
    pub fn new(random: &mut Random) -> Self {
        let mut node = Self {
            receiver: receiver(1),
            incarnation: 1,
            up_at: None,
            full_until: None,
            sync_done_at: None,
            syncing: 0,
            pending: VecDeque::new(),
            ids: Vec::new(),
            id_of: HashMap::new(),
            durable_ids: 0,
            links: HashMap::new(),
            wants: HashSet::new(),
            closing: Vec::new(),
            sealed: HashMap::new(),
            newest: HashMap::new(),
            taken_in_this_life: HashSet::new(),
            durable: HashMap::new(),
            refused: HashSet::new(),
            resumed: 0,
        };
        node.begin(random);
        node
    }

    fn begin(&mut self, random: &mut Random) {
        self.receiver.handle_state(NodeState::Ready);
        self.receiver.handle_placement(3);
        self.receiver.handle_credit(random.below(2) * WINDOW.bytes);
    }

    pub fn is_up(&self, now: Instant) -> bool {
        self.up_at.is_none_or(|at| at <= now)
    }

    pub fn connect(&mut self, now: Instant, random: &mut Random) -> Option<ConnectionId> {
        self.receiver.handle_connected(now, nonce(random))
    }

    pub fn handle_bytes(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) {
        self.receiver.handle_bytes(now, id, bytes);
        self.take_events();
    }

    pub fn handle_closed(&mut self, id: ConnectionId) {
        self.receiver.handle_closed(id);
    }

    pub fn take_closing(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.closing)
    }

    pub fn poll_transmit(&mut self, id: ConnectionId) -> Option<std::sync::Arc<Memory>> {
        if !self.wants.contains(&id) {
            return None;
        }
        let bytes = self.receiver.poll_transmit(id);
        if bytes.is_none() {
            self.wants.remove(&id);
        }
        bytes
    }

    pub fn step(&mut self, now: Instant, random: &mut Random) {
        if !self.is_up(now) {
            return;
        }
        if self.receiver.poll_timeout().is_some_and(|at| at <= now) {
            self.receiver.handle_timer(now);
        }
        self.take_frames(now, random);
        self.sync(now, random);
        self.take_events();
        assert!(self.receiver.memory_bytes() <= MEMORY_BYTES_MAX, "the receiver's memory");
    }

    fn take_events(&mut self) {
        while let Some(event) = self.receiver.poll_event() {
            match event {
                ReceiverEvent::Opened { connection, hello } => {
                    let Hello { gateway, link_incarnation, .. } = *hello;
                    self.links.insert(connection, (gateway, link_incarnation));
                    self.resumed +=
                        u64::from(self.newest.contains_key(&(gateway, link_incarnation)));
                }
                ReceiverEvent::Transmit(id) => {
                    self.wants.insert(id);
                }
                ReceiverEvent::Close { connection, fault } => {
                    let is_expected = matches!(
                        fault,
                        LinkFault::Frame(_)
                            | LinkFault::Silent
                            | LinkFault::HandshakeTimeout
                            | LinkFault::Superseded
                    );
                    assert!(is_expected, "the receiver: {fault}");
                    // The words that it sends before it closes may be lost.
                    self.receiver.handle_closed(connection);
                    self.closing.push(connection);
                }
            }
        }
    }

    fn take_frames(&mut self, now: Instant, random: &mut Random) {
        while self.full_until.is_none_or(|until| until <= now) {
            let Some(frame) = self.receiver.poll_frame() else { return };
            let link = self.links[&frame.connection];
            let sequence = frame.header.sequence;
            let name = (link.0, link.1, sequence);
            let sealed = self.sealed.get(&name).copied();
            assert_eq!(sealed, Some(crc32c(frame.bytes)), "a frame that nobody sealed: {name:?}");
            let newest = self.newest.entry(link).or_insert(0);
            assert!(sequence <= *newest + 1, "skipped to {name:?} from {newest}");
            *newest = sequence.max(*newest);
            assert!(self.taken_in_this_life.insert(name), "taken twice in one life: {name:?}");
            let view = WriteView::check(&frame.bytes[FRAME_HEADER_BYTES..]).expect("checked");
            if random.once_in(60) {
                self.receiver.handle_frame_refused(Refusal::Overloaded);
                continue;
            }
            let (samples, ack) = apply(view, sequence, &mut self.ids, &mut self.id_of);
            self.receiver.handle_frame_taken();
            self.pending.push_back((samples, ack));
            if random.once_in(40) {
                let millis = random.below(150);
                self.full_until = Some(now + Duration::from_millis(millis));
            }
        }
    }

    /// Group commit: one sync at a time, of all that gathered.
    fn sync(&mut self, now: Instant, random: &mut Random) {
        if self.sync_done_at.is_some_and(|at| at <= now) {
            self.sync_done_at = None;
            for _ in 0..self.syncing {
                let (samples, ack) = self.pending.pop_front().expect("being synced");
                for (index, (sample, series)) in (0u32..).zip(samples) {
                    if ack.refused.iter().any(|refused| refused.index == index) {
                        self.refused.insert(sample);
                    } else {
                        self.durable.insert(sample, series);
                    }
                }
                let given = ack.assigned.iter().flatten().map(|id| id.0 as usize + 1);
                self.durable_ids = given.max().unwrap_or(0).max(self.durable_ids);
                self.receiver.handle_ack(ack);
            }
        }
        if self.sync_done_at.is_none() && !self.pending.is_empty() {
            self.syncing = self.pending.len();
            self.sync_done_at = Some(now + Duration::from_millis(random.below(40)));
        }
    }

    pub fn commit_fault(&mut self, now: Instant, random: &mut Random) {
        if random.once_in(150) && self.is_up(now) {
            let credit = [0, 100, 900, WINDOW.bytes][random.index(4)];
            self.receiver.handle_credit(credit);
        }
    }

    pub fn mend(&mut self) {
        self.receiver.handle_credit(WINDOW.bytes);
    }

    /// Restarts; whether what it knew of links is forgotten. If not, only connections are lost.
    pub fn restart(&mut self, now: Instant, random: &mut Random) -> bool {
        self.wants.clear();
        if random.once_in(2) {
            return false;
        }
        if random.once_in(2) {
            // All that is durable goes to other shards and back: other ids.
            self.incarnation += 1;
            self.durable_ids = 0;
        }
        self.receiver = receiver(self.incarnation);
        self.ids.truncate(self.durable_ids);
        self.id_of = (0..).zip(&self.ids).map(|(id, series)| (*series, id)).collect();
        self.pending.clear();
        self.sync_done_at = None;
        self.links.clear();
        self.taken_in_this_life.clear();
        self.up_at = Some(now + Duration::from_millis(random.below(700)));
        self.begin(random);
        true
    }

    /// The process goes on, its connections do not.
    pub fn close_all(&mut self, pipes: &std::collections::BTreeMap<u64, Pipe>) {
        for node_end in pipes.values().filter_map(Pipe::node_end) {
            self.receiver.handle_closed(node_end);
            self.closing.push(node_end);
        }
    }

    /// Which series an id is of now; `None` if the node's ids are others.
    pub fn series_of(&self, incarnation: u64, id: SeriesId) -> Option<SeriesHash> {
        let is_current = incarnation == self.incarnation;
        is_current.then(|| self.ids.get(id.0 as usize).copied().unwrap_or(SeriesHash(0)))
    }
}

fn receiver(incarnation: u64) -> Receiver {
    let config = ReceiverConfig {
        node: NODE,
        incarnation,
        shard: SHARD,
        shard_count: 2,
        link_ports: vec![9001, 9002],
        window: WINDOW,
        links_max: 8,
        strangers_max: 6,
        answer_bytes_max: 1 << 20,
        silence: SILENCE,
    };
    Receiver::new(config, secret())
}

/// What a head would do: ids for new series, samples by series. Every 16th sample is too old.
fn apply(
    view: WriteView,
    sequence: u64,
    ids: &mut Vec<SeriesHash>,
    id_of: &mut HashMap<SeriesHash, u32>,
) -> (Vec<(u64, SeriesHash)>, Ack) {
    let assigned: Vec<_> = view
        .new_series()
        .map(|new| {
            let id = *id_of.entry(new.hash).or_insert_with(|| {
                ids.push(new.hash);
                u32::try_from(ids.len() - 1).expect("few series")
            });
            Ok(SeriesId(id))
        })
        .collect();
    let mut ack = Ack { sequence, assigned, refused: Vec::new() };
    let mut samples = Vec::new();
    for (index, (&entry, &sample)) in (0u32..).zip(view.series.iter().zip(view.timestamp_ms)) {
        let id = match entry & NEW_SERIES {
            0 => Some(SeriesId(entry)),
            _ => ack.assigned[(entry & !NEW_SERIES) as usize].ok(),
        };
        let series = id.and_then(|id| ids.get(id.0 as usize)).copied();
        let sample = sample.cast_unsigned();
        samples.push((sample, series.unwrap_or(SeriesHash(0))));
        if series.is_none() {
            ack.refused.push(RefusedSample { index, reason: Refusal::UnknownSeries });
        } else if sample.is_multiple_of(16) {
            ack.refused.push(RefusedSample { index, reason: Refusal::TooOld });
        }
    }
    (samples, ack)
}
