//! The fixed header of a frame: what it is, how long, whose, and whether it arrived whole.
//!
//! ```text
//!  0       4         6      8        10      12       16       20       24
//!  | magic | version | kind | schema | flags | zero   | length | crc32c |
//!  | u32   | u16     | u16  | u16    | u16   | u32    | u32    | u32    |
//!
//!  24         32      40      44     48         56         64
//!  | sequence | epoch | shard | zero | id space | reserved |
//!  | u64      | u64   | u32   | u32  | u64      | 8 bytes  |
//! ```
//! All little-endian. `length` is that of the payload; the payload begins at byte 64 and is
//! 16-aligned in memory. `crc32c` covers header and payload, with its own field as zero.

use crate::base::checksum::{crc32c, crc32c_append};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Panic};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize};

/// Bytes of the header; also the alignment room in front of a payload.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Longest frame, header included. The gateway cuts batches to stay below it, the receiver refuses
/// longer ones.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Alignment of a payload in memory.
pub const PAYLOAD_ALIGN: usize = 16;
/// The memory of a frame: its payload is read in place.
pub type Memory = AlignedVec<PAYLOAD_ALIGN>;

const MAGIC: u32 = u32::from_le_bytes(*b"tdg1");
const VERSION: u16 = 1;
const CRC_OFFSET: usize = 20;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FrameKind {
    /// Samples, and new series with their labels (`wire/write.rs`).
    Write = 1,
    /// Samples are deleted (`wire/delete.rs`).
    Delete = 2,
    /// A node's first words on a connection (`wire/hello.rs`).
    Challenge = 3,
    /// A gateway's answer to it.
    Hello = 4,
    /// A node's answer to that.
    Welcome = 5,
    /// Why a link is closed.
    Refused = 6,
    /// Frames are durable (`wire/ack.rs`).
    Ack = 7,
    /// Are you there? (`wire/health.rs`)
    Ping = 8,
    /// Yes, and like this.
    Pong = 9,
    /// Which series have which ids? (`wire/registry.rs`)
    RegistryRequest = 10,
    /// These.
    RegistryPage = 11,
    /// A query's question (`wire/select.rs`).
    Select = 12,
    /// Series that match.
    Series = 13,
    /// Label names or values.
    Strings = 14,
    /// All has been said.
    SelectEnd = 15,
    /// Nothing more will come, and why.
    SelectFault = 16,
    /// About the documents that say who owns what (`wire/placement.rs`).
    PlacementRequest = 17,
    /// What the node says to that.
    PlacementAnswer = 18,
    /// What a gateway keeps for the node (`wire/hints.rs`).
    HintsHeld = 19,
    /// What the node lacks by all it has heard.
    HintsHeard = 20,
    /// What became of a deletion that a gateway asked for (`wire/delete.rs`).
    Deleted = 21,
}

impl FrameKind {
    /// Every kind, in the order of their numbers, which begin at 1.
    pub const ALL: [Self; 21] = [
        Self::Write,
        Self::Delete,
        Self::Challenge,
        Self::Hello,
        Self::Welcome,
        Self::Refused,
        Self::Ack,
        Self::Ping,
        Self::Pong,
        Self::RegistryRequest,
        Self::RegistryPage,
        Self::Select,
        Self::Series,
        Self::Strings,
        Self::SelectEnd,
        Self::SelectFault,
        Self::PlacementRequest,
        Self::PlacementAnswer,
        Self::HintsHeld,
        Self::HintsHeard,
        Self::Deleted,
    ];

    fn of_number(kind: u16) -> Result<Self, FrameFault> {
        let index = usize::from(kind).wrapping_sub(1);
        Self::ALL.get(index).copied().ok_or(FrameFault::UnknownKind { kind })
    }
}

/// A flag: the samples are taken however late they are.
pub const FLAG_BACKFILL: u16 = 1;

/// A frame's header as values. `Default` is not offered: each field is somebody's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the payload is.
    pub kind: FrameKind,
    /// The version of the payload's struct.
    pub schema: u16,
    /// Zero or [`FLAG_BACKFILL`]; unknown ones are ignored.
    pub flags: u16,
    /// Of `Write` frames: rising by one per link, from 1. Of questions: a number that the asker
    /// chose, which all frames of the answer bear.
    pub sequence: u64,
    /// The placement epoch that the sender followed.
    pub epoch: u64,
    /// The node shard that this is for.
    pub shard: u32,
    /// Whose ids the payload names ([`crate::wire::hello::id_space`]). 0 on a link: it names none.
    /// 0 elsewhere (one process, the log): those of the only node there is.
    pub id_space: u64,
    /// Bytes of the payload.
    pub payload_len_bytes: u32,
}

