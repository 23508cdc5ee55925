//! The head against a map in which the last write wins; snapshots against replays; limits.

use std::collections::BTreeMap;

use super::*;
use crate::base::random::Random;
use crate::model::matcher::{MatchOperator, Matcher};
use crate::model::sample::STALE_NAN_BITS;
use crate::node::block::{BLOCK_RANGE_MS, FlushSeries};
use crate::wire::ack::RefusedSample;
use crate::wire::delete::Deletion;

const WINDOW_MS: i64 = 5_000;
const LIMITS: HeadLimits = HeadLimits { out_of_order_window_ms: WINDOW_MS, bytes_max: 1 << 30 };
const EVER: TimeRange = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };

pub(super) fn push_label(name: &str, value: &str, out: &mut Vec<u8>) {
    let (name, value) = (name.as_bytes(), value.as_bytes());
    assert!(name.len() + value.len() < 120);
    let lens = [name.len() + value.len() + 4, name.len(), value.len()].map(|len| len as u8);
    out.extend_from_slice(&[0x0a, lens[0], 0x0a, lens[1]]);
    out.extend_from_slice(name);
    out.extend_from_slice(&[0x12, lens[2]]);
    out.extend_from_slice(value);
}

fn labels_of(number: u32) -> Vec<u8> {
    let mut labels = Vec::new();
    push_label("__name__", &format!("metric_{}", number % 7), &mut labels);
    push_label("instance", &number.to_string(), &mut labels);
    labels
}

fn register(head: &mut Head, number: u32) -> SeriesId {
    let labels = labels_of(number);
    let hash = SeriesHash::of(TenantId(0), &labels);
    head.register(TenantId(0), hash, &labels).expect("there is room")
}

/// What a reader makes of a series: later chunks win, then the raw points.
pub(in crate::node) fn read(head: &Head, id: u32) -> BTreeMap<i64, u64> {
    let mut chunks = Vec::new();
    head.copy_chunks(id, 0..usize::MAX, EVER, &mut chunks);
    let mut samples = Vec::new();
    for chunk in chunks {
        chunk.decode(&mut samples).expect("our own chunk");
    }
    let mut raw = Vec::new();
    head.copy_points(id, EVER, &mut raw);
    assert!(raw.is_sorted_by(|a, b| a.timestamp_ms < b.timestamp_ms));
    samples.extend(raw);
    samples.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits())).collect()
}

/// A batch of random writes: in order, repeated, late, far too late; runs and single samples.
#[derive(Clone, Default)]
struct Batch {
    series: Vec<u32>,
    timestamp_ms: Vec<i64>,
    value: Vec<f64>,
    refused: Vec<u32>,
}

fn random_batch(random: &mut Random, clock_ms: &mut [i64], samples: usize) -> Batch {
    let mut batch = Batch::default();
    while batch.series.len() < samples {
        let id = random.below(clock_ms.len() as u64) as usize;
        let run = if random.below(4) == 0 { 1 + random.below(150) } else { 1 };
        for _ in 0..run {
            let timestamp_ms = match random.below(20) {
                0 => clock_ms[id],
                1..=3 => clock_ms[id] - random.below(200).cast_signed(),
                4 => clock_ms[id] - random.below(8_000).cast_signed(),
                _ => {
                    clock_ms[id] += 1 + random.below(20).cast_signed();
                    clock_ms[id]
                }
            };
            batch.series.push(id as u32);
            batch.timestamp_ms.push(timestamp_ms);
            batch.value.push(match random.below(10) {
                0 => f64::from_bits(STALE_NAN_BITS),
                1 => f64::from_bits(random.next()),
                _ => random.below(1000) as f64,
            });
        }
    }
    batch
}

/// The semantics, written down once more, plainly.
struct Model {
    series: Vec<(Option<i64>, BTreeMap<i64, u64>)>,
}

impl Model {
    fn new(series: usize) -> Self {
        Self { series: vec![(None, BTreeMap::new()); series] }
    }

