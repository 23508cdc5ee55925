//! DRIVER: what a shard does for its node half: log writes on the ring, segment files and snapshots
//! by the background, and the questions of queries, a slice of each per turn.

use crate::background::command::{
    BackgroundEvent, FlushCommand, SegmentCommand, SegmentFile, SnapshotCommand,
};
use crate::background::executor::BackgroundSender;
use crate::base::bytes::AlignedBuffer;
use crate::base::time::{Duration, Instant, Now};
use crate::control::shards::Done;
use crate::model::refusal::Refusal;
use crate::model::series::TenantId;
use crate::node::block::Tombstone;
use crate::node::cardinality::{Cardinality, CardinalityRun};
use crate::node::flush::FlushStep;
use crate::node::head::LeftSeries;
use crate::node::log::{LogOperation, LogState, SegmentRequest};
use crate::node::registry::{LogProgress, RegistryRun, RegistrySlice};
use crate::node::select::{SelectBudget, SelectPoll, SelectRun};
use crate::node::shard::{FrameReceipt, NodeShard};
use crate::node::snapshot::SnapshotStep;
use crate::ring::{Ring, SyncMethod, WriteRange};
use crate::server::shard::TokenKind;
use crate::wire::ack::Ack;
use crate::wire::select::{SelectAnswer, SelectRequest};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// How often what the disk refused is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Label pairs and series that a turn counts: about 100 microseconds.
const CARDINALITY_STEPS_A_TURN: u32 = 1024;
/// Ids that a turn names for gateways: about 100 microseconds.
const REGISTRY_STEPS_A_TURN: u32 = 4096;
/// Steps of all selects together in a turn: a few hundred microseconds.
const SELECT_STEPS_A_TURN: u32 = 4096;

/// The node half of a shard, with its files and its questions.
pub struct NodeSide {
    shard: u32,
    node: Option<Box<NodeShard>>,
    segments: BTreeMap<u64, SegmentFile>,
    background: Option<BackgroundSender>,
    /// Commands that the background had no room for.
    segment_commands: VecDeque<SegmentCommand>,
    snapshot_commands: VecDeque<SnapshotCommand>,
    flush_commands: VecDeque<FlushCommand>,
    /// Who waits for a flush of everything, and for which.
    flush_waiters: Vec<(u64, flume::Sender<Done>)>,
    /// Deletions that the log had no room for, and those that are not durable.
    deletions: VecDeque<(Arc<Tombstone>, flume::Sender<Done>)>,
    deletions_logged: VecDeque<(u64, flume::Sender<Done>)>,
    selects: Vec<RunningSelect>,
    cardinality: Vec<(CardinalityRun, flume::Sender<Box<Cardinality>>)>,
    /// One at a time gets on, so that many gateways cost a turn no more than one.
    registry: VecDeque<(RegistryRun, flume::Sender<Box<RegistrySlice>>)>,
    retry_at: Instant,
    is_failure_told: bool,
    is_disk_refusing: bool,
}

struct RunningSelect {
    run: SelectRun,
    reply: flume::Sender<SelectAnswer>,
    /// An answer that the asker had no room for.
    waiting: Option<SelectAnswer>,
}

/// The log failed, which it stays.
#[derive(Clone, Copy, Debug)]
pub struct LogFailed;

impl NodeSide {
    /// The node half of `shard`, which is still being replayed.
    pub fn new(shard: u32, now: Instant) -> Self {
        Self {
            shard,
            node: None,
            segments: BTreeMap::new(),
            background: None,
            segment_commands: VecDeque::new(),
            snapshot_commands: VecDeque::new(),
            flush_commands: VecDeque::new(),
            flush_waiters: Vec::new(),
            deletions: VecDeque::new(),
            deletions_logged: VecDeque::new(),
            selects: Vec::new(),
            cardinality: Vec::new(),
            registry: VecDeque::new(),
            retry_at: now + RETRY,
            is_failure_told: false,
            is_disk_refusing: false,
        }
    }

    /// The node half is replayed and takes frames from now on.
    pub fn handle_node(
        &mut self,
        mut node: Box<NodeShard>,
        background: BackgroundSender,
        now: Now,
    ) {
        assert!(self.node.is_none());
        node.handle_second(now.unix_ms);
        self.node = Some(node);
        self.background = Some(background);
    }

    /// The node half, once it is replayed.
    pub fn node(&self) -> Option<&NodeShard> {
        self.node.as_deref()
    }

    /// As [`NodeSide::node`], for a link port.
    pub fn node_mut(&mut self) -> Option<&mut NodeShard> {
        self.node.as_deref_mut()
    }

