//! The course of snapshots: when they begin, how far they run ahead, and what a failure costs.

use super::*;
use crate::model::series::TenantId;
use crate::node::tests::{empty_log, hash_of, head, labels_of, provide};

const LOG_BYTES_MAX: u64 = 64 << 10;

/// Enough series for several pieces.
fn large_head() -> Head {
    let mut head = head();
    for number in 0..10_000 {
        head.register(TenantId(0), hash_of(number), &labels_of(number)).expect("room");
    }
    head
}

/// A log with a spare segment that has grown by `bytes` at least.
fn grown_log(bytes: u64) -> Log {
    let mut log = empty_log();
    grow(&mut log, bytes);
    log
}

fn grow(log: &mut Log, bytes: u64) {
    let until = log.bytes_since_snapshot() + bytes;
    while log.bytes_since_snapshot() < until {
        provide(log);
        log.append(&[0; 8 << 10], &[], &[]).expect("room");
        if let Some(crate::node::log::LogOperation::WriteSync { buffer, .. }) = log.poll_operation()
        {
            log.handle_written(buffer, Ok(()));
        }
    }
    provide(log);
}

/// Takes steps until the end; returns how many pieces there were.
fn run_to_end(course: &mut SnapshotCourse, head: &Head, log: &mut Log) -> usize {
    let mut pieces = 0;
    loop {
        match course.poll(head, log).expect("each piece is taken at once") {
            SnapshotStep::Begin(_) => panic!("it has begun"),
            SnapshotStep::Piece(piece) => {
                course.handle_piece_taken(piece);
                pieces += 1;
            }
            SnapshotStep::End => return pieces,
        }
    }
}

#[test]
fn it_begins_when_the_log_has_grown_and_a_spare_segment_is_there() {
    let (head, mut log) = (head(), grown_log(LOG_BYTES_MAX / 2));
    let mut course = SnapshotCourse::new(LOG_BYTES_MAX);
    assert_eq!(course.poll(&head, &mut log), None);
    grow(&mut log, LOG_BYTES_MAX / 2);
    let begun = course.poll(&head, &mut log);
    let Some(SnapshotStep::Begin(position)) = begun else { panic!("{begun:?}") };
    // It goes on behind all that is written, in a segment of its own.
    assert_eq!((position.segment, position.sequence), (2, log.appended_sequence() + 1));
    let piece = course.poll(&head, &mut log);
    assert!(matches!(piece, Some(SnapshotStep::Piece(_))), "an empty head says what is next");
    assert_eq!(course.poll(&head, &mut log), Some(SnapshotStep::End));
    course.handle_done(&mut log, Ok(()));
    assert_eq!((log.bytes_since_snapshot(), course.poll(&head, &mut log)), (0, None));
}

#[test]
fn it_runs_two_pieces_ahead_of_the_background_and_holds_every_series() {
    let (head, mut log) = (large_head(), grown_log(LOG_BYTES_MAX));
    let mut course = SnapshotCourse::new(LOG_BYTES_MAX);
    assert!(matches!(course.poll(&head, &mut log), Some(SnapshotStep::Begin(_))));
    let mut copy = crate::node::tests::head();
    let mut ahead = Vec::new();
    while let Some(SnapshotStep::Piece(piece)) = course.poll(&head, &mut log) {
        copy.load_piece(&piece).expect("our own piece");
        ahead.push(piece);
    }
    assert_eq!((ahead.len(), course.is_ready()), (2, false));
    course.handle_piece_taken(ahead.pop().expect("two"));
    assert!(course.is_ready());
    course.handle_piece_taken(ahead.pop().expect("two"));
    let end = loop {
        match course.poll(&head, &mut log) {
            Some(SnapshotStep::Piece(piece)) => {
                copy.load_piece(&piece).expect("our own piece");
                course.handle_piece_taken(piece);
            }
            step => break step,
        }
    };
    assert_eq!(end, Some(SnapshotStep::End));
    assert_eq!(copy.series_count(), head.series_count());
}

#[test]
fn the_next_one_waits_until_the_log_is_as_long_as_the_last_one() {
    let (head, mut log) = (large_head(), grown_log(LOG_BYTES_MAX));
    let mut course = SnapshotCourse::new(LOG_BYTES_MAX);
    assert!(matches!(course.poll(&head, &mut log), Some(SnapshotStep::Begin(_))));
    let pieces = run_to_end(&mut course, &head, &mut log);
    course.handle_done(&mut log, Ok(()));
    let last_bytes = (pieces - 1) as u64 * PIECE_BYTES as u64;
    assert!(last_bytes > LOG_BYTES_MAX);
    grow(&mut log, last_bytes / 2);
    assert_eq!(course.poll(&head, &mut log), None);
    grow(&mut log, last_bytes);
    assert!(matches!(course.poll(&head, &mut log), Some(SnapshotStep::Begin(_))));
}

#[test]
fn a_failure_keeps_the_log_and_is_tried_again_a_little_later() {
    let (head, mut log) = (large_head(), grown_log(LOG_BYTES_MAX));
    let mut course = SnapshotCourse::new(LOG_BYTES_MAX);
    assert!(matches!(course.poll(&head, &mut log), Some(SnapshotStep::Begin(_))));
    let Some(SnapshotStep::Piece(piece)) = course.poll(&head, &mut log) else { panic!("a piece") };
    let before = log.bytes_since_snapshot();
    course.handle_done(&mut log, Err(libc::ENOSPC));
    assert_eq!((log.bytes_since_snapshot(), course.is_ready()), (before, false));
    // Its piece comes back late and must not count for the next one.
    course.handle_piece_taken(piece);
    provide(&mut log);
    assert_eq!(course.poll(&head, &mut log), None, "not at once");
    grow(&mut log, LOG_BYTES_MAX / 4);
    assert!(matches!(course.poll(&head, &mut log), Some(SnapshotStep::Begin(_))));
}

#[test]
fn a_failed_log_begins_none() {
    let (head, mut log) = (head(), grown_log(LOG_BYTES_MAX));
    let mut course = SnapshotCourse::new(LOG_BYTES_MAX);
    course.abandon();
    assert_eq!(course.poll(&head, &mut log), None);
}
