//! The parts of requests that a gateway shard has taken in and not answered: what each still waits
//! for, and what became of its samples.
//!
//! A part is open while some lane holds samples of it (a *run*: a stretch of its samples in one
//! frame). It keeps its columns and bytes until then, so that samples can be sent again, with
//! labels, or to others. Samples are counted once, however many owners refuse them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::gateway::hint::HintPart;
use crate::gateway::hint::replay::HintNumber;
use crate::gateway::part::{Lateness, Part, PartAnswer, RequestKey};
use crate::gateway::request::{RequestBytes, SeriesBatch};
use crate::model::placement::NodeId;
use crate::model::refusal::{Refusal, RefusalCounts};
use crate::model::series::TenantId;

/// A part under way, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartKey(u32);

/// A part between its arrival and its answer.
#[derive(Debug, Default)]
pub struct OpenPart {
    /// Whose answer waits; `None` once it was given, or if nobody waits.
    pub request: Option<RequestKey>,
    /// Set if it is a hint: it goes to this node alone.
    pub hint: Option<HintOrigin>,
    /// Whose series.
    pub tenant: TenantId,
    /// How late its samples may be.
    pub lateness: Lateness,
    /// Its columns.
    pub batch: SeriesBatch,
    /// What the label spans point into.
    pub bytes: Arc<RequestBytes>,
    /// Lanes whose node is down, that should have had their share.
    pub down: Vec<u16>,
    /// Why the last of them was added.
    pub down_reason: Option<Refusal>,
    /// Nodes that older hints are still to reach, which could undo some of it: that has to get
    /// there behind the hints too.
    pub behind: Vec<NodeId>,
    /// Nodes that hints of it may be kept for.
    pub making: Vec<NodeId>,
    /// Whether they were handed out to be kept.
    pub is_hinted: bool,
    /// Rises; the greater, the later it came.
    pub opened: u64,
    /// Samples that one owner at least has made durable, where that is enough.
    covered: Covered,
    runs_left: u32,
    refusals: Vec<(Range<u32>, Refusal)>,
    is_open: bool,
}

/// Whose a hint is, and what it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintOrigin {
    /// For this node.
    pub node: NodeId,
    /// Of the node's hints.
    pub number: HintNumber,
}

/// What a part came to.
#[derive(Debug)]
pub enum Finished {
    /// Somebody waits for it.
    Answer(PartAnswer),
    /// It was a hint.
    Hint(HintOrigin, RefusalCounts),
    /// Everything was said before.
    Nothing,
}

/// A set of a part's samples, by their places. Takes no memory while it is empty.
#[derive(Debug, Default)]
struct Covered {
    bits: Vec<u64>,
    count: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Parts {
    places: Vec<OpenPart>,
    free: Vec<u32>,
    opened: u64,
    settled: VecDeque<PartKey>,
}

impl Parts {
    /// Takes a part in. It waits for [`Parts::close_run`] once, besides its runs.
    pub fn open(&mut self, part: Part) -> PartKey {
        let Part { request, tenant, lateness, batch, bytes } = part;
        self.open_for((Some(request), None), HintPart { tenant, lateness, batch, bytes })
    }

    /// Takes a hint in, that is handed out again. As with [`Parts::open`].
    pub fn open_hint(&mut self, hint: HintOrigin, part: HintPart) -> PartKey {
        self.open_for((None, Some(hint)), part)
    }

    fn open_for(
        &mut self,
        (request, hint): (Option<RequestKey>, Option<HintOrigin>),
        part: HintPart,
    ) -> PartKey {
        let HintPart { tenant, lateness, batch, bytes } = part;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(OpenPart::default());
            u32::try_from(self.places.len() - 1).expect("fewer parts than requests")
        });
        self.opened += 1;
        let open = &mut self.places[place as usize];
        open.request = request;
        open.hint = hint;
        (open.tenant, open.lateness, open.batch, open.bytes) = (tenant, lateness, batch, bytes);
        open.opened = self.opened;
        open.runs_left = 1;
        open.is_open = true;
        PartKey(place)
    }

    /// The part.
    pub fn get(&self, key: PartKey) -> &OpenPart {
        &self.places[key.0 as usize]
    }

    /// The part, to change.
    pub fn get_mut(&mut self, key: PartKey) -> &mut OpenPart {
        &mut self.places[key.0 as usize]
    }

    /// A run more holds samples of it.
    pub fn open_run(&mut self, key: PartKey) {
        self.get_mut(key).runs_left += 1;
    }

    /// One run less holds samples of it; the last one settles it.
    pub fn close_run(&mut self, key: PartKey) {
        let part = self.get_mut(key);
        part.runs_left -= 1;
        if part.runs_left == 0 {
            self.settled.push_back(key);
        }
    }

    /// The next part of which no lane holds a sample any more.
    pub fn poll_settled(&mut self) -> Option<PartKey> {
        self.settled.pop_front()
    }

    /// Forgets a settled part.
    pub fn finish(&mut self, key: PartKey) -> Finished {
        let part = &mut self.places[key.0 as usize];
        assert!(part.is_open && part.runs_left == 0, "its last run was closed");
        part.is_open = false;
        part.down.clear();
        part.down_reason = None;
        part.behind.clear();
        part.making.clear();
        part.is_hinted = false;
        part.bytes = Arc::default();
        if part.covered.count > 0 {
            part.forgive_covered();
        }
        part.covered.clear();
        let first_refusal = part.refusals.first().map(|(_, reason)| *reason);
        let refused = count_once(&mut part.refusals);
        part.refusals.clear();
        let batch = std::mem::take(&mut part.batch);
        self.free.push(key.0);
        match (part.request.take(), part.hint.take()) {
            (Some(request), _) => {
                Finished::Answer(PartAnswer { request, refused, first_refusal, batch })
            }
            (None, Some(hint)) => Finished::Hint(hint, refused),
            (None, None) => Finished::Nothing,
        }
    }

    /// An owner has made `samples` durable, and one is enough.
    pub fn cover(&mut self, key: PartKey, samples: &[Range<u32>]) {
        let part = self.get_mut(key);
        let sample_count = part.sample_count();
        for samples in samples {
            part.covered.insert(samples.clone(), sample_count);
        }
    }

    /// The answer, if all samples are covered and nobody has answered yet; the part stays open for
    /// the other owners.
    pub fn answer_covered(&mut self, key: PartKey) -> Option<PartAnswer> {
        let part = self.get_mut(key);
        if part.covered.count < part.sample_count() {
            return None;
        }
        let request = part.request.take()?;
        let (refused, batch) = (RefusalCounts::default(), SeriesBatch::default());
        Some(PartAnswer { request, refused, first_refusal: None, batch })
    }

    /// The parts that are open, in the order in which they came.
    pub fn keys(&self) -> Vec<PartKey> {
        let places = (0u32..).zip(&self.places);
        let mut open: Vec<_> = places.filter(|(_, part)| part.is_open).collect();
        open.sort_by_key(|(_, part)| part.opened);
        open.into_iter().map(|(place, _)| PartKey(place)).collect()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }
}

