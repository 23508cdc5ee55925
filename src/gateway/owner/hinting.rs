//! What owners lack of parts, and what keeps hints from undoing what came after them.
//!
//! A sample whose owner is down becomes a hint once another owner has it. While hints wait, live
//! samples overtake them. A client may write another value for a series and time of such a hint:
//! one that is not newer than the hints goes to the owner at once *and* behind the hints, so that
//! the last value has the last word. Parts that may become hints are kept in the order in which
//! they came, whichever lanes they wait for. All that holds for what comes by one gateway; two
//! gateways know nothing of each other's hints.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Owner;
use crate::gateway::hint::HintPart;
use crate::gateway::part::Lateness;
use crate::gateway::parts::{HintOrigin, OpenPart, PartKey};
use crate::model::placement::NodeId;
use crate::model::refusal::{Refusal, RefusalCounts};

/// Samples to be kept for an owner that is down; answered by [`Owner::handle_hinted`].
#[derive(Debug)]
pub struct HintOut {
    /// Names it.
    pub ticket: u64,
    /// The owner.
    pub node: NodeId,
    /// The samples.
    pub part: HintPart,
}

/// What became of a hint that was handed out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Which.
    pub hint: HintOrigin,
    /// Whether the node has it, but for what no retry can mend.
    pub is_done: bool,
    /// Samples that the node will never take.
    pub refused: RefusalCounts,
}

/// Open parts that may become hints, by the order in which they came; of those that wait for
/// nothing but an older one, their bytes.
#[derive(Default)]
pub(super) struct ShortParts(BTreeMap<u64, (PartKey, Option<u64>)>);

pub(super) struct Hinting {
    node: NodeId,
    key: PartKey,
    samples: Vec<Range<u32>>,
    held_bytes: u64,
}

impl Owner {
    /// Takes in a hint that was kept for a node, to be delivered there; what becomes of it is told
    /// by [`Owner::poll_delivered`]. Behind newer samples of its series, so however late it is.
    pub fn handle_hint(&mut self, hint: HintOrigin, part: HintPart) {
        let part = HintPart { lateness: Lateness::Backfill, ..part };
        let key = self.parts.open_hint(hint, part);
        self.gather_part(key);
        self.parts.close_run(key);
        self.settle();
    }

    /// Samples to be kept for owners that are down.
    pub fn poll_hint(&mut self) -> Option<HintOut> {
        self.hints.pop_front()
    }

    /// They are durable, or refused.
    pub fn handle_hinted(&mut self, ticket: u64, outcome: Result<(), Refusal>) {
        let Some(hinting) = self.hinting.remove(&ticket) else { return };
        let Hinting { node, key, samples, held_bytes } = hinting;
        self.hinting_bytes -= held_bytes;
        match outcome {
            Ok(()) => self.behind.of(node).is_kept = true,
            Err(reason) => {
                for samples in samples {
                    self.parts.get_mut(key).refuse(samples, reason);
                }
            }
        }
        self.end_making(node);
        self.parts.close_run(key);
        self.settle();
    }

    /// A start found hints for `node`, up to `until_ms`.
    pub fn handle_waiting(&mut self, node: NodeId, until_ms: i64) {
        let behind = self.behind.of(node);
        behind.note_all(until_ms);
        behind.is_kept = true;
        self.behind.note_left(&self.route);
    }

    /// No hint for `node` is left, but for those that are not kept yet.
    pub fn handle_drained(&mut self, node: NodeId) {
        let behind = self.behind.of(node);
        behind.is_kept = false;
        behind.clear();
        if behind.making > 0 {
            for key in self.parts.keys() {
                let part = self.parts.get(key);
                let is_of = |hinting: &Hinting| (hinting.node, hinting.key) == (node, key);
                if part.making.contains(&node) || self.hinting.values().any(is_of) {
                    behind.note(&part.batch);
                }
            }
        }
        self.behind.note_left(&self.route);
        self.behind.forget_drained(node);
    }

    /// The next hint that was delivered, or could not be.
    pub fn poll_delivered(&mut self) -> Option<Delivered> {
        self.delivered.pop_front()
    }

    /// A part may become a hint for `node`: because it is `down`, or for the sake of older hints.
    fn begin_making(&mut self, key: PartKey, node: NodeId, is_down: bool) {
        let part = self.parts.get_mut(key);
        part.making.push(node);
        self.short.0.entry(part.opened).or_insert((key, None));
        let behind = self.behind.of(node);
        if is_down {
            behind.note(&part.batch);
        }
        behind.making += 1;
    }

