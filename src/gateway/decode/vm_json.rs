//! VictoriaMetrics JSON lines -> labels in canonical form and samples. In: a decompressed body,
//! `{"metric":{"__name__":"up","job":"x"},"values":[1,0],"timestamps":[1700000000000,..]}` a line.
//! Out: as every decoder. O(bytes), no recursion; nothing is allocated once it is warm, but for
//! failed lines' texts.
//! <https://docs.victoriametrics.com/victoriametrics/#json-line-format>
//!
//! A line of the usual shape is read by `usual.rs` in one pass; anything else of the same format by
//! simd-json, in `any.rs`, which is the specification. The two are held against each other by tests
//! and the fuzz target `vm_json`.
//!
//! A line is taken whole or refused whole: but for samples too far in the future, which are left
//! out.

mod any;
mod number;
mod usual;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;

use super::{BODY_BYTES_MAX, DecodeError, DecodeRules, batch_of};
use crate::gateway::request::{DecodedRequest, LabelSpan, RequestBytes};
use crate::model::labels::LabelsEncoder;
use crate::model::refusal::Refusal;
use crate::model::series::SeriesHash;

/// Longest line, its newline included; VictoriaMetrics' own limit (`-import.maxLineLen`) is the
/// same. simd-json needs up to 16 times its bytes to decode a line.
pub const LINE_BYTES_MAX: usize = 10 << 20;
/// How many failed lines are kept for the answer, and how much of each.
const FAILED_LINES_MAX: usize = 3;
const FAILED_LINE_BYTES_MAX: usize = 200;
/// Timestamps below are seconds, the others milliseconds: 1973 in the one unit, the year 5138 in
/// the other.
const TIMESTAMP_MS_MIN: i64 = 100_000_000_000;

/// Which of the two readers lines go through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineReader {
    /// The one-pass reader, then simd-json for what it does not know.
    #[default]
    Both,
    /// simd-json only: for tests, fuzzing and measuring.
    SimdJson,
}

/// Decodes one body after the other; holds what is reused between them.
#[derive(Debug, Default)]
pub struct VmJsonDecoder {
    reader: LineReader,
    line: Line,
    any: any::AnyLineReader,
}

/// What one line says: filled by either reader, emptied before each.
#[derive(Debug, Default)]
struct Line {
    labels: LabelsEncoder,
    value: Vec<f64>,
    timestamp_ms: Vec<i64>,
}

impl Line {
    fn clear(&mut self) {
        self.labels.clear();
        self.value.clear();
        self.timestamp_ms.clear();
    }
}

/// A line that is refused, and how many samples it is said to hold: 1 if nobody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BadLine {
    reason: Refusal,
    samples: u64,
}

impl BadLine {
    const UNKNOWN: Self = Self::new(0);

    const fn new(samples: u64) -> Self {
        Self { reason: Refusal::BadLine, samples: if samples == 0 { 1 } else { samples } }
    }
}

impl VmJsonDecoder {
    /// One that reads lines by `reader`.
    pub fn new(reader: LineReader) -> Self {
        Self { reader, ..Self::default() }
    }

    /// Decodes `bytes.body` into `request`, which is cleared first, and left empty on an error. All
    /// labels are written to `bytes.labels`, which is cleared too.
    ///
    /// A line that cannot be taken is counted, its text kept for the answer (the first three), and
    /// the next one decoded. Positions of refusals are line numbers from 1.
    /// # Errors
    /// Only too many samples. Never panics, whatever the body holds (fuzz target `vm_json`), if it
    /// is not longer than [`BODY_BYTES_MAX`].
    pub fn decode(
        &mut self,
        rules: &DecodeRules,
        bytes: &mut RequestBytes,
        request: &mut DecodedRequest,
    ) -> Result<(), DecodeError> {
        assert!(bytes.body.len() <= BODY_BYTES_MAX); // The endpoint's limit is lower.
        request.clear();
        bytes.labels.clear();
        let body = &bytes.body;
        let mut offset = 0;
        let mut line_number = 0;
        while offset < body.len() {
            line_number += 1;
            self.line.clear();
            let (behind, read) = if let Some(behind) = self.read_usual(body, offset) {
                (behind, Ok(()))
            } else {
                let end = find_line_end(body, offset);
                let behind = body.len().min(end + 1);
                let text = body[offset..end].trim_ascii();
                if text.is_empty() {
                    offset = behind;
                    continue;
                }
                (behind, self.read_any(text))
            };
            let taken = match read {
                _ if behind - offset > LINE_BYTES_MAX => Err(BadLine::UNKNOWN),
                Ok(()) => self.take_line(rules, &mut bytes.labels, request, line_number),
                Err(bad) => Err(bad),
            };
            if let Err(bad) = taken {
                request.refuse(bad.reason, bad.samples, line_number);
                keep_failed_line(request, body[offset..behind].trim_ascii());
            }
            if request.samples > u64::from(rules.samples_max) {
                request.clear();
                return Err(DecodeError::TooManySamples { samples_max: rules.samples_max });
            }
            offset = behind;
        }
        Ok(())
    }

