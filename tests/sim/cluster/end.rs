//! What must hold in the simulated cluster: while faults go on, when they are over, and after a
//! restart of everything.

use tidegate::base::time::Instant;
use tidegate::gateway::owner::AckPolicy;

use super::damage::Harm;
use super::gateway::Answer;
use super::node::Node;
use super::{REST_OF_ALL_WITHIN, REST_WITHIN, WAITED_FOR, World, delay};
use crate::node::recover::Wanted;

impl World {
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
            let key = (sample.series, sample.at_ms);
            let is_late = |node: &&usize| {
                let has_heard = self.heard[**node].get(place).is_some_and(|at| *at < arrived);
                // One that was not there has not seen the sample.
                has_heard && !self.record.is_hinted(**node, key)
            };
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
        for (at, _) in &mut self.mail {
            *at = self.now.min(*at);
        }
        for place in &mut self.gateways {
            place.hints.disk.heal();
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
        let end = self.now + REST_OF_ALL_WITHIN;
        let (mut delivered, mut rest_by) = (self.hints_delivered(), self.now + REST_WITHIN);
        while !self.is_at_rest() {
            self.turn();
            if delivered != self.hints_delivered() {
                (delivered, rest_by) = (self.hints_delivered(), self.now + REST_WITHIN);
            }
            let is_in_time = self.now < rest_by.min(end);
            assert!(is_in_time, "no rest at {}: {}", self.unix_ms, self.unrest());
        }
    }

    fn hints_delivered(&self) -> u64 {
        let running = self.gateways.iter().filter_map(|place| place.running.as_ref());
        running.map(|gateway| gateway.keeper.delivered_samples()).sum()
    }

    fn is_at_rest(&self) -> bool {
        let is_idle = |place: &super::GatewayPlace| {
            place.fleet_at.is_none()
                && place.running.as_ref().is_some_and(|gateway| {
                    gateway.is_idle() && gateway.link_faults(self.now).is_empty()
                })
        };
        self.clients.iter().all(super::Client::is_done)
            && self.attempts.is_empty()
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
                let hints = gateway.keeper.unrest();
                said.push(format!("gateway {index} is not idle; hints: {hints}"));
            }
            said.extend(gateway.link_faults(self.now));
        }
        let (attempts, mail) = (self.attempts.len(), self.mail.len());
        said.push(format!("{attempts} attempts without an answer, {mail} in the mail"));
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
            let may_be_damaged = self.harm == Harm::Node(node);
            let wanted = Wanted { shards, are_ids_new: false, may_be_damaged };
            // One that is damaged gets its files back first.
            let is_up = one.start(self.now, &mut self.net, wanted)
                || one.start(self.now, &mut self.net, wanted);
            assert!(is_up, "node {node} does not start");
        }
        self.check_found("after a restart");
    }

    fn check_found(&mut self, what: &str) {
        let found = self.find();
        let excused = self.record.check(&found, (self.ack, &self.plan, &self.pool), what);
        for (node, sample) in excused.nodes {
            let told = self.nodes[node].told();
            assert!(told > 0, "{what}: node {node} lost {sample:?} by a bit, and nobody was told");
        }
        let is_told = self.gateways.iter().any(|place| place.hints.is_damage_told);
        assert!(!excused.hints || is_told, "{what}: hints are damaged, and nobody was told");
    }
}
