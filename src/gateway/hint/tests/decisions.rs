//! What the log of one node decides, event by event.

use std::sync::Arc;

use crate::gateway::hint::HintPart;
use crate::gateway::hint::log::{
    HintLimits, HintLog, HintRefusal, HintTicket, HintWrite, LogEvent,
};
use crate::gateway::hint::replay::{HintNumber, RECORDS_OUT_MAX};
use crate::gateway::part::Lateness;
use crate::gateway::request::{LabelSpan, RequestBytes, SeriesBatch};
use crate::model::series::{SeriesHash, TenantId};

use super::{NODE, Sample, part, samples};

const LIMITS: HintLimits = HintLimits {
    node_bytes_max: 1 << 20,
    bytes_max: 2 << 20,
    age_max_ms: 1_000,
    segment_bytes: 32 << 10,
};

/// A log, and the files that a driver would have made.
struct Rig {
    log: HintLog,
    files: Vec<(u64, Vec<u8>)>,
    next_ticket: u64,
    delivered: Vec<Sample>,
}

impl Rig {
    fn new(limits: HintLimits, shards: u32) -> Self {
        let log = HintLog::new(NODE, limits, shards, &[]);
        Self { log, files: Vec::new(), next_ticket: 0, delivered: Vec::new() }
    }

    fn append(&mut self, now_ms: i64, part: &HintPart) -> u64 {
        self.next_ticket += 1;
        let ticket = HintTicket { shard: 0, number: self.next_ticket };
        self.log.handle_append(now_ms, ticket, part, 0);
        self.next_ticket
    }

    fn keep(&mut self, write: &HintWrite) {
        if write.offset == 0 {
            self.files.push((write.segment, Vec::new()));
        }
        let (_, bytes) = self.files.last_mut().expect("made at its first write");
        assert_eq!(write.offset, bytes.len() as u64, "a hole or an overlap");
        bytes.extend_from_slice(&write.bytes);
        assert!(bytes.len() as u64 <= LIMITS.segment_bytes, "longer than a segment");
    }

    /// Writes everything; the answers.
    fn write_all(&mut self) -> Vec<(u64, Result<(), HintRefusal>)> {
        while let Some(write) = self.log.poll_write() {
            self.keep(&write);
            self.log.handle_written(Ok(()));
        }
        self.answers()
    }

    fn answers(&mut self) -> Vec<(u64, Result<(), HintRefusal>)> {
        let mut answers = Vec::new();
        while let Some(event) = self.log.poll_event() {
            let LogEvent::Appended { ticket, outcome } = event else { panic!("{event:?}") };
            answers.push((ticket.number, outcome));
        }
        answers
    }

    fn load(&mut self) -> bool {
        let Some(segment) = self.log.poll_load(0) else { return false };
        let file = self.files.iter().find(|(number, _)| *number == segment);
        self.log.handle_loaded(0, segment, Ok(file.expect("it was written").1.clone()));
        true
    }

    fn remove(&mut self) -> Option<u64> {
        let segment = self.log.poll_remove(0)?;
        self.files.retain(|(number, _)| *number != segment);
        self.log.handle_removed(0, Ok(()));
        Some(segment)
    }

    /// The records that can be had now: shard, number.
    fn records(&mut self) -> Vec<(u32, HintNumber)> {
        let mut records = Vec::new();
        while let Some(event) = self.log.poll_event() {
            match event {
                LogEvent::Record { shard, record } => {
                    self.delivered.extend(samples(&record.part));
                    records.push((shard, record.number));
                }
                LogEvent::Drained { .. } => break,
                LogEvent::Appended { .. } => panic!("{event:?}"),
            }
        }
        records
    }
}

fn fleet_part(from: u64, timestamp_ms: i64) -> HintPart {
    let series: Vec<u64> = (from..from + 100).collect();
    part(7, &series, 1, timestamp_ms)
}

/// Red when an answer does not wait for the write (acknowledged before sync).
#[test]
fn nothing_is_answered_before_it_is_written() {
    let mut rig = Rig::new(LIMITS, 1);
    let first = rig.append(0, &fleet_part(0, 0));
    assert_eq!(rig.answers(), []);
    let write = rig.log.poll_write().expect("it gathered");
    let second = rig.append(0, &fleet_part(0, 1));
    assert_eq!(rig.log.poll_write(), None, "one write at a time");
    assert_eq!(rig.answers(), []);
    rig.keep(&write);
    rig.log.handle_written(Ok(()));
    assert_eq!(rig.answers(), [(first, Ok(()))]);
    assert_eq!(rig.write_all(), [(second, Ok(()))]);
}

