//! A whole cluster against everything at once: gateways, nodes on failing disks, clients that
//! retry, and a network that delays, cuts and blocks. One thread, one seed, a clock of its own.
//!
//! The decisions are all real (`Owner`, `Links`, `Requests`; `NodeLinks`, `NodeShard`, logs and
//! replay; placements and routes); the drivers are the simulation's. Checked: what was acknowledged
//! is on all of its owners, once, with its last value, also after a restart of everything; nothing
//! is invented; nothing waits for a node that is not heard; no frame of an old placement is
//! acknowledged; no link closes for a reason that would be a bug; memory is bounded; with the
//! faults gone every request is answered, and everything comes to rest. Where a gateway's hints
//! were lost with its disk, one owner is enough; where a bit flipped on a disk, somebody is told,
//! and the other owners have it. Busy times take turns with hours in which little happens
//! (`stretch`).

mod client;
mod damage;
mod end;
mod faults;
mod gateway;
mod keeper;
mod mail;
mod net;
mod node;
mod plan;
mod record;
mod stretch;
mod waits;
mod watch;

use std::collections::BTreeMap;

use tidegate::base::time::{Duration, Instant, monotonic_now};
use tidegate::gateway::owner::AckPolicy;
use tidegate::wire::link::WindowLimits;
use tidegate::wire::proof::LinkSecret;

use crate::node::recover::Wanted;
use crate::oracle::Found;
use crate::random::Random;
use crate::series::{EPOCH_MS, Pool};
use crate::steps::Steps;
use client::{Attempt, Client};
use damage::Harm;
use faults::End;
use gateway::{Gateway, GatewaySettings};
use keeper::{HintPlace, KeeperSettings};
use mail::Mail;
use net::Net;
use node::{Clock, Node, NodeSettings};
use plan::{NODES_MAX, Plan};
use record::Record;
use stretch::Stretch;
use watch::Watch;

pub use waits::simulate as simulate_waits;

const GATEWAYS_MAX: usize = 3;
const SHARDS_MAX: usize = 3;
const SERIES: usize = 24;
const HOUR_MS: i64 = 3_600_000;
/// With the faults gone everything is at rest so long after the last hint was delivered.
const REST_WITHIN: Duration = Duration::from_secs(60);
/// And so long after the last fault: hints go frame by frame, and a turn may be long.
const REST_OF_ALL_WITHIN: Duration = Duration::from_secs(600);
/// A node that is not there is waited for no longer: the health timeout, the timer's quarter
/// second, and what was under way.
const WAITED_FOR: Duration = Duration::from_secs(3);

/// A place for a gateway: one process after the other.
struct GatewayPlace {
    running: Option<Gateway>,
    hints: HintPlace,
    start_at: Instant,
    stopped_until: Instant,
    /// When it was last stopped or started.
    changed_at: Instant,
    /// When it is told of what is new, and of what.
    fleet_at: Option<Instant>,
    epoch: u64,
}

struct World {
    random: Random,
    began: Instant,
    now: Instant,
    unix_ms: i64,
    /// Milliseconds of the wall clock in one of the simulation's.
    pace: i64,
    turn_us_max: usize,
    pool: Pool,
    ack: AckPolicy,
    plan: Plan,
    net: Net,
    nodes: Vec<Node>,
    gateways: Vec<GatewayPlace>,
    gateway_settings: GatewaySettings,
    clients: Vec<Client>,
    record: Record,
    next_attempt: u64,
    /// Attempts without an answer, and their gateways.
    attempts: BTreeMap<u64, (Attempt, usize)>,
    mail: Vec<(Instant, Mail)>,
    /// When a node is told of the newest document.
    node_epoch_at: Vec<Option<Instant>>,
    /// By node: epochs, and when it heard of each.
    heard: Vec<Vec<Instant>>,
    /// When each request came to its gateway.
    arrived: BTreeMap<u64, Instant>,
    /// What gateways are told of each node: how many shards it has, and its host.
    ways: Vec<(usize, u8)>,
    enabled: u64,
    /// Clients begin nothing new before.
    quiet_until: Instant,
    /// How often each gateway began.
    lives: Vec<u64>,
    /// Set while little happens.
    stretch: Option<Stretch>,
    /// Time that was left out because nothing was due.
    skipped: Duration,
    /// What may be damaged.
    harm: Harm,
    watch: Option<Watch>,
    has_trace: bool,
    faults: u64,
    answers: BTreeMap<u16, u64>,
    is_over: bool,
    turns: u64,
}

