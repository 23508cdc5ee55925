//! A shard's frames and acks around writes that succeed, fail, or find no room.

use super::*;
use crate::base::time::{Duration, monotonic_now};
use crate::model::series::SeriesId;
use crate::node::tests::{Disk, Named, courses, empty_log, frame, full_head, head, points};

/// A shard whose log has no segment yet.
fn unprovided(head: Head) -> NodeShard {
    NodeShard::new(head, empty_log(), courses(), 0)
}

fn provide(shard: &mut NodeShard, outcome: Result<(), i32>) {
    let request = shard.poll_segment_request().expect("a segment is wanted");
    let SegmentRequest::Prepare { segment, .. } = request else { panic!("nothing to retire") };
    shard.handle_segment_ready(segment, outcome);
}

fn shard(head: Head) -> NodeShard {
    let mut shard = unprovided(head);
    provide(&mut shard, Ok(()));
    shard
}

/// One sample of a new series with this number.
fn take(shard: &mut NodeShard, sequence: u64, number: u32) -> FrameReceipt {
    shard.handle_frame(&frame(sequence, &[(Named::New(number), 1, 0.5)]))
}

#[test]
fn a_frame_is_acked_when_it_is_durable_and_not_before() {
    let (mut shard, now) = (shard(head()), monotonic_now());
    assert_eq!(take(&mut shard, 1, 10), FrameReceipt::Taken);
    assert!(shard.poll_ack().is_none() && !shard.is_idle());
    let operation = shard.poll_operation(now).expect("a write");
    assert!(shard.poll_ack().is_none(), "submitted is not durable");
    // What comes while a write is under way is acked by the next one, both frames of it at once.
    assert_eq!(take(&mut shard, 2, 11), FrameReceipt::Taken);
    assert_eq!(take(&mut shard, 3, 10), FrameReceipt::Taken);
    let mut disk = Disk::new();
    shard.handle_written(now + Duration::from_millis(2), disk.write(operation), Ok(()));
    let ack = Ack { sequence: 1, assigned: vec![Ok(SeriesId(0))], refused: Vec::new() };
    assert_eq!((shard.poll_ack(), shard.poll_ack()), (Some(ack), None));
    let operation = shard.poll_operation(now).expect("a write");
    shard.handle_written(now, disk.write(operation), Ok(()));
    let acks: Vec<_> = std::iter::from_fn(|| shard.poll_ack()).collect();
    let seen = acks.iter().map(|ack| (ack.sequence, ack.assigned[0]));
    assert_eq!(seen.collect::<Vec<_>>(), [(2, Ok(SeriesId(1))), (3, Ok(SeriesId(0)))]);
    assert!(shard.is_idle());
    let stats = shard.stats();
    assert_eq!((stats.frames, stats.writes), (3, 2));
    let mut durable = 0;
    disk.read(|_| durable += 1);
    assert_eq!(durable, 3);
}

#[test]
fn what_the_head_refuses_is_in_the_ack() {
    let (mut shard, now) = (shard(full_head()), monotonic_now());
    assert_eq!(take(&mut shard, 1, 10), FrameReceipt::Taken);
    let operation = shard.poll_operation(now).expect("a write");
    shard.handle_written(now, Disk::new().write(operation), Ok(()));
    let ack = shard.poll_ack().expect("durable");
    assert_eq!(ack.assigned, [Err(Refusal::HeadFull)]);
    assert_eq!((ack.refused[0].index, ack.refused[0].reason), (0, Refusal::HeadFull));
}

#[test]
fn a_failed_write_acks_nothing_and_refuses_what_follows() {
    let (mut shard, now) = (shard(head()), monotonic_now());
    assert_eq!(take(&mut shard, 1, 10), FrameReceipt::Taken);
    let operation = shard.poll_operation(now).expect("a write");
    assert_eq!(take(&mut shard, 2, 11), FrameReceipt::Taken);
    shard.handle_written(now, Disk::new().write(operation), Err(libc::EIO));
    assert!(shard.poll_ack().is_none() && shard.poll_operation(now).is_none());
    assert!(shard.is_idle(), "no ack will come, so nobody waits for one");
    assert_eq!(take(&mut shard, 3, 12), FrameReceipt::Refused(Refusal::LogFailed));
    assert_eq!(shard.head().series_count(), 2, "a refused frame changes nothing");
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    let mut shard = unprovided(head());
    assert_eq!(take(&mut shard, 1, 10), FrameReceipt::Delayed, "the segment is on its way");
    provide(&mut shard, Err(libc::ENOSPC));
    assert_eq!(take(&mut shard, 1, 10), FrameReceipt::Refused(Refusal::DiskFull));
    assert!(shard.poll_segment_request().is_none(), "not before the retry");
    assert_eq!((shard.head().series_count(), shard.stats().frames), (0, 0));
    shard.handle_retry();
    provide(&mut shard, Ok(()));
    assert_eq!(take(&mut shard, 1, 10), FrameReceipt::Taken);
    assert_eq!(points(shard.head(), 0), [(1, 0.5)]);
}

/// A deletion that a shard could not log, as its disk was full, was in `BLOCKS` already: it hid
/// whatever that shard took and flushed from then on, for ever, and merges removed it.
///
/// Red when a shard that refuses a deletion forgets its id.
#[test]
fn a_deletion_that_cannot_be_logged_hides_nothing_that_comes_later() {
    let mut shard = unprovided(head());
    provide(&mut shard, Err(libc::ENOSPC));
    let matchers = vec![crate::model::matcher::Matcher::equal("__name__", "metric_10")];
    let (start_ms, end_ms) = (i64::MIN, i64::MAX);
    let tenant = crate::model::series::TenantId(0);
    let deletion = Deletion { id: 7, tenant, matchers, start_ms, end_ms };
    assert_eq!(shard.handle_delete(&deletion), FrameReceipt::Refused(Refusal::DiskFull));
    shard.handle_retry();
    provide(&mut shard, Ok(()));
    assert_eq!(take(&mut shard, 1, 10), FrameReceipt::Taken);
    shard.handle_flush_request();
    let begin = (0..3).find_map(|_| shard.poll_flush());
    let Some(FlushStep::Begin { tombstones_applied, .. }) = begin else { panic!("{begin:?}") };
    assert_eq!(tombstones_applied, 7, "what is in memory now has seen it");
}
