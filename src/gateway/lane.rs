//! The way to one node shard: samples in, frames out, acks in.
//!
//! Resolves each series to the id that the node gave; a series without one travels with its labels,
//! so a miss costs no round trip. Frames gather whatever arrives until the caller takes one.
//! Nothing is allocated per sample or known series. What a frame held is remembered as *runs* until
//! its ack, so that samples can be made into another frame: the order per series is kept.
//! Not here: which series go this way (`route`), and how frames reach the node.

use std::collections::VecDeque;
use std::ops::Range;

use hashbrown::{HashMap, HashSet};
use rkyv::util::AlignedVec;

use crate::gateway::part::Lateness;
use crate::gateway::parts::{OpenPart, PartKey, Parts};
use crate::gateway::table::SeriesTable;
use crate::model::labels::{LabelLimits, check_grammar};
use crate::model::refusal::Refusal;
use crate::model::series::{SeriesHash, SeriesId, TenantId};
use crate::wire::ack::Ack;
use crate::wire::frame::{FLAG_BACKFILL, FRAME_BYTES_MAX, PAYLOAD_ALIGN};
use crate::wire::write::{NEW_SERIES_BYTES, SAMPLE_BYTES, WriteAddress, WritePayload};

/// What `labels-bytes-max` may be set to at most.
pub const LABELS_BYTES_LIMIT: usize = 1 << 20;
/// A frame is sealed when it holds this much, so that it is still in the cache when the node half
/// copies it (BENCHMARKS.md, "what changes were worth"). One sample of a series with
/// long labels may be more.
const FRAME_BYTES_GATHERED: usize = 192 << 10;
/// Series looked up together, before the first of them is put into the frame: a table of a million
/// is not in the cache.
const FOUND_TOGETHER: usize = 32;
/// Frame buffers kept for the next frame; more are freed, so that a burst does not stay in memory.
const SPARE_FRAMES_MAX: usize = 4;

/// A lane.
#[derive(Default)]
pub struct Lane {
    node_shard: u32,
    epoch: u64,
    id_space: u64,
    table: SeriesTable,
    /// Series that left while frames are in flight, whose acks may still give their ids...
    left: HashSet<SeriesId>,
    /// ...up to this sequence.
    left_until: u64,
    gather: Gather,
    ready: VecDeque<Frame>,
    in_flight: VecDeque<FrameTrace>,
    /// What the node did not know by its id, oldest first. While there is some, no frame leaves;
    /// with the last ack everything that waits is made into frames again.
    unknown: Vec<PartRun>,
    spare: Vec<AlignedVec<PAYLOAD_ALIGN>>,
    next_sequence: u64,
    waiting_bytes: u64,
    in_flight_bytes: u64,
}

/// A sealed frame that no node has taken yet.
pub struct Frame {
    /// Header and payload.
    pub bytes: AlignedVec<PAYLOAD_ALIGN>,
    trace: FrameTrace,
}

/// What must be known of a frame when its ack comes.
#[derive(Default)]
pub struct FrameTrace {
    sequence: u64,
    new_series: Vec<SeriesHash>,
    samples: u32,
    len_bytes: u64,
    runs: Vec<PartRun>,
}

/// A stretch of a part's samples in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRun {
    /// Whose.
    pub part: PartKey,
    /// The first of them, counted over the samples of the part that go this lane.
    pub first: u32,
    /// Where they are in the frame.
    pub start: u32,
    /// Exclusive.
    pub end: u32,
}

/// The columns of the next frame.
#[derive(Default)]
struct Gather {
    payload: WritePayload,
    len_bytes_max: usize,
    /// New series of this frame, so that each travels once: hash -> entry of the series column.
    new_series: HashMap<SeriesHash, u32>,
    trace: FrameTrace,
    /// A frame's samples are all of one kind.
    lateness: Lateness,
}

/// A part's samples on their way into frames.
struct Gathering<'a> {
    key: PartKey,
    part: &'a mut OpenPart,
    runs_opened: u32,
}

/// A series as a frame will name it.
enum Resolved<'a> {
    Known(u32),
    New(&'a [u8]),
}

impl Frame {
    /// New series that it brings.
    pub fn new_series_count(&self) -> u32 {
        u32::try_from(self.trace.new_series.len()).expect("a frame is below 4 MiB")
    }

