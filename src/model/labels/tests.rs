//! Labels: the canonical form made, checked, walked, refused and printed.

use super::*;
use crate::base::varint::write_varint;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn messages(pairs: Pairs) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        encode_label(&mut out, name.as_bytes(), value.as_bytes());
    }
    out
}

fn canonical(pairs: Pairs) -> Vec<u8> {
    let mut encoder = LabelsEncoder::default();
    for (name, value) in pairs {
        encoder.push(name.as_bytes(), value.as_bytes());
    }
    let mut out = Vec::new();
    encoder.finish(&mut out).expect("good labels");
    out
}

#[test]
fn encoded_label_is_the_wire_form() {
    assert_eq!(messages(&[("a", "bc")]), b"\x0a\x07\x0a\x01a\x12\x02bc");
    let long = "x".repeat(200);
    let bytes = messages(&[("a", &long)]);
    assert_eq!(&bytes[..9], b"\x0a\xce\x01\x0a\x01a\x12\xc8\x01");
    assert_eq!(iterate(&bytes).collect::<Vec<_>>(), [(&b"a"[..], long.as_bytes())]);
}

#[test]
fn encoder_sorts_drops_and_refuses() {
    #[track_caller]
    fn check(pairs: Pairs, want: Result<Pairs, Refusal>) {
        let mut encoder = LabelsEncoder::default();
        for _ in 0..2 {
            // Twice: a refusal must leave nothing behind.
            for (name, value) in pairs {
                encoder.push(name.as_bytes(), value.as_bytes());
            }
            let mut out = b"before".to_vec();
            let got = encoder.finish(&mut out).map(|range| out[range].to_vec());
            assert_eq!(got, want.map(messages), "pairs={pairs:?}");
            assert!(want.is_ok() || out == b"before");
        }
    }
    check(&[], Ok(&[]));
    check(&[("b", "2"), ("a", "1")], Ok(&[("a", "1"), ("b", "2")]));
    check(&[("a", "1"), ("B", "2")], Ok(&[("B", "2"), ("a", "1")]));
    check(&[("a", ""), ("b", "2")], Ok(&[("b", "2")]));
    check(&[("a", "1"), ("a", "2")], Err(Refusal::DuplicateLabel));
    check(&[("a", "1"), ("b", "2"), ("a", "")], Err(Refusal::DuplicateLabel));
    check(&[("", "1")], Err(Refusal::EmptyLabelName));
    check(&[("a", "1"), ("", "")], Err(Refusal::EmptyLabelName));
}

#[test]
fn encoder_is_bounded() {
    let mut encoder = LabelsEncoder::default();
    for index in 0..=LABELS_ENCODED_MAX {
        encoder.push(format!("{index:05}").as_bytes(), b"x");
    }
    assert_eq!(encoder.finish(&mut Vec::new()), Err(Refusal::TooManyLabels));
    encoder.push(b"a", b"x");
    assert_eq!(encoder.finish(&mut Vec::new()), Ok(0..8));
}

