//! The payload of a `Write` frame: samples as three columns, and the series that the receiver may
//! not know yet.
//!
//! Written with one copy per column, checked once on arrival, then read in place: 20 bytes per
//! sample of a known series. An entry of the series column with [`NEW_SERIES`] set is an index into
//! the frame's own new series, so that a series which the sender sees for the first time costs no
//! round trip.

use crate::model::series::{SeriesHash, TenantId};
use crate::wire::frame::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameFault, FrameHeader, FrameKind, PAYLOAD_ALIGN,
    seal_frame,
};
use rkyv::rancor::Panic;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Serialize};

/// Set in an entry of the series column: the rest is an index into the frame's new series, not an
/// id.
pub const NEW_SERIES: u32 = 1 << 31;
/// The version of [`WritePayload`]; a changed struct gets a new number and a struct of its own.
pub const WRITE_SCHEMA: u16 = 1;
/// Bytes of a sample in the columns.
pub const SAMPLE_BYTES: usize = 4 + 8 + 8;
/// Bytes of a new series besides its labels.
pub const NEW_SERIES_BYTES: usize = 32;

/// Columns of samples and the new series they refer to. Struct of arrays; cleared and used again.
#[derive(Archive, Serialize, Debug, Default)]
pub struct WritePayload {
    /// Id on the receiving node shard, or [`NEW_SERIES`] and an index into `new_series`.
    pub series: Vec<u32>,
    /// Unix milliseconds.
    pub timestamp_ms: Vec<i64>,
    /// Any f64; NaN payloads are kept.
    pub value: Vec<f64>,
    /// Series that the sender has no id for.
    pub new_series: Vec<NewSeries>,
    /// The canonical label bytes of `new_series`, one after the other.
    pub labels: Vec<u8>,
}

/// What the header of a `Write` frame says besides its payload; see
/// [`crate::wire::frame::FrameHeader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteAddress {
    /// Rising by one per link.
    pub sequence: u64,
    /// Zero or [`crate::wire::frame::FLAG_BACKFILL`].
    pub flags: u16,
    /// The node shard.
    pub shard: u32,
    /// The placement epoch that the sender followed.
    pub epoch: u64,
    /// Whose ids the series column names; 0 if it names none.
    pub id_space: u64,
}

/// A series that the sender has no id for yet.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct NewSeries {
    hash_high: u64,
    hash_low: u64,
    tenant: u32,
    label_start: u32,
    label_len_bytes: u32,
    /// Fills the room that alignment leaves, so that the same payload is the same bytes.
    reserved: u32,
}

const _: () = assert!(size_of::<ArchivedNewSeries>() == NEW_SERIES_BYTES);