    /// Why no sample can be taken now, if none can.
    pub fn refusal(&self) -> Option<Refusal> {
        let Some(node) = &self.node else { return Some(Refusal::Replaying) };
        match node.log().state() {
            LogState::Failed { .. } => Some(Refusal::LogFailed),
            LogState::Running | LogState::Stopped(_) => None,
        }
    }

    /// Offers a frame.
    pub fn handle_frame(&mut self, frame: &[u8]) -> FrameReceipt {
        match &mut self.node {
            Some(node) => node.handle_frame(frame),
            None => FrameReceipt::Refused(Refusal::Replaying),
        }
    }

    /// Takes some series without samples out of memory; appends to `left` which are gone now. Only
    /// while the gateway half holds no frame that it could not hand over.
    pub fn retire(&mut self, left: &mut Vec<LeftSeries>) {
        if let Some(node) = &mut self.node {
            node.poll_retire(left);
        }
    }

    /// Whether there are series to look at in [`NodeSide::retire`].
    pub fn wants_retire(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.wants_retire_step())
    }

    /// The next frame that is durable.
    pub fn poll_ack(&mut self) -> Option<Ack> {
        self.node.as_mut()?.poll_ack()
    }

    /// The log's write is over.
    pub fn handle_written(
        &mut self,
        now: Now,
        buffer: AlignedBuffer,
        outcome: Result<(), i32>,
    ) -> Result<(), LogFailed> {
        let node = self.node.as_mut().expect("only a replayed node writes");
        node.handle_written(now.monotonic, buffer, outcome);
        let LogState::Failed { errno } = node.log().state() else { return Ok(()) };
        // Whoever waits sees the channel close.
        self.deletions.clear();
        self.deletions_logged.clear();
        self.flush_waiters.clear();
        self.registry.clear();
        if !self.is_failure_told {
            self.is_failure_told = true;
            let error = std::io::Error::from_raw_os_error(errno);
            tracing::error!(
                shard = self.shard,
                %error,
                "cannot write the log: this shard refuses all samples until a restart; nothing \
                 acknowledged is lost; check the disk first"
            );
        }
        Err(LogFailed)
    }

    /// What the background is done with.
    pub fn handle_background(&mut self, event: BackgroundEvent) {
        let Some(node) = &mut self.node else { return };
        match event {
            BackgroundEvent::SegmentReady { segment, outcome } => {
                let outcome = outcome.map(|file| {
                    self.segments.insert(segment, file);
                });
                node.handle_segment_ready(segment, outcome);
                self.tell_segments(outcome);
            }
            BackgroundEvent::SnapshotPieceWritten { bytes } => {
                node.handle_snapshot_piece_taken(bytes);
            }
            BackgroundEvent::FlushPieceTaken { flush } => node.handle_flush_piece_taken(flush),
            BackgroundEvent::FlushPublished { flush, series } => {
                node.handle_flush_published(flush, series);
            }
            BackgroundEvent::FlushDone { flush, outcome } => {
                if let Err(errno) = outcome {
                    let error = std::io::Error::from_raw_os_error(errno);
                    let shard = self.shard;
                    tracing::warn!(shard, %error, "cannot write blocks; memory and log keep all");
                }
                node.handle_flush_done(flush, outcome);
                if outcome.is_err() {
                    // Whoever waits sees the channel close; it is tried again by itself.
                    self.flush_waiters.clear();
                }
            }
            BackgroundEvent::SnapshotDone => node.handle_snapshot_done(Ok(())),
            BackgroundEvent::SnapshotFailed { errno } => {
                let error = std::io::Error::from_raw_os_error(errno);
                let shard = self.shard;
                tracing::warn!(shard, %error, "cannot write a snapshot; the log is kept");
                node.handle_snapshot_done(Err(errno));
            }
        }
    }

    /// Says once that the disk refuses segments, and once that it takes them again: attempts are
    /// made every second.
    fn tell_segments(&mut self, outcome: Result<(), i32>) {
        let (shard, was_refused) = (self.shard, self.is_disk_refusing);
        self.is_disk_refusing = outcome.is_err();
        match outcome {
            Err(errno) if !was_refused => {
                let error = std::io::Error::from_raw_os_error(errno);
                tracing::error!(
                    shard,
                    %error,
                    "cannot make the next log segment: samples are refused once the one in use is \
                     full; make room; it is tried again every second"
                );
            }
            Ok(()) if was_refused => tracing::info!(shard, "log segments can be made again"),
            Ok(()) | Err(_) => {}
        }
    }

    /// A query's question. Before replay is done there is no answer: the asker sees its channel
    /// close.
    pub fn handle_select(
        &mut self,
        request: Arc<SelectRequest>,
        reply: flume::Sender<SelectAnswer>,
    ) {
        let Some(node) = &self.node else { return };
        match SelectRun::new(Arc::unwrap_or_clone(request), node.head()) {
            Ok(run) => self.selects.push(RunningSelect { run, reply, waiting: None }),
            Err(fault) => {
                // An asker that has left needs no answer; one with a full channel was told worse by
                // another shard.
                let _ = reply.try_send(SelectAnswer::Fault(fault));
            }
        }
    }

    /// What the series in memory are made of. Before replay is done the asker sees its channel
    /// close.
    pub fn handle_cardinality(
        &mut self,
        tenant: TenantId,
        limit: usize,
        reply: flume::Sender<Box<Cardinality>>,
    ) {
        if self.node.is_some() {
            self.cardinality.push((CardinalityRun::new(tenant, limit), reply));
        }
    }

    /// Which ids were given. Before replay is done the asker sees its channel close.
    pub fn handle_registry(
        &mut self,
        position: u64,
        entries_max: u32,
        reply: flume::Sender<Box<RegistrySlice>>,
    ) {
        if self.node.is_some() {
            self.registry.push_back((RegistryRun::new(position, entries_max), reply));
        }
    }

    /// Starts file work and does a slice of every question.
    pub fn work(&mut self, now: Now, ring: &mut Ring) {
        let Some(node) = &mut self.node else { return };
        let shard = self.shard;
        while let Some(request) = node.poll_segment_request() {
            self.segment_commands.push_back(match request {
                SegmentRequest::Prepare { segment, bytes } => {
                    SegmentCommand::Prepare { shard, segment, bytes }
                }
                SegmentRequest::Retire { below_segment } => {
                    // Closed first, which gives their locks back: one of them may be the next
                    // segment.
                    self.segments = self.segments.split_off(&below_segment);
                    SegmentCommand::Retire { shard, below_segment }
                }
            });
        }
        if let Some(operation) = node.poll_operation(now.monotonic) {
            self.submit(operation, ring);
        }
        self.step_snapshot();
        self.step_flush();
        self.step_deletions();
        self.send_commands();
        self.work_selects();
    }

    /// Whether something is to be done even if nothing completes: a snapshot's next piece or a
    /// question's next slice.
    pub fn has_slices_to_do(&self) -> bool {
        !self.cardinality.is_empty()
            || self.registry.front().is_some_and(|(run, _)| !run.waits_for_log())
            || self.selects.iter().any(|select| select.waiting.is_none())
            || self.node.as_ref().is_some_and(|node| {
                node.wants_snapshot_step()
                    || node.wants_flush_step() && self.flush_commands.is_empty()
            })
    }

    /// Whether an answer waits for which there is room again.
    pub fn has_answer_to_send(&self) -> bool {
        self.selects.iter().any(|select| select.waiting.is_some() && !select.reply.is_full())
    }

    /// Four times a second.
    pub fn handle_tick(&mut self, now: Now) {
        let Some(node) = &mut self.node else { return };
        if self.retry_at <= now.monotonic {
            self.retry_at = now.monotonic + RETRY;
            node.handle_retry();
            node.handle_second(now.unix_ms);
        }
    }

    /// Whether everything that was taken is durable.
    pub fn is_idle(&self) -> bool {
        self.node.as_ref().is_none_or(|node| node.is_idle())
    }

    /// Segment files that are open.
    pub fn open_segments(&self) -> u64 {
        self.segments.len() as u64
    }

    fn submit(&mut self, operation: LogOperation, ring: &mut Ring) {
        let LogOperation::WriteSync { segment, offset_bytes, len_bytes, buffer } = operation;
        // Earlier segments are written to the end: their files can close.
        self.segments = self.segments.split_off(&segment);
        let file = self.segments.get(&segment).expect("the log writes to segments that are ready");
        let token = TokenKind::LogWrite.token(0);
        let range = WriteRange {
            offset: offset_bytes,
            len: len_bytes as usize,
            method: SyncMethod::Fdatasync,
        };
        ring.write_sync(token, file.file.as_raw_fd(), range, buffer);
    }

    fn step_snapshot(&mut self) {
        let Some(node) = &mut self.node else { return };
        let shard = self.shard;
        if let Some(step) = node.poll_snapshot() {
            self.snapshot_commands.push_back(match step {
                SnapshotStep::Begin(position) => SnapshotCommand::Begin { shard, position },
                SnapshotStep::Piece(bytes) => SnapshotCommand::Piece { shard, bytes },
                SnapshotStep::End => SnapshotCommand::End { shard },
            });
        }
    }

    fn step_flush(&mut self) {
        let Some(node) = &mut self.node else { return };
        let shard = self.shard;
        if self.flush_commands.is_empty()
            && let Some(step) = node.poll_flush()
        {
            self.flush_commands.push_back(match step {
                FlushStep::Begin { flush, tombstones_applied } => {
                    FlushCommand::Begin { shard, flush, tombstones_applied }
                }
                FlushStep::Series { flush, series } => {
                    FlushCommand::Series { shard, flush, series }
                }
                FlushStep::End { flush } => FlushCommand::End { shard, flush },
                FlushStep::Abandon { flush } => FlushCommand::Abandon { shard, flush },
            });
        }
        let answered = node.flushes_answered();
        self.flush_waiters.retain(|(wanted, reply)| {
            let is_done = *wanted <= answered;
            if is_done {
                // An asker that has left needs no answer.
                let _ = reply.try_send(Done);
            }
            !is_done && !reply.is_disconnected()
        });
    }

    /// Somebody wants everything in blocks. Before replay is done the asker sees its channel close.
    pub fn handle_flush_request(&mut self, reply: flume::Sender<Done>) {
        let Some(node) = &mut self.node else { return };
        let wanted = node.handle_flush_request();
        self.flush_waiters.push((wanted, reply));
    }

    /// Somebody deletes samples; answered when the deletion is durable.
    pub fn handle_delete(&mut self, tombstone: Arc<Tombstone>, reply: flume::Sender<Done>) {
        if self.node.is_some() {
            self.deletions.push_back((tombstone, reply));
        }
    }

    fn step_deletions(&mut self) {
        let Some(node) = &mut self.node else { return };
        while let Some((tombstone, reply)) = self.deletions.pop_front() {
            match node.handle_delete(&tombstone) {
                FrameReceipt::Taken => self.deletions_logged.push_back((tombstone.id, reply)),
                FrameReceipt::Delayed => {
                    self.deletions.push_front((tombstone, reply));
                    break;
                }
                // The asker sees its channel close.
                FrameReceipt::Refused(_) => {}
            }
        }
        while let Some(id) = node.poll_deleted() {
            let (logged, reply) = self.deletions_logged.pop_front().expect("one for each");
            assert!(logged == id, "deletions become durable in order");
            let _ = reply.try_send(Done);
        }
    }

    /// The line is short: one segment request, one retirement and two pieces at a time.
    fn send_commands(&mut self) {
        let Some(background) = &self.background else { return };
        while let Some(command) = self.segment_commands.pop_front() {
            if let Err(command) = background.try_send_segment(command) {
                self.segment_commands.push_front(command);
                break;
            }
        }
        while let Some(command) = self.flush_commands.pop_front() {
            if let Err(command) = background.try_send_flush(command) {
                self.flush_commands.push_front(command);
                break;
            }
        }
        while let Some(command) = self.snapshot_commands.pop_front() {
            if let Err(command) = background.try_send_snapshot(command) {
                self.snapshot_commands.push_front(command);
                break;
            }
        }
    }

    fn work_selects(&mut self) {
        let Some(node) = &self.node else { return };
        let count = u32::try_from(self.selects.len()).unwrap_or(u32::MAX);
        let steps = SELECT_STEPS_A_TURN / count.max(1);
        let budget = SelectBudget { steps: CARDINALITY_STEPS_A_TURN };
        self.cardinality.retain_mut(|(run, reply)| match run.poll(node.head(), budget) {
            Some(found) => {
                // An asker that has left needs no answer.
                let _ = reply.try_send(Box::new(found));
                false
            }
            None => !reply.is_disconnected(),
        });
        let budget = SelectBudget { steps: REGISTRY_STEPS_A_TURN };
        if let Some((mut run, reply)) = self.registry.pop_front() {
            let log = LogProgress {
                appended: node.log().appended_sequence(),
                durable: node.log().durable_sequence(),
            };
            match run.poll((node.head(), log), budget) {
                Some(found) => {
                    // An asker that has left needs no answer.
                    let _ = reply.try_send(Box::new(found));
                }
                None if reply.is_disconnected() => {}
                None => self.registry.push_front((run, reply)),
            }
        }
        self.selects.retain_mut(|select| select.work(node, SelectBudget { steps: steps.max(64) }));
    }
}

impl RunningSelect {
    /// Does a slice; false when it is over.
    fn work(&mut self, node: &NodeShard, budget: SelectBudget) -> bool {
        if let Some(answer) = self.waiting.take()
            && !self.send(answer)
        {
            return self.waiting.is_some();
        }
        match self.run.poll(node.head(), budget) {
            SelectPoll::Pending => !self.reply.is_disconnected(),
            SelectPoll::Done => false,
            SelectPoll::Answer(answer) => self.send(answer) || self.waiting.is_some(),
        }
    }

    /// Whether the answer went out. If not it waits, or nobody wants it any more.
    fn send(&mut self, answer: SelectAnswer) -> bool {
        match self.reply.try_send(answer) {
            Ok(()) => true,
            Err(flume::TrySendError::Full(answer)) => {
                self.waiting = Some(answer);
                false
            }
            Err(flume::TrySendError::Disconnected(_)) => false,
        }
    }
}