impl OpenPart {
    /// Refuses samples, by their places in the part's columns. The first reason of a sample counts.
    pub fn refuse(&mut self, samples: Range<u32>, reason: Refusal) {
        match self.refusals.last_mut() {
            Some((last, known)) if *known == reason && last.end == samples.start => {
                last.end = samples.end;
            }
            _ if samples.is_empty() => {}
            _ => self.refusals.push((samples, reason)),
        }
    }

    /// The samples that were refused: ascending stretches that do not touch.
    pub fn refused_places(&self) -> Vec<Range<u32>> {
        let mut places: Vec<_> = self.refusals.iter().map(|(samples, _)| samples.clone()).collect();
        places.sort_unstable_by_key(|samples| samples.start);
        places.dedup_by(|next, last| {
            let is_joined = next.start <= last.end;
            if is_joined {
                last.end = last.end.max(next.end);
            }
            is_joined
        });
        places
    }

    /// Takes back refusals of samples that another owner has: one is enough.
    fn forgive_covered(&mut self) {
        let refusals = std::mem::take(&mut self.refusals);
        for (samples, reason) in refusals {
            for sample in samples {
                if !self.covered.contains(sample) {
                    self.refuse(sample..sample + 1, reason);
                }
            }
        }
    }

    /// A lane that should have had its share is down, or as good as that, for `reason`.
    /// Whether that is new.
    pub fn add_down(&mut self, lane: u16, reason: Refusal) -> bool {
        self.down_reason = Some(reason);
        let is_new = !self.down.contains(&lane);
        if is_new {
            self.down.push(lane);
        }
        is_new
    }

    /// Memory of its columns and bytes.
    pub fn memory_bytes(&self) -> u64 {
        (self.batch.memory_bytes() + self.bytes.memory_bytes()) as u64
    }

    /// Samples in it.
    pub fn sample_count(&self) -> u32 {
        self.batch.sample_end.last().copied().unwrap_or(0)
    }
}

impl Covered {
    fn insert(&mut self, samples: Range<u32>, sample_count: u32) {
        self.bits.resize((sample_count as usize).div_ceil(64), 0);
        for sample in samples {
            let word = &mut self.bits[sample as usize / 64];
            let bit = 1 << (sample % 64);
            self.count += u32::from(*word & bit == 0);
            *word |= bit;
        }
    }

    fn contains(&self, sample: u32) -> bool {
        self.bits.get(sample as usize / 64).is_some_and(|word| word & 1 << (sample % 64) != 0)
    }

    fn clear(&mut self) {
        self.bits.clear();
        self.count = 0;
    }
}

/// How many samples were refused, each once; sorts `refusals`.
fn count_once(refusals: &mut [(Range<u32>, Refusal)]) -> RefusalCounts {
    let mut counts = RefusalCounts::default();
    // Stable: of equal starts the first reason stays first.
    refusals.sort_by_key(|(samples, _)| samples.start);
    let mut counted_to = 0;
    for (samples, reason) in refusals {
        let start = samples.start.max(counted_to);
        if start < samples.end {
            counts.add(*reason, u64::from(samples.end - start));
            counted_to = samples.end;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when a sample that two owners refuse counts twice.
    #[test]
    fn a_sample_counts_once() {
        #[track_caller]
        fn check(refusals: &[(Range<u32>, Refusal)], want: &[(Refusal, u64)]) {
            let counts = count_once(&mut refusals.to_vec());
            assert_eq!(counts.iter().collect::<Vec<_>>(), want);
        }
        use Refusal::{HeadFull, TooOld};
        check(&[], &[]);
        check(&[(0..3, TooOld), (0..3, TooOld)], &[(TooOld, 3)]);
        check(&[(5..9, HeadFull), (0..6, TooOld)], &[(TooOld, 6), (HeadFull, 3)]);
        check(&[(2..4, HeadFull), (2..9, TooOld)], &[(TooOld, 5), (HeadFull, 2)]);
        check(&[(0..9, HeadFull), (2..4, TooOld), (9..10, TooOld)], &[(TooOld, 1), (HeadFull, 9)]);
    }
}
