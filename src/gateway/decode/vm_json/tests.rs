//! VictoriaMetrics JSON lines: what is taken, refused, and that both readers of a line agree.

use std::fmt::Write;

use super::*;
use crate::base::random::Random;
use crate::gateway::decode::mutation::mutate;
use crate::model::labels::format_labels;
use crate::model::sample::{NORMAL_NAN, STALE_NAN_BITS};
use crate::model::series::TenantId;

const NOW_MS: i64 = 1_700_000_000_000;
const NAN_BITS: u64 = NORMAL_NAN.to_bits();
const RULES: DecodeRules =
    DecodeRules { tenant: TenantId(0), timestamp_ms_max: NOW_MS, samples_max: 10_000 };

fn decode(reader: LineReader, body: &[u8]) -> (Vec<String>, DecodedRequest) {
    let mut bytes = RequestBytes { body: body.to_vec(), labels: b"old".to_vec() };
    let mut request = DecodedRequest::new(1);
    let mut decoder = VmJsonDecoder::new(reader);
    decoder.decode(&RULES, &mut bytes, &mut request).expect("few samples");
    let batch = &request.batches[0];
    let mut start = 0;
    let lines = (0..batch.len())
        .map(|index| {
            let labels = bytes.labels(batch.labels[index]);
            assert_eq!(SeriesHash::of(RULES.tenant, labels), batch.hash[index]);
            let mut line = format_labels(labels);
            let end = batch.sample_end[index] as usize;
            for at in start..end {
                let (value, timestamp_ms) = (batch.value[at], batch.timestamp_ms[at]);
                match value.to_bits() {
                    STALE_NAN_BITS => write!(line, " stale@{timestamp_ms}"),
                    NAN_BITS => write!(line, " NaN@{timestamp_ms}"),
                    bits if value.is_nan() => write!(line, " NaN {bits:x}@{timestamp_ms}"),
                    _ => write!(line, " {value:?}@{timestamp_ms}"),
                }
                .expect("a String takes all");
            }
            start = end;
            line
        })
        .collect();
    assert_eq!(request.samples, start as u64);
    (lines, request)
}

/// Decodes by both readers, which must agree in everything.
#[track_caller]
fn decode_both(body: &[u8]) -> (Vec<String>, DecodedRequest) {
    let (lines, request) = decode(LineReader::Both, body);
    let (want_lines, want) = decode(LineReader::SimdJson, body);
    let text = String::from_utf8_lossy(&body[..body.len().min(2000)]);
    assert_eq!(lines, want_lines, "{text}");
    assert_eq!(request.refused, want.refused, "{text}");
    assert_eq!(request.first_refusal, want.first_refusal, "{text}");
    assert_eq!(request.failed_lines, want.failed_lines, "{text}");
    assert_eq!(request.failed_line_texts, want.failed_line_texts, "{text}");
    (lines, request)
}

