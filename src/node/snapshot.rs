//! When the head is written out, and in which steps, so that the log does not grow without bound.
//!
//! A snapshot begins at a log position, walks the rows of the head, a piece a turn, while samples
//! go on arriving, and ends. What arrives behind the walk is in the log from that position on, so
//! replaying both converges. No series leaves the head while it walks: each id that the log names
//! from that position on is in a piece, or in the log itself. There is at least one piece: it says
//! which ids were given.
//! Out: steps for the background, at most [`PIECES_AHEAD_MAX`] ahead of it. Not here: what a piece
//! holds (`head`).

use crate::node::head::{Head, Row};
use crate::node::log::{Log, LogPosition};

/// Pieces that the background has not taken yet; bounds the memory of a slow disk.
const PIECES_AHEAD_MAX: u32 = 2;
/// About 50 microseconds of a shard's turn.
const PIECE_BYTES: usize = 128 << 10;

/// One step of a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub enum SnapshotStep {
    /// Open a new file.
    Begin(LogPosition),
    /// Append this piece, then tell `handle_piece_taken`.
    Piece(Vec<u8>),
    /// Make it durable and visible, drop older ones, then tell `handle_done`.
    End,
}

/// The snapshots of one node shard.
#[derive(Debug)]
pub struct SnapshotCourse {
    /// A snapshot begins when the log since the last one has this many bytes...
    log_bytes_max: u64,
    /// ...but not before it has as many as the last snapshot, so that writing them at most doubles
    /// what is written.
    last_bytes: u64,
    /// A flush is over: a small part of `log_bytes_max` is enough for the next one.
    is_early: bool,
    /// After a failure the log grows by a quarter of its limit before the next attempt.
    postponed_bytes: u64,
    stage: Stage,
    piece_bytes: usize,
    memory: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// Up to `end`: the rows that there were at `position`. Later ones are in the log from there
    /// on, and a walk that followed them would never end while new series arrive.
    Walking {
        position: LogPosition,
        next: Row,
        end: Row,
        pieces_ahead: u32,
        bytes: u64,
    },
    Ending {
        position: LogPosition,
        bytes: u64,
    },
}

impl SnapshotCourse {
    /// Snapshots whenever the log has grown by `log_bytes_max`.
    pub fn new(log_bytes_max: u64) -> Self {
        Self {
            log_bytes_max,
            last_bytes: 0,
            is_early: false,
            postponed_bytes: 0,
            stage: Stage::Idle,
            piece_bytes: PIECE_BYTES,
            memory: Vec::new(),
        }
    }

    /// The same in pieces of so many bytes.
    #[cfg(test)]
    pub fn with_piece_bytes(self, piece_bytes: usize) -> Self {
        Self { piece_bytes, ..self }
    }

    /// The next step, if one is due and the background keeps up.
    pub fn poll(&mut self, head: &Head, log: &mut Log) -> Option<SnapshotStep> {
        match self.stage {
            Stage::Idle => {
                let due = self.log_bytes_max.max(self.last_bytes) + self.postponed_bytes;
                if log.bytes_since_snapshot() < due && !self.is_early {
                    return None;
                }
                // Without a spare segment it begins a little later.
                let position = log.begin_snapshot().ok()?;
                self.is_early = false;
                let (next, end) = (Row(0), Row(head.row_count()));
                self.stage = Stage::Walking { position, next, end, pieces_ahead: 0, bytes: 0 };
                Some(SnapshotStep::Begin(position))
            }
            Stage::Walking { pieces_ahead: PIECES_AHEAD_MAX.., .. } | Stage::Ending { .. } => None,
            Stage::Walking { position, next, end, bytes, .. } if end <= next && bytes > 0 => {
                self.stage = Stage::Ending { position, bytes };
                Some(SnapshotStep::End)
            }
            Stage::Walking { position, next, end, pieces_ahead, bytes } => {
                let mut piece = self.memory.pop().unwrap_or_default();
                piece.clear();
                let next = head.snapshot_piece(next, &mut piece, self.piece_bytes);
                self.stage = Stage::Walking {
                    position,
                    next,
                    end,
                    pieces_ahead: pieces_ahead + 1,
                    bytes: bytes + piece.len() as u64,
                };
                Some(SnapshotStep::Piece(piece))
            }
        }
    }

