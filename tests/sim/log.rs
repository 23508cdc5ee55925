//! The log of a shard against a failing disk: appends, completions, snapshots and crashes in an
//! order that the seed decides.
//!
//! Checked at each restart: every acknowledged record that the snapshot does not hold is read back
//! once, in order and whole; nothing is read that was not appended; no loss is reported. Checked at
//! each step: memory is bounded, writes stay within segments that are there. Checked at the end of
//! each run: with the faults gone, records are acknowledged.
//!
//! Changes to `src/node/log` that were tried, and that make it fail: acknowledging when the write
//! begins; acknowledging what gathers when a write comes back; taking a failed write for done, or
//! going on after it; not comparing a record's segment; not advancing the tail; no rotation, or
//! none for a snapshot; retiring while a write to the segment is in flight, or one segment too
//! many; no retry after a full disk; no limit on what gathers; not checking a record's header or
//! body checksum; stopping at the first damage; taking what a crash tore for a loss; reporting no
//! loss.

use std::collections::BTreeMap;

use tidegate::base::bytes::AlignedBuffer;
use tidegate::model::refusal::Refusal;
use tidegate::model::series::SeriesId;
use tidegate::node::log::{
    BLOCK_BYTES, Log, LogConfig, LogIdentity, LogOperation, LogPosition, LogRefusal, LogState,
    RECORD_HEADER_BYTES, ReaderStep, Record, ReplayTally, SEGMENT_BYTES_MIN, SegmentReader,
    SegmentRequest,
};
use tidegate::wire::ack::RefusedSample;

use crate::disk::Disk;
use crate::random::Random;

const RUNS: usize = 5;
const STEPS_PER_RUN: usize = 120;
const BUFFER_BYTES_MAX: usize = 256 << 10;
const FRAME_BYTES_MAX: usize = 96 << 10;
/// With the faults gone, a record is acknowledged within this many rounds.
const RECOVERY_ROUNDS: usize = 40;

/// What was appended under a sequence, and whether it was acknowledged.
struct Appended {
    token: u64,
    is_acknowledged: bool,
}

struct World {
    random: Random,
    disk: Disk,
    config: LogConfig,
    log: Log,
    flight: Option<AlignedBuffer>,
    prepare: Option<(u64, u64)>,
    /// By sequence; what a crash took away is removed, and its sequence given again.
    appended: BTreeMap<u64, Appended>,
    next_token: u64,
    snapshot_under_way: Option<LogPosition>,
    snapshot: LogPosition,
}

/// Several runs, each ended by a crash, and what was acknowledged is there after each.
pub fn simulate(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..RUNS {
        let steps = 1 + world.random.below(STEPS_PER_RUN);
        for _ in 0..steps {
            world.step();
            world.check_bounds();
        }
        if world.random.once_in(2) {
            world.check_recovery();
        }
        world.crash();
        world.restart();
    }
}

