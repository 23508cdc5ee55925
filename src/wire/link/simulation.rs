//! Two gateways and a node shard over a network that fails, on one thread, from one seed.
//!
//! The network delays, cuts connections at any byte, loses what was under way, tells one end of it
//! late or never, holds either direction back, and flips bits. The node restarts with what it
//! remembers of links, without it, or with other ids; what it had not synced is lost then. Its log
//! is full at times, its credit changes, it refuses frames. Gateways restart. Strangers connect.
//! Checked all the time: what is acked is durable and was applied once per life of the node, in
//! sequence, as it was sealed, none skipped; ids are those of the right series; memory is within
//! its bounds; health follows silence. And once faults stop, everything is acked.
//! `gateway` and `node` are the callers that a real process would have; `pipe` is the network.

#![cfg(test)]

mod gateway;
mod node;
mod pipe;

use std::collections::BTreeMap;

use crate::base::random::{Random, run_seeds};
use crate::base::time::{Duration, Instant, monotonic_now};
use crate::wire::link::SilenceLimits;
use crate::wire::proof::LinkSecret;
use gateway::Gateway;
use node::Node;
use pipe::Pipe;

/// The generator of a seed; neighbours have nothing in common.
fn random_of(seed: u64) -> Random {
    Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)
}

fn nonce(random: &mut Random) -> [u8; 32] {
    let mut nonce = [0; 32];
    for part in nonce.chunks_exact_mut(8) {
        part.copy_from_slice(&random.next().to_le_bytes());
    }
    nonce
}

pub(super) const SILENCE: SilenceLimits = SilenceLimits {
    ping_after: Duration::from_millis(100),
    unhealthy_after: Duration::from_millis(400),
    close_after: Duration::from_secs(2),
    handshake_within: Duration::from_millis(400),
};

const FAULTS_FOR: Duration = Duration::from_secs(3);
const QUIET_AT_MOST: Duration = Duration::from_secs(20);
const SAMPLES: u64 = 300;

pub(super) fn secret() -> LinkSecret {
    LinkSecret::new(b"the secret of a simulated fleet").expect("long enough")
}

/// What the world looks like at this moment.
struct World {
    random: Random,
    origin: Instant,
    now: Instant,
    node: Node,
    gateways: Vec<Gateway>,
    /// Connections that at least one end holds, by number.
    pipes: BTreeMap<u64, Pipe>,
    next_pipe: u64,
    /// How often something was tried, so that a run that tests nothing shows.
    deeds: Deeds,
}

