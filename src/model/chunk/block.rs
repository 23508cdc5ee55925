//! Chunks of blocks: encoded for size, in two columns that are stored apart, because series that
//! are scraped together share their timestamps.
//!
//! In: samples. Out: columns; put together again they are a [`Chunk`] as any other.

use std::sync::Arc;

use super::values::BlockValues;
use super::{CHUNK_HEADER_BYTES, Chunk, ChunkFault, VERSION, check_header, timestamps};

/// Samples of a chunk of a block at most: a day at 20 s. Larger ones are hardly shorter a sample
/// and make short queries decode more.
pub const BLOCK_CHUNK_SAMPLES_MAX: usize = 4096;

/// The two columns of a chunk, and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkColumns<'a> {
    /// Samples.
    pub count: u32,
    /// Oldest, Unix milliseconds.
    pub min_ms: i64,
    /// Newest.
    pub max_ms: i64,
    /// How `timestamps` is coded.
    pub timestamp_codec: u8,
    /// How `values` is coded.
    pub value_codec: u8,
    /// The timestamp column.
    pub timestamps: &'a [u8],
    /// The value column.
    pub values: &'a [u8],
}

/// Encodes chunks of blocks; its memory is used again.
#[derive(Default)]
pub struct BlockEncoder {
    timestamps: Vec<u8>,
    values: Vec<u8>,
    codecs: BlockValues,
}

impl BlockEncoder {
    /// Encodes samples: two columns of the same length, 1 to [`super::CHUNK_SAMPLES_MAX`], strictly
    /// ascending in time.
    pub fn encode(&mut self, timestamp_ms: &[i64], value: &[f64]) -> ChunkColumns<'_> {
        assert!(timestamp_ms.len() == value.len() && !value.is_empty());
        assert!(timestamp_ms.is_sorted_by(|before, after| before < after));
        let count = u32::try_from(value.len()).unwrap_or(u32::MAX);
        assert!(count <= super::CHUNK_SAMPLES_MAX);
        self.timestamps.clear();
        self.values.clear();
        let timestamp_codec = timestamps::encode(timestamp_ms, &mut self.timestamps);
        let value_codec = self.codecs.encode(value, &mut self.values);
        ChunkColumns {
            count,
            min_ms: timestamp_ms[0],
            max_ms: timestamp_ms[timestamp_ms.len() - 1],
            timestamp_codec,
            value_codec,
            timestamps: &self.timestamps,
            values: &self.values,
        }
    }
}

impl Chunk {
    /// The chunk of two columns.
    pub fn from_columns(columns: &ChunkColumns<'_>) -> Result<Self, ChunkFault> {
        let timestamps_len = u32::try_from(columns.timestamps.len());
        let timestamps_len = timestamps_len.map_err(|_| ChunkFault::BadHeader)?;
        let len = CHUNK_HEADER_BYTES + columns.timestamps.len() + columns.values.len();
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&[VERSION, columns.timestamp_codec, columns.value_codec, 0]);
        bytes.extend_from_slice(&columns.count.to_le_bytes());
        bytes.extend_from_slice(&columns.min_ms.to_le_bytes());
        bytes.extend_from_slice(&columns.max_ms.to_le_bytes());
        bytes.extend_from_slice(&timestamps_len.to_le_bytes());
        bytes.extend_from_slice(columns.timestamps);
        bytes.extend_from_slice(columns.values);
        check_header(&bytes)?;
        Ok(Self { bytes: Arc::from(bytes) })
    }

    /// Its columns.
    pub fn columns(&self) -> ChunkColumns<'_> {
        let timestamps_len = u32::from_le_bytes(self.field(24)) as usize;
        let (timestamps, values) = self.bytes[CHUNK_HEADER_BYTES..].split_at(timestamps_len);
        ChunkColumns {
            count: self.count(),
            min_ms: self.min_timestamp_ms(),
            max_ms: self.max_timestamp_ms(),
            timestamp_codec: self.bytes[1],
            value_codec: self.bytes[2],
            timestamps,
            values,
        }
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers from a seeded generator")]
mod tests {
    use super::*;
    use crate::base::random::Random;
    use crate::model::sample::{STALE_NAN_BITS, Sample};

