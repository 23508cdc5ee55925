//! One query's walk over a head, in slices: find the series (`matching`), then copy out what is
//! wanted of them.
//!
//! In: a request, once; the head and a budget of steps at each poll. Out: pieces of the answer. A
//! step is about 100 ns, so 2,000 of them keep a poll near 200 µs. Set operations on a million
//! series are a few steps; one regular expression on one label value is one; so is one series
//! copied, and each 16 of its chunks.
//!
//! Series that come in while a select runs may or may not be seen. One that leaves the head
//! meanwhile has its samples in blocks, which are asked later; its row is not used again before the
//! select is over, so that no series answers in the place of another. Not here: what a query does
//! with the answer.

mod matching;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers from a seeded generator")]
mod tests;

use roaring::RoaringBitmap;

use super::head::{Head, Reader, Row, TimeRange};
use super::index::{Condition, Index};
use crate::model::chunk::Chunk;
use crate::model::matcher::Matcher;
use crate::model::series::TenantId;
use crate::wire::select::{SelectAnswer, SelectFault, SelectRequest, SelectWant, SelectedSeries};
use matching::Matching;

/// Most series in one [`SelectAnswer::Series`].
const ANSWER_SERIES_MAX: usize = 128;
/// An answer is given out once it holds so many bytes.
const ANSWER_BYTES: usize = 256 << 10;
/// Most strings in one [`SelectAnswer::Strings`].
const ANSWER_STRINGS_MAX: usize = 4096;
/// Chunks that are copied (two atomic additions each) for one step.
const CHUNKS_PER_STEP: usize = 16;
/// Chunks of one series that are copied without looking at the budget.
const CHUNKS_PER_TURN: usize = 1024;

/// Whether every regular expression compiles; the error is the text of what is wrong with one.
pub fn check_matchers(matchers: &[Matcher]) -> Result<(), String> {
    matchers.iter().try_for_each(|matcher| Condition::compile(matcher).map(drop))
}

/// How long one poll may work.
#[derive(Clone, Copy, Debug)]
pub struct SelectBudget {
    /// Steps of about 100 ns. At least one is always taken.
    pub steps: u32,
}

/// What a poll came to.
#[derive(Debug)]
pub enum SelectPoll {
    /// A piece of the answer; there is more to poll.
    Answer(SelectAnswer),
    /// The budget is used up: poll again in the next turn.
    Pending,
    /// The last answer was given before.
    Done,
}

/// A select that runs.
pub struct SelectRun {
    want: SelectWant,
    range: TimeRange,
    series_max: u32,
    series_count: u32,
    stage: Stage,
    /// Keeps the rows, pairs and names that it remembers from being used again.
    _reader: Reader,
}

enum Stage {
    Matching(Matching),
    Copying(Copying),
    Done,
}

/// What is left to copy, and what was copied but not given out.
struct Copying {
    selected: RoaringBitmap,
    /// Rows below this are dealt with.
    next: u64,
    partial: Option<Partial>,
    series: Vec<SelectedSeries>,
    strings: Vec<Box<str>>,
    bytes: usize,
    /// Ids of names, or of pairs, that were given out.
    seen: RoaringBitmap,
}

/// A series with so many chunks that it is copied in several turns.
struct Partial {
    id: u32,
    chunk: usize,
    drop_generation: u64,
    series: SelectedSeries,
}

/// The steps left of a poll.
struct Steps(u32);

impl Steps {
    fn take(&mut self, steps: usize) {
        self.0 = self.0.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
    }

    fn are_used_up(&self) -> bool {
        self.0 == 0
    }
}

impl SelectRun {
    /// Makes the matchers ready. Compiling a regular expression is the one thing that is not cut
    /// into slices; its size is bounded, so it takes at most a few milliseconds, and tens of
    /// microseconds as a rule.
    /// # Errors
    /// [`SelectFault::BadRegex`].
    pub fn new(request: SelectRequest, head: &Head) -> Result<Self, SelectFault> {
        let SelectRequest { tenant, matchers, start_ms, end_ms, want, series_max } = request;
        let mut matching = Matching::new(tenant, &matchers).map_err(SelectFault::BadRegex)?;
        if let SelectWant::LabelValues(name) = &want {
            matching.require_label(name);
        }
        let is_empty = start_ms > end_ms || head.index().all(tenant).is_none();
        let stage = if is_empty {
            Stage::Copying(Copying::new(RoaringBitmap::new()))
        } else {
            Stage::Matching(matching)
        };
        let range = TimeRange { start_ms, end_ms };
        Ok(Self { want, range, series_max, series_count: 0, stage, _reader: head.reader() })
    }

    /// Works on, for at most about `budget`, until there is something to answer. `head` is the one
    /// it was made for.
    pub fn poll(&mut self, head: &Head, budget: SelectBudget) -> SelectPoll {
        let mut steps = Steps(budget.steps.max(1));
        loop {
            match &mut self.stage {
                Stage::Matching(matching) => match matching.poll(head.index(), &mut steps) {
                    Some(selected) => self.stage = Stage::Copying(Copying::new(selected)),
                    None => return SelectPoll::Pending,
                },
                Stage::Copying(_) => return self.poll_copying(head, &mut steps),
                Stage::Done => return SelectPoll::Done,
            }
        }
    }

