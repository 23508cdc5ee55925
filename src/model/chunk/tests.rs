//! Chunks: round trips by shape, sizes, mutations, and the speed of both ways.

use super::*;
use crate::base::random::Random;
use crate::model::sample::STALE_NAN_BITS;

#[track_caller]
fn check(timestamp_ms: &[i64], value: &[f64], bytes_max: usize) {
    let chunk = Chunk::encode(timestamp_ms, value);
    let chunk = Chunk::from_bytes(chunk.as_bytes().into()).expect("our own header");
    assert_eq!(chunk.count() as usize, timestamp_ms.len());
    assert_eq!(chunk.min_timestamp_ms(), timestamp_ms[0]);
    assert_eq!(chunk.max_timestamp_ms(), timestamp_ms[timestamp_ms.len() - 1]);
    let before = Sample { timestamp_ms: 7, value: 7.0 };
    let mut samples = vec![before];
    chunk.decode(&mut samples).expect("our own chunk");
    assert_eq!(samples.len(), 1 + timestamp_ms.len());
    for (index, sample) in samples[1..].iter().enumerate() {
        let want = Sample { timestamp_ms: timestamp_ms[index], value: value[index] };
        assert!(sample.is_identical(want), "index={index} got={sample:?} want={want:?}");
    }
    assert!(chunk.len_bytes() <= bytes_max, "{} bytes", chunk.len_bytes());
}

fn every(step_ms: i64, count: i64) -> Vec<i64> {
    (0..count).map(|index| 1_700_000_000_000 + index * step_ms).collect()
}

#[test]
fn shapes_and_their_sizes() {
    let regular = every(15_000, 64);
    let mut jittered = regular.clone();
    jittered.iter_mut().zip(0..).for_each(|(ms, at): (_, i64)| *ms += at * 7 % 5);
    let mut one_missed = regular.clone();
    one_missed[40..].iter_mut().for_each(|ms| *ms += 15_000);
    let counter: Vec<f64> = (0..64).map(|at| f64::from(at * at + 1000)).collect();
    let decimal: Vec<f64> = (0..64).map(|at| f64::from(at % 17) / 10.0 + 20.0).collect();
    let sine: Vec<f64> = (0..64).map(|at| f64::from(at).sin()).collect();
    let negative_zero = [0.0, -0.0, 0.0, -0.0];
    let nans = [f64::NAN, f64::from_bits(STALE_NAN_BITS), f64::INFINITY, -f64::NAN, 1.0];
    let huge: Vec<f64> = (0..64).map(|at| 9e15 + f64::from(at)).collect();
    check(&[5], &[1.5], CHUNK_HEADER_BYTES + 8);
    check(&[i64::MIN, i64::MAX], &[f64::MIN, f64::MAX], 60);
    check(&[i64::MIN, 0, i64::MAX], &[1.0, 1.0, 1.0], 70);
    check(&[i64::MIN, -5, -4, i64::MAX - 1, i64::MAX], &[0.5; 5], 100);
    check(&regular, &[3.0; 64], CHUNK_HEADER_BYTES + 8);
    check(&jittered, &counter, 140);
    check(&one_missed, &counter, 180);
    check(&regular, &decimal, 90);
    check(&regular, &sine, CHUNK_HEADER_BYTES + 64 * 8);
    check(&regular, &huge, 120);
    check(&regular[..4], &negative_zero, 60);
    check(&regular[..5], &nans, 80);
}

#[test]
fn random_round_trips() {
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let count = 1 + random.below(130) as usize;
        let step_bits = random.below(50);
        let mut now_ms = random.next().cast_signed() >> 8;
        let mut timestamp_ms = Vec::new();
        let mut value = Vec::new();
        let kind = random.below(6);
        for _ in 0..count {
            timestamp_ms.push(now_ms);
            now_ms += 1 + random.below(1 << step_bits).cast_signed();
            value.push(match kind {
                0 => f64::from_bits(random.next()),
                1 => random.below(1000) as f64,
                2 => random.below(100_000) as f64 / 1000.0,
                3 => (random.next().cast_signed() >> random.below(60)) as f64,
                4 => [0.1, f64::NAN, 5.0][random.below(3) as usize],
                _ => f64::from_bits(0x4059_0000_0000_0000 ^ random.below(1 << 20)),
            });
        }
        check(&timestamp_ms, &value, usize::MAX);
    }
}

