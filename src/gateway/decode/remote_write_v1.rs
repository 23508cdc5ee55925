//! Remote-write 1.0 body -> spans and samples. In: a decompressed `WriteRequest`. Out: label spans
//! of it, mostly where they lie, and columns of samples. O(bytes), no recursion, no allocation per
//! sample or series. Not here: decompression (`decompress`), label grammar and limits (`admit`).
//!
//! ```text
//!  WriteRequest: 1 TimeSeries*, 3 MetricMetadata*       Label: 1 name, 2 value
//!  TimeSeries: 1 Label*, 2 Sample*, 3 Exemplar*, 4 Histogram*
//!  Sample: 1 double value, 2 int64 timestamp_ms
//! ```
//! What every sender writes (labels sorted, then samples, each with both fields) goes a short way;
//! any other order or field goes a long way, which is the specification: the short one may only say
//! what the long one would.
//! <https://prometheus.io/docs/specs/prw/remote_write_spec/>

mod seen;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;

use super::{BODY_BYTES_MAX, DecodeError, DecodeRules, batch_of};
use crate::base::protobuf::{Field, FieldValue, Fields, ProtobufFault};
use crate::gateway::request::{DecodedRequest, LabelSpan, RequestBytes};
use crate::model::labels::{LabelsEncoder, canonicalize, scan_canonical};
use crate::model::refusal::Refusal;
use crate::model::series::SeriesHash;
use seen::SeenLabels;

/// The tag of a `TimeSeries` in a `WriteRequest`.
const SERIES_TAG: u8 = 0x0a;
/// The tag of a `Sample` in a `TimeSeries`.
const SAMPLE_TAG: u8 = 0x12;
/// Tag, length, tag, value, tag, and room for a timestamp of eight bytes; those of this age have
/// six.
const SAMPLE_WINDOW_BYTES: usize = 3 + 8 + 1 + 8;

/// Tag, length, tag, value, tag, and a timestamp of six bytes: from 1971 to 2109.
const TODAY_SAMPLE_BYTES: usize = 3 + 8 + 1 + 6;
/// Series that are not guessed after a wrong guess.
const GUESS_PAUSE: u32 = 256;

/// Decodes one body after the other; holds what is reused between them.
#[derive(Debug, Default)]
pub struct RemoteWriteDecoder {
    encoder: LabelsEncoder,
    /// `Label` messages of a series that do not lie together, gathered.
    scattered: Vec<u8>,
    seen: SeenLabels,
}

/// One decode under way.
struct Walk<'a> {
    body: &'a [u8],
    labels: &'a mut Vec<u8>,
    rules: &'a DecodeRules,
    request: &'a mut DecodedRequest,
    seen: &'a mut SeenLabels,
    /// Series until the next one whose label run is guessed from its end.
    guess_pause: u32,
}

/// A decoded `Sample`.
#[derive(Clone, Copy)]
struct ReadSample {
    timestamp_ms: i64,
    value: f64,
    /// Behind it.
    end: usize,
}

/// What the long way finds in a `TimeSeries` before it takes the samples.
#[derive(Clone, Copy, Default)]
struct SeriesOutline {
    sample_count: u64,
    /// Where the first label is, and behind the last.
    labels: Option<(usize, usize)>,
    is_scattered: bool,
}

impl RemoteWriteDecoder {
    /// Decodes `bytes.body` into `request`, which is cleared first, and left empty on an error.
    /// `bytes.labels` is cleared too, and takes the labels that are not canonical as they lie.
    ///
    /// Positions of refusals are body offsets of the series. Series without samples are passed
    /// over.
    /// # Errors
    /// The first fault. Never panics, whatever the body holds (fuzz target `remote_write_v1`), if
    /// it is not longer than [`BODY_BYTES_MAX`].
    pub fn decode(
        &mut self,
        rules: &DecodeRules,
        bytes: &mut RequestBytes,
        request: &mut DecodedRequest,
    ) -> Result<(), DecodeError> {
        assert!(bytes.body.len() <= BODY_BYTES_MAX); // The endpoint's limit is lower.
        request.clear();
        bytes.labels.clear();
        let mut seen = std::mem::take(&mut self.seen);
        let mut walk = Walk {
            body: &bytes.body,
            labels: &mut bytes.labels,
            rules,
            request,
            seen: &mut seen,
            guess_pause: 0,
        };
        let result = self.decode_request(&mut walk);
        self.seen = seen;
        if result.is_err() {
            request.clear();
        }
        result
    }