impl FrameHeader {
    /// Whether the payload is of the version that the caller reads.
    pub(crate) fn check_schema(&self, known: u16) -> Result<(), FrameFault> {
        let schema = self.schema;
        if schema == known { Ok(()) } else { Err(FrameFault::UnknownSchema { schema }) }
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// Fewer bytes than the header, or than the header says.
    Truncated { need_bytes: u64 },
    /// The magic number is wrong: not a frame at all.
    NotAFrame,
    /// A version that this program does not speak.
    UnknownVersion { version: u16 },
    /// A kind that this program does not know.
    UnknownKind { kind: u16 },
    /// Longer than [`FRAME_BYTES_MAX`].
    TooLong { len_bytes: u64 },
    /// The checksum does not match.
    Corrupt,
    /// A payload of a version that this program does not read.
    UnknownSchema { schema: u16 },
    /// The payload's structure does not hold.
    BadPayload,
}

const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(PAYLOAD_ALIGN));

/// Writes `header` and the checksum into the first [`FRAME_HEADER_BYTES`] of `frame`, whose payload
/// is in place.
pub fn seal_frame(frame: &mut [u8], header: &FrameHeader) {
    let payload_len_bytes = header.payload_len_bytes as usize;
    assert!(frame.len() == FRAME_HEADER_BYTES + payload_len_bytes);
    assert!(frame.len() <= FRAME_BYTES_MAX);
    let head = &mut frame[..FRAME_HEADER_BYTES];
    head.fill(0);
    head[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    head[4..6].copy_from_slice(&VERSION.to_le_bytes());
    head[6..8].copy_from_slice(&(header.kind as u16).to_le_bytes());
    head[8..10].copy_from_slice(&header.schema.to_le_bytes());
    head[10..12].copy_from_slice(&header.flags.to_le_bytes());
    head[16..20].copy_from_slice(&header.payload_len_bytes.to_le_bytes());
    head[24..32].copy_from_slice(&header.sequence.to_le_bytes());
    head[32..40].copy_from_slice(&header.epoch.to_le_bytes());
    head[40..44].copy_from_slice(&header.shard.to_le_bytes());
    head[48..56].copy_from_slice(&header.id_space.to_le_bytes());
    let crc = crc32c(frame);
    frame[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the header of `bytes` without looking at the checksum, so that the caller learns how much
/// to wait for.
pub fn decode_header(bytes: &[u8]) -> Result<FrameHeader, FrameFault> {
    let Some(head) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(FrameFault::Truncated { need_bytes: FRAME_HEADER_BYTES as u64 });
    };
    if read_u32(head, 0) != MAGIC {
        return Err(FrameFault::NotAFrame);
    }
    let version = read_u16(head, 4);
    if version != VERSION {
        return Err(FrameFault::UnknownVersion { version });
    }
    let kind = FrameKind::of_number(read_u16(head, 6))?;
    let payload_len_bytes = read_u32(head, 16);
    let len_bytes = u64::from(payload_len_bytes) + FRAME_HEADER_BYTES as u64;
    if len_bytes > FRAME_BYTES_MAX as u64 {
        return Err(FrameFault::TooLong { len_bytes });
    }
    Ok(FrameHeader {
        kind,
        schema: read_u16(head, 8),
        flags: read_u16(head, 10),
        sequence: read_u64(head, 24),
        epoch: read_u64(head, 32),
        shard: read_u32(head, 40),
        id_space: read_u64(head, 48),
        payload_len_bytes,
    })
}

/// Checks that `frame` is exactly one whole, undamaged frame; returns its header. The payload is
/// `frame[64..]`.
pub fn check_frame(frame: &[u8]) -> Result<FrameHeader, FrameFault> {
    let header = decode_header(frame)?;
    let len_bytes = FRAME_HEADER_BYTES + header.payload_len_bytes as usize;
    if frame.len() != len_bytes {
        return Err(FrameFault::Truncated { need_bytes: len_bytes as u64 });
    }
    let stored = read_u32(frame, CRC_OFFSET);
    let crc = crc32c(&frame[..CRC_OFFSET]);
    let crc = crc32c_append(crc, &[0; 4]);
    let crc = crc32c_append(crc, &frame[CRC_OFFSET + 4..]);
    if stored != crc {
        return Err(FrameFault::Corrupt);
    }
    Ok(header)
}

/// Gives a sealed frame, a question or an answer, its number. O(length): the checksum is new.
pub fn number_frame(frame: &mut [u8], number: u64) {
    let header = decode_header(frame).expect("the caller sealed it");
    seal_frame(frame, &FrameHeader { sequence: number, ..header });
}

/// As [`encode_control`], with the number of the question that it answers.
pub(crate) fn encode_numbered<T>(
    (kind, schema): (FrameKind, u16),
    number: u64,
    payload: &T,
) -> Memory
where
    T: for<'a> rkyv::Serialize<HighSerializer<Memory, ArenaHandle<'a>, Panic>>,
{
    let mut frame = encode_body(payload);
    seal_numbered(&mut frame, (kind, schema), number);
    frame
}

/// A frame of `kind` that is none of a link's sequence: all but [`FrameKind::Write`]. The payload
/// is shorter than a frame may be, which is for the caller to see to.
pub(crate) fn encode_control<T>(kind: FrameKind, schema: u16, payload: &T) -> Memory
where
    T: for<'a> rkyv::Serialize<HighSerializer<Memory, ArenaHandle<'a>, Panic>>,
{
    let mut frame = encode_body(payload);
    seal_control(&mut frame, kind, schema);
    frame
}

/// The payload of a frame with this `schema`; it is 16-aligned.
pub(crate) fn decode_control<T>(
    header: &FrameHeader,
    schema: u16,
    payload: &[u8],
) -> Result<T, FrameFault>
where
    T: Archive,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, Failure>> + Deserialize<T, HighDeserializer<Failure>>,
{
    header.check_schema(schema)?;
    decode_body(payload)
}

/// What [`encode_body`] wrote behind the header.
pub(crate) fn decode_body<T>(payload: &[u8]) -> Result<T, FrameFault>
where
    T: Archive,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, Failure>> + Deserialize<T, HighDeserializer<Failure>>,
{
    rkyv::from_bytes::<T, Failure>(payload).map_err(|_| FrameFault::BadPayload)
}

/// Room for a header, and `payload`.
pub(crate) fn encode_body<T>(payload: &T) -> Memory
where
    T: for<'a> rkyv::Serialize<HighSerializer<Memory, ArenaHandle<'a>, Panic>>,
{
    let mut memory = Memory::new();
    memory.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    let Ok(frame) = rkyv::api::high::to_bytes_in::<_, Panic>(payload, memory);
    frame
}

/// Writes the header of a frame that [`encode_body`] began.
pub(crate) fn seal_control(frame: &mut Memory, kind: FrameKind, schema: u16) {
    seal_numbered(frame, (kind, schema), 0);
}

fn seal_numbered(frame: &mut Memory, (kind, schema): (FrameKind, u16), number: u64) {
    let payload_len_bytes = u32::try_from(frame.len() - FRAME_HEADER_BYTES);
    let header = FrameHeader {
        kind,
        schema,
        flags: 0,
        sequence: number,
        epoch: 0,
        shard: 0,
        id_space: 0,
        payload_len_bytes: payload_len_bytes.expect("shorter than FRAME_BYTES_MAX"),
    };
    seal_frame(frame, &header);
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read_u32(bytes, at)) | u64::from(read_u32(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(b"payload bytes");
        let header = FrameHeader {
            kind: FrameKind::Write,
            schema: 1,
            flags: 0,
            sequence: 9,
            epoch: 3,
            shard: 2,
            id_space: 5,
            payload_len_bytes: 13,
        };
        seal_frame(&mut frame, &header);
        frame
    }

    #[test]
    fn round_trip() {
        let header = check_frame(&example()).expect("a sealed frame");
        assert_eq!((header.sequence, header.epoch, header.shard), (9, 3, 2));
        assert_eq!(header.id_space, 5);
    }

    #[test]
    fn numbers_of_kinds_are_their_places() {
        // Red if a kind is inserted instead of appended.
        for (number, kind) in (1..).zip(FrameKind::ALL) {
            assert_eq!((kind as u16, FrameKind::of_number(number)), (number, Ok(kind)));
        }
        for kind in [0, 22, u16::MAX] {
            assert_eq!(FrameKind::of_number(kind), Err(FrameFault::UnknownKind { kind }));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let frame = example();
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check_frame(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let frame = example();
        for len in 0..frame.len() {
            assert!(check_frame(&frame[..len]).is_err(), "len {len}");
        }
    }
}
