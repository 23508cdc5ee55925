//! A gateway's hints in the simulated cluster: the real store over a disk that outlives the
//! process, driven as the thread of the hints does, and the simulation's books of what lies there.
//!
//! In: commands of the gateway's shards, by a queue with bounds. Out: events, after as long as the
//! disk takes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use tidegate::background::disk::Disk;
use tidegate::background::hints::{HintCommand, HintEvent, HintStore, HintStoreFault, Work};
use tidegate::base::time::{Duration, Instant};
use tidegate::gateway::hint::HintPart;
use tidegate::gateway::hint::log::{HintLimits, LogEvent};
use tidegate::model::placement::NodeId;

use super::node::Clock;
use crate::drive::drive;
use crate::fake_disk::FakeDisk;
use crate::random::Random;
use crate::series::Pool;

pub const FOLDER: &str = "/data/hints";
/// Events that a shard takes in at once.
const EVENTS_A_TURN: usize = 16;
/// Records of a node that a shard has without having delivered them.
const RECORDS_OUT_MAX: usize = 8;

/// What the thread of the hints waits at most, whatever the clock says.
const WAIT_MS_MAX: i64 = 5_000;

/// A sample of a node's hints: series and time.
pub type HintKey = (usize, i64);

/// How a gateway keeps hints; stays over all of its starts.
#[derive(Clone, Copy)]
pub struct KeeperSettings {
    pub limits: HintLimits,
    /// Commands that wait at most.
    pub commands_max: usize,
    /// Most that a write with its sync takes.
    pub sync_ms_max: usize,
}

/// Where hints lie, whichever process serves the gateway.
pub struct HintPlace {
    pub disk: FakeDisk,
    /// What was given to be kept, by node, since nothing was.
    pub held: BTreeMap<NodeId, BTreeSet<HintKey>>,
    /// What was given to be kept since somebody took this, with its bits.
    pub given: Vec<(NodeId, HintKey, u64)>,
    /// Whether somebody was told that hints are damaged.
    pub is_damage_told: bool,
}

/// The keeper of a gateway that runs.
pub struct Keeper {
    settings: KeeperSettings,
    store: HintStore<FakeDisk>,
    commands: VecDeque<HintCommand>,
    /// By shard: what it is to hear, and when.
    events: Vec<VecDeque<(Instant, HintEvent)>>,
    work: Work,
    /// The disk is at work until then.
    free_at: Instant,
}

impl KeeperSettings {
    pub fn new(random: &mut Random) -> Self {
        let node_bytes_max = [80 << 10, 400 << 10, 8 << 20][random.below(3)];
        let limits = HintLimits {
            node_bytes_max,
            bytes_max: node_bytes_max * [1, 2][random.below(2)],
            age_max_ms: [20_000, 1_800_000, 86_400_000][random.below(3)],
            segment_bytes: [16 << 10, 64 << 10][random.below(2)],
        };
        let commands_max = [2, 256][random.below(2)];
        Self { limits, commands_max, sync_ms_max: [4, 60][random.below(2)] }
    }
}

impl HintPlace {
    /// An empty disk.
    pub fn new(random: &mut Random) -> Self {
        let disk = FakeDisk::new(random);
        let made = drive(&disk, async {
            disk.make_folder(Path::new("/data")).await?;
            disk.sync_folder(Path::new("/")).await
        });
        made.expect("the power is on").expect("a healthy disk");
        Self { disk, held: BTreeMap::new(), given: Vec::new(), is_damage_told: false }
    }
}

impl Keeper {
    /// The keeper of a process that starts, and the nodes that hints were found for. `None`: the
    /// power was cut.
    pub fn open(
        settings: KeeperSettings,
        place: &mut HintPlace,
        (now, shard_count): (Instant, usize),
    ) -> Option<Result<(Self, Vec<NodeId>), i32>> {
        let shards = u32::try_from(shard_count).expect("few");
        let opened = HintStore::open(&place.disk, Path::new(FOLDER), settings.limits, shards);
        let (store, found) = match drive(&place.disk, opened)? {
            Ok(opened) => opened,
            Err(HintStoreFault::Io { errno, .. }) => return Some(Err(errno)),
            Err(fault) => panic!("{fault}"),
        };
        place.is_damage_told |= found.iter().any(|found| !found.damaged.is_empty());
        let keeper = Self {
            settings,
            store,
            commands: VecDeque::new(),
            events: (0..shard_count).map(|_| VecDeque::new()).collect(),
            work: Work::Done,
            free_at: now,
        };
        Some(Ok((keeper, found.iter().map(|found| found.node).collect())))
    }

    /// Takes a command in, or hands it back: there is no room.
    #[expect(clippy::result_large_err, reason = "it is what was handed in")]
    pub fn try_send(&mut self, command: HintCommand) -> Result<(), HintCommand> {
        if self.commands.len() >= self.settings.commands_max {
            return Err(command);
        }
        self.commands.push_back(command);
        Ok(())
    }

    /// What a shard hears now.
    pub fn take_events(&mut self, now: Instant, shard: usize) -> Vec<HintEvent> {
        let queue = &mut self.events[shard];
        let due = queue.iter().take_while(|(at, _)| *at <= now).count();
        queue.drain(..due.min(EVENTS_A_TURN)).map(|(_, event)| event).collect()
    }

