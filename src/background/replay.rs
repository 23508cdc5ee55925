//! DRIVER: reads one shard's folder back: the newest snapshot, then the log from its position on.
//! Blocking, at start, on plain files; the simulator has a disk of its own.
//!
//! In: a folder. Out: pieces and records, in order, to a `ReplaySink`; what was found and what was
//! not. Memory: the reader's windows and one piece, whatever the size of the log. What damage means
//! is decided in `node/log`. Not here: clocks (the caller times it), what pieces and records do
//! (the sink: the head).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::base::ready::run_ready;

use crate::node::log::{
    BLOCK_BYTES, LogIdentity, LogPosition, READ_WINDOW_BYTES, ReaderStep, Record, ReplayTally,
    SegmentFault, SegmentHeader, SegmentReader, parse_segment_file_name, segment_file_name,
};

use super::disk::plain::PlainDisk;
use super::disk::{Disk, DiskFile};
use super::snapshot_format::{
    FOOTER_TAIL_BYTES, PIECE_HEAD_BYTES, PieceHead, PieceTally, SnapshotHeader,
    parse_snapshot_file_name, snapshot_file_name,
};

pub use super::snapshot_format::SnapshotFault;

/// Damaged places that a report lists; it counts all.
const PLACES_MAX: usize = 16;

/// What replay feeds. It never panics over what it gets: a record may name series whose
/// registration was lost.
pub trait ReplaySink {
    /// A piece of the snapshot, in the order it was written; all pieces come before the first
    /// record.
    fn handle_piece(&mut self, piece: &[u8]);
    /// A record, in the order of the log; its frame is whole (the record's checksum covers it).
    fn handle_record(&mut self, record: &Record<'_>);
    /// Of the files' `bytes_total`, `bytes_done` are read.
    fn handle_progress(&mut self, bytes_done: u64, bytes_total: u64);
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// The segment.
    pub segment: u64,
    /// The offset in its file.
    pub offset_bytes: u64,
}

/// What replay found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayReport {
    /// Where the log goes on (`Log::new`): above every segment there is.
    pub next: LogPosition,
    /// Where the snapshot stands; `None` if there is none.
    pub snapshot: Option<LogPosition>,
    /// Pieces and their bytes.
    pub pieces: u64,
    pub piece_bytes: u64,
    /// Segment files read, and their bytes, used or not.
    pub segments: u64,
    pub segment_bytes: u64,
    /// Records applied, and the bytes of all whole ones.
    pub records: u64,
    pub record_bytes: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Acknowledged records that are gone: data loss. With the first one's sequence.
    pub records_lost: u64,
    pub first_lost_sequence: Option<u64>,
    /// Records of a torn write, never acknowledged, that left a gap.
    pub records_torn: u64,
    /// Whole records left out because they, or later ones, were applied before.
    pub records_repeated: u64,
    /// Segments whose tail is torn: normal after a power cut, once per run.
    pub torn_tails: u64,
    /// The last torn tail.
    pub last_torn: Option<LogPlace>,
    /// Damaged records with whole ones behind them, and where the first of them are.
    pub damaged: u64,
    pub damaged_places: Vec<LogPlace>,
    /// Segments whose header block is damaged; their records were read all the same.
    pub damaged_headers: u64,
    /// Segments whose file is missing between others, and whose records are lost.
    pub missing_segments: u64,
}

impl ReplayReport {
    /// Whether acknowledged data is, or may be, missing.
    pub fn is_loss(&self) -> bool {
        self.records_lost > 0 || self.missing_segments > 0
    }
}

/// Why a folder cannot be replayed. The process must not start over it.
#[derive(Debug)]
pub enum ReplayFault {
    /// A file operation failed.
    Io { path: PathBuf, error: io::Error },
    /// The snapshot is damaged; the segments before it are gone, so nothing can replace it.
    Snapshot { path: PathBuf, fault: SnapshotFault },
    /// The segment was written by a version that this program does not know.
    Segment { path: PathBuf, fault: SegmentFault },
    /// The segment belongs to another node, incarnation, shard or place.
    Foreign { path: PathBuf, found: SegmentHeader },
}

