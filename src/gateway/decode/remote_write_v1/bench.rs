//! What a series costs. `cargo test --release --lib decode::remote_write_v1::bench -- --ignored
//! --nocapture`

#![cfg(test)]

use std::hint::black_box;

use super::tests::{push_message, push_sample};
use super::*;
use crate::base::time::monotonic_now;
use crate::model::labels::encode_label;
use crate::model::series::TenantId;

const SERIES_COUNT: usize = 5000;

/// 5,000 series of eleven labels and one sample, 273 bytes each.
fn example() -> Vec<u8> {
    let mut body = Vec::new();
    for index in 0..i32::try_from(SERIES_COUNT).expect("few") {
        let mut series = Vec::new();
        let instance = format!("10.0.{:03}.{:03}:9100", index / 250, index % 250);
        for (name, value) in [
            ("__name__", "node_cpu_seconds_total"),
            ("cluster", "production-eu"),
            ("cpu", "12"),
            ("datacenter", "fra1"),
            ("environment", "production"),
            ("instance", instance.as_str()),
            ("job", "node-exporter"),
            ("mode", "system"),
            ("rack", "r42"),
            ("region", "eu-central-1"),
            ("team", "infrastructure-a"),
        ] {
            encode_label(&mut series, name.as_bytes(), value.as_bytes());
        }
        push_sample(&mut series, 1_700_000_000_000 + i64::from(index), f64::from(index));
        push_message(&mut body, 0x0a, &series);
    }
    body
}

/// The least of many rounds, in nanoseconds per series: what the code costs when nobody disturbs
/// it.
fn measure(what: &str, mut round: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..400 {
        let start = monotonic_now();
        round();
        best = best.min(start.elapsed().as_nanos() as f64);
    }
    println!("{what}: {:.1} ns per series", best / SERIES_COUNT as f64);
}

#[test]
#[ignore = "measurement"]
fn walk_check_hash() {
    let body = example();
    println!("{} bytes per series", body.len() / SERIES_COUNT);
    let rules = DecodeRules {
        tenant: TenantId(0),
        timestamp_ms_max: i64::MAX,
        samples_max: DecodeRules::SAMPLES_MAX_DEFAULT,
    };
    let mut spans = Vec::new();
    let mut offset = 0;
    while let Some((start, end)) = read_series_head(&body, offset) {
        let labels_end = scan_canonical(&body, start, end).expect("canonical");
        spans.push((start, labels_end, end));
        offset = end;
    }
    assert_eq!(spans.len(), SERIES_COUNT);
    measure("check the labels", || {
        for &(start, _, end) in &spans {
            black_box(scan_canonical(&body, start, end));
        }
    });
    measure("hash the labels", || {
        for &(start, labels_end, _) in &spans {
            black_box(SeriesHash::of(rules.tenant, &body[start..labels_end]));
        }
    });
    let mut packed = Vec::new();
    snap::raw::Encoder::new().compress_vec(&body).expect("small").clone_into(&mut packed);
    let mut bytes = RequestBytes { body, labels: Vec::new() };
    for shard_count in [1, 2, 3] {
        let mut decoder = RemoteWriteDecoder::default();
        let mut request = DecodedRequest::new(shard_count);
        measure(&format!("decode, {shard_count} shards"), || {
            decoder.decode(&rules, &mut bytes, black_box(&mut request)).expect("good");
        });
        assert_eq!(request.samples, SERIES_COUNT as u64);
    }
    println!("{} bytes per series compressed", packed.len() / SERIES_COUNT);
    measure("snappy", || {
        let mut decoder = snap::raw::Decoder::new();
        black_box(decoder.decompress(&packed, &mut bytes.body).expect("good"));
    });
}
