//! DRIVER: a log segment's file -> its records as facts, and the holes between them.
//!
//! In: an open file. Out: one step at a time. Memory: the reader's windows. Not here: what a hole
//! means (`check`), which depends on the segments around.

use std::fs::File;
use std::io::{self, Read};

use crate::model::series::SeriesHash;
use crate::node::log::{
    BLOCK_BYTES, LogIdentity, READ_WINDOW_BYTES, ReaderStep, Record, ReplayTally, SegmentEnd,
    SegmentFault, SegmentHeader, SegmentReader,
};
use crate::wire::delete::Deletion;
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameKind, check_frame};
use crate::wire::write::WriteView;

/// What there is to say of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFacts {
    /// Where it begins.
    pub offset: u64,
    /// Bytes that it takes.
    pub len_bytes: u64,
    /// Its number in the log.
    pub sequence: u64,
    /// The first record of the process that wrote it.
    pub run_sequence: u64,
    /// All records up to this one were durable by then.
    pub durable_sequence: u64,
    /// `write` or `delete`.
    pub kind: &'static str,
    /// Samples.
    pub samples: u64,
    /// Of these, refused.
    pub refused: u64,
    /// Series that it brings with their labels.
    pub new_series: u64,
    /// What is wrong with its contents, although its checksum holds.
    pub problem: Option<&'static str>,
}

/// What lies next in a segment.
#[derive(Debug)]
pub enum SegmentStep {
    /// A whole record.
    Record(RecordFacts),
    /// Bytes that should be a record and are none.
    Hole {
        /// Where.
        offset: u64,
        /// How many.
        len_bytes: u64,
    },
}

/// Walks one segment.
pub struct SegmentWalk<'a> {
    file: &'a mut File,
    reader: SegmentReader,
    piece: Vec<u8>,
    /// Where the last record ended.
    at: u64,
    /// Behind a hole.
    pending: Option<RecordFacts>,
}

/// The header of a segment, whose file is read up to behind it.
pub fn read_header(file: &mut File) -> io::Result<Result<SegmentHeader, SegmentFault>> {
    let mut block = [0; BLOCK_BYTES];
    let len = read_some(file, &mut block)?;
    Ok(SegmentHeader::decode(&block[..len]))
}

impl<'a> SegmentWalk<'a> {
    /// Walks `file` from behind its header: segment `segment` of the log `identity`.
    pub fn new(file: &'a mut File, identity: &LogIdentity, segment: u64) -> Self {
        let mut reader = SegmentReader::new(identity);
        reader.begin(segment);
        let piece = vec![0; READ_WINDOW_BYTES];
        Self { file, reader, piece, at: BLOCK_BYTES as u64, pending: None }
    }

    /// The next step; `None` at the end. `tally` is shown each record, `read` each piece's length.
    pub fn next_step(
        &mut self,
        tally: &mut ReplayTally,
        read: &mut dyn FnMut(u64),
    ) -> io::Result<Option<SegmentStep>> {
        if let Some(facts) = self.pending.take() {
            return Ok(Some(SegmentStep::Record(facts)));
        }
        let mut facts = loop {
            match self.reader.poll_record() {
                ReaderStep::Record(record) => {
                    tally.handle_record(&record);
                    break describe(&record);
                }
                ReaderStep::NeedBytes => {
                    let len = read_some(self.file, &mut self.piece)?;
                    read(len as u64);
                    self.reader.handle_piece(&self.piece[..len]);
                }
                ReaderStep::End => return Ok(None),
            }
        };
        let end = self.reader.end().end_bytes;
        facts.offset = end - facts.len_bytes;
        let (at, offset) = (self.at, facts.offset);
        self.at = end;
        // A group ends with zeros up to the next 4096; anything else was a record.
        let is_padding =
            offset == at.next_multiple_of(BLOCK_BYTES as u64) && offset - at < BLOCK_BYTES as u64;
        if offset == at || is_padding {
            return Ok(Some(SegmentStep::Record(facts)));
        }
        self.pending = Some(facts);
        Ok(Some(SegmentStep::Hole { offset: at, len_bytes: offset - at }))
    }

    /// How it ended, once `next_step` said `None`.
    pub fn end(&self) -> SegmentEnd {
        self.reader.end()
    }
}

fn describe(record: &Record<'_>) -> RecordFacts {
    let mut facts = RecordFacts {
        offset: 0,
        len_bytes: record.len_bytes(),
        sequence: record.sequence(),
        run_sequence: record.run_sequence(),
        durable_sequence: record.durable_sequence(),
        kind: "unknown",
        samples: 0,
        refused: record.refused().len() as u64,
        new_series: 0,
        problem: None,
    };
    let frame = record.frame();
    let Ok(header) = check_frame(frame) else {
        facts.problem = Some("its frame is not one");
        return facts;
    };
    let payload = &frame[FRAME_HEADER_BYTES..];
    match header.kind {
        FrameKind::Delete => {
            facts.kind = "delete";
            if Deletion::decode(payload).is_err() {
                facts.problem = Some("its deletion cannot be read");
            }
        }
        FrameKind::Write => {
            facts.kind = "write";
            match WriteView::check(payload) {
                Ok(view) => describe_write(record, view, &mut facts),
                Err(_) => facts.problem = Some("its samples cannot be read"),
            }
        }
        _ => facts.problem = Some("its frame is of a kind that no log holds"),
    }
    facts
}

fn describe_write(record: &Record<'_>, view: WriteView<'_>, facts: &mut RecordFacts) {
    facts.samples = view.series.len() as u64;
    facts.new_series = view.new_series_count() as u64;
    if view.new_series_count() != record.assigned().len() {
        facts.problem = Some("it has not as many ids as new series");
    } else if record.refused().any(|index| u64::from(index) >= facts.samples) {
        facts.problem = Some("it refuses a sample that it has not");
    } else if view.new_series().any(|new| SeriesHash::of(new.tenant, new.labels) != new.hash) {
        facts.problem = Some("the hash of a new series is not that of its labels");
    }
}

/// Fills `bytes` as far as the file goes.
fn read_some(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
