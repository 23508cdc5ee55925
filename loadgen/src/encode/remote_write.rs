//! Remote write 1.0: `prometheus.WriteRequest` as protobuf, not yet compressed.
//! In: labels and samples. Out: bytes. O(bytes written). Snappy is one call of `snap`
//! (`compress`, below).
//!
//! ```text
//! WriteRequest { repeated TimeSeries timeseries = 1 }
//! TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2 }
//! Label        { string name = 1; string value = 2 }
//! Sample       { double value = 1; int64 timestamp = 2 }
//! ```
//! <https://github.com/prometheus/prometheus/blob/main/prompb/types.proto>

use super::PlainSeries;

/// Field 1, length-delimited: `timeseries`, `labels`, `name`.
const TAG_1_BYTES: u8 = 0x0a;
/// Field 2, length-delimited: `samples`, `value` of a label.
const TAG_2_BYTES: u8 = 0x12;
/// Field 1, 64 bits: the value of a sample.
const TAG_1_FIXED64: u8 = 0x09;
/// Field 2, varint: the timestamp of a sample.
const TAG_2_VARINT: u8 = 0x10;

/// Encodes whole series. Labels are sorted by name, as the format asks; samples keep their order.
pub fn encode(series: &[PlainSeries]) -> Vec<u8> {
    let mut body = Vec::new();
    for (labels, samples) in series {
        let mut sorted = labels.clone();
        sorted.sort();
        let span = encode_labels(&sorted);
        encode_series(&mut body, &span, samples.iter().copied());
    }
    body
}

/// `encode`, compressed: the body of a request.
pub fn encode_compressed(series: &[PlainSeries]) -> Vec<u8> {
    compress(&mut snap::raw::Encoder::new(), &encode(series), &mut Vec::new()).to_vec()
}

/// The `Label` messages of one series, in the order given: what stands first in its `TimeSeries`.
pub fn encode_labels(labels: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(labels.len() * 24);
    for (name, value) in labels {
        let len = string_field_len(name) + string_field_len(value);
        out.push(TAG_1_BYTES);
        encode_varint(&mut out, len as u64);
        encode_string(&mut out, TAG_1_BYTES, name);
        encode_string(&mut out, TAG_2_BYTES, value);
    }
    out
}

/// Appends one `TimeSeries`: `label_span` as `encode_labels` made it, then a message per sample.
pub fn encode_series(
    out: &mut Vec<u8>,
    label_span: &[u8],
    samples: impl Iterator<Item = (i64, f64)> + Clone,
) {
    let samples_len: usize = samples
        .clone()
        .map(|sample| {
            let len = sample_len(sample);
            1 + varint_len(len as u64) + len
        })
        .sum();
    out.push(TAG_1_BYTES);
    encode_varint(out, (label_span.len() + samples_len) as u64);
    out.extend_from_slice(label_span);
    for (timestamp_ms, value) in samples {
        out.push(TAG_2_BYTES);
        encode_varint(out, sample_len((timestamp_ms, value)) as u64);
        // A field at its default is left out, as every proto3 encoder does. -0.0 is not the default
        // here: its sign would be lost.
        if value.to_bits() != 0 {
            out.push(TAG_1_FIXED64);
            out.extend_from_slice(&value.to_le_bytes());
        }
        if timestamp_ms != 0 {
            out.push(TAG_2_VARINT);
            encode_varint(out, timestamp_ms.cast_unsigned());
        }
    }
}

/// Compresses `raw` as one snappy block. `scratch` only grows, so that its pages are touched once.
pub fn compress<'a>(
    encoder: &mut snap::raw::Encoder,
    raw: &[u8],
    scratch: &'a mut Vec<u8>,
) -> &'a [u8] {
    let worst_len = snap::raw::max_compress_len(raw.len());
    if scratch.len() < worst_len {
        scratch.resize(worst_len, 0);
    }
    let len = encoder.compress(raw, scratch).expect("the buffer has room for the worst case");
    &scratch[..len]
}

fn sample_len((timestamp_ms, value): (i64, f64)) -> usize {
    let value_len = if value.to_bits() == 0 { 0 } else { 9 };
    let time_len = if timestamp_ms == 0 { 0 } else { 1 + varint_len(timestamp_ms.cast_unsigned()) };
    value_len + time_len
}

fn string_field_len(text: &str) -> usize {
    1 + varint_len(text.len() as u64) + text.len()
}

fn encode_string(out: &mut Vec<u8>, tag: u8, text: &str) {
    out.push(tag);
    encode_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn encode_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_7_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_7_bits(value));
}

fn low_7_bits(value: u64) -> u8 {
    (value & 0x7f) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn bytes_are_those_of_the_reference_encoder() {
        // From prometheus/prompb with Go's gogo/protobuf, by hand from the schema: two labels out
        // of order, a value of one, a timestamp of 300 ms.
        let body = encode(&[(vec![label("b", "y"), label("__name__", "up")], vec![(300, 1.0)])]);
        let want = [
            b"\x0a\x26\x0a\x0e\x0a\x08__name__\x12\x02up\x0a\x06\x0a\x01b\x12\x01y\x12\x0c"
                .as_slice(),
            b"\x09\0\0\0\0\0\0\xf0\x3f\x10\xac\x02",
        ]
        .concat();
        assert_eq!(body, want);
    }

    #[test]
    fn defaults_are_left_out_but_the_sign_of_zero_is_kept() {
        let body = encode(&[(vec![], vec![(0, 0.0), (0, -0.0), (-1, 0.0)])]);
        let want = [
            b"\x0a\x1a\x12\x00\x12\x09\x09\0\0\0\0\0\0\0\x80\x12\x0b\x10".as_slice(),
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ]
        .concat();
        assert_eq!(body, want);
    }

    #[test]
    fn varint_lengths() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX] {
            let mut out = Vec::new();
            encode_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
    }
}