    fn decode_request(&mut self, walk: &mut Walk) -> Result<(), DecodeError> {
        let body = walk.body;
        let mut offset = 0;
        while offset < body.len() {
            // Two bytes of length do for a series of up to 16 KiB.
            let (start, end) = match read_series_head(body, offset) {
                Some(range) => range,
                None => match decode_other_field(walk, offset)? {
                    (_, Some(range)) => range,
                    (behind, None) => {
                        offset = behind;
                        continue;
                    }
                },
            };
            if !walk.decode_usual_series(start, end) {
                self.decode_any_series(walk, start, end)?;
            }
            check_sample_count(walk, 0)?;
            offset = end;
        }
        Ok(())
    }

    /// Any `TimeSeries`: once through it for its outline, then once more for the samples.
    #[cold]
    fn decode_any_series(
        &mut self,
        walk: &mut Walk,
        start: usize,
        end: usize,
    ) -> Result<(), DecodeError> {
        let outline = walk.read_outline(start, end)?;
        if outline.sample_count == 0 {
            return Ok(());
        }
        // Before they are taken: here two bytes can be a sample of sixteen.
        check_sample_count(walk, outline.sample_count)?;
        let span = match self.find_labels(walk, (start, end), outline)? {
            Ok(span) => span,
            Err(reason) => {
                walk.request.refuse(reason, outline.sample_count, start as u64);
                return Ok(());
            }
        };
        let canonical = match span {
            FoundLabels::InBody(start, end) => &walk.body[start..end],
            FoundLabels::Written(start, end) => &walk.labels[start..end],
        };
        let hash = SeriesHash::of(walk.rules.tenant, canonical);
        walk.take_samples(start, end, hash, span.into())
    }

    /// The series' labels in canonical form, as they lie or written anew; or why they are refused.
    fn find_labels(
        &mut self,
        walk: &mut Walk,
        (start, end): (usize, usize),
        outline: SeriesOutline,
    ) -> Result<Result<FoundLabels, Refusal>, ProtobufFault> {
        let Some((labels_start, labels_end)) = outline.labels else {
            return Ok(Err(Refusal::MissingMetricName));
        };
        let messages = if outline.is_scattered {
            self.scattered.clear();
            let mut fields = Fields::new(walk.body, start, end);
            while let Some(field) = fields.next_field()? {
                if field.number == 1 {
                    let (_, field_end) = field.span()?;
                    self.scattered.extend_from_slice(&walk.body[field.offset_bytes..field_end]);
                }
            }
            &self.scattered
        } else {
            if scan_canonical(walk.body, labels_start, labels_end) == Some(labels_end) {
                return Ok(Ok(FoundLabels::InBody(labels_start, labels_end)));
            }
            &walk.body[labels_start..labels_end]
        };
        let Ok(written) = canonicalize(messages, &mut self.encoder, walk.labels) else {
            // The fault's offset is one in `messages`; for people, the first label is near enough.
            return Err(ProtobufFault::Truncated { offset_bytes: labels_start });
        };
        Ok(match written {
            // All values were empty: the same as no labels at all.
            Ok(range) if range.is_empty() => Err(Refusal::MissingMetricName),
            Ok(range) => Ok(FoundLabels::Written(range.start, range.end)),
            Err(reason) => Err(reason),
        })
    }
}

#[inline]
fn check_sample_count(walk: &Walk, more: u64) -> Result<(), DecodeError> {
    let samples_max = walk.rules.samples_max;
    if walk.request.samples + more > u64::from(samples_max) {
        return Err(DecodeError::TooManySamples { samples_max });
    }
    Ok(())
}

/// Where canonical labels were found.
#[derive(Clone, Copy)]
enum FoundLabels {
    InBody(usize, usize),
    Written(usize, usize),
}

impl From<FoundLabels> for LabelSpan {
    #[expect(clippy::cast_possible_truncation, reason = "both are below 2^31: BODY_BYTES_MAX")]
    fn from(found: FoundLabels) -> Self {
        match found {
            FoundLabels::InBody(start, end) => Self::in_body(start as u32, (end - start) as u32),
            FoundLabels::Written(start, end) => Self::in_labels(start as u32, (end - start) as u32),
        }
    }
}

/// Where the labels of a series end if one sample of today follows them and nothing else. Only a
/// guess: whether the bytes before are labels is for the caller to find out.
#[inline]
fn guess_labels_end(body: &[u8], start: usize, end: usize) -> Option<usize> {
    let labels_end = end.checked_sub(TODAY_SAMPLE_BYTES).filter(|at| *at > start)?;
    let sample: &[u8; TODAY_SAMPLE_BYTES] = body.get(labels_end..end)?.try_into().ok()?;
    let is_sample = sample[0] == SAMPLE_TAG
        && sample[1] as usize == TODAY_SAMPLE_BYTES - 2
        && sample[2] == 0x09
        && sample[11] == 0x10;
    is_sample.then_some(labels_end)
}

