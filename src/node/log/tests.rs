//! Scripts of events for the log, and its segments read back. The fault injection is in
//! `tests/sim`.

use super::*;
use crate::base::bytes::AlignedBuffer;
use crate::model::refusal::Refusal;
use crate::model::series::SeriesId;
use crate::wire::ack::RefusedSample;

const IDENTITY: LogIdentity = LogIdentity { node: 0x1234, incarnation: 1, shard: 3 };
const NO_IDS: &[Result<SeriesId, Refusal>] = &[];
const NO_SAMPLES: &[RefusedSample] = &[];
const SEGMENT: usize = 1 << 20;
const _: () = assert!(SEGMENT as u64 == SEGMENT_BYTES_MIN);

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        buffer_bytes_max: 512 << 10,
        frame_bytes_max: 128 << 10,
        ..LogConfig::new(IDENTITY)
    }
}

fn empty_log() -> Log {
    Log::new(config(), LogPosition { segment: 1, sequence: 1 }, 0).expect("a good configuration")
}

/// A log whose first segment and spare are ready.
fn ready_log() -> Log {
    let mut log = empty_log();
    provide(&mut log, 1);
    log.append(b"first", NO_IDS, NO_SAMPLES).expect("room");
    provide(&mut log, 2);
    log
}

#[track_caller]
fn provide(log: &mut Log, segment: u64) {
    let want = SegmentRequest::Prepare { segment, bytes: SEGMENT_BYTES_MIN };
    assert_eq!(log.poll_segment_request(), Some(want));
    log.handle_segment_ready(segment, Ok(()));
}

#[track_caller]
fn take_write(log: &mut Log) -> (u64, u64, AlignedBuffer) {
    let LogOperation::WriteSync { segment, offset_bytes, len_bytes, buffer } =
        log.poll_operation().expect("something gathered");
    assert_eq!(buffer.len(), len_bytes as usize);
    assert!(offset_bytes.is_multiple_of(4096) && buffer.len().is_multiple_of(4096));
    (segment, offset_bytes, buffer)
}

fn read_segment(segment: u64, bytes: &[u8], piece: usize) -> (Vec<(u64, Vec<u8>)>, SegmentEnd) {
    let mut reader = SegmentReader::new(&IDENTITY);
    reader.begin(segment);
    let mut pieces = bytes[BLOCK_BYTES..].chunks(piece);
    let mut found = Vec::new();
    loop {
        match reader.poll_record() {
            ReaderStep::Record(record) => {
                assert!(record.frame().as_ptr().addr().is_multiple_of(16));
                found.push((record.sequence(), record.frame().to_vec()));
            }
            ReaderStep::NeedBytes => reader.handle_piece(pieces.next().unwrap_or(&[])),
            ReaderStep::End => return (found, reader.end()),
        }
    }
}

/// Three records in two groups: the first alone, then two together. Their frames, and the segment.
fn three_records() -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut log = empty_log();
    provide(&mut log, 1);
    let mut bytes = vec![0; SEGMENT];
    let frames = [vec![1; 5000], vec![2; 100], vec![3; 9001]];
    let mut write = |log: &mut Log| {
        let (_, offset, buffer) = take_write(log);
        let at = usize::try_from(offset).expect("small");
        bytes[at..at + buffer.len()].copy_from_slice(&buffer);
        log.handle_written(buffer, Ok(()));
    };
    log.append(&frames[0], NO_IDS, NO_SAMPLES).expect("room");
    write(&mut log);
    log.append(&frames[1], NO_IDS, NO_SAMPLES).expect("room");
    log.append(&frames[2], NO_IDS, NO_SAMPLES).expect("room");
    write(&mut log);
    (frames.to_vec(), bytes)
}

#[test]
fn durable_after_the_sync_and_not_before() {
    let mut log = ready_log();
    assert_eq!(log.append(b"second", NO_IDS, NO_SAMPLES), Ok(2));
    let (segment, offset, buffer) = take_write(&mut log);
    assert_eq!((segment, offset, log.durable_sequence()), (1, 4096, 0));
    assert_eq!(log.append(b"third", NO_IDS, NO_SAMPLES), Ok(3));
    assert!(log.poll_operation().is_none(), "one write at a time");
    log.handle_written(buffer, Ok(()));
    assert_eq!(log.durable_sequence(), 2);
    let (segment, offset, buffer) = take_write(&mut log);
    assert_eq!((segment, offset), (1, 8192));
    log.handle_written(buffer, Ok(()));
    assert_eq!((log.durable_sequence(), log.appended_sequence()), (3, 3));
    assert!(log.poll_operation().is_none());
}

