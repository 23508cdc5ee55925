//! A gateway's hints against a failing disk: appends, deliveries in any order, pauses, full disks
//! and limits in an order that the seed decides, with power cuts, restarts and other numbers of
//! shards.
//!
//! Each sample is appended once, with a time of its own that rises. Checked: nothing is answered
//! twice or not at all; what was acknowledged is delivered, in the order of its series; nothing is
//! invented; limits hold; a start hands out one segment again at most; no file is left behind;
//! damage is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tidegate::background::disk::Disk;
use tidegate::background::hints::{HintCommand, HintStore, Work};
use tidegate::gateway::hint::HintPart;
use tidegate::gateway::hint::log::{HintFigures, HintLimits, HintTicket, LogEvent};
use tidegate::gateway::hint::replay::{HintNumber, HintRecord};
use tidegate::gateway::part::Lateness;
use tidegate::gateway::request::{LabelSpan, RequestBytes, SeriesBatch};
use tidegate::model::labels::encode_label;
use tidegate::model::placement::NodeId;
use tidegate::model::series::{SeriesHash, TenantId};

use crate::drive::drive;
use crate::fake_disk::FakeDisk;
use crate::random::Random;

const FOLDER: &str = "/data/hints";
const NODES: [NodeId; 2] = [NodeId(0xa), NodeId(0xb)];
const RUNS: usize = 5;
const STEPS_PER_RUN: usize = 80;
const SERIES: usize = 40;
const LIMITS: HintLimits = HintLimits {
    node_bytes_max: 160 << 10,
    bytes_max: 240 << 10,
    age_max_ms: 200,
    segment_bytes: 24 << 10,
};

/// A sample: of which node's hints, and its time, which is its own.
type Token = (usize, i64);

#[derive(Default)]
struct Books {
    /// Whose each sample is.
    appended: BTreeMap<Token, SeriesHash>,
    acknowledged: BTreeSet<Token>,
    delivered: BTreeSet<Token>,
    /// Appends without an answer: samples by ticket.
    open: BTreeMap<u64, Vec<Token>>,
    /// The newest that was handed out, since the start or a pause: by shard and series.
    newest: BTreeMap<(u32, usize, SeriesHash), i64>,
    /// Segments of which something was handed out that had been delivered before the start.
    again: BTreeSet<(usize, u64)>,
    delivered_before: BTreeSet<Token>,
    next_time_ms: i64,
    next_ticket: u64,
}

struct World {
    random: Random,
    disk: FakeDisk,
    store: HintStore<FakeDisk>,
    shards: u32,
    books: Books,
    /// Handed out and not delivered.
    out: Vec<(usize, u32, HintNumber, Vec<Token>)>,
    now_ms: i64,
    had_faults: bool,
    /// The same of any run before.
    had_faults_before: bool,
    lost: u64,
}

fn labels_of(series: usize) -> Vec<u8> {
    let mut labels = Vec::new();
    encode_label(&mut labels, b"__name__", b"hints");
    encode_label(&mut labels, b"series", series.to_string().as_bytes());
    labels
}

fn open(disk: &FakeDisk, shards: u32) -> HintStore<FakeDisk> {
    let opened = HintStore::open(disk, Path::new(FOLDER), LIMITS, shards);
    drive(disk, opened).expect("the power is on").expect("a healed disk").0
}

/// Several runs, each ended by a stop or a power cut.
pub fn simulate(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..RUNS {
        world.run();
        world.restart();
    }
    world.drain();
    let books = &world.books;
    let lost: Vec<_> = books.acknowledged.difference(&books.delivered).collect();
    let first = lost.first();
    assert!(lost.is_empty(), "{} acknowledged and not delivered: {first:?} ...", lost.len());
    assert_eq!(world.lost, 0, "losses were told, and there are none");
}

