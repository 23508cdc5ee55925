//! One node shard: frames in; file work, acks and snapshots out. Pure; the shard loop owns files,
//! ring and clock.
//!
//! A frame is applied to the head and appended to the log in one step, and acked when the log says
//! that it is durable. What a query may see before its ack is at most what a client has sent:
//! nothing is invented.
//! Not here: what a frame means (`receiver`), layouts (`log`), series (`head`), the course of a
//! snapshot (`snapshot`).

use crate::base::bytes::AlignedBuffer;
use crate::base::latency::LatencyBuckets;
use crate::base::time::Instant;
use crate::model::refusal::Refusal;
use crate::node::flush::{FlushCourse, FlushStats, FlushStep};
use crate::node::head::{Head, IDLE_MS, LeftSeries, RetireCourse};
use crate::node::log::{Log, LogOperation, LogRefusal, LogState, SegmentRequest};
use crate::node::receiver::{Receipt, Receiver};
use crate::node::snapshot::{SnapshotCourse, SnapshotStep};
use crate::wire::ack::Ack;
use crate::wire::delete::Deletion;
use crate::wire::frame::{FRAME_HEADER_BYTES, decode_header};
use crate::wire::write::WriteView;
use std::collections::VecDeque;

/// A node shard that has replayed its log.
pub struct NodeShard {
    head: Head,
    log: Log,
    receiver: Receiver,
    snapshot: SnapshotCourse,
    flush: FlushCourse,
    retire: RetireCourse,
    retention_ms: i64,
    /// Deletions in the log, durable or not: position there, id.
    deletions: VecDeque<(u64, u64)>,
    acks: VecDeque<PendingAck>,
    write_began: Option<Instant>,
    stats: NodeStats,
}

struct PendingAck {
    log_sequence: u64,
    ack: Ack,
}

/// What a node shard did since it started.
#[derive(Clone, Debug, Default)]
pub struct NodeStats {
    /// Frames in the log.
    pub frames: u64,
    /// Bytes of these frames.
    pub frame_bytes: u64,
    /// Log writes, each with its sync.
    pub writes: u64,
    /// Bytes of these writes, padding included.
    pub write_bytes: u64,
    /// From submission to durability.
    pub sync_latency: LatencyBuckets,
    /// Snapshots that were finished.
    pub snapshots: u64,
    /// Snapshots that failed; the log is kept until one succeeds.
    pub snapshots_failed: u64,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameReceipt {
    /// Its ack will come by [`NodeShard::poll_ack`].
    Taken,
    /// No room now; nothing has changed. Offer it again after the next write.
    Delayed,
    /// Nothing of it was taken, for this reason.
    Refused(Refusal),
}

impl NodeShard {
    /// A shard that goes on from `head` and `log`, as replay left them.
    ///
    /// `retention_ms` 0 takes samples however old.
    pub fn new(
        head: Head,
        log: Log,
        (snapshot, flush): (SnapshotCourse, FlushCourse),
        retention_ms: i64,
    ) -> Self {
        Self {
            head,
            log,
            receiver: Receiver::default(),
            snapshot,
            flush,
            retire: RetireCourse::new(IDLE_MS),
            retention_ms,
            deletions: VecDeque::new(),
            acks: VecDeque::new(),
            write_began: None,
            stats: NodeStats::default(),
        }
    }

