//! The fixed header of a frame: what it is, how long, whose, and whether it arrived whole.
//!
//! ```text
//!  0       4         6      8        10      12       16       20       24
//!  | magic | version | kind | schema | flags | zero   | length | crc32c |
//!  | u32   | u16     | u16  | u16    | u16   | u32    | u32    | u32    |
//!
//!  24         32      40      44     48         64
//!  | sequence | epoch | shard | room | reserved |
//!  | u64      | u64   | u32   | u32  | 16 bytes |
//! ```
//! All little-endian. `length` is that of the payload; the payload begins at byte 64 and is
//! 16-aligned in memory. `crc32c` covers header and payload, with its own field as zero.

use crate::base::checksum::{crc32c, crc32c_append};

/// Bytes of the header; also the alignment room in front of a payload.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Longest frame, header included. The gateway cuts batches to stay below it, the receiver refuses
/// longer ones.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Alignment of a payload in memory.
pub const PAYLOAD_ALIGN: usize = 16;

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
    /// Rising by one per link, from 1.
    pub sequence: u64,
    /// The placement epoch that the sender followed.
    pub epoch: u64,
    /// The node shard that this is for.
    pub shard: u32,
    /// Bytes of the payload.
    pub payload_len_bytes: u32,
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
    let kind = match read_u16(head, 6) {
        1 => FrameKind::Write,
        2 => FrameKind::Delete,
        kind => return Err(FrameFault::UnknownKind { kind }),
    };
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
            payload_len_bytes: 13,
        };
        seal_frame(&mut frame, &header);
        frame
    }

    #[test]
    fn round_trip() {
        let header = check_frame(&example()).expect("a sealed frame");
        assert_eq!((header.sequence, header.epoch, header.shard), (9, 3, 2));
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
