//! Compressed bodies -> bytes, by content encoding: snappy block, gzip, zlib. In: the whole
//! compressed body and a limit. Out: the whole decompressed body in a reused Vec. Never more than
//! the limit is allocated, nor more than the input could possibly unpack to. Not here: which
//! encoding a request has.
//!
//! `out` keeps its old bytes until they are overwritten: only what it grows by is zeroed, so a warm
//! one costs nothing.

#[cfg(test)]
mod tests;

use std::fmt;

use libdeflater::{DecompressionError, Decompressor as Inflater};

use crate::model::refusal::Refusal;

/// Why a body could not be decompressed. `out` is then empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecompressError {
    /// It would be larger than the limit.
    TooLarge {
        /// The limit, bytes decompressed.
        bytes_max: usize,
    },
    /// It is not what its encoding promises, or is cut off.
    Corrupt {
        /// The encoding.
        encoding: &'static str,
        /// How much had been read: the start of the gzip member that is corrupt, else 0.
        offset_bytes: usize,
    },
}

impl DecompressError {
    /// The reason to count and answer.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::TooLarge { .. } => Refusal::BodyTooLarge,
            Self::Corrupt { .. } => Refusal::CorruptBody,
        }
    }
}

impl fmt::Display for DecompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes_max } => {
                write!(f, "cannot decompress body: larger than {bytes_max} bytes")
            }
            Self::Corrupt { encoding, offset_bytes } => {
                write!(f, "cannot decompress body: no {encoding} at byte {offset_bytes}")
            }
        }
    }
}

impl std::error::Error for DecompressError {}

/// Decompresses one body after the other; holds what is reused between them.
pub struct Decompressor {
    inflater: Inflater,
}

