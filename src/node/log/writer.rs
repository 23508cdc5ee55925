//! The log as it is written: frames in, writes and segment requests out, and up to where all is
//! durable.
//!
//! The caller owns files, ring and timer: it does what `poll_*` gives and tells the outcome by
//! `handle_*`. A record costs one copy of its frame and one checksum over it; nothing is allocated
//! once the buffers have grown. Not here: layouts (`record`, `segment`), buffers (`groups`), what a
//! snapshot holds (`head`).

use std::collections::VecDeque;

use crate::base::bytes::AlignedBuffer;
use crate::model::refusal::Refusal;
use crate::model::series::SeriesId;
use crate::wire::ack::RefusedSample;
use crate::wire::frame::FRAME_BYTES_MAX;

use super::groups::Groups;
use super::record::{RecordNumbers, encode_record, record_len_bytes, record_len_bytes_max};
use super::segment::{BLOCK_BYTES, LogIdentity, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN};

const BUFFER_BYTES_DEFAULT: u32 = 8 << 20;

/// What a log is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Whose log it is.
    pub identity: LogIdentity,
    /// Bytes of a segment file, a multiple of [`BLOCK_BYTES`].
    pub segment_bytes: u64,
    /// Most bytes that gather and wait, and most that are in flight: twice this is the memory. A
    /// multiple of blocks.
    pub buffer_bytes_max: u32,
    /// Longest frame; the receiver refuses longer ones.
    pub frame_bytes_max: u32,
    /// Segments kept ready ahead of the one written to; at least 1.
    pub spare_segments: u32,
}

/// Why a configuration cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogConfigFault {
    /// A segment is smaller than [`SEGMENT_BYTES_MIN`], or not whole blocks.
    SegmentBytes { segment_bytes: u64 },
    /// The longest record does not fit into a segment.
    FrameExceedsSegment { frame_bytes_max: u32, segment_bytes: u64 },
    /// The longest record does not fit into a buffer, or the buffer is not whole blocks.
    FrameExceedsBuffer { frame_bytes_max: u32, buffer_bytes_max: u32 },
    /// No spare segment: each rotation would wait for the disk.
    NoSpareSegment,
}

impl LogConfig {
    /// The defaults: 64 MiB segments, 8 MiB buffers, frames of [`FRAME_BYTES_MAX`], one spare
    /// segment.
    #[expect(clippy::cast_possible_truncation, reason = "4 MiB")]
    pub fn new(identity: LogIdentity) -> Self {
        Self {
            identity,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            buffer_bytes_max: BUFFER_BYTES_DEFAULT,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            spare_segments: 1,
        }
    }

    /// Checks that the longest record fits wherever it must.
    pub fn check(&self) -> Result<(), LogConfigFault> {
        let Self { segment_bytes, buffer_bytes_max, frame_bytes_max, .. } = *self;
        let block = BLOCK_BYTES as u64;
        if segment_bytes < SEGMENT_BYTES_MIN || !segment_bytes.is_multiple_of(block) {
            return Err(LogConfigFault::SegmentBytes { segment_bytes });
        }
        let record = record_len_bytes_max(frame_bytes_max as usize).next_multiple_of(block);
        if frame_bytes_max as usize > FRAME_BYTES_MAX || record > segment_bytes - block {
            return Err(LogConfigFault::FrameExceedsSegment { frame_bytes_max, segment_bytes });
        }
        let buffer = u64::from(buffer_bytes_max);
        if record > buffer || !buffer.is_multiple_of(block) {
            return Err(LogConfigFault::FrameExceedsBuffer { frame_bytes_max, buffer_bytes_max });
        }
        if self.spare_segments == 0 {
            return Err(LogConfigFault::NoSpareSegment);
        }
        Ok(())
    }
}

/// A place between two records: the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Everything from here on lies in this segment or later ones.
    pub segment: u64,
    /// The sequence of the first record from here on.
    pub sequence: u64,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRefusal {
    /// The buffers are full, or the next segment is still being made: the disk is slower than what
    /// comes in.
    Full,
    /// The segment is used up and the next could not be made: no room, or over quota.
    DiskFull,
    /// The segment is used up and the next could not be made: read-only or failing disk.
    NotWritable,
    /// A write or sync failed; nothing is taken until a restart.
    Failed,
}

