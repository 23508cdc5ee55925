//! Records and segments as bytes.

use crate::base::checksum::{crc32c, crc32c_append};
use crate::base::random::Random;
use crate::gateway::hint::HintPart;
use crate::gateway::hint::record::{
    Encoder, Progress, RECORD_HEADER_BYTES, RecordNumbers, decode_header,
};
use crate::gateway::hint::segment::{
    BLOCK_BYTES, LoadedSegment, SegmentFault, SegmentHeader, parse_segment_file_name, record_seed,
    segment_file_name,
};
use crate::model::placement::NodeId;

use super::{NODE, Sample, part, random_part, samples};

const SEGMENT: u64 = 3;

fn header() -> SegmentHeader {
    SegmentHeader {
        node: NODE,
        segment: SEGMENT,
        first_number: 1,
        durable_number: 0,
        records_before: 5,
        samples_before: 50,
        made_ms: -5,
    }
}

/// A segment of `parts`; each record calls the one before durable.
fn segment_of(encoder: &mut Encoder, parts: &[HintPart], room: usize) -> (Vec<u8>, u64) {
    let mut bytes = Vec::new();
    header().encode(&mut bytes);
    encoder.begin_segment();
    let mut number = 0;
    for part in parts {
        let mut from = Progress::default();
        while !from.is_end(part) {
            let numbers =
                RecordNumbers { number: number + 1, durable_number: number, made_ms: 1_000 };
            let len = bytes.len();
            let seed = record_seed(NODE, SEGMENT);
            from = encoder.encode(&mut bytes, (&numbers, seed), (part, from), room);
            assert!(bytes.len() <= len + room, "a record is longer than its room");
            number += u64::from(bytes.len() > len);
        }
    }
    (bytes, number)
}

fn samples_of(loaded: &LoadedSegment, shard: u32) -> Vec<Sample> {
    let parts = (0..loaded.record_count()).filter_map(|index| loaded.part(index, shard));
    parts.flat_map(|part| samples(&part)).collect()
}

/// Red when a column is written or read in another order, a run is cut wrongly, or a segment names
/// labels of another (`begin_segment` that forgets nothing).
#[test]
fn what_was_put_in_comes_out() {
    let mut random = Random(1);
    let mut encoder = Encoder::default();
    for round in 0..200 {
        let parts: Vec<_> = (0..random.below(8)).map(|_| random_part(&mut random)).collect();
        let room = if round % 2 == 0 { 1 << 20 } else { 320 };
        let (bytes, records) = segment_of(&mut encoder, &parts, room);
        let loaded = LoadedSegment::new(bytes, (NODE, SEGMENT), 1, records);
        let want: Vec<_> = parts.iter().flat_map(samples).collect();
        assert_eq!(samples_of(&loaded, 0), want);
        let tally = loaded.tally();
        assert_eq!((tally.records, tally.samples), (records, want.len() as u64));
        assert_eq!((tally.records_lost, tally.samples_lost), (0, 0));
    }
}

/// Red when a shard gets what another owns, or one that owns part of a record gets nothing.
#[test]
fn shards_get_what_they_own() {
    let mut random = Random(2);
    let parts: Vec<_> = (0..20).map(|_| random_part(&mut random)).collect();
    let (bytes, _) = segment_of(&mut Encoder::default(), &parts, 1 << 20);
    let loaded = LoadedSegment::new(bytes, (NODE, SEGMENT), 3, 0);
    for shard in 0..3 {
        let want = parts.iter().flat_map(samples);
        let want: Vec<_> = want.filter(|sample| sample.0.slot().shard(3) == shard).collect();
        assert!(!want.is_empty());
        assert_eq!(samples_of(&loaded, shard), want);
    }
}

/// Red when label sets travel with every record, or the ends of single samples do.
#[test]
fn a_known_series_costs_20_bytes_a_sample() {
    let series: Vec<u64> = (0..1000).collect();
    let parts = [part(0, &series, 1, 0), part(0, &series, 1, 1)];
    let both = segment_of(&mut Encoder::default(), &parts, 1 << 20).0.len();
    let first = segment_of(&mut Encoder::default(), &parts[..1], 1 << 20).0.len();
    assert_eq!(both - first, (RECORD_HEADER_BYTES + 20 * 1000).next_multiple_of(16));
}