    /// Applies a batch and returns the indices that must be refused.
    fn write(&mut self, batch: &Batch) -> Vec<u32> {
        let mut refused = Vec::new();
        for (index, id) in batch.series.iter().enumerate() {
            let (newest_ms, samples) = &mut self.series[*id as usize];
            let timestamp_ms = batch.timestamp_ms[index];
            if newest_ms.is_some_and(|newest_ms| timestamp_ms < newest_ms - WINDOW_MS) {
                refused.push(index as u32);
                continue;
            }
            samples.insert(timestamp_ms, batch.value[index].to_bits());
            *newest_ms = Some(newest_ms.map_or(timestamp_ms, |newest| newest.max(timestamp_ms)));
        }
        refused
    }
}

fn append(head: &mut Head, batch: &mut Batch) {
    let mut refused = Vec::new();
    head.append(&batch.series, &batch.timestamp_ms, &batch.value, &mut refused);
    assert!(refused.iter().all(|each| each.reason == Refusal::TooOld));
    batch.refused = refused.iter().map(|each| each.index).collect();
}

fn replay(head: &mut Head, batch: &Batch) {
    head.replay(&batch.series, &batch.timestamp_ms, &batch.value, &batch.refused);
}

#[test]
fn last_write_wins() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let series = 1 + random.below(12) as usize;
        let mut head = Head::new(LIMITS);
        for number in 0..series {
            register(&mut head, number as u32);
        }
        let mut model = Model::new(series);
        let mut clock_ms = vec![1_000_000; series];
        let mut log = Vec::new();
        for round in 0..30 {
            let samples = 1 + random.below(400) as usize;
            let mut batch = random_batch(&mut random, &mut clock_ms, samples);
            append(&mut head, &mut batch);
            assert_eq!(batch.refused, model.write(&batch), "seed={seed} round={round}");
            log.push(batch);
            check_newest_is_open(&head);
        }
        let mut replayed = Head::new(LIMITS);
        for number in 0..series {
            register(&mut replayed, number as u32);
        }
        for batch in &log {
            replay(&mut replayed, batch);
        }
        for id in 0..series {
            assert_eq!(read(&head, id as u32), model.series[id].1, "seed={seed} series={id}");
            assert_eq!(read(&replayed, id as u32), model.series[id].1, "replay, seed={seed}");
        }
        check_counts(&head);
        check_counts(&replayed);
    }
}

/// A repeat of the newest sample finds it among the open points, unless retention dropped them.
#[track_caller]
fn check_newest_is_open(head: &Head) {
    for Hot { newest_ms, open } in &head.hot {
        let newest = open.points(&head.points).last().map(|point| point.timestamp_ms);
        assert_eq!(newest.unwrap_or(i64::MIN), *newest_ms);
    }
}

/// What is counted equals what is there.
#[track_caller]
fn check_counts(head: &Head) {
    let report = head.report();
    let mut samples = 0;
    let mut sealed_bytes = 0;
    let mut open_bytes = 0;
    for (id, list) in head.sealed.iter().enumerate() {
        samples += list.iter().map(|sealed| u64::from(sealed.chunk.count())).sum::<u64>();
        sealed_bytes += list.iter().map(Sealed::heap_bytes).sum::<u64>();
        sealed_bytes += (list.capacity() * size_of::<Sealed>()) as u64;
        let open = head.hot[id].open;
        let side = head.side.get(&(id as u32)).copied().unwrap_or_default();
        samples += u64::from(open.len) + u64::from(side.len);
        open_bytes += (u64::from(open.capacity) + u64::from(side.capacity)) * 16;
    }
    assert_eq!(report.samples, samples);
    assert_eq!(report.sealed_bytes, sealed_bytes);
    assert_eq!(report.open_bytes, open_bytes);
    assert_eq!(report.chunks, head.sealed.iter().map(Vec::len).sum::<usize>() as u64);
    assert!(report.bytes >= report.open_bytes + report.sealed_bytes + report.label_bytes);
}

