//! JSON as Prometheus and VictoriaMetrics write it, straight into bytes: labels, values, times.
//! Pure.

use std::io::Write;

use axum::http::HeaderValue;

use crate::model::labels;
use crate::model::sample::{Sample, is_stale};

/// Of every JSON answer.
pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/json");

/// A quoted string. Bytes that are not UTF-8 become replacement characters.
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if text.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(text);
        out.push(b'"');
        return;
    }
    for &byte in String::from_utf8_lossy(text).as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => push(out, format_args!("\\u{byte:04x}")),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// The labels of canonical bytes as an object.
pub fn write_labels(out: &mut Vec<u8>, canonical: &[u8], names: LabelNames) {
    out.push(b'{');
    let mut is_first = true;
    for (name, value) in labels::iterate(canonical) {
        if names == LabelNames::WithoutMetric && name == b"__name__" {
            continue;
        }
        if !is_first {
            out.push(b',');
        }
        is_first = false;
        write_string(out, name);
        out.push(b':');
        write_string(out, value);
    }
    out.push(b'}');
}

/// Which labels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelNames {
    /// Each.
    All,
    /// All but `__name__`.
    WithoutMetric,
}

/// `[1435781451.781,"1"]`
pub fn write_point(out: &mut Vec<u8>, point: Sample) {
    out.push(b'[');
    write_seconds(out, point.timestamp_ms);
    out.extend_from_slice(b",\"");
    write_number(out, point.value);
    out.extend_from_slice(b"\"]");
}

/// Seconds with three digits behind the point, or none if they are all zero.
pub fn write_seconds(out: &mut Vec<u8>, timestamp_ms: i64) {
    let magnitude_ms = timestamp_ms.unsigned_abs();
    if timestamp_ms < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(itoa::Buffer::new().format(magnitude_ms / 1000).as_bytes());
    if !magnitude_ms.is_multiple_of(1000) {
        push(out, format_args!(".{:03}", magnitude_ms % 1000));
    }
}

/// A value as Go's `strconv` and Prometheus write it: shortest digits that read back exactly, an
/// exponent below 1e-6 and from 1e21 on, `NaN`, `+Inf`, `-Inf`. Not quoted.
pub fn write_number(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        // Rust says 1e-7 and 1e21 where Go says 1e-07 and 1e+21.
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        push(out, format_args!("{digits}e{sign}{exponent:0>2}"));
    } else {
        // Several times as fast as `{value}`, but with an exponent for some that have none here.
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value);
        if text.contains('e') {
            push(out, format_args!("{value}"));
        } else {
            out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
        }
    }
}

/// A value in an export line, which our own import reads back: a bare number, `"Infinity"`,
/// `"-Infinity"`, `null` for the stale marker, `"NaN"` for any other NaN.
///
/// VictoriaMetrics writes `null` for NaN too, and the stale marker is the only NaN that it stores.
/// Our import reads `null` as the stale marker and `"NaN"` as Prometheus' normal NaN.
pub fn write_export_value(out: &mut Vec<u8>, value: f64) {
    if is_stale(value) {
        out.extend_from_slice(b"null");
    } else if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        write_number(out, value);
    }
}

fn push(out: &mut Vec<u8>, arguments: std::fmt::Arguments) {
    out.write_fmt(arguments).expect("a Vec takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::STALE_NAN_BITS;

    #[track_caller]
    fn check(write: impl FnOnce(&mut Vec<u8>), want: &str) {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), want);
    }

    #[test]
    fn numbers_as_prometheus_writes_them() {
        let check = |value: f64, want: &str| check(|out| write_number(out, value), want);
        check(0.0, "0");
        check(-0.0, "-0");
        check(1.0, "1");
        check(0.1 + 0.2, "0.30000000000000004");
        check(1e20, "100000000000000000000");
        check(1e21, "1e+21");
        check(-1.5e300, "-1.5e+300");
        check(f64::MAX, "1.7976931348623157e+308");
        check(1e-6, "0.000001");
        check(9.5e-7, "9.5e-07");
        check(5e-324, "5e-324");
        check(f64::NAN, "NaN");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
    }

    /// Red with digits of another length, or an exponent where there is none.
    #[test]
    fn numbers_are_the_shortest_that_read_back() {
        let mut bits = 7_u64;
        for round in 0..200_000_u32 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
            let value = match round % 4 {
                0 => f64::from_bits(bits),
                1 => (bits >> 40) as f64 / 1000.0,
                2 => (bits >> 12) as f64 * 2.0_f64.powi(i32::from(bits.to_le_bytes()[0]) - 128),
                _ => (bits >> (bits % 64)) as f64,
            };
            if value == 0.0 || (1e-6..1e21).contains(&value.abs()) {
                let mut out = Vec::new();
                write_number(&mut out, value);
                let text = String::from_utf8(out).expect("digits");
                // Of two that are equally short and near the even one, where Rust takes the larger.
                let want = format!("{value}");
                assert_eq!(text.parse(), Ok(value), "{text} for {want}");
                assert_eq!((text.len(), text.contains('e')), (want.len(), false));
            }
        }
    }

    #[test]
    fn export_values_tell_stale_from_nan() {
        let check = |value: f64, want: &str| check(|out| write_export_value(out, value), want);
        check(f64::from_bits(STALE_NAN_BITS), "null");
        check(f64::NAN, "\"NaN\"");
        check(f64::INFINITY, "\"Infinity\"");
        check(f64::NEG_INFINITY, "\"-Infinity\"");
        check(1.5, "1.5");
    }

    #[test]
    fn times_as_prometheus_writes_them() {
        let check = |ms: i64, want: &str| check(|out| write_seconds(out, ms), want);
        check(0, "0");
        check(1_435_781_451_781, "1435781451.781");
        check(1_500, "1.500");
        check(1_005, "1.005");
        check(-1_500, "-1.500");
        check(-500, "-0.500");
    }

    #[test]
    fn strings_are_escaped() {
        check(|out| write_string(out, b"a\"b\\c\n\x01\xff"), "\"a\\\"b\\\\c\\n\\u0001\u{fffd}\"");
    }
}
