//! The hints of one node, as a state machine: parts in; writes, loads, removals, records and
//! answers out.
//!
//! One write is under way at a time; what comes meanwhile gathers for the next (group commit). The
//! driver does what `poll_*` asks, in any order, and says how it went.

use std::collections::{BTreeSet, VecDeque};

use crate::model::placement::NodeId;

use super::HintPart;
use super::record::{Encoder, Progress, RecordNumbers};
use super::replay::{HintNumber, HintRecord, Place, Replay};
use super::segment::{
    BLOCK_BYTES, LoadedSegment, SEGMENT_BYTES_MAX, SegmentHeader, SegmentTally, record_seed,
};

/// A group is written once it is this long, or nothing else waits.
const GROUP_BYTES_GATHERED: usize = 8 << 20;
/// What the disk refused to read or remove is tried again after.
const RETRY_AFTER_MS: i64 = 5_000;
/// The labels of a series may take this part of a segment.
const LABELS_PER_SEGMENT: u64 = 4;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintLimits {
    /// Bytes on the disk for one node.
    pub node_bytes_max: u64,
    /// Bytes on the disk for all nodes.
    pub bytes_max: u64,
    /// New hints for a node are refused while the oldest one is older, milliseconds.
    pub age_max_ms: i64,
    /// Bytes of a segment: whole blocks, at most 1 GiB.
    pub segment_bytes: u64,
}

/// Names an append: who is answered, and what they call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintTicket {
    /// The gateway shard that asked.
    pub shard: u32,
    /// Its own number for it.
    pub number: u64,
}

/// Why a hint was not taken. The client is told 503: it, or another gateway, may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintRefusal {
    /// `hint-bytes-max` is reached, for the node or in all.
    Full,
    /// The oldest hint of the node is older than `hint-age-max`.
    TooOld,
    /// The labels of a series are longer than a quarter of a segment.
    LabelsTooLong,
    /// The disk failed or is full (errno).
    Disk(i32),
}

/// Bytes to write to a segment and to sync, before [`HintLog::handle_written`].
#[derive(Debug, PartialEq, Eq)]
pub struct HintWrite {
    /// Which.
    pub segment: u64,
    /// Where; at 0 the file is made first, and its name made durable.
    pub offset: u64,
    /// Whole blocks.
    pub bytes: Vec<u8>,
}

/// What the log tells a gateway shard.
#[derive(Debug)]
pub enum LogEvent {
    /// The hint is durable, or refused: then nothing of it is promised.
    Appended { ticket: HintTicket, outcome: Result<(), HintRefusal> },
    /// To be delivered to the node.
    Record { shard: u32, record: HintRecord },
    /// Nothing is left.
    Drained { shard: u32 },
}

/// A segment that a start found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSegment {
    /// Its number.
    pub segment: u64,
    /// Bytes of the file.
    pub len_bytes: u64,
    /// What is known of it: all of the last one, of others what headers say.
    pub tally: SegmentTally,
    /// What its header says, if it is whole.
    pub header: Option<SegmentHeader>,
}

impl FoundSegment {
    /// One of which no header says anything.
    pub fn new(segment: u64, len_bytes: u64, tally: SegmentTally) -> Self {
        Self { segment, len_bytes, tally, header: None }
    }
}

/// Figures for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintFigures {
    /// Bytes on the disk, or about to be.
    pub bytes: u64,
    /// Records that wait, those of a segment until it is delivered whole.
    pub records: u64,
    /// Their samples.
    pub samples: u64,
    /// When the oldest of them was made, Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// Samples that became durable, since the start.
    pub appended_samples: u64,
    /// Samples that were refused, since the start.
    pub refused_samples: u64,
    /// Samples that were delivered, since the start; some twice after a pause.
    pub delivered_samples: u64,
    /// Records that were acknowledged and found damaged or missing, since the start.
    pub records_lost: u64,
    /// Samples whose labels were in those, since the start.
    pub samples_lost: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    len_bytes: u64,
    /// Acknowledged.
    records: u64,
    samples: u64,
    oldest_ms: Option<i64>,
    durable_number: u64,
}

