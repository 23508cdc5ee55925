//! Makes the canonical form out of names and values in any order. Reused: nothing is allocated once
//! it is warm. In: (name, value) pairs, or arbitrary `Label` messages. Out: canonical bytes
//! appended to a Vec.

use std::ops::Range;

use super::{LABEL_TAG, VALUE_TAG};
use crate::base::protobuf::{Fields, ProtobufFault};
use crate::base::varint::{varint_len, write_varint};
use crate::model::refusal::Refusal;

/// More labels than this are refused while they are gathered, whatever the configured limit is:
/// sorting a body full of labels would hold up a shard for seconds.
pub const LABELS_ENCODED_MAX: usize = 1024;

/// Appends one label in canonical form. The caller keeps the order and leaves out empty names and
/// values.
pub fn encode_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let name_len = name.len() as u64;
    let value_len = value.len() as u64;
    let len = 2 + varint_len(name_len) + name.len() + varint_len(value_len) + value.len();
    out.push(LABEL_TAG);
    write_varint(out, len as u64);
    out.push(LABEL_TAG);
    write_varint(out, name_len);
    out.extend_from_slice(name);
    out.push(VALUE_TAG);
    write_varint(out, value_len);
    out.extend_from_slice(value);
}

/// Gathers the labels of one series at a time, then sorts and writes them.
#[derive(Debug, Default)]
pub struct LabelsEncoder {
    /// Names and values, one after the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Names came in strictly ascending so far: nothing to sort, no duplicate.
    is_unsorted: bool,
    /// More labels came than [`LABELS_ENCODED_MAX`].
    is_full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    name_end: usize,
    end: usize,
}

impl Entry {
    fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.name_end]
    }
}

impl LabelsEncoder {
    /// Forgets the labels gathered so far and keeps the memory. [`LabelsEncoder::finish`] does it
    /// too.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.is_unsorted = false;
        self.is_full = false;
    }

    /// Takes one label. Whatever is wrong with it is said by [`LabelsEncoder::finish`].
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        if self.entries.len() >= LABELS_ENCODED_MAX {
            self.is_full = true;
            return;
        }
        if let Some(last) = self.entries.last() {
            self.is_unsorted |= last.name(&self.bytes) >= name;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.entries.push(Entry { start, name_end, end: self.bytes.len() });
    }

    /// Appends the canonical form of what was pushed to `out`, says where, and is empty again. On a
    /// refusal `out` is as it was.
    ///
    /// Labels with an empty value are left out, as Prometheus has it: they say the same as no
    /// label. A name that comes twice is refused even so.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<Range<usize>, Refusal> {
        let result = self.finish_entries(out);
        self.clear();
        result
    }

    fn finish_entries(&mut self, out: &mut Vec<u8>) -> Result<Range<usize>, Refusal> {
        if self.is_full {
            return Err(Refusal::TooManyLabels);
        }
        let bytes = &self.bytes;
        if self.is_unsorted {
            self.entries.sort_unstable_by(|a, b| a.name(bytes).cmp(b.name(bytes)));
            let mut pairs = self.entries.windows(2);
            if pairs.any(|pair| pair[0].name(bytes) == pair[1].name(bytes)) {
                return Err(Refusal::DuplicateLabel);
            }
        }
        // In order, so the empty name would be the first.
        if self.entries.first().is_some_and(|first| first.start == first.name_end) {
            return Err(Refusal::EmptyLabelName);
        }
        let start = out.len();
        for entry in self.entries.iter().filter(|entry| entry.name_end < entry.end) {
            encode_label(out, entry.name(bytes), &bytes[entry.name_end..entry.end]);
        }
        Ok(start..out.len())
    }
}

/// Appends the canonical form of `messages`, a run of arbitrary `Label` messages with their tags,
/// to `out`.
///
/// # Errors
/// Outer: `messages` is no such run. Inner: it is, and its labels are refused. `out` is then as it
/// was.
pub fn canonicalize(
    messages: &[u8],
    encoder: &mut LabelsEncoder,
    out: &mut Vec<u8>,
) -> Result<Result<Range<usize>, Refusal>, ProtobufFault> {
    encoder.clear();
    let mut fields = Fields::new(messages, 0, messages.len());
    while let Some(field) = fields.next_field()? {
        let (start, end) = field.span()?;
        push_message(messages, start, end, encoder)?;
    }
    Ok(encoder.finish(out))
}

/// Takes the `Label` message at `bytes[start..end]`: absent fields are empty, of repeated ones the
/// last counts.
fn push_message(
    bytes: &[u8],
    start: usize,
    end: usize,
    encoder: &mut LabelsEncoder,
) -> Result<(), ProtobufFault> {
    let mut name: &[u8] = &[];
    let mut value: &[u8] = &[];
    let mut fields = Fields::new(bytes, start, end);
    while let Some(field) = fields.next_field()? {
        let content = match field.number {
            1 => &mut name,
            2 => &mut value,
            _ => continue,
        };
        let (start, end) = field.span()?;
        *content = &bytes[start..end];
    }
    encoder.push(name, value);
    Ok(())
}
