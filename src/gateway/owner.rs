//! The shard that owns a slice of the slots: parts of requests in, frames for the node out, acks
//! in, answers out.
//!
//! Resolves each series to the id that its node gave; a series without one travels with its labels,
//! so a miss costs no round trip. Frames gather whatever arrives until the caller takes one.
//! Nothing is allocated per sample or known series.
//! Not here: who the node is and how frames reach it (the shard loop), and the request itself
//! (`requests`).

use crate::gateway::part::{Lateness, Part, PartAnswer, RequestKey};
use crate::gateway::request::{RequestBytes, SeriesBatch};
use crate::gateway::table::SeriesTable;
use crate::model::labels::{LabelLimits, check_grammar};
use crate::model::refusal::{Refusal, RefusalCounts};
use crate::model::series::{SeriesHash, SeriesId, TenantId};
use crate::wire::ack::Ack;
use crate::wire::frame::{FLAG_BACKFILL, FRAME_BYTES_MAX, PAYLOAD_ALIGN};
use crate::wire::write::{NEW_SERIES_BYTES, SAMPLE_BYTES, WritePayload};
use hashbrown::{HashMap, HashSet};
use rkyv::util::AlignedVec;
use std::collections::VecDeque;
use std::ops::Range;

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

/// The owner half of a gateway shard.
pub struct Owner {
    node_shard: u32,
    label_limits: LabelLimits,
    table: SeriesTable,
    /// Series that left while frames are in flight, whose acks may still give their ids...
    left: HashSet<SeriesId>,
    /// ...up to this sequence.
    left_until: u64,
    gather: Gather,
    ready: VecDeque<Frame>,
    in_flight: VecDeque<FrameTrace>,
    parts: Vec<PartState>,
    parts_free: Vec<u32>,
    answers: VecDeque<PartAnswer>,
    spare: Vec<AlignedVec<PAYLOAD_ALIGN>>,
    next_sequence: u64,
}

/// A sealed frame that no node has taken yet.
pub struct Frame {
    /// Header and payload.
    pub bytes: AlignedVec<PAYLOAD_ALIGN>,
    trace: FrameTrace,
}

/// What must be known of a frame when its ack comes.
#[derive(Default)]
struct FrameTrace {
    sequence: u64,
    new_series: Vec<SeriesHash>,
    /// In sample order: up to `sample_end` the samples are those of `part`.
    runs: Vec<PartRun>,
}

#[derive(Clone, Copy)]
struct PartRun {
    part: u32,
    sample_end: u32,
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

/// A part between its arrival and its answer.
#[derive(Default)]
struct PartState {
    request: Option<RequestKey>,
    /// Frames that hold samples of it and are not acked yet, and one more while it is being
    /// gathered.
    frames_left: u32,
    refused: RefusalCounts,
    first_refusal: Option<Refusal>,
    batch: SeriesBatch,
}

impl Owner {
    /// An owner that knows no series yet and sends to `node_shard`.
    pub fn new(node_shard: u32, label_limits: LabelLimits) -> Self {
        Self {
            node_shard,
            label_limits,
            table: SeriesTable::default(),
            left: HashSet::new(),
            left_until: 0,
            gather: Gather::empty(),
            ready: VecDeque::new(),
            in_flight: VecDeque::new(),
            parts: Vec::new(),
            parts_free: Vec::new(),
            answers: VecDeque::new(),
            spare: Vec::new(),
            next_sequence: 1,
        }
    }

    /// Takes in a part. Its samples leave with the next frames; its answer comes by
    /// [`Owner::poll_answer`].
    ///
    /// Memory is bounded by the caller, which admits only so many bytes of requests at a time.
    pub fn handle_part(&mut self, part: Part) {
        let Part { request, tenant, lateness, batch, bytes } = part;
        if lateness != self.gather.lateness {
            self.seal_gather();
            self.gather.lateness = lateness;
        }
        let key = self.open_part(request);
        self.gather_batch(key, tenant, &batch, &bytes);
        drop(bytes);
        let state = &mut self.parts[key as usize];
        state.batch = batch;
        self.close_frame_of(key);
    }

