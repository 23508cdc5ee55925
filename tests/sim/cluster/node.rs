//! A node process of the simulated cluster: shards with real logs on a disk of its own, and the
//! links that lead to them.
//!
//! A turn takes what came, moves frames into head and log and acks out, and goes on with the log's
//! writes, segments, snapshots and flushes. A crash loses what was not synced; a start replays.

use std::collections::BTreeMap;

use tidegate::base::time::{Duration, Instant};
use tidegate::model::refusal::Refusal;
use tidegate::node::links::{NodeLinkAction, NodeLinkNotice, NodeLinks};
use tidegate::wire::link::{ConnectionId, LinkFault, ReceiverConfig, SilenceLimits, WindowLimits};
use tidegate::wire::proof::LinkSecret;

use super::damage::Flip;
use super::net::{Event, Net, Port, Way, Wire};
use crate::drive::drive;
use crate::fake_disk::FakeDisk;
use crate::node::recover::{self, Wanted};
use crate::node::shard::ShardSide;
use crate::node::{Rules, Store};
use crate::oracle::Found;
use crate::random::Random;
use crate::series::Pool;

const TICK: Duration = Duration::from_millis(250);
const LINKS_MAX: u32 = 64;

/// Settings that stay over all starts of a node.
#[derive(Clone)]
pub struct NodeSettings {
    pub index: usize,
    pub id: u128,
    pub rules: Rules,
    pub secret: LinkSecret,
    pub window: WindowLimits,
    /// Of the simulation's clock; wall clock seconds pass at this pace.
    pub second: Duration,
}

/// A node, running or not.
pub struct Node {
    pub settings: NodeSettings,
    pub disk: FakeDisk,
    random: Random,
    pub running: Option<Running>,
    /// What a document of its own on disk says.
    pub epoch: u64,
    /// No turn before.
    pub stopped_until: Instant,
    /// Since when it has no turns.
    pub stopped_since: Instant,
    /// When it is started again, if it is down.
    pub start_at: Instant,
    /// When everything in memory is to go to blocks.
    pub flush_at: Option<Instant>,
    /// When it ends again, if that is decided already.
    pub crash_at: Option<Instant>,
    /// Most that a sync takes.
    pub sync_ms_max: usize,
    /// Why no sample is taken, whatever the log says.
    pub low: Option<Refusal>,
    /// When the process began or ended.
    pub changed_at: Instant,
    /// Bits that flipped on its disk.
    pub flips: Vec<Flip>,
    /// How often damage was told.
    told: u64,
}

/// The process.
pub struct Running {
    pub store: Store,
    pub shards: Vec<Shard>,
    pub incarnation: u64,
    tick_at: Instant,
    second_at: Instant,
}

/// One of its shards.
pub struct Shard {
    pub side: ShardSide,
    pub links: NodeLinks,
    wires: BTreeMap<ConnectionId, Wire>,
    synced_at: Option<Instant>,
    is_failure_told: bool,
}

/// The time, as a process sees it.
#[derive(Clone, Copy)]
pub struct Clock {
    pub now: Instant,
    pub unix_ms: i64,
}

impl Node {
    /// The node of this number, as it begins, with settings that all have.
    pub fn first(
        index: usize,
        settings: &NodeSettings,
        (now, net): (Instant, &mut Net),
        random: &mut Random,
    ) -> Self {
        let id = super::plan::id_of(index).0;
        let settings = NodeSettings { index, id, ..settings.clone() };
        let shards = 1 + random.below(super::SHARDS_MAX);
        net.listen(index, shards);
        Self::new(settings, shards, now, random)
    }

    fn new(settings: NodeSettings, shards: usize, now: Instant, random: &mut Random) -> Self {
        let mut random = Random::new(random.next());
        let disk = FakeDisk::new(&mut random);
        let (store, sides) = recover::first_start(&disk, &settings.rules, shards);
        let mut node = Self {
            settings,
            disk,
            random,
            running: None,
            epoch: 1,
            stopped_until: now,
            stopped_since: now,
            start_at: now,
            flush_at: None,
            crash_at: None,
            sync_ms_max: 4,
            low: None,
            changed_at: now,
            flips: Vec::new(),
            told: 0,
        };
        node.running = Some(node.run(now, (store, sides, 1)));
        node
    }