    /// Takes a `Write` frame that has arrived whole: header and payload, 16-aligned.
    pub fn handle_frame(&mut self, frame: &[u8]) -> FrameReceipt {
        let len_bytes = u32::try_from(frame.len()).expect("frames are below 4 MiB");
        match self.log.check_room(len_bytes) {
            Ok(()) => {}
            Err(LogRefusal::Full) => return FrameReceipt::Delayed,
            Err(fault) => return FrameReceipt::Refused(fault.refusal()),
        }
        // Whoever brings frames from outside checks their checksum on arrival; here it would be
        // the third pass over them.
        let header = decode_header(frame).expect("the gateway half sealed it");
        let view = WriteView::check(&frame[FRAME_HEADER_BYTES..]).expect("as it encoded it");
        let Receipt { assigned, refused } =
            self.receiver.apply(&view, header.flags, &mut self.head);
        let appended = self.log.append(frame, &assigned, &refused);
        let log_sequence = appended.expect("there was room above");
        self.stats.frames += 1;
        self.stats.frame_bytes += u64::from(len_bytes);
        let ack = Ack { sequence: header.sequence, assigned, refused };
        self.acks.push_back(PendingAck { log_sequence, ack });
        FrameReceipt::Taken
    }

    /// The next frame that is durable now. In the order they were taken.
    pub fn poll_ack(&mut self) -> Option<Ack> {
        let durable = self.log.durable_sequence();
        if self.acks.front()?.log_sequence > durable {
            return None;
        }
        self.acks.pop_front().map(|pending| pending.ack)
    }

    /// The next file operation.
    pub fn poll_operation(&mut self, now: Instant) -> Option<LogOperation> {
        let operation = self.log.poll_operation()?;
        let LogOperation::WriteSync { len_bytes, .. } = &operation;
        self.stats.writes += 1;
        self.stats.write_bytes += u64::from(*len_bytes);
        self.write_began = Some(now);
        Some(operation)
    }

    /// The operation is done, or failed with an errno. After a failure the log takes nothing, and
    /// unacked frames stay so.
    pub fn handle_written(
        &mut self,
        now: Instant,
        buffer: AlignedBuffer,
        outcome: Result<(), i32>,
    ) {
        if let Some(began) = self.write_began.take() {
            self.stats.sync_latency.observe(now.duration_since(began));
        }
        self.log.handle_written(buffer, outcome);
        if let LogState::Failed { .. } = self.log.state() {
            self.acks.clear();
            self.deletions.clear();
            self.snapshot.abandon();
            self.flush.stop();
        }
    }

    /// The next request for segment files.
    pub fn poll_segment_request(&mut self) -> Option<SegmentRequest> {
        self.log.poll_segment_request()
    }

    /// A segment's file is there and open, or could not be made.
    pub fn handle_segment_ready(&mut self, segment: u64, outcome: Result<(), i32>) {
        self.log.handle_segment_ready(segment, outcome);
    }

    /// Once a second: tries again what the disk refused.
    pub fn handle_retry(&mut self) {
        self.log.handle_retry();
    }

    /// The next step of a snapshot, one piece at a time, when the log has grown enough to want
    /// one.
    pub fn poll_snapshot(&mut self) -> Option<SnapshotStep> {
        self.snapshot.poll(&self.head, &mut self.log)
    }

    /// The background took a piece of the snapshot.
    pub fn handle_snapshot_piece_taken(&mut self, memory: Vec<u8>) {
        self.snapshot.handle_piece_taken(memory);
    }

    /// Whether a snapshot's next step waits for nothing but a turn.
    pub fn wants_snapshot_step(&self) -> bool {
        self.snapshot.is_ready()
    }

    /// The snapshot is on stable storage, or failed.
    pub fn handle_snapshot_done(&mut self, outcome: Result<(), i32>) {
        match outcome {
            Ok(()) => self.stats.snapshots += 1,
            Err(_) => self.stats.snapshots_failed += 1,
        }
        self.snapshot.handle_done(&mut self.log, outcome);
    }

    /// The series and samples.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The log, to report on.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What it did.
    pub fn stats(&self) -> &NodeStats {
        &self.stats
    }

