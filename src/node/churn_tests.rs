//! A node shard whose series come and go, on a disk in memory, against what a client was told:
//! frames, flushes, deletions, snapshots and selects at every speed, and a crash now and then.
//!
//! Every sample has a time of its own, so that what is readable is a set of times for each series.
//! The blocks and the gateway half's table are played by the test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::flush::{FlushCourse, FlushStep};
use super::head::{Head, LeftSeries};
use super::log::{
    BLOCK_BYTES, Log, LogConfig, LogOperation, LogPosition, ReaderStep, ReplayTally,
    SEGMENT_BYTES_MIN, SegmentReader, SegmentRequest,
};
use super::replay::{HeadReplay, ReplayLoss};
use super::select::{SelectBudget, SelectPoll, SelectRun};
use super::shard::{FrameReceipt, NodeShard};
use super::snapshot::{SnapshotCourse, SnapshotStep};
use super::tests::{IDENTITY, Named, SEGMENT_BYTES, WINDOW_MS, frame, hash_of, head, labels_of};
use crate::base::random::Random;
use crate::base::time::monotonic_now;
use crate::model::matcher::{MatchOperator, Matcher};
use crate::model::refusal::Refusal;
use crate::model::sample::Sample;
use crate::model::series::{SeriesId, TenantId};
use crate::wire::ack::RefusedSample;
use crate::wire::delete::Deletion;
use crate::wire::select::{SelectAnswer, SelectRequest, SelectWant, SelectedSeries};

type Times = BTreeMap<u32, BTreeSet<i64>>;

/// What is on the disk.
#[derive(Default)]
struct Files {
    segments: BTreeMap<u64, Vec<u8>>,
    snapshot: Option<(LogPosition, Vec<Vec<u8>>)>,
    blocks: Times,
}

struct World {
    seed: u64,
    random: Random,
    shard: NodeShard,
    files: Files,
    /// A snapshot, and a flush, under way.
    writing: Option<(LogPosition, Vec<Vec<u8>>)>,
    pieces_out: VecDeque<Vec<u8>>,
    flush: Option<(u64, Times, u64, VecDeque<u64>)>,
    flush_ended: bool,
    now_ms: i64,
    /// The gateway half: what it knows, and per frame in flight what it sent.
    table: BTreeMap<u32, u32>,
    left: BTreeSet<u32>,
    in_flight: VecDeque<InFlight>,
    sequence: u64,
    next_number: u32,
    active: Vec<u32>,
    /// What must be readable, and what may be.
    durable: Times,
    sent: Times,
    /// Every id that was told, and whose it is.
    ids: BTreeMap<u32, u32>,
    selects: Vec<Running>,
    deletions: u64,
    retired: u64,
    unknown: u64,
    replays: u64,
    snapshots: u64,
}

/// What must be known of a frame when its ack comes.
struct InFlight {
    sequence: u64,
    new: Vec<u32>,
    times: Vec<(u32, i64)>,
    /// It names an id that left, last.
    dead: Option<u32>,
}

struct Running {
    run: SelectRun,
    matcher: Matcher,
    answered: BTreeSet<u32>,
}

/// Each sample's value says whose it is.
fn is_of(number: u32, value: f64) -> bool {
    value.to_bits() == f64::from(number).to_bits()
}

#[track_caller]
fn number_of(labels: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(labels);
    let number = text.rsplit('_').next().and_then(|digits| digits.parse().ok());
    let number = number.expect("labels of a series that was sent");
    assert_eq!(labels_of(number), labels);
    number
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        buffer_bytes_max: 512 << 10,
        frame_bytes_max: 128 << 10,
        spare_segments: 2,
        ..LogConfig::new(IDENTITY)
    }
}

fn shard_of(head: Head, start: LogPosition) -> NodeShard {
    let log = Log::new(config(), start, 0).expect("a good configuration");
    let snapshot = SnapshotCourse::new(12 << 10).with_piece_bytes(2 << 10);
    NodeShard::new(head, log, (snapshot, FlushCourse::new(WINDOW_MS, 0)), 0)
}