/// What is written and synced at once.
#[derive(Debug)]
struct Group {
    segment: u64,
    offset: u64,
    bytes: Vec<u8>,
    records: u64,
    samples: u64,
    last_number: u64,
    /// Appends whose last record is in it, and their samples.
    tickets: Vec<(HintTicket, u64)>,
}

#[derive(Debug)]
enum Reading {
    Nothing,
    /// The driver was asked for this segment, the first.
    Loading(u64),
    Replaying(Replay),
}

/// See the module's description.
#[derive(Debug)]
pub struct HintLog {
    node: NodeId,
    limits: HintLimits,
    shard_count: u32,
    encoder: Encoder,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// Takes records; it is in the last of the segments.
    gathering: Option<Group>,
    /// Whether the last segment takes more groups.
    is_open: bool,
    /// Full, or not to be grown any more; the first may be under way.
    sealed: VecDeque<Group>,
    /// The first of `sealed`.
    is_writing: bool,
    next_segment: u64,
    next_number: u64,
    durable_number: u64,
    /// Acknowledged since the log began.
    records_total: u64,
    samples_total: u64,
    reading: Reading,
    /// How far the first segment is, if it was taken out of memory.
    place: Option<Place>,
    load_at_ms: i64,
    /// Shards that take records...
    readers: BTreeSet<u32>,
    /// ...and those of them that were told that nothing is left.
    told_drained: BTreeSet<u32>,
    /// Files that are to go: segment, bytes.
    removals: VecDeque<(u64, u64)>,
    is_removing: bool,
    remove_at_ms: i64,
    events: VecDeque<LogEvent>,
    figures: HintFigures,
}

impl Segment {
    fn found(found: &FoundSegment) -> Self {
        let tally = &found.tally;
        Self {
            number: found.segment,
            len_bytes: found.len_bytes,
            records: tally.records,
            samples: tally.samples,
            oldest_ms: tally.oldest_ms,
            durable_number: tally.durable_number,
        }
    }
}

impl HintLog {
    /// The log of `node`, of which a start found `found`, oldest first.
    pub fn new(node: NodeId, limits: HintLimits, shard_count: u32, found: &[FoundSegment]) -> Self {
        assert!(limits.segment_bytes.is_multiple_of(BLOCK_BYTES as u64));
        assert!(limits.segment_bytes <= SEGMENT_BYTES_MAX && shard_count > 0);
        let last_number = found.iter().map(|it| it.tally.last_number).max().unwrap_or(0);
        let durable_number = found.iter().map(|it| it.tally.durable_number).max().unwrap_or(0);
        let mut totals = (0, 0);
        for one in found {
            let before = one.header.map(|it| (it.records_before, it.samples_before));
            let (records, samples) = before.unwrap_or(totals);
            totals = (records + one.tally.records, samples + one.tally.samples);
        }
        let (records_total, samples_total) = totals;
        Self {
            node,
            limits,
            shard_count,
            encoder: Encoder::default(),
            segments: found.iter().map(Segment::found).collect(),
            gathering: None,
            is_open: false,
            sealed: VecDeque::new(),
            is_writing: false,
            next_segment: found.last().map_or(1, |last| last.segment + 1),
            next_number: last_number.max(durable_number) + 1,
            durable_number,
            records_total,
            samples_total,
            reading: Reading::Nothing,
            place: None,
            load_at_ms: i64::MIN,
            readers: BTreeSet::new(),
            told_drained: BTreeSet::new(),
            removals: VecDeque::new(),
            is_removing: false,
            remove_at_ms: i64::MIN,
            events: VecDeque::new(),
            figures: HintFigures::default(),
        }
    }