    fn end_making(&mut self, node: NodeId) {
        self.behind.of(node).making -= 1;
        self.behind.forget_drained(node);
    }

    /// What was known of who lacks a part means nothing any more.
    pub(super) fn forget_short(&mut self, key: PartKey) {
        let part = self.parts.get_mut(key);
        part.down.clear();
        part.behind.clear();
        part.is_hinted = false;
        if let Some((_, Some(held_bytes))) = self.short.0.remove(&part.opened) {
            self.hinting_bytes -= held_bytes;
        }
        for node in std::mem::take(&mut part.making) {
            self.end_making(node);
        }
    }

    /// Whether a part of which no lane holds a sample any more may have to be hinted: it comes by
    /// [`Owner::next_short`].
    pub(super) fn holds_short(&mut self, key: PartKey) -> bool {
        let is_placed = !self.lanes.is_empty();
        if is_placed && !self.behind.is_empty() && !self.parts.get(key).is_hinted {
            // An older part became a hint while this one was on its way.
            self.split_part(key);
            self.note_behind(key);
        }
        let part = self.parts.get(key);
        if part.making.is_empty() {
            // Nobody keeps what is down: it is refused.
            return !part.down.is_empty() && self.settle_short(key);
        }
        let held_bytes = part.memory_bytes();
        self.short.0.insert(part.opened, (key, Some(held_bytes)));
        self.hinting_bytes += held_bytes;
        true
    }

    /// The oldest part that may have to be hinted, if it waits for nothing else.
    pub(super) fn next_short(&mut self) -> Option<PartKey> {
        let oldest = self.short.0.first_entry()?;
        let (key, Some(held_bytes)) = *oldest.get() else { return None };
        oldest.remove();
        self.hinting_bytes -= held_bytes;
        Some(key)
    }

    /// Remembers which nodes get a part, whose series are split, while older hints are on their
    /// way there.
    pub(super) fn note_behind(&mut self, key: PartKey) {
        let part = self.parts.get_mut(key);
        if part.hint.is_some() {
            return;
        }
        let mut nodes = Vec::new();
        for behind in self.behind.iter() {
            let could_undo = |index: u32| behind.could_undo(&part.batch, index as usize);
            let is_undoable = match behind.lanes(&self.route) {
                None => (0..).take(part.batch.len()).any(could_undo),
                Some(lanes) => {
                    let split = |lane: &u16| self.split.get(usize::from(*lane));
                    lanes.iter().filter_map(split).flatten().copied().any(could_undo)
                }
            };
            if is_undoable && !part.behind.contains(&behind.node) {
                part.behind.push(behind.node);
                nodes.extend((!part.making.contains(&behind.node)).then_some(behind.node));
            }
        }
        for node in nodes {
            self.begin_making(key, node, false);
        }
    }

    /// An owner should have had its share of a part and is down, or as good as that: unless no
    /// other has it, it becomes a hint.
    pub(super) fn add_down(&mut self, key: PartKey, lane: u16, reason: Refusal) {
        let part = self.parts.get_mut(key);
        let is_new = part.add_down(lane, reason);
        if is_new
            && self.keeps_hints
            && self.route.replication() > 1
            && part.hint.is_none()
            && let Some(node) = self.route.node_of(lane)
        {
            if part.making.contains(&node) {
                // Not only for the sake of older hints any more: all of it.
                self.behind.of(node).note(&part.batch);
            } else {
                self.begin_making(key, node, true);
            }
        }
    }

    /// Whether an owner that refuses for `reason` is as good as down: another may have the samples,
    /// and this one gets them when it can take them.
    pub(super) fn may_hint(&self, key: PartKey, reason: Refusal) -> bool {
        self.keeps_hints
            && self.route.replication() > 1
            && self.parts.get(key).hint.is_none()
            && matches!(
                reason,
                Refusal::Overloaded
                    | Refusal::HeadFull
                    | Refusal::DiskFull
                    | Refusal::LogFailed
                    | Refusal::Replaying
                    | Refusal::Draining
            )
    }