impl WritePayload {
    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.series.clear();
        self.timestamp_ms.clear();
        self.value.clear();
        self.new_series.clear();
        self.labels.clear();
    }

    /// Adds a new series; the result goes into the series column of its samples.
    #[expect(clippy::cast_possible_truncation, reason = "a frame is shorter than 4 MiB")]
    pub fn push_new_series(&mut self, tenant: TenantId, hash: SeriesHash, labels: &[u8]) -> u32 {
        let index = self.new_series.len() as u32 | NEW_SERIES;
        self.new_series.push(NewSeries {
            hash_high: (hash.0 >> 64) as u64,
            hash_low: hash.0 as u64,
            tenant: tenant.0,
            label_start: self.labels.len() as u32,
            label_len_bytes: labels.len() as u32,
            reserved: 0,
        });
        self.labels.extend_from_slice(labels);
        index
    }

    /// An upper bound of the frame's length.
    pub fn frame_len_bytes_max(&self) -> usize {
        const STRUCTURE_BYTES: usize = FRAME_HEADER_BYTES + 128;
        STRUCTURE_BYTES
            + self.series.len() * SAMPLE_BYTES
            + self.new_series.len() * NEW_SERIES_BYTES
            + self.labels.len()
    }

    /// The frame of these columns, in `memory` (emptied first, so that a used one can be given).
    pub fn encode_frame(
        &self,
        (sequence, flags): (u64, u16),
        shard: u32,
        memory: AlignedVec<PAYLOAD_ALIGN>,
    ) -> AlignedVec<PAYLOAD_ALIGN> {
        let address = WriteAddress { sequence, flags, shard, epoch: 0, id_space: 0 };
        self.encode_frame_for(&address, memory)
    }

    /// The same for a link.
    pub fn encode_frame_for(
        &self,
        address: &WriteAddress,
        mut memory: AlignedVec<PAYLOAD_ALIGN>,
    ) -> AlignedVec<PAYLOAD_ALIGN> {
        assert!(self.frame_len_bytes_max() <= FRAME_BYTES_MAX);
        memory.clear();
        memory.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        let Ok(mut frame) = rkyv::api::high::to_bytes_in::<_, Panic>(self, memory);
        let payload_len_bytes = u32::try_from(frame.len() - FRAME_HEADER_BYTES)
            .expect("shorter than FRAME_BYTES_MAX, asserted above");
        let header = FrameHeader {
            kind: FrameKind::Write,
            schema: WRITE_SCHEMA,
            flags: address.flags,
            sequence: address.sequence,
            epoch: address.epoch,
            shard: address.shard,
            id_space: address.id_space,
            payload_len_bytes,
        };
        seal_frame(&mut frame, &header);
        frame
    }
}

/// The columns of a frame, read where they lie.
#[derive(Clone, Copy, Debug)]
pub struct WriteView<'a> {
    /// See [`WritePayload::series`].
    pub series: &'a [u32],
    /// See [`WritePayload::timestamp_ms`].
    pub timestamp_ms: &'a [i64],
    /// See [`WritePayload::value`].
    pub value: &'a [f64],
    new_series: &'a [ArchivedNewSeries],
    labels: &'a [u8],
}

/// A new series as the receiver sees it.
#[derive(Clone, Copy, Debug)]
pub struct NewSeriesView<'a> {
    /// Whose.
    pub tenant: TenantId,
    /// Identity.
    pub hash: SeriesHash,
    /// Canonical label bytes.
    pub labels: &'a [u8],
}

impl<'a> WriteView<'a> {
    /// Reads `payload`, which is 16-aligned (what follows a frame's header in an aligned buffer).
    ///
    /// Afterwards the columns are equally long, every new-series index and label range is inside
    /// the frame; whether an id is known is the node's to check. O(samples), a few tenths of a
    /// nanosecond each.
    pub fn check(payload: &'a [u8]) -> Result<Self, FrameFault> {
        let archived = rkyv::access::<ArchivedWritePayload, rkyv::rancor::Failure>(payload)
            .map_err(|_| FrameFault::BadPayload)?;
        let view = Self {
            series: bytemuck::cast_slice(archived.series.as_slice()),
            timestamp_ms: bytemuck::cast_slice(archived.timestamp_ms.as_slice()),
            value: bytemuck::cast_slice(archived.value.as_slice()),
            new_series: archived.new_series.as_slice(),
            labels: archived.labels.as_slice(),
        };
        let sample_count = view.series.len();
        let new_count = view.new_series.len();
        // The greatest value with the bit set is the greatest index: one pass the compiler makes
        // vectors of.
        let greatest = view.series.iter().copied().max().unwrap_or(0);
        let in_frame = greatest < NEW_SERIES || ((greatest & !NEW_SERIES) as usize) < new_count;
        let labels_inside = view.new_series.iter().all(|new| {
            let start = u64::from(new.label_start.to_native());
            start + u64::from(new.label_len_bytes.to_native()) <= view.labels.len() as u64
        });
        if view.timestamp_ms.len() != sample_count
            || view.value.len() != sample_count
            || !in_frame
            || !labels_inside
        {
            return Err(FrameFault::BadPayload);
        }
        Ok(view)
    }