    /// Takes `part` in, or refuses it; the answer is an event. `other_bytes`: what the hints of
    /// other nodes take.
    pub fn handle_append(
        &mut self,
        now_ms: i64,
        ticket: HintTicket,
        part: &HintPart,
        other_bytes: u64,
    ) {
        let samples = part.sample_count();
        if let Err(refusal) = self.check_append(now_ms, part, other_bytes) {
            return self.answer(ticket, samples, Err(refusal));
        }
        if samples == 0 {
            return self.answer(ticket, 0, Ok(()));
        }
        self.told_drained.clear();
        let mut from = Progress::default();
        while !from.is_end(part) {
            from = self.append_record(now_ms, part, from);
        }
        let group = self.gathering.as_mut().expect("its last record was put there");
        group.tickets.push((ticket, samples));
    }

    fn check_append(&self, now_ms: i64, part: &HintPart, others: u64) -> Result<(), HintRefusal> {
        let limits = &self.limits;
        if part.labels_bytes_max() as u64 > limits.segment_bytes / LABELS_PER_SEGMENT {
            return Err(HintRefusal::LabelsTooLong);
        }
        // Headers of records are a 32nd of them at most, but for the last of a segment. A segment
        // begins with a block, and a group ends in padding.
        let columns = part.encoded_bytes_max();
        let segments = columns / (limits.segment_bytes / 2) + 2;
        let more = columns + columns / 32 + segments * 3 * BLOCK_BYTES as u64;
        let bytes = self.bytes() + more;
        if bytes > limits.node_bytes_max || bytes + others > limits.bytes_max {
            return Err(HintRefusal::Full);
        }
        match self.oldest_ms() {
            Some(oldest_ms) if now_ms.saturating_sub(oldest_ms) > limits.age_max_ms => {
                Err(HintRefusal::TooOld)
            }
            _ => Ok(()),
        }
    }

    /// Puts a record of what is left of `part` behind all others.
    fn append_record(&mut self, now_ms: i64, part: &HintPart, from: Progress) -> Progress {
        if !self.is_open {
            self.begin_segment(now_ms);
        }
        if self.gathering.as_ref().is_some_and(|it| it.bytes.len() >= GROUP_BYTES_GATHERED) {
            self.seal();
        }
        let (number, durable_number) = (self.next_number, self.durable_number);
        let numbers = RecordNumbers { number, durable_number, made_ms: now_ms };
        let segment = self.segments.back_mut().expect("one was begun");
        let group = self.gathering.get_or_insert_with(|| Group {
            segment: segment.number,
            offset: segment.len_bytes,
            bytes: Vec::new(),
            records: 0,
            samples: 0,
            last_number: 0,
            tickets: Vec::new(),
        });
        let before = group.bytes.len();
        let room = self.limits.segment_bytes - group.offset - before as u64;
        let room = usize::try_from(room).expect("a segment is below 1 GiB");
        let seed = record_seed(self.node, segment.number);
        let next = self.encoder.encode(&mut group.bytes, (&numbers, seed), (part, from), room);
        if group.bytes.len() == before {
            assert!(!next.is_end(part), "a part has samples, and ends with a record of them");
            // The segment is full.
            self.is_open = false;
            return next;
        }
        group.records += 1;
        group.samples += part.samples_between(from, next);
        group.last_number = number;
        segment.oldest_ms.get_or_insert(now_ms);
        self.next_number += 1;
        next
    }