impl std::fmt::Display for ReplayFault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, error } => write!(out, "cannot replay {}: {error}", path.display()),
            Self::Snapshot { path, fault } => {
                let path = path.display();
                write!(
                    out,
                    "cannot replay {path}: {fault:?}; restore it, or move it away to start \
                     with only what the log holds"
                )
            }
            Self::Segment { path, fault } => {
                write!(out, "cannot replay {}: {fault}", path.display())
            }
            Self::Foreign { path, found } => {
                write!(out, "cannot replay {}: it belongs to {found:?}", path.display())
            }
        }
    }
}

impl std::error::Error for ReplayFault {}

/// As [`replay`], of a folder on plain files, once the last process is done with it.
pub fn replay_shard(
    folder: &Path,
    identity: &LogIdentity,
    sink: &mut dyn ReplaySink,
) -> Result<ReplayReport, ReplayFault> {
    run_ready(async {
        let files = ShardFiles::list(&PlainDisk, folder).await.map_err(io_fault(folder))?;
        for segment in files.segments {
            wait_for_writes(&folder.join(segment_file_name(segment)))?;
        }
        replay(&PlainDisk, folder, identity, sink).await
    })
}

/// The last write of a process that was killed may still be on its way to the disk. Its record must
/// be seen now or never: once its sequence is given to another record, the next replay would take
/// it for that one and leave the acknowledged one out.
///
/// If its sync failed, the page cache may hold what the disk does not, and a sync now would not say
/// so: what is clean there is forgotten, and read from the disk.
fn wait_for_writes(segment: &Path) -> Result<(), ReplayFault> {
    let settled = File::open(segment).and_then(|file| {
        file.lock_shared()?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        Ok(())
    });
    settled.map_err(|error| ReplayFault::Io { path: segment.to_owned(), error })
}

/// Replays `folder`, whose files are marked with `identity`, into `sink`, and makes durable what it
/// read. After a fault the sink holds half of the data and is of no use.
pub async fn replay<D: Disk>(
    disk: &D,
    folder: &Path,
    identity: &LogIdentity,
    sink: &mut dyn ReplaySink,
) -> Result<ReplayReport, ReplayFault> {
    let files = ShardFiles::list(disk, folder).await.map_err(io_fault(folder))?;
    let start = LogPosition { segment: files.snapshot.unwrap_or(0), sequence: 1 };
    let mut replay = Replay {
        disk,
        identity,
        sink,
        tally: ReplayTally::new(start.sequence),
        bytes_total: files.bytes,
        report: empty_report(start),
    };
    if let Some(segment) = files.snapshot {
        let path = folder.join(snapshot_file_name(segment));
        let position = replay.read_snapshot(&path).await?;
        replay.tally = ReplayTally::new(position.sequence);
        replay.report.snapshot = Some(position);
    }
    replay.read_segments(folder, &files.segments).await?;
    let mut report = replay.report;
    report.records = replay.tally.records();
    report.records_lost = replay.tally.records_lost();
    report.first_lost_sequence = replay.tally.first_lost_sequence();
    report.records_torn = replay.tally.records_torn();
    report.records_repeated = replay.tally.records_repeated();
    let after_last = files.segments.last().map_or(1, |segment| segment + 1);
    let segment = after_last.max(start.segment).max(files.oldest_unused);
    report.next = LogPosition { segment, sequence: replay.tally.next_sequence() };
    Ok(report)
}

/// What of a folder takes part in replay.
struct ShardFiles {
    snapshot: Option<u64>,
    /// From the snapshot's on, ascending.
    segments: Vec<u64>,
    /// Above every segment file, also those before the snapshot.
    oldest_unused: u64,
    bytes: u64,
}