#[test]
fn snapshot_and_log_converge() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut head = Head::new(LIMITS);
        let mut clock_ms = Vec::new();
        // (series known by then, batch): the log since the snapshot began.
        let mut log: Vec<(u32, Batch)> = Vec::new();
        let grow = |random: &mut Random, head: &mut Head, clock_ms: &mut Vec<i64>| {
            for _ in 0..random.below(4) {
                register(head, clock_ms.len() as u32);
                clock_ms.push(1_000_000);
            }
        };
        register(&mut head, 0);
        clock_ms.push(1_000_000);
        for _ in 0..10 {
            grow(&mut random, &mut head, &mut clock_ms);
            append(&mut head, &mut random_batch(&mut random, &mut clock_ms, 300));
        }
        let mut pieces = Vec::new();
        let mut next = Row(0);
        while next.0 < head.row_count() {
            next = head.snapshot_piece(next, &mut pieces, 4000);
            if random.below(2) == 0 {
                let samples = random.below(300) as usize;
                grow(&mut random, &mut head, &mut clock_ms);
                let mut batch = random_batch(&mut random, &mut clock_ms, samples);
                append(&mut head, &mut batch);
                log.push((head.series_count(), batch));
            }
        }
        let mut loaded = Head::new(LIMITS);
        let mut rest = &pieces[..];
        while !rest.is_empty() {
            let (_, len) = SnapshotPiece::check(rest).expect("our own piece");
            loaded.load_piece(rest).expect("our own piece");
            rest = &rest[len..];
        }
        check_counts(&loaded);
        for (series, batch) in &log {
            (0..*series).for_each(|number| {
                assert_eq!(register(&mut loaded, number), SeriesId(number));
            });
            replay(&mut loaded, batch);
        }
        for id in 0..head.series_count() {
            if id < loaded.series_count() {
                assert_eq!(read(&loaded, id), read(&head, id), "seed={seed} series={id}");
            } else {
                assert!(read(&head, id).is_empty(), "seed={seed} series={id} is lost");
            }
        }
    }
}

#[test]
fn absorbing_twice_changes_nothing() {
    let mut random = Random(9);
    let mut head = Head::new(LIMITS);
    (0..5).for_each(|number| {
        register(&mut head, number);
    });
    let mut clock_ms = vec![1_000_000; 5];
    append(&mut head, &mut random_batch(&mut random, &mut clock_ms, 5000));
    let mut piece = Vec::new();
    let end = head.snapshot_piece(Row(0), &mut piece, usize::MAX);
    assert_eq!(end, Row(5));
    assert_eq!(head.snapshot_piece(end, &mut piece, usize::MAX), end);
    let mut loaded = Head::new(LIMITS);
    for _ in 0..2 {
        assert_eq!(loaded.load_piece(&piece), Ok(5));
        for id in 0..5 {
            assert_eq!(read(&loaded, id), read(&head, id));
            let mut labels = Vec::new();
            loaded.index().encode_labels(loaded.row_of(SeriesId(id)).0, &mut labels);
            assert_eq!(labels, labels_of(id));
        }
    }
}

#[test]
fn damaged_pieces_are_refused() {
    let mut random = Random(10);
    let mut head = Head::new(LIMITS);
    register(&mut head, 0);
    append(&mut head, &mut random_batch(&mut random, &mut [1_000_000], 200));
    let mut piece = Vec::new();
    head.snapshot_piece(Row(0), &mut piece, usize::MAX);
    for bit in 0..piece.len() * 8 {
        let mut bad = piece.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Head::new(LIMITS).load_piece(&bad).is_err(), "bit {bit}");
    }
    for len in 0..piece.len() {
        assert!(Head::new(LIMITS).load_piece(&piece[..len]).is_err(), "len {len}");
    }
}

