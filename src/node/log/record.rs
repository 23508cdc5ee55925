//! A record: one received frame as it came, the ids its new series got, and its samples that were
//! refused.
//!
//! ```text
//!  0       4        8         16         24         32
//!  | magic | header | segment | sequence | durable  | run
//!  |       | crc32c |         |          | sequence | sequence
//!  | u32   | u32    | u64     | u64      | u64      | u64
//!  32..40  40       44         48        52       56       60     64
//!          | frame  | assigned | refused | record | body   | zero |
//!          | length | count    | count   | length | crc32c |      |
//!          | u32    | u32      | u32     | u32    | u32    | u32  |
//!  64                    64 + frame length     + 4 * assigned   + 4 * refused    record length
//!  | frame, as received  | assigned ids, u32   | refused, u32   | zeros to 16    |
//! ```
//! All little-endian. Records lie on 16 bytes, and so does the frame: its payload (64 bytes on) is
//! read in place. `header crc32c` covers bytes 8..64 and is seeded with the log's identity: where
//! it holds, the record's length and sequence are known even if the body is torn. `body crc32c`
//! covers the rest. `durable sequence`: all records up to it were durable when this one was
//! appended; `run sequence`: the first record that the writing process appended.

use crate::base::bytes::AlignedBuffer;
use crate::base::checksum::{crc32c, crc32c_append};
use crate::model::series::SeriesId;
use crate::wire::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, PAYLOAD_ALIGN};

use super::segment::{read_u32, read_u64};

/// Bytes in front of the frame.
pub const RECORD_HEADER_BYTES: usize = 64;
/// Records start on this.
pub const RECORD_ALIGN_BYTES: usize = 16;

pub(super) const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"tdgR");
/// Stands for a series that was refused.
const ID_REFUSED: u32 = u32::MAX;

const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));
const _: () = assert!((RECORD_HEADER_BYTES + FRAME_HEADER_BYTES).is_multiple_of(PAYLOAD_ALIGN));
const _: () = assert!(record_len_bytes_max(FRAME_BYTES_MAX) < super::SEGMENT_BYTES_DEFAULT);

/// The numbers that the log gives a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordNumbers {
    pub segment: u64,
    pub sequence: u64,
    pub durable_sequence: u64,
    pub run_sequence: u64,
}

/// Bytes of a record, padding included.
pub const fn record_len_bytes(frame: usize, assigned: usize, refused: usize) -> usize {
    (RECORD_HEADER_BYTES + frame + 4 * (assigned + refused)).next_multiple_of(RECORD_ALIGN_BYTES)
}

/// Bytes of the longest record of a frame of up to `frame_bytes`, which spends at least 16 bytes on
/// each new series (its hash) and on each sample (timestamp and value).
pub const fn record_len_bytes_max(frame_bytes: usize) -> u64 {
    record_len_bytes(frame_bytes, frame_bytes / 16, frame_bytes / 16) as u64
}

/// Appends a record to `buffer`, which has room for it. `assigned` is `None` for a series that was
/// refused.
#[expect(clippy::cast_possible_truncation, reason = "records are shorter than 4 GiB, asserted")]
pub(super) fn encode_record(
    buffer: &mut AlignedBuffer,
    (numbers, seed): (&RecordNumbers, u32),
    frame: &[u8],
    entries: (impl ExactSizeIterator<Item = Option<SeriesId>>, impl ExactSizeIterator<Item = u32>),
) {
    let (assigned, refused) = entries;
    let start = buffer.len();
    let len = record_len_bytes(frame.len(), assigned.len(), refused.len());
    assert!(start.is_multiple_of(RECORD_ALIGN_BYTES) && u32::try_from(len).is_ok());
    let mut header = [0; RECORD_HEADER_BYTES];
    header[..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
    header[8..16].copy_from_slice(&numbers.segment.to_le_bytes());
    header[16..24].copy_from_slice(&numbers.sequence.to_le_bytes());
    header[24..32].copy_from_slice(&numbers.durable_sequence.to_le_bytes());
    header[32..40].copy_from_slice(&numbers.run_sequence.to_le_bytes());
    header[40..44].copy_from_slice(&(frame.len() as u32).to_le_bytes());
    header[44..48].copy_from_slice(&(assigned.len() as u32).to_le_bytes());
    header[48..52].copy_from_slice(&(refused.len() as u32).to_le_bytes());
    header[52..56].copy_from_slice(&(len as u32).to_le_bytes());
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(frame);
    for id in assigned {
        let id = id.map_or(ID_REFUSED, |id| id.0);
        buffer.extend_from_slice(&id.to_le_bytes());
    }
    for index in refused {
        buffer.extend_from_slice(&index.to_le_bytes());
    }
    buffer.pad_zero_to(RECORD_ALIGN_BYTES);
    let record = &mut buffer.as_mut_slice()[start..];
    assert!(record.len() == len);
    let body_crc = crc32c(&record[RECORD_HEADER_BYTES..]);
    record[56..60].copy_from_slice(&body_crc.to_le_bytes());
    let header_crc = crc32c_append(seed, &record[8..RECORD_HEADER_BYTES]);
    record[4..8].copy_from_slice(&header_crc.to_le_bytes());
}

/// A record's header whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub numbers: RecordNumbers,
    pub frame_len: u32,
    pub assigned_count: u32,
    pub refused_count: u32,
    pub record_len: u32,
    pub body_crc: u32,
}

