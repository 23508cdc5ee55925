//! Records that a shard wrote, replayed whole, with some of them missing, and behind a snapshot.

use super::*;
use crate::base::time::monotonic_now;
use crate::node::shard::{FrameReceipt, NodeShard};
use crate::node::tests::{
    Disk, Named, WINDOW_MS, courses, empty_log, frame, hash_of, head, points, provide,
};

type Samples<'a> = &'a [(Named, i64, f64)];

/// What a shard leaves behind that took these frames, one record each.
fn written(frames: &[Samples]) -> (NodeShard, Disk) {
    let (mut log, mut disk) = (empty_log(), Disk::new());
    provide(&mut log);
    let mut shard = NodeShard::new(head(), log, courses(), 0);
    for (sequence, samples) in (1..).zip(frames) {
        assert_eq!(shard.handle_frame(&frame(sequence, samples)), FrameReceipt::Taken);
    }
    let operation = shard.poll_operation(monotonic_now()).expect("a write");
    shard.handle_written(monotonic_now(), disk.write(operation), Ok(()));
    (shard, disk)
}

fn replayed(disk: &Disk, missing: &[u64]) -> (Head, ReplayLoss) {
    let mut replay = HeadReplay::new(head());
    disk.read(|record| {
        if !missing.contains(&record.sequence()) {
            replay.handle_record(record);
        }
    });
    replay.finish()
}

const FRAMES: [Samples; 3] = [
    &[(Named::New(10), 1, 0.1)],
    &[(Named::New(11), 1, 1.1), (Named::Id(0), 2, 0.2)],
    &[(Named::Id(1), 2, 1.2), (Named::Id(0), 3, 0.3), (Named::New(12), 1, 2.1)],
];

#[test]
fn all_records_give_the_same_head() {
    let (shard, disk) = written(&FRAMES);
    let (head, loss) = replayed(&disk, &[]);
    assert_eq!((loss, loss.must_rebuild()), (ReplayLoss::default(), false));
    assert_eq!(head.series_count(), 3);
    for id in 0..3 {
        assert_eq!(head.identity(SeriesId(id)), shard.head().identity(SeriesId(id)));
        assert_eq!(points(&head, id), points(shard.head(), id));
    }
}

#[test]
fn samples_of_a_series_whose_registration_is_missing_are_counted_and_go_nowhere() {
    let (_, disk) = written(&FRAMES);
    // Without the first record, series 10 (id 0) is unknown; 11 and 12 keep their ids.
    let (head, loss) = replayed(&disk, &[1]);
    let want = ReplayLoss { samples_of_unknown_series: 2, ..ReplayLoss::default() };
    assert_eq!((loss, loss.must_rebuild()), (want, true));
    assert_eq!((head.series_count(), head.find(hash_of(10))), (2, None));
    assert_eq!(ids_of(&head), [(11, 1), (12, 2)]);
    assert_eq!(points(&head, head.row_of(SeriesId(1)).0), [(1, 1.1), (2, 1.2)]);
    assert_eq!(points(&head, head.row_of(SeriesId(2)).0), [(1, 2.1)]);
    assert_eq!(head.next_id(), 3);
    // The same for one in the middle: what is behind it is not taken for the series in its place.
    let (head, loss) = replayed(&disk, &[2]);
    assert_eq!((loss.samples_of_unknown_series, loss.moved_ids), (1, 0));
    assert_eq!(ids_of(&head), [(10, 0), (12, 2)]);
    assert_eq!(points(&head, 0), [(1, 0.1), (3, 0.3)]);
    assert_eq!(points(&head, head.row_of(SeriesId(2)).0), [(1, 2.1)]);
}

/// Which of the series 10 to 12 are there, and their ids.
fn ids_of(head: &Head) -> Vec<(u32, u32)> {
    let known = |number| head.find(hash_of(number)).map(|SeriesId(id)| (number, id));
    (10..=12).filter_map(known).collect()
}