    /// Samples in it.
    pub fn sample_count(&self) -> u32 {
        self.trace.samples
    }
}

impl PartRun {
    /// Its samples, counted as `first` is.
    pub fn ordinals(&self) -> Range<u32> {
        self.first..self.first + (self.end - self.start)
    }
}

impl Lane {
    /// A lane to `node_shard` that knows no series yet.
    pub fn new(node_shard: u32) -> Self {
        Self { node_shard, gather: Gather::empty(), next_sequence: 1, ..Self::default() }
    }

    /// Adds samples of a part: of the series at `series` (all of them without), those whose number
    /// among the samples of these series is in `wanted`.
    pub fn gather(
        &mut self,
        parts: &mut Parts,
        (key, series): (PartKey, Option<&[u32]>),
        wanted: &Range<u32>,
        limits: &LabelLimits,
    ) {
        // Taken out and put back, so that columns are read while runs are counted.
        let mut part = std::mem::take(parts.get_mut(key));
        if part.lateness != self.gather.lateness {
            self.seal_gather();
            self.gather.lateness = part.lateness;
        }
        let mut gathering = Gathering { key, part: &mut part, runs_opened: 0 };
        match series {
            None => {
                let count = gathering.part.batch.len();
                self.gather_series(&mut gathering, (count, |place| place), wanted, limits);
            }
            Some(series) => {
                let index_of = |place: usize| series[place] as usize;
                self.gather_series(&mut gathering, (series.len(), index_of), wanted, limits);
            }
        }
        let runs_opened = gathering.runs_opened;
        *parts.get_mut(key) = part;
        for _ in 0..runs_opened {
            parts.open_run(key);
        }
    }

    /// The next frame for the node, if any sample waits. Give it back by one of the
    /// `handle_frame_*`.
    pub fn poll_frame(&mut self) -> Option<Frame> {
        if !self.unknown.is_empty() {
            return None;
        }
        if self.ready.is_empty() {
            self.seal_gather();
        }
        self.poll_full_frame()
    }

    /// As [`Lane::poll_frame`], but only a frame to which nothing more will be added.
    pub fn poll_full_frame(&mut self) -> Option<Frame> {
        if !self.unknown.is_empty() {
            return None;
        }
        let frame = self.ready.pop_front()?;
        self.waiting_bytes -= frame.bytes.len() as u64;
        Some(frame)
    }

    /// The node took `frame`: its ack will follow.
    pub fn handle_frame_taken(&mut self, frame: Frame) {
        self.in_flight_bytes += frame.trace.len_bytes;
        self.in_flight.push_back(frame.trace);
        self.keep_memory(frame.bytes);
    }

    /// A link took the frame's bytes: its ack will follow.
    pub fn handle_frame_sent(&mut self, frame: Frame) -> AlignedVec<PAYLOAD_ALIGN> {
        self.in_flight_bytes += frame.trace.len_bytes;
        self.in_flight.push_back(frame.trace);
        frame.bytes
    }

    /// The node has no room now: the same frame comes first again.
    pub fn handle_frame_delayed(&mut self, frame: Frame) {
        self.waiting_bytes += frame.bytes.len() as u64;
        self.ready.push_front(frame);
    }

    /// The node will not take `frame`; its runs.
    pub fn handle_frame_refused(&mut self, frame: Frame) -> Vec<PartRun> {
        self.keep_memory(frame.bytes);
        frame.trace.runs
    }

    /// The oldest frame in flight was refused by the node; its runs.
    pub fn handle_refused(&mut self, sequence: u64) -> Vec<PartRun> {
        let trace = self.in_flight.pop_front().expect("an answer follows a frame that was taken");
        self.in_flight_bytes -= trace.len_bytes;
        assert!(trace.sequence == sequence, "answers come in sequence order");
        trace.runs
    }

    /// A frame is durable. Acks come in sequence order. Learns the ids; the runs are the caller's
    /// to close.
    pub fn handle_ack(&mut self, ack: &Ack) -> Vec<PartRun> {
        let trace = self.in_flight.pop_front().expect("an ack follows a frame that was taken");
        self.in_flight_bytes -= trace.len_bytes;
        assert!(trace.sequence == ack.sequence, "acks come in sequence order");
        assert!(trace.new_series.len() == ack.assigned.len(), "one id per new series");
        for (hash, assigned) in trace.new_series.iter().zip(&ack.assigned) {
            if let Ok(id) = assigned
                && !(ack.sequence <= self.left_until && self.left.contains(id))
            {
                self.table.insert(*hash, *id);
            }
        }
        if ack.sequence >= self.left_until {
            self.left.clear();
        }
        trace.runs
    }