    fn run(&self, now: Instant, (store, sides, incarnation): recover::Started) -> Running {
        let shard_count = sides.len();
        let ports = (0..shard_count).map(|shard| port_of(shard).1).collect::<Vec<_>>();
        let shards = sides.into_iter().enumerate().map(|(shard, side)| {
            let config = ReceiverConfig {
                node: self.settings.id,
                incarnation,
                shard: u32::try_from(shard).expect("few"),
                link_ports: ports.clone(),
                shard_count: u32::try_from(shard_count).expect("few"),
                window: self.settings.window,
                links_max: LINKS_MAX,
                strangers_max: 64,
                answer_bytes_max: 1 << 20,
                silence: SilenceLimits::default(),
            };
            Shard {
                side,
                links: NodeLinks::new(config, self.settings.secret.clone()),
                wires: BTreeMap::new(),
                synced_at: None,
                is_failure_told: false,
            }
        });
        Running { store, shards: shards.collect(), incarnation, tick_at: now, second_at: now }
    }

    /// No turns for a while.
    pub fn stop(&mut self, now: Instant, until: Instant) {
        if now >= self.stopped_until {
            self.stopped_since = now;
        }
        self.stopped_until = until.max(self.stopped_until);
    }

    /// Everything in memory is to go to blocks.
    pub fn flush(&mut self) {
        for shard in self.running.iter_mut().flat_map(|running| &mut running.shards) {
            shard.side.node.handle_flush_request();
        }
    }

    pub fn shard_count(&self) -> Option<usize> {
        self.running.as_ref().map(|running| running.shards.len())
    }

    pub fn has_failed(&self) -> bool {
        let shards = self.running.iter().flat_map(|running| &running.shards);
        shards.into_iter().any(|shard| shard.side.has_failed())
    }

    /// The process ends, and with `is_power` what was not synced is gone.
    pub fn crash(&mut self, now: Instant, net: &mut Net, is_power: bool) {
        let Some(running) = self.running.take() else { return };
        self.told += running.store.set_aside_count();
        net.listen(self.settings.index, 0);
        net.lose_end(now, self.settings.index, Way::ToGateway);
        if is_power || self.disk.is_cut() {
            self.disk.restore_power();
        } else {
            self.disk.keep_all();
        }
        self.changed_at = now;
    }

    /// The process begins; whether it could.
    pub fn start(&mut self, now: Instant, net: &mut Net, wanted: Wanted) -> bool {
        assert!(self.running.is_none());
        let disk = self.disk.clone();
        match drive(&disk, recover::start(&disk, &self.settings.rules, wanted)) {
            Some(Ok((started, told))) => {
                self.told += told;
                let running = self.run(now, started);
                net.listen(self.settings.index, running.shards.len());
                self.running = Some(running);
                self.stopped_until = now;
                self.changed_at = now;
                true
            }
            Some(Err(errno)) => {
                disk.keep_all();
                if errno == recover::DAMAGED {
                    // Its files are as they were, as if from a backup.
                    self.told += 1;
                    self.flips.drain(..).for_each(|flip| flip.apply(&disk));
                }
                false
            }
            None => {
                disk.restore_power();
                false
            }
        }
    }

    /// How often somebody was told of damage.
    pub fn told(&self) -> u64 {
        self.told + self.running.as_ref().map_or(0, |running| running.store.set_aside_count())
    }

    /// What queries find. A block that turns out to be damaged is told, and left out.
    pub fn find(&mut self, pool: &Pool, random: &mut Random) -> Found {
        let running = self.running.as_ref().expect("it runs");
        let sides: Vec<_> = running.shards.iter().map(|shard| &shard.side).collect();
        // Each time at least one block is set aside.
        for _ in 0..1_000 {
            let found = crate::node::find(&self.disk, &running.store, (&sides, pool), random);
            if let Ok(found) = found.expect("power") {
                self.told += running.store.set_aside_count();
                return found;
            }
            assert!(!self.flips.is_empty(), "no faults");
        }
        panic!("a block that is set aside is read again");
    }

    /// Everything that the process does at once; `false`: the power was cut meanwhile.
    pub fn turn(&mut self, clock: Clock, net: &mut Net) -> bool {
        let Self { settings, disk, random, running, epoch, sync_ms_max, low, .. } = self;
        let Some(running) = running else { return true };
        let is_tick = clock.now >= running.tick_at;
        if is_tick {
            running.tick_at = clock.now + TICK;
        }
        let is_second = clock.now >= running.second_at;
        if is_second {
            running.second_at = clock.now + settings.second;
        }
        for (index, shard) in running.shards.iter_mut().enumerate() {
            let port = Port { process: settings.index, shard: index };
            shard.receive(clock.now, port, net, random);
            if is_tick {
                shard.links.handle_timer(clock.now);
            }
            if is_second {
                shard.side.node.handle_retry();
                shard.side.node.handle_second(clock.unix_ms);
            }
            shard.links.handle_placement(*epoch);
            shard.links.work(&mut shard.side.node, *low);
            shard.transmit(clock.now, net);
            let sync_ms = random.below(*sync_ms_max + 1) as u64;
            if shard.store(clock.now, disk, &running.store, sync_ms).is_none() {
                return false;
            }
            // Acks leave in the same turn.
            shard.links.work(&mut shard.side.node, *low);
            shard.transmit(clock.now, net);
        }
        true
    }

