//! Series of an answer as frames: flat columns, checked once and read in place.
//!
//! A series whose chunks do not fit into one frame goes on in the next: its labels again, and
//! [`SelectedSeriesPiece::goes_on`] on all but the last piece. [`SeriesJoiner`] puts it together.

use std::sync::Arc;

use rkyv::{Archive, Serialize};

use super::codec::SELECT_SCHEMA;
use super::{ArchivedSelectLayer, SelectLayer, SelectedSeries};
use crate::model::chunk::Chunk;
use crate::model::sample::Sample;
use crate::wire::frame::{
    FRAME_BYTES_MAX, FrameFault, FrameHeader, FrameKind, Memory, encode_numbered,
};

/// A frame is sealed when it holds so many bytes.
const FRAME_BYTES_GATHERED: usize = 512 << 10;
/// Longest labels or chunk that still fits into a frame with everything else.
const PIECE_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_BYTES_GATHERED - (256 << 10);
/// Samples that are added at once: 256 KiB.
const SAMPLES_AT_ONCE: usize = 16 << 10;

/// Labels and a chunk that are too long for a frame together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceTooLong {
    /// What they have.
    pub len_bytes: u64,
    /// What there is room for.
    pub len_bytes_max: u64,
}

#[derive(Archive, Serialize)]
struct SeriesPayload {
    layer: SelectLayer,
    series: Vec<SeriesEntry>,
    labels: Vec<u8>,
    /// Where each chunk ends in `chunks`.
    chunk_ends: Vec<u32>,
    chunks: Vec<u8>,
    timestamp_ms: Vec<i64>,
    value: Vec<f64>,
}

/// Where the things of one series end in the columns.
#[derive(Archive, Serialize, Clone, Copy)]
struct SeriesEntry {
    labels_end: u32,
    /// In `chunk_ends`.
    chunks_end: u32,
    samples_end: u32,
    /// 1: the next frame begins with more of it.
    goes_on: u32,
}

/// Makes the frames of some series.
struct Gather {
    request: u64,
    payload: SeriesPayload,
    frames: Vec<Memory>,
}

pub(super) fn encode_series(
    (request, layer): (u64, SelectLayer),
    series: &[SelectedSeries],
) -> Result<Vec<Memory>, PieceTooLong> {
    let mut gather = Gather::new(request, layer);
    for one in series {
        let longest = one.chunks.iter().map(Chunk::len_bytes).max().unwrap_or(0);
        let len_bytes = one.labels.len() + longest;
        if len_bytes > PIECE_BYTES_MAX {
            let len_bytes_max = PIECE_BYTES_MAX as u64;
            return Err(PieceTooLong { len_bytes: len_bytes as u64, len_bytes_max });
        }
        gather.push(one);
    }
    gather.seal();
    Ok(gather.frames)
}

impl Gather {
    fn new(request: u64, layer: SelectLayer) -> Self {
        let payload = SeriesPayload {
            layer,
            series: Vec::new(),
            labels: Vec::new(),
            chunk_ends: Vec::new(),
            chunks: Vec::new(),
            timestamp_ms: Vec::new(),
            value: Vec::new(),
        };
        Self { request, payload, frames: Vec::new() }
    }

    fn push(&mut self, series: &SelectedSeries) {
        if self.is_full(series.labels.len()) {
            self.seal();
        }
        self.payload.labels.extend_from_slice(&series.labels);
        for chunk in &series.chunks {
            if self.is_full(chunk.len_bytes()) {
                self.seal_within(&series.labels);
            }
            self.payload.chunks.extend_from_slice(chunk.as_bytes());
            self.payload.chunk_ends.push(column_end(self.payload.chunks.len()));
        }
        for samples in series.samples.chunks(SAMPLES_AT_ONCE) {
            if self.is_full(size_of_val(samples)) {
                self.seal_within(&series.labels);
            }
            let times = samples.iter().map(|sample| sample.timestamp_ms);
            self.payload.timestamp_ms.extend(times);
            self.payload.value.extend(samples.iter().map(|sample| sample.value));
        }
        self.close_series(0);
    }