/// Red when a series that left and came back keeps the id that it had first, or when the id of
/// another series is taken.
#[test]
fn a_series_that_came_back_goes_on_under_its_new_id() {
    let (mut log, mut disk) = (empty_log(), Disk::new());
    provide(&mut log);
    let new = |number| frame(1, &[(Named::New(number), 1, f64::from(number))]);
    log.append(&new(10), &[Ok(SeriesId(4))], &[]).expect("room");
    log.append(&new(10), &[Ok(SeriesId(9))], &[]).expect("room");
    log.append(&frame(2, &[(Named::Id(9), 2, 0.5)]), &[], &[]).expect("room");
    log.append(&frame(3, &[(Named::Id(4), 3, 0.5)]), &[], &[]).expect("room");
    let operation = log.poll_operation().expect("a write");
    log.handle_written(disk.write(operation), Ok(()));
    let (head, loss) = replayed(&disk, &[]);
    assert_eq!(loss, ReplayLoss { samples_of_unknown_series: 1, ..ReplayLoss::default() });
    assert_eq!((ids_of(&head), head.next_id()), (vec![(10, 9)], 10));
    assert_eq!(points(&head, head.row_of(SeriesId(9)).0), [(1, 10.0), (2, 0.5)]);
    // A log of ours never gives an id to two series. One that does is not believed.
    log.append(&new(11), &[Ok(SeriesId(9))], &[]).expect("room");
    log.append(&frame(4, &[(Named::Id(9), 5, 1.5)]), &[], &[]).expect("room");
    let operation = log.poll_operation().expect("a write");
    log.handle_written(disk.write(operation), Ok(()));
    let (head, loss) = replayed(&disk, &[]);
    assert_eq!((loss.moved_ids, ids_of(&head)), (1, vec![(10, 9), (11, 10)]));
    assert_eq!(points(&head, head.row_of(SeriesId(10)).0), [(1, 11.0), (5, 1.5)]);
}

#[test]
fn refused_samples_stay_refused() {
    let frames: [Samples; 3] = [
        &[(Named::New(10), 10 * WINDOW_MS, 0.1), (Named::Malformed, 1, 9.0)],
        &[(Named::Id(0), 1, 9.0), (Named::Id(0), 10 * WINDOW_MS + 1, 0.2)],
        &[(Named::Malformed, 2, 9.0), (Named::New(11), 1, 1.1)],
    ];
    let (_, disk) = written(&frames);
    let (head, loss) = replayed(&disk, &[]);
    assert_eq!(loss, ReplayLoss::default());
    assert_eq!(points(&head, 0), [(10 * WINDOW_MS, 0.1), (10 * WINDOW_MS + 1, 0.2)]);
    assert_eq!(points(&head, 1), [(1, 1.1)]);
    // Without the first record nothing says how new the series was: the refusal itself does.
    let (head, loss) = replayed(&disk, &[1]);
    assert_eq!((head.series_count(), loss.samples_of_unknown_series), (1, 1));
}

#[test]
fn records_that_are_no_frames_are_counted_and_passed_over() {
    let (mut log, mut disk) = (empty_log(), Disk::new());
    provide(&mut log);
    let good = frame(1, FRAMES[0]);
    log.append(b"no frame", &[], &[]).expect("room");
    // A frame with a new series, and no id for it.
    log.append(&good, &[], &[]).expect("room");
    log.append(&good, &[Ok(SeriesId(0))], &[]).expect("room");
    let operation = log.poll_operation().expect("a write");
    log.handle_written(disk.write(operation), Ok(()));
    let (head, loss) = replayed(&disk, &[]);
    assert_eq!(loss, ReplayLoss { frames: 2, ..ReplayLoss::default() });
    assert_eq!(points(&head, 0), [(1, 0.1)]);
}

#[test]
fn records_behind_a_snapshot_use_its_ids() {
    let (shard, disk) = written(&FRAMES);
    let mut piece = Vec::new();
    assert_eq!(shard.head().snapshot_piece(Row(0), &mut piece, 1 << 20), Row(3));
    let mut replay = HeadReplay::new(head());
    replay.handle_piece(&piece);
    // The last record again, which names ids of the snapshot: the same samples are the same.
    disk.read(|record| {
        if record.sequence() == 3 {
            replay.handle_record(record);
        }
    });
    let (head, loss) = replay.finish();
    assert_eq!(loss, ReplayLoss::default());
    for id in 0..3 {
        assert_eq!(points(&head, id), points(shard.head(), id));
    }
    let mut replay = HeadReplay::new(crate::node::tests::head());
    piece.truncate(piece.len() - 1);
    replay.handle_piece(&piece);
    assert_eq!(replay.finish().1, ReplayLoss { pieces: 1, ..ReplayLoss::default() });
}