    /// Does what was asked for. `None`: the power was cut meanwhile.
    pub fn turn(
        &mut self,
        clock: Clock,
        (place, pool): (&mut HintPlace, &Pool),
        random: &mut Random,
    ) -> Option<()> {
        if !self.is_due(clock) {
            return Some(());
        }
        for command in std::mem::take(&mut self.commands) {
            place.disk.trace(|| format!("hints: {}", text_of(&command)));
            if let HintCommand::Append { node, part, .. } = &command {
                let held = place.held.entry(*node).or_default();
                for (key, bits) in samples_of(part, pool) {
                    held.insert(key);
                    place.given.push((*node, key, bits));
                }
            }
            self.store.handle(clock.unix_ms, command);
        }
        self.work = drive(&place.disk, self.store.work(clock.unix_ms))?;
        let sync_ms = random.below(self.settings.sync_ms_max + 1) as u64;
        self.free_at = clock.now + Duration::from_millis(sync_ms);
        while let Some((node, event)) = self.store.poll_event() {
            place.disk.trace(|| match &event {
                LogEvent::Record { shard, record } => {
                    format!("hints: record {:?} of {node} to shard {shard}", record.number)
                }
                other => format!("hints: {other:?} of {node}"),
            });
            self.tell(node, event);
        }
        for (node, figures) in self.store.figures() {
            place.is_damage_told |= figures.records_lost + figures.samples_lost > 0;
            if figures.bytes == 0 {
                place.held.remove(&node);
            }
        }
        Some(())
    }

    fn is_due(&self, clock: Clock) -> bool {
        let is_asked = !self.commands.is_empty() || self.work == Work::More;
        // A clock that was set back makes the thread wait so long, and no longer.
        let again_ms = self.store.poll_timeout_ms();
        let is_late = again_ms
            .is_some_and(|at_ms| at_ms <= clock.unix_ms || at_ms - clock.unix_ms > WAIT_MS_MAX);
        self.free_at <= clock.now && (is_asked || is_late)
    }

    fn tell(&mut self, node: NodeId, event: LogEvent) {
        let (shard, event) = match event {
            LogEvent::Appended { ticket, outcome } => {
                (ticket.shard, HintEvent::Appended { node, ticket: ticket.number, outcome })
            }
            LogEvent::Record { shard, record } => (shard, HintEvent::Record { node, record }),
            LogEvent::Drained { shard } => (shard, HintEvent::Drained { node }),
        };
        self.events[shard as usize].push_back((self.free_at, event));
    }

    /// Whether nothing is asked of it or of the shards.
    pub fn is_quiet(&self) -> bool {
        self.commands.is_empty() && self.events.iter().all(VecDeque::is_empty)
    }

    /// Whether nothing is kept, and nothing waits.
    pub fn is_idle(&self) -> bool {
        let figures = self.store.figures();
        self.is_quiet() && figures.iter().all(|(_, figures)| figures.bytes == 0)
    }

    /// Samples that nodes got since it was opened.
    pub fn delivered_samples(&self) -> u64 {
        self.store.figures().iter().map(|(_, figures)| figures.delivered_samples).sum()
    }

    /// What keeps it from being idle.
    pub fn unrest(&self) -> String {
        let waiting: Vec<_> = self.events.iter().map(VecDeque::len).collect();
        let (commands, figures) = (self.commands.len(), self.store.figures());
        let again_ms = self.store.poll_timeout_ms();
        format!("{commands} commands, {waiting:?} events, again at {again_ms:?}, {figures:?}")
    }

    /// Asserts that no limit is passed.
    pub fn check_bounds(&self) {
        let limits = &self.settings.limits;
        let figures = self.store.figures();
        let all: u64 = figures.iter().map(|(_, figures)| figures.bytes).sum();
        assert!(all <= limits.bytes_max, "{all} bytes of hints");
        for (node, figures) in &figures {
            assert!(figures.bytes <= limits.node_bytes_max, "hints for {node}: {figures:?}");
        }
        assert!(self.commands.len() <= self.settings.commands_max);
        for queue in &self.events {
            let is_record =
                |(_, event): &&(Instant, HintEvent)| matches!(event, HintEvent::Record { .. });
            let records = queue.iter().filter(is_record).count();
            assert!(records <= RECORDS_OUT_MAX * figures.len(), "{records} records wait");
        }
    }
}

fn samples_of(part: &HintPart, pool: &Pool) -> Vec<(HintKey, u64)> {
    let mut samples = Vec::new();
    for (index, hash) in part.batch.hash.iter().enumerate() {
        let series = pool.series.iter().position(|one| one.hash == *hash);
        let series = series.expect("a series of ours");
        let places = part.samples_of(index);
        samples.extend(places.map(|place| {
            let at_ms = part.batch.timestamp_ms[place];
            ((series, at_ms), part.batch.value[place].to_bits())
        }));
    }
    samples
}

fn text_of(command: &HintCommand) -> String {
    match command {
        HintCommand::Append { node, ticket, part } => {
            format!("append {} samples for {node}, {ticket:?}", part.sample_count())
        }
        other => format!("{other:?}"),
    }
}