/// A piece whose checksum was made to match: wrong on purpose, or by a bug of an older version.
#[test]
fn forged_pieces_never_panic() {
    let mut random = Random(11);
    let mut head = Head::new(LIMITS);
    (0..2).for_each(|number| {
        register(&mut head, number);
    });
    let mut clock_ms = vec![1_000_000; 2];
    append(&mut head, &mut random_batch(&mut random, &mut clock_ms, 300));
    let mut piece = Vec::new();
    head.snapshot_piece(Row(0), &mut piece, usize::MAX);
    let mut faults = 0;
    for _ in 0..20_000 {
        let mut bad = piece.clone();
        for _ in 0..=random.below(3) {
            let at = 16 + random.below(bad.len() as u64 - 16) as usize;
            bad[at] = random.next() as u8;
        }
        let crc = crate::base::checksum::crc32c(&bad[..12]);
        let crc = crate::base::checksum::crc32c_append(crc, &[0; 4]);
        let crc = crate::base::checksum::crc32c_append(crc, &bad[16..]);
        bad[12..16].copy_from_slice(&crc.to_le_bytes());
        faults += u32::from(Head::new(LIMITS).load_piece(&bad).is_err());
    }
    assert!(faults > 1000, "{faults}");
}

#[test]
fn repeats_and_late_samples_are_counted() {
    let mut head = Head::new(LIMITS);
    let id = register(&mut head, 0).0;
    let mut refused = Vec::new();
    let mut write = |head: &mut Head, timestamp_ms: i64, value: f64| {
        refused.clear();
        head.append(&[id], &[timestamp_ms], &[value], &mut refused);
        refused.first().map(|each: &RefusedSample| each.reason)
    };
    assert_eq!(write(&mut head, i64::MIN, 1.0), None);
    assert_eq!(write(&mut head, 10_000, 1.0), None);
    assert_eq!(write(&mut head, 10_000, 1.0), None);
    assert_eq!(write(&mut head, 10_000, 2.0), None);
    assert_eq!(write(&mut head, 9_000, 2.0), None);
    assert_eq!(write(&mut head, 5_000, 2.0), None);
    assert_eq!(write(&mut head, 4_999, 2.0), Some(Refusal::TooOld));
    assert_eq!(write(&mut head, i64::MAX, 2.0), None);
    let report = head.report();
    assert_eq!((report.samples, report.duplicates, report.out_of_order), (5, 2, 2));
}

#[test]
fn at_the_limit_nothing_gets_in() {
    let mut head = Head::new(HeadLimits { bytes_max: 2 << 20, ..LIMITS });
    let mut number = 0;
    let full = loop {
        let labels = labels_of(number);
        let hash = SeriesHash::of(TenantId(0), &labels);
        match head.register(TenantId(0), hash, &labels) {
            Ok(id) => assert_eq!(id, SeriesId(number)),
            Err(refusal) => break refusal,
        }
        number += 1;
    };
    assert_eq!(full, Refusal::HeadFull);
    assert_eq!(register(&mut head, 0), SeriesId(0), "known ones are still found");
    let mut refused = Vec::new();
    head.append(&[0, 1], &[1, 1], &[1.0, 1.0], &mut refused);
    let reason = Refusal::HeadFull;
    assert_eq!(refused, [0, 1].map(|index| RefusedSample { index, reason }));
    head.replay(&[0, 1], &[1, 1], &[1.0, 1.0], &[1]);
    assert_eq!((read(&head, 0).len(), read(&head, 1).len()), (1, 0), "replay is not refused");
    let labels = labels_of(number);
    let hash = SeriesHash::of(TenantId(0), &labels);
    assert!(head.register_again(TenantId(0), hash, &labels).is_ok());
}

/// The pages of raw points were never given back, and counted as if they were in use: a head that
/// was full of points took nothing any more, however much of it went to blocks, until a restart.
///
/// Red when neither pages are given back nor free slots count as room.
#[test]
fn a_head_that_was_full_of_points_takes_samples_again() {
    let mut head = Head::new(HeadLimits { bytes_max: 4 << 20, ..LIMITS });
    for number in 0..4000 {
        register(&mut head, number);
    }
    let mut refused = Vec::new();
    let mut time_ms = 0;
    while refused.is_empty() {
        time_ms += 1;
        (0..4000).for_each(|row| head.append(&[row], &[time_ms], &[1.0], &mut refused));
    }
    assert!(time_ms < i64::from(points::SLOT_POINTS_MAX), "no chunk is sealed");
    refused.clear();
    let samples = head.report().samples;
    let flushed = crate::node::tests::flush(&mut head, time_ms);
    assert_eq!((flushed.len(), head.report().samples), (4000, 0));
    for later_ms in time_ms + 1..2 * time_ms {
        (0..4000).for_each(|row| head.append(&[row], &[later_ms], &[1.0], &mut refused));
    }
    assert_eq!(refused, []);
    assert!(head.report().samples > samples * 9 / 10);
}

