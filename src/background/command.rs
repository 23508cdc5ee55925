//! What a shard asks of the background, and what it hears back.

use std::os::fd::OwnedFd;

use crate::node::block::FlushSeries;
use crate::node::log::LogPosition;

/// Longest piece of a snapshot: a series is never split, and one may hold millions of samples. A
/// longer piece fails its snapshot, and the log is kept.
pub const SNAPSHOT_PIECE_BYTES_MAX: usize = 1 << 30;

/// From a shard to the job that makes segments; done in order.
#[derive(Debug)]
pub enum SegmentCommand {
    /// Make the file of a log segment; answered by `SegmentReady`.
    Prepare { shard: u32, segment: u64, bytes: u64 },
    /// Recycle or delete the segments below. Not answered.
    Retire { shard: u32, below_segment: u64 },
}

/// From a shard to the job that writes snapshots; done in order.
#[derive(Debug)]
pub enum SnapshotCommand {
    /// Begin the snapshot of everything before `position`; one at a time and shard.
    Begin { shard: u32, position: LogPosition },
    /// Its next piece, at most [`SNAPSHOT_PIECE_BYTES_MAX`]; answered by `SnapshotPieceWritten`.
    Piece { shard: u32, bytes: Vec<u8> },
    /// That was the last piece; answered by `SnapshotDone` once it is on stable storage under its
    /// name.
    End { shard: u32 },
}

/// From a shard to the job that makes blocks of what leaves its head; done in order. `flush` counts
/// a shard's flushes.
#[derive(Debug)]
pub enum FlushCommand {
    /// Begin. The series that follow have seen the deletions up to `tombstones_applied`.
    Begin { shard: u32, flush: u64, tombstones_applied: u64 },
    /// Some series; answered by `FlushPieceTaken`, and by `FlushPublished` when a run is in blocks.
    Series { shard: u32, flush: u64, series: Vec<FlushSeries> },
    /// That was all; answered by `FlushDone` when it is in blocks.
    End { shard: u32, flush: u64 },
    /// Forget what is not in blocks. Not answered.
    Abandon { shard: u32, flush: u64 },
}

impl FlushCommand {
    /// The shard that asks.
    pub fn shard(&self) -> u32 {
        match self {
            Self::Begin { shard, .. }
            | Self::Series { shard, .. }
            | Self::End { shard, .. }
            | Self::Abandon { shard, .. } => *shard,
        }
    }
}

impl SegmentCommand {
    /// The shard that asks.
    pub fn shard(&self) -> u32 {
        match self {
            Self::Prepare { shard, .. } | Self::Retire { shard, .. } => *shard,
        }
    }
}

impl SnapshotCommand {
    /// The shard that asks.
    pub fn shard(&self) -> u32 {
        match self {
            Self::Begin { shard, .. } | Self::Piece { shard, .. } | Self::End { shard } => *shard,
        }
    }
}

/// From the background to a shard.
#[derive(Debug)]
pub enum BackgroundEvent {
    /// The segment's file is on stable storage with its header, or could not be made (errno).
    SegmentReady { segment: u64, outcome: Result<SegmentFile, i32> },
    /// A piece went to the file; its memory comes back, empty, to be used for another.
    SnapshotPieceWritten { bytes: Vec<u8> },
    /// The snapshot is complete and durable; older ones are gone. The log can let go of what is
    /// before its position.
    SnapshotDone,
    /// The job has these series and may have more.
    FlushPieceTaken { flush: u64 },
    /// The first `series` of the flush are in durable blocks.
    FlushPublished { flush: u64, series: u64 },
    /// The flush is over: everything is in durable blocks, or why not (errno).
    FlushDone { flush: u64, outcome: Result<(), i32> },
    /// The snapshot could not be written; pieces still on their way are dropped unanswered.
    SnapshotFailed { errno: i32 },
}

/// A segment's file, open for the shard's ring.
#[derive(Debug)]
pub struct SegmentFile {
    /// Open for writing.
    pub file: OwnedFd,
}