/// A run without faults, then one flipped bit anywhere in what is durable.
pub fn simulate_rot(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..20 {
        world.append();
        world.run_background();
        world.finish_write(Ok(()));
        world.begin_write();
    }
    world.finish_write(Ok(()));
    world.note_durable();
    let written: Vec<_> = world
        .disk
        .segments(0)
        .map(|(segment, file)| {
            let end = file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            (segment, end)
        })
        .collect();
    let (segment, end) = written[world.random.below(written.len())];
    if end > BLOCK_BYTES {
        let mut at = BLOCK_BYTES + world.random.below(end - BLOCK_BYTES);
        if world.random.once_in(2) {
            at = at - at % BLOCK_BYTES + at % RECORD_HEADER_BYTES; // In a header, it may be.
        }
        world.disk.rot(segment, at, world.random.below(8));
    }
    let (found, tally) = world.replay();
    let acknowledged = world.appended.values().filter(|entry| entry.is_acknowledged).count();
    assert!(found.len() + 1 >= acknowledged, "{} of {acknowledged}", found.len());
    // What is gone is reported, but at the very end, where it looks like a torn write.
    let last = world.appended.last_key_value().map_or(0, |(sequence, _)| *sequence);
    for (sequence, _) in world.appended.iter().filter(|(sequence, _)| !found.contains(sequence)) {
        let is_reported = tally.first_lost_sequence() == Some(*sequence);
        // The record after the next was appended when this one was durable.
        assert!(is_reported || *sequence + 2 > last, "{sequence} of {last} is lost in silence");
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let identity = LogIdentity { node: u128::from(random.next()), incarnation: 1, shard: 0 };
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES_MIN,
            buffer_bytes_max: u32::try_from(BUFFER_BYTES_MAX).expect("small"),
            frame_bytes_max: u32::try_from(FRAME_BYTES_MAX).expect("small"),
            spare_segments: 1 + u32::try_from(random.below(2)).expect("small"),
            ..LogConfig::new(identity)
        };
        let start = LogPosition { segment: 1, sequence: 1 };
        Self {
            random,
            disk: Disk::new(identity),
            config,
            log: Log::new(config, start, 0).expect("a good configuration"),
            flight: None,
            prepare: None,
            appended: BTreeMap::new(),
            next_token: 1,
            snapshot_under_way: None,
            snapshot: start,
        }
    }

    fn step(&mut self) {
        match self.random.below(24) {
            0..8 => self.append(),
            8..12 => self.begin_write(),
            12..18 => {
                let fails = self.random.once_in(100);
                self.finish_write(if fails { Err(libc::EIO) } else { Ok(()) });
            }
            18..21 => self.run_background(),
            21 => self.step_snapshot(),
            22 => self.log.handle_retry(),
            _ => self.disk.is_full = self.random.once_in(3),
        }
        self.note_durable();
    }

    fn append(&mut self) {
        let token = self.next_token;
        let (frame, assigned, refused) = content(token);
        let state = self.log.state();
        match self.log.append(&frame, &assigned, &refused) {
            Ok(sequence) => {
                self.next_token += 1;
                let entry = Appended { token, is_acknowledged: false };
                assert!(self.appended.insert(sequence, entry).is_none());
                let before = self.appended.keys().rev().nth(1).copied();
                assert!(before.is_none_or(|before| before < sequence));
            }
            Err(LogRefusal::Failed) => assert!(matches!(state, LogState::Failed { .. })),
            Err(_) => {}
        }
    }

    fn begin_write(&mut self) {
        let Some(operation) = self.log.poll_operation() else { return };
        let LogOperation::WriteSync { segment, offset_bytes, buffer, .. } = operation;
        self.disk.begin_write(segment, offset_bytes, &buffer);
        self.flight = Some(buffer);
    }

    fn finish_write(&mut self, outcome: Result<(), i32>) {
        let Some(buffer) = self.flight.take() else { return };
        if outcome.is_ok() {
            self.disk.finish_write();
        } else {
            self.disk.tear_write(&mut self.random);
        }
        self.log.handle_written(buffer, outcome);
    }

    /// The background answers what it was asked before, then is asked again.
    fn run_background(&mut self) {
        if let Some((segment, bytes)) = self.prepare.take() {
            let outcome = self.disk.prepare(segment, bytes, &mut self.random);
            self.log.handle_segment_ready(segment, outcome);
        }
        while let Some(request) = self.log.poll_segment_request() {
            match request {
                SegmentRequest::Prepare { segment, bytes } => {
                    assert!(self.prepare.replace((segment, bytes)).is_none());
                }
                SegmentRequest::Retire { below_segment } => self.disk.retire(below_segment),
            }
        }
    }

    fn step_snapshot(&mut self) {
        match self.snapshot_under_way.take() {
            None => self.snapshot_under_way = self.log.begin_snapshot().ok(),
            Some(_) if self.random.once_in(4) => self.log.abandon_snapshot(),
            Some(position) => {
                self.log.finish_snapshot(position);
                self.snapshot = position;
            }
        }
    }

    fn note_durable(&mut self) {
        let durable = self.log.durable_sequence();
        for (_, entry) in self.appended.range_mut(..=durable).rev() {
            if entry.is_acknowledged {
                break;
            }
            entry.is_acknowledged = true;
        }
    }

    fn check_bounds(&self) {
        assert!(self.log.pending_bytes() <= 2 * BUFFER_BYTES_MAX);
        assert!(self.log.memory_bytes() <= 4 * BUFFER_BYTES_MAX);
    }

    /// With room on the disk and writes that succeed, records are acknowledged again.
    fn check_recovery(&mut self) {
        if matches!(self.log.state(), LogState::Failed { .. }) {
            return;
        }
        self.disk.is_full = false;
        let before = self.log.durable_sequence();
        for _ in 0..RECOVERY_ROUNDS {
            self.log.handle_retry();
            self.run_background();
            self.append();
            self.begin_write();
            self.finish_write(Ok(()));
            self.note_durable();
        }
        assert_eq!(self.log.state(), LogState::Running);
        assert!(self.log.durable_sequence() > before, "no progress after the faults");
    }

    /// The process is killed (everything it wrote arrives) or the power fails (some of it does).
    fn crash(&mut self) {
        let arrives = self.random.once_in(3);
        if arrives && self.flight.is_some() {
            self.disk.finish_write();
        } else {
            self.disk.tear_write(&mut self.random);
        }
        (self.flight, self.prepare, self.snapshot_under_way) = (None, None, None);
        self.disk.is_full = false;
    }

    fn restart(&mut self) {
        let (found, tally) = self.replay();
        let from = self.snapshot.sequence;
        for (sequence, entry) in self.appended.range(from..) {
            let is_found = found.binary_search(sequence).is_ok();
            assert!(is_found || !entry.is_acknowledged, "acknowledged {sequence} is gone");
        }
        assert_eq!((tally.records_lost(), tally.records_repeated()), (0, 0));
        self.appended
            .retain(|sequence, _| *sequence < from || found.binary_search(sequence).is_ok());
        // What replay found is synced before the log goes on, so from here on it must stay.
        self.appended.values_mut().for_each(|entry| entry.is_acknowledged = true);
        let last_file = self.disk.segments(0).last().map_or(0, |(segment, _)| segment);
        let segment = (last_file + 1).max(self.snapshot.segment);
        let start = LogPosition { segment, sequence: tally.next_sequence() };
        self.log = Log::new(self.config, start, 0).expect("a good configuration");
    }

    /// Reads the log back from the snapshot on; checks that each record is one that was appended.
    fn replay(&mut self) -> (Vec<u64>, ReplayTally) {
        let mut reader = SegmentReader::new(&self.config.identity);
        let mut tally = ReplayTally::new(self.snapshot.sequence);
        let mut found = Vec::new();
        let piece_bytes = 16 << self.random.below(17);
        for (segment, file) in self.disk.segments(self.snapshot.segment) {
            reader.begin(segment);
            let mut pieces = file[BLOCK_BYTES..].chunks(piece_bytes.max(4096));
            loop {
                match reader.poll_record() {
                    ReaderStep::NeedBytes => reader.handle_piece(pieces.next().unwrap_or(&[])),
                    ReaderStep::End => break,
                    ReaderStep::Record(record) => {
                        if tally.handle_record(&record) {
                            let entry = self.appended.get(&record.sequence());
                            check_record(&record, entry.expect("it was appended").token);
                            found.push(record.sequence());
                        }
                    }
                }
            }
        }
        assert!(found.is_sorted_by(|before, after| before < after));
        (found, tally)
    }
}