    /// The node does not know `hash` by its id: the run's samples travel again, with labels.
    /// Whether they are a run of their own that stays open, not the end of the one before.
    pub fn handle_unknown(&mut self, hash: SeriesHash, run: PartRun) -> bool {
        if let Some(id) = self.table.find(hash) {
            self.table.remove(hash, id);
        }
        match self.unknown.last_mut() {
            Some(last) if last.part == run.part && last.ordinals().end == run.first => {
                last.end += run.end - run.start;
                false
            }
            _ => {
                self.unknown.push(run);
                true
            }
        }
    }

    /// Whether samples wait for their labels, and no ack is to come before.
    pub fn wants_rebuild(&self) -> bool {
        !self.unknown.is_empty() && self.in_flight.is_empty()
    }

    /// A series left the node, and its id with it. Only while there are no frames to send: they
    /// could name it.
    pub fn handle_left(&mut self, hash: SeriesHash, id: SeriesId) {
        assert!(!self.has_frames_to_send(), "a frame that was made names what was known");
        self.table.remove(hash, id);
        if let Some(newest) = self.in_flight.back() {
            // The ack of a frame that brought the series' labels would make the id known again.
            self.left.insert(id);
            self.left_until = newest.sequence;
        }
    }

    /// Takes all runs out, oldest first. Frames that were made are gone, the sequence goes on as if
    /// they had never been.
    pub fn take_runs(&mut self, of: RunsOf) -> Vec<PartRun> {
        let mut runs = std::mem::take(&mut self.unknown);
        if of == RunsOf::AllFrames {
            for trace in self.in_flight.drain(..) {
                runs.extend(trace.runs);
            }
            self.in_flight_bytes = 0;
            self.next_sequence = 1;
            self.left.clear();
            self.left_until = 0;
        }
        self.next_sequence -= self.ready.len() as u64 * u64::from(of == RunsOf::FramesToSend);
        while let Some(frame) = self.ready.pop_front() {
            runs.extend_from_slice(&frame.trace.runs);
            self.keep_memory(frame.bytes);
        }
        runs.append(&mut self.gather.trace.runs);
        self.gather.clear();
        self.waiting_bytes = 0;
        runs
    }

    /// Runs of frames in flight mean nothing any more: their acks only teach ids. Appends the runs.
    pub fn void_in_flight(&mut self, runs: &mut Vec<PartRun>) {
        for trace in &mut self.in_flight {
            runs.append(&mut trace.runs);
        }
    }

    /// The node's ids are those of `id_space` from now on.
    pub fn set_id_space(&mut self, id_space: u64) {
        if std::mem::replace(&mut self.id_space, id_space) != id_space {
            self.forget_ids();
        }
    }

    /// The node's ids are others now.
    pub fn forget_ids(&mut self) {
        self.table = SeriesTable::default();
    }

    /// Forgets ids that were not looked for since this was called before.
    pub fn age_ids(&mut self) {
        self.table.age();
    }

    /// The placement that frames follow from now on.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Remembers ids that the node told without being asked, if they are those that frames name.
    pub fn learn(&mut self, id_space: u64, ids: &[(SeriesHash, SeriesId)]) {
        if self.id_space == 0 {
            self.id_space = id_space;
        }
        if self.id_space == id_space {
            for (hash, id) in ids {
                self.table.insert(*hash, *id);
            }
        }
    }

    /// Keeps memory for another frame.
    pub fn keep_memory(&mut self, memory: AlignedVec<PAYLOAD_ALIGN>) {
        if self.spare.len() < SPARE_FRAMES_MAX {
            self.spare.push(memory);
        }
    }

    /// Whether samples wait to be sent: gathered, or in frames that found no room.
    pub fn has_frames_to_send(&self) -> bool {
        !self.ready.is_empty() || !self.gather.payload.series.is_empty() || !self.unknown.is_empty()
    }

    /// Bytes of frames without an answer, sent or not, about.
    pub fn held_bytes(&self) -> u64 {
        self.waiting_bytes + self.in_flight_bytes + self.gather.len_bytes_max as u64
    }

