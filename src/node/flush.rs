//! When what a head holds goes to blocks, and in which steps.
//!
//! ```text
//! idle -> walking: pieces of series go out, a few ahead of the background -> ending -> idle
//!                  what the background says is in blocks leaves the head, some series a turn
//! ```
//! Due: when the clock passes a cut (an aligned range, and the time that late samples have, are
//! over); when the head's chunks take too much of its memory, or its points keep it full; when
//! somebody asks. A flush that fails drops nothing that is not in a block, and is tried again.
//!
//! A snapshot may run at the same time: it may miss what was dropped, as that is in a block, and
//! may hold what is dropped later, as the same samples twice are the same samples.
//! Out: steps for the background. Not here: what is taken of a series (`head/flush`), blocks.

use std::collections::VecDeque;

use crate::node::block::{BLOCK_RANGE_MS, FlushSeries, range_start_ms};
use crate::node::head::{FlushCut, Head, Row, TakenSeries};

/// Pieces that the background has not taken yet.
pub const FLUSH_PIECES_AHEAD_MAX: u32 = 2;
/// Series that one piece holds at most, and bytes of labels: about 50 microseconds of a turn.
const PIECE_SERIES_MAX: usize = 64;
const PIECE_LABEL_BYTES_MAX: usize = 32 << 10;
/// Series that one piece looks at: most have nothing to give in a second flush of a range.
const PIECE_WALK_MAX: u32 = 2048;
/// Series that a turn drops from the head.
const DROPS_A_TURN: usize = 256;
/// A head this full, in percent, whose chunks take...
const PRESSURE_PERCENT: u64 = 60;
/// ...this much, is flushed. So are the points of a full head.
const PRESSURE_CHUNKS_PERCENT: u64 = 10;
/// Seconds until what failed is tried again.
const RETRY_SECONDS: u32 = 10;

/// One step of a flush. `flush` counts flushes, so that an answer to an earlier one is known.
#[derive(Debug)]
pub enum FlushStep {
    /// Begin.
    Begin { flush: u64, tombstones_applied: u64 },
    /// These series too; then tell `handle_piece_taken`.
    Series { flush: u64, series: Vec<FlushSeries> },
    /// That was all: publish it, then tell `handle_done`.
    End { flush: u64 },
    /// Forget what is not published.
    Abandon { flush: u64 },
}

/// What flushes did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushStats {
    /// Finished.
    pub flushes: u64,
    /// Failed; the head keeps what they did not publish.
    pub failed: u64,
    /// Series that went out, counted in each flush.
    pub series: u64,
}

/// The flushes of one node shard.
#[derive(Debug)]
pub struct FlushCourse {
    out_of_order_window_ms: i64,
    /// The newest deletion that the head has seen.
    tombstones_applied: u64,
    flush: u64,
    stage: Stage,
    /// Sent, not yet dropped, in the order of sending; with the first's number since the beginning.
    taken: VecDeque<TakenSeries>,
    dropped: u64,
    published: u64,
    sent: u64,
    cut: FlushCut,
    /// Everything before it is in blocks, but for what came late.
    last_cut_ms: Option<i64>,
    wanted: Option<FlushCut>,
    /// Somebody waits for a flush of everything that has not begun.
    is_asked: bool,
    /// The flush under way is one of everything.
    is_whole: bool,
    /// How often one was asked for; of these, how often before the last one began, and ended.
    requests: u64,
    begun: u64,
    answered: u64,
    must_abandon: Option<u64>,
    wait_seconds: u32,
    stats: FlushStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Beginning,
    Walking {
        next: Row,
        end: Row,
        pieces_ahead: u32,
    },
    Ending,
    /// Everything is in blocks; the last of it leaves the head.
    Dropping,
}

const NO_CUT: FlushCut = FlushCut { chunks_until_ms: i64::MIN, points_until_ms: i64::MIN };
const WHOLE: FlushCut = FlushCut { chunks_until_ms: i64::MAX, points_until_ms: i64::MAX };

impl FlushCourse {
    /// The flushes of a head that has seen the deletions up to `tombstones_applied`.
    pub fn new(out_of_order_window_ms: i64, tombstones_applied: u64) -> Self {
        Self {
            out_of_order_window_ms,
            tombstones_applied,
            flush: 0,
            stage: Stage::Idle,
            taken: VecDeque::new(),
            dropped: 0,
            published: 0,
            sent: 0,
            cut: NO_CUT,
            last_cut_ms: None,
            wanted: None,
            is_asked: false,
            is_whole: false,
            requests: 0,
            begun: 0,
            answered: 0,
            must_abandon: None,
            wait_seconds: 0,
            stats: FlushStats::default(),
        }
    }