#[test]
fn takes_good_lines() {
    #[track_caller]
    fn check(body: &str, want: &[&str]) {
        let (lines, request) = decode_both(body.as_bytes());
        assert_eq!(lines, want, "{body}");
        assert_eq!((request.refused.total(), request.failed_lines), (0, 0), "{body}");
    }
    let up = r#"{"metric":{"__name__":"up","job":"x"},"values":[1],"timestamps":[1600000000000]}"#;
    let one = r#"up{job="x"} 1.0@1600000000000"#;
    check("", &[]);
    check("\n\r\n  \n", &[]);
    check(up, &[one]);
    check(&format!("{up}\n"), &[one]);
    check(&format!("\r\n{up}\r\n\n{up}\r\n"), &[one, one]);
    check(
        concat!(
            r#" { "timestamps" : [ 1600000000000 ] , "values":[1]	, "#,
            r#""metric":{"job":"x","__name__":"up"} } "#,
        ),
        &[one],
    );
    check(&up.replace("\"values\"", "\"more\":{\"a\":[1,{}]},\"values\""), &[one]);
    check(&up.replace("\"x\"", "\"x\",\"empty\":\"\""), &[one]);
    check(&up.replace("\"x\"", r#""\u0078""#), &[one]);
    check(&up.replace("\"x\"", r#""ä\"\\""#), &[r#"up{job="ä\"\\"} 1.0@1600000000000"#]);
    // Seconds, fractions, and one step around the border between the units.
    for (timestamp, want) in [
        ("1600000000", 1_600_000_000_000i64),
        ("1600000000.25", 1_600_000_000_250),
        ("1600000000000.6", 1_600_000_000_001),
        ("1.6e9", 1_600_000_000_000),
        ("100000000000", 100_000_000_000),
        ("1", 1000),
        ("0", 0),
        ("-0", 0),
        ("-5", -5000),
    ] {
        let line = up.replace("1600000000000", timestamp);
        check(&line, &[&format!("up{{job=\"x\"}} 1.0@{want}")]);
    }
    for (value, want) in [
        // Once `null` became a plain NaN: who exported a series that had ended and imported it
        // again saw it go on for the five minutes of the lookback.
        ("null", "stale"),
        ("\"NaN\"", "NaN"),
        ("\"-nan\"", "NaN"),
        ("\"Infinity\"", "inf"),
        ("\"-Inf\"", "-inf"),
        ("\"+Inf\"", "inf"),
        ("-0", "-0.0"),
        ("-0.0", "-0.0"),
        ("-7", "-7.0"),
        ("2.5", "2.5"),
        ("1e3", "1000.0"),
        ("1E-7", "1e-7"),
        ("123456789012345678901234567890", "1.2345678901234568e29"),
        ("18446744073709551615", "1.8446744073709552e19"),
        ("0.30000000000000004", "0.30000000000000004"),
    ] {
        let line = up.replace("[1]", &format!("[{value}]"));
        check(&line, &[&format!("up{{job=\"x\"}} {want}@1600000000000")]);
    }
}

#[test]
fn refuses_bad_lines_whole() {
    #[track_caller]
    fn check(line: &str, reason: Refusal, samples: u64) {
        let good = r#"{"metric":{"__name__":"up"},"values":[1],"timestamps":[1600000000000]}"#;
        let (lines, request) = decode_both(format!("{good}\n\n{line}\n{good}").as_bytes());
        assert_eq!(lines, ["up 1.0@1600000000000"; 2], "{line}");
        assert_eq!(request.refused.iter().collect::<Vec<_>>(), [(reason, samples)], "{line}");
        assert_eq!(request.first_refusal, Some((reason, 3)));
        assert_eq!((request.failed_lines, &*request.failed_line_texts[0]), (1, line));
    }
    let bad = |line: &str, samples| check(line, Refusal::BadLine, samples);
    for line in ["x", "{", "{}", "[]", "1", "null", "\u{feff}{}", "{\"metric\":{\"a\":\"b\"}}"] {
        bad(line, 1);
    }
    let two =
        r#"{"metric":{"__name__":"up"},"values":[1,2],"timestamps":[1600000000000,1600000000001]}"#;
    bad(&two.replace(",2]", ",2,3]"), 3);
    bad(&two.replace(",2]", "]"), 1);
    bad(&two.replace("[1,2]", "[]"), 1);
    bad(&two.replace("[1,2]", "[]").replace("0,1600000000001", "0"), 1);
    bad(&two.replace("[1,2]", "{}"), 1);
    bad(&two.replace("[1,2]", "[1,[2]]"), 2);
    bad(&two.replace("[1,2]", "[1,true]"), 2);
    bad(&two.replace("[1,2]", "[1,\"2\"]"), 2);
    for number in ["01", "1.", ".5", "+1", "1e", "NaN", "0x1", "1e999", "--1", ""] {
        bad(&two.replace(",2]", &format!(",{number}]")), 1);
    }
    for timestamp in ["null", "\"1\"", "1e300", "9223372036854775808", "-9223372036854775807"] {
        bad(&two.replace(",1600000000001", &format!(",{timestamp}")), 2);
    }
    bad(&two.replace("\"up\"", "1"), 2);
    bad(&two.replace("\"up\"", "\"up\",\"__name__\":\"up\""), 2);
    bad(&two.replace("\"values\"", "\"values\":[1],\"values\""), 2);
    bad(&two.replace("\"values\"", "\"metric\":{},\"values\""), 2);
    bad(&two.replace("\"values\"", "\"timestamps\":[],\"values\""), 2);
    bad(&two.replace("]}", "]}}"), 1);
    bad(&two.replace("]}", "]} {}"), 1);
    bad(&two.replace("]}", "]"), 1);
    bad(&two.replace("up", "u\u{1}p"), 1);
    check(&two.replace("\"up\"", "\"up\",\"\":\"x\""), Refusal::EmptyLabelName, 2);
    check(&two.replace("\"up\"", "\"\""), Refusal::MissingMetricName, 2);
    check(&two.replace("\"__name__\":\"up\"", ""), Refusal::MissingMetricName, 2);
}

#[test]
fn samples_in_the_future_are_left_out() {
    let line = concat!(
        r#"{"metric":{"__name__":"up"},"values":[1,2,3],"#,
        r#""timestamps":[1700000000001,4000,1700000000000]}"#,
    );
    let (lines, request) = decode_both(line.as_bytes());
    assert_eq!(lines, ["up 2.0@4000000 3.0@1700000000000"]);
    assert_eq!(request.refused.get(Refusal::TooFarInFuture), 1);
    assert_eq!((request.failed_lines, request.samples), (0, 2));
    let (lines, request) = decode_both(line.replace("[1,2,3]", "[1,2]").as_bytes());
    assert_eq!((lines.len(), request.failed_lines), (0, 1));
}

#[test]
fn failed_lines_are_kept_cut_and_counted() {
    let long = format!("{}äé", "x".repeat(199));
    let body = [&b"one\n"[..], long.as_bytes(), b"\nb\xffd\nfour\nfive"].concat();
    let (_, request) = decode_both(&body);
    assert_eq!(request.failed_lines, 5);
    assert_eq!(request.failed_line_texts, ["one", &"x".repeat(199), "b\u{fffd}d"]);
    let binary = vec![0xff; 1000];
    let (_, request) = decode_both(&binary);
    assert_eq!(request.failed_line_texts[0].len(), 198); // 66 times U+FFFD, of three bytes.
}

#[test]
fn bounded_lines_and_samples() {
    let mut long = br#"{"metric":{"__name__":"up"},"values":[1],"timestamps":[1]}"#.to_vec();
    long.resize(LINE_BYTES_MAX, b' ');
    let (lines, _) = decode_both(&long);
    assert_eq!(lines.len(), 1);
    long.push(b' ');
    long.push(b'}');
    let (_, request) = decode_both(&long);
    assert_eq!(request.failed_lines, 1);
    let line = r#"{"metric":{"__name__":"up"},"values":[1],"timestamps":[1]}"#;
    let mut bytes = RequestBytes { body: format!("{line}\n{line}").into_bytes(), ..<_>::default() };
    let mut request = DecodedRequest::new(1);
    let rules = DecodeRules { samples_max: 1, ..RULES };
    let result = VmJsonDecoder::default().decode(&rules, &mut bytes, &mut request);
    assert_eq!(result, Err(DecodeError::TooManySamples { samples_max: 1 }));
    assert_eq!((request.samples, request.batches[0].len()), (0, 0));
}

/// A line as clients write them, in many variants.
fn push_line(body: &mut String, random: &mut Random) {
    let space = |random: &mut Random| ["", "", "", " ", "\t "][random.index(5)];
    let points = 1 + random.index(5);
    let list = |random: &mut Random, element: fn(&mut Random) -> String| {
        let elements: Vec<_> =
            (0..points).map(|_| format!("{}{}", element(random), space(random))).collect();
        format!("[{}{}]", space(random), elements.join(","))
    };
    let values = list(random, |random| match random.index(9) {
        0 => "null".into(),
        1 => "\"-Infinity\"".into(),
        2 => f64::from_bits(random.next() & !(1 << 62)).to_string(),
        3 => format!("{:e}", f64::from_bits(random.next() & !(1 << 62))),
        4 => format!("-{}", random.index(1000)),
        5 => (random.next() >> random.index(64)).to_string(),
        6 => format!("{}{}", random.next(), random.next()),
        _ => (random.index(1_000_000) as f64 / 1000.0).to_string(),
    });
    let timestamps = list(random, |random| match random.index(6) {
        0 => (1_600_000_000 + random.index(1000)).to_string(),
        1 => format!("1600000000.{}", random.index(10_000)),
        _ => (1_600_000_000_000 + random.index(1_000_000)).to_string(),
    });
    let label = ["x", "a\\\"b", "ü", "", "a value with spaces", "12345678"][random.index(6)];
    let metric = format!(r#"{{"__name__":"up","job"{}:"{label}"}}"#, space(random));
    let mut parts = [
        format!("\"metric\":{metric}"),
        format!("\"values\":{values}"),
        format!("\"timestamps\":{timestamps}"),
    ];
    parts.rotate_left(random.index(9).saturating_sub(6));
    let end = ["\n", "\n", "\r\n", "\n\n"][random.index(4)];
    write!(body, "{}{{{}}}{end}", space(random), parts.join(",")).expect("a String takes all");
}

#[test]
fn both_readers_agree_on_generated_lines() {
    let mut taken = 0;
    for seed in 0..5000 {
        let mut body = String::new();
        let mut random = Random(seed);
        for _ in 0..3 {
            push_line(&mut body, &mut random);
        }
        let (lines, request) = decode_both(body.as_bytes());
        assert_eq!(request.failed_lines, 0, "seed {seed}: {:?}", request.failed_line_texts);
        taken += lines.len();
    }
    assert_eq!(taken, 15_000);
}

#[test]
fn both_readers_agree_on_mutated_lines() {
    let mut failed = 0;
    for seed in 0..10_000 {
        let mut body = String::new();
        let mut random = Random(seed);
        push_line(&mut body, &mut random);
        let mut body = body.into_bytes();
        mutate(&mut random, &mut body);
        failed += decode_both(&body).1.failed_lines;
    }
    assert!((3000..9700).contains(&failed), "{failed}");
}