    /// Begins the next segment: its header is the begin of its first group.
    fn begin_segment(&mut self, now_ms: i64) {
        self.seal();
        let number = self.next_segment;
        self.next_segment += 1;
        let waiting = |count: fn(&Group) -> u64| self.sealed.iter().map(count).sum::<u64>();
        let header = SegmentHeader {
            node: self.node,
            segment: number,
            first_number: self.next_number,
            // What waits is written before this is, or this is not written at all.
            durable_number: self.sealed.back().map_or(self.durable_number, |it| it.last_number),
            records_before: self.records_total + waiting(|group| group.records),
            samples_before: self.samples_total + waiting(|group| group.samples),
            made_ms: now_ms,
        };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        self.gathering = Some(Group {
            segment: number,
            offset: 0,
            bytes,
            records: 0,
            samples: 0,
            last_number: header.durable_number,
            tickets: Vec::new(),
        });
        self.segments.push_back(Segment {
            number,
            len_bytes: 0,
            records: 0,
            samples: 0,
            oldest_ms: None,
            durable_number: 0,
        });
        self.encoder.begin_segment();
        self.is_open = true;
    }

    /// Nothing more is added to what has gathered.
    fn seal(&mut self) {
        let Some(mut group) = self.gathering.take_if(|group| !group.bytes.is_empty()) else {
            return;
        };
        group.bytes.resize(group.bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        let segment = self.segments.back_mut().expect("the group's own");
        segment.len_bytes += group.bytes.len() as u64;
        self.sealed.push_back(group);
    }

    /// The next write, if none is under way.
    pub fn poll_write(&mut self) -> Option<HintWrite> {
        if self.is_writing {
            return None;
        }
        if self.sealed.is_empty() {
            self.seal();
        }
        let group = self.sealed.front_mut()?;
        self.is_writing = true;
        let bytes = std::mem::take(&mut group.bytes);
        Some(HintWrite { segment: group.segment, offset: group.offset, bytes })
    }

    /// The write that was asked for is on stable storage, with the name of its file; or it failed
    /// (errno), and what of it is there is not known.
    pub fn handle_written(&mut self, outcome: Result<(), i32>) {
        assert!(std::mem::take(&mut self.is_writing), "no write was asked for");
        if let Err(errno) = outcome {
            return self.fail_writes(HintRefusal::Disk(errno));
        }
        let group = self.sealed.pop_front().expect("what was written");
        let mut segments = self.segments.iter_mut();
        if let Some(segment) = segments.find(|segment| segment.number == group.segment) {
            segment.records += group.records;
            segment.samples += group.samples;
            segment.durable_number = group.last_number;
        }
        self.durable_number = group.last_number;
        self.records_total += group.records;
        self.samples_total += group.samples;
        for (ticket, samples) in group.tickets {
            self.answer(ticket, samples, Ok(()));
        }
    }

    /// Nothing that waits can be written behind what failed: the records name each other's labels.
    fn fail_writes(&mut self, refusal: HintRefusal) {
        self.seal();
        self.is_open = false;
        let failed_segment = self.sealed.front().map(|group| group.segment);
        for group in std::mem::take(&mut self.sealed) {
            for (ticket, samples) in group.tickets {
                self.answer(ticket, samples, Err(refusal));
            }
        }
        let Some(failed) = failed_segment else { return };
        // Later ones were never made. The file of this one may hold acknowledged records.
        self.segments.retain(|segment| segment.number <= failed);
        if self.segments.back().is_some_and(|last| last.records == 0)
            && let Some(last) = self.segments.pop_back()
        {
            self.removals.push_back((last.number, last.len_bytes));
        }
    }

    fn answer(&mut self, ticket: HintTicket, samples: u64, outcome: Result<(), HintRefusal>) {
        match outcome {
            Ok(()) => self.figures.appended_samples += samples,
            Err(_) => self.figures.refused_samples += samples,
        }
        self.events.push_back(LogEvent::Appended { ticket, outcome });
    }

    /// `shard` takes records from now on, also of hints that come later.
    pub fn handle_read(&mut self, shard: u32) {
        assert!(shard < self.shard_count, "a shard of this gateway");
        self.readers.insert(shard);
        self.told_drained.remove(&shard);
    }

    /// `shard` takes no more; what it has not delivered is handed out again when it reads.
    pub fn handle_pause(&mut self, shard: u32) {
        self.readers.remove(&shard);
        if let Reading::Replaying(replay) = &mut self.reading {
            replay.handle_pause(shard);
        }
    }

    /// Whether a segment is in memory, or about to be.
    pub fn has_loaded(&self) -> bool {
        !matches!(self.reading, Reading::Nothing)
    }

    /// Takes a segment out of memory of which nobody who reads now has something to get: it is
    /// loaded again for whoever has, and goes on where it was.
    pub fn unload_unread(&mut self) -> bool {
        let is_unread = match &mut self.reading {
            Reading::Nothing => false,
            Reading::Loading(_) => self.readers.is_empty(),
            Reading::Replaying(replay) => !self.readers.iter().any(|shard| replay.has_more(*shard)),
        };
        if is_unread
            && let Reading::Replaying(replay) =
                std::mem::replace(&mut self.reading, Reading::Nothing)
        {
            self.place = Some(replay.into_place());
        }
        is_unread
    }

    /// Whether [`HintLog::poll_load`] would name one.
    pub fn wants_load(&self, now_ms: i64) -> bool {
        let Some(first) = self.segments.front() else { return false };
        let has_more = |shard: &u32| Place::has_more(self.place.as_ref(), first.number, *shard);
        let is_asked = self.readers.iter().any(has_more) && is_due(now_ms, self.load_at_ms);
        let mut unwritten = self.sealed.iter().chain(&self.gathering);
        is_asked && !self.has_loaded() && unwritten.all(|group| group.segment != first.number)
    }

    /// The segment to be loaded whole, for [`HintLog::handle_loaded`].
    pub fn poll_load(&mut self, now_ms: i64) -> Option<u64> {
        if !self.wants_load(now_ms) {
            return None;
        }
        let first = self.segments.front()?.number;
        if self.segments.len() == 1 {
            // What comes now goes to the next one: a segment that is handed out does not grow.
            self.is_open = false;
        }
        self.reading = Reading::Loading(first);
        Some(first)
    }

    /// The bytes of the segment that was asked for, or why there are none (errno).
    pub fn handle_loaded(&mut self, now_ms: i64, segment: u64, outcome: Result<Vec<u8>, i32>) {
        if !matches!(self.reading, Reading::Loading(asked) if asked == segment) {
            return; // Nobody asked for it.
        }
        self.reading = Reading::Nothing;
        let first = self.segments.front().expect("it was asked for");
        let bytes = match outcome {
            Ok(bytes) => bytes,
            // Somebody removed it: what it held is lost, and is counted as such.
            Err(libc::ENOENT) => Vec::new(),
            Err(_) => {
                self.load_at_ms = now_ms.saturating_add(RETRY_AFTER_MS);
                return;
            }
        };
        let identity = (self.node, first.number);
        let loaded = LoadedSegment::new(bytes, identity, self.shard_count, first.durable_number);
        // The header may be lost too, and with it which record was the first.
        let missing = first.records.saturating_sub(loaded.tally().records);
        if let Some(place) = self.place.take()
            && place.is_of(segment)
        {
            self.reading = Reading::Replaying(Replay::resume(place, loaded));
            return;
        }
        self.figures.records_lost += loaded.tally().records_lost.max(missing);
        self.figures.samples_lost += loaded.tally().samples_lost;
        self.reading = Reading::Replaying(Replay::new(first.number, loaded, self.shard_count));
    }

    /// `shard` delivered its share of the record. Saying it late or twice does no harm.
    pub fn handle_delivered(&mut self, shard: u32, number: HintNumber) {
        if let Reading::Replaying(replay) = &mut self.reading {
            self.figures.delivered_samples += replay.handle_delivered(shard, number);
        }
    }

    /// The file to be removed, its name durably gone, for [`HintLog::handle_removed`].
    pub fn poll_remove(&mut self, now_ms: i64) -> Option<u64> {
        if let Reading::Replaying(replay) = &mut self.reading
            && replay.is_done()
        {
            self.reading = Reading::Nothing;
            let first = self.segments.pop_front().expect("it is being handed out");
            self.removals.push_back((first.number, first.len_bytes));
        }
        if self.is_removing || !is_due(now_ms, self.remove_at_ms) {
            return None;
        }
        let (segment, _) = *self.removals.front()?;
        self.is_removing = true;
        Some(segment)
    }

    /// The file is gone, or not (errno).
    pub fn handle_removed(&mut self, now_ms: i64, outcome: Result<(), i32>) {
        assert!(self.is_removing, "a removal was asked for");
        self.is_removing = false;
        match outcome {
            Ok(()) | Err(libc::ENOENT) => drop(self.removals.pop_front()),
            Err(_) => self.remove_at_ms = now_ms.saturating_add(RETRY_AFTER_MS),
        }
    }

    /// The next thing to tell a shard.
    pub fn poll_event(&mut self) -> Option<LogEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Reading::Replaying(replay) = &mut self.reading {
            let mut readers = self.readers.iter();
            return readers.find_map(|&shard| {
                let record = replay.poll_record(shard)?;
                Some(LogEvent::Record { shard, record })
            });
        }
        // A file that is not gone for good would be handed out again by the next start.
        if !self.segments.is_empty() || !self.removals.is_empty() {
            return None;
        }
        let shard = *self.readers.difference(&self.told_drained).next()?;
        self.told_drained.insert(shard);
        Some(LogEvent::Drained { shard })
    }

