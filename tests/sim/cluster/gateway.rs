//! A gateway process of the simulated cluster: shards that take requests in, hand parts to each
//! other, and speak to nodes and to the keeper of hints.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidegate::base::time::{Duration, Instant};
use tidegate::gateway::endpoint::Endpoint;
use tidegate::gateway::fleet::Fleet;
use tidegate::gateway::hint::side::HintSide;
use tidegate::gateway::links::{LinkAction, LinkNotice, Links, LinksConfig};
use tidegate::gateway::owner::{AckPolicy, Owner};
use tidegate::gateway::part::{Lateness, Part, RequestKey, ShardMessage};
use tidegate::gateway::request::{DecodedRequest, LabelSpan};
use tidegate::gateway::requests::{Outcome, Requests};
use tidegate::model::labels::LabelLimits;
use tidegate::wire::link::{LinkFault, SilenceLimits};
use tidegate::wire::proof::LinkSecret;

use super::keeper::{HintPlace, Keeper, KeeperSettings};
use super::net::{Event, Net, Port, Way, Wire};
use super::node::{Clock, nonce};
use super::plan::index_of;
use crate::random::Random;
use crate::series::Pool;

const TICK: Duration = Duration::from_millis(250);
/// What a lane may hold above its limit: the part that passed it.
const REQUEST_BYTES_MAX: u64 = 24 << 10;

/// What a request of a client holds: labels and columns, at their largest.
const REQUEST_MEMORY_MAX: u64 = 128 << 10;

/// Settings that stay over all starts of a gateway.
#[derive(Clone)]
pub struct GatewaySettings {
    pub index: usize,
    pub secret: LinkSecret,
    pub kept_bytes_max: u64,
    pub lane_bytes_max: u64,
    pub ack: AckPolicy,
    pub keeper: KeeperSettings,
    /// Whether what owners that are down lack is kept for them.
    pub keeps_hints: bool,
}

/// Attempt, and the epoch that each shard followed when it answered its part.
type OpenRequest = (u64, BTreeMap<usize, u64>);

/// A gateway that runs.
pub struct Gateway {
    settings: GatewaySettings,
    pub shards: Vec<Shard>,
    /// The document that its shards follow; 0: none.
    pub epoch: u64,
    open: BTreeMap<(u32, u32, u32), OpenRequest>,
    pub keeper: Keeper,
    pub answers: Vec<Answer>,
}

/// What a client is told.
#[derive(Debug)]
pub struct Answer {
    pub attempt: u64,
    pub status: u16,
    pub refused: u64,
    /// Under which epoch each shard of the gateway wrote its part.
    pub epochs: BTreeMap<usize, u64>,
    pub shard_count: usize,
}

pub struct Shard {
    pub owner: Owner,
    pub links: Links,
    pub hints: HintSide,
    has_fleet: bool,
    requests: Requests,
    mail: VecDeque<ShardMessage>,
    wires: BTreeMap<u16, Wire>,
    tick_at: Instant,
}

/// A sample of a request.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub series: usize,
    pub at_ms: i64,
    pub bits: u64,
}

/// A request.
pub struct Request<'a> {
    pub attempt: u64,
    pub samples: &'a [Sample],
    pub is_backfill: bool,
}

impl Gateway {
    /// A process that starts. `None`: the power was cut; an errno: it does not.
    pub fn start(
        settings: GatewaySettings,
        (shard_count, Clock { now, unix_ms }): (usize, Clock),
        place: &mut HintPlace,
        random: &mut Random,
    ) -> Option<Result<Self, i32>> {
        let opened = Keeper::open(settings.keeper, place, (now, shard_count))?;
        let (keeper, waiting) = match opened {
            Ok(opened) => opened,
            Err(errno) => return Some(Err(errno)),
        };
        let id = u128::from(random.next()) << 64 | u128::from(random.next());
        let of = u32::try_from(shard_count).expect("few");
        let shards = (0..of).map(|shard| {
            let config = LinksConfig {
                gateway: id,
                shard,
                shard_count: of,
                secret: settings.secret.clone(),
                silence: SilenceLimits::default(),
                kept_bytes_max: settings.kept_bytes_max,
            };
            let mut own = Random::new(random.next());
            let labels = LabelLimits::default();
            let owner = Owner::placed(labels, settings.lane_bytes_max, settings.ack);
            Shard {
                owner: if settings.keeps_hints { owner.with_hints() } else { owner },
                links: Links::new(config, Box::new(move || nonce(&mut own))),
                hints: HintSide::new(shard, waiting.iter().copied(), unix_ms),
                has_fleet: false,
                requests: Requests::new(shard),
                mail: VecDeque::new(),
                wires: BTreeMap::new(),
                tick_at: now,
            }
        });
        let shards = shards.collect();
        let (open, answers) = (BTreeMap::new(), Vec::new());
        Some(Ok(Self { settings, shards, epoch: 0, open, keeper, answers }))
    }