    /// Series with an id.
    pub fn series_count(&self) -> u64 {
        self.table.len() as u64
    }

    /// Frames that wait for room at the node, and frames without an ack.
    pub fn frames_waiting(&self) -> (u64, u64) {
        (self.ready.len() as u64, self.in_flight.len() as u64)
    }

    fn gather_series(
        &mut self,
        gathering: &mut Gathering<'_>,
        (count, index_of): (usize, impl Fn(usize) -> usize),
        wanted: &Range<u32>,
        limits: &LabelLimits,
    ) {
        // Samples of `stretch` have their series entry, but are not in the other columns yet: those
        // are copied a stretch at a time, which is the whole part unless series go other ways, one
        // is refused or a frame is full.
        let mut stretch = Stretch::default();
        let mut ordinal = 0;
        let mut ids = [None; FOUND_TOGETHER];
        for place in 0..count {
            if place % FOUND_TOGETHER == 0 {
                let hashes = &gathering.part.batch.hash;
                // Nothing but lookups, so that the cache misses of one are under way while those of
                // the next begin.
                for (id, place) in ids.iter_mut().zip(place..count) {
                    *id = self.table.find(hashes[index_of(place)]);
                }
            }
            let index = index_of(place);
            let all = gathering.part.batch.samples_of(index);
            let Range { mut start, end } = wanted_of(&all, ordinal, wanted);
            let first = ordinal + (start - all.start);
            ordinal += all.end - all.start;
            if start >= end {
                continue;
            }
            if start != stretch.end {
                self.copy_stretch(gathering, &stretch);
                stretch = Stretch { start, end: start, first };
            }
            let part = &*gathering.part;
            let labels = || part.bytes.labels(part.batch.labels[index]);
            let series = match resolve(ids[place % FOUND_TOGETHER], labels, limits) {
                Ok(series) => series,
                Err(reason) => {
                    self.copy_stretch(gathering, &stretch);
                    gathering.part.refuse(start..end, reason);
                    let first = first + (end - start);
                    stretch = Stretch { start: end, end, first };
                    continue;
                }
            };
            let (tenant, hash) = (part.tenant, part.batch.hash[index]);
            while start < end {
                let room = self.gather.sample_room(&series);
                if room == 0 {
                    self.copy_stretch_of(gathering.key, part, &stretch, &mut gathering.runs_opened);
                    stretch.first += stretch.end - stretch.start;
                    stretch.start = stretch.end;
                    self.seal_gather();
                    continue;
                }
                let count = room.min((end - start) as usize);
                self.gather.push_entries(tenant, hash, &series, count);
                start += u32::try_from(count).expect("a frame is below 4 MiB");
                stretch.end = start;
            }
        }
        self.copy_stretch(gathering, &stretch);
    }

    fn copy_stretch(&mut self, gathering: &mut Gathering<'_>, stretch: &Stretch) {
        let Gathering { key, part, runs_opened } = gathering;
        self.copy_stretch_of(*key, part, stretch, runs_opened);
    }

    /// Copies samples whose series entries are in the frame already, and notes whose they are.
    fn copy_stretch_of(
        &mut self,
        key: PartKey,
        part: &OpenPart,
        stretch: &Stretch,
        runs_opened: &mut u32,
    ) {
        let samples = stretch.start as usize..stretch.end as usize;
        if samples.is_empty() {
            return;
        }
        let payload = &mut self.gather.payload;
        let start = u32::try_from(payload.value.len()).expect("a frame is below 4 MiB");
        payload.timestamp_ms.extend_from_slice(&part.batch.timestamp_ms[samples.clone()]);
        payload.value.extend_from_slice(&part.batch.value[samples]);
        assert!(payload.value.len() == payload.series.len());
        let end = start + (stretch.end - stretch.start);
        let first = stretch.first;
        match self.gather.trace.runs.last_mut() {
            Some(run) if run.part == key && run.ordinals().end == first => run.end = end,
            _ => {
                self.gather.trace.runs.push(PartRun { part: key, first, start, end });
                *runs_opened += 1;
            }
        }
    }