#[test]
fn a_failed_sync_is_final() {
    let mut log = ready_log();
    let (_, _, buffer) = take_write(&mut log);
    log.append(b"behind it", NO_IDS, NO_SAMPLES).expect("room");
    log.handle_written(buffer, Err(libc::EIO));
    assert_eq!(log.state(), LogState::Failed { errno: libc::EIO });
    assert_eq!(log.append(b"x", NO_IDS, NO_SAMPLES), Err(LogRefusal::Failed));
    assert!(log.poll_operation().is_none() && log.poll_segment_request().is_none());
    assert_eq!((log.durable_sequence(), log.begin_snapshot()), (0, Err(LogRefusal::Failed)));
}

#[test]
fn buffers_are_bounded() {
    let mut log = ready_log();
    let frame = vec![7; 100 << 10];
    let (_, _, buffer) = take_write(&mut log);
    let mut taken = 0;
    while log.append(&frame, NO_IDS, NO_SAMPLES).is_ok() {
        taken += 1;
    }
    assert_eq!((taken, log.append(&frame, NO_IDS, NO_SAMPLES)), (5, Err(LogRefusal::Full)));
    assert!(log.memory_bytes() <= 1 << 20);
    log.handle_written(buffer, Ok(()));
    let (_, _, buffer) = take_write(&mut log);
    assert!(log.append(&frame, NO_IDS, NO_SAMPLES).is_ok());
    log.handle_written(buffer, Ok(()));
}

#[test]
fn a_full_disk_stops_it_only_when_the_segment_is_used_up_and_it_recovers() {
    let mut log = empty_log();
    provide(&mut log, 1);
    let frame = vec![7; 100 << 10];
    log.append(&frame, NO_IDS, NO_SAMPLES).expect("room");
    assert!(log.poll_segment_request().is_some());
    log.handle_segment_ready(2, Err(libc::ENOSPC));
    assert_eq!((log.state(), log.poll_segment_request()), (LogState::Running, None));
    let refusal = loop {
        match log.append(&frame, NO_IDS, NO_SAMPLES) {
            Ok(_) => {
                let (_, _, buffer) = take_write(&mut log);
                log.handle_written(buffer, Ok(()));
            }
            Err(refusal) => break refusal,
        }
    };
    let stopped = LogState::Stopped(ProvisionFault::DiskFull { errno: libc::ENOSPC });
    assert_eq!((refusal, log.state()), (LogRefusal::DiskFull, stopped));
    log.handle_retry();
    assert!(log.poll_segment_request().is_some());
    assert_eq!((log.state(), log.append(b"x", NO_IDS, NO_SAMPLES).is_ok()), (stopped, true));
    log.handle_segment_ready(2, Err(libc::EROFS));
    assert_eq!(log.append(&frame, NO_IDS, NO_SAMPLES), Err(LogRefusal::NotWritable));
    log.handle_retry();
    provide(&mut log, 2);
    assert_eq!(log.state(), LogState::Running);
    assert!(log.append(&frame, NO_IDS, NO_SAMPLES).is_ok());
}

#[test]
fn a_snapshot_starts_a_segment_and_retires_the_ones_below_when_nothing_flies_there() {
    let mut log = ready_log();
    let (_, _, buffer) = take_write(&mut log);
    log.append(b"second", NO_IDS, NO_SAMPLES).expect("room");
    let position = log.begin_snapshot().expect("a spare is there");
    assert_eq!(position, LogPosition { segment: 2, sequence: 3 });
    assert_eq!(log.begin_snapshot(), Err(LogRefusal::Full));
    provide(&mut log, 3);
    log.append(b"third", NO_IDS, NO_SAMPLES).expect("room");
    assert_eq!(log.bytes_since_snapshot(), 3 * 80);
    log.finish_snapshot(position);
    assert_eq!((log.bytes_since_snapshot(), log.poll_segment_request()), (80, None));
    log.handle_written(buffer, Ok(()));
    let (segment, _, buffer) = take_write(&mut log);
    assert_eq!((segment, log.poll_segment_request()), (1, None));
    log.handle_written(buffer, Ok(()));
    assert_eq!(log.poll_segment_request(), Some(SegmentRequest::Retire { below_segment: 2 }));
    let (segment, offset, buffer) = take_write(&mut log);
    assert_eq!((segment, offset), (2, 4096));
    log.handle_written(buffer, Ok(()));
    let position = log.begin_snapshot().expect("the spare");
    log.abandon_snapshot();
    assert_eq!(position.segment, 3);
    assert_eq!(log.begin_snapshot().expect("still fresh").segment, 3);
}