type Content = (Vec<u8>, Vec<Result<SeriesId, Refusal>>, Vec<RefusedSample>);

/// A frame and what became of it, from its token alone.
fn content(token: u64) -> Content {
    let mut random = Random::new(token);
    let limit = [200, 5_000, FRAME_BYTES_MAX][random.below(3)];
    let mut frame = vec![random.next().to_le_bytes()[0]; 64 + random.below(limit - 64)];
    frame[..8].copy_from_slice(&token.to_le_bytes());
    let count = random.below(frame.len() / 16);
    let assigned = 0..u32::try_from(count.min(100)).expect("small");
    let assigned =
        assigned.map(|id| if id % 7 == 3 { Err(Refusal::HeadFull) } else { Ok(SeriesId(id)) });
    let refused = 0..u32::try_from(count % 5).expect("small");
    let refused = refused.map(|index| RefusedSample { index, reason: Refusal::TooOld });
    (frame, assigned.collect(), refused.collect())
}

fn check_record(record: &Record<'_>, token: u64) {
    let (frame, assigned, refused) = content(token);
    assert!(record.frame() == frame, "record {} is not what was appended", record.sequence());
    assert!(record.assigned().eq(assigned.iter().map(|id| id.as_ref().ok().copied())));
    assert!(record.refused().eq(refused.iter().map(|sample| sample.index)));
}