#[test]
fn scan_accepts_only_the_canonical_form() {
    #[track_caller]
    fn check(bytes: &[u8], want: Option<usize>) {
        assert_eq!(scan_canonical(bytes, 0, bytes.len()), want, "exact, {bytes:02x?}");
        // The same answer where whole words can be read behind the run.
        let mut padded = bytes.to_vec();
        padded.extend_from_slice(&[0x55; 32]);
        assert_eq!(scan_canonical(&padded, 0, bytes.len()), want, "padded, {bytes:02x?}");
    }
    #[track_caller]
    fn all(pairs: Pairs) {
        let bytes = messages(pairs);
        check(&bytes, Some(bytes.len()));
    }
    #[track_caller]
    fn none(pairs: Pairs) {
        check(&messages(pairs), None);
    }
    check(b"", Some(0));
    check(b"\x12\x00", Some(0));
    all(&[("a", "1")]);
    all(&[("__name__", "up"), ("instance", "a:1"), ("job", "x")]);
    all(&[("container", "1"), ("container_id", "2"), ("container_name", "3")]);
    all(&[("a", "1"), ("a\0", "2"), ("a\0\0", "3"), ("b", "4")]);
    all(&[("a", &"v".repeat(127)), ("b", &"v".repeat(128)), (&"n".repeat(300), "x")]);
    all(&[("\0", "1"), ("\0\0\0\0\0\0\0\0\0", "1")]);
    none(&[("b", "1"), ("a", "2")]);
    none(&[("a", "1"), ("a", "2")]);
    none(&[("container_name", "3"), ("container_id", "2")]);
    none(&[("a\0", "1"), ("a", "2")]);
    none(&[("", "1")]);
    none(&[("a", "")]);
    none(&[("a", "1"), ("b", "")]);
    check(b"\x0a\x07\x0a\x01a\x12\x01b", None); // The label is said to be longer than it is.
    check(b"\x0a\x05\x0a\x01a\x12\x01b", None); // And shorter.
    check(b"\x0a\x86\x00\x0a\x01a\x12\x01b", None); // Lengths of two bytes where one does.
    check(b"\x0a\x07\x0a\x81\x00a\x12\x01b", None);
    check(b"\x0a\x07\x0a\x01a\x12\x81\x00b", None);
    check(b"\x0a\x06\x12\x01b\x0a\x01a", None); // The value before the name.
    check(b"\x0a\x08\x0a\x01a\x12\x01b\x18\x01", None); // A field more.
    check(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", None);
    // Cut off anywhere, also inside the twelve bytes that are read at once.
    let bytes = messages(&[("__name__", "up"), ("job", "x")]);
    let first_len = messages(&[("__name__", "up")]).len();
    for len in 1..bytes.len() {
        check(&bytes[..len], (len == first_len).then_some(len));
    }
}

#[test]
fn scan_and_encoder_agree() {
    // Every pair of names of up to two bytes out of a small alphabet, and long ones with a shared
    // start.
    let mut names: Vec<Vec<u8>> = Vec::new();
    for first in [0, 1, b'a', 0x7f, 0x80, 0xff] {
        names.push(vec![first]);
        for tail in [&[0][..], &[1], &[0xff], b"12345678", b"1234567\0", b"1234567\x01x"] {
            names.push([&[first], tail].concat());
        }
    }
    for a in &names {
        for b in &names {
            let mut bytes = Vec::new();
            encode_label(&mut bytes, a, b"x");
            encode_label(&mut bytes, b, b"y");
            let want = (a < b).then_some(bytes.len());
            assert_eq!(scan_canonical(&bytes, 0, bytes.len()), want, "{a:02x?} {b:02x?}");
        }
    }
}

#[test]
fn canonicalize_reads_any_label_message() {
    #[track_caller]
    fn check(bytes: &[u8], want: Result<Result<Pairs, Refusal>, ()>) {
        let mut encoder = LabelsEncoder::default();
        let mut out = Vec::new();
        let got = canonicalize(bytes, &mut encoder, &mut out);
        let got = got.map(|inner| inner.map(|range| out[range].to_vec())).map_err(|_| ());
        assert_eq!(got, want.map(|inner| inner.map(messages)), "{bytes:02x?}");
    }
    check(&messages(&[("b", "1"), ("a", "2")]), Ok(Ok(&[("a", "2"), ("b", "1")])));
    check(b"\x0a\x06\x12\x01b\x0a\x01a", Ok(Ok(&[("a", "b")]))); // The value first.
    check(b"\x0a\x86\x00\x0a\x01a\x12\x01b", Ok(Ok(&[("a", "b")]))); // A longer varint.
    check(b"\x0a\x08\x0a\x01a\x12\x01b\x18\x01", Ok(Ok(&[("a", "b")]))); // An unknown field.
    check(b"\x0a\x09\x0a\x01x\x0a\x01a\x12\x01b", Ok(Ok(&[("a", "b")]))); // The last name counts.
    check(b"\x0a\x03\x0a\x01a", Ok(Ok(&[]))); // No value is an empty one.
    check(b"\x0a\x03\x12\x01b", Ok(Err(Refusal::EmptyLabelName)));
    check(b"\x0a\x00", Ok(Err(Refusal::EmptyLabelName)));
    check(b"\x0a\x02\x08\x01", Err(())); // The name is a number.
    check(b"\x0a\x05\x0a\x01a", Err(())); // Cut off.
}

#[test]
fn iterate_never_panics() {
    let bytes = messages(&[("__name__", "up"), ("job", "x")]);
    for len in 0..bytes.len() {
        assert!(iterate(&bytes[..len]).count() < 2);
    }
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(iterate(&bad).count() <= 2);
    }
    let mut endless = vec![LABEL_TAG];
    write_varint(&mut endless, u64::MAX);
    assert_eq!(iterate(&endless).next(), None);
}