    /// Whether a frame that holds something already should be sealed before so much is added.
    fn is_full(&self, more_bytes: usize) -> bool {
        let payload = &self.payload;
        let held = payload.labels.len()
            + payload.chunks.len()
            + payload.chunk_ends.len() * size_of::<u32>()
            + payload.value.len() * size_of::<Sample>()
            + payload.series.len() * size_of::<SeriesEntry>();
        held > 0 && held + more_bytes > FRAME_BYTES_GATHERED
    }

    fn close_series(&mut self, goes_on: u32) {
        self.payload.series.push(SeriesEntry {
            labels_end: column_end(self.payload.labels.len()),
            chunks_end: column_end(self.payload.chunk_ends.len()),
            samples_end: column_end(self.payload.value.len()),
            goes_on,
        });
    }

    /// Seals the frame in the middle of a series.
    fn seal_within(&mut self, labels: &[u8]) {
        self.close_series(1);
        self.seal();
        self.payload.labels.extend_from_slice(labels);
    }

    fn seal(&mut self) {
        let payload = &mut self.payload;
        if payload.series.is_empty() {
            return;
        }
        let kind = (FrameKind::Series, SELECT_SCHEMA);
        self.frames.push(encode_numbered(kind, self.request, payload));
        payload.series.clear();
        payload.labels.clear();
        payload.chunk_ends.clear();
        payload.chunks.clear();
        payload.timestamp_ms.clear();
        payload.value.clear();
    }
}

fn column_end(len: usize) -> u32 {
    u32::try_from(len).expect("a frame is below 4 MiB")
}

/// Series, read in place.
#[derive(Clone, Copy)]
pub struct SeriesView<'a> {
    layer: SelectLayer,
    series: &'a [ArchivedSeriesEntry],
    labels: &'a [u8],
    chunk_ends: &'a [u32],
    chunks: &'a [u8],
    timestamp_ms: &'a [i64],
    value: &'a [f64],
}

/// A series of a frame, or some of it.
#[derive(Clone, Copy, Debug)]
pub struct SelectedSeriesPiece<'a> {
    /// Canonical label bytes.
    pub labels: &'a [u8],
    /// Where each chunk ends in `chunks`, and where the first begins.
    chunk_ends: &'a [u32],
    chunk_start: usize,
    chunks: &'a [u8],
    /// Samples behind the chunks.
    pub timestamp_ms: &'a [i64],
    /// As many.
    pub value: &'a [f64],
    /// Whether the next frame begins with more of it.
    pub goes_on: bool,
}

impl<'a> SeriesView<'a> {
    /// Reads `payload`, which is 16-aligned. Afterwards everything named is inside the frame. What
    /// chunks hold is checked by [`Chunk::from_bytes`] and [`Chunk::decode`].
    pub fn check(header: &FrameHeader, payload: &'a [u8]) -> Result<Self, FrameFault> {
        header.check_schema(SELECT_SCHEMA)?;
        let archived = rkyv::access::<ArchivedSeriesPayload, rkyv::rancor::Failure>(payload)
            .map_err(|_| FrameFault::BadPayload)?;
        let view = Self {
            layer: match archived.layer {
                ArchivedSelectLayer::Heads => SelectLayer::Heads,
                ArchivedSelectLayer::Blocks => SelectLayer::Blocks,
            },
            series: archived.series.as_slice(),
            labels: archived.labels.as_slice(),
            chunk_ends: bytemuck::cast_slice(archived.chunk_ends.as_slice()),
            chunks: archived.chunks.as_slice(),
            timestamp_ms: bytemuck::cast_slice(archived.timestamp_ms.as_slice()),
            value: bytemuck::cast_slice(archived.value.as_slice()),
        };
        let ends = |entry: &ArchivedSeriesEntry| {
            let (labels, chunks) = (entry.labels_end.to_native(), entry.chunks_end.to_native());
            [labels, chunks, entry.samples_end.to_native()]
        };
        let is_sorted = view.series.is_sorted_by(|before, after| {
            ends(before).iter().zip(ends(after)).all(|(before, after)| *before <= after)
        });
        let [labels_end, chunks_end, samples_end] = view.series.last().map_or([0; 3], ends);
        let last_chunk_end = view.chunk_ends.last().copied().unwrap_or(0);
        let is_whole = is_sorted
            && labels_end as usize == view.labels.len()
            && chunks_end as usize == view.chunk_ends.len()
            && samples_end as usize == view.value.len()
            && view.timestamp_ms.len() == view.value.len()
            && view.chunk_ends.is_sorted()
            && last_chunk_end as usize == view.chunks.len();
        is_whole.then_some(view).ok_or(FrameFault::BadPayload)
    }