    /// Once a second: sees whether a flush is due.
    pub fn handle_second(&mut self, head: &Head, now_unix_ms: i64) {
        let bytes_max = head.bytes_max();
        self.wait_seconds = self.wait_seconds.saturating_sub(1);
        let cut_ms = range_start_ms(now_unix_ms.saturating_sub(self.out_of_order_window_ms));
        if self.last_cut_ms.is_some_and(|last_ms| cut_ms < last_ms - BLOCK_RANGE_MS) {
            // The clock went back by hours: what it said before counts for nothing.
            self.last_cut_ms = Some(cut_ms);
        }
        if self.is_asked {
            self.wanted = Some(WHOLE);
        } else if self.last_cut_ms.is_none_or(|last_ms| last_ms < cut_ms) {
            let until_ms = cut_ms.saturating_sub(1);
            self.wanted = Some(FlushCut { chunks_until_ms: until_ms, points_until_ms: until_ms });
        } else if head.bytes() >= bytes_max / 100 * PRESSURE_PERCENT
            && head.sealed_bytes() >= bytes_max / 100 * PRESSURE_CHUNKS_PERCENT
        {
            let points_until_ms = cut_ms.saturating_sub(1);
            self.wanted = Some(FlushCut { chunks_until_ms: i64::MAX, points_until_ms });
        } else if head.is_full() && head.sample_bytes() > bytes_max / 100 * PRESSURE_CHUNKS_PERCENT
        {
            // Raw points of many series: nothing is taken until they go, so none of them is sealed.
            self.wanted = Some(WHOLE);
        }
    }

    /// Everything is to go to blocks; it has when `answered` is at least what this returns.
    pub fn handle_request(&mut self) -> u64 {
        self.requests += 1;
        self.is_asked = true;
        self.wanted = Some(WHOLE);
        self.wait_seconds = 0;
        self.requests
    }

    /// Whoever asked so many times or fewer before has what was asked for.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// The head has seen a deletion: what was sent of it before must not be published as if it had.
    pub fn handle_delete(&mut self, tombstone: u64) {
        self.tombstones_applied = self.tombstones_applied.max(tombstone);
        self.abandon();
    }

    /// Gives up what is not published.
    fn abandon(&mut self) {
        if self.stage == Stage::Idle {
            return;
        }
        self.must_abandon = (self.stage != Stage::Beginning).then_some(self.flush);
        // Whoever asked still waits: a cut that comes up before it begins anew must not replace it.
        self.is_asked |= self.is_whole;
        self.forget_taken();
        self.wanted = Some(if self.is_asked { WHOLE } else { self.cut });
    }

    /// What was sent stays in the head.
    fn forget_taken(&mut self) {
        self.stage = Stage::Idle;
        self.taken.clear();
        self.published = self.dropped;
    }

    /// The log failed: no flush begins any more, as what the log does not hold must not be dropped.
    pub fn stop(&mut self) {
        self.abandon();
        self.wait_seconds = u32::MAX;
    }

    /// The next step, if one is due and the background keeps up. Drops some of what is published.
    pub fn poll(&mut self, head: &mut Head) -> Option<FlushStep> {
        if let Some(flush) = self.must_abandon.take() {
            return Some(FlushStep::Abandon { flush });
        }
        self.drop_published(head);
        match self.stage {
            Stage::Idle => {
                if self.wait_seconds > 0 {
                    return None;
                }
                self.begin();
                None
            }
            Stage::Beginning => {
                let end = Row(head.row_count());
                self.stage = Stage::Walking { next: Row(0), end, pieces_ahead: 0 };
                let tombstones_applied = self.tombstones_applied;
                Some(FlushStep::Begin { flush: self.flush, tombstones_applied })
            }
            Stage::Walking { pieces_ahead: FLUSH_PIECES_AHEAD_MAX.., .. }
            | Stage::Ending
            | Stage::Dropping => None,
            Stage::Walking { next, end, .. } if end <= next => {
                self.stage = Stage::Ending;
                Some(FlushStep::End { flush: self.flush })
            }
            Stage::Walking { next, end, pieces_ahead } => {
                let (series, next) = self.take_piece(head, next, end);
                let is_empty = series.is_empty();
                let pieces_ahead = pieces_ahead + u32::from(!is_empty);
                self.stage = Stage::Walking { next, end, pieces_ahead };
                (!is_empty).then_some(FlushStep::Series { flush: self.flush, series })
            }
        }
    }

