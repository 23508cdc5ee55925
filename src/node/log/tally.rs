//! What replay did not find: gaps in the record sequences, and whether what is missing had been
//! acknowledged.
//!
//! In: every whole record of every segment, in order. Out: whether to apply it, and counts. A gap
//! stays open until a later record of the same run says that the log was durable beyond it (then it
//! is a loss), or until nobody says so (then it was part of a torn, never acknowledged write).

use std::collections::VecDeque;
use std::ops::Range;

use super::record::Record;

/// Gaps can only stay open within one unsynced write; more than this many are called losses, to be
/// safe.
const OPEN_GAPS_MAX: usize = 1024;

/// Counts what is missing.
#[derive(Debug)]
pub struct ReplayTally {
    next_sequence: u64,
    /// Of the last record that was applied: its segment, and its run's first sequence.
    segment: u64,
    run_sequence: u64,
    open: VecDeque<Range<u64>>,
    records: u64,
    records_lost: u64,
    records_torn: u64,
    records_repeated: u64,
    first_lost_sequence: Option<u64>,
}

impl ReplayTally {
    /// Begins where the snapshot ends: `first_sequence` is that of the first record to come (1
    /// without a snapshot).
    pub fn new(first_sequence: u64) -> Self {
        Self {
            next_sequence: first_sequence,
            segment: 0,
            run_sequence: 0,
            open: VecDeque::new(),
            records: 0,
            records_lost: 0,
            records_torn: 0,
            records_repeated: 0,
            first_lost_sequence: None,
        }
    }

    /// Whether `record` is to be applied: not if it, or a later one of its run, was before.
    pub fn handle_record(&mut self, record: &Record<'_>) -> bool {
        let numbers = record.numbers();
        if numbers.sequence < self.next_sequence
            && numbers.segment > self.segment
            && numbers.run_sequence >= self.run_sequence
        {
            // A later run, which did not see what the one before it still had in flight: a write
            // of a killed process may land after its successor has read the segment. Those records
            // were never acknowledged; the ones that the later run gave the same numbers were.
            self.begin_again(numbers.run_sequence.min(numbers.sequence));
        }
        if numbers.sequence < self.next_sequence {
            self.records_repeated += 1;
            return false;
        }
        if numbers.sequence > self.next_sequence {
            self.open.push_back(self.next_sequence..numbers.sequence);
        }
        self.next_sequence = numbers.sequence + 1;
        (self.segment, self.run_sequence) = (numbers.segment, numbers.run_sequence);
        self.records += 1;
        self.judge(numbers.run_sequence, numbers.durable_sequence);
        true
    }

    /// Numbers from `next_sequence` on are given once more; what was missing of them before was
    /// torn.
    fn begin_again(&mut self, next_sequence: u64) {
        self.next_sequence = next_sequence;
        while let Some(gap) = self.open.back_mut()
            && gap.end > next_sequence
        {
            let kept_end = gap.start.max(next_sequence);
            self.records_torn += gap.end - kept_end;
            gap.end = kept_end;
            if gap.is_empty() {
                self.open.pop_back();
            }
        }
    }

    /// A record of the run that began at `run_sequence` says that all up to `durable_sequence` is
    /// durable.
    fn judge(&mut self, run_sequence: u64, durable_sequence: u64) {
        while let Some(gap) = self.open.front_mut() {
            // Of the run before, nobody will say more: what is open of it was its last, torn write.
            let torn = run_sequence.clamp(gap.start, gap.end) - gap.start;
            self.records_torn += torn;
            gap.start += torn;
            let lost = durable_sequence.saturating_add(1).clamp(gap.start, gap.end) - gap.start;
            if lost > 0 {
                self.first_lost_sequence.get_or_insert(gap.start);
            }
            self.records_lost += lost;
            gap.start += lost;
            if !gap.is_empty() {
                break;
            }
            self.open.pop_front();
        }
        while self.open.len() > OPEN_GAPS_MAX {
            let gap = self.open.pop_front().expect("not empty");
            self.first_lost_sequence.get_or_insert(gap.start);
            self.records_lost += gap.end - gap.start;
        }
    }

    /// The sequence that the next record of the log gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Records to apply so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Missing records that were acknowledged: data is lost.
    pub fn records_lost(&self) -> u64 {
        self.records_lost
    }

    /// The first of them.
    pub fn first_lost_sequence(&self) -> Option<u64> {
        self.first_lost_sequence
    }

    /// Missing records that nobody calls durable: a torn write, never acknowledged.
    pub fn records_torn(&self) -> u64 {
        let open = self.open.iter().map(|gap| gap.end - gap.start).sum::<u64>();
        self.records_torn + open
    }

    /// Whole records that had been applied before, or that came after later ones; left out.
    pub fn records_repeated(&self) -> u64 {
        self.records_repeated
    }
}
