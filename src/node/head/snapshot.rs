//! The head as bytes, so that the log before it may go: pieces of some series each, self-contained
//! and checked.
//!
//! ```text
//! piece:  | magic | version | 0   | body bytes | crc32c | series | next id | body |
//!         | u32   | u16     | u16 | u32        | u32    | u32    | u32     |
//! series: | id  | tenant | hash | newest ms | labels bytes | chunks bytes | side | open |
//!         | u32 | u32    | u128 | i64       | u32          | u32          | u32  | u32  |
//!         | labels | chunks | side points | open points |
//! chunk:  | bytes u32 | chunk |        point: | timestamp ms i64 | f64 bits |
//! ```
//! All little-endian. `side` and `open` count points; the checksum covers the piece with its own
//! field as zero. `next id` is above every id that was given when the piece was taken, so that none
//! is given again although its series left and the log that named it is gone: a snapshot has at
//! least one piece. Version 1 had neither ids nor a next one: its series have the ids 0, 1, 2...
//!
//! Pieces are taken while writes go on: each is true for the moment it was taken. Replaying the log
//! from where it stood when the first piece was taken makes the head whole: what a piece already
//! holds is written again, and the last write wins.

use std::sync::Arc;

use super::buffer::{Buffer, Put};
use super::points::SLOT_POINTS_MAX;
use super::{Head, Hot, Row, Sealed};
use crate::base::checksum::{crc32c, crc32c_append};
use crate::model::chunk::Chunk;
use crate::model::refusal::Refusal;
use crate::model::sample::Sample;
use crate::model::series::{SeriesHash, SeriesId, TenantId};

const MAGIC: u32 = u32::from_le_bytes(*b"tdgs");
const VERSION: u16 = 2;
const VERSION_WITHOUT_IDS: u16 = 1;
const PIECE_HEADER_BYTES: usize = 24;
const PIECE_HEADER_BYTES_WITHOUT_IDS: usize = 20;
const LENGTH_OFFSET: usize = 8;
const CRC_OFFSET: usize = 12;
const COUNT_OFFSET: usize = 16;
const NEXT_ID_OFFSET: usize = 20;
/// Rows that a piece looks at: most may be free.
const PIECE_ROWS_MAX: u32 = 1 << 16;
const POINT_BYTES: usize = 16;
const CHUNK_PREFIX_BYTES: usize = 4;

/// Why bytes are not a piece of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotFault {
    /// Fewer bytes than the header says.
    Truncated { need_bytes: u64 },
    /// The magic number is wrong: not a piece at all.
    NotAPiece,
    /// A version that this program does not know.
    UnknownVersion { version: u16 },
    /// The checksum does not match.
    Corrupt,
    /// The checksum matches and a series' bytes contradict themselves.
    BadSeries { index: u32 },
    /// The series does not fit the index of this head.
    HeadFull,
}

/// A checked piece.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotPiece<'a> {
    body: &'a [u8],
    series_count: u32,
    /// `None`: a piece of version 1.
    next_id: Option<u32>,
}

/// One series of a piece: who it is, and its samples for [`Head::absorb`].
#[derive(Clone, Copy, Debug)]
pub struct SnapshotSeries<'a> {
    /// The id that it had; `None` in pieces of version 1.
    pub id: Option<SeriesId>,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which it is; says the slot, and so the owner.
    pub hash: SeriesHash,
    /// Canonical label bytes.
    pub labels: &'a [u8],
    newest_ms: i64,
    chunks: &'a [u8],
    side: &'a [u8],
    open: &'a [u8],
    index: u32,
}