    fn begin(&mut self) {
        let Some(cut) = self.wanted.take() else { return };
        self.cut = cut;
        self.is_whole = cut == WHOLE;
        if self.is_whole {
            self.is_asked = false;
            self.begun = self.requests;
        }
        self.flush += 1;
        (self.sent, self.published, self.dropped) = (0, 0, 0);
        self.taken.clear();
        self.stage = Stage::Beginning;
    }

    fn take_piece(&mut self, head: &mut Head, from: Row, end: Row) -> (Vec<FlushSeries>, Row) {
        let mut series = Vec::new();
        let mut label_bytes = 0;
        let mut next = from.0;
        let walk_end = from.0.saturating_add(PIECE_WALK_MAX).min(end.0);
        while next < walk_end
            && series.len() < PIECE_SERIES_MAX
            && label_bytes < PIECE_LABEL_BYTES_MAX
        {
            if let Some((one, taken)) = head.take_flush(Row(next), self.cut) {
                label_bytes += one.labels.len();
                series.push(one);
                self.taken.push_back(taken);
            }
            next += 1;
        }
        self.sent += series.len() as u64;
        self.stats.series += series.len() as u64;
        (series, Row(next))
    }

    fn drop_published(&mut self, head: &mut Head) {
        for _ in 0..DROPS_A_TURN {
            if self.dropped >= self.published {
                break;
            }
            let Some(taken) = self.taken.pop_front() else { break };
            head.drop_flushed(taken, self.cut);
            self.dropped += 1;
        }
        if self.stage == Stage::Dropping && self.dropped >= self.published {
            self.end();
        }
    }

    fn end(&mut self) {
        self.stage = Stage::Idle;
        self.taken.clear();
        self.stats.flushes += 1;
        if self.is_whole {
            self.answered = self.begun;
        }
        let done_ms = range_start_ms(self.cut.points_until_ms.saturating_add(1));
        if !self.is_whole && self.last_cut_ms.is_none_or(|last_ms| last_ms < done_ms) {
            self.last_cut_ms = Some(done_ms);
        }
    }

    /// The background took a piece.
    pub fn handle_piece_taken(&mut self, flush: u64) {
        if let Stage::Walking { pieces_ahead, .. } = &mut self.stage
            && flush == self.flush
        {
            *pieces_ahead = pieces_ahead.saturating_sub(1);
        }
    }

    /// The first `series` that were sent are in durable blocks.
    pub fn handle_published(&mut self, flush: u64, series: u64) {
        if flush == self.flush && self.stage != Stage::Idle {
            self.published = self.published.max(series.min(self.sent));
        }
    }

    /// The flush is over. Well: everything is in blocks. Else what is published still leaves.
    pub fn handle_done(&mut self, flush: u64, outcome: Result<(), i32>) {
        if flush != self.flush || self.stage == Stage::Idle {
            return;
        }
        if outcome.is_ok() {
            self.published = self.sent;
            self.stage = Stage::Dropping;
            return;
        }
        self.stats.failed += 1;
        self.wait_seconds = RETRY_SECONDS;
        self.is_asked |= self.is_whole;
        self.wanted = Some(if self.is_asked { WHOLE } else { self.cut });
        // The next begins anew; what is published and still in the head goes out again, and is the
        // same.
        self.forget_taken();
    }

    /// Whether the next step waits for nothing but a turn.
    pub fn is_ready(&self) -> bool {
        if self.must_abandon.is_some() || self.dropped < self.published {
            return true;
        }
        match self.stage {
            Stage::Idle => self.wanted.is_some() && self.wait_seconds == 0,
            Stage::Beginning | Stage::Dropping => true,
            Stage::Walking { pieces_ahead, .. } => pieces_ahead < FLUSH_PIECES_AHEAD_MAX,
            Stage::Ending => false,
        }
    }

    /// What flushes did.
    pub fn stats(&self) -> FlushStats {
        self.stats
    }
}

#[cfg(test)]
mod tests;
