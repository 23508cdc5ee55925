//! A series that has no samples here any more leaves: its row and its labels make room for others.
//!
//! When: it holds no sample (all are in blocks, or were deleted), and its newest one is older than
//! [`IDLE_MS`] by the wall clock. A series that is written to every minute or so keeps open points
//! from one flush to the next, so most that are empty are over. What the age keeps from leaving is
//! a live series right after a flush of everything (somebody asked for it): it would come back with
//! its labels a moment later. Rejected: the time of the last write, 8 bytes a series to spare such
//! a return, which is cheap; backfilled series of old times do leave after each flush. A clock that
//! jumps makes series leave early or late, and nothing wrong.
//!
//! What leaves with it: the time of its newest sample. When the series comes back, a late sample is
//! taken that the out-of-order window would have refused.
//!
//! A sweep looks at all rows, some a turn, once a minute, or ten seconds after chunks left. Not
//! while a snapshot walks: a series that was here when the snapshot's log position was taken is in
//! its pieces, or replay would not know the ids of the log behind it (`node/replay.rs`). Row, pairs
//! and names that are free are used again when no select remembers them (`grace`). A flush that is
//! under way holds nothing of a series without chunks.

use super::{Head, Hot, NO_ID, Row};
use crate::model::series::{SeriesHash, SeriesId};
use crate::node::index::{LeftLabels, cut_column};

/// An empty series stays while its newest sample is not older than this: ten minutes.
pub const IDLE_MS: i64 = 600_000;
/// Rows that a turn looks at: about 20 microseconds.
const ROWS_A_TURN: u32 = 2048;
/// Series that a turn removes, at about 2 microseconds.
const SERIES_A_TURN: usize = 64;
/// Generations of free rows that a turn takes back.
const GENERATIONS_A_TURN: usize = 8;
/// Rows that are cut off the columns at a time.
const CUT_STEPS: usize = 4096;
/// Seconds between the beginnings of two sweeps...
const SWEEP_SECONDS: u32 = 60;
/// ...or this many, if chunks have left.
const SWEEP_SOON_SECONDS: u32 = 10;

/// A series that left: whoever knows it by its id forgets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftSeries {
    /// Which.
    pub hash: SeriesHash,
    /// The id that it had, and that no series will have again.
    pub id: SeriesId,
}

/// What is free once no select remembers it.
#[derive(Default)]
pub(super) struct LeftRows {
    rows: Vec<u32>,
    labels: LeftLabels,
}

/// The sweeps of one head.
#[derive(Debug)]
pub struct RetireCourse {
    idle_ms: i64,
    /// The row that the sweep is at, and the newest sample of a series that may leave.
    sweep: Option<(Row, i64)>,
    seconds: u32,
    drop_generation: u64,
}

impl RetireCourse {
    /// Sweeps that take out what has no sample newer than `idle_ms`.
    pub fn new(idle_ms: i64) -> Self {
        Self { idle_ms, sweep: None, seconds: 0, drop_generation: 0 }
    }

    /// Once a second: sees whether a sweep is due.
    pub fn handle_second(&mut self, head: &Head, now_unix_ms: i64) {
        self.seconds = self.seconds.saturating_add(1);
        let has_dropped = self.drop_generation != head.drop_generation();
        let is_due =
            self.seconds >= SWEEP_SECONDS || self.seconds >= SWEEP_SOON_SECONDS && has_dropped;
        if self.sweep.is_none() && is_due {
            self.seconds = 0;
            self.drop_generation = head.drop_generation();
            self.sweep = Some((Row(0), now_unix_ms.saturating_sub(self.idle_ms)));
        }
    }

    /// Whether the next step waits for nothing but a turn.
    pub fn is_ready(&self, head: &Head) -> bool {
        self.sweep.is_some() || head.has_rows_to_take_back()
    }

    /// Goes on with the sweep; appends to `left` which series are gone now.
    pub fn poll(&mut self, head: &mut Head, left: &mut Vec<LeftSeries>) {
        head.take_back_rows(GENERATIONS_A_TURN);
        let Some((next, newest_max_ms)) = self.sweep else { return };
        let next = head.retire_from(next, newest_max_ms, left);
        self.sweep = Some((next, newest_max_ms)).filter(|_| next.0 < head.row_count());
    }
}

