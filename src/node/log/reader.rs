//! One segment's bytes, in order and in pieces -> its records, and what lies between them that is
//! none.
//!
//! In: pieces of at most [`READ_WINDOW_BYTES`]. Out: records read in place. Memory: two windows of
//! a piece and the longest record. Cost: a checksum over each record; elsewhere one comparison per
//! 16 bytes. Not here: files (`background/replay`), what gaps mean (`tally`), why damage does not
//! stop it (`mod`).

use std::ops::Range;

use crate::base::bytes::AlignedBuffer;

use super::record::{
    HeaderFound, RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, RECORD_MAGIC, Record, RecordHeader,
    decode_header, record_len_bytes_max,
};
use super::segment::{BLOCK_BYTES, LogIdentity};
use crate::wire::frame::FRAME_BYTES_MAX;

/// The longest piece that a reader takes at once.
pub const READ_WINDOW_BYTES: usize = 4 << 20;

/// What the reader found next.
#[derive(Debug)]
pub enum ReaderStep<'a> {
    /// A whole record, in the order of the file.
    Record(Record<'a>),
    /// Feed the next piece, or say that there is none.
    NeedBytes,
    /// Everything was read; `end` says how it ended.
    End,
}

/// How a segment ended, and what lies in it that is no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Whole records.
    pub records: u64,
    /// Their bytes.
    pub record_bytes: u64,
    /// Where the last whole record ends; the header block's end if there is none.
    pub end_bytes: u64,
    /// Offset of the first remains of a record behind the last whole one: a torn tail. `None`: a
    /// clean end.
    pub torn_offset_bytes: Option<u64>,
    /// Damaged records with whole ones behind them.
    pub damaged: u64,
    /// Offset of the first of them.
    pub damaged_offset_bytes: Option<u64>,
}

/// Reads one segment after another.
#[derive(Debug)]
pub struct SegmentReader {
    seed: u32,
    segment: u64,
    window: AlignedBuffer,
    /// The other window: what is left moves over when a piece arrives.
    spare: AlignedBuffer,
    /// Offset in the segment of the window's first byte.
    window_offset_bytes: u64,
    /// Where reading goes on, in the window.
    at: usize,
    is_input_done: bool,
    /// Damaged spots since the last whole record, and the first's offset.
    open_damage: (u64, Option<u64>),
    end: SegmentEnd,
}

impl SegmentReader {
    /// A reader of the segments of one log. Reusable: `begin` for each segment.
    #[expect(clippy::cast_possible_truncation, reason = "6 MiB")]
    pub fn new(identity: &LogIdentity) -> Self {
        let capacity = READ_WINDOW_BYTES + record_len_bytes_max(FRAME_BYTES_MAX) as usize;
        Self {
            seed: identity.checksum_seed(),
            segment: 0,
            window: AlignedBuffer::with_capacity(capacity),
            spare: AlignedBuffer::with_capacity(capacity),
            window_offset_bytes: 0,
            at: 0,
            is_input_done: false,
            open_damage: (0, None),
            end: SegmentEnd::default(),
        }
    }

    /// Begins `segment`; the pieces that follow start behind its header block.
    pub fn begin(&mut self, segment: u64) {
        self.segment = segment;
        self.window.clear();
        self.window_offset_bytes = BLOCK_BYTES as u64;
        self.at = 0;
        self.is_input_done = false;
        self.open_damage = (0, None);
        self.end = SegmentEnd { end_bytes: BLOCK_BYTES as u64, ..SegmentEnd::default() };
    }

    /// The next piece of the file, after `poll_record` said `NeedBytes`. Empty: there is no more.
    pub fn handle_piece(&mut self, piece: &[u8]) {
        assert!(piece.len() <= READ_WINDOW_BYTES);
        self.is_input_done |= piece.is_empty();
        self.spare.clear();
        self.spare.extend_from_slice(&self.window[self.at..]);
        self.spare.extend_from_slice(piece);
        std::mem::swap(&mut self.window, &mut self.spare);
        self.window_offset_bytes += self.at as u64;
        self.at = 0;
    }

    /// The next record, if the bytes at hand hold it.
    pub fn poll_record(&mut self) -> ReaderStep<'_> {
        while self.skip_to_magic() {
            let header = match decode_header(&self.window[self.at..], self.segment, self.seed) {
                HeaderFound::Header(header) => header,
                HeaderFound::Damaged => {
                    self.step_over_damage(RECORD_ALIGN_BYTES);
                    continue;
                }
                HeaderFound::Nothing => {
                    self.at += RECORD_ALIGN_BYTES;
                    continue;
                }
            };
            let len = header.record_len as usize;
            if len as u64 > record_len_bytes_max(FRAME_BYTES_MAX) {
                self.step_over_damage(RECORD_ALIGN_BYTES);
                continue;
            }
            if self.window.len() - self.at < len {
                if !self.is_input_done {
                    return ReaderStep::NeedBytes;
                }
                self.step_over_damage(RECORD_ALIGN_BYTES); // The file ends within the record.
                continue;
            }
            let body = self.at + RECORD_HEADER_BYTES..self.at + len;
            if Record::check(header, &self.window[body.clone()]).is_some() {
                self.close_record(len);
                return ReaderStep::Record(self.record(header, body));
            }
            // The header holds, so its length does: what follows starts right behind.
            self.step_over_damage(len);
        }
        if self.is_input_done { ReaderStep::End } else { ReaderStep::NeedBytes }
    }

    /// How the segment ended; complete once `poll_record` said `End`.
    pub fn end(&self) -> SegmentEnd {
        SegmentEnd { torn_offset_bytes: self.open_damage.1, ..self.end }
    }

    /// Moves on to what may be a header; false if the window has none. Most of a fresh segment is
    /// zeros.
    fn skip_to_magic(&mut self) -> bool {
        let magic = RECORD_MAGIC.to_le_bytes();
        while self.at + RECORD_HEADER_BYTES <= self.window.len() {
            if self.window[self.at..self.at + 4] == magic {
                return true;
            }
            self.at += RECORD_ALIGN_BYTES;
        }
        false
    }

    fn step_over_damage(&mut self, len: usize) {
        let offset = self.window_offset_bytes + self.at as u64;
        self.open_damage.0 += 1;
        self.open_damage.1.get_or_insert(offset);
        self.at += len;
    }

    fn close_record(&mut self, len: usize) {
        let (count, first) = std::mem::take(&mut self.open_damage);
        self.end.damaged += count;
        self.end.damaged_offset_bytes = self.end.damaged_offset_bytes.or(first);
        self.at += len;
        self.end.records += 1;
        self.end.record_bytes += len as u64;
        self.end.end_bytes = self.window_offset_bytes + self.at as u64;
    }

    fn record(&self, header: RecordHeader, body: Range<usize>) -> Record<'_> {
        Record::new(header, &self.window[body])
    }
}
