//! What a point costs. `cargo test --release --lib decode::vm_json::bench -- --ignored --nocapture`

#![cfg(test)]

use std::fmt::Write;
use std::hint::black_box;

use super::*;
use crate::base::random::Random;
use crate::base::time::monotonic_now;
use crate::model::series::TenantId;

const LINES: usize = 200;
const POINTS: usize = 100;

/// Lines of eleven labels and a hundred points, their values made by `value`.
fn example(mut value: impl FnMut(&mut Random) -> f64) -> Vec<u8> {
    let mut random = Random(1);
    let mut body = String::new();
    for line in 0..LINES {
        write!(
            body,
            r#"{{"metric":{{"__name__":"node_cpu_seconds_total","cluster":"production-eu","#
        )
        .expect("a String");
        write!(body, r#""cpu":"12","datacenter":"fra1","instance":"10.0.0.{line}","#)
            .expect("a String");
        body.push_str(
            r#""environment":"production","job":"node-exporter","mode":"system","rack":"r42","#,
        );
        body.push_str(r#""region":"eu-central-1","team":"infrastructure"},"values":["#);
        for point in 0..POINTS {
            write!(body, "{}{}", if point == 0 { "" } else { "," }, value(&mut random))
                .expect("a String");
        }
        body.push_str(r#"],"timestamps":["#);
        for point in 0..POINTS {
            let comma = if point == 0 { "" } else { "," };
            write!(body, "{comma}{}", 1_700_000_000_000 + point * 15_000).expect("a String");
        }
        body.push_str("]}\n");
    }
    body.into_bytes()
}

fn measure(what: &str, reader: LineReader, body: &[u8]) -> f64 {
    let rules = DecodeRules {
        tenant: TenantId(0),
        timestamp_ms_max: i64::MAX,
        samples_max: DecodeRules::SAMPLES_MAX_DEFAULT,
    };
    let mut decoder = VmJsonDecoder::new(reader);
    let mut bytes = RequestBytes { body: body.to_vec(), labels: Vec::new() };
    let mut request = DecodedRequest::new(1);
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        let start = monotonic_now();
        decoder.decode(&rules, &mut bytes, black_box(&mut request)).expect("few samples");
        best = best.min(start.elapsed().as_nanos() as f64);
    }
    assert_eq!(request.samples, (LINES * POINTS) as u64);
    let each = best / (LINES * POINTS) as f64;
    println!("{what}, {reader:?}: {each:.1} ns per point");
    each
}

#[test]
#[ignore = "measurement"]
fn points() {
    let whole = |random: &mut Random| random.index(100_000) as f64;
    let short = |random: &mut Random| random.index(10_000_000) as f64 / 1000.0;
    let random = |random: &mut Random| random.next() as f64 / u64::MAX as f64;
    for (what, body) in [
        ("whole numbers", example(whole)),
        ("three decimals", example(short)),
        ("random f64", example(random)),
    ] {
        let both = measure(what, LineReader::Both, &body);
        let simd = measure(what, LineReader::SimdJson, &body);
        println!(
            "{what}: {} bytes per point, {:.2} times",
            body.len() / LINES / POINTS,
            simd / both
        );
    }
}