    /// Deletes samples from the head, and logs that. Durable once [`NodeShard::poll_deleted`] says
    /// so. `Delayed`: nothing has changed, offer it again. `Refused`: they are gone from the head,
    /// but a restart brings them back.
    pub fn handle_delete(&mut self, deletion: &Deletion) -> FrameReceipt {
        let frame = deletion.encode_frame(0);
        let len_bytes = u32::try_from(frame.len()).expect("frames are below 4 MiB");
        let room = self.log.check_room(len_bytes);
        if room == Err(LogRefusal::Full) {
            return FrameReceipt::Delayed;
        }
        // What a flush took before still holds the samples: it must not be published as if it did
        // not. Also if the log refuses: the blocks know the deletion, and would hide what is
        // written here from now on if it came to them as not having seen it.
        self.flush.handle_delete(deletion.id);
        self.head.delete(deletion);
        if let Err(fault) = room {
            return FrameReceipt::Refused(fault.refusal());
        }
        let sequence = self.log.append(&frame, &[], &[]).expect("there was room above");
        self.deletions.push_back((sequence, deletion.id));
        FrameReceipt::Taken
    }

    /// The next deletion that is durable now: its id.
    pub fn poll_deleted(&mut self) -> Option<u64> {
        let (sequence, id) = *self.deletions.front()?;
        if sequence > self.log.durable_sequence() {
            return None;
        }
        self.deletions.pop_front();
        Some(id)
    }

    /// Once a second, by the wall clock: what is too old is refused, and what is old enough goes
    /// to blocks.
    pub fn handle_second(&mut self, now_unix_ms: i64) {
        let oldest_ms = match self.retention_ms {
            0 => i64::MIN,
            retention_ms => now_unix_ms.saturating_sub(retention_ms),
        };
        self.head.set_oldest_kept_ms(oldest_ms);
        self.flush.handle_second(&self.head, now_unix_ms);
        self.retire.handle_second(&self.head, now_unix_ms);
    }

    /// Goes on with taking series without samples out of the head; appends to `left` which are
    /// gone now. To be called only while no frame waits that was made before: it may name one of
    /// them, and would be refused.
    pub fn poll_retire(&mut self, left: &mut Vec<LeftSeries>) {
        if self.wants_retire_step() {
            self.retire.poll(&mut self.head, left);
        }
    }

    /// Whether the next step of that waits for nothing but a turn.
    pub fn wants_retire_step(&self) -> bool {
        self.retire.is_ready(&self.head) && !self.snapshot.is_walking()
    }

    /// Everything in the head is to go to blocks; it has when [`NodeShard::flushes_answered`] is
    /// at least what this returns.
    pub fn handle_flush_request(&mut self) -> u64 {
        self.flush.handle_request()
    }

    /// See [`NodeShard::handle_flush_request`].
    pub fn flushes_answered(&self) -> u64 {
        self.flush.answered()
    }

    /// The next step of a flush.
    pub fn poll_flush(&mut self) -> Option<FlushStep> {
        let flushes = self.flush.stats().flushes;
        let step = self.flush.poll(&mut self.head);
        if self.flush.stats().flushes > flushes {
            // The head is small now: the best moment to let the log go.
            self.snapshot.handle_flushed(&self.log);
        }
        step
    }

    /// The background took a piece of a flush.
    pub fn handle_flush_piece_taken(&mut self, flush: u64) {
        self.flush.handle_piece_taken(flush);
    }

    /// So many series of a flush are in blocks.
    pub fn handle_flush_published(&mut self, flush: u64, series: u64) {
        self.flush.handle_published(flush, series);
    }

    /// A flush is over.
    pub fn handle_flush_done(&mut self, flush: u64, outcome: Result<(), i32>) {
        self.flush.handle_done(flush, outcome);
    }

    /// Whether a flush's next step waits for nothing but a turn.
    pub fn wants_flush_step(&self) -> bool {
        self.flush.is_ready()
    }

    /// What flushes did.
    pub fn flush_stats(&self) -> FlushStats {
        self.flush.stats()
    }

    /// Whether every frame is acked and no file work is under way.
    pub fn is_idle(&self) -> bool {
        self.acks.is_empty() && self.deletions.is_empty() && self.write_began.is_none()
    }
}

#[cfg(test)]
mod tests;