    /// Seals what has gathered into a frame, if anything has.
    fn seal_gather(&mut self) {
        if self.gather.payload.series.is_empty() {
            return;
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let memory = self.spare.pop().unwrap_or_default();
        let flags = match self.gather.lateness {
            Lateness::Window => 0,
            Lateness::Backfill => FLAG_BACKFILL,
        };
        let (shard, epoch, id_space) = (self.node_shard, self.epoch, self.id_space);
        let address = WriteAddress { sequence, flags, shard, epoch, id_space };
        let bytes = self.gather.payload.encode_frame_for(&address, memory);
        let mut trace = std::mem::take(&mut self.gather.trace);
        trace.sequence = sequence;
        trace.samples = trace.runs.last().map_or(0, |run| run.end);
        trace.len_bytes = bytes.len() as u64;
        self.gather.clear();
        self.waiting_bytes += bytes.len() as u64;
        self.ready.push_back(Frame { bytes, trace });
    }
}

/// Of which frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunsOf {
    /// Those that no node has taken.
    FramesToSend,
    /// Those in flight too: the link begins anew.
    AllFrames,
}

/// Samples of a part that lie side by side, and the number of the first.
#[derive(Clone, Copy, Default)]
struct Stretch {
    start: u32,
    end: u32,
    first: u32,
}

/// Those of a series' samples that are `wanted`, by places; `wanted` counts as [`PartRun::first`]
/// does, and the first of `samples` has the number `ordinal` there.
#[inline]
pub fn wanted_of(samples: &Range<u32>, ordinal: u32, wanted: &Range<u32>) -> Range<u32> {
    let place = |number: u32| {
        samples.start + number.saturating_sub(ordinal).min(samples.end - samples.start)
    };
    place(wanted.start)..place(wanted.end)
}

/// How a series is named in a frame; its labels are looked at only if it has no id.
#[inline]
fn resolve<'a>(
    id: Option<SeriesId>,
    labels: impl FnOnce() -> &'a [u8],
    limits: &LabelLimits,
) -> Result<Resolved<'a>, Refusal> {
    if let Some(id) = id {
        return Ok(Resolved::Known(id.0));
    }
    let labels = labels();
    // Known series passed this when they were new: the same hash is the same bytes.
    check_grammar(labels, limits)?;
    Ok(Resolved::New(labels))
}

impl Gather {
    fn empty() -> Self {
        let mut gather = Self::default();
        gather.clear();
        gather
    }

    fn clear(&mut self) {
        self.payload.clear();
        self.new_series.clear();
        self.trace = FrameTrace::default();
        self.len_bytes_max = self.payload.frame_len_bytes_max();
    }

    /// How many samples of this series the frame has room for.
    #[inline]
    fn sample_room(&self, series: &Resolved) -> usize {
        let series_bytes = match series {
            Resolved::Known(_) => 0,
            Resolved::New(labels) => labels.len() + NEW_SERIES_BYTES,
        };
        let used = self.len_bytes_max + series_bytes;
        let limit =
            if self.payload.series.is_empty() { FRAME_BYTES_MAX } else { FRAME_BYTES_GATHERED };
        (limit.saturating_sub(used) / SAMPLE_BYTES).min(FRAME_BYTES_GATHERED / SAMPLE_BYTES)
    }

    /// Appends `count` entries of the series column; the other columns follow by `copy_stretch`.
    #[inline]
    fn push_entries(
        &mut self,
        tenant: TenantId,
        hash: SeriesHash,
        series: &Resolved,
        count: usize,
    ) {
        let entry = match series {
            Resolved::Known(id) => *id,
            Resolved::New(labels) => self.new_series_entry(tenant, hash, labels),
        };
        self.len_bytes_max += count * SAMPLE_BYTES;
        if count == 1 {
            self.payload.series.push(entry);
        } else {
            let len = self.payload.series.len();
            self.payload.series.resize(len + count, entry);
        }
    }

    fn new_series_entry(&mut self, tenant: TenantId, hash: SeriesHash, labels: &[u8]) -> u32 {
        let payload = &mut self.payload;
        *self.new_series.entry(hash).or_insert_with(|| {
            self.len_bytes_max += labels.len() + NEW_SERIES_BYTES;
            self.trace.new_series.push(hash);
            payload.push_new_series(tenant, hash, labels)
        })
    }
}

// A series of the longest labels and one sample always fits an empty frame, so gathering makes
// progress.
const _: () = assert!(LABELS_BYTES_LIMIT + 1024 <= FRAME_BYTES_MAX);
