//! Remote write 1.0: what is taken, refused, ignored; that the short way says what the long one
//! does.

use super::*;
use crate::base::random::Random;
use crate::base::varint::write_varint;
use crate::gateway::decode::mutation::mutate;
use crate::model::labels::{encode_label, iterate};
use crate::model::sample::STALE_NAN_BITS;
use crate::model::series::TenantId;

const NOW_MS: i64 = 1_700_000_000_000;
const RULES: DecodeRules =
    DecodeRules { tenant: TenantId(0), timestamp_ms_max: NOW_MS, samples_max: 1000 };

pub fn push_message(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    write_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

pub fn push_sample(series: &mut Vec<u8>, timestamp_ms: i64, value: f64) {
    let mut sample = vec![0x09];
    sample.extend_from_slice(&value.to_le_bytes());
    sample.push(0x10);
    write_varint(&mut sample, timestamp_ms.cast_unsigned());
    push_message(series, 0x12, &sample);
}

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        encode_label(&mut out, name.as_bytes(), value.as_bytes());
    }
    for (timestamp_ms, value) in samples {
        push_sample(&mut out, *timestamp_ms, *value);
    }
    out
}

fn body(all: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for series in all {
        push_message(&mut out, 0x0a, series);
    }
    out
}

/// A request as text, series in no order of shards: what two decodes are compared by.
fn describe(bytes: &RequestBytes, request: &DecodedRequest) -> Vec<String> {
    let mut lines = Vec::new();
    for (shard, batch) in request.batches.iter().enumerate() {
        let mut start = 0;
        for index in 0..batch.len() {
            let labels = bytes.labels(batch.labels[index]);
            assert_eq!(scan_canonical(labels, 0, labels.len()), Some(labels.len()));
            assert_eq!(SeriesHash::of(RULES.tenant, labels), batch.hash[index]);
            let shard_count = u32::try_from(request.batches.len()).expect("few");
            assert_eq!(batch.hash[index].slot().shard(shard_count) as usize, shard);
            let labels: Vec<_> = iterate(labels)
                .map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
                .collect();
            let end = batch.sample_end[index] as usize;
            let samples: Vec<_> = (start..end)
                .map(|at| format!("{}@{:x}", batch.timestamp_ms[at], batch.value[at].to_bits()))
                .collect();
            start = end;
            lines.push(format!("{} {}", labels.join(","), samples.join(" ")));
        }
        assert_eq!((start, start), (batch.timestamp_ms.len(), batch.value.len()));
    }
    lines.sort();
    lines
}

/// Decodes by the long way only.
fn decode_long(bytes: &mut RequestBytes, request: &mut DecodedRequest) -> Result<(), DecodeError> {
    request.clear();
    bytes.labels.clear();
    let mut decoder = RemoteWriteDecoder::default();
    let (body, labels) = (&bytes.body, &mut bytes.labels);
    let mut seen = SeenLabels::default();
    let seen = &mut seen;
    let mut walk = Walk { body, labels, rules: &RULES, request, seen, guess_pause: 0 };
    let mut offset = 0;
    while offset < body.len() {
        let (behind, range) = decode_other_field(&mut walk, offset)?;
        if let Some((start, end)) = range {
            decoder.decode_any_series(&mut walk, start, end)?;
        }
        offset = behind;
    }
    Ok(())
}

#[track_caller]
fn decode(body: &[u8]) -> Result<(Vec<String>, DecodedRequest), DecodeError> {
    let mut bytes = RequestBytes { body: body.to_vec(), labels: b"old".to_vec() };
    let mut request = DecodedRequest::new(1);
    request.samples = 77;
    RemoteWriteDecoder::default().decode(&RULES, &mut bytes, &mut request)?;
    Ok((describe(&bytes, &request), request))
}