impl ShardFiles {
    async fn list<D: Disk>(disk: &D, folder: &Path) -> Result<Self, i32> {
        let (mut snapshots, mut segments) = (Vec::new(), Vec::new());
        for entry in disk.list(folder).await? {
            let (name, len_bytes) = (entry.name.as_str(), entry.len_bytes);
            snapshots.extend(parse_snapshot_file_name(name).map(|segment| (segment, len_bytes)));
            segments.extend(parse_segment_file_name(name).map(|segment| (segment, len_bytes)));
        }
        segments.sort_unstable();
        let oldest_unused = segments.last().map_or(1, |(segment, _)| segment + 1);
        let snapshot = snapshots.into_iter().max();
        let start = snapshot.map_or(0, |(segment, _)| segment);
        segments.retain(|(segment, _)| *segment >= start);
        let bytes = segments.iter().chain(&snapshot).map(|(_, bytes)| bytes).sum();
        Ok(Self {
            snapshot: snapshot.map(|(segment, _)| segment),
            segments: segments.into_iter().map(|(segment, _)| segment).collect(),
            oldest_unused,
            bytes,
        })
    }
}

struct Replay<'a, D: Disk> {
    disk: &'a D,
    identity: &'a LogIdentity,
    sink: &'a mut dyn ReplaySink,
    tally: ReplayTally,
    bytes_total: u64,
    report: ReplayReport,
}

/// A file that is read from its beginning to its end.
struct Walk<F> {
    file: F,
    offset: u64,
    /// What was read last.
    bytes: Vec<u8>,
}

impl<F: DiskFile> Walk<F> {
    fn new(file: F) -> Self {
        Self { file, offset: 0, bytes: Vec::new() }
    }

    /// Reads the next `len` bytes, or what the file still has of them.
    async fn read(&mut self, len: usize) -> Result<&[u8], i32> {
        self.file.read_at(self.offset, len, &mut self.bytes).await?;
        self.offset += self.bytes.len() as u64;
        Ok(&self.bytes)
    }
}

