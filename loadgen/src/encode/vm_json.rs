//! VictoriaMetrics JSON lines, as `/api/v1/import` takes them:
//! `{"metric":{"__name__":"up",...},"values":[1,2.5],"timestamps":[1700000000000,...]}`, one series
//! a line. In: labels and samples. Out: text. Numbers parse back to the same bits. O(bytes
//! written).
//! <https://docs.victoriametrics.com/victoriametrics/#json-line-format>

use std::io::Write as _;

use super::PlainSeries;

/// Encodes whole series, a line each, labels in the order given.
pub fn encode(series: &[PlainSeries]) -> String {
    let mut out = Vec::new();
    for (labels, samples) in series {
        encode_line(&mut out, &encode_labels(labels), samples.iter().copied());
    }
    String::from_utf8(out).expect("labels are UTF-8 and numbers are ASCII")
}

/// The `{"name":"value",...}` object of one series.
pub fn encode_labels(labels: &[(String, String)]) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        encode_string(&mut out, name);
        out.push(b':');
        encode_string(&mut out, value);
    }
    out.push(b'}');
    out
}

/// Appends one line: `label_object` as `encode_labels` made it, then the two columns.
pub fn encode_line(
    out: &mut Vec<u8>,
    label_object: &[u8],
    samples: impl Iterator<Item = (i64, f64)> + Clone,
) {
    out.extend_from_slice(b"{\"metric\":");
    out.extend_from_slice(label_object);
    out.extend_from_slice(b",\"values\":[");
    for (index, (_, value)) in samples.clone().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        encode_number(out, value);
    }
    out.extend_from_slice(b"],\"timestamps\":[");
    for (index, (timestamp_ms, _)) in samples.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        encode_integer(out, timestamp_ms);
    }
    out.extend_from_slice(b"]}\n");
}

fn encode_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..0x20 => write!(out, "\\u{byte:04x}").expect("a Vec takes every write"),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// NaN and the infinities are not JSON numbers: null and strings, as VictoriaMetrics has them.
fn encode_number(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        return out.extend_from_slice(b"null");
    }
    if value.is_infinite() {
        let text = if value > 0.0 { b"\"Infinity\"".as_slice() } else { b"\"-Infinity\"" };
        return out.extend_from_slice(text);
    }
    // Three digits behind the point cover what most exporters send, at a tenth of the cost of a
    // shortest-digits search. The division below is exact to the bit or the general way is taken.
    let scaled = value * 1000.0;
    if scaled.abs() < 1e15 && value.to_bits() != (-0.0_f64).to_bits() {
        #[expect(clippy::cast_possible_truncation, reason = "checked by the division")]
        let thousandths = scaled.round() as i64;
        if (thousandths as f64 / 1000.0).to_bits() == value.to_bits() {
            return encode_thousandths(out, thousandths);
        }
    }
    let written = if value.to_bits() == (-0.0_f64).to_bits() {
        write!(out, "-0.0")
    } else if (1e-5..1e17).contains(&value.abs()) {
        write!(out, "{value}")
    } else {
        write!(out, "{value:e}")
    };
    written.expect("a Vec takes every write");
}

fn encode_thousandths(out: &mut Vec<u8>, thousandths: i64) {
    if thousandths < 0 {
        out.push(b'-');
    }
    let magnitude = thousandths.unsigned_abs();
    encode_digits(out, magnitude / 1000);
    let mut fraction = magnitude % 1000;
    if fraction == 0 {
        return;
    }
    out.push(b'.');
    let mut unit = 100;
    while fraction > 0 {
        out.push(digit(fraction / unit));
        fraction %= unit;
        unit /= 10;
    }
}

fn encode_integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    encode_digits(out, value.unsigned_abs());
}

fn encode_digits(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = digit(value % 10);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[expect(clippy::cast_possible_truncation, reason = "a decimal digit")]
fn digit(value: u64) -> u8 {
    b'0' + value as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let labels = vec![("__name__".into(), "up".into()), ("a".into(), "q\"\\\n\u{1}é".into())];
        let line = encode(&[(labels, vec![(1_700_000_000_000, 1.0), (-5, 2.5)])]);
        assert_eq!(
            line,
            "{\"metric\":{\"__name__\":\"up\",\"a\":\"q\\\"\\\\\\n\\u0001é\"},\
             \"values\":[1,2.5],\"timestamps\":[1700000000000,-5]}\n"
        );
    }

    #[test]
    fn numbers() {
        #[track_caller]
        fn check(value: f64, want: &str) {
            let mut out = Vec::new();
            encode_number(&mut out, value);
            assert_eq!(String::from_utf8(out).expect("ASCII"), want);
        }
        check(0.0, "0");
        check(-0.0, "-0.0");
        check(-0.5, "-0.5");
        check(0.05, "0.05");
        check(0.005, "0.005");
        check(1234.56, "1234.56");
        check(-1234.567, "-1234.567");
        check(0.1 + 0.2, "0.30000000000000004");
        check(f64::MAX, "1.7976931348623157e308");
        check(5e-324, "5e-324");
        check(9_007_199_254_740_993.0, "9007199254740992");
        check(f64::NAN, "null");
        check(f64::NEG_INFINITY, "\"-Infinity\"");
    }

    #[test]
    fn numbers_parse_back_to_their_bits() {
        let mut bits = 1_u64;
        for _ in 0..100_000 {
            bits = bits
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            #[expect(clippy::cast_possible_wrap, reason = "any integer will do")]
            let small = (bits >> 20) as i64 as f64 / 1000.0;
            for value in [f64::from_bits(bits), small] {
                if value.is_finite() {
                    let mut out = Vec::new();
                    encode_number(&mut out, value);
                    let text = String::from_utf8(out).expect("ASCII");
                    let back: f64 = text.parse().expect("a number");
                    assert_eq!(back.to_bits(), value.to_bits(), "{text}");
                }
            }
        }
    }
}