impl<'a> SnapshotPiece<'a> {
    /// Checks the piece at the start of `bytes`; returns it and how many bytes it takes.
    pub fn check(bytes: &'a [u8]) -> Result<(Self, usize), SnapshotFault> {
        let Some(header) = bytes.first_chunk::<PIECE_HEADER_BYTES_WITHOUT_IDS>() else {
            let need_bytes = PIECE_HEADER_BYTES_WITHOUT_IDS as u64;
            return Err(SnapshotFault::Truncated { need_bytes });
        };
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if word(0) != MAGIC {
            return Err(SnapshotFault::NotAPiece);
        }
        let header_bytes = match u16::from_le_bytes([header[4], header[5]]) {
            VERSION_WITHOUT_IDS => PIECE_HEADER_BYTES_WITHOUT_IDS,
            VERSION => PIECE_HEADER_BYTES,
            version => return Err(SnapshotFault::UnknownVersion { version }),
        };
        let need_bytes = header_bytes as u64 + u64::from(word(LENGTH_OFFSET));
        let piece = usize::try_from(need_bytes).ok().and_then(|len| bytes.get(..len));
        let piece = piece.ok_or(SnapshotFault::Truncated { need_bytes })?;
        if word(CRC_OFFSET) != piece_crc(piece) {
            return Err(SnapshotFault::Corrupt);
        }
        let (header, body) = piece.split_at(header_bytes);
        let next_id = header.get(NEXT_ID_OFFSET..).and_then(|mut rest| take_array(&mut rest));
        let next_id = next_id.map(u32::from_le_bytes);
        Ok((Self { body, series_count: word(COUNT_OFFSET), next_id }, piece.len()))
    }

    /// Series in it.
    pub fn series_count(&self) -> u32 {
        self.series_count
    }

    /// Its series in order of their rows; an `Err` is the last item.
    pub fn iterate(&self) -> impl Iterator<Item = Result<SnapshotSeries<'a>, SnapshotFault>> {
        let mut rest = self.body;
        let has_ids = self.next_id.is_some();
        let mut indices = 0..self.series_count;
        std::iter::from_fn(move || {
            let index = indices.next()?;
            let series = take_series(&mut rest, has_ids, index);
            if series.is_none() {
                indices = 0..0;
            }
            Some(series.ok_or(SnapshotFault::BadSeries { index }))
        })
    }
}

fn piece_crc(piece: &[u8]) -> u32 {
    let crc = crc32c_append(crc32c(&piece[..CRC_OFFSET]), &[0; 4]);
    crc32c_append(crc, &piece[CRC_OFFSET + 4..])
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

fn take_len(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(take_array(rest)?)).ok()
}

fn take_series<'a>(rest: &mut &'a [u8], has_ids: bool, index: u32) -> Option<SnapshotSeries<'a>> {
    let id = if has_ids { Some(SeriesId(u32::from_le_bytes(take_array(rest)?))) } else { None };
    let tenant = TenantId(u32::from_le_bytes(take_array(rest)?));
    let hash = SeriesHash(u128::from_le_bytes(take_array(rest)?));
    let newest_ms = i64::from_le_bytes(take_array(rest)?);
    let labels_len = take_len(rest)?;
    let chunks_len = take_len(rest)?;
    let side_len = take_len(rest)?;
    let open_len = take_len(rest)?;
    let labels = take(rest, labels_len)?;
    let chunks = take(rest, chunks_len)?;
    let side = take(rest, side_len.checked_mul(POINT_BYTES)?)?;
    let open = take(rest, open_len.checked_mul(POINT_BYTES)?)?;
    Some(SnapshotSeries { id, tenant, hash, labels, newest_ms, chunks, side, open, index })
}