    /// Whether any sample is named by an id.
    pub fn names_ids(&self) -> bool {
        self.series.iter().any(|entry| entry & NEW_SERIES == 0)
    }

    /// How many series the frame brings with their labels.
    pub fn new_series_count(&self) -> usize {
        self.new_series.len()
    }

    /// The series that the frame brings, in the order that its indices count.
    pub fn new_series(self) -> impl Iterator<Item = NewSeriesView<'a>> {
        self.new_series.iter().map(move |new| {
            let start = new.label_start.to_native() as usize;
            let high = u128::from(new.hash_high.to_native());
            NewSeriesView {
                tenant: TenantId(new.tenant.to_native()),
                hash: SeriesHash(high << 64 | u128::from(new.hash_low.to_native())),
                labels: &self.labels[start..start + new.label_len_bytes.to_native() as usize],
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::check_frame;

    fn example() -> WritePayload {
        let mut payload = WritePayload::default();
        let new = payload.push_new_series(TenantId(3), SeriesHash(1 << 100 | 5), b"labels of one");
        let other = payload.push_new_series(TenantId(0), SeriesHash(9), b"of another");
        payload.series.extend([4, new, other, 4]);
        payload.timestamp_ms.extend([1, 2, 3, i64::MIN]);
        payload.value.extend([0.5, f64::from_bits(0x7ff0_0000_0000_0002), -0.0, f64::MAX]);
        payload
    }

    #[test]
    fn round_trip_keeps_every_bit() {
        let payload = example();
        let frame = payload.encode_frame((7, 0), 2, AlignedVec::new());
        assert!(frame.len() <= payload.frame_len_bytes_max());
        let header = check_frame(&frame).expect("sealed");
        assert_eq!((header.sequence, header.shard, header.schema), (7, 2, WRITE_SCHEMA));
        let view = WriteView::check(&frame[FRAME_HEADER_BYTES..]).expect("encoded");
        assert_eq!(view.series, payload.series);
        assert_eq!(view.timestamp_ms, payload.timestamp_ms);
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(view.value), bits(&payload.value));
        let new: Vec<_> = view.new_series().collect();
        assert_eq!((new[0].tenant, new[0].hash), (TenantId(3), SeriesHash(1 << 100 | 5)));
        assert_eq!((new[0].labels, new[1].labels), (&b"labels of one"[..], &b"of another"[..]));
    }

    #[test]
    fn frame_bytes_are_frozen() {
        // Logs and fleets of mixed versions hold these bytes: a change needs a new WRITE_SCHEMA.
        let frame = example().encode_frame((7, 0), 2, AlignedVec::new());
        let golden = include_bytes!("../../tests/golden/write_frame_v1.bin");
        assert_eq!(&frame[..], &golden[..]);
    }

    #[test]
    fn an_index_outside_the_frame_is_refused() {
        let mut payload = example();
        payload.series[1] = NEW_SERIES | 2;
        let frame = payload.encode_frame((1, 0), 0, AlignedVec::new());
        let fault = WriteView::check(&frame[FRAME_HEADER_BYTES..]).expect_err("outside");
        assert_eq!(fault, FrameFault::BadPayload);
    }

    #[test]
    fn columns_of_unequal_length_are_refused() {
        let mut payload = example();
        payload.value.pop();
        let frame = payload.encode_frame((1, 0), 0, AlignedVec::new());
        assert!(WriteView::check(&frame[FRAME_HEADER_BYTES..]).is_err());
    }

    #[test]
    fn mutated_payloads_never_panic() {
        let frame = example().encode_frame((1, 0), 0, AlignedVec::new());
        for bit in FRAME_HEADER_BYTES * 8..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(view) = WriteView::check(&bad[FRAME_HEADER_BYTES..]) {
                let _ = view.new_series().map(|new| new.labels.len()).sum::<usize>();
            }
        }
    }
}