#[test]
fn what_was_appended_is_read_back_whatever_the_pieces() {
    let mut log = empty_log();
    provide(&mut log, 1);
    let ids = [Ok(SeriesId(4)), Err(Refusal::HeadFull), Ok(SeriesId(5))];
    let refused = [RefusedSample { index: 9, reason: Refusal::TooOld }];
    log.append(&[5; 99], &ids, &refused).expect("room");
    let (_, _, buffer) = take_write(&mut log);
    let mut reader = SegmentReader::new(&IDENTITY);
    reader.begin(1);
    reader.handle_piece(&buffer);
    let ReaderStep::Record(record) = reader.poll_record() else { panic!("a record") };
    assert_eq!((record.sequence(), record.frame()), (1, &[5; 99][..]));
    let assigned: Vec<_> = record.assigned().collect();
    assert_eq!(assigned, [Some(SeriesId(4)), None, Some(SeriesId(5))]);
    assert_eq!(record.refused().collect::<Vec<_>>(), [9]);

    let (frames, bytes) = three_records();
    for piece in [16, 64, 80, 4096, 1 << 20] {
        let (found, end) = read_segment(1, &bytes, piece);
        let want: Vec<_> = (1..).zip(frames.clone()).collect();
        assert!(found == want, "piece={piece}");
        assert_eq!((end.records, end.torn_offset_bytes, end.damaged), (3, None, 0));
    }
    assert_eq!(read_segment(2, &bytes, 4096).0, [], "of another segment");
}

#[test]
fn any_flipped_bit_costs_one_record_at_most_and_is_reported() {
    let (frames, bytes) = three_records();
    let (_, whole) = read_segment(1, &bytes, SEGMENT);
    let end = usize::try_from(whole.end_bytes).expect("small");
    for bit in (BLOCK_BYTES * 8..end * 8).step_by(37) {
        let mut bad = bytes[..end + 4096].to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let (found, _) = read_segment(1, &bad, 4096);
        assert!(found.len() >= 2, "bit {bit}");
        for (sequence, frame) in found {
            let index = usize::try_from(sequence - 1).expect("small");
            assert!(frames[index] == frame, "bit {bit}");
        }
    }
    // The second record's frame, then the third's: in the middle, and as a torn tail.
    for (at, torn, damaged) in [(12288 + 70, None, 1), (12288 + 6000, Some(12288 + 176), 0)] {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let (_, end) = read_segment(1, &bad, SEGMENT);
        assert_eq!((end.torn_offset_bytes, end.damaged), (torn, damaged), "at {at}");
    }
}

#[test]
fn gaps_are_losses_only_if_a_later_record_of_the_run_calls_them_durable() {
    // (sequence, durable, run) of the records found; want (lost, torn).
    #[track_caller]
    fn check(found: &[(u64, u64, u64)], want: (u64, u64)) {
        let mut tally = ReplayTally::new(1);
        for &(sequence, durable_sequence, run_sequence) in found {
            let numbers =
                record::RecordNumbers { segment: 1, sequence, durable_sequence, run_sequence };
            assert!(tally.handle_record(&Record::of_numbers(numbers)));
        }
        assert_eq!((tally.records_lost(), tally.records_torn()), want, "{found:?}");
    }
    check(&[(1, 0, 1), (2, 1, 1), (3, 1, 1)], (0, 0));
    check(&[(1, 0, 1), (3, 1, 1)], (0, 1)); // The last write, torn.
    check(&[(1, 0, 1), (3, 1, 1), (4, 3, 1)], (1, 0));
    check(&[(1, 0, 1), (3, 2, 1)], (1, 0));
    check(&[(1, 0, 1), (5, 2, 1)], (1, 2));
    check(&[(1, 0, 1), (3, 1, 1), (4, 3, 4), (5, 4, 4)], (0, 1)); // Torn, then a restart.
    check(&[(4, 3, 1)], (3, 0));
    check(&[(1, 0, 1), (6, 5, 5)], (1, 3)); // 2..5 torn before the restart, 5 lost after it.
}

