//! Sealed samples of one series, compressed: the only form in which samples are stored, sent to a
//! query and snapshotted.
//!
//! ```text
//! | version | timestamp codec | value codec | 0  | count | min ms | max ms | timestamp bytes |
//! | u8      | u8              | u8          | u8 | u32   | i64    | i64    | u32             |
//! | timestamp column (timestamps.rs) | value column (values.rs), to the end |
//! ```
//! All little-endian. A codec per column leaves room for more of them; an unknown one is refused by
//! name. No checksum: what stores or sends chunks has its own. Decoding never panics, whatever the
//! bytes are.

mod bits;
mod block;
mod entropy;
mod integers;
mod scaled;
mod timestamps;
mod values;
mod xor;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers from a seeded generator")]
mod tests;

use std::sync::Arc;

use crate::model::sample::Sample;
pub use block::{BLOCK_CHUNK_SAMPLES_MAX, BlockEncoder, ChunkColumns};
use timestamps::TimestampRange;

/// Bytes in front of the columns.
pub const CHUNK_HEADER_BYTES: usize = 28;
/// Most samples of a chunk; bounds what a corrupt count can make a reader allocate to 16 MiB.
pub const CHUNK_SAMPLES_MAX: u32 = 1 << 20;

const VERSION: u8 = 1;

const _: () = assert!(CHUNK_HEADER_BYTES == 4 + 4 + 8 + 8 + 4);

/// What the codec of a timestamp column is called.
pub fn timestamp_codec_name(codec: u8) -> &'static str {
    timestamps::codec_name(codec)
}

/// What the codec of a value column is called.
pub fn value_codec_name(codec: u8) -> &'static str {
    values::codec_name(codec)
}

/// A sealed, immutable run of samples of one series, in strictly ascending time order. Cloning
/// shares the bytes.
#[derive(Clone, Debug)]
pub struct Chunk {
    bytes: Arc<[u8]>,
}

/// Why bytes are not a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// Shorter than its header says.
    Truncated,
    /// A version that this program does not know.
    UnknownVersion { version: u8 },
    /// The header contradicts itself.
    BadHeader,
    /// A timestamp codec that this program does not know.
    UnknownTimestampCodec { codec: u8 },
    /// The timestamp column does not hold what the header says.
    BadTimestamps,
    /// A value codec that this program does not know.
    UnknownValueCodec { codec: u8 },
    /// The value column does not hold as many values.
    BadValues,
}

impl Chunk {
    /// Compresses samples: two columns of the same length, 1 to [`CHUNK_SAMPLES_MAX`], strictly
    /// ascending in time.
    pub fn encode(timestamp_ms: &[i64], value: &[f64]) -> Self {
        assert!(timestamp_ms.len() == value.len());
        assert!(timestamp_ms.is_sorted_by(|before, after| before < after));
        let count = u32::try_from(timestamp_ms.len()).unwrap_or(u32::MAX);
        assert!(0 < count && count <= CHUNK_SAMPLES_MAX);
        // Room for the usual worst case, so that the vector grows at most once.
        let mut bytes = Vec::with_capacity(CHUNK_HEADER_BYTES + value.len() * 10);
        bytes.resize(CHUNK_HEADER_BYTES, 0);
        let timestamp_codec = timestamps::encode(timestamp_ms, &mut bytes);
        let timestamps_len = u32::try_from(bytes.len() - CHUNK_HEADER_BYTES);
        let timestamps_len = timestamps_len.expect("at most 2^20 varints of 10 bytes");
        let value_codec = values::encode(value, &mut bytes);
        bytes[0..3].copy_from_slice(&[VERSION, timestamp_codec, value_codec]);
        bytes[4..8].copy_from_slice(&count.to_le_bytes());
        bytes[8..16].copy_from_slice(&timestamp_ms[0].to_le_bytes());
        bytes[16..24].copy_from_slice(&timestamp_ms[timestamp_ms.len() - 1].to_le_bytes());
        bytes[24..28].copy_from_slice(&timestamps_len.to_le_bytes());
        Self { bytes: bytes.into() }
    }

    /// Takes bytes that once were [`Chunk::as_bytes`]. The header is checked here, the columns by
    /// [`Chunk::decode`].
    pub fn from_bytes(bytes: Arc<[u8]>) -> Result<Self, ChunkFault> {
        check_header(&bytes)?;
        Ok(Self { bytes })
    }

    /// Samples in it, at least one.
    pub fn count(&self) -> u32 {
        u32::from_le_bytes(self.field(4))
    }

    /// The oldest sample's time, Unix milliseconds.
    pub fn min_timestamp_ms(&self) -> i64 {
        i64::from_le_bytes(self.field(8))
    }

    /// The newest sample's time, Unix milliseconds.
    pub fn max_timestamp_ms(&self) -> i64 {
        i64::from_le_bytes(self.field(16))
    }

    /// Bytes of the whole chunk.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The whole chunk, to be stored or sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends the samples to `out`, which is left as it was on error.
    pub fn decode(&self, out: &mut Vec<Sample>) -> Result<(), ChunkFault> {
        let start = out.len();
        let decoded = self.decode_columns(out);
        if decoded.is_err() {
            out.truncate(start);
        }
        decoded
    }

    fn decode_columns(&self, out: &mut Vec<Sample>) -> Result<(), ChunkFault> {
        let start = out.len();
        let columns = &self.bytes[CHUNK_HEADER_BYTES..];
        let timestamps_len = u32::from_le_bytes(self.field(24)) as usize;
        let (timestamp_column, value_column) = columns.split_at(timestamps_len);
        let range = TimestampRange {
            count: self.count(),
            min_ms: self.min_timestamp_ms(),
            max_ms: self.max_timestamp_ms(),
        };
        out.reserve(range.count as usize);
        timestamps::decode(self.bytes[1], range, timestamp_column, out)?;
        values::decode(self.bytes[2], value_column, &mut out[start..])
    }

    #[inline]
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        field(&self.bytes, at)
    }
}

fn check_header(bytes: &[u8]) -> Result<(), ChunkFault> {
    if bytes.len() < CHUNK_HEADER_BYTES {
        return Err(ChunkFault::Truncated);
    }
    if bytes[0] != VERSION {
        return Err(ChunkFault::UnknownVersion { version: bytes[0] });
    }
    let count = u32::from_le_bytes(field(bytes, 4));
    let min_ms = i64::from_le_bytes(field(bytes, 8));
    let max_ms = i64::from_le_bytes(field(bytes, 16));
    let timestamps_len = u32::from_le_bytes(field(bytes, 24)) as usize;
    if timestamps_len > bytes.len() - CHUNK_HEADER_BYTES {
        return Err(ChunkFault::Truncated);
    }
    let count_fits = (1..=CHUNK_SAMPLES_MAX).contains(&count);
    // Strictly ascending milliseconds need this much room; one sample has none.
    let span_fits = min_ms <= max_ms && max_ms.abs_diff(min_ms) >= u64::from(count.max(1) - 1);
    let single_fits = count != 1 || min_ms == max_ms;
    if bytes[3] != 0 || !count_fits || !span_fits || !single_fits {
        return Err(ChunkFault::BadHeader);
    }
    Ok(())
}

#[inline]
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the header's length was checked")
}
