//! What goes wrong in the simulated cluster.

use tidegate::base::time::Duration;
use tidegate::model::refusal::Refusal;

use super::damage::Harm;
use super::keeper::HintPlace;
use super::net::Way;
use super::{HOUR_MS, World, delay};

/// Kinds of faults; each run has some of them.
const KINDS: usize = 21;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// What was written stays.
    Kill,
    /// What was not synced is gone.
    Power,
    /// The disk is gone too.
    Lost,
}
/// A fault once in so many turns.
const FAULT_EVERY: usize = 14;

impl World {
    /// Perhaps something goes wrong.
    pub fn fail(&mut self) {
        if self.random.once_in(FAULT_EVERY) {
            self.fail_now();
        }
    }

    /// Something goes wrong, if this run has that kind of fault.
    pub fn fail_now(&mut self) {
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
            6 => {
                let end = [End::Kill, End::Power][self.random.below(2)];
                self.crash_gateway(gateway, end);
            }
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
            15 => {
                let after = self.random.below(60);
                self.nodes[node].disk.cut_power_after(after);
            }
            16 => self.gateways[gateway].hints.disk.cut_power_after(self.random.below(12)),
            17 => self.gateways[gateway].hints.disk.fail_one(&mut self.random),
            18 => {
                let room = [None, None, Some(self.random.below(256 << 10) as u64)];
                self.gateways[gateway].hints.disk.set_room(room[self.random.below(3)]);
            }
            19 => self.move_node(node),
            _ if self.harm == Harm::Gateways => self.crash_gateway(gateway, End::Lost),
            _ => {
                self.crash_gateway(gateway, End::Kill);
                self.flip_in_hints(gateway);
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

    /// A node ends, and comes back somewhere else; perhaps where another one was.
    fn move_node(&mut self, node: usize) {
        let other = self.random.below(self.nodes.len());
        self.crash_node(node, false);
        if self.nodes[node].running.is_some() {
            return;
        }
        if other != node && self.random.once_in(2) {
            self.crash_node(other, false);
            self.net.move_node(node, Some(other));
        } else {
            self.net.move_node(node, None);
        }
    }

    fn long_or_short(&mut self) -> Duration {
        if self.stretch.is_some() {
            return delay(&mut self.random, 40 * 60_000);
        }
        match self.random.below(4) {
            0 => delay(&mut self.random, 12_000),
            1 => delay(&mut self.random, 3_000),
            _ => delay(&mut self.random, 400),
        }
    }

    fn crash_node(&mut self, node: usize, is_power: bool) {
        let down = match self.random.below(3) {
            0 if self.stretch.is_some() => self.long_or_short(),
            0 => delay(&mut self.random, 8_000),
            _ => delay(&mut self.random, 800),
        };
        let one = &mut self.nodes[node];
        if one.running.is_some() {
            one.crash(self.now, &mut self.net, is_power);
            one.start_at = self.now + down;
            self.flip_in_node(node);
        }
    }

    pub fn crash_gateway(&mut self, gateway: usize, end: End) {
        let down = delay(&mut self.random, 2_000);
        let place = &mut self.gateways[gateway];
        if place.running.take().is_none() {
            return;
        }
        match end {
            End::Kill if !place.hints.disk.is_cut() => place.hints.disk.keep_all(),
            End::Kill | End::Power => place.hints.disk.restore_power(),
            End::Lost => {
                let lost = std::mem::replace(&mut place.hints, HintPlace::new(&mut self.random));
                self.record.lose_hints(lost.held);
            }
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
}