    /// Where they come from.
    pub fn layer(&self) -> SelectLayer {
        self.layer
    }

    /// The series, in the order they were sent.
    pub fn series(self) -> impl Iterator<Item = SelectedSeriesPiece<'a>> {
        let (mut labels_start, mut chunks_start, mut samples_start) = (0usize, 0usize, 0usize);
        self.series.iter().map(move |entry| {
            let labels_end = entry.labels_end.to_native() as usize;
            let chunks_end = entry.chunks_end.to_native() as usize;
            let samples_end = entry.samples_end.to_native() as usize;
            let before = chunks_start.checked_sub(1).map_or(0, |last| self.chunk_ends[last]);
            let piece = SelectedSeriesPiece {
                labels: &self.labels[labels_start..labels_end],
                chunk_ends: &self.chunk_ends[chunks_start..chunks_end],
                chunk_start: before as usize,
                chunks: self.chunks,
                timestamp_ms: &self.timestamp_ms[samples_start..samples_end],
                value: &self.value[samples_start..samples_end],
                goes_on: entry.goes_on.to_native() != 0,
            };
            (labels_start, chunks_start, samples_start) = (labels_end, chunks_end, samples_end);
            piece
        })
    }
}

impl<'a> SelectedSeriesPiece<'a> {
    /// The bytes of its chunks.
    pub fn chunks(self) -> impl Iterator<Item = &'a [u8]> {
        let mut start = self.chunk_start;
        self.chunk_ends.iter().map(move |end| {
            let chunk = &self.chunks[start..*end as usize];
            start = *end as usize;
            chunk
        })
    }

    fn append_to(self, series: &mut SelectedSeries) -> Result<(), FrameFault> {
        for chunk in self.chunks() {
            let chunk = Chunk::from_bytes(Arc::from(chunk)).map_err(|_| FrameFault::BadPayload)?;
            series.chunks.push(chunk);
        }
        let samples = self.timestamp_ms.iter().zip(self.value);
        series
            .samples
            .extend(samples.map(|(&timestamp_ms, &value)| Sample { timestamp_ms, value }));
        Ok(())
    }
}

/// Puts series together that went on in the next frame. One per request.
#[derive(Debug, Default)]
pub struct SeriesJoiner {
    open: Option<SelectedSeries>,
}

impl SeriesJoiner {
    /// Appends the series that `view` completes. What is open holds as many bytes as frames were
    /// given for it: the caller, who counts a query's bytes, bounds it by giving up.
    pub fn join(
        &mut self,
        view: SeriesView,
        whole: &mut Vec<SelectedSeries>,
    ) -> Result<(), FrameFault> {
        for piece in view.series() {
            let mut series = self.open.take().unwrap_or_else(|| SelectedSeries {
                labels: piece.labels.into(),
                chunks: Vec::new(),
                samples: Vec::new(),
            });
            if *series.labels != *piece.labels {
                return Err(FrameFault::BadPayload);
            }
            piece.append_to(&mut series)?;
            if piece.goes_on {
                self.open = Some(series);
            } else {
                whole.push(series);
            }
        }
        Ok(())
    }