#[test]
fn mutated_bytes_never_panic() {
    let timestamp_ms: Vec<i64> = (0..64).map(|at| at * 1000 + at * at % 7).collect();
    let columns: [Vec<f64>; 4] = [
        (0..64).map(|at| f64::from(at).sqrt()).collect(),
        (0..64).map(|at| f64::from(at) / 10.0).collect(),
        (0..64).map(|at| f64::from(at * at)).collect(),
        vec![1.0; 64],
    ];
    let chunks = columns.each_ref().map(|value| Chunk::encode(&timestamp_ms, value));
    let mut samples = Vec::new();
    let mut whole = 0;
    for seed in 0..100_000 {
        let mut random = Random(seed);
        let mut bytes = chunks[random.below(4) as usize].as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(4) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random.next() as u8),
            }
        }
        samples.clear();
        if let Ok(chunk) = Chunk::from_bytes(bytes.into()) {
            if chunk.decode(&mut samples).is_ok() {
                whole += 1;
                assert_eq!(samples.len(), chunk.count() as usize);
                assert!(samples.is_sorted_by(|a, b| a.timestamp_ms < b.timestamp_ms));
                assert_eq!(samples[0].timestamp_ms, chunk.min_timestamp_ms());
                assert_eq!(samples[samples.len() - 1].timestamp_ms, chunk.max_timestamp_ms());
            } else {
                assert!(samples.is_empty());
            }
        }
    }
    assert!(whole > 1000, "mutations of values alone still decode: {whole}");
}

#[test]
fn unknown_codecs_are_named() {
    let good = Chunk::encode(&[1, 2, 4], &[1.0, 2.5, 3.25]);
    let decode_with = |at: usize, byte: u8| {
        let mut bytes = good.as_bytes().to_vec();
        bytes[at] = byte;
        Chunk::from_bytes(bytes.into()).and_then(|chunk| chunk.decode(&mut Vec::new()))
    };
    assert_eq!(decode_with(0, 9), Err(ChunkFault::UnknownVersion { version: 9 }));
    assert_eq!(decode_with(1, 9), Err(ChunkFault::UnknownTimestampCodec { codec: 9 }));
    assert_eq!(decode_with(2, 9), Err(ChunkFault::UnknownValueCodec { codec: 9 }));
    assert_eq!(decode_with(3, 9), Err(ChunkFault::BadHeader));
}

/// `cargo test --release --lib model::chunk -- --ignored --nocapture`
#[test]
#[ignore = "a measurement; meaningful in release only"]
fn measure_encode_and_decode() {
    let jittered: Vec<i64> = (0..64).map(|at| 1_700_000_000_000 + at * 15_000 + at % 4).collect();
    let shapes: [(&str, Vec<f64>); 4] = [
        ("constant", vec![1.0; 64]),
        ("counter", (0..64).map(|at| f64::from(at * 37 + at % 5)).collect()),
        ("decimal", (0..64).map(|at| f64::from(at * 7 % 64) / 100.0).collect()),
        ("float", (0..64).map(|at| f64::from(at).sin()).collect()),
    ];
    for (name, value) in shapes {
        let rounds = 100_000_u32;
        let points = f64::from(rounds) * 64.0;
        let start = crate::base::time::monotonic_now();
        for _ in 0..rounds {
            std::hint::black_box(Chunk::encode(std::hint::black_box(&jittered), &value));
        }
        let encode_ns = start.elapsed().as_nanos() as f64 / points;
        let chunk = Chunk::encode(&jittered, &value);
        let mut out = Vec::new();
        let start = crate::base::time::monotonic_now();
        for _ in 0..rounds {
            out.clear();
            std::hint::black_box(&chunk).decode(&mut out).expect("our own chunk");
        }
        let decode_ns = start.elapsed().as_nanos() as f64 / points;
        let bytes = chunk.len_bytes() as f64 / 64.0;
        println!("{name}: encode {encode_ns:.2} decode {decode_ns:.2} ns, {bytes:.2} B a point");
    }
}
