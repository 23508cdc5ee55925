//! What goes wrong in the simulated cluster, and what must hold meanwhile and in the end.

use tidegate::base::time::{Duration, Instant};
use tidegate::gateway::owner::AckPolicy;
use tidegate::model::refusal::Refusal;

use super::gateway::Answer;
use super::net::Way;
use super::node::Node;
use super::{HOUR_MS, REST_WITHIN, WAITED_FOR, World, delay};
use crate::node::recover::Wanted;

/// Kinds of faults; each run has some of them.
const KINDS: usize = 16;
/// A fault once in so many turns.
const FAULT_EVERY: usize = 14;

impl World {
    /// Perhaps something goes wrong.
    pub fn fail(&mut self) {
        if !self.random.once_in(FAULT_EVERY) {
            return;
        }
        let kind = self.random.below(KINDS);
        if self.enabled >> (kind + 2) & 1 == 0 {
            return;
        }
        self.faults += 1;
        let (node, gateway) =
            (self.random.below(self.nodes.len()), self.random.below(self.gateways.len()));
        let until = self.now + self.long_or_short();
        self.trace(|| format!("fault {kind}: node {node}, gateway {gateway}, {until:?}"));
        match kind {
            0 | 1 => self.net.cut_one(self.now),
            2 => {
                let ways = [Way::ToNode, Way::ToGateway];
                let which = self.random.below(3);
                for way in ways.iter().enumerate().filter(|(at, _)| *at != which) {
                    self.net.block((gateway, node), *way.1, (self.now, until));
                }
            }
            3 => self.crash_node(node, true),
            4 => self.crash_node(node, false),
            5 => self.nodes[node].stop(self.now, until),
            6 => self.crash_gateway(gateway),
            7 => {
                let place = &mut self.gateways[gateway];
                if place.running.is_some() {
                    place.stopped_until = until;
                    place.changed_at = until;
                }
            }
            8 => self.nodes[node].sync_ms_max = [4, 4, 200, 3_000][self.random.below(4)],
            9 => {
                let room = [None, None, Some(self.random.below(3 << 20) as u64)];
                self.nodes[node].disk.set_room(room[self.random.below(3)]);
            }
            10 => self.nodes[node].disk.fail_one(&mut self.random),
            11 => self.announce(),
            12 => self.step_clock(),
            13 => self.empty_head(node),
            14 => {
                let low = [None, Some(Refusal::DiskFull)];
                self.nodes[node].low = low[self.random.below(2)];
            }
            _ => {
                let after = self.random.below(60);
                self.nodes[node].disk.cut_power_after(after);
            }
        }
        // One whose log failed is started again by somebody.
        if self.nodes[node].has_failed() && self.random.once_in(3) {
            self.crash_node(node, false);
        }
    }

    /// Everything goes to blocks; perhaps series leave the memory, so that their ids are unknown,
    /// and the node starts without a trace of them.
    fn empty_head(&mut self, node: usize) {
        let is_crash = self.random.once_in(2);
        let one = &mut self.nodes[node];
        one.flush();
        if self.random.once_in(2) {
            self.unix_ms += HOUR_MS / 4;
            self.quiet_until = self.now + Duration::from_millis(2_500);
            one.flush_at = Some(self.now + Duration::from_millis(1_500));
            one.crash_at = is_crash.then(|| self.now + Duration::from_millis(2_200));
        }
    }

    fn long_or_short(&mut self) -> Duration {
        match self.random.below(4) {
            0 => delay(&mut self.random, 12_000),
            1 => delay(&mut self.random, 3_000),
            _ => delay(&mut self.random, 400),
        }
    }

    fn crash_node(&mut self, node: usize, is_power: bool) {
        let down = match self.random.below(3) {
            0 => delay(&mut self.random, 8_000),
            _ => delay(&mut self.random, 800),
        };
        let one = &mut self.nodes[node];
        if one.running.is_some() {
            one.crash(self.now, &mut self.net, is_power);
            one.start_at = self.now + down;
        }
    }

    fn crash_gateway(&mut self, gateway: usize) {
        let down = delay(&mut self.random, 2_000);
        let place = &mut self.gateways[gateway];
        if place.running.take().is_none() {
            return;
        }
        place.start_at = self.now + down;
        place.fleet_at = None;
        self.net.lose_end(self.now, gateway, Way::ToNode);
        let its = self.attempts.iter().filter(|(_, (_, at))| *at == gateway);
        let lost: Vec<_> = its.map(|(name, _)| *name).collect();
        for name in lost {
            self.arrived.remove(&name);
            if let Some((attempt, _)) = self.attempts.remove(&name) {
                self.clients[attempt.client].handle_lost(self.now, name);
            }
        }
    }

    fn announce(&mut self) {
        if self.plan.has_more() {
            self.plan.announced += 1;
            for at in &mut self.node_epoch_at {
                *at = Some(self.now + delay(&mut self.random, 3_000));
            }
            self.tell_gateways();
        }
    }