/// Whatever becomes of the bytes: nothing panics, nothing is invented, and what a damaged record
/// costs is told. Red without either checksum, and when a damaged record ends the reading.
#[test]
fn damage_costs_what_it_hits() {
    let mut random = Random(3);
    let parts: Vec<_> = (0..12).map(|_| part(7, &[random.below(9), 99], 2, 5)).collect();
    let (whole, records) = segment_of(&mut Encoder::default(), &parts, 1 << 20);
    let want: Vec<_> = parts.iter().flat_map(samples).collect();
    let mut told = 0;
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        let at = BLOCK_BYTES + random.index(bytes.len() - BLOCK_BYTES);
        match random.below(3) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at..].fill(0),
            _ => bytes.truncate(at),
        }
        let is_flip = bytes.len() == whole.len() && bytes[at..] != vec![0; whole.len() - at];
        let loaded = LoadedSegment::new(bytes, (NODE, SEGMENT), 1, records);
        let found = samples_of(&loaded, 0);
        assert!(found.iter().all(|sample| want.contains(sample)), "something is invented");
        let tally = loaded.tally();
        assert_eq!(tally.records + tally.records_lost, records);
        assert_eq!(found.len() as u64 + tally.samples_lost, tally.samples);
        if is_flip {
            assert!(tally.records_lost <= 1, "one flipped bit costs one record");
        }
        told += tally.records_lost;
    }
    assert!(told > 1000);
}

/// Bytes that were made up whole, with a checksum that holds: `Record::decode` looks at every end.
#[test]
fn lies_with_a_right_checksum_are_no_records() {
    use crate::base::checksum::{crc32c, crc32c_append};
    let mut random = Random(4);
    let seed = record_seed(NODE, SEGMENT);
    let (whole, _) = segment_of(&mut Encoder::default(), &[part(7, &[1, 2, 3], 2, 5)], 1 << 20);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        let record = &mut bytes[BLOCK_BYTES..];
        for _ in 0..=random.below(2) {
            let at = 8 + random.index(record.len() - 8);
            record[at] = match random.below(3) {
                0 => 0xff,
                1 => 0,
                _ => record[at].wrapping_add(1),
            };
        }
        let body_crc = crc32c(&record[RECORD_HEADER_BYTES..]);
        record[36..40].copy_from_slice(&body_crc.to_le_bytes());
        let crc = crc32c_append(seed, &record[8..RECORD_HEADER_BYTES]);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        let loaded = LoadedSegment::new(bytes, (NODE, SEGMENT), 2, 1);
        for index in 0..loaded.record_count() {
            for part in (0..2).filter_map(|shard| loaded.part(index, shard)) {
                assert!(part.sample_count() <= 6);
                let spans = part.batch.labels.iter();
                assert!(spans.map(|span| part.bytes.labels(*span).len()).sum::<usize>() < 1000);
            }
        }
    }
}

/// A record of another node or segment does not count, wherever it lies.
#[test]
fn records_belong_to_their_segment() {
    let (bytes, _) = segment_of(&mut Encoder::default(), &[part(7, &[1], 1, 5)], 1 << 20);
    let at = &bytes[BLOCK_BYTES..];
    assert!(decode_header(at, record_seed(NODE, SEGMENT)).is_some());
    assert!(decode_header(at, record_seed(NODE, SEGMENT + 1)).is_none());
    assert!(decode_header(at, record_seed(NodeId(1), SEGMENT)).is_none());
}

#[test]
fn header_blocks_say_what_is_wrong_with_them() {
    let mut bytes = Vec::new();
    header().encode(&mut bytes);
    assert_eq!(bytes.len(), BLOCK_BYTES);
    assert_eq!(SegmentHeader::decode(&bytes, NODE, SEGMENT), Ok(header()));
    let foreign = SegmentFault::Foreign { node: NODE, segment: SEGMENT };
    assert_eq!(SegmentHeader::decode(&bytes, NODE, 4), Err(foreign));
    for at in 0..80 {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert_eq!(
            SegmentHeader::decode(&flipped, NODE, SEGMENT),
            Err(SegmentFault::Damaged),
            "byte {at}"
        );
        let cut = SegmentHeader::decode(&bytes[..at], NODE, SEGMENT);
        assert_eq!(cut, Err(SegmentFault::Damaged));
    }
    // Of a gateway of the future: its checksum is right.
    bytes[8] = 7;
    let crc = crc32c_append(crc32c(&bytes[8..12]), &bytes[16..80]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    let unknown = SegmentFault::UnknownVersion { version: 7 };
    assert_eq!(SegmentHeader::decode(&bytes, NODE, SEGMENT), Err(unknown));
}

#[test]
fn names_are_read_back() {
    assert_eq!(parse_segment_file_name(&segment_file_name(12)), Some(12));
    for name in ["hints-12.log", "hints-.log", "x", "hints-00000000000000000012.log.tmp"] {
        assert_eq!(parse_segment_file_name(name), None, "{name}");
    }
}