    /// Bounds of what links and logs hold.
    pub fn check_bounds(&self) {
        let Some(running) = &self.running else { return };
        let window = usize::try_from(self.settings.window.bytes).expect("small");
        for shard in &running.shards {
            shard.side.check_bounds(&self.settings.rules);
            let (connections, links, _) = shard.links.counts();
            assert!(links <= LINKS_MAX as usize);
            // A window of frames and one that is arriving, twice for the growth of the buffer; and
            // answers to a window.
            let bound = (connections + 1) * (4 * window + (512 << 10)) + links * (256 << 10);
            let bytes = shard.links.memory_bytes();
            assert!(bytes <= bound, "links hold {bytes} bytes, not {bound}");
        }
    }
}

/// The link port of a shard: host part and port.
pub fn port_of(shard: usize) -> (u8, u16) {
    (10, 7_000 + u16::try_from(shard).expect("few"))
}

impl Shard {
    fn receive(&mut self, now: Instant, port: Port, net: &mut Net, random: &mut Random) {
        for wire in net.accept(port) {
            match self.links.handle_connected(now, nonce(random)) {
                Some(connection) => drop(self.wires.insert(connection, wire)),
                None => net.close(now, wire, Way::ToGateway),
            }
        }
        let wires: Vec<_> = self.wires.iter().map(|(id, wire)| (*id, *wire)).collect();
        for (connection, wire) in wires {
            for event in net.take_events(now, wire, Way::ToNode) {
                match event {
                    Event::Bytes(bytes) => self.links.handle_bytes(now, connection, &bytes),
                    Event::Sent => self.links.handle_sent(connection, true),
                    Event::Broken => self.links.handle_broken(connection),
                }
            }
        }
    }

    fn transmit(&mut self, now: Instant, net: &mut Net) {
        while let Some(action) = self.links.poll_action() {
            match action {
                NodeLinkAction::Send { connection, bytes } => {
                    if let Some(wire) = self.wires.get(&connection) {
                        net.send(now, *wire, Way::ToGateway, &bytes);
                    }
                }
                NodeLinkAction::Close { connection } => {
                    if let Some(wire) = self.wires.remove(&connection) {
                        net.close(now, wire, Way::ToGateway);
                    }
                    self.links.handle_closed(connection);
                }
            }
        }
        while let Some(notice) = self.links.poll_notice() {
            if let NodeLinkNotice::Closed(fault) = notice {
                let is_usual = matches!(
                    fault,
                    LinkFault::Silent | LinkFault::Superseded | LinkFault::HandshakeTimeout
                );
                // Nothing is damaged here, and all know the secret.
                assert!(is_usual || is_misled(fault), "a node closes a link: {fault}");
            }
        }
    }

    /// Log, segments, snapshot, flush. `None`: the power was cut.
    fn store(&mut self, now: Instant, disk: &FakeDisk, store: &Store, sync_ms: u64) -> Option<()> {
        self.side.step_segments(disk)?;
        if self.synced_at.is_none() {
            self.side.begin_log_write(disk)?;
            if self.side.is_writing() {
                self.synced_at = Some(now + Duration::from_millis(sync_ms));
            }
        }
        if self.synced_at.is_some_and(|at| at <= now) {
            self.synced_at = None;
            self.side.finish_log_write(disk)?;
        }
        if self.side.has_failed() && !std::mem::replace(&mut self.is_failure_told, true) {
            self.links.handle_log_failed();
        }
        self.side.step_snapshot(disk)?;
        self.side.step_flush(disk, store, 1 << 20)?;
        if self.side.node.wants_retire_step() {
            self.side.retire();
        }
        Some(())
    }
}

/// Whether the gateway may not know better.
fn is_misled(fault: LinkFault) -> bool {
    matches!(fault, LinkFault::WrongShard { .. } | LinkFault::WrongNode)
}

/// Bytes that were never used before.
pub fn nonce(random: &mut Random) -> [u8; 32] {
    let mut bytes = [0; 32];
    for word in bytes.chunks_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    bytes
}