    /// Whether a series waits for more, which is a fault when the answer ends.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{FRAME_HEADER_BYTES, check_frame};
    use crate::wire::golden::check_control_frame;
    use crate::wire::select::{SelectAnswer, encode_answer};

    type Plain = (Vec<u8>, Vec<Vec<u8>>, Vec<(i64, u64)>);

    fn plain(series: &SelectedSeries) -> Plain {
        let chunks = series.chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect();
        let samples = series.samples.iter().map(|s| (s.timestamp_ms, s.value.to_bits()));
        (series.labels.to_vec(), chunks, samples.collect())
    }

    fn series(labels: &[u8], chunk_count: i64, sample_count: i64) -> SelectedSeries {
        let chunk = |start: i64| {
            let times: Vec<_> = (0..200).map(|step| start * 1000 + step).collect();
            let values: Vec<_> = times.iter().map(|time| (*time as f64).sqrt()).collect();
            Chunk::encode(&times, &values)
        };
        let sample = |at| Sample { timestamp_ms: at, value: at as f64 };
        SelectedSeries {
            labels: labels.into(),
            chunks: (0..chunk_count).map(chunk).collect(),
            samples: (0..sample_count).map(sample).collect(),
        }
    }

    fn join(header: &FrameHeader, payload: &[u8]) -> Result<Vec<Plain>, FrameFault> {
        let mut whole = Vec::new();
        SeriesJoiner::default().join(SeriesView::check(header, payload)?, &mut whole)?;
        Ok(whole.iter().map(plain).collect())
    }

    #[test]
    fn round_trip_and_frozen_bytes() {
        let sent = vec![series(b"one", 2, 0), series(b"", 0, 3), series(b"three", 1, 1)];
        let want: Vec<_> = sent.iter().map(plain).collect();
        let frames =
            encode_answer(5, SelectLayer::Blocks, &SelectAnswer::Series(sent)).expect("short");
        check_control_frame("series", &frames[0], &want, join);
    }

    #[test]
    fn long_series_go_on_in_the_next_frame() {
        // Red if labels are not said again, if a piece is not marked, or its order changes.
        let sent = vec![
            series(b"short", 1, 1),
            series(b"many chunks", 1500, 7),
            series(b"many samples", 3, 100_000),
        ];
        let want: Vec<_> = sent.iter().map(plain).collect();
        let frames =
            encode_answer(5, SelectLayer::Blocks, &SelectAnswer::Series(sent)).expect("cut");
        assert!(frames.len() > 4, "{}", frames.len());
        let (mut joiner, mut whole) = (SeriesJoiner::default(), Vec::new());
        for frame in &frames {
            let header = check_frame(frame).expect("sealed");
            let view = SeriesView::check(&header, &frame[FRAME_HEADER_BYTES..]).expect("encoded");
            assert_eq!((header.sequence, view.layer()), (5, SelectLayer::Blocks));
            joiner.join(view, &mut whole).expect("whole");
        }
        assert!(!joiner.is_open());
        assert!(whole.iter().map(plain).eq(want));
    }

    #[test]
    fn labels_that_no_frame_takes_are_refused() {
        let long = vec![b'x'; PIECE_BYTES_MAX + 1];
        let fault =
            encode_answer(5, SelectLayer::Blocks, &SelectAnswer::Series(vec![series(&long, 0, 1)]));
        assert!(matches!(fault, Err(PieceTooLong { .. })));
        let long = series(&long[1..], 0, 1);
        let frames = encode_answer(
            5,
            SelectLayer::Blocks,
            &SelectAnswer::Series(vec![series(b"a", 0, 10_000), long]),
        );
        assert_eq!(frames.map(|frames| frames.len()), Ok(3), "the labels take one alone");
    }
}