    /// The next frame for the node, if any sample waits. Give it back by one of the
    /// `handle_frame_*`.
    pub fn poll_frame(&mut self) -> Option<Frame> {
        if self.ready.is_empty() {
            self.seal_gather();
        }
        self.ready.pop_front()
    }

    /// As [`Owner::poll_frame`], but only a frame to which nothing more will be added.
    pub fn poll_full_frame(&mut self) -> Option<Frame> {
        self.ready.pop_front()
    }

    /// The node took `frame`: its ack will follow.
    pub fn handle_frame_taken(&mut self, frame: Frame) {
        self.in_flight.push_back(frame.trace);
        if self.spare.len() < SPARE_FRAMES_MAX {
            self.spare.push(frame.bytes);
        }
    }

    /// The node has no room now: the same frame comes first again.
    pub fn handle_frame_delayed(&mut self, frame: Frame) {
        self.ready.push_front(frame);
    }

    /// The node will not take `frame`: all of its samples are refused for `reason`.
    pub fn handle_frame_refused(&mut self, frame: Frame, reason: Refusal) {
        self.refuse_trace(&frame.trace, reason);
        if self.spare.len() < SPARE_FRAMES_MAX {
            self.spare.push(frame.bytes);
        }
    }

    /// The node's log failed: what is in flight will never be acked and is refused for `reason`.
    pub fn handle_node_failed(&mut self, reason: Refusal) {
        while let Some(trace) = self.in_flight.pop_front() {
            self.refuse_trace(&trace, reason);
        }
    }

    /// A frame is durable. Acks come in sequence order.
    pub fn handle_ack(&mut self, ack: &Ack) {
        let trace = self.in_flight.pop_front().expect("an ack follows a frame that was taken");
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
        if ack.refused.iter().any(|sample| sample.reason == Refusal::UnknownSeries) {
            // Which of the ids it was that the node does not know, nobody says. A retry finds none
            // and brings the labels.
            self.table.clear();
        }
        let mut refused = ack.refused.iter().peekable();
        for run in &trace.runs {
            let state = &mut self.parts[run.part as usize];
            while let Some(sample) = refused.next_if(|sample| sample.index < run.sample_end) {
                state.refuse(sample.reason, 1);
            }
        }
        for run in &trace.runs {
            self.close_frame_of(run.part);
        }
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

    /// Whether samples wait to be sent: gathered, or in frames that found no room.
    pub fn has_frames_to_send(&self) -> bool {
        !self.ready.is_empty() || !self.gather.payload.series.is_empty()
    }

    /// The next part whose samples are all durable or refused.
    pub fn poll_answer(&mut self) -> Option<PartAnswer> {
        self.answers.pop_front()
    }

    /// Whether nothing waits here: no sample without an ack, no answer.
    pub fn is_idle(&self) -> bool {
        self.parts.len() == self.parts_free.len() && self.answers.is_empty()
    }

    /// Series with an id.
    pub fn series_count(&self) -> u64 {
        self.table.len() as u64
    }

    /// Memory of the series table.
    pub fn table_bytes(&self) -> u64 {
        self.table.memory_bytes()
    }

    /// Frames that wait for room at the node, and frames without an ack.
    pub fn frames_waiting(&self) -> (u64, u64) {
        (self.ready.len() as u64, self.in_flight.len() as u64)
    }

    fn open_part(&mut self, request: RequestKey) -> u32 {
        let key = self.parts_free.pop().unwrap_or_else(|| {
            self.parts.push(PartState::default());
            u32::try_from(self.parts.len() - 1).expect("fewer parts than requests")
        });
        let state = &mut self.parts[key as usize];
        state.request = Some(request);
        state.frames_left = 1;
        state.refused = RefusalCounts::default();
        state.first_refusal = None;
        key
    }

    /// One frame less holds samples of `part`; the last one answers it.
    fn close_frame_of(&mut self, part: u32) {
        let state = &mut self.parts[part as usize];
        state.frames_left -= 1;
        if state.frames_left > 0 {
            return;
        }
        let request = state.request.take().expect("open until its last frame");
        self.answers.push_back(PartAnswer {
            request,
            refused: state.refused,
            first_refusal: state.first_refusal,
            batch: std::mem::take(&mut state.batch),
        });
        self.parts_free.push(part);
    }

    fn refuse_trace(&mut self, trace: &FrameTrace, reason: Refusal) {
        let mut start = 0;
        for run in &trace.runs {
            let samples = u64::from(run.sample_end - start);
            self.parts[run.part as usize].refuse(reason, samples);
            start = run.sample_end;
            self.close_frame_of(run.part);
        }
    }

    /// Appends the samples of `batch` to the gathered columns, sealing a frame whenever one is
    /// full.
    fn gather_batch(
        &mut self,
        part: u32,
        tenant: TenantId,
        batch: &SeriesBatch,
        bytes: &RequestBytes,
    ) {
        // Samples from `copied` on have their series entry, but are not in the other columns yet:
        // those are copied a stretch at a time, which is the whole part unless a series is refused
        // or a frame is full.
        let mut copied = 0;
        let mut start = 0;
        let mut ids = [None; FOUND_TOGETHER];
        for (index, &hash) in batch.hash.iter().enumerate() {
            let end = batch.sample_end[index] as usize;
            let place = index % FOUND_TOGETHER;
            if place == 0 {
                self.table.find_each(&batch.hash[index..], &mut ids);
            }
            let new = match self.resolve(ids[place], || bytes.labels(batch.labels[index])) {
                Ok(new) => new,
                Err(reason) => {
                    self.copy_samples(part, batch, copied..start);
                    self.parts[part as usize].refuse(reason, (end - start) as u64);
                    (copied, start) = (end, end);
                    continue;
                }
            };
            while start < end {
                let room = self.gather.sample_room(&new);
                if room == 0 {
                    self.copy_samples(part, batch, copied..start);
                    copied = start;
                    self.seal_gather();
                    continue;
                }
                let count = room.min(end - start);
                self.gather.push_entries(tenant, hash, &new, count);
                start += count;
            }
        }
        self.copy_samples(part, batch, copied..start);
    }

    /// How a series is named in a frame; its labels are looked at only if it has no id.
    #[inline]
    fn resolve<'a>(
        &self,
        id: Option<SeriesId>,
        labels: impl FnOnce() -> &'a [u8],
    ) -> Result<Resolved<'a>, Refusal> {
        if let Some(id) = id {
            return Ok(Resolved::Known(id.0));
        }
        let labels = labels();
        // Known series passed this when they were new: the same hash is the same bytes.
        check_grammar(labels, &self.label_limits)?;
        Ok(Resolved::New(labels))
    }