    pub fn handle_fleet(&mut self, now: Instant, fleet: &Fleet) {
        self.epoch = fleet.placement.document().epoch;
        for shard in &mut self.shards {
            shard.links.handle_fleet(now, fleet, &mut shard.owner);
            shard.has_fleet = true;
        }
    }

    /// A request came to a shard, decoded.
    pub fn handle_request(&mut self, pool: &Pool, shard: usize, request: &Request<'_>) {
        let shard_count = u32::try_from(self.shards.len()).expect("few");
        let requests = &mut self.shards[shard].requests;
        let mut bytes = requests.take_bytes();
        let labels = &mut Arc::get_mut(&mut bytes).expect("nobody else's").labels;
        let mut decoded = DecodedRequest::new(shard_count);
        decoded.samples = request.samples.len() as u64;
        let runs = request.samples.chunk_by(|one, next| one.series == next.series);
        for run in runs {
            let series = &pool.series[run[0].series];
            let len = u32::try_from(series.labels.len()).expect("short");
            let start = u32::try_from(labels.len()).expect("short");
            let span = LabelSpan::in_labels(start, len);
            labels.extend_from_slice(&series.labels);
            let batch = &mut decoded.batches[series.hash.slot().shard(shard_count) as usize];
            for sample in run {
                batch.timestamp_ms.push(sample.at_ms);
                batch.value.push(f64::from_bits(sample.bits));
            }
            batch.push_series(series.hash, span);
        }
        let parts = decoded.batches.iter().filter(|batch| !batch.is_empty()).count();
        let parts = u32::try_from(parts).expect("few");
        let outcome = Outcome::of_decoded(Endpoint::RemoteWriteV1, &mut decoded);
        let key = requests.open(request.attempt, outcome, Arc::clone(&bytes), parts);
        self.open.insert(key_of(&key), (request.attempt, BTreeMap::new()));
        let tenant = pool.series[request.samples[0].series].tenant;
        let lateness = if request.is_backfill { Lateness::Backfill } else { Lateness::Window };
        for (target, batch) in decoded.batches.into_iter().enumerate() {
            if !batch.is_empty() {
                let bytes = Arc::clone(&bytes);
                let part = Part { request: key, tenant, lateness, batch, bytes };
                self.shards[target].mail.push_back(ShardMessage::Part(part));
            }
        }
    }

    /// A turn of every shard, in some order, and of the keeper; [`Gateway::answers`] grows. `None`:
    /// the power was cut meanwhile.
    pub fn turn(
        &mut self,
        clock: Clock,
        net: &mut Net,
        (place, pool): (&mut HintPlace, &Pool),
        random: &mut Random,
    ) -> Option<()> {
        let count = self.shards.len();
        let first = random.below(count);
        for index in (first..count).chain(0..first) {
            self.turn_shard(clock.now, index, net);
        }
        self.keeper.turn(clock, (place, pool), random)
    }

    fn turn_shard(&mut self, now: Instant, index: usize, net: &mut Net) {
        let port = Port { process: self.settings.index, shard: index };
        let shard_count = self.shards.len();
        let shard = &mut self.shards[index];
        shard.receive(now, port, net);
        for message in std::mem::take(&mut shard.mail) {
            match message {
                ShardMessage::Part(handed) => shard.owner.handle_part(handed),
                ShardMessage::Answer(answer) => {
                    let key = key_of(&answer.request);
                    if let Some((attempt, outcome)) = shard.requests.handle_answer(answer) {
                        let open = self.open.remove(&key).expect("answered once");
                        assert_eq!(open.0, attempt);
                        let (status, refused) = (outcome.reply().status, outcome.refused.total());
                        let epochs = open.1;
                        let answer = Answer { attempt, status, refused, epochs, shard_count };
                        self.answers.push(answer);
                    }
                }
            }
        }
        if now >= shard.tick_at {
            shard.tick_at = now + TICK;
            shard.links.handle_timer(now, &mut shard.owner);
            if shard.has_fleet {
                shard.hints.handle_nodes(&shard.links.nodes_up(&shard.owner));
            }
        }
        for event in self.keeper.take_events(now, index) {
            shard.hints.handle_event(event, &mut shard.owner);
        }
        shard.links.work(now, &mut shard.owner);
        shard.work_hints(now, &mut self.keeper);
        shard.act(now, port, net);
        let mut answers = Vec::new();
        while let Some(answer) = shard.owner.poll_answer() {
            answers.push(answer);
        }
        for answer in answers {
            let open = self.open.get_mut(&key_of(&answer.request)).expect("answered once");
            let before = open.1.insert(index, self.epoch);
            assert!(before.is_none(), "a part is answered once");
            let target = answer.request.shard as usize;
            self.shards[target].mail.push_back(ShardMessage::Answer(answer));
        }
    }