    /// What owners that are down lack of a part is to be hinted if another owner has it, and
    /// refused if none has; what older hints could undo is to be hinted too. Whether hints have to
    /// become durable first.
    pub(super) fn settle_short(&mut self, key: PartKey) -> bool {
        self.split_part(key);
        let down = std::mem::take(&mut self.parts.get_mut(key).down);
        let refused = self.parts.get(key).refused_places();
        let mut is_hinting = false;
        for &lane in &down {
            let series = std::mem::take(&mut self.split[usize::from(lane)]);
            let mut pieces = Vec::new();
            for &index in &series {
                let part = self.parts.get(key);
                let samples = part.batch.samples_of(index as usize);
                if self.keeps_hints && self.has_other_owner(part, index, &down) {
                    pieces.extend(without(samples, &refused).map(|samples| (index, samples)));
                } else {
                    let reason = part.down_reason.unwrap_or(Refusal::NodeDown);
                    self.parts.get_mut(key).refuse(samples, reason);
                }
            }
            self.split[usize::from(lane)] = series;
            if let Some(node) = self.route.node_of(lane)
                && !pieces.is_empty()
            {
                self.push_hint(key, node, pieces);
                is_hinting = true;
            }
        }
        for node in std::mem::take(&mut self.parts.get_mut(key).behind) {
            let pieces = self.pieces_behind((key, node), (&down, &refused));
            if !pieces.is_empty() {
                self.push_hint(key, node, pieces);
                is_hinting = true;
            }
        }
        let part = self.parts.get_mut(key);
        part.is_hinted = true;
        for node in std::mem::take(&mut part.making) {
            self.end_making(node);
        }
        is_hinting
    }

    /// The samples of a part, whose series are split, that `node` has and hints could undo.
    fn pieces_behind(
        &self,
        (key, node): (PartKey, NodeId),
        (down, refused): (&[u16], &[Range<u32>]),
    ) -> Vec<(u32, Range<u32>)> {
        let Some(behind) = self.behind.find(node) else { return Vec::new() };
        let part = self.parts.get(key);
        let series: Vec<u32> = match behind.lanes(&self.route) {
            None => (0..).take(part.batch.len()).collect(),
            Some(lanes) => {
                let is_up = |lane: &&u16| !down.contains(*lane);
                let split = |lane: &u16| self.split.get(usize::from(*lane));
                lanes.iter().filter(is_up).filter_map(split).flatten().copied().collect()
            }
        };
        let mut pieces: Vec<(u32, Range<u32>)> = Vec::new();
        for index in series {
            let until_ms = behind.until_ms(part.batch.hash[index as usize]);
            for place in without(part.batch.samples_of(index as usize), refused).flatten() {
                if part.batch.timestamp_ms[place as usize] > until_ms {
                    continue;
                }
                match pieces.last_mut() {
                    Some((last, samples)) if *last == index && samples.end == place => {
                        samples.end += 1;
                    }
                    _ => pieces.push((index, place..place + 1)),
                }
            }
        }
        pieces
    }

    /// Whether a series of a part has an owner that is not among `down`.
    fn has_other_owner(&self, part: &OpenPart, index: u32, down: &[u16]) -> bool {
        let at = (&part.batch, index as usize);
        let lanes = self.route.lanes_of(part.tenant, at, &part.bytes);
        part.hint.is_none() && lanes.as_slice().iter().any(|lane| !down.contains(lane))
    }

    fn push_hint(&mut self, key: PartKey, node: NodeId, pieces: Vec<(u32, Range<u32>)>) {
        let part = self.parts.get(key);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let hint =
            HintPart::of_samples((part.tenant, part.lateness), (&part.batch, &part.bytes), &pieces);
        let held_bytes = (hint.batch.memory_bytes() + hint.bytes.memory_bytes()) as u64;
        self.hinting_bytes += held_bytes;
        self.hints.push_back(HintOut { ticket, node, part: hint });
        let samples = pieces.into_iter().map(|(_, samples)| samples).collect();
        self.behind.of(node).making += 1;
        self.hinting.insert(ticket, Hinting { node, key, samples, held_bytes });
        self.parts.open_run(key);
    }
}

/// The stretches of `samples` outside `refused`, which ascends and is apart.
fn without(samples: Range<u32>, refused: &[Range<u32>]) -> impl Iterator<Item = Range<u32>> {
    let Range { mut start, end } = samples;
    let first = refused.partition_point(|refused| refused.end <= start);
    let mut stretches: Vec<Range<u32>> = Vec::new();
    for refused in refused[first..].iter().take_while(|refused| refused.start < end) {
        stretches.push(start..refused.start.max(start));
        start = refused.end;
    }
    stretches.push(start..end.max(start));
    stretches.into_iter().filter(|stretch| !stretch.is_empty())
}

#[cfg(test)]
mod tests;
