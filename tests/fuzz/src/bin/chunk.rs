//! Any bytes as a chunk, whole or in columns: a sample list of the length it says, or a fault,
//! never a panic. Any samples: the same bits come back from both encoders.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tidegate::model::chunk::{BLOCK_CHUNK_SAMPLES_MAX, BlockEncoder, Chunk, ChunkColumns};
use tidegate_fuzz::write_seeds;

/// What the first byte chooses.
const WHOLE: u8 = 0;
const COLUMNS: u8 = 1;
const SAMPLES: u8 = 2;
/// Samples that a chunk of a head holds at most.
const HEAD_CHUNK_SAMPLES_MAX: usize = 255;

fn series(shape: u64) -> (Vec<i64>, Vec<f64>) {
    let times = (0..200).map(|step| 1_700_000_000_000 + step * 15_000 + step % 3).collect();
    let value = |step: u64| match shape {
        0 => 42.0,
        1 => step as f64 * 17.0,
        2 => (step * 7919 % 10_000) as f64 / 100.0,
        3 => f64::from_bits(step.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        _ => (step as f64 / 9.0).sin(),
    };
    (times, (0..200).map(value).collect())
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for shape in 0..5 {
        let (times, values) = series(shape);
        let mut whole = vec![WHOLE];
        whole.extend_from_slice(Chunk::encode(&times[..60], &values[..60]).as_bytes());
        seeds.push(whole);
        let mut encoder = BlockEncoder::default();
        let columns = encoder.encode(&times, &values);
        let mut seed = vec![COLUMNS];
        seed.extend_from_slice(&u16::try_from(columns.count).expect("200").to_le_bytes());
        seed.extend_from_slice(&columns.min_ms.to_le_bytes());
        seed.extend_from_slice(&columns.max_ms.to_le_bytes());
        seed.extend_from_slice(&[columns.timestamp_codec, columns.value_codec]);
        let split = u16::try_from(columns.timestamps.len()).expect("short");
        seed.extend_from_slice(&split.to_le_bytes());
        seed.extend_from_slice(columns.timestamps);
        seed.extend_from_slice(columns.values);
        seeds.push(seed);
        let mut samples = vec![SAMPLES];
        for (time, value) in times.windows(2).map(|pair| pair[1] - pair[0]).zip(&values) {
            samples.extend_from_slice(&u32::try_from(time).expect("15 s").to_le_bytes());
            samples.extend_from_slice(&value.to_le_bytes());
        }
        seeds.push(samples);
    }
    seeds
}

fn check(chunk: &Chunk) {
    let mut samples = Vec::new();
    if chunk.decode(&mut samples).is_ok() {
        assert_eq!(samples.len(), chunk.count() as usize);
        assert!(samples.is_sorted_by(|one, next| one.timestamp_ms < next.timestamp_ms));
        assert_eq!(samples[0].timestamp_ms, chunk.min_timestamp_ms());
        assert_eq!(samples[samples.len() - 1].timestamp_ms, chunk.max_timestamp_ms());
    }
}

fn decode_columns(data: &[u8]) -> Option<()> {
    let (head, rest) = data.split_at_checked(22)?;
    let split = usize::from(u16::from_le_bytes([head[20], head[21]]));
    let (timestamps, values) = rest.split_at_checked(split)?;
    let columns = ChunkColumns {
        count: u32::from(u16::from_le_bytes([head[0], head[1]])),
        min_ms: i64::from_le_bytes(head[2..10].try_into().ok()?),
        max_ms: i64::from_le_bytes(head[10..18].try_into().ok()?),
        timestamp_codec: head[18],
        value_codec: head[19],
        timestamps,
        values,
    };
    if let Ok(chunk) = Chunk::from_columns(&columns) {
        check(&chunk);
    }
    Some(())
}

fn round_trip(data: &[u8]) {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let mut at = i64::from(i32::MIN) * 1_000_000;
    for sample in data.chunks_exact(12).take(BLOCK_CHUNK_SAMPLES_MAX) {
        let (gap, value) = sample.split_at(4);
        at += 1 + i64::from(u32::from_le_bytes(gap.try_into().expect("four")));
        times.push(at);
        values.push(f64::from_le_bytes(value.try_into().expect("eight")));
    }
    if times.is_empty() {
        return;
    }
    let few = times.len().min(HEAD_CHUNK_SAMPLES_MAX);
    check_same(&Chunk::encode(&times[..few], &values[..few]), &times[..few], &values[..few]);
    let mut encoder = BlockEncoder::default();
    let chunk = Chunk::from_columns(&encoder.encode(&times, &values)).expect("our own");
    check_same(&chunk, &times, &values);
}

fn check_same(chunk: &Chunk, times: &[i64], values: &[f64]) {
    let mut samples = Vec::new();
    chunk.decode(&mut samples).expect("our own");
    let found = samples.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits()));
    let wanted = times.iter().copied().zip(values.iter().map(|value| value.to_bits()));
    assert!(found.eq(wanted));
}

fuzz_target!(init: write_seeds(&seeds()), |data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    match *mode % 3 {
        WHOLE => {
            if let Ok(chunk) = Chunk::from_bytes(Arc::from(data)) {
                check(&chunk);
            }
        }
        COLUMNS => {
            decode_columns(data);
        }
        _ => round_trip(data),
    }
});