/// The content of a `TimeSeries` whose head has the usual form: its tag and a length of one or two
/// bytes.
#[inline]
fn read_series_head(body: &[u8], offset: usize) -> Option<(usize, usize)> {
    let head: &[u8; 3] = body.get(offset..offset + 3)?.first_chunk()?;
    if head[0] != SERIES_TAG {
        return None;
    }
    let (start, len) = if head[1] < 0x80 {
        (offset + 2, usize::from(head[1]))
    } else if head[2] < 0x80 {
        (offset + 3, usize::from(head[1] & 0x7f) | usize::from(head[2]) << 7)
    } else {
        return None;
    };
    let end = start + len;
    (end <= body.len()).then_some((start, end))
}

/// Any field of a `WriteRequest`: where it ends, and the range of its content if it is a series.
#[cold]
fn decode_other_field(
    walk: &mut Walk,
    offset: usize,
) -> Result<(usize, Option<(usize, usize)>), DecodeError> {
    let body = walk.body;
    let mut fields = Fields::new(body, offset, body.len());
    let Some(field) = fields.next_field()? else { return Ok((body.len(), None)) };
    let behind = fields.offset_bytes();
    match field.number {
        1 => Ok((behind, Some(field.span()?))),
        3 => {
            field.span()?;
            walk.request.ignored.metadata += 1;
            Ok((behind, None))
        }
        _ => Ok((behind, None)),
    }
}

