//! The shard that owns a slice of the slots: parts of requests in, frames for node shards out, acks
//! in, answers out.
//!
//! A part's samples go into the lanes of their owners. It is answered when every owner has made
//! them durable or refused them, or, with [`AckPolicy::One`], when one owner has; what a lane can
//! not deliver while its node is down is refused, or, if another owner has it, is to be hinted.
//! When the placement changes, every open part goes its new ways: what the old owners have of it
//! does no harm.
//! Not here: how frames reach nodes (`links`, the shard loop), the request itself (`requests`).

use std::collections::VecDeque;
use std::ops::Range;

use hashbrown::HashMap;

use crate::gateway::lane::{Frame, Lane, PartRun, RunsOf, wanted_of};
use crate::gateway::part::{Lateness, Part, PartAnswer};
use crate::gateway::parts::{Finished, PartKey, Parts};
use crate::gateway::route::Route;
use crate::model::labels::LabelLimits;
use crate::model::placement::NodeId;
use crate::model::refusal::{Blame, Refusal};
use crate::model::series::{SeriesHash, SeriesId};
use crate::wire::ack::{Ack, RefusedSample};

mod behind;
mod hinting;

pub use crate::gateway::lane::LABELS_BYTES_LIMIT;
pub use hinting::{Delivered, HintOut};

/// When a part is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckPolicy {
    /// When every owner has it.
    #[default]
    All,
    /// When each sample is durable at one owner at least; the others follow.
    One,
}

/// The owner half of a gateway shard.
pub struct Owner {
    label_limits: LabelLimits,
    /// A lane that holds so many bytes takes no more: a node that stands still must not use up
    /// what all requests share.
    lane_bytes_max: u64,
    ack: AckPolicy,
    route: Route,
    lanes: Vec<OwnerLane>,
    parts: Parts,
    answers: VecDeque<PartAnswer>,
    /// Whether there is room for hints: without, an owner that is down is one too few.
    keeps_hints: bool,
    hints: VecDeque<HintOut>,
    /// Hints that are not durable yet, by ticket.
    hinting: HashMap<u64, hinting::Hinting>,
    /// Bytes that they hold, about.
    hinting_bytes: u64,
    next_ticket: u64,
    delivered: VecDeque<Delivered>,
    behind: behind::Behinds,
    short: hinting::ShortParts,
    /// Series by lane, as the part at hand is split; kept for their memory.
    split: Vec<Vec<u32>>,
}

struct OwnerLane {
    lane: Lane,
    is_down: bool,
    /// Samples that the node refused as of an old epoch: they wait for the new placement.
    parked: Vec<PartRun>,
}

impl Owner {
    /// An owner with one lane, to `node_shard` of this process, which is up.
    pub fn single(node_shard: u32, label_limits: LabelLimits) -> Self {
        let mut owner = Self::placed(label_limits, u64::MAX, AckPolicy::All);
        owner.add_lane(node_shard);
        owner.lanes[0].is_down = false;
        owner
    }

    /// An owner without a placement: it refuses everything until there is one. What would let a
    /// lane hold more than `lane_bytes_max` is refused.
    pub fn placed(label_limits: LabelLimits, lane_bytes_max: u64, ack: AckPolicy) -> Self {
        Self {
            label_limits,
            lane_bytes_max,
            ack,
            route: Route::single(),
            lanes: Vec::new(),
            parts: Parts::default(),
            answers: VecDeque::new(),
            keeps_hints: false,
            hints: VecDeque::new(),
            hinting: HashMap::new(),
            hinting_bytes: 0,
            next_ticket: 1,
            delivered: VecDeque::new(),
            behind: behind::Behinds::default(),
            short: hinting::ShortParts::default(),
            split: Vec::new(),
        }
    }

    /// The same, where what owners that are down lack is kept for them.
    pub fn with_hints(self) -> Self {
        Self { keeps_hints: true, ..self }
    }

    /// Another lane, to a shard of some node, which is down until [`Owner::handle_lane_up`].
    pub fn add_lane(&mut self, node_shard: u32) -> u16 {
        let lane = Lane::new(node_shard);
        self.lanes.push(OwnerLane { lane, is_down: true, parked: Vec::new() });
        u16::try_from(self.lanes.len() - 1).expect("fewer lanes than 65,536")
    }