#[test]
fn takes_what_senders_write() {
    #[track_caller]
    fn check(body: &[u8], want: &[&str]) {
        let (lines, request) = decode(body).expect("a good body");
        assert_eq!(lines, want);
        assert_eq!(request.refused.total(), 0);
        let count: usize = want.iter().map(|line| line.split(' ').count() - 1).sum();
        assert_eq!(request.samples, count as u64);
    }
    let up = [("__name__", "up"), ("job", "x")];
    let swapped = [up[1], up[0]];
    let one = "__name__=up,job=x 5@3ff0000000000000";
    check(b"", &[]);
    check(&body(&[series(&up, &[(5, 1.0)])]), &[one]);
    check(&body(&[series(&swapped, &[(5, 1.0)])]), &[one]);
    check(&body(&[series(&[up[0], up[1], ("k", "")], &[(5, 1.0)])]), &[one]);
    check(&body(&[series(&up, &[])]), &[]);
    check(
        &body(&[series(&up, &[(5, 1.0), (NOW_MS, -0.0)]), series(&up[..1], &[(-1, 0.5)])]),
        &[
            "__name__=up -1@3fe0000000000000",
            "__name__=up,job=x 5@3ff0000000000000 1700000000000@8000000000000000",
        ],
    );
    let stale = f64::from_bits(STALE_NAN_BITS);
    check(&body(&[series(&up, &[(5, stale)])]), &["__name__=up,job=x 5@7ff0000000000002"]);
    // Samples before and between the labels, and a sample without fields: 0 at 0.
    let mut mixed = Vec::new();
    push_sample(&mut mixed, 5, 1.0);
    encode_label(&mut mixed, b"job", b"x");
    mixed.extend_from_slice(b"\x12\x00");
    encode_label(&mut mixed, b"__name__", b"up");
    check(&body(&[mixed]), &["__name__=up,job=x 5@3ff0000000000000 0@0"]);
    // Unknown fields, in the request, the series and the sample.
    let mut unknown = series(&up, &[]);
    unknown.extend_from_slice(b"\x12\x06\x10\x05\x18\x01\x20\x02\x48\x00");
    let mut unknown = body(&[unknown]);
    unknown.extend_from_slice(b"\x12\x01x\x20\x01");
    check(&unknown, &["__name__=up,job=x 5@0"]);
}

#[test]
fn refuses_series_and_samples() {
    #[track_caller]
    fn check(bad: &[u8], reason: Refusal, samples: u64) {
        let good = series(&[("__name__", "good")], &[(5, 1.0)]);
        let position = body(&[good.clone(), bad.to_vec()]).len() - bad.len();
        let (lines, request) = decode(&body(&[good.clone(), bad.to_vec(), good])).expect("whole");
        assert_eq!(lines.len(), 2, "the good series around it: {lines:?}");
        assert_eq!(request.refused.iter().collect::<Vec<_>>(), [(reason, samples)]);
        assert_eq!(request.first_refusal, Some((reason, position as u64)));
    }
    let two = [(5, 1.0), (6, 2.0)];
    check(&series(&[("a", "1"), ("a", "1")], &two), Refusal::DuplicateLabel, 2);
    check(&series(&[("b", "1"), ("", "1")], &two), Refusal::EmptyLabelName, 2);
    check(&series(&[], &two), Refusal::MissingMetricName, 2);
    check(&series(&[("a", "")], &two), Refusal::MissingMetricName, 2);
    let up = [("__name__", "up")];
    check(&series(&up, &[(NOW_MS + 1, 1.0)]), Refusal::TooFarInFuture, 1);
    check(&series(&[("b", "1"), ("a", "1")], &[(i64::MAX, 1.0)]), Refusal::TooFarInFuture, 1);
    let names: Vec<String> = (0..1025).map(|index| format!("n{index:04}")).rev().collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    check(&series(&many, &two), Refusal::TooManyLabels, 2);
}

#[test]
fn refuses_only_the_samples_in_the_future() {
    for labels in [[("__name__", "up"), ("job", "x")], [("job", "x"), ("__name__", "up")]] {
        let some = series(&labels, &[(NOW_MS, 1.0), (NOW_MS + 1, 2.0), (4, 0.0)]);
        let (lines, request) = decode(&body(&[some])).expect("whole");
        assert_eq!(lines, ["__name__=up,job=x 1700000000000@3ff0000000000000 4@0"]);
        assert_eq!(request.refused.get(Refusal::TooFarInFuture), 1);
        assert_eq!(request.samples, 2);
    }
}

#[test]
fn counts_what_is_not_stored() {
    let mut with_more = series(&[("__name__", "up")], &[(5, 1.0)]);
    push_message(&mut with_more, 0x1a, b"");
    push_message(&mut with_more, 0x22, b"");
    push_message(&mut with_more, 0x22, b"");
    let mut only_histogram = series(&[("__name__", "h")], &[]);
    push_message(&mut only_histogram, 0x22, b"");
    let mut bytes = body(&[with_more, only_histogram]);
    push_message(&mut bytes, 0x1a, b"");
    let (lines, request) = decode(&bytes).expect("whole");
    assert_eq!(lines.len(), 1);
    let ignored = request.ignored;
    assert_eq!((ignored.exemplars, ignored.metadata, ignored.histograms), (1, 1, 3));
}