/// What 64 bytes on a 16-byte boundary are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFound {
    /// No header of this segment, nor the remains of one.
    Nothing,
    /// The remains of a header of this segment: torn or damaged.
    Damaged,
    /// A header of this segment.
    Header(RecordHeader),
}

/// Looks for a record of `segment` at the start of `bytes`, which are at least 64.
pub(super) fn decode_header(bytes: &[u8], segment: u64, seed: u32) -> HeaderFound {
    if read_u32(bytes, 0) != RECORD_MAGIC || read_u64(bytes, 8) != segment {
        return HeaderFound::Nothing;
    }
    if read_u32(bytes, 4) != crc32c_append(seed, &bytes[8..RECORD_HEADER_BYTES]) {
        return HeaderFound::Damaged;
    }
    let header = RecordHeader {
        numbers: RecordNumbers {
            segment,
            sequence: read_u64(bytes, 16),
            durable_sequence: read_u64(bytes, 24),
            run_sequence: read_u64(bytes, 32),
        },
        frame_len: read_u32(bytes, 40),
        assigned_count: read_u32(bytes, 44),
        refused_count: read_u32(bytes, 48),
        record_len: read_u32(bytes, 52),
        body_crc: read_u32(bytes, 56),
    };
    let entries = u64::from(header.assigned_count) + u64::from(header.refused_count);
    let len = RECORD_HEADER_BYTES as u64 + u64::from(header.frame_len) + 4 * entries;
    if u64::from(header.record_len) == len.next_multiple_of(RECORD_ALIGN_BYTES as u64) {
        HeaderFound::Header(header)
    } else {
        HeaderFound::Damaged
    }
}

/// A whole record, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    header: RecordHeader,
    /// From the frame on, padding included.
    body: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record of `header` whose bytes after the header are `body`; `None` if its checksum does
    /// not hold.
    pub(super) fn check(header: RecordHeader, body: &'a [u8]) -> Option<Self> {
        (crc32c(body) == header.body_crc).then_some(Self { header, body })
    }

    /// The same of bytes that were checked.
    pub(super) fn new(header: RecordHeader, body: &'a [u8]) -> Self {
        Self { header, body }
    }

    pub(super) fn numbers(&self) -> &RecordNumbers {
        &self.header.numbers
    }

    /// Its number in the log, from 1.
    pub fn sequence(&self) -> u64 {
        self.header.numbers.sequence
    }

    /// All records up to this one were durable when it was appended.
    pub fn durable_sequence(&self) -> u64 {
        self.header.numbers.durable_sequence
    }

    /// The first record that the process appended which appended this one.
    pub fn run_sequence(&self) -> u64 {
        self.header.numbers.run_sequence
    }

    /// Bytes that it takes in the log.
    pub fn len_bytes(&self) -> u64 {
        u64::from(self.header.record_len)
    }

    /// The frame as received, 16-aligned in memory.
    pub fn frame(&self) -> &'a [u8] {
        &self.body[..self.header.frame_len as usize]
    }

    /// The ids given to the frame's new series, in its order; `None` where the series was refused.
    pub fn assigned(&self) -> impl ExactSizeIterator<Item = Option<SeriesId>> + use<'a> {
        let start = self.header.frame_len as usize;
        let bytes = &self.body[start..start + 4 * self.header.assigned_count as usize];
        let ids = bytes.chunks_exact(4).map(|id| read_u32(id, 0));
        ids.map(|id| (id != ID_REFUSED).then_some(SeriesId(id)))
    }

    /// The indices of the frame's samples that were refused, in the order they were appended.
    pub fn refused(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        let start = self.header.frame_len as usize + 4 * self.header.assigned_count as usize;
        let bytes = &self.body[start..start + 4 * self.header.refused_count as usize];
        bytes.chunks_exact(4).map(|index| read_u32(index, 0))
    }
}

#[cfg(test)]
impl Record<'_> {
    /// An empty record, for tests of what looks at its numbers only.
    pub(super) fn of_numbers(numbers: RecordNumbers) -> Self {
        let (frame_len, assigned_count, refused_count, body_crc) = (0, 0, 0, 0);
        let record_len = 64;
        let header = RecordHeader {
            numbers,
            frame_len,
            assigned_count,
            refused_count,
            record_len,
            body_crc,
        };
        Self { header, body: &[] }
    }
}