impl SnapshotSeries<'_> {
    fn fault(&self) -> SnapshotFault {
        SnapshotFault::BadSeries { index: self.index }
    }

    /// Decodes all of it, and compares the labels with the hash. Returns its chunks and samples.
    pub fn check(&self) -> Result<(u64, u64), SnapshotFault> {
        if SeriesHash::of(self.tenant, self.labels) != self.hash {
            return Err(self.fault());
        }
        let chunks = self.decode_chunks()?;
        let (side, open) = self.decode_points()?;
        let mut samples = Vec::new();
        for chunk in &chunks {
            chunk.decode(&mut samples).map_err(|_| self.fault())?;
        }
        Ok((chunks.len() as u64, (samples.len() + side.len() + open.len()) as u64))
    }

    fn decode_chunks(&self) -> Result<Vec<Chunk>, SnapshotFault> {
        let mut rest = self.chunks;
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let len = take_len(&mut rest).ok_or(self.fault())?;
            let bytes: Arc<[u8]> = take(&mut rest, len).ok_or(self.fault())?.into();
            chunks.push(Chunk::from_bytes(bytes).map_err(|_| self.fault())?);
        }
        Ok(chunks)
    }

    /// The points of side and open, checked to be what a head holds.
    fn decode_points(&self) -> Result<(Vec<Sample>, Vec<Sample>), SnapshotFault> {
        let decode = |bytes: &[u8]| -> Vec<Sample> {
            let (words, _) = bytes.as_chunks::<8>();
            let (pairs, _) = words.as_chunks::<2>();
            let sample = |[timestamp_ms, value]: &[[u8; 8]; 2]| Sample {
                timestamp_ms: i64::from_le_bytes(*timestamp_ms),
                value: f64::from_bits(u64::from_le_bytes(*value)),
            };
            pairs.iter().map(sample).collect()
        };
        let (side, open) = (decode(self.side), decode(self.open));
        let len_max = usize::from(SLOT_POINTS_MAX);
        let ascends = side.iter().chain(&open).is_sorted_by(|a, b| a.timestamp_ms < b.timestamp_ms);
        let newest_fits = open.last().is_none_or(|newest| newest.timestamp_ms == self.newest_ms);
        if side.len() > len_max || open.len() > len_max || !ascends || !newest_fits {
            return Err(self.fault());
        }
        Ok((side, open))
    }
}