impl World {
    fn new(seed: u64) -> Self {
        let shard = shard_of(head(), LogPosition { segment: 1, sequence: 1 });
        Self {
            seed,
            random: Random(seed),
            shard,
            files: Files::default(),
            writing: None,
            pieces_out: VecDeque::new(),
            flush: None,
            flush_ended: false,
            now_ms: 1_700_000_000_000,
            table: BTreeMap::new(),
            left: BTreeSet::new(),
            in_flight: VecDeque::new(),
            sequence: 0,
            next_number: 0,
            active: Vec::new(),
            durable: Times::new(),
            sent: Times::new(),
            ids: BTreeMap::new(),
            selects: Vec::new(),
            deletions: 0,
            retired: 0,
            unknown: 0,
            replays: 0,
            snapshots: 0,
        }
    }

    /// One step of anything.
    fn step(&mut self) {
        match self.random.below(100) {
            0..30 => self.send_frame(),
            30..45 => self.work_log(),
            45..60 => self.second(),
            60..68 => self.work_snapshot(),
            68..84 => self.work_flush(),
            84..90 => self.poll_selects(40),
            90..92 => self.begin_select(),
            92 if self.random.below(4) == 0 => self.delete(),
            93 if self.random.below(3) == 0 => {
                self.shard.handle_flush_request();
            }
            94 if self.random.below(8) == 0 => self.crash(),
            _ => self.retire(),
        }
    }