#[test]
fn labels_that_are_not_canonical_are_refused() {
    let mut head = Head::new(LIMITS);
    let refused = head.register(TenantId(0), SeriesHash(1), b"\x0a\x03nonsense");
    assert_eq!(refused, Err(Refusal::CorruptBody));
    assert_eq!(head.series_count(), 0);
}

#[test]
fn what_was_flushed_leaves_and_nothing_else() {
    let mut random = Random(12);
    let series = 50;
    let mut head = Head::new(LIMITS);
    (0..series).for_each(|number| {
        register(&mut head, number);
    });
    // The range ends in the middle of what is written.
    let range_end_ms = BLOCK_RANGE_MS;
    let mut clock_ms = vec![range_end_ms - 12_000; series as usize];
    let mut flushed: Vec<BTreeMap<i64, u64>> = vec![BTreeMap::new(); series as usize];
    for round in 0..20 {
        append(&mut head, &mut random_batch(&mut random, &mut clock_ms, 3000));
        let cut_ms = range_end_ms - 1;
        let cut = match round % 3 {
            0 => FlushCut { chunks_until_ms: cut_ms, points_until_ms: cut_ms },
            1 => FlushCut { chunks_until_ms: i64::MAX, points_until_ms: cut_ms },
            _ => FlushCut { chunks_until_ms: i64::MAX, points_until_ms: i64::MAX },
        };
        let rows = (0..series).map(Row);
        let before: Vec<_> = rows.clone().map(|row| read(&head, row.0)).collect();
        let taken: Vec<_> = rows.filter_map(|row| head.take_flush(row, cut)).collect();
        // What comes behind stays, however late.
        append(&mut head, &mut random_batch(&mut random, &mut clock_ms, 3000));
        let with_late: Vec<_> = (0..series).map(|id| read(&head, id)).collect();
        for (series, taken) in &taken {
            let id = taken.id.0;
            let out = decoded(series);
            assert!(out.keys().all(|time_ms| before[id as usize].contains_key(time_ms)));
            head.drop_flushed(*taken, cut);
            let after = read(&head, id);
            // The head above the block reads as before, and what is only in the block was taken.
            let mut merged = out.clone();
            merged.extend(&after);
            assert_eq!(merged, with_late[id as usize], "series={id} round={round}");
            flushed[id as usize].extend(out);
        }
        check_counts(&head);
        if round % 3 == 2 {
            assert!(taken.len() > 40);
        }
    }
    assert!(flushed.iter().all(|samples| samples.len() > 500));
    crate::node::tests::flush(&mut head, i64::MAX);
    assert_eq!((head.report().samples, head.report().open_bytes), (0, 0));
    assert_eq!((head.report().chunks, head.sealed_bytes()), (0, 0));
    // A series that lost all its points still takes the next, and a late one.
    let newest_ms = clock_ms[3];
    let mut refused = Vec::new();
    let times = [newest_ms - 10, newest_ms, newest_ms + 5, newest_ms - WINDOW_MS - 1];
    head.append(&[3; 4], &times, &[1.0; 4], &mut refused);
    assert_eq!(read(&head, 3).len(), 3);
    assert_eq!(refused.len(), 1);
}

fn decoded(series: &FlushSeries) -> BTreeMap<i64, u64> {
    let mut samples = Vec::new();
    series.chunks.iter().for_each(|chunk| chunk.decode(&mut samples).expect("our own chunk"));
    samples.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits())).collect()
}