impl LogRefusal {
    /// The reason that the sender is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Full => Refusal::Overloaded,
            Self::DiskFull | Self::NotWritable => Refusal::DiskFull,
            Self::Failed => Refusal::LogFailed,
        }
    }
}

/// Whether the log takes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    /// It does.
    Running,
    /// No segment is left and none can be made; it goes on by itself once one can.
    Stopped(ProvisionFault),
    /// A write or sync failed with this errno; final.
    Failed { errno: i32 },
}

/// Why the next segment could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisionFault {
    /// ENOSPC or EDQUOT.
    DiskFull { errno: i32 },
    /// Any other: EROFS, EIO.
    NotWritable { errno: i32 },
}

impl ProvisionFault {
    fn of(errno: i32) -> Self {
        match errno {
            libc::ENOSPC | libc::EDQUOT => Self::DiskFull { errno },
            errno => Self::NotWritable { errno },
        }
    }

    fn refusal(self) -> LogRefusal {
        match self {
            Self::DiskFull { .. } => LogRefusal::DiskFull,
            Self::NotWritable { .. } => LogRefusal::NotWritable,
        }
    }
}

/// File work for the shard's ring. One at a time.
#[derive(Debug)]
pub enum LogOperation {
    /// Write all of `buffer` (`len_bytes`, whole blocks) at `offset_bytes` of the segment's file,
    /// then fdatasync it, then `handle_written`. Once a later segment is named here, the file of an
    /// earlier one can be closed.
    WriteSync { segment: u64, offset_bytes: u64, len_bytes: u32, buffer: AlignedBuffer },
}

/// File work for the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentRequest {
    /// Make the file of segment `segment`, of `bytes` bytes, then `handle_segment_ready`. One at a
    /// time.
    Prepare { segment: u64, bytes: u64 },
    /// Segments below `below_segment` are not needed any more. No answer is waited for.
    Retire { below_segment: u64 },
}

/// How the next segment comes about. The fault is that of the last attempt, until one succeeds.
#[derive(Clone, Copy, Debug)]
enum Provisioning {
    /// It can be asked for.
    Idle(Option<ProvisionFault>),
    /// It was, and no answer came yet.
    Asked(Option<ProvisionFault>),
    /// It could not be made; `handle_retry` asks again.
    Refused(ProvisionFault),
}

