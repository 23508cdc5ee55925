//! The network between gateways and nodes: connections of two directions, each in order, with delay
//! and bandwidth. A direction can be blocked for a while, a connection cut in the middle of a
//! frame; an end that closes does not take back what it sent.
//!
//! Whoever has a turn asks what has come: a process without turns leaves its bytes here.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use tidegate::base::time::{Duration, Instant};

use crate::random::Random;

/// Bytes that a direction holds before a send is over no more.
const ROOM_BYTES: usize = 64 << 10;
/// How long a dial waits for an answer.
const DIAL_WITHIN: Duration = Duration::from_secs(2);

/// Names a connection.
pub type Wire = u64;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    ToNode,
    ToGateway,
}

/// A shard of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub process: usize,
    pub shard: usize,
}

/// What comes to an end of a connection.
#[derive(Debug)]
pub enum Event {
    Bytes(Vec<u8>),
    Sent,
    Broken,
}

#[derive(Default)]
struct Direction {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    queued_bytes: usize,
    /// No byte comes behind this time; whether the reader was told.
    end: Option<(Instant, bool)>,
    /// Whether the writer waits for room.
    is_sending: bool,
    /// What was under way when the way was blocked is tried again after a while only, unlike what
    /// comes over a new connection.
    stalled_until: Option<Instant>,
}

struct Connection {
    gateway: Port,
    node: Port,
    to_node: Direction,
    to_gateway: Direction,
    is_open_at_gateway: bool,
    is_open_at_node: bool,
    is_accepted: bool,
}

struct Dial {
    gateway: Port,
    link: u16,
    node: Port,
    over_at: Instant,
    is_lost: bool,
}

/// All connections.
pub struct Net {
    random: Random,
    connections: BTreeMap<Wire, Connection>,
    next: Wire,
    dials: Vec<Dial>,
    /// Gateway, node, way -> from when until when nothing passes.
    blocked: BTreeMap<(usize, usize, Way), (Instant, Instant)>,
    listening: BTreeMap<Port, bool>,
    /// By node: where it is.
    hosts: Vec<u8>,
    bytes_per_ms: usize,
    delay_us_max: usize,
    /// What was done to connections.
    pub cuts: u64,
}

impl Net {
    /// A network between any gateways and so many nodes.
    pub fn new(mut random: Random, nodes: usize) -> Self {
        let bytes_per_ms = [20, 200, 5_000][random.below(3)];
        let delay_us_max = [500, 5_000, 60_000][random.below(3)];
        Self {
            random,
            connections: BTreeMap::new(),
            next: 1,
            dials: Vec::new(),
            blocked: BTreeMap::new(),
            listening: BTreeMap::new(),
            hosts: (1..=u8::try_from(nodes).expect("few")).collect(),
            bytes_per_ms,
            delay_us_max,
            cuts: 0,
        }
    }

    /// A node's ports are open, or not.
    pub fn listen(&mut self, node: usize, shards: usize) {
        self.listening.retain(|port, _| port.process != node);
        for shard in 0..shards {
            self.listening.insert(Port { process: node, shard }, true);
        }
    }

    /// Where a node is.
    pub fn host_of(&self, node: usize) -> u8 {
        self.hosts[node]
    }

    /// A node that is down comes back at a host that nobody has had, or, if that is down too, at
    /// that of `other`, which comes back at its old one.
    pub fn move_node(&mut self, node: usize, other: Option<usize>) {
        if let Some(other) = other {
            self.hosts.swap(node, other);
        } else {
            let last = self.hosts.iter().max().expect("some nodes");
            self.hosts[node] = last.checked_add(1).expect("few moves");
        }
    }

    /// Everything is fast from now on.
    pub fn hurry(&mut self) {
        (self.bytes_per_ms, self.delay_us_max) = (5_000, 500);
    }

    /// Connects a gateway's shard with a place: whoever is there, if somebody is.
    pub fn dial(&mut self, now: Instant, gateway: Port, link: u16, (host, shard): (u8, usize)) {
        let process = self.hosts.iter().position(|one| *one == host);
        let node = Port { process: process.unwrap_or(usize::MAX), shard };
        let ways = [Way::ToNode, Way::ToGateway];
        let is_lost =
            process.is_none() || ways.iter().any(|way| self.is_blocked(now, (gateway, node), *way));
        let over_at = if is_lost { now + DIAL_WITHIN } else { now + self.delay() };
        self.dials.push(Dial { gateway, link, node, over_at, is_lost });
    }

