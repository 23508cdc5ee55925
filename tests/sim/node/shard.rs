//! One shard of the simulated node, and what the ring and the background do for it: log writes,
//! segment files, snapshots and flushes, each a queue of its own.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;

use rkyv::util::AlignedVec;
use tidegate::background::blocks::flush::Flush;
use tidegate::background::disk::{Disk, DiskFile};
use tidegate::background::segments;
use tidegate::background::snapshots::OpenSnapshot;
use tidegate::base::bytes::AlignedBuffer;
use tidegate::base::time::monotonic_now;
use tidegate::model::refusal::Refusal;
use tidegate::model::series::SeriesId;
use tidegate::node::flush::FlushStep;
use tidegate::node::log::{LogIdentity, LogOperation, LogState, SegmentHeader, SegmentRequest};
use tidegate::node::select::{SelectBudget, SelectPoll, SelectRun};
use tidegate::node::shard::{FrameReceipt, NodeShard};
use tidegate::node::snapshot::SnapshotStep;
use tidegate::wire::frame::FLAG_BACKFILL;
use tidegate::wire::select::{SelectAnswer, SelectRequest, SelectedSeries};
use tidegate::wire::write::{NEW_SERIES, WritePayload};

use super::{Rules, Store};
use crate::drive::drive;
use crate::fake_disk::{FakeDisk, FakeFile};
use crate::oracle::Token;
use crate::random::Random;
use crate::series::Pool;

/// Commands that wait for a job: pieces ahead, and what begins and ends.
const COMMANDS_MAX: usize = 8;
/// What a head may hold above its limit: the growth of a table, and what was refused too late.
const HEAD_SLACK_BYTES: u64 = 1 << 20;

/// A sample of a batch.
#[derive(Clone, Copy)]
pub struct Written {
    pub token: Token,
    pub series: usize,
    pub at_ms: i64,
    pub bits: u64,
}

/// Samples that go to one shard in one frame.
#[derive(Clone, Default)]
pub struct Batch {
    pub samples: Vec<Written>,
    pub is_backfill: bool,
}

impl Batch {
    pub fn push(&mut self, series: usize, at_ms: i64, bits: u64) {
        self.samples.push(Written { token: 0, series, at_ms, bits });
    }

    /// What of it belongs to a shard.
    pub fn of_shard(&self, pool: &Pool, shard: usize, shard_count: usize) -> Self {
        let own = |sample: &&Written| pool.shard_of(sample.series, shard_count) == shard;
        let samples = self.samples.iter().filter(own).copied().collect();
        Self { samples, is_backfill: self.is_backfill }
    }
}

/// A shard and its drivers.
pub struct ShardSide {
    pub node: NodeShard,
    folder: PathBuf,
    identity: LogIdentity,
    /// Ids that acks gave to series of the pool.
    ids: HashMap<usize, SeriesId>,
    /// Frames that are not acked, and the series that each was new with.
    sent: VecDeque<(u64, Batch, Vec<usize>)>,
    next_frame: u64,
    /// Frames acked.
    pub acks: u64,
    /// The newest durable deletion.
    pub deleted: u64,
    segments: BTreeMap<u64, FakeFile>,
    segment_requests: VecDeque<SegmentRequest>,
    flight: Option<Flight>,
    snapshot_steps: VecDeque<SnapshotStep>,
    snapshot: Option<OpenSnapshot<FakeDisk>>,
    flush_steps: VecDeque<FlushStep>,
    flush: Option<(u64, Flush)>,
}

struct Flight {
    segment: u64,
    written: Result<(), i32>,
    buffer: AlignedBuffer,
}

impl ShardSide {
    pub fn new(node: NodeShard, folder: PathBuf, identity: LogIdentity) -> Self {
        Self {
            node,
            folder,
            identity,
            ids: HashMap::new(),
            sent: VecDeque::new(),
            next_frame: 1,
            acks: 0,
            deleted: 0,
            segments: BTreeMap::new(),
            segment_requests: VecDeque::new(),
            flight: None,
            snapshot_steps: VecDeque::new(),
            snapshot: None,
            flush_steps: VecDeque::new(),
            flush: None,
        }
    }

    /// Whether a write of the log is under way.
    pub fn is_writing(&self) -> bool {
        self.flight.is_some()
    }

    pub fn has_failed(&self) -> bool {
        matches!(self.node.log().state(), LogState::Failed { .. })
    }