    /// When to ask again for what the disk refused.
    pub fn poll_timeout_ms(&self) -> Option<i64> {
        let waits_to_remove = !self.removals.is_empty() && !self.is_removing;
        let has_more = |first: &Segment, shard: &u32| {
            Place::has_more(self.place.as_ref(), first.number, *shard)
        };
        let first = self.segments.front();
        let waits_to_load =
            first.is_some_and(|first| self.readers.iter().any(|shard| has_more(first, shard)));
        let waits_to_load = waits_to_load && matches!(self.reading, Reading::Nothing);
        let remove = waits_to_remove.then_some(self.remove_at_ms);
        let load = waits_to_load.then_some(self.load_at_ms);
        remove.into_iter().chain(load).min()
    }

    /// Bytes on the disk, or about to be.
    pub fn bytes(&self) -> u64 {
        let gathering = self
            .gathering
            .as_ref()
            .map_or(0, |group| group.bytes.len().next_multiple_of(BLOCK_BYTES) as u64);
        let segments = self.segments.iter().map(|segment| segment.len_bytes);
        let removals = self.removals.iter().map(|(_, len_bytes)| *len_bytes);
        gathering + segments.sum::<u64>() + removals.sum::<u64>()
    }

    /// When the oldest hint was made that was not delivered.
    pub fn oldest_ms(&self) -> Option<i64> {
        let in_hand = match &self.reading {
            Reading::Replaying(replay) => replay.oldest_ms(),
            _ => self.segments.front()?.oldest_ms,
        };
        in_hand.or_else(|| self.segments.get(1)?.oldest_ms)
    }

    /// Figures for people.
    pub fn figures(&self) -> HintFigures {
        HintFigures {
            bytes: self.bytes(),
            records: self.segments.iter().map(|segment| segment.records).sum(),
            samples: self.segments.iter().map(|segment| segment.samples).sum(),
            oldest_ms: self.oldest_ms(),
            ..self.figures
        }
    }
}

/// Whether what was to be tried again at `at_ms` is tried now. A clock that was set back must not
/// make it wait for longer than it was to.
fn is_due(now_ms: i64, at_ms: i64) -> bool {
    now_ms >= at_ms || at_ms.saturating_sub(now_ms) > RETRY_AFTER_MS
}
