//! Bodies for the ingest paths, by an encoder of these tests' own: remote write 1.0 and JSON lines.

use std::time::{SystemTime, UNIX_EPOCH};

/// Every path that takes remote write.
pub const REMOTE_WRITE_PATHS: [&str; 4] =
    ["/api/v1/write", "/api/v1/push", "/api/v1/receive", "/api/v1/prom/remote/write"];
/// The path that takes JSON lines.
pub const IMPORT_PATH: &str = "/api/v1/import";
/// What a remote-write sender sends along.
pub const REMOTE_WRITE_HEADERS: [(&str, &str); 3] = [
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
];

/// A series with its samples: (timestamp in ms, value).
pub struct Series {
    pub labels: Vec<(String, String)>,
    pub samples: Vec<(i64, f64)>,
}

impl Series {
    pub fn new(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { labels: labels.iter().map(owned).collect(), samples: samples.to_vec() }
    }
}

/// The wall clock, in Unix milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292 million")
}

/// A `WriteRequest`, compressed.
pub fn remote_write(series: &[Series]) -> Vec<u8> {
    compress(&write_request(series))
}

/// A snappy block.
pub fn compress(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).expect("below 4 GiB")
}

/// A `WriteRequest`: `timeseries = 1 { labels = 1 { name = 1, value = 2 }, samples = 2 { value = 1,
/// timestamp = 2 } }`.
/// <https://github.com/prometheus/prometheus/blob/main/prompb/remote.proto>
pub fn write_request(series: &[Series]) -> Vec<u8> {
    let mut request = Vec::new();
    for one in series {
        let mut message = Vec::new();
        for (name, value) in &one.labels {
            let mut label = Vec::new();
            push_bytes(&mut label, 1, name.as_bytes());
            push_bytes(&mut label, 2, value.as_bytes());
            push_bytes(&mut message, 1, &label);
        }
        for (timestamp_ms, value) in &one.samples {
            let mut sample = vec![1 << 3 | 1];
            sample.extend_from_slice(&value.to_le_bytes());
            sample.push(2 << 3);
            push_varint(&mut sample, timestamp_ms.cast_unsigned());
            push_bytes(&mut message, 2, &sample);
        }
        push_bytes(&mut request, 1, &message);
    }
    request
}

fn push_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    push_varint(message, u64::try_from(bytes.len()).expect("64 bits"));
    message.extend_from_slice(bytes);
}

fn push_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    message.push(value.to_le_bytes()[0]);
}

/// VictoriaMetrics' JSON lines. Values that JSON has no number for become strings.
pub fn json_lines(series: &[Series]) -> Vec<u8> {
    let mut lines = String::new();
    for one in series {
        let metric: serde_json::Map<_, _> =
            one.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let values: Vec<_> = one.samples.iter().map(|(_, value)| json_number(*value)).collect();
        let timestamps: Vec<_> = one.samples.iter().map(|(timestamp_ms, _)| timestamp_ms).collect();
        let line = serde_json::json!({
            "metric": metric, "values": values, "timestamps": timestamps,
        });
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    lines.into_bytes()
}

fn json_number(value: f64) -> serde_json::Value {
    if value.is_finite() {
        return value.into();
    }
    if value.is_nan() {
        return "NaN".into();
    }
    if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
}

/// A gzip stream.
pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut packed = vec![0; compressor.gzip_compress_bound(plain.len())];
    let len = compressor.gzip_compress(plain, &mut packed).expect("the bound holds");
    packed.truncate(len);
    packed
}