    /// Whether nobody waits; hints may lie on the disk.
    pub fn is_quiet(&self) -> bool {
        self.open.is_empty()
            && self.shards.iter().all(|shard| shard.owner.is_idle())
            && self.keeper.is_quiet()
    }

    /// Whether nothing waits, and no hint is left.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
            && self.shards.iter().all(|shard| shard.owner.is_idle())
            && self.keeper.is_idle()
    }

    /// What is wrong with its links, if something is.
    pub fn link_faults(&self, now: Instant) -> Vec<String> {
        let views = self.shards.iter().flat_map(|shard| shard.links.views(now));
        views.filter(|view| !view.is_up).map(|view| format!("{view:?}")).collect()
    }

    pub fn check_bounds(&self, now: Instant) {
        self.keeper.check_bounds();
        for shard in &self.shards {
            // What was acknowledged is never refused for good.
            assert_eq!(shard.hints.refused().total(), 0, "{:?}", shard.hints.refused());
            let (open, held) = (shard.requests.open_count(), shard.requests.held_bytes());
            assert_eq!(open == 0, held == 0);
            assert!(held <= open * REQUEST_MEMORY_MAX, "{open} requests hold {held} bytes");
            for lane in 0..shard.owner.lane_count() {
                let held = shard.owner.lane(lane).held_bytes();
                // What is open is gathered again when a lane comes to a node anew.
                let bound = self.settings.lane_bytes_max + REQUEST_BYTES_MAX;
                assert!(held <= bound, "lane {lane} holds {held} bytes, not {bound}");
            }
            for view in shard.links.views(now) {
                let is_one = view.unacked_frames <= 1;
                assert!(is_one || view.unacked_bytes <= self.settings.kept_bytes_max, "{view:?}");
            }
        }
    }

    /// Asserts that nothing waits for `node`.
    pub fn check_nothing_waits_for(&self, node: usize) {
        for (index, shard) in self.shards.iter().enumerate() {
            for link in 0..shard.owner.lane_count() {
                let lane = shard.owner.lane(link);
                let waits = lane.frames_waiting() != (0, 0) || lane.has_frames_to_send();
                let is_its = index_of(shard.links.node_of(link)) == node;
                assert!(
                    !is_its || !waits,
                    "gateway {} shard {index} lane {link}: samples wait for node {node}, which \
                     is not there",
                    self.settings.index
                );
            }
        }
    }
}

fn key_of(key: &RequestKey) -> (u32, u32, u32) {
    (key.shard, key.slot, key.generation)
}

impl Shard {
    fn receive(&mut self, now: Instant, port: Port, net: &mut Net) {
        for (link, wire) in net.take_dials(now, port) {
            if let Some(wire) = wire {
                self.wires.insert(link, wire);
            }
            self.links.handle_connected(now, link, wire.is_some());
        }
        let wires: Vec<_> = self.wires.iter().map(|(link, wire)| (*link, *wire)).collect();
        for (link, wire) in wires {
            for event in net.take_events(now, wire, Way::ToGateway) {
                match event {
                    Event::Bytes(bytes) => self.links.handle_bytes(now, link, &bytes),
                    Event::Sent => self.links.handle_sent(link, true),
                    Event::Broken => self.links.handle_broken(link),
                }
            }
        }
    }

    fn work_hints(&mut self, now: Instant, keeper: &mut Keeper) {
        self.hints.work(now, &mut self.owner);
        while let Some(command) = self.hints.poll_command() {
            if let Err(command) = keeper.try_send(command) {
                self.hints.handle_command_delayed(command);
                break;
            }
        }
    }

    fn act(&mut self, now: Instant, port: Port, net: &mut Net) {
        while let Some(action) = self.links.poll_action() {
            match action {
                LinkAction::Dial { link, address } => {
                    net.dial(now, port, link, super::plan::place_at(address));
                }
                LinkAction::Send { link, bytes } => {
                    if let Some(wire) = self.wires.get(&link) {
                        net.send(now, *wire, Way::ToNode, &bytes);
                    }
                }
                LinkAction::Close { link } => match self.wires.remove(&link) {
                    Some(wire) => {
                        net.close(now, wire, Way::ToNode);
                        self.links.handle_closed(now, link);
                    }
                    None => net.give_dial_up(now, port, link),
                },
            }
        }
        while let Some(notice) = self.links.poll_notice() {
            if let LinkNotice::Closed { fault, .. } = notice {
                let is_usual = matches!(
                    fault,
                    LinkFault::Silent
                        | LinkFault::HandshakeTimeout
                        | LinkFault::ForeignIds
                        | LinkFault::Refused
                );
                // Nothing is damaged here, and all know the secret.
                assert!(is_usual, "a gateway closes a link: {fault}");
            }
        }
    }
}
