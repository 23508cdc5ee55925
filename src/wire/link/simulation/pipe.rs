//! A connection of the simulated network: two directions, each in order, that can be held back, cut
//! and damaged.

use std::collections::VecDeque;

use crate::base::random::Random;
use crate::base::time::{Duration, Instant};
use crate::wire::link::ConnectionId;

/// Bytes that a direction holds before the sender has to wait.
const ROOM_BYTES: usize = 6000;

pub struct Pipe {
    /// `None`: a stranger's.
    pub gateway: Option<usize>,
    node_end: ConnectionId,
    pub to_node: Direction,
    pub to_gateway: Direction,
    pub stranger_bytes: usize,
    /// When an end learns that the connection is closed.
    node_closed_at: Option<Instant>,
    gateway_closed_at: Option<Instant>,
    node_holds: bool,
    gateway_holds: bool,
}

#[derive(Default)]
pub struct Direction {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    stalled_until: Option<Instant>,
    is_cut: bool,
}

impl Pipe {
    pub fn new(gateway: Option<usize>, node_end: ConnectionId) -> Self {
        Self {
            gateway,
            node_end,
            to_node: Direction::default(),
            to_gateway: Direction::default(),
            stranger_bytes: 0,
            node_closed_at: None,
            gateway_closed_at: None,
            node_holds: true,
            gateway_holds: gateway.is_some(),
        }
    }

    /// The node's name for it, while it holds it.
    pub fn node_end(&self) -> Option<ConnectionId> {
        self.node_holds.then_some(self.node_end)
    }

    /// Both directions end at some byte of what is under way; each end learns of it in its time,
    /// the node perhaps never.
    pub fn cut(&mut self, now: Instant, random: &mut Random) {
        self.to_node.cut(random);
        self.to_gateway.cut(random);
        let later = |random: &mut Random| now + Duration::from_millis(random.below(60));
        self.gateway_closed_at.get_or_insert(later(random));
        if !random.once_in(3) {
            self.node_closed_at.get_or_insert(later(random));
        }
    }

    /// The node's process is gone, and its end with it.
    pub fn die_at_node(&mut self, now: Instant, random: &mut Random) {
        self.cut(now, random);
        self.node_holds = false;
    }

    pub fn stall(&mut self, now: Instant, random: &mut Random) {
        let long = if random.once_in(4) { 4000 } else { 800 };
        let until = now + Duration::from_millis(random.below(long));
        let which = random.below(3);
        if which != 0 {
            self.to_node.stalled_until = Some(until);
        }
        if which != 1 {
            self.to_gateway.stalled_until = Some(until);
        }
    }

    /// Whether there was a bit to flip.
    pub fn flip(&mut self, random: &mut Random) -> bool {
        let direction = if random.once_in(2) { &mut self.to_node } else { &mut self.to_gateway };
        let count = direction.pieces.len();
        if count == 0 || direction.is_cut {
            return false;
        }
        let piece = &mut direction.pieces[random.index(count)].1;
        let header = piece.windows(4).position(|bytes| bytes == b"tdg1");
        let bit = match header {
            // A length that is too long hides what comes behind it: rare, and worth more chances.
            Some(start) if random.once_in(2) && start + 20 <= piece.len() => {
                8 * (start + 16) + random.index(32)
            }
            _ => random.index(8 * piece.len()),
        };
        piece[bit / 8] ^= 1 << (bit % 8);
        true
    }

    /// No stall from now on.
    pub fn mend(&mut self) {
        self.to_node.stalled_until = None;
        self.to_gateway.stalled_until = None;
    }

    pub fn close_by_node(&mut self, now: Instant) {
        self.node_holds = false;
        self.to_node.is_cut = true;
        self.to_node.pieces.clear();
        // What was sent before still arrives, and then the end.
        let last = self.to_gateway.pieces.back().map_or(now, |(at, _)| *at);
        self.gateway_closed_at.get_or_insert(last + Duration::from_millis(1));
    }

    pub fn close_by_gateway(&mut self, now: Instant) {
        self.gateway_holds = false;
        self.to_gateway.is_cut = true;
        self.to_gateway.pieces.clear();
        let last = self.to_node.pieces.back().map_or(now, |(at, _)| *at);
        self.node_closed_at.get_or_insert(last + Duration::from_millis(1));
    }

    pub fn take_node_closed(&mut self, now: Instant) -> bool {
        let is_due = self.node_holds
            && self.node_closed_at.is_some_and(|at| at <= now)
            && (self.to_node.pieces.is_empty() || self.to_node.is_cut);
        self.node_holds &= !is_due;
        is_due
    }

    pub fn take_gateway_closed(&mut self, now: Instant) -> bool {
        let is_due = self.gateway_holds
            && self.gateway_closed_at.is_some_and(|at| at <= now)
            && (self.to_gateway.pieces.is_empty() || self.to_gateway.is_cut);
        self.gateway_holds &= !is_due;
        is_due
    }

    pub fn is_over(&self) -> bool {
        !self.node_holds && !self.gateway_holds
    }
}

impl Direction {
    pub fn has_room(&self) -> bool {
        self.pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>() < ROOM_BYTES
    }

    /// Sends `bytes` in pieces of any length.
    pub fn send(&mut self, now: Instant, mut bytes: &[u8], random: &mut Random) {
        if self.is_cut {
            return;
        }
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(1 + random.index(700)));
            let at = now + Duration::from_micros(random.below(8000));
            let at = self.pieces.back().map_or(at, |(last, _)| at.max(*last));
            self.pieces.push_back((at, piece.to_vec()));
            bytes = rest;
        }
    }

    /// What has arrived. A piece may come in two.
    pub fn arrived(&mut self, now: Instant, random: &mut Random) -> Vec<Vec<u8>> {
        if self.stalled_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        let mut arrived = Vec::new();
        while self.pieces.front().is_some_and(|(at, _)| *at <= now) {
            let (_, mut piece) = self.pieces.pop_front().expect("looked at");
            let rest = piece.split_off(random.index(piece.len() + 1));
            arrived.extend([piece, rest]);
        }
        arrived
    }

    fn cut(&mut self, random: &mut Random) {
        let left = random.index(self.pieces.len() + 1);
        self.pieces.truncate(left);
        if let Some((_, piece)) = self.pieces.back_mut() {
            piece.truncate(1 + random.index(piece.len()));
        }
        self.is_cut = true;
    }
}
