//! What the tests of this folder feed their parts with: frames as the gateway half encodes them, a
//! disk of one segment, and the records read back from it.

use super::block::FlushSeries;
use super::flush::FlushCourse;
use super::head::{FlushCut, Head, HeadLimits, Row, TimeRange};
use super::log::{
    BLOCK_BYTES, Log, LogConfig, LogIdentity, LogOperation, LogPosition, ReaderStep, Record,
    SEGMENT_BYTES_MIN, SegmentReader, SegmentRequest,
};
use super::snapshot::SnapshotCourse;
use crate::base::bytes::AlignedBuffer;
use crate::model::labels::encode_label;
use crate::model::series::{SeriesHash, TenantId};
use crate::wire::frame::PAYLOAD_ALIGN;
use crate::wire::write::WritePayload;
use rkyv::util::AlignedVec;

pub const IDENTITY: LogIdentity = LogIdentity { node: 1, incarnation: 1, shard: 0 };
pub const SEGMENT_BYTES: usize = 1 << 20;
const _: () = assert!(SEGMENT_BYTES as u64 == SEGMENT_BYTES_MIN);
pub const WINDOW_MS: i64 = 1000;

/// How a frame names a series.
#[derive(Clone, Copy)]
pub enum Named {
    /// By its id.
    Id(u32),
    /// With its labels, which follow from this number.
    New(u32),
    /// With labels that are none.
    Malformed,
}

pub fn labels_of(number: u32) -> Vec<u8> {
    let mut labels = Vec::new();
    encode_label(&mut labels, b"__name__", format!("metric_{number}").as_bytes());
    labels
}

pub fn hash_of(number: u32) -> SeriesHash {
    SeriesHash::of(TenantId(0), &labels_of(number))
}

pub fn frame(sequence: u64, samples: &[(Named, i64, f64)]) -> AlignedVec<PAYLOAD_ALIGN> {
    let mut payload = WritePayload::default();
    for &(named, timestamp_ms, value) in samples {
        let entry = match named {
            Named::Id(id) => id,
            Named::New(number) => {
                payload.push_new_series(TenantId(0), hash_of(number), &labels_of(number))
            }
            Named::Malformed => payload.push_new_series(TenantId(0), SeriesHash(7), b"no labels"),
        };
        payload.series.push(entry);
        payload.timestamp_ms.push(timestamp_ms);
        payload.value.push(value);
    }
    payload.encode_frame((sequence, 0), 0, AlignedVec::new())
}

pub fn head() -> Head {
    Head::new(HeadLimits { out_of_order_window_ms: WINDOW_MS, bytes_max: 1 << 30 })
}

/// A head that has no room for anything.
pub fn full_head() -> Head {
    Head::new(HeadLimits { out_of_order_window_ms: WINDOW_MS, bytes_max: 0 })
}

/// Timestamps and values of a series that has little enough of them for nothing to be sealed.
pub fn points(head: &Head, id: u32) -> Vec<(i64, f64)> {
    let mut samples = Vec::new();
    head.copy_points(id, TimeRange { start_ms: i64::MIN, end_ms: i64::MAX }, &mut samples);
    samples.iter().map(|sample| (sample.timestamp_ms, sample.value)).collect()
}

/// No snapshot by itself, and flushes that nobody drives.
pub fn courses() -> (SnapshotCourse, FlushCourse) {
    (SnapshotCourse::new(u64::MAX / 4), FlushCourse::new(WINDOW_MS, 0))
}

/// Puts the chunks that end at `until_ms` or before, and the points up to there, nowhere.
pub fn flush(head: &mut Head, until_ms: i64) -> Vec<FlushSeries> {
    let cut = FlushCut { chunks_until_ms: until_ms, points_until_ms: until_ms };
    let rows = (0..head.row_count()).map(Row);
    let taken: Vec<_> = rows.filter_map(|row| head.take_flush(row, cut)).collect();
    for (_, taken) in &taken {
        head.drop_flushed(*taken, cut);
    }
    taken.into_iter().map(|(series, _)| series).collect()
}

/// A log without any segment yet.
pub fn empty_log() -> Log {
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        buffer_bytes_max: 512 << 10,
        frame_bytes_max: 128 << 10,
        ..LogConfig::new(IDENTITY)
    };
    Log::new(config, LogPosition { segment: 1, sequence: 1 }, 0).expect("a good configuration")
}

/// Gives the log the segments that it asks for.
pub fn provide(log: &mut Log) {
    while let Some(request) = log.poll_segment_request() {
        if let SegmentRequest::Prepare { segment, .. } = request {
            log.handle_segment_ready(segment, Ok(()));
        }
    }
}

/// A disk that holds one segment.
pub struct Disk {
    bytes: Vec<u8>,
}

impl Disk {
    pub fn new() -> Self {
        Self { bytes: vec![0; SEGMENT_BYTES] }
    }

    /// Does `operation` and hands its buffer back.
    pub fn write(&mut self, operation: LogOperation) -> AlignedBuffer {
        let LogOperation::WriteSync { segment, offset_bytes, buffer, .. } = operation;
        assert!(segment == 1, "one segment is enough");
        let at = usize::try_from(offset_bytes).expect("small");
        self.bytes[at..at + buffer.len()].copy_from_slice(&buffer);
        buffer
    }

    /// Each record that is on it, in order.
    pub fn read(&self, mut handle: impl FnMut(&Record)) {
        let mut reader = SegmentReader::new(&IDENTITY);
        reader.begin(1);
        let mut pieces = self.bytes[BLOCK_BYTES..].chunks(64 << 10);
        loop {
            match reader.poll_record() {
                ReaderStep::Record(record) => handle(&record),
                ReaderStep::NeedBytes => reader.handle_piece(pieces.next().unwrap_or(&[])),
                ReaderStep::End => return,
            }
        }
    }
}
