//! DRIVER: a head snapshot's file, read to its last byte.
//!
//! In: an open file. Out: what it holds, piece by piece, or the first thing that is wrong and
//! where: behind it nothing can be trusted. Memory: one piece.

use std::fs::File;
use std::io::{self, BufReader, Read};

use crate::background::snapshot_format::{
    FOOTER_TAIL_BYTES, PIECE_HEAD_BYTES, PieceHead, PieceTally, SnapshotFault, SnapshotHeader,
};
use crate::node::head::SnapshotPiece;
use crate::node::log::BLOCK_BYTES;

/// What a piece holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PieceFacts {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub len_bytes: u64,
    /// Series.
    pub series: u64,
    /// Sealed chunks.
    pub chunks: u64,
    /// Samples.
    pub samples: u64,
}

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadFlaw {
    /// Near this byte.
    pub offset: u64,
    /// What.
    pub what: String,
}

/// Reads a head snapshot.
pub struct HeadFile {
    file: BufReader<File>,
    len_bytes: u64,
    at: u64,
    tally: PieceTally,
    piece: Vec<u8>,
}

impl HeadFile {
    /// Begins at the first byte of `file`; returns what the header says too.
    pub fn open(file: File) -> Result<(Self, SnapshotHeader), HeadFlaw> {
        let len_bytes = file.metadata().map_err(|error| flaw(0, &error))?.len();
        let mut head = Self {
            file: BufReader::with_capacity(1 << 20, file),
            len_bytes,
            at: 0,
            tally: PieceTally::default(),
            piece: Vec::new(),
        };
        let mut block = [0; BLOCK_BYTES];
        head.read(&mut block)?;
        let header = SnapshotHeader::decode(&block).map_err(|fault| said(0, fault))?;
        Ok((head, header))
    }

    /// The next piece; `None` behind the last, when all of the file has been checked. `labels` is
    /// shown the labels of each series.
    pub fn next_piece(
        &mut self,
        labels: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<PieceFacts>, HeadFlaw> {
        let offset = self.at;
        let mut head = [0; PIECE_HEAD_BYTES];
        self.read(&mut head)?;
        match PieceHead::decode(head, self.tally.count).map_err(|fault| said(offset, fault))? {
            // A damaged length must not ask for memory that no file could fill.
            PieceHead::Piece { len, .. } if len as u64 > self.len_bytes => {
                Err(said(offset, SnapshotFault::Truncated))
            }
            PieceHead::Piece { len, crc } => {
                let mut piece = std::mem::take(&mut self.piece);
                piece.resize(len, 0);
                self.read(&mut piece)?;
                self.tally.check_piece(&piece, crc).map_err(|fault| said(offset, fault))?;
                let facts = describe(&piece, offset, labels);
                self.piece = piece;
                facts.map(Some)
            }
            PieceHead::Footer { crc } => {
                let mut tail = [0; FOOTER_TAIL_BYTES];
                self.read(&mut tail)?;
                self.tally.check_footer(&tail, crc).map_err(|fault| said(offset, fault))?;
                self.check_padding()?;
                Ok(None)
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), HeadFlaw> {
        match self.file.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(said(self.len_bytes, SnapshotFault::Truncated))
            }
            Err(error) => Err(flaw(self.at, &error)),
        }
    }

    /// Zeros to the next 4096, and no more.
    fn check_padding(&mut self) -> Result<(), HeadFlaw> {
        let offset = self.at;
        let len = self.len_bytes.saturating_sub(offset);
        let is_right = self.len_bytes == offset.next_multiple_of(BLOCK_BYTES as u64);
        let mut padding = vec![0; usize::try_from(len).unwrap_or(0).min(BLOCK_BYTES)];
        self.read(&mut padding)?;
        if is_right && padding.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        Err(HeadFlaw { offset, what: "bytes that belong to nothing behind the footer".into() })
    }
}

fn describe(
    bytes: &[u8],
    offset: u64,
    labels: &mut dyn FnMut(&[u8]),
) -> Result<PieceFacts, HeadFlaw> {
    let broken = |fault: crate::node::head::SnapshotFault| HeadFlaw {
        offset,
        what: format!("a piece contradicts itself, although its checksum holds: {fault:?}"),
    };
    let (piece, len) = SnapshotPiece::check(bytes).map_err(broken)?;
    let len_bytes = bytes.len() as u64;
    let mut facts = PieceFacts { offset, len_bytes, ..PieceFacts::default() };
    for series in piece.iterate() {
        let series = series.map_err(broken)?;
        let (chunks, samples) = series.check().map_err(broken)?;
        labels(series.labels);
        facts.series += 1;
        facts.chunks += chunks;
        facts.samples += samples;
    }
    if len != bytes.len() {
        let what = "a piece is shorter than its place".into();
        return Err(HeadFlaw { offset: offset + len as u64, what });
    }
    Ok(facts)
}

fn flaw(offset: u64, error: &io::Error) -> HeadFlaw {
    HeadFlaw { offset, what: format!("cannot read: {error}") }
}

fn said(offset: u64, fault: SnapshotFault) -> HeadFlaw {
    let what = match fault {
        SnapshotFault::Truncated => "the file ends early".into(),
        SnapshotFault::Header => "the header block is damaged".into(),
        SnapshotFault::UnknownVersion { version } => {
            format!("it has the unknown version {version}")
        }
        SnapshotFault::Foreign => "it is of another node, incarnation or shard".into(),
        SnapshotFault::Piece { index } => format!("piece {index} is damaged"),
        SnapshotFault::Footer => "the footer is damaged".into(),
    };
    HeadFlaw { offset, what }
}