    fn unit(random: &mut Random) -> f64 {
        (random.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal: the sum of twelve uniform ones.
    fn normal(random: &mut Random) -> f64 {
        (0..12).map(|_| unit(random)).sum::<f64>() - 6.0
    }

    fn column(kind: u64, count: usize, random: &mut Random) -> Vec<f64> {
        let mut walk = unit(random) * 100.0;
        let mut counter = (random.next() % 1_000_000) as f64;
        let mut next = |index: usize| match kind {
            0 => {
                walk = (walk + normal(random)).clamp(0.0, 100.0);
                (walk * 100.0).round() / 100.0
            }
            1 => {
                counter += (random.next() % 200) as f64;
                counter
            }
            2 => {
                walk += normal(random);
                (walk * 1000.0).round() / 1000.0
            }
            3 if index % 40 == 7 => f64::from_bits(STALE_NAN_BITS),
            3 => (random.next() % 50) as f64,
            4 => f64::from_bits(random.next()),
            5 => (index as f64 / 30.0).sin() * 40.0,
            6 => [0.0, -0.0, f64::INFINITY, 1.5, f64::NAN][(random.next() % 5) as usize],
            _ => 1.0,
        };
        (0..count).map(&mut next).collect()
    }

    #[test]
    fn every_bit_comes_back() {
        let mut encoder = BlockEncoder::default();
        let mut codecs = [0; 6];
        for seed in 0..400 {
            let mut random = Random(seed);
            let count = 1 + (random.next() % 1500) as usize;
            let values = column(seed % 8, count, &mut random);
            let times: Vec<i64> =
                (0_i64..).take(count).map(|at| at * 15_000 + at * at % 3).collect();
            let columns = encoder.encode(&times, &values);
            codecs[usize::from(columns.value_codec)] += 1;
            let chunk = Chunk::from_columns(&columns).expect("our own columns");
            assert_eq!(chunk.columns(), columns);
            let mut samples = Vec::new();
            chunk.decode(&mut samples).expect("our own chunk");
            for ((sample, timestamp_ms), value) in samples.iter().zip(&times).zip(&values) {
                let want = Sample { timestamp_ms: *timestamp_ms, value: *value };
                assert!(sample.is_identical(want), "seed={seed} {sample:?} {want:?}");
            }
            assert_eq!(samples.len(), count);
        }
        assert!(codecs.iter().filter(|count| **count > 0).count() >= 5, "{codecs:?}");
    }

    #[test]
    fn mutated_columns_never_panic() {
        let mut encoder = BlockEncoder::default();
        for kind in 0..8 {
            let mut random = Random(kind + 100);
            let values = column(kind, 300, &mut random);
            let times: Vec<i64> = (0..300).map(|at| at * 15_000).collect();
            let columns = encoder.encode(&times, &values);
            let good = Chunk::from_columns(&columns).expect("our own columns");
            for _ in 0..4_000 {
                let mut bytes = good.as_bytes().to_vec();
                for _ in 0..=random.next() % 3 {
                    let at = CHUNK_HEADER_BYTES
                        + (random.next() as usize) % (bytes.len() - CHUNK_HEADER_BYTES).max(1);
                    match random.next() % 3 {
                        0 => bytes[at] = random.next() as u8,
                        1 => bytes[at] ^= 1 << (random.next() % 8),
                        _ => bytes.truncate(at.max(CHUNK_HEADER_BYTES + 1)),
                    }
                }
                let mut samples = Vec::new();
                if let Ok(chunk) = Chunk::from_bytes(bytes.into()) {
                    let _ = chunk.decode(&mut samples);
                }
            }
        }
    }

    /// `cargo test --release --lib model::chunk::block -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement; meaningful in release only"]
    fn measure_size_and_speed() {
        let names = ["percent, 2 decimals", "counter", "walk, 3 decimals", "integers, stale"];
        let names = names.into_iter().chain(["random bits", "sine", "specials", "constant"]);
        for (kind, name) in (0..).zip(names) {
            let mut encoder = BlockEncoder::default();
            let mut random = Random(kind);
            let columns: Vec<_> = (0..100).map(|_| column(kind, 720, &mut random)).collect();
            let times: Vec<i64> = (0..720).map(|at| at * 10_000).collect();
            let samples = 100.0 * 720.0;
            let start = crate::base::time::monotonic_now();
            let encode = |values: &Vec<f64>| {
                let columns = encoder.encode(&times, values);
                Chunk::from_columns(&columns).expect("our own columns")
            };
            let chunks: Vec<_> = columns.iter().map(encode).collect();
            let encode_ns = start.elapsed().as_nanos() as f64 / samples;
            let mut out = Vec::with_capacity(1000);
            let start = crate::base::time::monotonic_now();
            for chunk in &chunks {
                out.clear();
                chunk.decode(&mut out).expect("our own chunk");
            }
            let decode_ns = start.elapsed().as_nanos() as f64 / samples;
            let bytes: usize = chunks.iter().map(|chunk| chunk.columns().values.len()).sum();
            let codec = chunks[0].columns().value_codec;
            let bytes = bytes as f64 / samples;
            println!("{name}: codec {codec}, {bytes:.2} B, {encode_ns:.1} + {decode_ns:.1} ns");
        }
    }
}