/// The same, and a bit flips between the runs.
pub fn simulate_damage(seed: u64) {
    let mut world = World::new(seed);
    world.run();
    // Of a log whose last segment is torn nobody knows how the one before ended.
    let was_cut = world.disk.is_cut();
    world.restart();
    let flipped = world.flip();
    world.reopen();
    world.drain();
    let books = &world.books;
    let lost = books.acknowledged.difference(&books.delivered).count();
    if flipped && !was_cut {
        assert!(lost == 0 || world.lost > 0, "{lost} samples are lost, and nobody is told");
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = FakeDisk::new(&mut random);
        let made = drive(&disk, async {
            disk.make_folder(Path::new("/data")).await?;
            disk.sync_folder(Path::new("/")).await
        });
        made.expect("the power is on").expect("a healthy disk");
        let shards = 1 + u32::try_from(random.below(3)).expect("few");
        Self {
            store: open(&disk, shards),
            random,
            disk,
            shards,
            books: Books::default(),
            out: Vec::new(),
            now_ms: 1,
            had_faults: false,
            had_faults_before: false,
            lost: 0,
        }
    }

    fn run(&mut self) {
        self.had_faults_before |= std::mem::take(&mut self.had_faults);
        if self.random.once_in(2) {
            self.disk.cut_power_after(self.random.below(120));
        }
        for _ in 0..STEPS_PER_RUN {
            self.step();
            if self.disk.is_cut() {
                return;
            }
            self.check_limits();
        }
    }

    fn step(&mut self) {
        self.now_ms += i64::try_from(self.random.below(4)).expect("small");
        match self.random.below(16) {
            0..8 => self.append(),
            8 => self.set_reading(true),
            9 => self.set_reading(false),
            10..14 => self.deliver_some(),
            14 if self.random.once_in(4) => {
                self.had_faults = true;
                self.disk.fail_one(&mut self.random);
            }
            15 if self.random.once_in(4) => {
                self.had_faults = true;
                let room = u64::try_from(self.random.below(64 << 10)).expect("small");
                self.disk.set_room(Some(room));
            }
            15 if self.random.once_in(2) => self.disk.set_room(None),
            _ => self.now_ms += 5_000 * i64::from(self.had_faults),
        }
        // Several commands share a write.
        if self.random.once_in(3) {
            self.work();
        }
    }

    fn append(&mut self) {
        let node = self.random.below(NODES.len());
        let shard = u32::try_from(self.random.below(self.shards as usize)).expect("few");
        let mut bytes = RequestBytes::default();
        let mut batch = SeriesBatch::default();
        let mut tokens = Vec::new();
        for _ in 0..self.random.below(60) {
            let labels = labels_of(self.random.below(SERIES));
            let hash = SeriesHash::of(TenantId(1), &labels);
            // A shard appends what it owns: else the order of a series is nobody's.
            if hash.slot().shard(self.shards) != shard {
                continue;
            }
            for _ in 0..self.random.below(4) {
                self.books.next_time_ms += 1;
                let token = (node, self.books.next_time_ms);
                batch.timestamp_ms.push(token.1);
                batch.value.push(f64::from_bits(token.1.cast_unsigned()));
                self.books.appended.insert(token, hash);
                tokens.push(token);
            }
            let start = u32::try_from(bytes.labels.len()).expect("short");
            let len = u32::try_from(labels.len()).expect("short");
            bytes.labels.extend_from_slice(&labels);
            batch.push_series(hash, LabelSpan::in_labels(start, len));
        }
        self.books.next_ticket += 1;
        let number = self.books.next_ticket;
        self.books.open.insert(number, tokens);
        let (tenant, lateness) = (TenantId(1), Lateness::Backfill);
        let part = HintPart { tenant, lateness, batch, bytes: Arc::new(bytes) };
        let ticket = HintTicket { shard, number };
        self.store.handle(self.now_ms, HintCommand::Append { node: NODES[node], ticket, part });
    }

    fn set_reading(&mut self, is_reading: bool) {
        let index = self.random.below(NODES.len());
        let node = NODES[index];
        let shard = u32::try_from(self.random.below(self.shards as usize)).expect("few");
        if is_reading {
            return self.store.handle(self.now_ms, HintCommand::Read { node, shard });
        }
        self.store.handle(self.now_ms, HintCommand::Pause { node, shard });
        self.out.retain(|(of, to, ..)| (*of, *to) != (index, shard));
        self.books.newest.retain(|(to, of, _), _| (*of, *to) != (index, shard));
    }

    fn deliver_some(&mut self) {
        for _ in 0..=self.random.below(6) {
            if self.out.is_empty() {
                return;
            }
            let place = self.random.below(self.out.len());
            self.deliver(place);
        }
    }

    fn deliver(&mut self, place: usize) {
        let (node, shard, number, tokens) = self.out.swap_remove(place);
        self.books.delivered.extend(tokens);
        let command = HintCommand::Delivered { node: NODES[node], shard, number };
        self.store.handle(self.now_ms, command);
    }

    /// Lets the store do all it can.
    fn work(&mut self) -> bool {
        let mut did_something = false;
        loop {
            let Some(work) = drive(&self.disk, self.store.work(self.now_ms)) else { return false };
            while let Some((node, event)) = self.store.poll_event() {
                did_something = true;
                let node = NODES.iter().position(|one| *one == node).expect("a node of ours");
                match event {
                    LogEvent::Appended { ticket, outcome } => {
                        let tokens = self.books.open.remove(&ticket.number);
                        let tokens = tokens.expect("an answer to what waits for one");
                        if outcome.is_ok() {
                            self.books.acknowledged.extend(tokens);
                        }
                    }
                    LogEvent::Record { shard, record } => self.take(node, shard, &record),
                    LogEvent::Drained { .. } => {}
                }
            }
            if work == Work::Done {
                break;
            }
        }
        assert!(self.books.open.is_empty(), "an append without an answer");
        did_something
    }

    fn take(&mut self, node: usize, shard: u32, record: &HintRecord) {
        let part = &record.part;
        assert_eq!((part.tenant, part.lateness), (TenantId(1), Lateness::Backfill));
        let mut tokens = Vec::new();
        for index in 0..part.batch.len() {
            let hash = part.batch.hash[index];
            let labels = part.bytes.labels(part.batch.labels[index]);
            assert_eq!(SeriesHash::of(part.tenant, labels), hash, "labels of another series");
            assert_eq!(hash.slot().shard(self.shards), shard, "another shard's series");
            for sample in part.samples_of(index) {
                let time_ms = part.batch.timestamp_ms[sample];
                let token = (node, time_ms);
                assert_eq!(self.books.appended.get(&token), Some(&hash), "invented");
                assert_eq!(part.batch.value[sample].to_bits(), time_ms.cast_unsigned());
                let newest = self.books.newest.insert((shard, node, hash), time_ms);
                assert!(newest.is_none_or(|newest| newest < time_ms), "order of a series");
                if self.books.delivered_before.contains(&token) {
                    self.books.again.insert((node, record.number.segment));
                }
                tokens.push(token);
            }
        }
        self.out.push((node, shard, record.number, tokens));
    }

    fn check_limits(&self) {
        let figures = self.store.figures();
        let bytes: u64 = figures.iter().map(|(_, figures)| figures.bytes).sum();
        assert!(bytes <= LIMITS.bytes_max, "{bytes} bytes are kept");
        for (node, HintFigures { bytes, .. }) in figures {
            assert!(bytes <= LIMITS.node_bytes_max, "{bytes} bytes are kept for {node}");
        }
    }

    /// The end of the process, or of the power; another one, perhaps with other shards.
    fn restart(&mut self) {
        let was_cut = self.disk.is_cut();
        if was_cut {
            self.disk.restore_power();
        } else {
            self.work();
            self.disk.keep_all();
        }
        self.disk.heal();
        self.reopen();
    }

    fn reopen(&mut self) {
        // What the disk did not remove is handed out too.
        if !self.had_faults_before {
            for node in 0..NODES.len() {
                let again = self.books.again.iter().filter(|(of, _)| *of == node).count();
                assert!(again <= 1, "{again} segments were handed out again");
            }
        }
        self.count_lost();
        self.shards = 1 + u32::try_from(self.random.below(3)).expect("few");
        self.store = open(&self.disk, self.shards);
        self.out.clear();
        let books = &mut self.books;
        books.open.clear();
        books.newest.clear();
        books.again.clear();
        books.delivered_before = books.delivered.clone();
    }

    fn count_lost(&mut self) {
        let figures = self.store.figures();
        let lost = figures.iter().map(|(_, it)| it.records_lost + it.samples_lost);
        self.lost += lost.sum::<u64>();
    }

    /// Flips a bit in a segment that is not the last of its node; false if there is none.
    fn flip(&mut self) -> bool {
        let mut files = self.disk.files(Path::new(FOLDER));
        files = files
            .iter()
            .filter(|path| files.iter().any(|it| it.parent() == path.parent() && it > *path))
            .cloned()
            .collect();
        if files.is_empty() {
            return false;
        }
        let path = &files[self.random.below(files.len())];
        let (place, bit) = (self.random.next(), self.random.below(8));
        self.disk.tamper(path, |bytes| {
            if let Some(place) = usize::try_from(place).expect("64 bits").checked_rem(bytes.len()) {
                bytes[place] ^= 1 << bit;
            }
        });
        true
    }

    /// With the faults gone everything is delivered, and no file is left.
    fn drain(&mut self) {
        self.disk.heal();
        for node in NODES {
            for shard in 0..self.shards {
                self.store.handle(self.now_ms, HintCommand::Read { node, shard });
            }
        }
        for _ in 0..10_000 {
            let did_something = self.work();
            if self.out.is_empty() && !did_something {
                break;
            }
            while !self.out.is_empty() {
                let place = self.random.below(self.out.len());
                self.deliver(place);
            }
        }
        self.count_lost();
        let files = self.disk.files(Path::new(FOLDER));
        assert!(files.is_empty(), "left behind: {files:?}");
        assert!(self.store.figures().iter().all(|(_, figures)| figures.bytes == 0));
    }
}
