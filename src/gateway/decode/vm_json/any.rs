//! Any line of the format, by simd-json: the specification that `usual.rs` is held against.
//! In: the text of one line. Out: its labels and columns, or how many samples are refused with it.
//!
//! As VictoriaMetrics reads it (`lib/protoparser/vmimport`), but stricter: a key that comes twice,
//! or a label that is no string, makes a bad line. `null` is the stale marker, which is the one NaN
//! that VictoriaMetrics stores and exports so; "NaN" is Prometheus' other NaN; "Infinity" and "Inf"
//! are the infinities, with a sign or without; unknown keys are passed over. Timestamps may also be
//! seconds, and have a fraction, which is rounded.

use simd_json::{Buffers, Node, StaticNode, Tape};

use super::{BadLine, Line, TIMESTAMP_MS_MIN, integer_timestamp_ms};
use crate::model::sample::{NORMAL_NAN, STALE_NAN};

/// Deepest nesting that is read; the format has three levels, unknown keys may have more.
const DEPTH_MAX: usize = 64;
/// The memory for longer lines than this is given back at once.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What simd-json works in, reused.
pub struct AnyLineReader {
    /// The line: simd-json unescapes strings in place.
    text: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for AnyLineReader {
    fn default() -> Self {
        let buffers = Buffers::with_max_depth(0, DEPTH_MAX);
        Self { text: Vec::new(), buffers, tape: Tape(Vec::new()) }
    }
}

impl std::fmt::Debug for AnyLineReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnyLineReader").finish_non_exhaustive()
    }
}

impl AnyLineReader {
    /// Reads `text` into `line`, which is empty.
    #[cold]
    pub fn read_line(&mut self, text: &[u8], line: &mut Line) -> Result<(), BadLine> {
        self.text.clear();
        self.text.extend_from_slice(text);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let result = match simd_json::fill_tape(&mut self.text, &mut self.buffers, &mut tape) {
            Ok(()) => read_object(&tape.0, line),
            Err(_) => Err(BadLine::UNKNOWN),
        };
        if text.len() > KEPT_BYTES_MAX {
            *self = Self::default();
        } else {
            self.tape = tape.reset();
        }
        result
    }
}

/// How many nodes of the tape this value takes.
fn node_count(node: &Node) -> usize {
    match node {
        Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
        Node::String(_) | Node::Static(_) => 1,
    }
}

/// The three parts of a line, as slices of the tape.
#[derive(Default)]
struct Parts<'tape, 'text> {
    metric: Option<&'tape [Node<'text>]>,
    values: Option<&'tape [Node<'text>]>,
    timestamps: Option<&'tape [Node<'text>]>,
}

fn read_object(tape: &[Node], line: &mut Line) -> Result<(), BadLine> {
    let [Node::Object { .. }, fields @ ..] = tape else { return Err(BadLine::UNKNOWN) };
    let mut parts = Parts::default();
    let mut is_repeated = false;
    let mut rest = fields;
    while let [Node::String(key), value, ..] = rest {
        let (content, behind) = rest[1..].split_at(node_count(value));
        rest = behind;
        let part = match *key {
            "metric" => &mut parts.metric,
            "values" => &mut parts.values,
            "timestamps" => &mut parts.timestamps,
            _ => continue,
        };
        is_repeated |= part.replace(content).is_some();
    }
    let samples = match parts.values {
        Some([Node::Array { len, .. }, ..]) => *len as u64,
        _ => 0,
    };
    let bad = BadLine::new(samples);
    let Parts { metric: Some(metric), values: Some(values), timestamps: Some(timestamps) } = parts
    else {
        return Err(bad);
    };
    if is_repeated {
        return Err(bad);
    }
    read_metric(metric, line).ok_or(bad)?;
    read_array(values, |node| {
        line.value.push(read_value(node)?);
        Some(())
    })
    .ok_or(bad)?;
    read_array(timestamps, |node| {
        line.timestamp_ms.push(read_timestamp_ms(node)?);
        Some(())
    })
    .ok_or(bad)
}

fn read_metric(nodes: &[Node], line: &mut Line) -> Option<()> {
    let [Node::Object { .. }, labels @ ..] = nodes else { return None };
    for label in labels.chunks(2) {
        let [Node::String(name), Node::String(value)] = label else { return None };
        line.labels.push(name.as_bytes(), value.as_bytes());
    }
    Some(())
}

fn read_array(nodes: &[Node], mut read: impl FnMut(&Node) -> Option<()>) -> Option<()> {
    let [Node::Array { .. }, elements @ ..] = nodes else { return None };
    elements.iter().try_for_each(&mut read)
}

fn read_value(node: &Node) -> Option<f64> {
    match node {
        // simd-json has unsigned numbers but behind a minus: this is -0.
        Node::Static(StaticNode::I64(0)) => Some(-0.0),
        Node::Static(StaticNode::I64(number)) => Some(*number as f64),
        Node::Static(StaticNode::U64(number)) => Some(*number as f64),
        Node::Static(StaticNode::F64(number)) => Some(*number),
        Node::Static(StaticNode::Null) => Some(STALE_NAN),
        Node::String(text) => read_special(text),
        _ => None,
    }
}

/// The values that JSON has no number for.
fn read_special(text: &str) -> Option<f64> {
    let (sign, name) = match text.as_bytes() {
        [b'-', ..] => (-1.0, &text[1..]),
        [b'+', ..] => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    match name {
        "Infinity" | "infinity" | "Inf" | "inf" => Some(sign * f64::INFINITY),
        "NaN" | "nan" | "Null" | "null" => Some(NORMAL_NAN),
        _ => None,
    }
}

fn read_timestamp_ms(node: &Node) -> Option<i64> {
    match node {
        Node::Static(StaticNode::I64(number)) => integer_timestamp_ms(*number),
        Node::Static(StaticNode::U64(number)) => integer_timestamp_ms(i64::try_from(*number).ok()?),
        Node::Static(StaticNode::F64(number)) => {
            let is_ms = *number >= TIMESTAMP_MS_MIN as f64;
            let timestamp_ms = if is_ms { *number } else { number * 1000.0 }.round();
            // 2^63: the first f64 that is above i64.
            let is_in_range = timestamp_ms.abs() < 9_223_372_036_854_775_808.0;
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
            is_in_range.then_some(timestamp_ms as i64)
        }
        _ => None,
    }
}
