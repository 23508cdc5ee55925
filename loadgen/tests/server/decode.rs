//! What loadgen sends, taken apart again. Panics on anything else, which fails the test.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::Labels;

pub fn remote_write(body: &[u8]) -> Vec<(Labels, Vec<(i64, f64)>)> {
    let raw = snap::raw::Decoder::new().decompress_vec(body).expect("snappy");
    fields(&raw)
        .into_iter()
        .map(|(_, series)| {
            let (mut labels, mut samples) = (Labels::new(), Vec::new());
            for (field, message) in fields(series.bytes()) {
                let parts = fields(message.bytes());
                if field == 1 {
                    let text =
                        |at: usize| String::from_utf8(parts[at].1.bytes().to_vec()).expect("UTF-8");
                    labels.push((text(0), text(1)));
                } else {
                    let number = |wanted| {
                        let found = parts.iter().find(|(field, _)| *field == wanted);
                        found.map_or(0, |(_, part)| part.number())
                    };
                    samples.push((number(2).cast_signed(), f64::from_bits(number(1))));
                }
            }
            assert!(labels.is_sorted(), "{labels:?}");
            (labels, samples)
        })
        .collect()
}

pub fn json_lines(body: &[u8], gzip: bool) -> Vec<(Labels, Vec<(i64, f64)>)> {
    let mut text = String::new();
    if gzip {
        flate2::read::GzDecoder::new(body).read_to_string(&mut text).expect("gzip");
    } else {
        text = String::from_utf8(body.to_vec()).expect("UTF-8");
    }
    text.lines().map(json_line).collect()
}

fn json_line(line: &str) -> (Labels, Vec<(i64, f64)>) {
    let (metric, columns) = line.split_once(",\"values\":[").expect("values");
    let (values, times) = columns.split_once("],\"timestamps\":[").expect("timestamps");
    let metric = metric.strip_prefix("{\"metric\":").expect("a metric");
    let labels: BTreeMap<String, String> = serde_json::from_str(metric).expect("labels");
    let times = times.strip_suffix("]}").expect("an end");
    let values = values.split(',').map(|text| text.parse().expect("a value"));
    let times = times.split(',').map(|text| text.parse().expect("a time"));
    (labels.into_iter().collect(), times.zip(values).collect())
}

/// The `name="value"` matchers of the query; regular expressions match everything.
pub fn query_matchers(path: &str) -> Labels {
    let mut text = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().expect("two digits"), bytes.next().expect("two digits")];
            let digits = std::str::from_utf8(&digits).expect("ASCII");
            text.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
        } else {
            text.push(byte);
        }
    }
    let text = String::from_utf8(text).expect("UTF-8");
    let inside = text.split_once('{').and_then(|(_, rest)| rest.split_once('}')).expect("braces").0;
    inside
        .split(',')
        .filter(|matcher| !matcher.contains("=~"))
        .filter_map(|matcher| matcher.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Part<'a> {
    fn bytes(self) -> &'a [u8] {
        let Self::Bytes(bytes) = self else { panic!("a number where bytes belong") };
        bytes
    }

    fn number(self) -> u64 {
        let Self::Number(number) = self else { panic!("bytes where a number belongs") };
        number
    }
}

fn fields(mut message: &[u8]) -> Vec<(u64, Part<'_>)> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let part = match tag & 7 {
            0 => Part::Number(varint(&mut message)),
            1 => {
                let (fixed, rest) = message.split_first_chunk().expect("eight bytes");
                message = rest;
                Part::Number(u64::from_le_bytes(*fixed))
            }
            2 => {
                let len = usize::try_from(varint(&mut message)).expect("a length");
                let (bytes, rest) = message.split_at(len);
                message = rest;
                Part::Bytes(bytes)
            }
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, part));
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().expect("a varint has an end");
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