/// Segments rotate; what they hold comes out in order, one segment after the other, and each file
/// goes only when it is delivered whole. Red when a rotation drops what gathered, when a segment
/// knows the labels of the one before, or goes early.
#[test]
fn segments_are_handed_out_in_order_and_then_removed() {
    let mut rig = Rig::new(LIMITS, 1);
    let mut want = Vec::new();
    for round in 0..60 {
        let part = fleet_part(round % 7 * 50, i64::try_from(round).expect("small"));
        want.extend(samples(&part));
        rig.append(0, &part);
        if round % 3 == 0 {
            rig.write_all();
        }
    }
    rig.write_all();
    assert!(rig.files.len() > 3);
    assert_eq!(rig.log.figures().samples, 6_000);
    rig.log.handle_read(0);
    while rig.load() {
        let records = rig.records();
        let (last, others) = records.split_last().expect("a segment has records");
        for (shard, number) in others.iter().rev() {
            rig.log.handle_delivered(*shard, *number);
        }
        assert_eq!(rig.remove(), None, "the last is not delivered");
        rig.log.handle_delivered(last.0, last.1);
        // More than a shard may have at once: the rest follows.
        assert!(records.len() <= RECORDS_OUT_MAX);
        for (shard, number) in rig.records() {
            assert_eq!(rig.remove(), None, "there is more");
            rig.log.handle_delivered(shard, number);
        }
        assert_eq!(rig.remove(), Some(last.1.segment));
    }
    assert!(rig.files.is_empty() && rig.delivered == want, "lost, doubled or out of order");
}

/// All of it, with removals. Red when a segment stays, or the end is not told, once.
#[test]
fn the_end_is_told_once() {
    let mut rig = Rig::new(LIMITS, 2);
    let mut want = 0;
    for round in 0..40 {
        want += samples(&fleet_part(0, round)).len();
        rig.append(0, &fleet_part(0, round));
    }
    rig.write_all();
    rig.log.handle_read(0);
    rig.log.handle_read(1);
    let mut drained = Vec::new();
    for _ in 0..1000 {
        rig.load();
        while let Some(event) = rig.log.poll_event() {
            match event {
                LogEvent::Record { shard, record } => {
                    rig.delivered.extend(samples(&record.part));
                    rig.log.handle_delivered(shard, record.number);
                }
                LogEvent::Drained { shard } => drained.push(shard),
                LogEvent::Appended { .. } => panic!("{event:?}"),
            }
        }
        rig.remove();
    }
    assert_eq!((rig.delivered.len(), drained), (want, vec![0, 1]));
    assert_eq!((rig.files.len(), rig.log.bytes()), (0, 0));
    assert_eq!(rig.log.figures().delivered_samples, want as u64);
}

/// Red when the end is told before the last file is gone for good: a power cut would bring it back,
/// and nobody would know that what comes after the end has to get behind it.
#[test]
fn the_end_is_not_told_before_the_last_file_is_gone() {
    let mut rig = Rig::new(LIMITS, 1);
    rig.append(0, &fleet_part(0, 1));
    rig.write_all();
    rig.log.handle_read(0);
    assert!(rig.load());
    for (_, number) in rig.records() {
        rig.log.handle_delivered(0, number);
    }
    assert!(rig.log.poll_remove(0).is_some() && rig.log.poll_event().is_none());
    rig.log.handle_removed(0, Err(libc::EIO));
    assert!(rig.log.poll_event().is_none());
    assert!(rig.log.poll_remove(i64::MAX).is_some());
    rig.log.handle_removed(i64::MAX, Ok(()));
    assert!(matches!(rig.log.poll_event(), Some(LogEvent::Drained { shard: 0 })));
}

/// A shard that pauses gets what it did not deliver again, in order; others go on.
#[test]
fn a_pause_hands_out_again() {
    let mut rig = Rig::new(LIMITS, 1);
    for round in 0..4 {
        rig.append(0, &fleet_part(0, round));
        rig.write_all();
    }
    rig.log.handle_read(0);
    assert!(rig.load());
    let records = rig.records();
    assert_eq!(records.len(), 4);
    rig.log.handle_delivered(0, records[0].1);
    rig.log.handle_delivered(0, records[2].1);
    rig.log.handle_pause(0);
    assert_eq!(rig.records(), [], "it takes nothing now");
    rig.log.handle_read(0);
    assert_eq!(rig.records(), records[1..]);
}