#[test]
fn grammar_and_limits() {
    #[track_caller]
    fn check(canonical: &[u8], want: Result<(), Refusal>) {
        let limits = LabelLimits {
            labels_max: 3,
            label_name_bytes_max: 10,
            label_value_bytes_max: 8,
            labels_bytes_max: 48,
        };
        assert_eq!(check_grammar(canonical, &limits), want, "{}", format_labels(canonical));
    }
    check(&canonical(&[("__name__", "up")]), Ok(()));
    check(&canonical(&[("__name__", "up"), ("ünï code", "☃")]), Ok(()));
    check(&canonical(&[("job", "x")]), Err(Refusal::MissingMetricName));
    check(&canonical(&[("__name__", ""), ("job", "x")]), Err(Refusal::MissingMetricName));
    check(b"", Err(Refusal::MissingMetricName));
    let four = [("__name__", "up"), ("a", "1"), ("b", "1"), ("c", "1")];
    check(&canonical(&four[..3]), Ok(()));
    check(&canonical(&four), Err(Refusal::TooManyLabels));
    check(&canonical(&[("__name__", "up"), ("a234567890", "1")]), Ok(()));
    check(&canonical(&[("__name__", "up"), ("a2345678901", "1")]), Err(Refusal::LabelNameTooLong));
    check(&canonical(&[("__name__", "12345678")]), Ok(()));
    check(&canonical(&[("__name__", "123456789")]), Err(Refusal::LabelValueTooLong));
    check(
        &canonical(&[("__name__", "12345678"), ("b23456789", "12345678"), ("c", "1")]),
        Err(Refusal::LabelsTooLong),
    );
    check(b"\x0a\x0d\x0a\x08__name__\x12\x01\xff", Err(Refusal::InvalidUtf8));
    check(b"\x0a\x06\x0a\x01\xff\x12\x01x", Err(Refusal::InvalidUtf8));
}

#[test]
fn labels_as_people_write_them() {
    #[track_caller]
    fn check(pairs: Pairs, want: &str) {
        assert_eq!(format_labels(&canonical(pairs)), want);
    }
    check(&[], "{}");
    check(&[("__name__", "up")], "up");
    check(&[("__name__", "a:b"), ("job", "x"), ("i", "y")], r#"a:b{i="y",job="x"}"#);
    check(&[("job", "x")], r#"{job="x"}"#);
    check(&[("job", "a\"b\\c\nd\te")], r#"{job="a\"b\\c\nd\u{9}e"}"#);
    check(&[("__name__", "http.requests"), ("a b", "c")], r#"{"http.requests","a b"="c"}"#);
    check(&[("__name__", "1x"), ("a:b", "c")], r#"{"1x","a:b"="c"}"#);
    assert_eq!(format_labels(b"\x0a\x0e\x0a\x08__name__\x12\x02u\xff"), "{\"u\u{fffd}\"}");
}