/// A run with faults, busy times and quiet ones, a calm end, and a restart of everything.
pub fn simulate(seed: u64) {
    let mut world = World::new(seed);
    let mut steps = Steps::new();
    let turns = 200 + world.random.below(900);
    let stretches = [0, 1, 1, 2][world.random.below(4)];
    for part in 0..=stretches {
        for _ in 0..turns / (stretches + 1) {
            if !steps.take() {
                break;
            }
            world.fail();
            world.turn();
        }
        if part < stretches {
            world.run_stretch(&mut steps);
        }
    }
    world.rest();
    world.check_end();
    world.say_counts(seed);
}

fn settings(random: &mut Random, secret: &LinkSecret) -> (NodeSettings, GatewaySettings) {
    let mut rules = crate::node::rules(random);
    rules.store.retention_ms = 0;
    rules.head_bytes_max = 64 << 20;
    rules.frame_bytes_max = 220 << 10;
    rules.log_buffer_bytes_max = 512 << 10;
    let node = NodeSettings {
        index: 0,
        id: 0,
        rules,
        secret: secret.clone(),
        window: WindowLimits {
            frames: [1, 4, 64][random.below(3)],
            bytes: [4 << 10, 64 << 10, 1 << 20][random.below(3)],
        },
        second: Duration::from_millis([50, 1_000][random.below(2)]),
    };
    let gateway = GatewaySettings {
        index: 0,
        secret: secret.clone(),
        kept_bytes_max: [8 << 10, 1 << 20][random.below(2)],
        lane_bytes_max: [16 << 10, 1 << 20, 1 << 20][random.below(3)],
        ack: if random.once_in(4) { AckPolicy::One } else { AckPolicy::All },
        keeper: KeeperSettings::new(random),
        keeps_hints: !random.once_in(4),
    };
    (node, gateway)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let now = monotonic_now();
        let secret = LinkSecret::new(b"a secret of a simulation").expect("long enough");
        let (node_settings, gateway_settings) = settings(&mut random, &secret);
        let node_count = 1 + random.below(NODES_MAX);
        let plan = Plan::new(node_count, &mut random);
        let mut net = Net::new(Random::new(random.next()), node_count);
        let make = |index| Node::first(index, &node_settings, (now, &mut net), &mut random);
        let nodes: Vec<_> = (0..node_count).map(make).collect();
        let way = |node: &Node| (node.shard_count().unwrap_or(0), net.host_of(node.settings.index));
        let ways = nodes.iter().map(way).collect();
        let gateway_count = 1 + random.below(GATEWAYS_MAX);
        let place = |_| GatewayPlace {
            running: None,
            hints: HintPlace::new(&mut random),
            start_at: now,
            stopped_until: now,
            changed_at: now,
            fleet_at: None,
            epoch: 1,
        };
        let gateways: Vec<_> = (0..gateway_count).map(place).collect();
        let harm = Harm::new((&plan, gateway_settings.ack), &mut random);
        let client_count = 2 * (1 + random.below(3));
        let clients = (0..client_count).map(|index| {
            let series = (index..SERIES).step_by(client_count).collect();
            Client::new(index, series, (now, gateway_settings.ack), &mut random)
        });
        let clients = clients.collect();
        Self {
            began: now,
            now,
            unix_ms: EPOCH_MS + 5 * HOUR_MS,
            pace: [1, 60][random.below(2)],
            turn_us_max: [4_000, 20_000, 60_000][random.below(3)],
            pool: Pool::new(SERIES),
            ack: gateway_settings.ack,
            plan,
            net,
            node_epoch_at: vec![None; nodes.len()],
            heard: vec![vec![now]; nodes.len()],
            ways,
            nodes,
            quiet_until: now,
            lives: vec![0; gateways.len()],
            gateways,
            gateway_settings,
            clients,
            record: Record::default(),
            next_attempt: 1,
            attempts: BTreeMap::new(),
            mail: Vec::new(),
            arrived: BTreeMap::new(),
            enabled: random.next() | random.next(),
            stretch: None,
            skipped: Duration::ZERO,
            harm,
            watch: Watch::from_environment(),
            has_trace: std::env::var_os("TIDEGATE_SIM_TRACE").is_some(),
            faults: 0,
            answers: BTreeMap::new(),
            is_over: false,
            turns: 0,
            random,
        }
    }

    /// Time goes by, and whoever is there does what is to be done.
    fn turn(&mut self) {
        let us = self.step_us();
        self.pass(us);
        self.turns += 1;
        self.start_what_is_down();
        self.tell_what_is_new();
        self.poll_clients();
        self.deliver_mail();
        let clock = Clock { now: self.now, unix_ms: self.unix_ms };
        for index in 0..self.gateways.len() {
            self.turn_gateway(clock, index);
        }
        for node in &mut self.nodes {
            if node.flush_at.take_if(|at| *at <= self.now).is_some() {
                node.flush();
            }
            if node.crash_at.take_if(|at| *at <= self.now).is_some() {
                node.crash(self.now, &mut self.net, false);
                node.start_at = self.now + delay(&mut self.random, 6_000);
            }
            if self.now >= node.stopped_until && !node.turn(clock, &mut self.net) {
                node.crash(self.now, &mut self.net, true);
                node.start_at = self.now + Duration::from_millis(500);
            }
        }
        self.watch_nodes();
        if self.turns.is_multiple_of(16) {
            self.check_bounds();
        }
    }

    fn pass(&mut self, us: u64) {
        self.now += Duration::from_micros(us);
        self.unix_ms += i64::try_from(us).expect("hours") * self.pace / 1_000;
    }

    fn turn_gateway(&mut self, clock: Clock, index: usize) {
        let place = &mut self.gateways[index];
        if self.now < place.stopped_until {
            return;
        }
        let Some(gateway) = &mut place.running else { return };
        let hints = (&mut place.hints, &self.pool);
        let outcome = gateway.turn(clock, &mut self.net, hints, &mut self.random);
        let given = std::mem::take(&mut place.hints.given);
        let answers = std::mem::take(&mut gateway.answers);
        for (node, key, bits) in given {
            self.record.note_hint(plan::index_of(node), key, (index, bits));
            self.watch_hint(index, plan::index_of(node), (key, bits));
        }
        for answer in answers {
            self.take_answer(index, answer);
        }
        if outcome.is_none() {
            self.crash_gateway(index, End::Power);
        }
    }

    fn start_gateway(&mut self, index: usize) {
        let settings = GatewaySettings { index, ..self.gateway_settings.clone() };
        let shards = 1 + self.random.below(SHARDS_MAX);
        self.stay_awake();
        let place = &mut self.gateways[index];
        let begin = (shards, Clock { now: self.now, unix_ms: self.unix_ms });
        match Gateway::start(settings, begin, &mut place.hints, &mut self.random) {
            Some(Ok(gateway)) => {
                place.running = Some(gateway);
                self.lives[index] += 1;
                place.changed_at = self.now;
                place.stopped_until = self.now;
                place.fleet_at = Some(self.now + delay(&mut self.random, 300));
                return;
            }
            Some(Err(_)) => place.hints.disk.keep_all(),
            None => place.hints.disk.restore_power(),
        }
        place.start_at = self.now + Duration::from_millis(200);
    }

    fn start_what_is_down(&mut self) {
        for index in 0..self.gateways.len() {
            let place = &self.gateways[index];
            if place.running.is_none() && self.now >= place.start_at {
                self.start_gateway(index);
            }
        }
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            if node.running.is_none() && self.now >= node.start_at {
                self.start_node(index);
            }
        }
    }

    fn start_node(&mut self, index: usize) {
        let is_changed = self.enabled & 1 == 1 && self.random.once_in(3);
        let shards = if is_changed { 1 + self.random.below(SHARDS_MAX) } else { 0 };
        let may_be_damaged = self.harm == Harm::Node(index);
        let wanted = Wanted { shards, are_ids_new: self.random.once_in(3), may_be_damaged };
        self.stay_awake();
        let node = &mut self.nodes[index];
        if !node.start(self.now, &mut self.net, wanted) {
            node.start_at = self.now + Duration::from_millis(200);
            return;
        }
        if self.enabled & 2 != 0 && !self.is_over && self.random.once_in(3) {
            node.crash_at = Some(self.now + delay(&mut self.random, 400));
        }
        let shards = node.shard_count().expect("it runs");
        let incarnation = node.running.as_ref().map(|one| one.incarnation);
        let host = self.net.host_of(index);
        self.trace(|| {
            format!("node {index} starts at {host}, {shards} shards, incarnation {incarnation:?}")
        });
        if std::mem::replace(&mut self.ways[index], (shards, host)) != (shards, host) {
            self.tell_gateways();
        }
    }

    /// Each gateway hears of what is new in its own time.
    fn tell_gateways(&mut self) {
        let late_ms = [500, 2_500, 6_000][self.random.below(3)];
        for place in &mut self.gateways {
            place.fleet_at = Some(self.now + delay(&mut self.random, late_ms));
        }
    }

    fn tell_what_is_new(&mut self) {
        let newest = self.plan.newest_epoch();
        let mut is_news = false;
        for place in &mut self.gateways {
            let Some(gateway) = &mut place.running else { continue };
            let heard = gateway.shards.iter().map(|shard| shard.links.epoch_heard()).max();
            if heard > Some(place.epoch) && place.fleet_at.is_none() {
                place.fleet_at = Some(self.now + delay(&mut self.random, 4_000));
            }
            if place.fleet_at.is_some_and(|at| at <= self.now) && self.now >= place.stopped_until {
                place.fleet_at = None;
                is_news = true;
                // Now and then what it heard is not the newest.
                let is_behind = place.epoch < newest && self.random.once_in(4) && !self.is_over;
                place.epoch = if is_behind { place.epoch } else { newest };
                let fleet = self.plan.fleet(place.epoch, &self.ways);
                gateway.handle_fleet(self.now, &fleet);
                if self.has_trace {
                    eprintln!("cluster: a gateway follows {:?} {:?}", place.epoch, fleet.nodes);
                }
                if is_behind {
                    place.fleet_at = Some(self.now + delay(&mut self.random, 1_000));
                }
            }
        }
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if self.node_epoch_at[index].is_some_and(|at| at <= self.now) && node.running.is_some()
            {
                self.node_epoch_at[index] = None;
                node.epoch = newest;
                if self.has_trace {
                    eprintln!("cluster: node {index} has epoch {newest}");
                }
                let epochs = usize::try_from(newest).expect("small");
                self.heard[index].resize(epochs, self.now);
                is_news = true;
            }
        }
        if is_news {
            self.stay_awake();
        }
    }

    /// What nodes hold, each by itself.
    fn find(&mut self) -> Vec<Found> {
        let Self { nodes, pool, random, .. } = self;
        nodes.iter_mut().map(|node| node.find(pool, random)).collect()
    }

    /// Says what happens, where somebody wants to read it.
    fn trace(&self, what: impl FnOnce() -> String) {
        if self.has_trace {
            let ms = self.now.duration_since(self.began).as_millis();
            eprintln!("cluster {ms:6} ms: {}", what());
        }
    }

    /// For `scripts/sim counts`.
    fn say_counts(&self, seed: u64) {
        if std::env::var_os("TIDEGATE_SIM_COUNTS").is_some() {
            let Record { acknowledged, rewritten, .. } = self.record;
            let (hinted, hints_lost) = self.record.hint_counts();
            let (turns, faults, answers) = (self.turns, self.faults, &self.answers);
            let seconds = self.now.duration_since(self.began).as_secs();
            let skipped = self.skipped.as_secs();
            let told = self.nodes.iter().map(Node::told).sum::<u64>();
            eprintln!(
                "counts seed {seed} turns {turns} seconds {seconds} skipped {skipped} faults \
                 {faults} samples {acknowledged} rewritten {rewritten} hinted {hinted} hints-lost \
                 {hints_lost} damage-told {told} answers {answers:?}"
            );
        }
    }
}

fn delay(random: &mut Random, ms_max: usize) -> Duration {
    Duration::from_millis(random.below(ms_max + 1) as u64)
}