    /// Takes in a part. Its samples leave with the next frames; its answer comes by
    /// [`Owner::poll_answer`].
    ///
    /// Memory is bounded by the caller, which admits only so many bytes of requests at a time.
    pub fn handle_part(&mut self, part: Part) {
        let key = self.parts.open(part);
        self.gather_part(key);
        self.parts.close_run(key);
        self.settle();
    }

    /// Follows another placement from now on: lanes that `route` does not name get no samples any
    /// more.
    pub fn handle_route(&mut self, route: Route) {
        self.route = route;
        self.behind.note_left(&self.route);
        let mut runs = Vec::new();
        for OwnerLane { lane, parked, .. } in &mut self.lanes {
            lane.set_epoch(self.route.epoch());
            lane.void_in_flight(&mut runs);
            runs.extend(lane.take_runs(RunsOf::FramesToSend));
            runs.append(parked);
        }
        for key in self.parts.keys() {
            self.parts.open_run(key);
            self.forget_short(key);
            self.parts.get_mut(key).lateness = Lateness::Backfill;
            self.gather_part(key);
            self.parts.close_run(key);
        }
        self.close(&runs);
    }

    /// The next frame of a lane, if any sample waits. Give it back by one of the `handle_frame_*`.
    pub fn poll_frame(&mut self, lane: u16) -> Option<Frame> {
        self.lane_mut(lane).poll_frame()
    }

    /// As [`Owner::poll_frame`], but only a frame to which nothing more will be added.
    pub fn poll_full_frame(&mut self, lane: u16) -> Option<Frame> {
        self.lane_mut(lane).poll_full_frame()
    }

    /// The node will not take `frame`: all of its samples are refused for `reason`.
    pub fn handle_frame_refused(&mut self, lane: u16, frame: Frame, reason: Refusal) {
        let runs = self.lane_mut(lane).handle_frame_refused(frame);
        self.refuse(lane, &runs, reason);
    }

    /// The node took nothing of the oldest frame in flight.
    pub fn handle_refused(&mut self, lane: u16, sequence: u64, reason: Refusal) {
        let runs = self.lane_mut(lane).handle_refused(sequence);
        if reason == Refusal::StaleEpoch {
            self.lanes[usize::from(lane)].parked.extend(runs);
        } else {
            self.refuse(lane, &runs, reason);
        }
        self.rebuild_if_wanted(lane);
    }

    /// The log of the node in this process failed: what is in flight will never be acked and is
    /// refused for `reason`.
    pub fn handle_node_failed(&mut self, lane: u16, reason: Refusal) {
        let mut runs = Vec::new();
        self.lane_mut(lane).void_in_flight(&mut runs);
        self.refuse(lane, &runs, reason);
    }

    /// A frame is durable. Acks of a lane come in sequence order.
    pub fn handle_ack(&mut self, lane: u16, ack: &Ack) {
        let runs = self.lane_mut(lane).handle_ack(ack);
        let mut refused = ack.refused.iter();
        let one_is_enough = self.ack == AckPolicy::One && self.route.replication() > 1;
        for run in &runs {
            let own = refused_of(run, &mut refused);
            if one_is_enough || !own.is_empty() {
                self.handle_run_acked(lane, run, (&own, one_is_enough));
            }
        }
        self.close(&runs);
        self.rebuild_if_wanted(lane);
    }

    /// The link to the node proved itself: samples go this way again, with ids of `id_space`.
    pub fn handle_lane_up(&mut self, lane: u16, id_space: u64) {
        let one = &mut self.lanes[usize::from(lane)];
        one.is_down = false;
        one.lane.set_id_space(id_space);
    }

    /// The node gives other ids now: those that were known mean nothing. All frames without an
    /// answer are made anew, in order.
    pub fn handle_ids_forgotten(&mut self, lane: u16) {
        self.lane_mut(lane).forget_ids();
        self.rebuild(lane, RunsOf::AllFrames);
    }