impl<D: Disk> Replay<'_, D> {
    fn progress(&mut self, bytes: usize) {
        self.report.file_bytes += bytes as u64;
        self.sink.handle_progress(self.report.file_bytes, self.bytes_total);
    }

    async fn read_snapshot(&mut self, path: &Path) -> Result<LogPosition, ReplayFault> {
        let bad = |fault| ReplayFault::Snapshot { path: path.to_owned(), fault };
        let file = self.disk.open(path).await.map_err(io_fault(path))?;
        let file_bytes = file.len_bytes().await.map_err(io_fault(path))?;
        let mut file = Walk::new(file);
        let mut read = async |len: usize| {
            let bytes = file.read(len).await.map_err(io_fault(path))?;
            let bytes = (bytes.len() == len).then(|| bytes.to_vec());
            bytes.ok_or_else(|| bad(SnapshotFault::Truncated))
        };
        let truncated = |_| bad(SnapshotFault::Truncated);
        let block = read(BLOCK_BYTES).await?.try_into().map_err(truncated)?;
        let header = SnapshotHeader::decode(&block).map_err(bad)?;
        if header.identity != *self.identity {
            return Err(bad(SnapshotFault::Foreign));
        }
        let mut tally = PieceTally::default();
        loop {
            let head = read(PIECE_HEAD_BYTES).await?.try_into().map_err(truncated)?;
            match PieceHead::decode(head, tally.count).map_err(bad)? {
                // A damaged length must not ask for memory that no file could fill.
                PieceHead::Piece { len, .. } if len as u64 > file_bytes => {
                    return Err(bad(SnapshotFault::Truncated));
                }
                PieceHead::Piece { len, crc } => {
                    let piece = read(len).await?;
                    tally.check_piece(&piece, crc).map_err(bad)?;
                    self.sink.handle_piece(&piece);
                    self.progress(PIECE_HEAD_BYTES + len);
                }
                PieceHead::Footer { crc } => {
                    let tail = read(FOOTER_TAIL_BYTES).await?.try_into().map_err(truncated)?;
                    tally.check_footer(&tail, crc).map_err(bad)?;
                    break;
                }
            }
        }
        (self.report.pieces, self.report.piece_bytes) = (tally.count, tally.bytes);
        Ok(header.position)
    }

    async fn read_segments(&mut self, folder: &Path, segments: &[u64]) -> Result<(), ReplayFault> {
        let mut reader = SegmentReader::new(self.identity);
        let mut memory = Vec::new();
        // Segments are numbered from 1 without a gap, and begin with the snapshot's.
        let mut expected = self.report.snapshot.map_or(1, |position| position.segment);
        for &segment in segments {
            self.report.missing_segments += segment.saturating_sub(expected);
            expected = segment + 1;
            let path = folder.join(segment_file_name(segment));
            let file = self.disk.open(&path).await.map_err(io_fault(&path))?;
            let mut file = Walk { file, offset: 0, bytes: std::mem::take(&mut memory) };
            reader.begin(segment);
            let bytes_before = self.report.file_bytes;
            self.check_header(&mut file, &path, segment).await?;
            self.read_segment(&mut file, &path, &mut reader).await?;
            self.note_end(segment, &reader);
            self.report.segment_bytes += self.report.file_bytes - bytes_before;
            // What was read may be in the page cache only, if the process before was killed between
            // a write and its sync. From here on it counts as durable, so it has to be.
            file.file.sync().await.map_err(io_fault(&path))?;
            memory = file.bytes;
        }
        Ok(())
    }

    async fn check_header(
        &mut self,
        file: &mut Walk<D::File>,
        path: &Path,
        segment: u64,
    ) -> Result<(), ReplayFault> {
        let block = file.read(BLOCK_BYTES).await.map_err(io_fault(path))?;
        let (len, decoded) = (block.len(), SegmentHeader::decode(block));
        self.progress(len);
        match decoded {
            Ok(header) if header.identity == *self.identity && header.segment == segment => Ok(()),
            Ok(found) => Err(ReplayFault::Foreign { path: path.to_owned(), found }),
            // The records say themselves where they belong.
            Err(SegmentFault::Damaged | SegmentFault::Truncated { .. }) => {
                self.report.damaged_headers += 1;
                Ok(())
            }
            Err(fault @ SegmentFault::UnknownVersion { .. }) => {
                Err(ReplayFault::Segment { path: path.to_owned(), fault })
            }
        }
    }

    async fn read_segment(
        &mut self,
        file: &mut Walk<D::File>,
        path: &Path,
        reader: &mut SegmentReader,
    ) -> Result<(), ReplayFault> {
        loop {
            match reader.poll_record() {
                ReaderStep::Record(record) => {
                    if self.tally.handle_record(&record) {
                        self.sink.handle_record(&record);
                    }
                }
                ReaderStep::NeedBytes => {
                    let piece = file.read(READ_WINDOW_BYTES).await.map_err(io_fault(path))?;
                    reader.handle_piece(piece);
                    let len = piece.len();
                    self.progress(len);
                }
                ReaderStep::End => return Ok(()),
            }
        }
    }

    fn note_end(&mut self, segment: u64, reader: &SegmentReader) {
        let end = reader.end();
        let report = &mut self.report;
        report.segments += 1;
        report.record_bytes += end.record_bytes;
        report.damaged += end.damaged;
        if let Some(offset_bytes) = end.torn_offset_bytes {
            report.torn_tails += 1;
            report.last_torn = Some(LogPlace { segment, offset_bytes });
        }
        if let Some(offset_bytes) = end.damaged_offset_bytes
            && report.damaged_places.len() < PLACES_MAX
        {
            report.damaged_places.push(LogPlace { segment, offset_bytes });
        }
    }
}

fn empty_report(next: LogPosition) -> ReplayReport {
    ReplayReport {
        next,
        snapshot: None,
        pieces: 0,
        piece_bytes: 0,
        segments: 0,
        segment_bytes: 0,
        records: 0,
        record_bytes: 0,
        file_bytes: 0,
        records_lost: 0,
        first_lost_sequence: None,
        records_torn: 0,
        records_repeated: 0,
        torn_tails: 0,
        last_torn: None,
        damaged: 0,
        damaged_places: Vec::new(),
        damaged_headers: 0,
        missing_segments: 0,
    }
}

fn io_fault(path: &Path) -> impl FnOnce(i32) -> ReplayFault {
    let path = path.to_owned();
    move |errno| ReplayFault::Io { path, error: io::Error::from_raw_os_error(errno) }
}