    /// The background took a piece; its memory serves the next one.
    pub fn handle_piece_taken(&mut self, memory: Vec<u8>) {
        // A long series makes a long piece; its memory is not kept.
        if memory.capacity() <= 4 * PIECE_BYTES {
            self.memory.push(memory);
        }
        self.memory.truncate(PIECES_AHEAD_MAX as usize);
        if let Stage::Walking { pieces_ahead, .. } = &mut self.stage {
            // A piece of a snapshot that failed meanwhile may still be on its way back.
            *pieces_ahead = pieces_ahead.saturating_sub(1);
        }
    }

    /// The background is done with the snapshot, one way or the other; a failure may come at any
    /// step.
    pub fn handle_done(&mut self, log: &mut Log, outcome: Result<(), i32>) {
        match (self.stage, outcome) {
            (Stage::Ending { position, bytes }, Ok(())) => {
                log.finish_snapshot(position);
                self.last_bytes = bytes;
                self.postponed_bytes = 0;
            }
            (Stage::Ending { .. } | Stage::Walking { .. }, _) => {
                log.abandon_snapshot();
                self.postponed_bytes += self.log_bytes_max / 4;
            }
            (Stage::Idle, _) => {}
        }
        self.stage = Stage::Idle;
    }

    /// Much of the head went to blocks: a snapshot is short now.
    pub fn handle_flushed(&mut self, log: &Log) {
        let few = self.last_bytes.clamp(self.log_bytes_max / 32, self.log_bytes_max / 4);
        self.is_early |= log.bytes_since_snapshot() >= few && self.postponed_bytes == 0;
    }

    /// The log failed: no snapshot begins or ends any more.
    pub fn abandon(&mut self) {
        self.stage = Stage::Idle;
        self.is_early = false;
        self.postponed_bytes = u64::MAX / 2;
    }

    /// Whether no series may leave the head.
    pub fn is_walking(&self) -> bool {
        matches!(self.stage, Stage::Walking { .. })
    }

    /// Whether the next step waits for nothing but a turn.
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Walking { pieces_ahead, .. } if pieces_ahead < PIECES_AHEAD_MAX)
    }
}

#[cfg(test)]
mod regressions {
    use super::*;
    use crate::model::labels::encode_label;
    use crate::model::series::{SeriesHash, TenantId};
    use crate::node::head::HeadLimits;
    use crate::node::log::{LogConfig, LogIdentity};

    fn register(head: &mut Head, number: u32) {
        let mut labels = Vec::new();
        encode_label(&mut labels, b"__name__", number.to_string().as_bytes());
        let hash = SeriesHash::of(TenantId(0), &labels);
        head.register(TenantId(0), hash, &labels).expect("room");
    }

    #[test]
    fn a_walk_ends_while_new_series_arrive() {
        // The walk followed the newest series: with one new series a turn, which is little churn,
        // no snapshot ever ended, the log grew for ever and the shard never slept.
        const STEPS_MAX: u32 = 100;
        let mut head = Head::new(HeadLimits { out_of_order_window_ms: 0, bytes_max: 1 << 30 });
        let identity = LogIdentity { node: 1, incarnation: 1, shard: 0 };
        let start = LogPosition { segment: 1, sequence: 1 };
        let mut log = Log::new(LogConfig::new(identity), start, 0).expect("the defaults");
        log.poll_segment_request().expect("the first segment");
        log.handle_segment_ready(1, Ok(()));
        let mut course = SnapshotCourse::new(0);
        (0..100).for_each(|number| register(&mut head, number));
        let mut steps = 0;
        loop {
            match course.poll(&head, &mut log) {
                Some(SnapshotStep::Begin(_)) => {}
                Some(SnapshotStep::Piece(memory)) => course.handle_piece_taken(memory),
                Some(SnapshotStep::End) => break,
                None => panic!("nothing is waited for"),
            }
            register(&mut head, 100 + steps);
            steps += 1;
            assert!(steps < STEPS_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
