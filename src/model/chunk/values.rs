//! The value column of a chunk: f64 bits -> bytes, and back, exactly, NaN payloads and -0.0
//! included.
//!
//! ```text
//! codec 0, constant: bits u64
//! codec 1, raw:      count times bits u64
//! codec 2, integers: see `integers.rs`
//! codec 3, xor:      see `xor.rs`
//! codec 4, scaled:   see `scaled.rs`; in blocks only
//! codec 5, floats:   see `entropy.rs`; in blocks only
//! ```
//! In a head integers are tried first, as counters and most gauges are; then XOR; raw when neither
//! is shorter. In a block, which is written once, the shortest of what the values allow.

use super::ChunkFault;
use super::entropy::{self, Entropy};
use super::scaled::{self, Scaled};
use super::{integers, xor};
use crate::model::sample::Sample;

const CONSTANT: u8 = 0;
const RAW: u8 = 1;
const INTEGERS: u8 = 2;
const XOR: u8 = 3;
const SCALED: u8 = 4;
const FLOATS: u8 = 5;

/// What a codec is called.
pub(super) fn codec_name(codec: u8) -> &'static str {
    match codec {
        CONSTANT => "constant",
        RAW => "raw",
        INTEGERS => "integers",
        XOR => "xor",
        SCALED => "scaled",
        FLOATS => "floats",
        _ => "unknown",
    }
}

/// Fewer values than this are not worth the tables of an entropy code.
const ENTROPY_VALUES_MIN: usize = 24;

/// Appends the column of `values`, which is not empty, and returns its codec.
pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) -> u8 {
    let first_bits = values[0].to_bits();
    if values.iter().all(|value| value.to_bits() == first_bits) {
        out.extend_from_slice(&first_bits.to_le_bytes());
        return CONSTANT;
    }
    if integers::encode(values, out) {
        return INTEGERS;
    }
    let start = out.len();
    xor::encode(values, out);
    if out.len() - start < values.len() * 8 {
        return XOR;
    }
    out.truncate(start);
    for value in values {
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
    RAW
}

/// Memory for encoding the columns of a block.
#[derive(Default)]
pub(super) struct BlockValues {
    entropy: Entropy,
    scaled: Scaled,
    rival: Vec<u8>,
}

impl BlockValues {
    /// Appends the shortest column of `values`, which is not empty, and returns its codec.
    pub(super) fn encode(&mut self, values: &[f64], out: &mut Vec<u8>) -> u8 {
        let start = out.len();
        let first_bits = values[0].to_bits();
        if values.iter().all(|value| value.to_bits() == first_bits) {
            out.extend_from_slice(&first_bits.to_le_bytes());
            return CONSTANT;
        }
        let is_scaled = self.scaled.scale(values);
        let mut codec = encode(values, out);
        if values.len() < ENTROPY_VALUES_MIN {
            return codec;
        }
        self.rival.clear();
        let rival_codec = if is_scaled {
            self.scaled.encode(values, &mut self.entropy, &mut self.rival);
            SCALED
        } else {
            self.entropy.encode_floats(values, &mut self.rival);
            FLOATS
        };
        if self.rival.len() < out.len() - start {
            out.truncate(start);
            out.extend_from_slice(&self.rival);
            codec = rival_codec;
        }
        codec
    }
}

/// Sets the values of `samples` to those of `column`.
pub(super) fn decode(codec: u8, column: &[u8], samples: &mut [Sample]) -> Result<(), ChunkFault> {
    match codec {
        CONSTANT => {
            let bits: [u8; 8] = column.try_into().map_err(|_| ChunkFault::BadValues)?;
            let value = f64::from_bits(u64::from_le_bytes(bits));
            for sample in samples {
                sample.value = value;
            }
            Ok(())
        }
        RAW => {
            let (words, rest) = column.as_chunks::<8>();
            if words.len() != samples.len() || !rest.is_empty() {
                return Err(ChunkFault::BadValues);
            }
            for (sample, word) in samples.iter_mut().zip(words) {
                sample.value = f64::from_bits(u64::from_le_bytes(*word));
            }
            Ok(())
        }
        INTEGERS => integers::decode(column, samples).ok_or(ChunkFault::BadValues),
        XOR => xor::decode(column, samples).ok_or(ChunkFault::BadValues),
        SCALED => scaled::decode(column, samples).ok_or(ChunkFault::BadValues),
        FLOATS => {
            let mut floats = vec![0.0; samples.len()];
            entropy::decode_floats(column, &mut floats).ok_or(ChunkFault::BadValues)?;
            for (sample, value) in samples.iter_mut().zip(floats) {
                sample.value = value;
            }
            Ok(())
        }
        codec => Err(ChunkFault::UnknownValueCodec { codec }),
    }
}