#[test]
fn a_run_that_did_not_see_a_late_write_is_applied() {
    // The last write of a killed process landed after its successor had replayed the segment: the
    // successor gave the same sequences once more and acknowledged them, and the next replay left
    // them out as repeated. (segment, sequence, durable, run) of what that replay finds; all of it
    // is to be applied.
    #[track_caller]
    fn check(found: &[(u64, u64, u64, u64)], want: (u64, u64, u64)) {
        let mut tally = ReplayTally::new(1);
        for &(segment, sequence, durable_sequence, run_sequence) in found {
            let numbers =
                record::RecordNumbers { segment, sequence, durable_sequence, run_sequence };
            assert!(tally.handle_record(&Record::of_numbers(numbers)), "{numbers:?}");
        }
        let got = (tally.records_lost(), tally.records_torn(), tally.next_sequence());
        assert_eq!(got, want, "{found:?}");
    }
    check(&[(1, 1, 0, 1), (1, 2, 1, 1), (1, 3, 1, 1), (2, 2, 1, 2), (2, 3, 2, 2)], (0, 0, 4));
    // The late write was torn: what is missing of it is not missing of the later run.
    check(&[(1, 1, 0, 1), (1, 4, 1, 1), (2, 2, 1, 2), (2, 3, 2, 2), (2, 4, 3, 2)], (0, 2, 5));
    // Two restarts that saw the same, each with a late write.
    check(&[(1, 1, 0, 1), (1, 2, 1, 1), (2, 2, 1, 2), (4, 2, 1, 2), (4, 3, 2, 2)], (0, 0, 4));
    // A record of the later run is gone: that is a loss.
    check(&[(1, 1, 0, 1), (1, 2, 1, 1), (1, 3, 1, 1), (2, 3, 2, 2), (2, 4, 3, 2)], (1, 0, 5));
}

#[test]
fn segment_headers_and_names() {
    let header =
        SegmentHeader { identity: IDENTITY, segment: 77, segment_bytes: SEGMENT_BYTES_MIN };
    let block = header.encode();
    assert_eq!(SegmentHeader::decode(&block), Ok(header));
    for byte in 0..BLOCK_BYTES {
        let mut bad = block;
        bad[byte] ^= 1;
        assert_eq!(SegmentHeader::decode(&bad), Err(SegmentFault::Damaged), "byte {byte}");
    }
    let short = SegmentFault::Truncated { len_bytes: 100 };
    assert_eq!(SegmentHeader::decode(&block[..100]), Err(short));
    assert_eq!(segment_file_name(77), "segment-00000000000000000077.log");
    assert_eq!(parse_segment_file_name(&segment_file_name(u64::MAX)), Some(u64::MAX));
    assert_eq!(parse_segment_file_name("segment-77.log"), None);
    assert_eq!(parse_segment_file_name("segment-+0000000000000000077.log"), None);
}

#[test]
fn configurations_that_cannot_work() {
    #[track_caller]
    fn check(change: impl Fn(&mut LogConfig), want: Result<(), LogConfigFault>) {
        let mut config = LogConfig::new(IDENTITY);
        change(&mut config);
        assert_eq!(config.check(), want);
    }
    let fault = LogConfigFault::SegmentBytes { segment_bytes: 4097 };
    check(|_| {}, Ok(()));
    check(|config| config.segment_bytes = 4097, Err(fault));
    check(|config| config.spare_segments = 0, Err(LogConfigFault::NoSpareSegment));
    let (frame_bytes_max, segment_bytes) = (4 << 20, 4 << 20);
    let fault = LogConfigFault::FrameExceedsSegment { frame_bytes_max, segment_bytes };
    check(|config| config.segment_bytes = segment_bytes, Err(fault));
    let buffer_bytes_max = 4 << 20;
    let fault = LogConfigFault::FrameExceedsBuffer { frame_bytes_max, buffer_bytes_max };
    check(|config| config.buffer_bytes_max = buffer_bytes_max, Err(fault));
}