    /// Reads the line at `offset` if it is of the usual shape; where the next one begins.
    #[inline]
    fn read_usual(&mut self, body: &[u8], offset: usize) -> Option<usize> {
        match self.reader {
            LineReader::Both => usual::read_line(body, offset, &mut self.line),
            LineReader::SimdJson => None,
        }
    }

    /// Reads any line.
    fn read_any(&mut self, text: &[u8]) -> Result<(), BadLine> {
        if text.len() > LINE_BYTES_MAX {
            return Err(BadLine::UNKNOWN); // Before any memory is taken for it.
        }
        self.line.clear();
        self.any.read_line(text, &mut self.line)
    }

    /// Adds the line that was read to the request.
    fn take_line(
        &mut self,
        rules: &DecodeRules,
        labels: &mut Vec<u8>,
        request: &mut DecodedRequest,
        line_number: u64,
    ) -> Result<(), BadLine> {
        let Line { labels: encoder, value, timestamp_ms } = &mut self.line;
        let samples = value.len() as u64;
        if samples == 0 || value.len() != timestamp_ms.len() {
            return Err(BadLine::new(samples));
        }
        let range = match encoder.finish(labels) {
            Ok(range) if range.is_empty() => {
                return Err(BadLine { reason: Refusal::MissingMetricName, samples });
            }
            Ok(range) => range,
            // A key that comes twice is a fault of the line, as it is anywhere else in it.
            Err(Refusal::DuplicateLabel) => return Err(BadLine::new(samples)),
            Err(reason) => return Err(BadLine { reason, samples }),
        };
        // A label's frame may be a few bytes larger than its JSON, hence the gap between the two
        // limits.
        assert!(labels.len() < 2 * BODY_BYTES_MAX);
        #[expect(clippy::cast_possible_truncation, reason = "below 2^31, as just asserted")]
        let span = LabelSpan::in_labels(range.start as u32, range.len() as u32);
        let hash = SeriesHash::of(rules.tenant, &labels[range]);
        let batch = batch_of(request, hash);
        let newest_ms = timestamp_ms.iter().copied().max().unwrap_or(i64::MIN);
        if newest_ms <= rules.timestamp_ms_max {
            batch.timestamp_ms.extend_from_slice(timestamp_ms);
            batch.value.extend_from_slice(value);
            batch.push_series(hash, span);
            request.samples += samples;
            return Ok(());
        }
        let mut taken = 0;
        for (&timestamp_ms, &value) in timestamp_ms.iter().zip(value.iter()) {
            if timestamp_ms <= rules.timestamp_ms_max {
                batch.timestamp_ms.push(timestamp_ms);
                batch.value.push(value);
                taken += 1;
            }
        }
        if taken > 0 {
            batch.push_series(hash, span);
            request.samples += taken;
        }
        request.refuse(Refusal::TooFarInFuture, samples - taken, line_number);
        Ok(())
    }
}

/// Where the line that begins at `offset` ends: its newline, or the end of the body.
fn find_line_end(body: &[u8], offset: usize) -> usize {
    // `contains` looks at whole words; only the last block is gone through byte by byte.
    let mut at = offset;
    for block in body[offset..].chunks(64) {
        if block.contains(&b'\n') {
            let found = block.iter().position(|&byte| byte == b'\n');
            return at + found.unwrap_or(0);
        }
        at += block.len();
    }
    at
}

#[cold]
fn keep_failed_line(request: &mut DecodedRequest, line: &[u8]) {
    request.failed_lines += 1;
    if request.failed_line_texts.len() >= FAILED_LINES_MAX {
        return;
    }
    // A character of up to four bytes may begin just below the limit.
    let start = &line[..line.len().min(FAILED_LINE_BYTES_MAX + 4)];
    let mut text = String::from_utf8_lossy(start).into_owned();
    let mut len = text.len().min(FAILED_LINE_BYTES_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    text.truncate(len);
    request.failed_line_texts.push(text);
}

/// A timestamp of either unit as milliseconds; `None` if it does not fit.
#[inline]
fn integer_timestamp_ms(timestamp: i64) -> Option<i64> {
    if timestamp >= TIMESTAMP_MS_MIN { Some(timestamp) } else { timestamp.checked_mul(1000) }
}