impl Walk<'_> {
    /// Decodes a series of the usual shape: canonical labels, then samples with both fields,
    /// nothing else. `false` if it is not of that shape; nothing has changed then.
    #[inline]
    fn decode_usual_series(&mut self, start: usize, end: usize) -> bool {
        let body = self.body;
        let Some((labels_end, hash)) = self.read_labels(start, end) else { return false };
        let batch = batch_of(self.request, hash);
        let samples_before = batch.timestamp_ms.len();
        let mut refused = 0;
        let mut offset = labels_end;
        while offset < end {
            let sample = read_usual_sample(body, offset).filter(|sample| sample.end <= end);
            let Some(sample) = sample else {
                batch.timestamp_ms.truncate(samples_before);
                batch.value.truncate(samples_before);
                return false;
            };
            offset = sample.end;
            if sample.timestamp_ms > self.rules.timestamp_ms_max {
                refused += 1;
                continue;
            }
            batch.timestamp_ms.push(sample.timestamp_ms);
            batch.value.push(sample.value);
        }
        let taken = batch.timestamp_ms.len() - samples_before;
        if taken > 0 {
            batch.push_series(hash, FoundLabels::InBody(start, labels_end).into());
            self.request.samples += taken as u64;
        }
        if refused > 0 {
            self.request.refuse(Refusal::TooFarInFuture, refused, start as u64);
        }
        true
    }

    /// The end and hash of the canonical label run at `start`, if there is one.
    #[inline]
    fn read_labels(&mut self, start: usize, end: usize) -> Option<(usize, SeriesHash)> {
        let body = self.body;
        let hash_of = |labels_end| SeriesHash::of(self.rules.tenant, &body[start..labels_end]);
        let guess = if self.guess_pause == 0 { guess_labels_end(body, start, end) } else { None };
        let guess = guess.map(|labels_end| (labels_end, hash_of(labels_end)));
        if let Some((_, hash)) = guess
            && self.seen.contains(hash)
        {
            return guess;
        }
        let labels_end = scan_canonical(body, start, end).filter(|end| *end > start)?;
        match guess {
            // A new series, or one that was forgotten.
            Some((guessed_end, hash)) if guessed_end == labels_end => {
                self.seen.insert(hash);
                return guess;
            }
            // More than one sample a series: guessing would hash them all in vain.
            Some(_) => self.guess_pause = GUESS_PAUSE,
            None => self.guess_pause = self.guess_pause.saturating_sub(1),
        }
        Some((labels_end, hash_of(labels_end)))
    }

    /// Once through a `TimeSeries`: structure, label range, counts.
    fn read_outline(&mut self, start: usize, end: usize) -> Result<SeriesOutline, DecodeError> {
        let mut outline = SeriesOutline::default();
        let mut fields = Fields::new(self.body, start, end);
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => {
                    let (_, field_end) = field.span()?;
                    let begin = field.offset_bytes;
                    let (first, last_end) = outline.labels.unwrap_or((begin, begin));
                    outline.is_scattered |= last_end != begin;
                    outline.labels = Some((first, field_end));
                }
                2 => {
                    read_sample(self.body, &field)?;
                    outline.sample_count += 1;
                }
                3 => {
                    field.span()?;
                    self.request.ignored.exemplars += 1;
                }
                4 => {
                    field.span()?;
                    self.request.ignored.histograms += 1;
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    /// Takes the samples of a `TimeSeries` whose outline was read.
    fn take_samples(
        &mut self,
        start: usize,
        end: usize,
        hash: SeriesHash,
        span: LabelSpan,
    ) -> Result<(), DecodeError> {
        let batch = batch_of(self.request, hash);
        let mut taken = 0;
        let mut refused = 0;
        let mut fields = Fields::new(self.body, start, end);
        while let Some(field) = fields.next_field()? {
            if field.number != 2 {
                continue;
            }
            let sample = read_sample(self.body, &field)?;
            if sample.timestamp_ms > self.rules.timestamp_ms_max {
                refused += 1;
                continue;
            }
            batch.timestamp_ms.push(sample.timestamp_ms);
            batch.value.push(sample.value);
            taken += 1;
        }
        if taken > 0 {
            batch.push_series(hash, span);
            self.request.samples += taken;
        }
        if refused > 0 {
            self.request.refuse(Refusal::TooFarInFuture, refused, start as u64);
        }
        Ok(())
    }
}

/// A `Sample` as every sender writes it: tag, length, value, timestamp. `None` if it has another
/// form.
#[inline]
fn read_usual_sample(body: &[u8], offset: usize) -> Option<ReadSample> {
    match body[offset..].first_chunk() {
        Some(window) => read_sample_window(window, offset),
        None => read_last_sample(body, offset),
    }
}

/// The last sample of a body may be shorter than what is read at once: zeros stand in behind it,
/// and the caller sees that it must not end there.
#[cold]
fn read_last_sample(body: &[u8], offset: usize) -> Option<ReadSample> {
    let mut window = [0; SAMPLE_WINDOW_BYTES];
    let rest = &body[offset..];
    window[..rest.len()].copy_from_slice(rest);
    read_sample_window(&window, offset)
}

#[inline]
fn read_sample_window(window: &[u8; SAMPLE_WINDOW_BYTES], offset: usize) -> Option<ReadSample> {
    let (head, rest) = window.split_first_chunk::<3>()?;
    let (value, rest) = rest.split_first_chunk::<8>()?;
    let (timestamp_tag, timestamp) = rest.split_first()?;
    // 0x09: the value, fixed 64 bits. 0x10: the timestamp, varint.
    if head[0] != SAMPLE_TAG || head[2] != 0x09 || *timestamp_tag != 0x10 {
        return None;
    }
    let timestamp = u64::from_le_bytes(*timestamp.first_chunk()?);
    let (timestamp, timestamp_len) = read_short_varint(timestamp)?;
    let len = 10 + timestamp_len;
    if usize::from(head[1]) != len {
        return None;
    }
    let value = f64::from_le_bytes(*value);
    Some(ReadSample { timestamp_ms: timestamp.cast_signed(), value, end: offset + 2 + len })
}

/// A varint of up to eight bytes at the low end of `word`, and its length; `None` if it is longer.
#[inline]
fn read_short_varint(word: u64) -> Option<(u64, usize)> {
    const CONTINUED: u64 = 0x8080_8080_8080_8080;
    let ends = !word & CONTINUED;
    if ends == 0 {
        return None;
    }
    let last_bit = ends.trailing_zeros();
    let word = word & (u64::MAX >> (63 - last_bit)) & !CONTINUED;
    // Pairs of 7 bits to 14, to 28, to 56.
    let word = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x3fff_0000_3fff_0000) >> 2;
    let word = (word & 0x0fff_ffff) | (word & 0x0fff_ffff_0000_0000) >> 4;
    Some((word, last_bit as usize / 8 + 1))
}

/// Any `Sample`: absent fields are 0, of repeated ones the last counts.
fn read_sample(body: &[u8], field: &Field) -> Result<ReadSample, ProtobufFault> {
    let (start, end) = field.span()?;
    let mut sample = ReadSample { timestamp_ms: 0, value: 0.0, end };
    let mut fields = Fields::new(body, start, end);
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (1, FieldValue::Fixed64(bits)) => sample.value = f64::from_bits(bits),
            (2, FieldValue::Varint(varint)) => sample.timestamp_ms = varint.cast_signed(),
            (1 | 2, _) => return Err(field.bad_wire_type()),
            _ => {}
        }
    }
    Ok(sample)
}