    /// Offers a frame of a batch, all of whose series are this shard's.
    pub fn offer(&mut self, pool: &Pool, batch: &Batch) -> FrameReceipt {
        let mut payload = WritePayload::default();
        let mut new = Vec::new();
        for sample in &batch.samples {
            let index = new.iter().position(|series| *series == sample.series);
            let entry = if let Some(id) = self.ids.get(&sample.series) {
                id.0
            } else if let Some(index) = index {
                u32::try_from(index).expect("few") | NEW_SERIES
            } else {
                new.push(sample.series);
                let series = &pool.series[sample.series];
                payload.push_new_series(series.tenant, series.hash, &series.labels)
            };
            payload.series.push(entry);
            payload.timestamp_ms.push(sample.at_ms);
            payload.value.push(f64::from_bits(sample.bits));
        }
        let flags = if batch.is_backfill { FLAG_BACKFILL } else { 0 };
        let sequence = self.next_frame;
        let frame = payload.encode_frame((sequence, flags), 0, AlignedVec::new());
        let receipt = self.node.handle_frame(&frame);
        if receipt == FrameReceipt::Taken {
            self.next_frame += 1;
            self.sent.push_back((sequence, batch.clone(), new));
        }
        receipt
    }

    /// The next frame that is durable: its samples, and what became of each.
    pub fn poll_ack(&mut self) -> Option<(Batch, Vec<Result<(), Refusal>>)> {
        let ack = self.node.poll_ack()?;
        let (sequence, batch, new) = self.sent.pop_front().expect("it was sent");
        assert_eq!(sequence, ack.sequence, "acks come in order");
        self.acks += 1;
        let mut outcomes = vec![Ok(()); batch.samples.len()];
        for (series, assigned) in new.iter().zip(&ack.assigned) {
            match assigned {
                Ok(id) => drop(self.ids.insert(*series, *id)),
                Err(reason) => {
                    let own = batch.samples.iter().zip(&mut outcomes);
                    let own = own.filter(|(sample, _)| sample.series == *series);
                    own.for_each(|(_, outcome)| *outcome = Err(*reason));
                }
            }
        }
        for refused in &ack.refused {
            outcomes[refused.index as usize] = Err(refused.reason);
        }
        Some((batch, outcomes))
    }

    /// Takes idle series out of the head, and forgets them, as the gateway half does.
    pub fn retire(&mut self) {
        let mut left = Vec::new();
        // A frame under way may name one of them.
        if self.sent.is_empty() {
            self.node.poll_retire(&mut left);
        }
        self.ids.retain(|_, id| !left.iter().any(|series| series.id == *id));
    }

    pub fn begin_log_write(&mut self, disk: &FakeDisk) -> Option<()> {
        if self.flight.is_some() {
            return Some(());
        }
        let Some(operation) = self.node.poll_operation(monotonic_now()) else { return Some(()) };
        let LogOperation::WriteSync { segment, offset_bytes, buffer, .. } = operation;
        self.segments = self.segments.split_off(&segment);
        let file = self.segments.get(&segment).expect("a segment that is ready");
        let written = drive(disk, file.write_at(&buffer, offset_bytes))?;
        self.flight = Some(Flight { segment, written, buffer });
        Some(())
    }

    pub fn finish_log_write(&mut self, disk: &FakeDisk) -> Option<()> {
        let Some(Flight { segment, written, buffer }) = self.flight.take() else {
            return Some(());
        };
        let outcome = match written {
            Ok(()) => drive(disk, self.segments[&segment].sync())?,
            Err(errno) => Err(errno),
        };
        self.node.handle_written(monotonic_now(), buffer, outcome);
        if self.has_failed() {
            self.sent.clear();
        }
        Some(())
    }

    /// Asks for segments, and does one of the things asked for.
    pub fn step_segments(&mut self, disk: &FakeDisk) -> Option<()> {
        while let Some(request) = self.node.poll_segment_request() {
            if let SegmentRequest::Retire { below_segment } = request {
                self.segments = self.segments.split_off(&below_segment);
            }
            self.segment_requests.push_back(request);
        }
        match self.segment_requests.pop_front() {
            Some(SegmentRequest::Prepare { segment, bytes }) => {
                let identity = self.identity;
                let header = SegmentHeader { identity, segment, segment_bytes: bytes };
                let made = drive(disk, async {
                    let path = segments::make(disk, &self.folder, header).await?;
                    disk.open_to_write(&path).await
                })?;
                let outcome = made.map(|file| drop(self.segments.insert(segment, file)));
                self.node.handle_segment_ready(segment, outcome);
            }
            Some(SegmentRequest::Retire { below_segment }) => {
                // What stays is retired with the next snapshot.
                let _ = drive(disk, segments::retire(disk, &self.folder, below_segment))?;
            }
            None => {}
        }
        Some(())
    }