impl Default for Decompressor {
    fn default() -> Self {
        Self { inflater: Inflater::new() }
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

/// No snappy element unpacks to more: three bytes of copy make 64.
const SNAPPY_RATIO_MAX: usize = 22;
/// No deflate stream unpacks to more: two bits can make 258 bytes.
const DEFLATE_RATIO_MAX: usize = 1032;
/// Ten bytes of header, two of an empty deflate stream, eight of trailer.
const GZIP_MEMBER_BYTES_MIN: usize = 20;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

impl Decompressor {
    /// Decompresses a snappy block (not a framed stream) into `out`. The declared length is checked
    /// against `bytes_max`, and against what the input can unpack to, before anything is allocated.
    pub fn snappy_block(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), DecompressError> {
        let result = unpack_snappy(input, out, bytes_max);
        if result.is_err() {
            out.clear();
        }
        result
    }

    /// Decompresses gzip, of one member or several, into `out`.
    pub fn gzip(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), DecompressError> {
        let result = self.unpack_gzip(input, out, bytes_max);
        out.truncate(result.unwrap_or(0));
        result.map(|_| ())
    }

    /// Decompresses zlib (`Content-Encoding: deflate`) into `out`.
    pub fn zlib(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), DecompressError> {
        // Text of metrics shrinks to about a tenth.
        let hint_bytes = input.len().saturating_mul(12);
        let room = Room { filled: 0, hint_bytes, bytes_max };
        let result = unpack_growing(out, room, input, |input, free| {
            self.inflater.zlib_decompress(input, free)
        });
        let result = result.map_err(|fault| fault.named("zlib", 0, bytes_max));
        out.truncate(result.unwrap_or(0));
        result.map(|_| ())
    }

    fn unpack_gzip(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<usize, DecompressError> {
        let mut filled = 0;
        let mut offset_bytes = 0;
        loop {
            let member = &input[offset_bytes..];
            let fault = |fault: UnpackFault| fault.named("gzip", offset_bytes, bytes_max);
            // The last four bytes say how long the last member is, and most bodies have one.
            let hint_bytes = member.last_chunk().map_or(0, |last| u32::from_le_bytes(*last));
            let room = Room { filled, hint_bytes: hint_bytes as usize, bytes_max };
            let end = unpack_growing(out, room, member, |input, free| {
                self.inflater.gzip_decompress(input, free)
            })
            .map_err(fault)?;
            let len_bytes = find_member_end(member, &out[filled..end])
                .ok_or_else(|| fault(UnpackFault::Corrupt))?;
            filled = end;
            offset_bytes += len_bytes;
            if offset_bytes == input.len() {
                return Ok(filled);
            }
        }
    }
}

fn unpack_snappy(input: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), DecompressError> {
    let corrupt = DecompressError::Corrupt { encoding: "snappy block", offset_bytes: 0 };
    let declared = snap::raw::decompress_len(input).map_err(|_| corrupt)?;
    if declared > bytes_max {
        return Err(DecompressError::TooLarge { bytes_max });
    }
    if declared > input.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(corrupt);
    }
    out.resize(declared, 0);
    let written = snap::raw::Decoder::new().decompress(input, out).map_err(|_| corrupt)?;
    assert!(written == declared); // snap refuses a block that is shorter than it says.
    Ok(())
}

/// Where to unpack to.
#[derive(Clone, Copy)]
struct Room {
    /// Bytes of `out` that are taken already.
    filled: usize,
    /// What the input says about its size; not trusted.
    hint_bytes: usize,
    /// Limit of `filled` and what is added.
    bytes_max: usize,
}

#[derive(Clone, Copy)]
enum UnpackFault {
    TooLarge,
    Corrupt,
}

impl UnpackFault {
    fn named(
        self,
        encoding: &'static str,
        offset_bytes: usize,
        bytes_max: usize,
    ) -> DecompressError {
        match self {
            Self::TooLarge => DecompressError::TooLarge { bytes_max },
            Self::Corrupt => DecompressError::Corrupt { encoding, offset_bytes },
        }
    }
}

/// Unpacks behind `room.filled`, into more and more room as needed; where the bytes end in `out`.
fn unpack_growing(
    out: &mut Vec<u8>,
    room: Room,
    input: &[u8],
    mut unpack: impl FnMut(&[u8], &mut [u8]) -> Result<usize, DecompressionError>,
) -> Result<usize, UnpackFault> {
    let possible = input.len().saturating_mul(DEFLATE_RATIO_MAX);
    let free_max = room.bytes_max.saturating_sub(room.filled).min(possible);
    let mut free = room.hint_bytes.clamp(1024.min(free_max), free_max);
    loop {
        let end = room.filled + free;
        // Whatever room a reused Vec has is used: growing means unpacking again from the start.
        if out.len() < end {
            out.resize(end, 0);
        }
        let end = out.len().min(room.filled + free_max);
        free = end - room.filled;
        match unpack(input, &mut out[room.filled..end]) {
            Ok(written) => return Ok(room.filled + written),
            Err(DecompressionError::BadData) => return Err(UnpackFault::Corrupt),
            Err(DecompressionError::InsufficientSpace) if free < free_max => {
                free = free.saturating_mul(4).min(free_max);
            }
            Err(DecompressionError::InsufficientSpace) if free_max == possible => {
                return Err(UnpackFault::Corrupt);
            }
            Err(DecompressionError::InsufficientSpace) => return Err(UnpackFault::TooLarge),
        }
    }
}

/// Where the gzip member at the start of `input` that unpacked to `content` ends.
///
/// libdeflater does not say, so the member is found by its trailer: CRC-32 and length of the
/// content. Bytes that look like it inside the member are told apart by what follows; a member made
/// up to deceive here hurts only its sender, whose body is then refused, or is other bytes of his.
fn find_member_end(input: &[u8], content: &[u8]) -> Option<usize> {
    let mut trailer = [0; 8];
    trailer[..4].copy_from_slice(&libdeflater::crc32(content).to_le_bytes());
    #[expect(clippy::cast_possible_truncation, reason = "the format's length is modulo 2^32")]
    trailer[4..].copy_from_slice(&(content.len() as u32).to_le_bytes());
    let shortest = GZIP_MEMBER_BYTES_MIN.max(content.len() / DEFLATE_RATIO_MAX);
    let windows = input.get(shortest - 8..)?.windows(8).enumerate();
    let ends = windows.filter(|(_, window)| *window == trailer).map(|(at, _)| shortest + at);
    let mut whole = ends.filter(|&end| end == input.len() || input[end..].starts_with(GZIP_MAGIC));
    whole.next()
}
