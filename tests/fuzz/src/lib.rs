//! What the fuzz targets share: seeds, written when a target starts, and the checks on a decoded
//! request.

use std::path::Path;

use tidegate::gateway::decode::DecodeRules;
use tidegate::gateway::request::{DecodedRequest, RequestBytes};
use tidegate::model::labels::{encode_label, scan_canonical};
use tidegate::model::series::{SeriesHash, TenantId};

/// Rules with a future that examples reach and a limit that they do not.
pub const RULES: DecodeRules =
    DecodeRules { tenant: TenantId(7), timestamp_ms_max: 1_700_000_000_000, samples_max: 1 << 20 };

/// Writes `seeds` into the folder that `TIDEGATE_FUZZ_SEEDS` names, for libFuzzer to read when it
/// starts.
pub fn write_seeds(seeds: &[Vec<u8>]) {
    let Ok(folder) = std::env::var("TIDEGATE_FUZZ_SEEDS") else { return };
    for (index, seed) in seeds.iter().enumerate() {
        let path = Path::new(&folder).join(format!("seed-{index}"));
        std::fs::write(path, seed).expect("the seed folder can be written");
    }
}

/// Samples of one series as a decoder gave them: labels, timestamps, bits of the values.
pub type DecodedSeries = (Vec<u8>, Vec<i64>, Vec<u64>);

/// All series of `request`, sorted, each checked: canonical labels, the right hash, the right
/// shard.
pub fn check_request(bytes: &RequestBytes, request: &DecodedRequest) -> Vec<DecodedSeries> {
    let mut all = Vec::new();
    let mut samples = 0;
    let shard_count = u32::try_from(request.batches.len()).expect("few shards");
    for (shard, batch) in request.batches.iter().enumerate() {
        let mut start = 0;
        for index in 0..batch.len() {
            let labels = bytes.labels(batch.labels[index]);
            assert!(!labels.is_empty());
            assert_eq!(scan_canonical(labels, 0, labels.len()), Some(labels.len()));
            let hash = SeriesHash::of(RULES.tenant, labels);
            assert_eq!(hash, batch.hash[index]);
            assert_eq!(hash.slot().shard(shard_count) as usize, shard);
            let end = batch.sample_end[index] as usize;
            assert!(start < end);
            let timestamps_ms = batch.timestamp_ms[start..end].to_vec();
            assert!(timestamps_ms.iter().all(|&at| at <= RULES.timestamp_ms_max));
            let bits = batch.value[start..end].iter().map(|value| value.to_bits()).collect();
            all.push((labels.to_vec(), timestamps_ms, bits));
            start = end;
        }
        assert_eq!((start, start), (batch.timestamp_ms.len(), batch.value.len()));
        samples += start as u64;
    }
    assert_eq!(samples, request.samples);
    all.sort();
    all
}

/// `TimeSeries` in a `WriteRequest`, as every sender writes them.
pub fn encode_write_request(all: &[DecodedSeries]) -> Vec<u8> {
    let mut body = Vec::new();
    for (labels, timestamps_ms, bits) in all {
        let mut series = labels.clone();
        for (timestamp_ms, bits) in timestamps_ms.iter().zip(bits) {
            let mut sample = vec![0x09];
            sample.extend_from_slice(&bits.to_le_bytes());
            sample.push(0x10);
            push_varint(&mut sample, timestamp_ms.cast_unsigned());
            push_message(&mut series, 0x12, &sample);
        }
        push_message(&mut body, 0x0a, &series);
    }
    body
}

/// Label messages one after the other.
pub fn encode_labels(labels: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        encode_label(&mut out, name.as_bytes(), value.as_bytes());
    }
    out
}

/// A length-delimited field.
pub fn push_message(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    push_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Remote write bodies: usual ones, unsorted labels, exemplars, histograms, metadata.
pub fn write_request_seeds() -> Vec<Vec<u8>> {
    let now_ms = RULES.timestamp_ms_max;
    let up = encode_labels(&[("__name__", "up"), ("instance", "a:9100"), ("job", "node")]);
    let long = "v".repeat(200);
    let unsorted =
        encode_labels(&[("zone", &long), ("__name__", "http_requests_total"), ("e", "")]);
    let one = (up.clone(), vec![now_ms], vec![1.5f64.to_bits()]);
    let many = (up.clone(), vec![now_ms, now_ms + 1, 0, -1], vec![0, 1, 2, 0x7ff0_0000_0000_0002]);
    let other = (unsorted, vec![now_ms - 15_000], vec![7f64.to_bits()]);
    let mut with_more = up;
    push_message(&mut with_more, 0x12, &[]);
    push_message(&mut with_more, 0x1a, b"\x11\0\0\0\0\0\0\0\0");
    push_message(&mut with_more, 0x22, b"\x08\x01");
    push_message(&mut with_more, 0x0a, b"\x0a\x01z\x12\x01z");
    let mut rare = Vec::new();
    push_message(&mut rare, 0x0a, &with_more);
    push_message(&mut rare, 0x1a, b"\x08\x01\x12\x02up");
    vec![
        encode_write_request(std::slice::from_ref(&one)),
        encode_write_request(&[one, many, other]),
        rare,
    ]
}

/// JSON lines: the usual shape, and what makes it unusual.
pub fn json_seeds() -> Vec<Vec<u8>> {
    [
        concat!(
            r#"{"metric":{"__name__":"up","job":"x"},"values":[1,2.5,-3],"#,
            r#""timestamps":[1600000000000,1600000000001,1600000000002]}"#,
        ),
        concat!(
            r#"{"values":[null,"NaN","-Infinity",1e-7,-0,0.1],"#,
            r#""metric":{"__name__":"a","b":"\u00e4\""},"timestamps":[1,2,3.5,4,5,6]}"#,
        ),
        concat!(
            " { \"timestamps\" : [ 1600000000 ] ,\t\"values\":[ 12345678901234567890 ],",
            "\"metric\":{\"__name__\":\"ü\"},\"x\":[{}]}\r\n",
        ),
        "{\"metric\":{\"__name__\":\"up\"},\"values\":[1],\"timestamps\":[1,2]}\n\nx\n",
        concat!(
            r#"{"metric":{"__name__":"up","__name__":"","":"x"},"#,
            r#""values":[0.30000000000000004,9007199254740993],"#,
            r#""timestamps":[100000000000,99999999999]}"#,
        ),
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec()
}
