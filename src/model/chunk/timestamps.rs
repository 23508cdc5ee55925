//! The timestamp column of a chunk: strictly ascending Unix milliseconds -> bytes, and back.
//!
//! ```text
//! codec 0, constant delta: nothing; the delta is (max - min) / (count - 1)
//! codec 1, packed:   varint first delta | width u8 | changes, `width` bits each
//! codec 2, varints:  varint first delta | changes, a varint each
//! changes:           the count - 2 deltas of deltas, zigzag
//! ```
//! All arithmetic is modulo 2^64, so that any two i64 have a delta. The shorter of 1 and 2 is
//! taken. Cost: about 1 ns a point.

use super::ChunkFault;
use super::bits::{BitReader, BitWriter, unzigzag, width_bits, zigzag};
use crate::base::varint::{read_varint, varint_len, write_varint};
use crate::model::sample::Sample;

const CONSTANT_DELTA: u8 = 0;
const PACKED: u8 = 1;
const VARINTS: u8 = 2;

/// What a codec is called.
pub(super) fn codec_name(codec: u8) -> &'static str {
    match codec {
        CONSTANT_DELTA => "constant delta",
        PACKED => "packed",
        VARINTS => "varints",
        _ => "unknown",
    }
}

/// Appends the column of `timestamp_ms`, which is strictly ascending and not empty, and returns its
/// codec.
pub(super) fn encode(timestamp_ms: &[i64], out: &mut Vec<u8>) -> u8 {
    if timestamp_ms.len() < 2 {
        return CONSTANT_DELTA;
    }
    let first_delta = delta(timestamp_ms[0], timestamp_ms[1]);
    let mut all = 0;
    for_each_delta_of_delta(timestamp_ms, |change| all |= change);
    if all == 0 {
        return CONSTANT_DELTA;
    }
    write_varint(out, first_delta);
    let width = width_bits(all);
    if width > 8 && varints_are_shorter(timestamp_ms, width) {
        for_each_delta_of_delta(timestamp_ms, |change| write_varint(out, change));
        return VARINTS;
    }
    out.push(width.to_le_bytes()[0]);
    let mut writer = BitWriter::new(out);
    for_each_delta_of_delta(timestamp_ms, |change| writer.write(change, width));
    writer.finish();
    PACKED
}

/// Not asked below nine bits: a varint has at least eight.
fn varints_are_shorter(timestamp_ms: &[i64], width: u32) -> bool {
    let mut varint_bytes = 0;
    for_each_delta_of_delta(timestamp_ms, |change| varint_bytes += varint_len(change));
    varint_bytes < 1 + ((timestamp_ms.len() - 2) * width as usize).div_ceil(8)
}

#[inline]
fn for_each_delta_of_delta(timestamp_ms: &[i64], mut each: impl FnMut(u64)) {
    for three in timestamp_ms.windows(3) {
        let change = delta(three[1], three[2]).wrapping_sub(delta(three[0], three[1]));
        each(zigzag(change.cast_signed()));
    }
}

#[inline]
fn delta(from: i64, to: i64) -> u64 {
    to.wrapping_sub(from).cast_unsigned()
}

/// What the chunk's header says about its timestamps.
#[derive(Clone, Copy)]
pub(super) struct TimestampRange {
    pub(super) count: u32,
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
}

/// Appends `range.count` samples with the timestamps of `column` and the value 0.0.
pub(super) fn decode(
    codec: u8,
    range: TimestampRange,
    column: &[u8],
    out: &mut Vec<Sample>,
) -> Result<(), ChunkFault> {
    match codec {
        CONSTANT_DELTA => decode_constant_delta(range, column, out),
        PACKED | VARINTS => decode_changes(codec, range, column, out),
        codec => Err(ChunkFault::UnknownTimestampCodec { codec }),
    }
}

fn decode_constant_delta(
    range: TimestampRange,
    column: &[u8],
    out: &mut Vec<Sample>,
) -> Result<(), ChunkFault> {
    let span = delta(range.min_ms, range.max_ms);
    let steps = u64::from(range.count - 1);
    if !column.is_empty() || steps > 0 && !span.is_multiple_of(steps) {
        return Err(ChunkFault::BadTimestamps);
    }
    let step = span.checked_div(steps).unwrap_or(0);
    out.extend((0..u64::from(range.count)).map(|index| Sample {
        timestamp_ms: range.min_ms.wrapping_add((index * step).cast_signed()),
        value: 0.0,
    }));
    Ok(())
}

fn decode_changes(
    codec: u8,
    range: TimestampRange,
    column: &[u8],
    out: &mut Vec<Sample>,
) -> Result<(), ChunkFault> {
    let mut offset = 0;
    let mut step = read_varint(column, &mut offset).ok_or(ChunkFault::BadTimestamps)?;
    let mut timestamp_ms = range.min_ms;
    let mut push = |step: u64, out: &mut Vec<Sample>| {
        let next = timestamp_ms.wrapping_add(step.cast_signed());
        let ascends = next > timestamp_ms;
        timestamp_ms = next;
        out.push(Sample { timestamp_ms, value: 0.0 });
        ascends.then_some(()).ok_or(ChunkFault::BadTimestamps)
    };
    out.push(Sample { timestamp_ms: range.min_ms, value: 0.0 });
    push(step, out)?;
    let finished = if codec == PACKED {
        let width = u32::from(*column.get(offset).ok_or(ChunkFault::BadTimestamps)?);
        if width > 64 {
            return Err(ChunkFault::BadTimestamps);
        }
        let mut reader = BitReader::new(&column[offset + 1..]);
        for _ in 2..range.count {
            let change = reader.read(width).ok_or(ChunkFault::BadTimestamps)?;
            step = step.wrapping_add(unzigzag(change).cast_unsigned());
            push(step, out)?;
        }
        reader.is_finished()
    } else {
        for _ in 2..range.count {
            let change = read_varint(column, &mut offset).ok_or(ChunkFault::BadTimestamps)?;
            step = step.wrapping_add(unzigzag(change).cast_unsigned());
            push(step, out)?;
        }
        offset == column.len()
    };
    let ends_at_max = out.last().is_some_and(|last| last.timestamp_ms == range.max_ms);
    (finished && ends_at_max).then_some(()).ok_or(ChunkFault::BadTimestamps)
}
