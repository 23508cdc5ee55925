//! The canonical form of a label set, and everything that reads it: walk, check, print.
//!
//! It is the remote-write 1.0 wire form (DESIGN section 4), so that a sender's bytes are hashed
//! where they lie:
//! ```text
//!  for each label, names strictly ascending bytewise, no empty name, no empty value:
//!  | 0x0a | length | 0x0a | name length | name | 0x12 | value length | value |
//!  lengths: minimal varints
//! ```
//! In: bytes. Out: names and values in place. O(bytes), nothing allocated but for texts.
//! Not here: making the form from something else (`labels/encoder.rs`).

mod encoder;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt::Write;

pub use encoder::{LABELS_ENCODED_MAX, LabelsEncoder, canonicalize, encode_label};
pub use scan::scan_canonical;

use crate::base::varint::read_varint;
use crate::model::refusal::Refusal;

/// The name of the label that holds the metric's name.
pub const METRIC_NAME: &[u8] = b"__name__";

/// The tag of a `Label` in a `TimeSeries`, and of the name in a `Label`: field 1, length-delimited.
pub const LABEL_TAG: u8 = 0x0a;
/// The tag of the value in a `Label`: field 2, length-delimited.
pub const VALUE_TAG: u8 = 0x12;

/// How much a series may be called. Checked once per series, when it is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelLimits {
    /// Labels of a series, `__name__` included. At most [`LABELS_ENCODED_MAX`] has an effect.
    pub labels_max: u32,
    /// Bytes of one name.
    pub label_name_bytes_max: u32,
    /// Bytes of one value.
    pub label_value_bytes_max: u32,
    /// Bytes of the whole canonical form.
    pub labels_bytes_max: u32,
}

impl Default for LabelLimits {
    /// Twice what Mimir (30 labels) and VictoriaMetrics (40) allow; names as Mimir (1024); values
    /// four times as VictoriaMetrics (4 KiB), as query texts and URLs do come as labels; a whole
    /// below any frame's limit.
    fn default() -> Self {
        Self {
            labels_max: 80,
            label_name_bytes_max: 1024,
            label_value_bytes_max: 16 << 10,
            labels_bytes_max: 64 << 10,
        }
    }
}

/// The labels of `canonical`, in its order. For bytes that were checked before.
///
/// Never panics: on bytes that are not canonical it ends where they stop making sense.
pub fn iterate(canonical: &[u8]) -> Labels<'_> {
    Labels { rest: canonical }
}

/// Iterator over (name, value); see [`iterate`].
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.rest;
        // Whatever ends the walk early ends it for good.
        self.rest = &[];
        let mut label = take_delimited(&mut rest, LABEL_TAG)?;
        let name = take_delimited(&mut label, LABEL_TAG)?;
        let value = take_delimited(&mut label, VALUE_TAG)?;
        self.rest = rest;
        Some((name, value))
    }
}

impl std::iter::FusedIterator for Labels<'_> {}

/// Takes one length-delimited field with this tag off the front of `bytes`.
fn take_delimited<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    if *bytes.first()? != tag {
        return None;
    }
    let mut offset = 1;
    let len_bytes = usize::try_from(read_varint(bytes, &mut offset)?).ok()?;
    let end = offset.checked_add(len_bytes)?;
    let content = bytes.get(offset..end)?;
    *bytes = &bytes[end..];
    Some(content)
}

/// The value of the label `name`, if there is one.
pub fn find<'a>(canonical: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    iterate(canonical).find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
}

/// Checks what the canonical form does not: UTF-8, limits, that there is a metric name. For series
/// not yet known.
///
/// Names are any UTF-8 that is not empty, as Prometheus 3 has them: no character is refused.
pub fn check_grammar(canonical: &[u8], limits: &LabelLimits) -> Result<(), Refusal> {
    if canonical.len() > limits.labels_bytes_max as usize {
        return Err(Refusal::LabelsTooLong);
    }
    let mut label_count = 0;
    let mut has_metric_name = false;
    for (name, value) in iterate(canonical) {
        label_count += 1;
        if label_count > limits.labels_max {
            return Err(Refusal::TooManyLabels);
        }
        if name.len() > limits.label_name_bytes_max as usize {
            return Err(Refusal::LabelNameTooLong);
        }
        if value.len() > limits.label_value_bytes_max as usize {
            return Err(Refusal::LabelValueTooLong);
        }
        if std::str::from_utf8(name).is_err() || std::str::from_utf8(value).is_err() {
            return Err(Refusal::InvalidUtf8);
        }
        has_metric_name |= name == METRIC_NAME;
    }
    if has_metric_name { Ok(()) } else { Err(Refusal::MissingMetricName) }
}

/// The series as people write it: `up{job="x"}`. For error texts; invalid UTF-8 is replaced.
///
/// Names outside Prometheus' classic grammar are quoted as Prometheus 3 does: `{"http.requests","a
/// b"="c"}`.
pub fn format_labels(canonical: &[u8]) -> String {
    let mut text = String::with_capacity(canonical.len());
    let metric_name = find(canonical, METRIC_NAME);
    let bare = metric_name.filter(|name| is_classic_name(name, b':'));
    if let Some(name) = bare {
        text.push_str(&String::from_utf8_lossy(name));
    }
    let quoted = if bare.is_none() { metric_name } else { None };
    let others = iterate(canonical).filter(|(name, _)| *name != METRIC_NAME);
    let mut separator = '{';
    if let Some(name) = quoted {
        text.push(separator);
        push_quoted(&mut text, name);
        separator = ',';
    }
    for (name, value) in others {
        text.push(separator);
        separator = ',';
        if is_classic_name(name, b'_') {
            text.push_str(&String::from_utf8_lossy(name));
        } else {
            push_quoted(&mut text, name);
        }
        text.push('=');
        push_quoted(&mut text, value);
    }
    if separator == ',' {
        text.push('}');
    } else if bare.is_none() {
        text.push_str("{}");
    }
    text
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, with `also` as one more letter.
fn is_classic_name(name: &[u8], also: u8) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == also;
    name.first().is_some_and(|&first| is_letter(first))
        && name.iter().all(|&byte| is_letter(byte) || byte.is_ascii_digit())
}

fn push_quoted(text: &mut String, bytes: &[u8]) {
    text.push('"');
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            control if control.is_control() => {
                write!(text, "{}", control.escape_unicode()).expect("a String takes all");
            }
            other => text.push(other),
        }
    }
    text.push('"');
}
