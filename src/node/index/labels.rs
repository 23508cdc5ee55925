//! Canonical label bytes (remote write 1.0 `Label` messages, sorted by name) <-> pairs of name and
//! value. The one place of the node that knows this form.

use crate::base::varint::{read_varint, varint_len, write_varint};

const LABEL: u8 = 0x0a;
const NAME: u8 = 0x0a;
const VALUE: u8 = 0x12;

/// The labels of `bytes`, in order; an `Err` is the last item, where the bytes are not in the form.
pub(super) fn iterate(bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let label = take_label(&mut rest);
        if label.is_none() {
            rest = &[];
        }
        Some(label.ok_or(Malformed))
    })
}

/// Label bytes that are not in canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

fn take_label<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut label = take_field(rest, LABEL)?;
    let name = take_field(&mut label, NAME)?;
    let value = take_field(&mut label, VALUE)?;
    (label.is_empty() && !name.is_empty() && !value.is_empty()).then_some((name, value))
}

fn take_field<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    if *rest.first()? != tag {
        return None;
    }
    let mut offset = 1;
    let len = usize::try_from(read_varint(rest, &mut offset)?).ok()?;
    let field = rest.get(offset..)?.get(..len)?;
    *rest = &rest[offset + len..];
    Some(field)
}

/// Appends one label.
pub(super) fn encode(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let field_len = |text: &[u8]| 1 + varint_len(text.len() as u64) + text.len();
    out.push(LABEL);
    write_varint(out, (field_len(name) + field_len(value)) as u64);
    for (tag, text) in [(NAME, name), (VALUE, value)] {
        out.push(tag);
        write_varint(out, text.len() as u64);
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_truncation() {
        let long = [b'x'; 300];
        let mut bytes = Vec::new();
        encode(b"__name__", b"up", &mut bytes);
        assert_eq!(bytes, b"\x0a\x0e\x0a\x08__name__\x12\x02up");
        encode(b"job", &long, &mut bytes);
        let labels: Result<Vec<_>, _> = iterate(&bytes).collect();
        assert_eq!(labels, Ok(vec![(&b"__name__"[..], &b"up"[..]), (b"job", &long)]));
        for len in (1..bytes.len()).filter(|len| *len != 16) {
            assert!(iterate(&bytes[..len]).any(|label| label.is_err()), "len={len}");
        }
    }
}