    /// The node was not heard for too long: what it has not answered is not waited for, and the
    /// link begins with its first sequence.
    pub fn handle_lane_down(&mut self, lane: u16) {
        let one = &mut self.lanes[usize::from(lane)];
        one.is_down = true;
        let mut runs = one.lane.take_runs(RunsOf::AllFrames);
        runs.append(&mut one.parked);
        for run in &runs {
            self.add_down(run.part, lane, Refusal::NodeDown);
        }
        self.close(&runs);
    }

    /// The lane is not used any more, and nothing is in it: only its memory is left.
    pub fn retire_lane(&mut self, lane: u16) {
        let one = &mut self.lanes[usize::from(lane)];
        assert!(
            one.parked.is_empty() && !one.lane.has_frames_to_send(),
            "its parts went elsewhere"
        );
        one.is_down = true;
        one.lane = Lane::new(0);
    }

    /// A lane that was retired leads to another `node_shard` from now on, which is down.
    pub fn reuse_lane(&mut self, lane: u16, node_shard: u32) {
        let one = &mut self.lanes[usize::from(lane)];
        assert!(one.is_down && one.lane.held_bytes() == Lane::new(0).held_bytes(), "retired");
        one.lane = Lane::new(node_shard);
    }

    /// Whether no sample goes this way now.
    pub fn is_lane_down(&self, lane: u16) -> bool {
        self.lanes[usize::from(lane)].is_down
    }

    /// Samples that waited for the new placement wait no longer.
    pub fn refuse_parked(&mut self, lane: u16) {
        let runs = std::mem::take(&mut self.lanes[usize::from(lane)].parked);
        self.refuse(lane, &runs, Refusal::StaleEpoch);
    }

    /// A series left the node in this process, and its id with it. Only while there are no frames
    /// to send: they could name it.
    pub fn handle_left(&mut self, lane: u16, hash: SeriesHash, id: SeriesId) {
        self.lane_mut(lane).handle_left(hash, id);
    }

    /// The lane.
    pub fn lane(&self, lane: u16) -> &Lane {
        &self.lanes[usize::from(lane)].lane
    }

    /// The lane, for what concerns no part.
    pub fn lane_mut(&mut self, lane: u16) -> &mut Lane {
        &mut self.lanes[usize::from(lane)].lane
    }

    /// Whether samples wait for a placement newer than the one that is followed.
    pub fn has_parked(&self, lane: u16) -> bool {
        !self.lanes[usize::from(lane)].parked.is_empty()
    }

    /// The next part whose samples are all durable or refused.
    pub fn poll_answer(&mut self) -> Option<PartAnswer> {
        self.answers.pop_front()
    }

    /// Whether nothing waits here: no sample without an ack, no answer.
    pub fn is_idle(&self) -> bool {
        self.parts.is_empty() && self.answers.is_empty()
    }

    /// Whether the lanes that a hint for `node` may take are at most half full: the rest is for
    /// live samples.
    pub fn has_room_for_hint(&self, node: NodeId) -> bool {
        let is_free = |one: &OwnerLane| {
            let is_empty = !one.lane.has_frames_to_send() && one.lane.frames_waiting().1 == 0;
            is_empty || one.lane.held_bytes() <= self.lane_bytes_max / 2
        };
        match self.route.lanes_to(node) {
            None => self.lanes.iter().all(is_free),
            Some(lanes) => {
                let lane = |lane: &u16| self.lanes.get(usize::from(*lane));
                lanes.iter().filter_map(lane).all(is_free)
            }
        }
    }

    /// The placement that is followed; 0 without one.
    pub fn epoch(&self) -> u64 {
        self.route.epoch()
    }

    /// Lanes, in use or not.
    pub fn lane_count(&self) -> u16 {
        u16::try_from(self.lanes.len()).expect("fewer lanes than 65,536")
    }

    /// Frames that wait for room, and frames without an ack, of all lanes.
    pub fn frames_waiting(&self) -> (u64, u64) {
        let lanes = self.lanes.iter().map(|one| one.lane.frames_waiting());
        lanes.fold((0, 0), |(ready, sent), (more, more_sent)| (ready + more, sent + more_sent))
    }