    /// The next step of a snapshot goes out, and one that waits is done.
    pub fn step_snapshot(&mut self, disk: &FakeDisk) -> Option<()> {
        self.snapshot_steps.extend(self.node.poll_snapshot());
        let Some(step) = self.snapshot_steps.pop_front() else { return Some(()) };
        match step {
            SnapshotStep::Begin(position) => {
                self.snapshot = None;
                let made = OpenSnapshot::create(disk, &self.folder, self.identity, position);
                match drive(disk, made)? {
                    Ok(snapshot) => self.snapshot = Some(snapshot),
                    Err(errno) => self.node.handle_snapshot_done(Err(errno)),
                }
            }
            SnapshotStep::Piece(bytes) => {
                let Some(mut snapshot) = self.snapshot.take() else { return Some(()) };
                match drive(disk, snapshot.write_piece(bytes))? {
                    Ok(memory) => {
                        self.snapshot = Some(snapshot);
                        self.node.handle_snapshot_piece_taken(memory);
                    }
                    Err(errno) => {
                        drive(disk, snapshot.remove())?;
                        self.node.handle_snapshot_done(Err(errno));
                    }
                }
            }
            SnapshotStep::End => {
                let Some(snapshot) = self.snapshot.take() else { return Some(()) };
                let outcome = drive(disk, snapshot.finish())?;
                self.node.handle_snapshot_done(outcome);
            }
        }
        Some(())
    }

    /// The next step of a flush goes out, and one that waits is done.
    pub fn step_flush(
        &mut self,
        disk: &FakeDisk,
        store: &Store,
        run_bytes_max: usize,
    ) -> Option<()> {
        if self.flush_steps.len() < 2 {
            self.flush_steps.extend(self.node.poll_flush());
        }
        let step = self.flush_steps.pop_front();
        disk.trace(|| format!("flush: {step:?}"));
        match step {
            Some(FlushStep::Begin { flush, tombstones_applied }) => {
                self.flush = Some((flush, Flush::new(tombstones_applied, run_bytes_max)));
            }
            Some(FlushStep::Series { flush, series }) => {
                let Some((_, run)) = self.flush.as_mut().filter(|open| open.0 == flush) else {
                    return Some(());
                };
                match drive(disk, run.handle_series(store, series))? {
                    Ok(published) => {
                        if let Some(series) = published {
                            self.node.handle_flush_published(flush, series);
                        }
                        self.node.handle_flush_piece_taken(flush);
                    }
                    Err(errno) => {
                        self.flush = None;
                        self.node.handle_flush_done(flush, Err(errno));
                    }
                }
            }
            Some(FlushStep::End { flush }) => {
                let Some((_, mut run)) = self.flush.take().filter(|open| open.0 == flush) else {
                    return Some(());
                };
                let outcome = drive(disk, run.finish(store))?.map(drop);
                self.node.handle_flush_done(flush, outcome);
            }
            Some(FlushStep::Abandon { .. }) => self.flush = None,
            None => {}
        }
        Some(())
    }

    /// Deletions that the flush under way has seen.
    pub fn flushing(&self) -> Option<u64> {
        self.flush.as_ref().map(|(_, run)| run.tombstones_applied())
    }

    pub fn has_no_flush_command(&self) -> bool {
        self.flush_steps.is_empty()
    }

    /// What the head answers, in slices.
    pub fn select(&self, request: SelectRequest, random: &mut Random) -> Vec<SelectedSeries> {
        let head = self.node.head();
        let mut run = SelectRun::new(request, head).expect("no matchers");
        let steps = u32::try_from(1 + random.below(1_000)).expect("small");
        let mut found = Vec::new();
        loop {
            match run.poll(head, SelectBudget { steps }) {
                SelectPoll::Answer(SelectAnswer::Series(series)) => found.extend(series),
                SelectPoll::Answer(SelectAnswer::Fault(fault)) => panic!("{fault:?}"),
                SelectPoll::Answer(_) | SelectPoll::Pending => {}
                SelectPoll::Done => return found,
            }
        }
    }

    pub fn check_bounds(&self, rules: &Rules) {
        let buffer = rules.log_buffer_bytes_max as usize;
        assert!(self.node.log().pending_bytes() <= 2 * buffer);
        assert!(self.node.log().memory_bytes() <= 4 * buffer);
        assert!(self.node.head().bytes() <= rules.head_bytes_max + HEAD_SLACK_BYTES);
        assert!(self.segment_requests.len() <= COMMANDS_MAX);
        assert!(self.snapshot_steps.len() <= COMMANDS_MAX);
        assert!(self.flush_steps.len() <= COMMANDS_MAX);
    }
}