impl Head {
    /// Removes series that are empty and whose newest sample is at most `newest_max_ms`, from
    /// `next` on, some rows and fewer series. Returns the first row that was not looked at.
    pub fn retire_from(
        &mut self,
        next: Row,
        newest_max_ms: i64,
        left: &mut Vec<LeftSeries>,
    ) -> Row {
        let end = next.0.saturating_add(ROWS_A_TURN).min(self.row_count());
        let before = left.len();
        let mut free = LeftRows::default();
        let mut row = next.0;
        while row < end && left.len() - before < SERIES_A_TURN {
            if self.is_idle(row, newest_max_ms) {
                left.push(self.remove(row, &mut free));
            }
            row += 1;
        }
        if !free.rows.is_empty() {
            self.grace.push(free);
        }
        Row(row)
    }

    /// Whether the row has a series without samples, whose newest was not after `newest_max_ms`.
    #[inline]
    fn is_idle(&self, row: u32, newest_max_ms: i64) -> bool {
        let at = row as usize;
        self.hot[at].open.len == 0
            && self.sealed[at].is_empty()
            && self.hot[at].newest_ms <= newest_max_ms
            && self.id[at] != NO_ID
            && !self.side.contains_key(&row)
    }

    fn remove(&mut self, row: u32, free: &mut LeftRows) -> LeftSeries {
        let at = row as usize;
        let (hash, id) = (self.hash[at], self.id[at]);
        self.index.remove(row, &mut free.labels);
        self.table.remove(hash.table_hash(), row);
        self.ids.remove(id.0);
        self.id[at] = NO_ID;
        let mut open = self.hot[at].open;
        open.release(&mut self.points);
        self.hot[at] = Hot::NEW;
        let list = std::mem::take(&mut self.sealed[at]);
        self.sealed_bytes -= (list.capacity() * size_of::<super::Sealed>()) as u64;
        free.rows.push(row);
        LeftSeries { hash, id }
    }

    fn has_rows_to_take_back(&self) -> bool {
        self.grace.is_ready()
            || self.vacant.has_last(self.hash.len())
            || self.index.has_numbers_to_cut()
    }