    /// Puts the samples of an open part into the lanes of its series.
    fn gather_part(&mut self, key: PartKey) {
        if self.lanes.is_empty() {
            let part = self.parts.get_mut(key);
            let samples = 0..part.sample_count();
            return part.refuse(samples, Refusal::NoPlacement);
        }
        if self.route.is_single() {
            let lane = &mut self.lanes[0].lane;
            return lane.gather(&mut self.parts, (key, None), &(0..u32::MAX), &self.label_limits);
        }
        self.split_part(key);
        if !self.behind.is_empty() {
            self.note_behind(key);
        }
        let may_hint = self.may_hint(key, Refusal::Overloaded);
        for lane in 0..self.lane_count() {
            let one = &mut self.lanes[usize::from(lane)];
            match self.split[usize::from(lane)].as_slice() {
                [] => {}
                _ if one.is_down => self.add_down(key, lane, Refusal::NodeDown),
                _ if may_hint && one.lane.held_bytes() > self.lane_bytes_max => {
                    self.add_down(key, lane, Refusal::Overloaded);
                }
                series if one.lane.held_bytes() > self.lane_bytes_max => {
                    let part = self.parts.get_mut(key);
                    for &index in series {
                        part.refuse(part.batch.samples_of(index as usize), Refusal::Overloaded);
                    }
                }
                series => {
                    let series = (key, Some(series));
                    one.lane.gather(&mut self.parts, series, &(0..u32::MAX), &self.label_limits);
                }
            }
        }
    }

    /// Fills `split` with the part's series by lane.
    fn split_part(&mut self, key: PartKey) {
        self.split.resize_with(self.lanes.len(), Vec::new);
        self.split.iter_mut().for_each(Vec::clear);
        let part = self.parts.get(key);
        let (tenant, batch, bytes) = (part.tenant, &part.batch, &part.bytes);
        let Some(node) = part.hint.map(|hint| hint.node) else {
            return self.route.split(tenant, batch, bytes, &mut self.split);
        };
        // Of one that the placement does not have any more: to whoever owns its series now.
        let has_left = self.behind.find(node).is_some_and(|behind| behind.has_left);
        if has_left || !self.route.split_to_node(node, batch, &mut self.split) {
            self.route.split_and_to_node(node, (tenant, batch, bytes), &mut self.split);
        }
    }

    /// Makes frames anew of what a lane holds.
    fn rebuild(&mut self, lane: u16, of: RunsOf) {
        let runs = self.lane_mut(lane).take_runs(of);
        for run in &runs {
            let wanted = run.ordinals();
            if of == RunsOf::AllFrames {
                // The node may have them, and newer ones: it must not call them late now.
                self.parts.get_mut(run.part).lateness = Lateness::Backfill;
            }
            let place = usize::from(lane);
            if self.route.is_single() {
                let one = &mut self.lanes[place].lane;
                one.gather(&mut self.parts, (run.part, None), &wanted, &self.label_limits);
            } else {
                self.split_part(run.part);
                let (one, series) = (&mut self.lanes[place].lane, &self.split[place]);
                one.gather(&mut self.parts, (run.part, Some(series)), &wanted, &self.label_limits);
            }
        }
        self.close(&runs);
    }

    fn rebuild_if_wanted(&mut self, lane: u16) {
        if self.lane(lane).wants_rebuild() {
            self.rebuild(lane, RunsOf::FramesToSend);
        }
    }