/// What comes while hints are handed out goes to another segment, and follows. Red when the last
/// segment grows while it is read.
#[test]
fn hints_may_come_while_others_leave() {
    let mut rig = Rig::new(LIMITS, 1);
    rig.append(0, &fleet_part(0, 0));
    rig.write_all();
    rig.log.handle_read(0);
    assert!(rig.load());
    rig.append(0, &fleet_part(50, 1));
    while let Some(write) = rig.log.poll_write() {
        rig.keep(&write);
        rig.log.handle_written(Ok(()));
    }
    let Some(LogEvent::Appended { .. }) = rig.log.poll_event() else { panic!("it is durable") };
    for _ in 0..2 {
        for (shard, number) in rig.records() {
            rig.log.handle_delivered(shard, number);
        }
        rig.remove().expect("it is delivered");
        rig.load();
    }
    let mut want = samples(&fleet_part(0, 0));
    want.extend(samples(&fleet_part(50, 1)));
    assert_eq!(rig.delivered, want);
}

/// A part whose last record filled the group was answered only when something else came: its client
/// waited for ever, and so did the node for the segment. Red when an append is noted with a group
/// that has nothing of it.
#[test]
fn a_part_that_ends_with_a_full_group_is_answered() {
    let mut bytes = RequestBytes::default();
    let mut batch = SeriesBatch::default();
    // 16 of them are a record, 8 of those a group.
    for series in 0..128u8 {
        let start = u32::try_from(bytes.labels.len()).expect("8 MiB");
        bytes.labels.resize(bytes.labels.len() + (64 << 10), series);
        batch.timestamp_ms.push(1);
        batch.value.push(1.0);
        let labels = bytes.labels(LabelSpan::in_labels(start, 64 << 10));
        batch.push_series(
            SeriesHash::of(TenantId(7), labels),
            LabelSpan::in_labels(start, 64 << 10),
        );
    }
    let (tenant, lateness) = (TenantId(7), Lateness::Window);
    let part = HintPart { tenant, lateness, batch, bytes: Arc::new(bytes) };
    let limits = HintLimits {
        node_bytes_max: 1 << 30,
        bytes_max: 1 << 30,
        segment_bytes: 64 << 20,
        ..LIMITS
    };
    let mut rig = Rig::new(limits, 1);
    let ticket = rig.append(0, &part);
    while rig.log.poll_write().is_some() {
        rig.log.handle_written(Ok(()));
    }
    assert_eq!(rig.answers(), [(ticket, Ok(()))]);
    rig.log.handle_read(0);
    assert!(rig.log.wants_load(0), "nothing of it is unwritten");
}

/// Red when a limit is not looked at, or something that was acknowledged makes room.
#[test]
fn at_a_limit_new_hints_are_refused() {
    let mut rig = Rig::new(LIMITS, 1);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..2_000 {
        rig.append(0, &fleet_part(round * 100, 0));
        for (_, outcome) in rig.write_all() {
            match outcome {
                Ok(()) => taken += 100,
                Err(refusal) => {
                    assert_eq!(refusal, HintRefusal::Full);
                    refused += 100;
                }
            }
        }
        let bytes: usize = rig.files.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(bytes as u64, rig.log.bytes());
        assert!(rig.log.bytes() <= LIMITS.node_bytes_max);
    }
    assert!(rig.log.bytes() > LIMITS.node_bytes_max / 2, "it is used");
    let figures = rig.log.figures();
    assert_eq!((figures.samples, figures.refused_samples), (taken, refused));
    assert!(taken > 0 && refused > 0);

    let mut rig = Rig::new(LIMITS, 1);
    rig.log.handle_append(0, HintTicket { shard: 0, number: 9 }, &fleet_part(0, 0), 2 << 20);
    assert_eq!(rig.answers(), [(9, Err(HintRefusal::Full))], "others took all");
    let first = rig.append(0, &fleet_part(0, 0));
    let young = rig.append(1_000, &fleet_part(0, 0));
    let late = rig.append(1_001, &fleet_part(0, 0));
    let answers = rig.write_all();
    assert_eq!(answers, [(late, Err(HintRefusal::TooOld)), (first, Ok(())), (young, Ok(()))]);
}