impl Provisioning {
    fn fault(self) -> Option<ProvisionFault> {
        match self {
            Self::Idle(fault) | Self::Asked(fault) => fault,
            Self::Refused(fault) => Some(fault),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct CurrentSegment {
    segment: u64,
    /// Where the group that gathers will start.
    tail_bytes: u64,
}

/// One shard's log. See the module for its promises.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    seed: u32,
    run_sequence: u64,
    next_sequence: u64,
    durable_sequence: u64,
    current: Option<CurrentSegment>,
    spares: VecDeque<u64>,
    /// The next segment to be made.
    next_segment: u64,
    provisioning: Provisioning,
    /// A frame was refused because there is no segment.
    is_used_up: bool,
    groups: Groups,
    appended_bytes: u64,
    /// `appended_bytes` at the newest finished snapshot, and at the one under way.
    finished_mark_bytes: u64,
    snapshot: Option<(LogPosition, u64)>,
    retire_below: Option<u64>,
    failed: Option<i32>,
}

impl Log {
    /// An empty log that continues at `start`: the first segment to make (above every file there
    /// is) and the first record's sequence (one above the last that replay saw). Everything
    /// replayed, `replayed_bytes` of segments, has been synced by then: replay may have read it
    /// from a page cache that the last process never synced.
    pub fn new(
        config: LogConfig,
        start: LogPosition,
        replayed_bytes: u64,
    ) -> Result<Self, LogConfigFault> {
        config.check()?;
        assert!(start.sequence > 0); // Sequence 0 means "none".
        Ok(Self {
            config,
            seed: config.identity.checksum_seed(),
            run_sequence: start.sequence,
            next_sequence: start.sequence,
            durable_sequence: start.sequence - 1,
            current: None,
            spares: VecDeque::new(),
            next_segment: start.segment,
            provisioning: Provisioning::Idle(None),
            is_used_up: false,
            groups: Groups::new(config.buffer_bytes_max as usize),
            appended_bytes: replayed_bytes,
            finished_mark_bytes: 0,
            snapshot: None,
            retire_below: None,
            failed: None,
        })
    }

    /// Takes a received frame with what became of it; returns its sequence. It is durable once
    /// `durable_sequence` is there. A refused frame leaves the log as it was, so the caller asks
    /// before it changes anything else (`check_room`).
    pub fn append(
        &mut self,
        frame: &[u8],
        assigned: &[Result<SeriesId, Refusal>],
        refused: &[RefusedSample],
    ) -> Result<u64, LogRefusal> {
        // The receiver refused longer ones.
        assert!(frame.len() <= self.config.frame_bytes_max as usize);
        let len = record_len_bytes(frame.len(), assigned.len(), refused.len());
        assert!(len as u64 <= record_len_bytes_max(self.config.frame_bytes_max as usize));
        let current = self.provide_room(len)?;
        let numbers = RecordNumbers {
            segment: current.segment,
            sequence: self.next_sequence,
            durable_sequence: self.durable_sequence,
            run_sequence: self.run_sequence,
        };
        let entries = (
            assigned.iter().map(|id| id.as_ref().ok().copied()),
            refused.iter().map(|sample| sample.index),
        );
        encode_record(self.groups.gather(len), (&numbers, self.seed), frame, entries);
        self.next_sequence += 1;
        self.appended_bytes += len as u64;
        Ok(numbers.sequence)
    }

    /// Whether a frame of `frame_bytes` would be taken now, whatever becomes of its series and
    /// samples. May rotate.
    pub fn check_room(&mut self, frame_bytes: u32) -> Result<(), LogRefusal> {
        let entries_max = frame_bytes as usize / 16;
        let len = record_len_bytes(frame_bytes as usize, entries_max, entries_max);
        self.provide_room(len).map(|_| ())
    }

    fn provide_room(&mut self, len: usize) -> Result<CurrentSegment, LogRefusal> {
        if self.failed.is_some() {
            return Err(LogRefusal::Failed);
        }
        if !self.groups.has_room(len) {
            return Err(LogRefusal::Full);
        }
        let gathered = (self.groups.gathering_bytes() + len).next_multiple_of(BLOCK_BYTES) as u64;
        match self.current {
            Some(current) if current.tail_bytes + gathered <= self.config.segment_bytes => {
                Ok(current)
            }
            _ => self.rotate(),
        }
    }

    /// Goes on in the next segment; the group that gathers still goes to this one.
    fn rotate(&mut self) -> Result<CurrentSegment, LogRefusal> {
        let Some(segment) = self.spares.pop_front() else {
            self.is_used_up = true;
            return Err(self
                .provisioning
                .fault()
                .map_or(LogRefusal::Full, ProvisionFault::refusal));
        };
        self.seal_gathering();
        let current = CurrentSegment { segment, tail_bytes: BLOCK_BYTES as u64 };
        self.current = Some(current);
        Ok(current)
    }

    fn seal_gathering(&mut self) {
        if let Some(current) = &mut self.current {
            let last_sequence = self.next_sequence - 1;
            current.tail_bytes +=
                self.groups.seal(current.segment, current.tail_bytes, last_sequence);
            assert!(current.tail_bytes <= self.config.segment_bytes);
        }
    }

    /// The next file operation, if something gathered and nothing is in flight.
    pub fn poll_operation(&mut self) -> Option<LogOperation> {
        if self.failed.is_some() || self.groups.is_flying() {
            return None;
        }
        if !self.groups.has_sealed() {
            self.seal_gathering();
        }
        let group = self.groups.take_off()?;
        Some(LogOperation::WriteSync {
            segment: group.segment,
            offset_bytes: group.offset_bytes,
            len_bytes: u32::try_from(group.buffer.len()).expect("buffers are below 4 GiB"),
            buffer: group.buffer,
        })
    }

    /// The operation came back: everything of it is on stable storage, or nothing is known (its
    /// errno).
    pub fn handle_written(&mut self, buffer: AlignedBuffer, outcome: Result<(), i32>) {
        let flight = self.groups.land(buffer);
        match outcome {
            Ok(()) if self.failed.is_none() => self.durable_sequence = flight.last_sequence,
            Ok(()) => {}
            Err(errno) => {
                self.failed.get_or_insert(errno);
                self.groups.abandon();
            }
        }
    }

    /// The next request for the background.
    pub fn poll_segment_request(&mut self) -> Option<SegmentRequest> {
        if self.failed.is_some() {
            return None;
        }
        if let Some(below_segment) = self.retire_below
            && self.groups.oldest_segment(below_segment) >= below_segment
        {
            self.retire_below = None;
            return Some(SegmentRequest::Retire { below_segment });
        }
        let Provisioning::Idle(fault) = self.provisioning else { return None };
        if self.spares.len() >= self.config.spare_segments as usize {
            return None;
        }
        self.provisioning = Provisioning::Asked(fault);
        Some(SegmentRequest::Prepare {
            segment: self.next_segment,
            bytes: self.config.segment_bytes,
        })
    }

    /// The background made the file of `segment`, which the caller now holds open, or could not
    /// (its errno).
    pub fn handle_segment_ready(&mut self, segment: u64, outcome: Result<(), i32>) {
        assert!(matches!(self.provisioning, Provisioning::Asked(_)));
        assert!(segment == self.next_segment);
        match outcome {
            Ok(()) => {
                self.provisioning = Provisioning::Idle(None);
                self.is_used_up = false;
                self.next_segment += 1;
                self.spares.push_back(segment);
            }
            Err(errno) => self.provisioning = Provisioning::Refused(ProvisionFault::of(errno)),
        }
    }

    /// Time to try again to make a segment that could not be made. The caller does this once a
    /// second.
    pub fn handle_retry(&mut self) {
        if let Provisioning::Refused(fault) = self.provisioning {
            self.provisioning = Provisioning::Idle(Some(fault));
        }
    }

    /// A snapshot of the head begins, which holds every record appended so far: the log goes on in
    /// a new segment, so that replay starts at the beginning of one. Refused as a frame would be,
    /// or `Full` while one is under way.
    pub fn begin_snapshot(&mut self) -> Result<LogPosition, LogRefusal> {
        if self.failed.is_some() {
            return Err(LogRefusal::Failed);
        }
        if self.snapshot.is_some() {
            return Err(LogRefusal::Full);
        }
        let is_fresh = |current: &CurrentSegment| current.tail_bytes == BLOCK_BYTES as u64;
        let current = match self.current.filter(is_fresh) {
            Some(current) if self.groups.gathering_bytes() == 0 => current,
            _ => self.rotate()?,
        };
        let position = LogPosition { segment: current.segment, sequence: self.next_sequence };
        self.snapshot = Some((position, self.appended_bytes));
        Ok(position)
    }

    /// The snapshot that began at `position` is on stable storage: the segments below are retired.
    pub fn finish_snapshot(&mut self, position: LogPosition) {
        let (begun, mark_bytes) = self.snapshot.take().expect("a snapshot is under way");
        assert!(begun == position);
        self.finished_mark_bytes = mark_bytes;
        self.retire_below = Some(position.segment);
    }

    /// The snapshot under way failed; the log stays as it is, and another can begin.
    pub fn abandon_snapshot(&mut self) {
        self.snapshot = None;
    }

    /// Bytes that replay would read: of the segments replayed at the start, and of the records
    /// since then, until a snapshot that began later is finished.
    pub fn bytes_since_snapshot(&self) -> u64 {
        self.appended_bytes - self.finished_mark_bytes
    }

    /// Every record up to this sequence is on stable storage; 0 before the first.
    pub fn durable_sequence(&self) -> u64 {
        self.durable_sequence
    }

    /// The sequence of the last record taken, durable or not.
    pub fn appended_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Bytes that gather, wait or are in flight.
    pub fn pending_bytes(&self) -> usize {
        self.groups.waiting_bytes() + self.groups.in_flight_bytes()
    }

    /// Bytes of memory that the buffers hold, without the one in flight.
    pub fn memory_bytes(&self) -> usize {
        self.groups.memory_bytes()
    }

    /// Whether it takes records, and why not.
    pub fn state(&self) -> LogState {
        match (self.failed, self.provisioning.fault()) {
            (Some(errno), _) => LogState::Failed { errno },
            (None, Some(fault)) if self.is_used_up => LogState::Stopped(fault),
            _ => LogState::Running,
        }
    }
}