    /// Copies samples whose series entries are in the frame already, and notes whose they are.
    fn copy_samples(&mut self, part: u32, batch: &SeriesBatch, samples: Range<usize>) {
        if samples.is_empty() {
            return;
        }
        let payload = &mut self.gather.payload;
        payload.timestamp_ms.extend_from_slice(&batch.timestamp_ms[samples.clone()]);
        payload.value.extend_from_slice(&batch.value[samples]);
        assert!(payload.value.len() == payload.series.len());
        let sample_end = u32::try_from(payload.series.len()).expect("a frame is below 4 MiB");
        let runs = &mut self.gather.trace.runs;
        match runs.last_mut() {
            Some(run) if run.part == part => run.sample_end = sample_end,
            _ => {
                runs.push(PartRun { part, sample_end });
                self.parts[part as usize].frames_left += 1;
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
        let numbers = (sequence, flags);
        let bytes = self.gather.payload.encode_frame(numbers, self.node_shard, memory);
        let mut trace = std::mem::take(&mut self.gather.trace);
        trace.sequence = sequence;
        self.gather.clear();
        self.ready.push_back(Frame { bytes, trace });
    }
}

/// A series as a frame will name it.
enum Resolved<'a> {
    Known(u32),
    New(&'a [u8]),
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

    /// Appends `count` entries of the series column; the other columns follow by `copy_samples`.
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

impl PartState {
    fn refuse(&mut self, reason: Refusal, samples: u64) {
        self.refused.add(reason, samples);
        self.first_refusal.get_or_insert(reason);
    }
}

// A series of the longest labels and one sample always fits an empty frame, so gathering makes
// progress.
const _: () = assert!(LABELS_BYTES_LIMIT + 1024 <= FRAME_BYTES_MAX);

#[cfg(test)]
mod tests;