    fn step_clock(&mut self) {
        self.unix_ms += match self.random.below(8) {
            0 => -HOUR_MS / 6,
            1 => 30 * HOUR_MS,
            2 => HOUR_MS,
            _ => HOUR_MS / 5,
        };
    }

    /// Under which epoch may `answer` say yes? Under none that an owner had heard the end of before
    /// the request came.
    pub fn check_epochs(&self, gateway: usize, arrived: Instant, answer: &Answer) {
        if !(200..300).contains(&answer.status) {
            return;
        }
        let Some((attempt, _)) = self.attempts.get(&answer.attempt) else { return };
        for sample in &attempt.samples {
            let shard = self.pool.shard_of(sample.series, answer.shard_count);
            let epoch = answer.epochs[&shard];
            let place = usize::try_from(epoch).expect("small");
            let owners = self.plan.owners(epoch, &self.pool, sample.series);
            let is_late =
                |node: &&usize| self.heard[**node].get(place).is_some_and(|heard| *heard < arrived);
            let late = owners.iter().filter(is_late).count();
            let bound = if self.ack == AckPolicy::One { owners.len() } else { 1 };
            assert!(
                late < bound,
                "gateway {gateway}: epoch {epoch} was over at node {owners:?} when the sample \
                 came, which it acknowledged"
            );
        }
    }

    pub fn check_bounds(&self) {
        for node in &self.nodes {
            node.check_bounds();
        }
        for (index, place) in self.gateways.iter().enumerate() {
            let Some(gateway) = &place.running else { continue };
            gateway.check_bounds(self.now);
            // It had turns all the time.
            if place.changed_at + WAITED_FOR >= self.now {
                continue;
            }
            for node in 0..self.nodes.len() {
                if self.is_unheard(index, node) {
                    gateway.check_nothing_waits_for(node);
                }
            }
        }
    }

    /// Whether a gateway cannot have heard of a node for longer than it waits for one.
    fn is_unheard(&self, gateway: usize, node: usize) -> bool {
        let one: &Node = &self.nodes[node];
        one.running.is_none() && one.changed_at + WAITED_FOR < self.now
            || self.now < one.stopped_until && one.stopped_since + WAITED_FOR < self.now
            || self
                .net
                .blocked_since(self.now, gateway, node)
                .is_some_and(|since| since + WAITED_FOR < self.now)
    }

    /// With the faults gone everything comes to rest.
    pub fn rest(&mut self) {
        self.is_over = true;
        self.net.heal(self.now);
        for place in &mut self.gateways {
            place.stopped_until = self.now;
            place.start_at = self.now;
            place.fleet_at = Some(self.now + delay(&mut self.random, 500));
        }
        for (at, node) in self.node_epoch_at.iter_mut().zip(&mut self.nodes) {
            *at = Some(self.now + delay(&mut self.random, 500));
            node.disk.heal();
            node.stopped_until = self.now;
            node.start_at = self.now;
            node.sync_ms_max = 4;
            node.low = None;
            node.crash_at = None;
            node.flush_at = None;
            if node.has_failed() {
                node.crash(self.now, &mut self.net, false);
            }
        }
        let end = self.now + REST_WITHIN;
        while !self.is_at_rest() {
            self.turn();
            assert!(self.now < end, "no rest: {}", self.unrest());
        }
    }

    fn is_at_rest(&self) -> bool {
        let is_idle = |place: &super::GatewayPlace| {
            place.fleet_at.is_none()
                && place.running.as_ref().is_some_and(|gateway| {
                    gateway.is_idle() && gateway.link_faults(self.now).is_empty()
                })
        };
        self.clients.iter().all(super::Client::is_done)
            && self.mail.is_empty()
            && self.gateways.iter().all(is_idle)
            && self.nodes.iter().all(|node| node.running.is_some())
    }

    fn unrest(&self) -> String {
        let mut said = Vec::new();
        for (index, client) in self.clients.iter().enumerate() {
            if !client.is_done() {
                said.push(format!("client {index} tries for {:?}", client.tries_for(self.now)));
            }
        }
        for (index, place) in self.gateways.iter().enumerate() {
            let Some(gateway) = &place.running else {
                said.push(format!("gateway {index} does not run"));
                continue;
            };
            if !gateway.is_idle() {
                said.push(format!("gateway {index} is not idle"));
            }
            said.extend(gateway.link_faults(self.now));
        }
        said.join("; ")
    }

    /// Everything is there, and still is after all nodes were started again.
    pub fn check_end(&mut self) {
        self.check_found("at rest");
        for node in 0..self.nodes.len() {
            let is_power = self.random.once_in(2);
            let one = &mut self.nodes[node];
            one.crash(self.now, &mut self.net, is_power);
            let shards = self.random.below(super::SHARDS_MAX + 1);
            let wanted = Wanted { shards, are_ids_new: false };
            assert!(one.start(self.now, &mut self.net, wanted), "node {node} does not start");
        }
        self.check_found("after a restart");
    }
}