    /// Rows that no select remembers may be used again; those at the end go.
    fn take_back_rows(&mut self, generations: usize) {
        for _ in 0..generations {
            let Some(free) = self.grace.poll() else { break };
            free.rows.iter().for_each(|row| self.vacant.give(*row));
            self.index.vacate(&free.labels);
        }
        let rows = self.vacant.cut_off(self.hash.len(), CUT_STEPS);
        if rows < self.hash.len() {
            cut_column(&mut self.hash, rows);
            cut_column(&mut self.id, rows);
            cut_column(&mut self.hot, rows);
            cut_column(&mut self.sealed, rows);
            self.index.cut_rows(rows);
        }
        self.index.cut_numbers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::series::TenantId;
    use crate::node::head::tests::push_label;
    use crate::node::head::{FlushCut, HeadLimits, OUT_OF_ORDER_WINDOW_MS};

    /// Eight labels, of which two are nobody else's and one is the round's.
    fn labels_of(round: u32, number: u32, labels: &mut Vec<u8>) {
        labels.clear();
        push_label("__name__", &format!("container_metric_{}_total", number % 40), labels);
        push_label("cluster", "eu-central-1", labels);
        push_label("container", &format!("worker-{}", number % 7), labels);
        push_label("id", &format!("/kubepods/burstable/pod{round:04}-{number:05}"), labels);
        push_label("job", "kubelet", labels);
        push_label("namespace", &format!("team-{}", number % 30), labels);
        push_label("pod", &format!("deployment-{round:04}-{number:05}"), labels);
        push_label("revision", &format!("r{round}"), labels);
    }

    fn sweep(head: &mut Head, now_ms: i64) -> usize {
        let mut course = RetireCourse::new(IDLE_MS);
        (0..SWEEP_SECONDS).for_each(|_| course.handle_second(head, now_ms));
        let mut left = Vec::new();
        while course.is_ready(head) {
            course.poll(head, &mut left);
        }
        left.len()
    }

    /// Registers `series` a round, one sample each, all of which go to blocks. One series in a
    /// thousand stays. Returns the bytes of the head after each round.
    fn rounds(rounds: u32, series: u32) -> Vec<u64> {
        let limits =
            HeadLimits { out_of_order_window_ms: OUT_OF_ORDER_WINDOW_MS, bytes_max: u64::MAX };
        let mut head = Head::new(limits);
        let (mut labels, mut refused, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let now_ms = 1_700_000_000_000 + i64::from(round) * 3_600_000;
            for number in 0..series {
                labels_of(round, number, &mut labels);
                let hash = SeriesHash::of(TenantId(0), &labels);
                let id = head.register(TenantId(0), hash, &labels).expect("there is room");
                assert_eq!(id.0, round * series + number, "ids go on");
                let time_ms = if number % 1000 == 0 { i64::MAX } else { now_ms };
                head.append(&[head.row_of(id).0], &[time_ms], &[1.0], &mut refused);
            }
            crate::node::tests::flush(&mut head, now_ms);
            let left = sweep(&mut head, now_ms + IDLE_MS);
            assert_eq!(
                (left, refused.len()),
                (series as usize - series.div_ceil(1000) as usize, 0)
            );
            bytes.push(head.bytes());
        }
        assert_eq!(head.series_count(), rounds * series.div_ceil(1000));
        bytes
    }

    /// Red when a cell, a row, a pair, a name, a page of ids or a table entry is not used again.
    #[test]
    fn memory_follows_the_series_that_are_here() {
        let bytes = rounds(30, 2000);
        // Tables of this size double once for those that stay.
        let most = bytes[..3].iter().max().expect("three") * 16 / 10;
        assert!(bytes.iter().all(|bytes| *bytes <= most), "{bytes:?}");
    }

    /// `cargo test --profile e2e --lib hundred_rounds -- --ignored --nocapture`
    #[test]
    #[ignore = "a minute without optimisation"]
    fn hundred_rounds_of_ten_thousand_series() {
        let bytes = rounds(100, 10_000);
        // Of the 990,000 that left nothing is there; 1,000 stayed.
        println!("after 1, 10, 50, 100 rounds: {:?}", [0, 9, 49, 99].map(|at: usize| bytes[at]));
        let most = bytes[..3].iter().max().expect("three") * 11 / 10;
        assert!(bytes.iter().all(|bytes| *bytes <= most), "{bytes:?}");
    }

    #[test]
    fn only_what_is_empty_and_old_leaves() {
        let limits = HeadLimits { out_of_order_window_ms: 10_000_000, bytes_max: u64::MAX };
        let mut head = Head::new(limits);
        let mut labels = Vec::new();
        for number in 0..6 {
            labels_of(0, number, &mut labels);
            let hash = SeriesHash::of(TenantId(0), &labels);
            head.register(TenantId(0), hash, &labels).expect("there is room");
        }
        let now_ms = 100_000_000;
        let old_ms = now_ms - IDLE_MS;
        let mut refused = Vec::new();
        // 0 old, 1 young, 2 with a point, 3 with a late point, 4 without any, 5 on its way to a
        // block.
        let times = [old_ms, old_ms + 1, old_ms, old_ms];
        head.append(&[0, 1, 2, 3], &times, &[1.0; 4], &mut refused);
        crate::node::tests::flush(&mut head, now_ms);
        head.append(&[5], &[old_ms], &[1.0], &mut refused);
        let cut = FlushCut { chunks_until_ms: now_ms, points_until_ms: now_ms };
        let (_, taken) = head.take_flush(Row(5), cut).expect("a chunk");
        head.append(&[2, 3], &[old_ms - 1; 2], &[1.0; 2], &mut refused);
        assert_eq!((sweep(&mut head, now_ms), head.series_count()), (2, 4));
        let here = |head: &Head| -> Vec<u32> {
            (0..6).filter(|id| head.row_of(SeriesId(*id)) != Row::NONE).collect()
        };
        assert_eq!(here(&head), [1, 2, 3, 5]);
        head.drop_flushed(taken, cut);
        assert_eq!((sweep(&mut head, now_ms), here(&head)), (1, vec![1, 2, 3]));
    }

    /// The highest ids left, a snapshot is taken, and the log before it is gone: only the snapshot
    /// can say that they were given. Red when a piece does not, or is not asked.
    #[test]
    fn no_id_is_given_again_after_a_snapshot_of_nothing() {
        let limits = HeadLimits { out_of_order_window_ms: 0, bytes_max: u64::MAX };
        let mut head = Head::new(limits);
        let mut labels = Vec::new();
        let mut register = |head: &mut Head, number| {
            labels_of(0, number, &mut labels);
            let hash = SeriesHash::of(TenantId(0), &labels);
            head.register(TenantId(0), hash, &labels).expect("there is room")
        };
        (0..100).for_each(|number| {
            register(&mut head, number);
        });
        assert_eq!((sweep(&mut head, 0), head.row_count()), (100, 0));
        let mut piece = Vec::new();
        head.snapshot_piece(Row(0), &mut piece, 1 << 20);
        let mut restarted = Head::new(limits);
        assert_eq!(restarted.load_piece(&piece), Ok(0));
        assert_eq!(register(&mut restarted, 7), SeriesId(100));
        assert_eq!(register(&mut head, 7), SeriesId(100), "nor without a restart");
    }

    /// A burst of series with long labels filled the head. It left, and its labels went on counting
    /// as if they were in use: of the head was left a fraction for others, until a restart.
    ///
    /// Red when free cells do not count as room.
    #[test]
    fn a_head_that_was_full_of_labels_takes_samples_again() {
        let limits = HeadLimits { out_of_order_window_ms: 0, bytes_max: 4 << 20 };
        let mut head = Head::new(limits);
        let mut labels = Vec::new();
        labels_of(0, 0, &mut labels);
        let hash = SeriesHash::of(TenantId(0), &labels);
        let good = head.register(TenantId(0), hash, &labels).expect("there is room");
        let mut refused = Vec::new();
        head.append(&[head.row_of(good).0], &[2 * IDLE_MS], &[1.0], &mut refused);
        let register = |head: &mut Head, number: u32| {
            let mut labels = Vec::new();
            let value = format!("select {number} from {}", "long ".repeat(300));
            crate::model::labels::encode_label(&mut labels, b"query", value.as_bytes());
            head.register(TenantId(0), SeriesHash::of(TenantId(0), &labels), &labels)
        };
        let mut number = 0;
        while let Ok(id) = register(&mut head, number) {
            head.append(&[head.row_of(id).0], &[1], &[1.0], &mut refused);
            number += 1;
        }
        assert!((2000..20_000).contains(&number), "{number}");
        refused.clear();
        head.append(&[head.row_of(good).0], &[3 * IDLE_MS], &[1.0], &mut refused);
        assert_eq!(refused.len(), 1);
        refused.clear();
        crate::node::tests::flush(&mut head, 2 * IDLE_MS);
        assert_eq!(sweep(&mut head, IDLE_MS + 1), number as usize);
        head.append(&[head.row_of(good).0], &[3 * IDLE_MS], &[1.0], &mut refused);
        for number in 1..5000 {
            labels_of(1, number, &mut labels);
            let hash = SeriesHash::of(TenantId(0), &labels);
            let id = head.register(TenantId(0), hash, &labels).expect("others made room");
            head.append(&[head.row_of(id).0], &[1], &[1.0], &mut refused);
        }
        assert_eq!(refused, []);
        assert!(head.bytes() < limits.bytes_max * 3 / 2);
    }

    /// Columns and tables are given back once most series are gone; arenas are used again. Red when
    /// a column is not cut.
    #[test]
    fn columns_and_tables_shrink() {
        let limits = HeadLimits { out_of_order_window_ms: 0, bytes_max: u64::MAX };
        let mut head = Head::new(limits);
        let mut labels = Vec::new();
        for number in 0..20_000 {
            labels_of(0, number, &mut labels);
            let hash = SeriesHash::of(TenantId(0), &labels);
            head.register(TenantId(0), hash, &labels).expect("there is room");
        }
        let full = head.report();
        assert_eq!(sweep(&mut head, 0), 20_000);
        let empty = head.report();
        assert!(empty.index_bytes < full.index_bytes / 8, "{empty:?}");
        assert_eq!((empty.series, empty.label_pairs), (0, 0));
    }
}