    /// Gives a dial up: it ends at once, without a connection.
    pub fn give_dial_up(&mut self, now: Instant, gateway: Port, link: u16) {
        for dial in &mut self.dials {
            if (dial.gateway, dial.link) == (gateway, link) {
                (dial.over_at, dial.is_lost) = (now, true);
            }
        }
    }

    /// Dials of a gateway's shard that are over, and the connection that was made.
    pub fn take_dials(&mut self, now: Instant, gateway: Port) -> Vec<(u16, Option<Wire>)> {
        let mut over = Vec::new();
        let dials = std::mem::take(&mut self.dials);
        for dial in dials {
            if dial.gateway != gateway || dial.over_at > now {
                self.dials.push(dial);
                continue;
            }
            let is_made = !dial.is_lost && self.listening.contains_key(&dial.node);
            over.push((dial.link, is_made.then(|| self.connect(gateway, dial.node))));
        }
        over
    }

    fn connect(&mut self, gateway: Port, node: Port) -> Wire {
        let wire = self.next;
        self.next += 1;
        let connection = Connection {
            gateway,
            node,
            to_node: Direction::default(),
            to_gateway: Direction::default(),
            is_open_at_gateway: true,
            is_open_at_node: true,
            is_accepted: false,
        };
        self.connections.insert(wire, connection);
        wire
    }

    /// Connections that a node's shard has not accepted.
    pub fn accept(&mut self, node: Port) -> Vec<Wire> {
        let of_node = self.connections.iter_mut().filter(|(_, one)| one.node == node);
        let new = of_node.filter(|(_, one)| one.is_open_at_node && !one.is_accepted);
        new.map(|(wire, one)| {
            one.is_accepted = true;
            *wire
        })
        .collect()
    }

    /// Sends `bytes` that way; [`Event::Sent`] follows at the writer's end.
    pub fn send(&mut self, now: Instant, wire: Wire, way: Way, bytes: &[u8]) {
        let Some(one) = self.connections.get_mut(&wire) else { return };
        let direction = one.direction(way);
        direction.is_sending = true;
        if direction.end.is_some() {
            return;
        }
        let mut left = bytes;
        while !left.is_empty() {
            let len = left.len().min(1 + self.random.below(1_400));
            let (piece, rest) = left.split_at(len);
            let busy = Duration::from_micros((len * 1_000 / self.bytes_per_ms) as u64);
            let slow = if self.random.once_in(60) { 5 } else { 1 };
            let delay = self.random.below(self.delay_us_max * slow + 1) as u64;
            let at = now + Duration::from_micros(delay);
            let at = direction.pieces.back().map_or(at, |(last, _)| at.max(*last + busy));
            direction.queued_bytes += len;
            direction.pieces.push_back((at, piece.to_vec()));
            left = rest;
        }
    }