#[test]
fn deletions_hit_what_they_name_and_nothing_else() {
    let mut random = Random(13);
    let series = 40;
    let mut head = Head::new(LIMITS);
    (0..series).for_each(|number| {
        register(&mut head, number);
    });
    let mut clock_ms = vec![BLOCK_RANGE_MS - 12_000; series as usize];
    for (id, round) in (1..).zip(0..60) {
        append(&mut head, &mut random_batch(&mut random, &mut clock_ms, 1500));
        let before: Vec<_> = (0..series).map(|id| read(&head, id)).collect();
        let metric = random.below(7);
        let start_ms = BLOCK_RANGE_MS - 13_000 + random.below(20_000).cast_signed();
        let end_ms = start_ms + random.below(5_000).cast_signed();
        let (start_ms, end_ms) =
            if round % 20 == 19 { (i64::MIN, i64::MAX) } else { (start_ms, end_ms) };
        let value = format!("metric_{metric}");
        let matcher =
            Matcher { name: "__name__".to_owned(), operator: MatchOperator::Equal, value };
        let tenant = TenantId(0);
        head.delete(&Deletion { id, tenant, matchers: vec![matcher], start_ms, end_ms });
        for (number, before) in (0..series).zip(before) {
            let mut want = before;
            if u64::from(number % 7) == metric {
                want.retain(|time_ms, _| *time_ms < start_ms || end_ms < *time_ms);
            }
            assert_eq!(read(&head, number), want, "series={number} round={round}");
        }
        check_counts(&head);
        let (mut piece, mut restarted) = (Vec::new(), Head::new(LIMITS));
        head.snapshot_piece(Row(0), &mut piece, usize::MAX);
        assert_eq!(restarted.load_piece(&piece), Ok(series), "round={round}");
    }
}

/// A clock that was a day ahead left samples of tomorrow. To delete them did not help: their series
/// took nothing until tomorrow, as if it were too old.
///
/// Red when the newest time stays what it was.
#[test]
fn samples_of_a_wrong_clock_can_be_deleted() {
    const DAY_MS: i64 = 24 * 3_600_000;
    let mut head = Head::new(LIMITS);
    let mut refused = Vec::new();
    (0..4).for_each(|number| {
        register(&mut head, number);
    });
    // 0: nothing else. 1: points. 2: a chunk, and nothing open. 3: late points, and nothing open.
    head.append(&[1, 2], &[5000, 5000], &[1.0; 2], &mut refused);
    crate::node::tests::flush(&mut head, i64::MIN);
    let cut = FlushCut { chunks_until_ms: i64::MIN, points_until_ms: 5000 };
    assert!(head.take_flush(Row(2), cut).is_none());
    head.append(&[0, 1, 2, 3], &[DAY_MS + 9000; 4], &[2.0; 4], &mut refused);
    head.append(&[3], &[DAY_MS + 6000], &[2.0], &mut refused);
    head.append(&[0, 1, 2], &[6000; 3], &[3.0; 3], &mut refused);
    assert_eq!(refused.len(), 3, "tomorrow keeps today out");
    refused.clear();
    let matchers = vec![Matcher {
        name: "__name__".to_owned(),
        operator: MatchOperator::NotEqual,
        value: String::new(),
    }];
    let (tenant, start_ms, end_ms) = (TenantId(0), DAY_MS, 2 * DAY_MS);
    head.delete(&Deletion { id: 1, tenant, matchers, start_ms, end_ms });
    head.append(&[0, 1, 2, 3], &[6000; 4], &[4.0; 4], &mut refused);
    head.append(&[1, 2], &[5000; 2], &[5.0; 2], &mut refused);
    assert_eq!(refused, []);
    let (four, five) = (4.0_f64.to_bits(), 5.0_f64.to_bits());
    for (id, want) in [(0, 1), (1, 2), (2, 2), (3, 1)] {
        let samples = read(&head, id);
        assert_eq!((samples.len(), samples[&6000]), (want, four), "id={id}");
        assert!(want == 1 || samples[&5000] == five, "id={id}");
    }
}