#[derive(Clone, Copy, Debug, Default)]
struct Deeds {
    cuts: u64,
    stalls: u64,
    flips: u64,
    restarts: u64,
    strangers: u64,
    resumed: u64,
    acked: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = random_of(seed);
        let origin = monotonic_now();
        let node = Node::new(&mut random);
        let gateways = (0..2).map(|number| Gateway::new(origin, number, &mut random)).collect();
        Self {
            random,
            origin,
            now: origin,
            node,
            gateways,
            pipes: BTreeMap::new(),
            next_pipe: 1,
            deeds: Deeds::default(),
        }
    }

    fn run(&mut self) {
        while self.now < self.origin + FAULTS_FOR {
            self.step();
            self.commit_fault();
        }
        self.node.mend();
        for pipe in self.pipes.values_mut() {
            pipe.mend();
        }
        let end = self.now + QUIET_AT_MOST;
        while !self.is_done() {
            assert!(self.now < end, "faults are over, but not all is acked: {}", self.describe());
            self.step();
        }
        self.rest(end);
    }

    /// Nothing happens any more: all are healthy, and stay so.
    fn rest(&mut self, end: Instant) {
        let mut healthy_since = self.now;
        while self.now < healthy_since + SILENCE.unhealthy_after * 2 {
            assert!(
                self.now < end,
                "faults are over, but not all are healthy: {}",
                self.describe()
            );
            self.step();
            if !self.gateways.iter().all(Gateway::is_healthy) {
                healthy_since = self.now;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.gateways.iter().all(Gateway::is_done)
    }

    fn describe(&self) -> String {
        let gateways: Vec<_> = self.gateways.iter().map(Gateway::describe).collect();
        format!("{gateways:?} {:?} pipes {}", self.node.receiver.counts(), self.pipes.len())
    }

    fn step(&mut self) {
        self.now += Duration::from_micros(1 + self.random.below(10_000));
        self.dial();
        self.deliver();
        self.node.step(self.now, &mut self.random);
        for gateway in &mut self.gateways {
            self.deeds.acked += gateway.step(self.now, &mut self.random, &mut self.node);
        }
        self.transmit();
        self.close();
    }

    /// Opens connections for gateways that have none.
    fn dial(&mut self) {
        for (index, gateway) in self.gateways.iter_mut().enumerate() {
            if gateway.pipe.is_some() || self.now < gateway.dial_at || !self.node.is_up(self.now) {
                continue;
            }
            let Some(id) = self.node.connect(self.now, &mut self.random) else {
                gateway.dial_at = self.now + Duration::from_millis(50);
                continue;
            };
            let number = self.next_pipe;
            self.next_pipe += 1;
            self.pipes.insert(number, Pipe::new(Some(index), id));
            gateway.pipe = Some(number);
            gateway.connect(self.now, &mut self.random);
        }
    }

    /// Hands over what has arrived, and the news of cut connections.
    fn deliver(&mut self) {
        for (number, pipe) in &mut self.pipes {
            let pieces = pipe.to_node.arrived(self.now, &mut self.random);
            if let Some(node_end) = pipe.node_end() {
                for piece in pieces {
                    self.node.handle_bytes(self.now, node_end, &piece);
                }
                if pipe.take_node_closed(self.now) {
                    self.node.handle_closed(node_end);
                }
            }
            let gateway = pipe.gateway.map(|index| &mut self.gateways[index]);
            let pieces = pipe.to_gateway.arrived(self.now, &mut self.random);
            let Some(gateway) = gateway.filter(|gateway| gateway.pipe == Some(*number)) else {
                // A stranger is told nothing but a challenge.
                pipe.stranger_bytes += pieces.iter().map(Vec::len).sum::<usize>();
                assert!(pipe.gateway.is_some() || pipe.stranger_bytes <= 256);
                continue;
            };
            for piece in pieces {
                gateway.handle_bytes(self.now, &piece);
            }
            if pipe.take_gateway_closed(self.now) {
                gateway.handle_closed(self.now);
            }
        }
    }

    fn transmit(&mut self) {
        for (number, pipe) in &mut self.pipes {
            while let Some(node_end) = pipe.node_end()
                && pipe.to_gateway.has_room()
            {
                let Some(bytes) = self.node.poll_transmit(node_end) else { break };
                pipe.to_gateway.send(self.now, &bytes, &mut self.random);
            }
            let Some(index) = pipe.gateway else { continue };
            let gateway = &mut self.gateways[index];
            while gateway.pipe == Some(*number) && pipe.to_node.has_room() {
                let Some(bytes) = gateway.poll_transmit() else { break };
                pipe.to_node.send(self.now, &bytes, &mut self.random);
            }
        }
    }

    /// Closes what either end wants closed, and forgets what neither holds.
    fn close(&mut self) {
        for node_end in self.node.take_closing() {
            let mut pipes = self.pipes.values_mut();
            if let Some(pipe) = pipes.find(|pipe| pipe.node_end() == Some(node_end)) {
                pipe.close_by_node(self.now);
            }
        }
        for gateway in &mut self.gateways {
            if let Some(number) = gateway.take_closing(self.now)
                && let Some(pipe) = self.pipes.get_mut(&number)
            {
                pipe.close_by_gateway(self.now);
            }
        }
        self.pipes.retain(|_, pipe| !pipe.is_over());
    }

    fn commit_fault(&mut self) {
        let random = &mut self.random;
        if random.once_in(60) && !self.pipes.is_empty() {
            let index = random.index(self.pipes.len());
            let pipe = self.pipes.values_mut().nth(index).expect("below their count");
            match random.below(8) {
                0..3 => {
                    self.deeds.cuts += 1;
                    pipe.cut(self.now, random);
                }
                3..6 => {
                    self.deeds.stalls += 1;
                    pipe.stall(self.now, random);
                }
                _ => self.deeds.flips += u64::from(pipe.flip(random)),
            }
        }
        if random.once_in(250) {
            self.deeds.restarts += 1;
            let forgotten = self.node.restart(self.now, random);
            for pipe in self.pipes.values_mut() {
                if forgotten || random.once_in(2) {
                    pipe.die_at_node(self.now, random);
                }
            }
            if !forgotten {
                self.node.close_all(&self.pipes);
            }
        }
        if random.once_in(600) {
            let index = random.index(self.gateways.len());
            let gateway = &mut self.gateways[index];
            if let Some(number) = gateway.pipe.take() {
                let pipe = self.pipes.get_mut(&number).expect("both ends hold it");
                pipe.close_by_gateway(self.now);
            }
            gateway.restart(self.now, random);
        }
        if random.once_in(300) && self.node.is_up(self.now) {
            self.deeds.strangers += 1;
            if let Some(id) = self.node.connect(self.now, random) {
                let mut pipe = Pipe::new(None, id);
                let garbage: Vec<u8> =
                    (0..random.below(3000)).map(|_| random.next().to_le_bytes()[0]).collect();
                pipe.to_node.send(self.now, &garbage, random);
                self.pipes.insert(self.next_pipe, pipe);
                self.next_pipe += 1;
            }
        }
        self.node.commit_fault(self.now, random);
    }
}

#[test]
fn what_is_acked_is_durable_whatever_fails() {
    let names = ("TIDEGATE_LINK_SEEDS", "what_is_acked_is_durable");
    let mut all = Deeds::default();
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        world.deeds.resumed = world.node.resumed;
        world.deeds
    };
    for deeds in run_seeds(names, 0..600, run) {
        all.cuts += deeds.cuts;
        all.stalls += deeds.stalls;
        all.flips += deeds.flips;
        all.restarts += deeds.restarts;
        all.strangers += deeds.strangers;
        all.resumed += deeds.resumed;
        all.acked += deeds.acked;
    }
    // Red if the simulation does not do what it is for.
    assert!(all.acked > 0 && all.cuts > 0 && all.stalls > 0 && all.restarts > 0, "{all:?}");
    assert!(all.flips > 0 && all.strangers > 0 && all.resumed > 0, "{all:?}");
}