    /// What came to the end that reads `way` of this connection, in order.
    pub fn take_events(&mut self, now: Instant, wire: Wire, way: Way) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(one) = self.connections.get(&wire) else { return vec![Event::Broken] };
        let is_blocked = self.is_blocked(now, (one.gateway, one.node), way);
        let one = self.connections.get_mut(&wire).expect("found above");
        let other = match way {
            Way::ToNode => &mut one.to_gateway,
            Way::ToGateway => &mut one.to_node,
        };
        if other.is_sending && (other.queued_bytes < ROOM_BYTES || other.end.is_some()) {
            other.is_sending = false;
            events.push(Event::Sent);
        }
        let direction = one.direction(way);
        if is_blocked || direction.stalled_until.is_some_and(|until| now < until) {
            return events;
        }
        while direction.pieces.front().is_some_and(|(at, _)| *at <= now) {
            let (_, piece) = direction.pieces.pop_front().expect("looked at");
            direction.queued_bytes -= piece.len();
            events.push(Event::Bytes(piece));
        }
        if let Some((at, is_told)) = &mut direction.end
            && direction.pieces.is_empty()
            && *at <= now
            && !std::mem::replace(is_told, true)
        {
            events.push(Event::Broken);
        }
        events
    }

    /// The end that writes `way` is closed by its process.
    pub fn close(&mut self, now: Instant, wire: Wire, way: Way) {
        let delay = self.delay();
        let Some(one) = self.connections.get_mut(&wire) else { return };
        one.direction(way).end.get_or_insert((now + delay, false));
        match way {
            Way::ToNode => {
                one.is_open_at_gateway = false;
                one.to_gateway = Direction { end: Some((now, true)), ..Direction::default() };
            }
            Way::ToGateway => {
                one.is_open_at_node = false;
                one.to_node = Direction { end: Some((now, true)), ..Direction::default() };
            }
        }
        if !one.is_open_at_gateway && !one.is_open_at_node {
            self.connections.remove(&wire);
        }
    }

    /// The process that has this end is gone: some of what it sent arrives, and the other end hears
    /// of it soon, or never.
    pub fn lose_end(&mut self, now: Instant, process: usize, way: Way) {
        let is_its = |one: &Connection| match way {
            Way::ToNode => one.gateway.process == process && one.is_open_at_gateway,
            Way::ToGateway => one.node.process == process && one.is_open_at_node,
        };
        let wires: Vec<_> =
            self.connections.iter().filter(|(_, one)| is_its(one)).map(|(wire, _)| *wire).collect();
        for wire in wires {
            self.lose_some(now, wire, way);
            self.close(now, wire, way);
        }
        if way == Way::ToNode {
            self.dials.retain(|dial| dial.gateway.process != process);
        }
    }

    fn lose_some(&mut self, now: Instant, wire: Wire, way: Way) {
        let heard_after = match self.random.below(4) {
            0 => Duration::from_secs(3_600),
            _ => self.delay(),
        };
        let kept = self.random.below(5);
        let part = self.random.next();
        let one = self.connections.get_mut(&wire).expect("the caller found it");
        let direction = one.direction(way);
        let count = direction.pieces.len() * kept / 4;
        direction.pieces.truncate(count);
        if let Some((_, piece)) = direction.pieces.back_mut() {
            let len = usize::try_from(part % piece.len() as u64).expect("small");
            piece.truncate(1 + len);
        }
        direction.queued_bytes = direction.pieces.iter().map(|(_, piece)| piece.len()).sum();
        direction.end.get_or_insert((now + heard_after, false));
    }

    /// Some connection breaks, wherever its bytes are; each end hears of it in its time.
    pub fn cut_one(&mut self, now: Instant) {
        let count = self.connections.len();
        if count == 0 {
            return;
        }
        let place = self.random.below(count);
        let wire = *self.connections.keys().nth(place).expect("counted");
        self.lose_some(now, wire, Way::ToNode);
        self.lose_some(now, wire, Way::ToGateway);
        self.cuts += 1;
    }

    /// Nothing passes that way for a while; it is not lost.
    pub fn block(
        &mut self,
        (gateway, node): (usize, usize),
        way: Way,
        (now, until): (Instant, Instant),
    ) {
        let (since, before) = self.blocked.entry((gateway, node, way)).or_insert((now, until));
        if *before <= now {
            *since = now;
        }
        *before = until.max(*before);
        let until = *before;
        for one in self.connections.values_mut() {
            if (one.gateway.process, one.node.process) == (gateway, node) {
                let again = Duration::from_millis(self.random.below(3_000) as u64);
                one.direction(way).stalled_until = Some(until + again);
            }
        }
    }

    /// Everything passes; what was to be heard very late is heard.
    pub fn heal(&mut self, now: Instant) {
        self.blocked.clear();
        for one in self.connections.values_mut() {
            for direction in [&mut one.to_node, &mut one.to_gateway] {
                direction.stalled_until = None;
                if let Some((at, _)) = &mut direction.end {
                    *at = now.min(*at);
                }
            }
        }
    }

    /// When ways are open again.
    pub fn ends_of_blocks(&self) -> impl Iterator<Item = Instant> {
        self.blocked.values().map(|(_, until)| *until)
    }

    /// Since when a gateway has heard nothing of a node, because it is blocked that way.
    pub fn blocked_since(&self, now: Instant, gateway: usize, node: usize) -> Option<Instant> {
        let blocked = self.blocked.get(&(gateway, node, Way::ToGateway));
        blocked.filter(|(_, until)| now < *until).map(|(since, _)| *since)
    }

    fn is_blocked(&self, now: Instant, (gateway, node): (Port, Port), way: Way) -> bool {
        let until = self.blocked.get(&(gateway.process, node.process, way));
        until.is_some_and(|(_, until)| now < *until)
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(self.random.below(self.delay_us_max + 1) as u64)
    }
}

impl Connection {
    fn direction(&mut self, way: Way) -> &mut Direction {
        match way {
            Way::ToNode => &mut self.to_node,
            Way::ToGateway => &mut self.to_gateway,
        }
    }
}