    fn poll_copying(&mut self, head: &Head, steps: &mut Steps) -> SelectPoll {
        let Stage::Copying(copying) = &mut self.stage else { return SelectPoll::Done };
        // Taken out for the time of the loop, which changes the rest.
        let selected = std::mem::take(&mut copying.selected);
        let first = u32::try_from(copying.next).ok();
        let mut ids = first.map(|first| selected.range(first..));
        let end = loop {
            if copying.is_answer_full() || steps.are_used_up() {
                break None;
            }
            if copying.partial.is_some() {
                copying.copy_partial(head, self.range, steps);
                continue;
            }
            let Some(id) = ids.as_mut().and_then(Iterator::next) else {
                let series_count = self.series_count;
                break Some(SelectAnswer::End { series_count });
            };
            copying.next = u64::from(id) + 1;
            steps.take(1 + head.chunk_count(id) / CHUNKS_PER_STEP);
            if !head.has_sample_in(id, self.range) {
                continue;
            }
            self.series_count += 1;
            if self.series_count > self.series_max {
                let series_max = self.series_max;
                break Some(SelectAnswer::Fault(SelectFault::TooManySeries { series_max }));
            }
            copying.copy(head, id, &self.want, steps);
        };
        drop(ids);
        copying.selected = selected;
        let is_fault = matches!(end, Some(SelectAnswer::Fault(_)));
        if !is_fault
            && (end.is_some() || copying.is_answer_full())
            && let Some(answer) = copying.take_answer()
        {
            return SelectPoll::Answer(answer);
        }
        let Some(end) = end else { return SelectPoll::Pending };
        self.stage = Stage::Done;
        SelectPoll::Answer(end)
    }
}

impl Copying {
    fn new(selected: RoaringBitmap) -> Self {
        Self {
            selected,
            next: 0,
            partial: None,
            series: Vec::new(),
            strings: Vec::new(),
            bytes: 0,
            seen: RoaringBitmap::new(),
        }
    }

    fn is_answer_full(&self) -> bool {
        self.bytes >= ANSWER_BYTES
            || self.series.len() >= ANSWER_SERIES_MAX
            || self.strings.len() >= ANSWER_STRINGS_MAX
    }

    /// What was copied since the last answer, if anything.
    fn take_answer(&mut self) -> Option<SelectAnswer> {
        self.bytes = 0;
        if !self.series.is_empty() {
            return Some(SelectAnswer::Series(std::mem::take(&mut self.series)));
        }
        if !self.strings.is_empty() {
            return Some(SelectAnswer::Strings(std::mem::take(&mut self.strings)));
        }
        None
    }

    /// Copies what is wanted of series `id`.
    fn copy(&mut self, head: &Head, id: u32, want: &SelectWant, steps: &mut Steps) {
        let index = head.index();
        match want {
            SelectWant::Samples => {
                self.partial = Some(Partial::new(head, id));
                steps.take(2);
            }
            SelectWant::Labels => {
                let series = empty_series(head, id);
                steps.take(2);
                self.push_series(series);
            }
            SelectWant::LabelNames => {
                steps.take(1);
                for pair in index.pairs_of(id) {
                    let name = index.pair_name(pair);
                    if self.seen.insert(name) {
                        self.push_string(index.name_text(name));
                    }
                }
            }
            SelectWant::LabelValues(name) => {
                steps.take(1);
                let wanted =
                    |pair: &u32| index.name_text(index.pair_name(*pair)) == name.as_bytes();
                let pair = index.pairs_of(id).find(wanted);
                if let Some(pair) = pair
                    && self.seen.insert(pair)
                {
                    self.push_string(index.pair_value(pair));
                }
            }
        }
    }

    fn copy_partial(&mut self, head: &Head, range: TimeRange, steps: &mut Steps) {
        let Some(mut partial) = self.partial.take() else { return };
        if partial.drop_generation != head.drop_generation() {
            // A flush moved the chunks under the cursor. This is rare, and beginning anew is
            // cheap.
            if head.id_at(Row(partial.id)).is_none() {
                return; // It left altogether, for blocks.
            }
            partial = Partial::new(head, partial.id);
        }
        let end = partial.chunk + CHUNKS_PER_TURN;
        let copied = partial.chunk..end;
        let before = partial.series.chunks.len();
        head.copy_chunks(partial.id, copied, range, &mut partial.series.chunks);
        steps.take((partial.series.chunks.len() - before) / CHUNKS_PER_STEP);
        partial.chunk = end;
        if end < head.chunk_count(partial.id) {
            self.partial = Some(partial);
            return;
        }
        // In the same turn as the last chunk, so that no point is sealed in between and seen twice
        // or never.
        head.copy_points(partial.id, range, &mut partial.series.samples);
        self.push_series(partial.series);
    }

    fn push_series(&mut self, series: SelectedSeries) {
        let chunks: usize = series.chunks.iter().map(Chunk::len_bytes).sum();
        self.bytes += series.labels.len() + chunks + size_of_val(series.samples.as_slice());
        self.series.push(series);
    }

    fn push_string(&mut self, text: &[u8]) {
        self.bytes += text.len();
        self.strings.push(String::from_utf8_lossy(text).into());
    }
}

impl Partial {
    fn new(head: &Head, id: u32) -> Self {
        let drop_generation = head.drop_generation();
        Self { id, chunk: 0, drop_generation, series: empty_series(head, id) }
    }
}

/// The series that satisfy all matchers, found in one go; the error is the text of what is wrong
/// with a regular expression.
pub(in crate::node) fn matching_series(
    index: &Index,
    tenant: TenantId,
    matchers: &[Matcher],
) -> Result<RoaringBitmap, String> {
    let mut matching = Matching::new(tenant, matchers)?;
    loop {
        if let Some(found) = matching.poll(index, &mut Steps(u32::MAX)) {
            return Ok(found);
        }
    }
}

/// A series' labels, no samples yet.
fn empty_series(head: &Head, id: u32) -> SelectedSeries {
    let mut labels = Vec::new();
    head.index().encode_labels(id, &mut labels);
    SelectedSeries { labels: labels.into(), chunks: Vec::new(), samples: Vec::new() }
}