    /// A run is durable but for what the node `refused` of it. Looks up once where its samples are:
    /// a frame may be refused whole, sample by sample.
    fn handle_run_acked(
        &mut self,
        lane: u16,
        run: &PartRun,
        (refused, one_is_enough): (&[RefusedSample], bool),
    ) {
        let places = self.samples_of(lane, run).into_iter().flatten();
        let mut refused = refused.iter().peekable();
        let mut covered: Vec<Range<u32>> = Vec::new();
        for (index, place) in (run.start..run.end).zip(places) {
            match refused.next_if(|sample| sample.index == index) {
                Some(sample) if sample.reason == Refusal::UnknownSeries => {
                    let first = run.first + (index - run.start);
                    let one = PartRun { first, start: index, end: index + 1, ..*run };
                    self.send_with_labels(lane, one, place);
                }
                Some(sample) if self.may_hint(run.part, sample.reason) => {
                    self.add_down(run.part, lane, sample.reason);
                }
                Some(sample) => {
                    self.parts.get_mut(run.part).refuse(place..place + 1, sample.reason);
                }
                None if !one_is_enough => {}
                None => match covered.last_mut() {
                    Some(last) if last.end == place => last.end += 1,
                    _ => covered.push(place..place + 1),
                },
            }
        }
        if one_is_enough {
            // An answer lets the next request in, but the hint still holds memory.
            let waits = !self.parts.get(run.part).making.is_empty()
                && self.hinting_bytes > self.lane_bytes_max;
            self.parts.cover(run.part, &covered);
            self.answers.extend((!waits).then(|| self.parts.answer_covered(run.part)).flatten());
        }
    }

    /// The node does not know a series by its id: one sample, to be sent again with the labels.
    fn send_with_labels(&mut self, lane: u16, run: PartRun, place: u32) {
        let part = self.parts.get(run.part);
        let index = part.batch.sample_end.partition_point(|end| *end <= place);
        let hash = part.batch.hash[index];
        if self.lane_mut(lane).handle_unknown(hash, run) {
            self.parts.open_run(run.part);
        }
    }

    fn refuse(&mut self, lane: u16, runs: &[PartRun], reason: Refusal) {
        for run in runs {
            if self.may_hint(run.part, reason) {
                self.add_down(run.part, lane, reason);
            } else {
                self.refuse_run(lane, run, reason);
            }
        }
        self.close(runs);
    }

    fn refuse_run(&mut self, lane: u16, run: &PartRun, reason: Refusal) {
        for samples in self.samples_of(lane, run) {
            self.parts.get_mut(run.part).refuse(samples, reason);
        }
    }

    /// The places in the part's columns of a run's samples.
    fn samples_of(&mut self, lane: u16, run: &PartRun) -> Vec<Range<u32>> {
        let wanted = run.ordinals();
        if self.route.is_single() {
            return vec![wanted];
        }
        self.split_part(run.part);
        let part = self.parts.get(run.part);
        let mut ordinal = 0;
        let mut found = Vec::new();
        for &index in &self.split[usize::from(lane)] {
            let samples = part.batch.samples_of(index as usize);
            let places = wanted_of(&samples, ordinal, &wanted);
            if !places.is_empty() {
                found.push(places);
            }
            ordinal += samples.end - samples.start;
        }
        found
    }

    fn close(&mut self, runs: &[PartRun]) {
        for run in runs {
            self.parts.close_run(run.part);
        }
        self.settle();
    }

    /// Answers the parts of which no lane holds a sample any more, and which no owner lacks.
    fn settle(&mut self) {
        loop {
            if let Some(key) = self.parts.poll_settled() {
                if !self.holds_short(key) {
                    self.finish(key);
                }
            } else if let Some(key) = self.next_short() {
                if !self.settle_short(key) {
                    self.finish(key);
                }
            } else {
                return;
            }
        }
    }

    fn finish(&mut self, key: PartKey) {
        match self.parts.finish(key) {
            Finished::Answer(answer) => self.answers.push_back(answer),
            Finished::Hint(hint, refused) => {
                let by_us = |(reason, _): (Refusal, u64)| reason.blame() == Blame::Server;
                let is_done = !refused.iter().any(by_us);
                self.delivered.push_back(Delivered { hint, is_done, refused });
            }
            Finished::Nothing => {}
        }
    }
}

/// What the node refused of a run, and takes it out of `refused`, which ascends.
fn refused_of(
    run: &PartRun,
    refused: &mut std::slice::Iter<'_, RefusedSample>,
) -> Vec<RefusedSample> {
    let rest = refused.as_slice();
    let start = rest.partition_point(|sample| sample.index < run.start);
    let end = rest.partition_point(|sample| sample.index < run.end);
    *refused = rest[end..].iter();
    rest[start..end].to_vec()
}

#[cfg(test)]
pub(in crate::gateway) mod fleet_tests;
#[cfg(test)]
mod tests;