    /// Samples of series that come, stay for some frames, and go; some have been away.
    fn send_frame(&mut self) {
        for _ in 0..self.random.below(12) {
            self.active.push(self.next_number);
            self.next_number += 1;
        }
        if self.next_number > 0 && self.random.below(3) == 0 {
            let number = self.random.below(u64::from(self.next_number)) as u32;
            self.active.push(number);
        }
        let keep = self.random.below(40) as usize;
        while self.active.len() > keep {
            let at = self.random.below(self.active.len() as u64) as usize;
            self.active.swap_remove(at);
        }
        let (mut samples, mut times, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for number in self.active.clone() {
            let named = if let Some(id) = self.table.get(&number) {
                Named::Id(*id)
            } else {
                new.push(number);
                Named::New(number)
            };
            self.now_ms += 1;
            samples.push((named, self.now_ms, f64::from(number)));
            times.push((number, self.now_ms));
        }
        // Nobody names a series that left, but whoever did would be told.
        let dead = self.left.first().copied().filter(|_| self.random.below(10) == 0);
        if let Some(id) = dead {
            samples.push((Named::Id(id), self.now_ms, 0.5));
            self.unknown += 1;
        }
        if samples.is_empty() {
            return;
        }
        self.sequence += 1;
        match self.shard.handle_frame(&frame(self.sequence, &samples)) {
            FrameReceipt::Taken => {
                for (number, time_ms) in &times {
                    self.sent.entry(*number).or_default().insert(*time_ms);
                }
                let sequence = self.sequence;
                self.in_flight.push_back(InFlight { sequence, new, times, dead });
            }
            FrameReceipt::Delayed => self.sequence -= 1,
            FrameReceipt::Refused(refusal) => panic!("{refusal:?}"),
        }
    }

    fn work_log(&mut self) {
        while let Some(request) = self.shard.poll_segment_request() {
            match request {
                SegmentRequest::Prepare { segment, .. } => {
                    self.files.segments.insert(segment, vec![0; SEGMENT_BYTES]);
                    self.shard.handle_segment_ready(segment, Ok(()));
                }
                SegmentRequest::Retire { below_segment } => {
                    self.files.segments = self.files.segments.split_off(&below_segment);
                }
            }
        }
        let now = monotonic_now();
        if let Some(operation) = self.shard.poll_operation(now) {
            let LogOperation::WriteSync { segment, offset_bytes, buffer, .. } = operation;
            let at = usize::try_from(offset_bytes).expect("small");
            let file = self.files.segments.get_mut(&segment).expect("prepared");
            file[at..at + buffer.len()].copy_from_slice(&buffer);
            self.shard.handle_written(now, buffer, Ok(()));
        }
        while let Some(ack) = self.shard.poll_ack() {
            let InFlight { sequence, new, times, dead } =
                self.in_flight.pop_front().expect("in order");
            assert_eq!(sequence, ack.sequence);
            for (number, id) in new.iter().zip(&ack.assigned) {
                let id = id.expect("there is room").0;
                let owner = *self.ids.entry(id).or_insert(*number);
                assert_eq!(owner, *number, "seed={}: id {id} given twice", self.seed);
                if !self.left.contains(&id) {
                    self.table.insert(*number, id);
                }
            }
            let index = times.len() as u32;
            let want = dead.map(|_| RefusedSample { index, reason: Refusal::UnknownSeries });
            assert!(ack.refused.iter().eq(&want), "seed={} {:?}", self.seed, ack.refused);
            for (number, time_ms) in times {
                self.durable.entry(number).or_default().insert(time_ms);
            }
        }
    }

    fn second(&mut self) {
        self.now_ms += self.random.below(200_000).cast_signed();
        for _ in 0..10 {
            self.shard.handle_second(self.now_ms);
        }
    }

    fn retire(&mut self) {
        let mut left = Vec::new();
        self.shard.poll_retire(&mut left);
        self.retired += left.len() as u64;
        for LeftSeries { hash, id } in left {
            assert!(self.left.insert(id.0), "seed={}: it left before", self.seed);
            self.table.retain(|_, known| *known != id.0);
            assert_eq!(self.shard.head().find(hash), None);
        }
    }

    fn work_snapshot(&mut self) {
        if let Some(memory) = self.pieces_out.pop_front() {
            self.shard.handle_snapshot_piece_taken(memory);
        }
        match self.shard.poll_snapshot() {
            Some(SnapshotStep::Begin(position)) => self.writing = Some((position, Vec::new())),
            Some(SnapshotStep::Piece(piece)) => {
                self.writing.as_mut().expect("begun").1.push(piece.clone());
                self.pieces_out.push_back(piece);
            }
            Some(SnapshotStep::End) if self.random.below(5) == 0 => {
                self.shard.handle_snapshot_done(Err(5));
            }
            Some(SnapshotStep::End) => {
                self.files.snapshot = self.writing.take();
                self.snapshots += 1;
                self.shard.handle_snapshot_done(Ok(()));
            }
            None => {}
        }
    }

    fn work_flush(&mut self) {
        match self.shard.poll_flush() {
            Some(FlushStep::Begin { flush, .. }) => {
                self.flush = Some((flush, Times::new(), 0, VecDeque::new()));
            }
            Some(FlushStep::Series { flush, series }) => {
                let Some((open, times, count, taken)) = &mut self.flush else { panic!("open") };
                assert_eq!(flush, *open);
                for one in &series {
                    let number = number_of(&one.labels);
                    let mut samples = Vec::new();
                    one.chunks.iter().for_each(|chunk| chunk.decode(&mut samples).expect("ours"));
                    let times = times.entry(number).or_default();
                    times.extend(samples.iter().map(|sample| sample.timestamp_ms));
                    assert!(samples.iter().all(|each| is_of(number, each.value)));
                }
                *count += series.len() as u64;
                taken.push_back(flush);
            }
            Some(FlushStep::End { .. }) => self.flush_ended = true,
            Some(FlushStep::Abandon { .. }) => (self.flush, self.flush_ended) = (None, false),
            None => {}
        }
        if let Some((flush, times, count, taken)) = &mut self.flush {
            if let Some(flush) = taken.pop_front() {
                self.shard.handle_flush_piece_taken(flush);
            }
            let (flush, count) = (*flush, *count);
            if self.random.below(3) == 0 {
                // Half of what was sent, or all of it, becomes a block.
                for (number, times) in std::mem::take(times) {
                    self.files.blocks.entry(number).or_default().extend(times);
                }
                self.shard.handle_flush_published(flush, count);
            }
            if self.flush_ended {
                let is_good = self.random.below(4) > 0
                    && self.flush.as_ref().is_some_and(|one| one.1.is_empty());
                self.shard.handle_flush_done(flush, if is_good { Ok(()) } else { Err(5) });
                (self.flush, self.flush_ended) = (None, false);
            }
        }
    }

    fn delete(&mut self) {
        self.drain();
        let Some(number) = self.active.first().copied() else { return };
        self.deletions += 1;
        let matchers = vec![Matcher::equal("__name__", &format!("metric_{number}"))];
        let (id, tenant) = (self.deletions, TenantId(0));
        let deletion =
            Deletion { id, tenant, matchers, start_ms: i64::MIN, end_ms: self.now_ms - 5 };
        if self.shard.handle_delete(&deletion) != FrameReceipt::Taken {
            return;
        }
        self.drain();
        assert_eq!(self.shard.poll_deleted(), Some(id));
        for times in [&mut self.durable, &mut self.sent, &mut self.files.blocks] {
            if let Some(times) = times.get_mut(&number) {
                times.retain(|time_ms| *time_ms > deletion.end_ms);
            }
        }
        // What was sent of it to a flush that is given up now goes nowhere.
        while !matches!(self.shard.poll_flush(), None | Some(FlushStep::Abandon { .. })) {}
        (self.flush, self.flush_ended) = (None, false);
    }

    /// Until everything that was sent is acked.
    fn drain(&mut self) {
        for _ in 0..1000 {
            if self.in_flight.is_empty() && self.shard.is_idle() {
                return;
            }
            self.work_log();
        }
    }

    fn request(matcher: &Matcher, want: SelectWant) -> SelectRequest {
        SelectRequest {
            tenant: TenantId(0),
            matchers: vec![matcher.clone()],
            start_ms: i64::MIN,
            end_ms: i64::MAX,
            want,
            series_max: u32::MAX,
        }
    }

    fn begin_select(&mut self) {
        let digit = self.random.below(10);
        let (operator, value) = match self.random.below(3) {
            0 => (MatchOperator::Regex, format!("metric_.*{digit}")),
            1 => (MatchOperator::NotRegex, format!("metric_.*{digit}")),
            _ => (MatchOperator::Equal, format!("metric_{}", self.random.below(200))),
        };
        let matcher = Matcher { name: "__name__".into(), operator, value };
        let request = Self::request(&matcher, SelectWant::Samples);
        let run = SelectRun::new(request, self.shard.head()).expect("a good pattern");
        self.selects.push(Running { run, matcher, answered: BTreeSet::new() });
    }

    fn poll_selects(&mut self, steps: u32) {
        let mut selects = std::mem::take(&mut self.selects);
        selects.retain_mut(|select| {
            match select.run.poll(self.shard.head(), SelectBudget { steps }) {
                SelectPoll::Answer(SelectAnswer::Series(series)) => {
                    for one in series {
                        let number = self.check_series(&one);
                        assert!(select.answered.insert(number), "seed={}: twice", self.seed);
                        let name = format!("metric_{number}");
                        let is_digit = || {
                            let digit = select.matcher.value.as_bytes().last();
                            name.as_bytes().last() == digit
                        };
                        let is_match = match select.matcher.operator {
                            MatchOperator::Regex => is_digit(),
                            MatchOperator::NotRegex => !is_digit(),
                            _ => name == select.matcher.value,
                        };
                        assert!(is_match, "seed={}: {name} for {:?}", self.seed, select.matcher);
                    }
                    true
                }
                SelectPoll::Answer(SelectAnswer::Fault(fault)) => panic!("{fault:?}"),
                SelectPoll::Answer(_) | SelectPoll::Pending => true,
                SelectPoll::Done => false,
            }
        });
        self.selects = selects;
    }

    /// Labels and samples of one series that was sent, and of no other.
    fn check_series(&self, series: &SelectedSeries) -> u32 {
        let number = number_of(&series.labels);
        for Sample { timestamp_ms, value } in samples_of(series) {
            assert!(is_of(number, value), "seed={}: of another series", self.seed);
            let is_sent = self.sent.get(&number).is_some_and(|times| times.contains(&timestamp_ms));
            // A deletion may have passed while the select ran.
            assert!(is_sent || self.deletions > 0, "seed={}: invented", self.seed);
        }
        number
    }

    /// Everything durable is readable, from head and blocks; and nothing that nobody sent.
    fn check_all(&self) {
        let matcher =
            Matcher { name: "__name__".into(), operator: MatchOperator::Regex, value: ".+".into() };
        let request = Self::request(&matcher, SelectWant::Samples);
        let mut run = SelectRun::new(request, self.shard.head()).expect("a good pattern");
        let mut readable = self.files.blocks.clone();
        loop {
            match run.poll(self.shard.head(), SelectBudget { steps: u32::MAX }) {
                SelectPoll::Answer(SelectAnswer::Series(series)) => {
                    for one in &series {
                        let times = readable.entry(self.check_series(one)).or_default();
                        times.extend(samples_of(one).iter().map(|sample| sample.timestamp_ms));
                    }
                }
                SelectPoll::Done => break,
                _ => {}
            }
        }
        for (number, times) in &self.durable {
            let found = readable.get(number);
            let lost: Vec<_> =
                times.iter().filter(|ms| !found.is_some_and(|found| found.contains(ms))).collect();
            assert!(lost.is_empty(), "seed={}: series {number} lost {lost:?}", self.seed);
        }
        for (number, times) in &readable {
            let sent = self.sent.get(number);
            assert!(times.iter().all(|ms| sent.is_some_and(|sent| sent.contains(ms))));
        }
        let head = self.shard.head();
        for (number, id) in &self.table {
            assert_eq!(head.identity(SeriesId(*id)).1, hash_of(*number));
        }
    }

    /// The process is gone, and another reads what it left.
    fn crash(&mut self) {
        self.check_all();
        let next_id = self.shard.head().next_id();
        let mut replay = HeadReplay::new(head());
        let (start, pieces) = self.files.snapshot.clone().unwrap_or_default_position();
        for piece in &pieces {
            replay.handle_piece(piece);
        }
        let mut tally = ReplayTally::new(start.sequence);
        let mut reader = SegmentReader::new(&IDENTITY);
        for (segment, bytes) in self.files.segments.range(start.segment..) {
            reader.begin(*segment);
            let mut rest = bytes[BLOCK_BYTES..].chunks(64 << 10);
            loop {
                match reader.poll_record() {
                    ReaderStep::Record(record) if tally.handle_record(&record) => {
                        replay.handle_record(&record);
                    }
                    ReaderStep::Record(_) => {}
                    ReaderStep::NeedBytes => reader.handle_piece(rest.next().unwrap_or(&[])),
                    ReaderStep::End => break,
                }
            }
        }
        let (head, loss) = replay.finish();
        assert_eq!(loss, ReplayLoss::default(), "seed={}", self.seed);
        let told = self.ids.keys().next_back().map_or(0, |id| id + 1);
        assert!(head.next_id() >= told && head.next_id() <= next_id, "seed={}", self.seed);
        let segment = self.files.segments.keys().next_back().map_or(1, |last| last + 1);
        let sequence = tally.next_sequence();
        self.shard = shard_of(head, LogPosition { segment, sequence });
        (self.writing, self.flush, self.flush_ended) = (None, None, false);
        (self.pieces_out, self.selects) = (VecDeque::new(), Vec::new());
        // Ids that left are known again until they leave again, to nobody but the log.
        (self.table, self.left) = (BTreeMap::new(), BTreeSet::new());
        self.in_flight.clear();
        self.replays += 1;
        self.check_all();
    }
}

trait OrBeginning {
    fn unwrap_or_default_position(self) -> (LogPosition, Vec<Vec<u8>>);
}

impl OrBeginning for Option<(LogPosition, Vec<Vec<u8>>)> {
    fn unwrap_or_default_position(self) -> (LogPosition, Vec<Vec<u8>>) {
        self.unwrap_or((LogPosition { segment: 1, sequence: 1 }, Vec::new()))
    }
}

fn samples_of(series: &SelectedSeries) -> Vec<Sample> {
    let mut samples = Vec::new();
    series.chunks.iter().for_each(|chunk| chunk.decode(&mut samples).expect("our own"));
    samples.extend(&series.samples);
    samples
}

#[test]
fn series_come_and_go_and_nothing_is_lost_or_mixed_up() {
    let (mut retired, mut replays, mut unknown, mut snapshots) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for step in 0..STEPS {
            world.step();
            if step % 20 == 0 {
                world.check_all();
            }
        }
        snapshots += world.snapshots;
        world.drain();
        world.crash();
        retired += world.retired;
        replays += world.replays;
        unknown += world.unknown;
    }
    // Or nothing of it was tested.
    let seen = (retired > 200 * SEEDS, replays > 2 * SEEDS, unknown > SEEDS, snapshots > SEEDS);
    let counts = (retired, replays, unknown, snapshots);
    assert_eq!(seen, (true, true, true, true), "{counts:?}");
}

const SEEDS: u64 = 6;
const STEPS: u32 = 2000;