impl Head {
    /// Appends a piece to `out` that holds the series in the rows from `from` on, as many as fit
    /// into `bytes_max`, and at least one row.
    ///
    /// Returns the first row that is not in it. If there is none from `from` on, the piece says
    /// only which ids were given.
    pub fn snapshot_piece(&self, from: Row, out: &mut Vec<u8>, bytes_max: usize) -> Row {
        let start = out.len();
        let mut next = from.0;
        let mut count: u32 = 0;
        out.resize(start + PIECE_HEADER_BYTES, 0);
        let end = self.row_count().min(from.0.saturating_add(PIECE_ROWS_MAX));
        while next < end {
            let series_start = out.len();
            if let Some(id) = self.id_at(Row(next)) {
                self.encode_series(next, id, out);
                let is_first = count == 0;
                if out.len() - start > bytes_max && !is_first {
                    out.truncate(series_start);
                    break;
                }
                count += 1;
            }
            next += 1;
        }
        let piece = &mut out[start..];
        let body_len = len_u32(piece.len() - PIECE_HEADER_BYTES);
        piece[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        piece[4..6].copy_from_slice(&VERSION.to_le_bytes());
        piece[LENGTH_OFFSET..][..4].copy_from_slice(&body_len.to_le_bytes());
        piece[COUNT_OFFSET..][..4].copy_from_slice(&count.to_le_bytes());
        piece[NEXT_ID_OFFSET..][..4].copy_from_slice(&self.next_id.to_le_bytes());
        let crc = piece_crc(piece);
        piece[CRC_OFFSET..][..4].copy_from_slice(&crc.to_le_bytes());
        Row(next)
    }

    fn encode_series(&self, row: u32, id: SeriesId, out: &mut Vec<u8>) {
        let at = row as usize;
        let Hot { newest_ms, open } = self.hot[at];
        let open = open.points(&self.points);
        let side = self.side.get(&row).map_or(&[][..], |side| side.points(&self.points));
        let sealed = &self.sealed[at];
        let prefixed = |sealed: &Sealed| CHUNK_PREFIX_BYTES + sealed.chunk.len_bytes();
        let chunks_len: usize = sealed.iter().map(prefixed).sum();
        out.extend_from_slice(&id.0.to_le_bytes());
        out.extend_from_slice(&self.index.tenant_of(row).0.to_le_bytes());
        out.extend_from_slice(&self.hash[at].0.to_le_bytes());
        out.extend_from_slice(&newest_ms.to_le_bytes());
        let labels_len_at = out.len();
        for len in [0, chunks_len, side.len(), open.len()] {
            out.extend_from_slice(&len_u32(len).to_le_bytes());
        }
        let labels_at = out.len();
        self.index.encode_labels(row, out);
        let labels_len = len_u32(out.len() - labels_at);
        out[labels_len_at..][..4].copy_from_slice(&labels_len.to_le_bytes());
        for Sealed { chunk, .. } in sealed {
            out.extend_from_slice(&len_u32(chunk.len_bytes()).to_le_bytes());
            out.extend_from_slice(chunk.as_bytes());
        }
        for point in side.iter().chain(open) {
            out.extend_from_slice(&point.timestamp_ms.to_le_bytes());
            out.extend_from_slice(&point.value.to_bits().to_le_bytes());
        }
    }

    /// Takes in the series of the piece at the start of `bytes`, under the ids that they had;
    /// returns how many.
    ///
    /// The byte limit does not refuse what was accepted before. On a fault the series before it are
    /// in.
    pub fn load_piece(&mut self, bytes: &[u8]) -> Result<u32, SnapshotFault> {
        let (piece, _) = SnapshotPiece::check(bytes)?;
        for series in piece.iterate() {
            let series = series?;
            match series.id {
                Some(id) => self.absorb_as(&series, |head| {
                    let identity = (series.tenant, series.hash);
                    head.register_as(id, identity, series.labels)
                })?,
                None => self.absorb(&series)?,
            };
        }
        self.set_next_id(piece.next_id.unwrap_or(0));
        Ok(piece.series_count())
    }

    /// Takes in one series, under a new id. One that is known and has samples gets those of the
    /// piece as if written now, last.
    pub fn absorb(&mut self, series: &SnapshotSeries) -> Result<SeriesId, SnapshotFault> {
        self.absorb_as(series, |head| {
            head.register_again(series.tenant, series.hash, series.labels)
        })
    }

    fn absorb_as(
        &mut self,
        series: &SnapshotSeries,
        register: impl FnOnce(&mut Self) -> Result<SeriesId, Refusal>,
    ) -> Result<SeriesId, SnapshotFault> {
        if SeriesHash::of(series.tenant, series.labels) != series.hash {
            return Err(series.fault());
        }
        let chunks = series.decode_chunks()?;
        let (side, open) = series.decode_points()?;
        let id = register(self).map_err(|refusal| match refusal {
            Refusal::HeadFull => SnapshotFault::HeadFull,
            _ => series.fault(),
        })?;
        let Row(row) = self.row_of(id);
        if self.hot[row as usize].newest_ms != i64::MIN {
            self.absorb_late(row, &chunks, &[&side, &open]).map_err(|()| series.fault())?;
            return Ok(id);
        }
        for chunk in chunks {
            self.counts.samples += u64::from(chunk.count());
            self.push_sealed(row, chunk);
        }
        self.hot[row as usize].newest_ms = series.newest_ms;
        self.hot[row as usize].open = self.absorb_points(&open);
        if !side.is_empty() {
            let side = self.absorb_points(&side);
            self.side.insert(row, side);
        }
        Ok(id)
    }

    fn absorb_points(&mut self, samples: &[Sample]) -> Buffer {
        let mut buffer = Buffer::default();
        for sample in samples {
            let put = buffer.put(&mut self.points, *sample);
            assert!(put == Put::Added); // Their order and number were checked.
        }
        self.counts.samples += samples.len() as u64;
        buffer
    }

    fn absorb_late(&mut self, row: u32, chunks: &[Chunk], raw: &[&[Sample]]) -> Result<(), ()> {
        let mut samples = Vec::new();
        for chunk in chunks {
            chunk.decode(&mut samples).map_err(|_| ())?;
        }
        samples.extend(raw.iter().copied().flatten());
        for Sample { timestamp_ms, value } in samples {
            self.replay(&[row], &[timestamp_ms], &[value], &[]);
        }
        Ok(())
    }
}

/// A piece is bounded by its caller, a series by the head's limit; both are far below 4 GiB.
fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a series is shorter than 4 GiB")
}