#[test]
fn faults_leave_nothing() {
    #[track_caller]
    fn check(tail: &[u8], want: DecodeError) {
        let mut bytes = body(&[series(&[("__name__", "up")], &[(5, 1.0)])]);
        bytes.extend_from_slice(tail);
        let mut bytes = RequestBytes { body: bytes, labels: Vec::new() };
        let mut request = DecodedRequest::new(2);
        let result = RemoteWriteDecoder::default().decode(&RULES, &mut bytes, &mut request);
        assert_eq!(result, Err(want));
        assert_eq!((request.samples, describe(&bytes, &request).len()), (0, 0));
    }
    let truncated = |offset_bytes| ProtobufFault::Truncated { offset_bytes }.into();
    check(b"\x0a\x05\x12\x03", truncated(31));
    check(b"\x0a\x04\x12\x09\x09\x01", truncated(33));
    check(b"\x0a", ProtobufFault::BadVarint { offset_bytes: 31 }.into());
    check(b"\x08\x01", ProtobufFault::BadWireType { offset_bytes: 31, wire_type: 0 }.into());
    check(b"\x0b\x01", ProtobufFault::BadWireType { offset_bytes: 31, wire_type: 3 }.into());
    // A timestamp as fixed 64 bits.
    let fixed = b"\x0a\x0b\x12\x09\x11\0\0\0\0\0\0\0\0";
    check(fixed, ProtobufFault::BadWireType { offset_bytes: 35, wire_type: 1 }.into());
    let many = body(&[series(&[("__name__", "up")], &[(5, 1.0); 1000])]);
    check(&many, DecodeError::TooManySamples { samples_max: 1000 });
    let mut empty_samples = series(&[("__name__", "up")], &[]);
    empty_samples.extend_from_slice(&b"\x12\x00".repeat(1000));
    check(&body(&[empty_samples]), DecodeError::TooManySamples { samples_max: 1000 });
}

#[test]
fn series_go_to_the_shard_of_their_slot() {
    let all: Vec<_> = (0..100)
        .map(|index| series(&[("__name__", "up"), ("i", &index.to_string())], &[(index, 1.0)]))
        .collect();
    let mut bytes = RequestBytes { body: body(&all), labels: Vec::new() };
    let mut request = DecodedRequest::new(3);
    RemoteWriteDecoder::default().decode(&RULES, &mut bytes, &mut request).expect("good");
    assert_eq!(describe(&bytes, &request).len(), 100); // Which checks the shard of each.
    assert!(request.batches.iter().all(|batch| batch.len() > 10));
}

#[test]
fn mutated_bodies_and_both_ways_agree() {
    let example = body(&[
        series(&[("__name__", "up"), ("job", "x")], &[(NOW_MS, 1.0)]),
        series(&[("__name__", "up"), ("instance_a", "1"), ("instance_b", "2")], &[(NOW_MS, 0.0)]),
        series(&[("z", "1"), ("__name__", "up")], &[(5, 1.0), (NOW_MS + 5, 2.0)]),
        series(&[("__name__", "up"), ("long", &"v".repeat(150))], &[(NOW_MS, 1.0)]),
    ]);
    let mut decoder = RemoteWriteDecoder::default();
    let mut whole = 0;
    for seed in 0..10_000 {
        let mut random = Random(seed);
        let mut bytes = RequestBytes { body: example.clone(), labels: Vec::new() };
        mutate(&mut random, &mut bytes.body);
        let mut request = DecodedRequest::new(2);
        let result = decoder.decode(&RULES, &mut bytes, &mut request);
        let got = (describe(&bytes, &request), request.refused, request.samples);
        let mut long = DecodedRequest::new(2);
        assert_eq!(result, decode_long(&mut bytes, &mut long), "seed {seed}");
        if result.is_ok() {
            let want = (describe(&bytes, &long), long.refused, long.samples);
            assert_eq!(got, want, "seed {seed}");
            whole += 1;
        }
    }
    assert!(whole > 1000, "only {whole} bodies were still messages");
}
