//! The check that makes a sender's label bytes canonical as they lie: the hottest loop of the
//! gateway. In: a body and an offset. Out: where the run of canonical labels ends. O(bytes), about
//! 2 ns a label.

use super::{LABEL_TAG, VALUE_TAG};

/// One label of the run: what the next one is compared with.
#[derive(Clone, Copy)]
struct ScannedLabel {
    /// First eight bytes of the name, big-endian, zeros behind a shorter name. Orders as the names
    /// do, but for equal prefixes.
    prefix: u64,
    name_start: usize,
    name_len: usize,
    /// Behind the label.
    end: usize,
}

/// The end of the run of `Label` messages that begins at `bytes[start]` and stays within `end`, if
/// all of them are canonical and in order; `None` if one is not. The run ends at the first tag that
/// is not a label's, so it is empty when there is none. Never panics, whatever the bytes are, as
/// long as `start <= end <= bytes.len()`.
#[inline]
pub fn scan_canonical(bytes: &[u8], start: usize, end: usize) -> Option<usize> {
    // All ordering is decided by prefixes alone but for names that are alike in their first eight
    // bytes. The empty name's prefix is 0 and it never occurs, so it is the name before the first.
    let mut before = ScannedLabel { prefix: 0, name_start: start, name_len: 0, end: start };
    while before.end < end && bytes[before.end] == LABEL_TAG {
        let label = match scan_short(bytes, before.end) {
            Some(label) => label,
            None => scan_long(bytes, before.end)?,
        };
        if label.end > end {
            return None;
        }
        if label.prefix <= before.prefix && !is_ascending(bytes, before, label) {
            return None;
        }
        before = label;
    }
    Some(before.end)
}

#[cold]
fn is_ascending(bytes: &[u8], before: ScannedLabel, label: ScannedLabel) -> bool {
    let name = |label: ScannedLabel| &bytes[label.name_start..label.name_start + label.name_len];
    name(before) < name(label)
}

/// A label whose three lengths are below 128, with at least twelve bytes of body behind its start:
/// nearly all.
#[inline]
fn scan_short(bytes: &[u8], start: usize) -> Option<ScannedLabel> {
    let window: &[u8; 12] = bytes.get(start..start + 12)?.first_chunk()?;
    let [tag, len, name_tag, name_len, name8 @ ..] = *window;
    // One comparison: both tags right, both lengths of one byte.
    let head = u32::from_le_bytes([tag, len, name_tag, name_len]);
    if head & 0x80ff_80ff != u32::from_le_bytes([LABEL_TAG, 0, LABEL_TAG, 0]) {
        return None;
    }
    let (len, name_len) = (usize::from(len), usize::from(name_len));
    let name_start = start + 4;
    let value_head = name_start + name_len;
    let value_head: &[u8; 2] = bytes.get(value_head..value_head + 2)?.first_chunk()?;
    let value_len = usize::from(value_head[1]);
    let is_right = value_head[0] == VALUE_TAG
        && name_len != 0
        && value_len.wrapping_sub(1) < 127 // neither 0 nor a varint of two bytes
        && len == name_len + value_len + 4;
    if !is_right {
        return None;
    }
    let prefix = name_prefix(u64::from_be_bytes(name8), name_len);
    Some(ScannedLabel { prefix, name_start, name_len, end: start + 2 + len })
}

/// `name8`, with what lies behind the name zeroed. `name_len` is not 0.
#[inline]
fn name_prefix(name8: u64, name_len: usize) -> u64 {
    let unused_bits = 64 - 8 * name_len.min(8);
    name8 & (u64::MAX << unused_bits)
}

/// Any canonical label, byte by byte.
#[cold]
fn scan_long(bytes: &[u8], start: usize) -> Option<ScannedLabel> {
    let mut offset = start;
    let len = scan_length(bytes, &mut offset, LABEL_TAG)?;
    let end = offset.checked_add(len)?;
    let label = bytes.get(..end)?;
    let name_len = scan_length(label, &mut offset, LABEL_TAG)?;
    let name_start = offset;
    offset = offset.checked_add(name_len)?;
    let name = label.get(name_start..offset)?;
    let value_len = scan_length(label, &mut offset, VALUE_TAG)?;
    if name_len == 0 || value_len == 0 || offset.checked_add(value_len)? != end {
        return None;
    }
    let mut name8 = [0; 8];
    let known = name.len().min(8);
    name8[..known].copy_from_slice(&name[..known]);
    Some(ScannedLabel { prefix: u64::from_be_bytes(name8), name_start, name_len, end })
}

/// The length behind `tag`, as a minimal varint below 2^35.
fn scan_length(bytes: &[u8], offset: &mut usize, tag: u8) -> Option<usize> {
    if *bytes.get(*offset)? != tag {
        return None;
    }
    *offset += 1;
    let mut value = 0;
    for group in 0..5 {
        let byte = *bytes.get(*offset)?;
        *offset += 1;
        value |= usize::from(byte & 0x7f) << (7 * group);
        if byte < 0x80 {
            // A last group of zeros could be left away: not minimal.
            return (byte != 0 || group == 0).then_some(value);
        }
    }
    None
}