/// Red when what waits behind a failed write is written, or the segment takes more.
#[test]
fn a_failed_write_takes_nothing_along() {
    let mut rig = Rig::new(LIMITS, 1);
    let before = rig.append(0, &fleet_part(0, 0));
    assert_eq!(rig.write_all(), [(before, Ok(()))]);
    let failed = rig.append(0, &fleet_part(0, 1));
    let write = rig.log.poll_write().expect("it gathered");
    let behind = rig.append(0, &fleet_part(0, 2));
    rig.log.handle_written(Err(libc::EIO));
    let refusal = Err(HintRefusal::Disk(libc::EIO));
    assert_eq!(rig.answers(), [(failed, refusal), (behind, refusal)]);
    assert_eq!(rig.log.poll_write(), None);
    let next = rig.append(0, &fleet_part(0, 3));
    let next_write = rig.log.poll_write().expect("it gathered");
    assert_eq!((next_write.offset, next_write.segment), (0, write.segment + 1));
    rig.keep(&next_write);
    rig.log.handle_written(Err(libc::ENOSPC));
    assert_eq!(rig.answers(), [(next, Err(HintRefusal::Disk(libc::ENOSPC)))]);
    assert_eq!(rig.remove(), Some(write.segment + 1), "nothing in it was acknowledged");
    assert_eq!(rig.log.figures().samples, 100);
}

/// Labels that would not fit are refused, not written in part.
#[test]
fn labels_longer_than_a_quarter_of_a_segment_are_refused() {
    let mut rig = Rig::new(HintLimits { segment_bytes: 4096 * 2, ..LIMITS }, 1);
    let mut long = part(7, &[1], 1, 0);
    let len = long.bytes.labels.len();
    let labels: Vec<u8> = long.bytes.labels.repeat(4096 / len);
    let span_len = u32::try_from(labels.len()).expect("short");
    long.batch.labels[0] = crate::gateway::request::LabelSpan::in_labels(0, span_len);
    let bytes = crate::gateway::request::RequestBytes { body: Vec::new(), labels };
    long.bytes = std::sync::Arc::new(bytes);
    let ticket = rig.append(0, &long);
    assert_eq!(rig.answers(), [(ticket, Err(HintRefusal::LabelsTooLong))]);
}

/// A lane had no room for the last of several records, and all of them began anew for ever. Red
/// when what is delivered behind a pause is forgotten, or counts though one before it is missing.
#[test]
fn what_is_delivered_behind_a_pause_counts() {
    let mut rig = Rig::new(LIMITS, 1);
    for at_ms in 0..4 {
        rig.append(0, &fleet_part(0, at_ms));
    }
    rig.write_all();
    rig.log.handle_read(0);
    assert!(rig.load());
    let records: Vec<_> = rig.records().into_iter().map(|(_, number)| number).collect();
    assert_eq!(records.len(), 4);
    rig.log.handle_pause(0);
    for place in [2, 0] {
        rig.log.handle_delivered(0, records[place]);
    }
    rig.log.handle_read(0);
    let again: Vec<_> = rig.records().into_iter().map(|(_, number)| number).collect();
    assert_eq!(again, records[1..]);
    rig.log.handle_pause(0);
    // What follows again counts when it is delivered again.
    rig.log.handle_delivered(0, records[1]);
    rig.log.handle_delivered(0, records[2]);
    rig.log.handle_delivered(0, records[3]);
    assert_eq!(rig.remove(), Some(1));
}

/// Red when a clock that is set back makes what the disk refused wait for as long.
#[test]
fn a_clock_that_is_set_back_delays_nothing() {
    let mut rig = Rig::new(LIMITS, 1);
    rig.append(0, &fleet_part(0, 0));
    rig.write_all();
    rig.log.handle_read(0);
    let now_ms = 1_000_000;
    let segment = rig.log.poll_load(now_ms).expect("it is read");
    rig.log.handle_loaded(now_ms, segment, Err(libc::EIO));
    assert_eq!(rig.log.poll_load(now_ms), None, "not at once");
    assert_eq!(rig.log.poll_load(now_ms - 600_000), Some(segment));
}
