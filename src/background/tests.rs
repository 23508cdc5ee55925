//! DRIVER: tests of the background against a real disk: what the thread wrote is what replay reads,
//! and the data folder keeps its word.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::command::{BackgroundEvent, SegmentCommand, SnapshotCommand};
use super::executor::{Background, BackgroundSender, Shard};
use super::folder::{DataFolder, DirectIo, FolderFault};
use super::replay::{ReplayFault, ReplayReport, ReplaySink, SnapshotFault, replay_shard};
use crate::base::queue::{NoWake, QueueSender};
use crate::base::time::{Duration, monotonic_now};
use crate::node::log::{
    Log, LogConfig, LogIdentity, LogOperation, LogPosition, Record, SEGMENT_BYTES_MIN,
    SegmentRequest, segment_file_name,
};

const IDENTITY: LogIdentity = LogIdentity { node: 77, incarnation: 1, shard: 0 };
const PATIENCE: Duration = Duration::from_secs(60);

/// A shard without a ring: one log over one folder, its files written with plain calls.
struct PlainShard {
    log: Log,
    files: BTreeMap<u64, File>,
    sender: BackgroundSender,
    events: flume::Receiver<BackgroundEvent>,
    background: Background,
}

impl PlainShard {
    fn start(folder: &Path, next: LogPosition) -> Self {
        let (event_sender, events) = flume::bounded(8);
        let events_in = QueueSender::new(event_sender, Arc::new(NoWake));
        let shard = Shard { folder: folder.to_owned(), identity: IDENTITY, events: events_in };
        let (background, sender) = Background::start(vec![shard], None, None).expect("an executor");
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES_MIN,
            buffer_bytes_max: 512 << 10,
            frame_bytes_max: 128 << 10,
            ..LogConfig::new(IDENTITY)
        };
        let log = Log::new(config, next, 0).expect("a good configuration");
        Self { log, files: BTreeMap::new(), sender, events, background }
    }

    fn next_event(&self) -> BackgroundEvent {
        self.events.recv_timeout(PATIENCE).expect("the background answers")
    }

    fn do_requests(&mut self) {
        while let Some(request) = self.log.poll_segment_request() {
            let command = match request {
                SegmentRequest::Prepare { segment, bytes } => {
                    SegmentCommand::Prepare { shard: 0, segment, bytes }
                }
                SegmentRequest::Retire { below_segment } => {
                    self.files = self.files.split_off(&below_segment);
                    SegmentCommand::Retire { shard: 0, below_segment }
                }
            };
            let is_prepare = matches!(command, SegmentCommand::Prepare { .. });
            self.sender.try_send_segment(command).expect("room");
            if is_prepare {
                let BackgroundEvent::SegmentReady { segment, outcome } = self.next_event() else {
                    panic!("a segment was asked for");
                };
                self.files.insert(segment, outcome.expect("a segment").file.into());
                self.log.handle_segment_ready(segment, Ok(()));
            }
        }
    }

    /// Appends a frame and waits until it is durable.
    fn write(&mut self, frame: &[u8]) -> u64 {
        let (sequence, operation) = self.append(frame);
        let LogOperation::WriteSync { segment, offset_bytes, buffer, .. } = operation;
        let file = &self.files[&segment];
        file.write_all_at(&buffer, offset_bytes).expect("a disk that works");
        file.sync_data().expect("a disk that works");
        self.log.handle_written(buffer, Ok(()));
        assert_eq!(self.log.durable_sequence(), sequence);
        sequence
    }

    /// Appends a frame; what is to be written for it is the caller's to do.
    fn append(&mut self, frame: &[u8]) -> (u64, LogOperation) {
        self.do_requests();
        let sequence = self.log.append(frame, &[], &[]).expect("room");
        (sequence, self.log.poll_operation().expect("something gathered"))
    }

    /// Writes a snapshot of these pieces.
    fn snapshot(&mut self, pieces: &[Vec<u8>]) -> LogPosition {
        self.do_requests();
        let position = self.log.begin_snapshot().expect("a spare segment");
        let send = |command| self.sender.try_send_snapshot(command).expect("room");
        send(SnapshotCommand::Begin { shard: 0, position });
        for piece in pieces {
            send(SnapshotCommand::Piece { shard: 0, bytes: piece.clone() });
            let event = self.next_event();
            assert!(
                matches!(event, BackgroundEvent::SnapshotPieceWritten { bytes } if bytes.is_empty())
            );
        }
        send(SnapshotCommand::End { shard: 0 });
        let event = self.next_event();
        assert!(matches!(event, BackgroundEvent::SnapshotDone), "{event:?}");
        self.log.finish_snapshot(position);
        self.do_requests();
        position
    }

    fn stop(self) {
        drop(self.sender);
        self.background.join().expect("an executor that ran");
    }
}

#[derive(Default)]
struct Heard {
    pieces: Vec<Vec<u8>>,
    frames: Vec<(u64, Vec<u8>)>,
    progress: (u64, u64),
}

impl ReplaySink for Heard {
    fn handle_piece(&mut self, piece: &[u8]) {
        self.pieces.push(piece.to_vec());
    }

    fn handle_record(&mut self, record: &Record<'_>) {
        self.frames.push((record.sequence(), record.frame().to_vec()));
    }

    fn handle_progress(&mut self, bytes_done: u64, bytes_total: u64) {
        assert!(bytes_done >= self.progress.0 && bytes_done <= bytes_total);
        self.progress = (bytes_done, bytes_total);
    }
}

fn replay(folder: &Path) -> (Heard, ReplayReport) {
    let mut heard = Heard::default();
    let report = replay_shard(folder, &IDENTITY, &mut heard).expect("a good folder");
    (heard, report)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("ASCII");
    let mut names: Vec<_> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    names.sort();
    names
}

const FIRST: LogPosition = LogPosition { segment: 1, sequence: 1 };

#[test]
fn what_was_written_is_replayed_and_the_log_goes_on_behind_it() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(replay(folder.path()).1.next, FIRST);
    let mut shard = PlainShard::start(folder.path(), FIRST);
    let frames: Vec<_> = (1..=30).map(|token| vec![token; 100_000]).collect();
    for frame in &frames {
        shard.write(frame);
    }
    shard.stop();
    let (heard, report) = replay(folder.path());
    let want: Vec<_> = (1..).zip(frames.clone()).collect();
    assert!(heard.frames == want);
    assert_eq!((report.records, report.records_lost, report.torn_tails), (30, 0, 0));
    assert!(heard.progress.0 == heard.progress.1 && report.segments > 3);

    let mut shard = PlainShard::start(folder.path(), report.next);
    assert_eq!(shard.write(b"after a restart"), 31);
    shard.stop();
    let (heard, report) = replay(folder.path());
    assert_eq!((heard.frames.len(), report.missing_segments, report.is_loss()), (31, 0, false));
}

/// A write in flight when its process is killed lands after the next process has started. If that
/// one had replayed the segment by then, it gave the record's sequence to a record of its own, and
/// the replay after that took the acknowledged one for a repetition and left it out. Now a segment
/// is locked by whoever may still write to it, and replay waits.
#[test]
fn replay_waits_for_the_last_write_of_a_killed_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut killed = PlainShard::start(folder.path(), FIRST);
    killed.write(b"durable");
    let (_, operation) = killed.append(b"in flight");
    let LogOperation::WriteSync { segment, offset_bytes, buffer, .. } = operation;
    // Everything of the process is gone but the file of that write.
    let file = killed.files.remove(&segment).expect("it is written to");
    killed.files.clear();
    killed.stop();
    let (sender, replayed) = flume::bounded(1);
    let path = folder.path().to_owned();
    let next = thread::spawn(move || sender.send(replay(&path).0.frames).expect("a listener"));
    replayed.recv_timeout(Duration::from_millis(50)).expect_err("it waits for the write");
    file.write_all_at(&buffer, offset_bytes).expect("a disk that works");
    drop(file);
    let frames = replayed.recv_timeout(PATIENCE).expect("the write is over");
    assert_eq!(frames, [(1, b"durable".to_vec()), (2, b"in flight".to_vec())]);
    next.join().expect("it has told");
}

#[test]
fn a_snapshot_replaces_the_log_before_it_and_its_files_are_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut shard = PlainShard::start(folder.path(), FIRST);
    for token in 0..100 {
        shard.write(&vec![token; 100_000]);
    }
    let pieces = vec![vec![1; 3_000_000], Vec::new(), vec![2; 10], vec![3; 4 << 20]];
    shard.snapshot(&pieces);
    let position = shard.snapshot(&pieces);
    shard.write(b"behind the snapshot");
    shard.do_requests();
    shard.stop();
    let names = names(folder.path());
    let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
    assert_eq!((count("snapshot-"), count("retired-"), count("segment-")), (1, 3, 2), "{names:?}");
    let (heard, report) = replay(folder.path());
    assert!(heard.pieces == pieces);
    assert_eq!(report.snapshot, Some(position));
    assert_eq!(heard.frames, [(101, b"behind the snapshot".to_vec())]);
    assert_eq!((report.next.sequence, report.is_loss()), (102, false));

    // A recycled file still holds old records; they are not read.
    let mut shard = PlainShard::start(folder.path(), report.next);
    shard.write(b"in a recycled file");
    shard.stop();
    let (heard, report) = replay(folder.path());
    assert_eq!((heard.frames.len(), report.records_repeated, report.torn_tails), (2, 0, 0));
}

#[test]
fn a_series_of_many_samples_is_one_long_piece() {
    // A series is never split, so a backfill of a million samples made a piece above the limit of
    // 4 MiB that there was: writing it ended the process, and again after each restart.
    let folder = tempfile::tempdir().expect("a folder");
    let mut shard = PlainShard::start(folder.path(), FIRST);
    let pieces = vec![vec![1; 9 << 20], vec![2; 10]];
    shard.snapshot(&pieces);
    shard.stop();
    let (heard, report) = replay(folder.path());
    assert!(heard.pieces == pieces);
    assert!(!report.is_loss());
}

#[test]
fn damage_is_reported_and_a_damaged_snapshot_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut shard = PlainShard::start(folder.path(), FIRST);
    for token in 0..9 {
        shard.write(&vec![token; 10_000]);
    }
    shard.stop();
    let flip = |name: &str, at: u64| {
        let path = folder.path().join(name);
        let file = OpenOptions::new().read(true).write(true).open(path).expect("a file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("a byte");
        file.write_all_at(&[byte[0] ^ 1], at).expect("a byte");
    };
    flip(&segment_file_name(1), 4096 + 12_288 + 500); // The second record's frame.
    flip(&segment_file_name(1), 20); // The header block.
    let (heard, report) = replay(folder.path());
    assert_eq!((heard.frames.len(), report.records_lost, report.damaged_headers), (8, 1, 1));
    assert_eq!((report.first_lost_sequence, report.damaged), (Some(2), 1));
    assert!(report.is_loss() && report.damaged_places[0].offset_bytes == 4096 + 12_288);

    let mut shard = PlainShard::start(folder.path(), report.next);
    let position = shard.snapshot(&[vec![5; 100], vec![6; 100]]);
    shard.stop();
    let name = format!("snapshot-{:020}.snap", position.segment);
    let check = |at: u64, want: SnapshotFault| {
        flip(&name, at);
        let fault = replay_shard(folder.path(), &IDENTITY, &mut Heard::default());
        assert!(matches!(fault, Err(ReplayFault::Snapshot { fault, .. }) if fault == want), "{at}");
        flip(&name, at);
    };
    check(100, SnapshotFault::Header);
    check(4096 + 8, SnapshotFault::Piece { index: 0 });
    check(4096 + 108 + 8, SnapshotFault::Piece { index: 1 });
    check(4096 + 2, SnapshotFault::Truncated); // A length of 64 KiB more than there is.
    check(4096 + 216 + 8, SnapshotFault::Footer);
    assert_eq!(replay(folder.path()).0.pieces.len(), 2);
}

#[test]
fn a_missing_folder_is_an_answer_and_not_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let gone = folder.path().join("gone");
    let (event_sender, events) = flume::bounded(8);
    let events_in = QueueSender::new(event_sender, Arc::new(NoWake));
    let shard = Shard { folder: gone, identity: IDENTITY, events: events_in };
    let (background, sender) = Background::start(vec![shard], None, None).expect("an executor");
    let prepare = SegmentCommand::Prepare { shard: 0, segment: 1, bytes: SEGMENT_BYTES_MIN };
    sender.try_send_segment(prepare).expect("room");
    let event = events.recv_timeout(PATIENCE).expect("an answer");
    let BackgroundEvent::SegmentReady { outcome, .. } = event else { panic!("of a segment") };
    assert_eq!(outcome.map(|_| ()), Err(libc::ENOENT));
    sender.try_send_snapshot(SnapshotCommand::Begin { shard: 0, position: FIRST }).expect("room");
    let event = events.recv_timeout(PATIENCE).expect("an answer");
    assert!(matches!(event, BackgroundEvent::SnapshotFailed { errno: libc::ENOENT }));
    drop(sender);
    background.join().expect("an executor that ran");
}

#[test]
fn one_process_a_folder_and_the_same_node_at_each_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = DataFolder::open(folder.path(), 2).expect("a new folder");
    let manifest = *first.manifest();
    assert_eq!((manifest.incarnation, manifest.shards), (1, 2));
    let fault = DataFolder::open(folder.path(), 2).expect_err("it is locked");
    let pid = std::process::id();
    assert!(matches!(&fault, FolderFault::Locked { pid: Some(found), .. } if *found == pid));
    assert!(fault.to_string().contains(&format!("process {pid} has locked it")), "{fault}");
    let direct = first.probe_direct_io().expect("a disk");
    assert!(matches!(direct, DirectIo::Works | DirectIo::Refused));
    drop(first);
    let again = DataFolder::open(folder.path(), 9).expect("it is free");
    assert_eq!(*again.manifest(), manifest);
    drop(again);
    let path = folder.path().join("MANIFEST");
    let text = fs::read_to_string(&path).expect("text");
    fs::write(&path, text.replace("shards 2", "shards 3")).expect("a file");
    let fault = DataFolder::open(folder.path(), 2).expect_err("it is damaged");
    assert!(matches!(fault, FolderFault::Manifest { .. }));
    fs::remove_file(&path).expect("a file");
    DataFolder::open(folder.path(), 2).expect("no data, so it is a first start");
    fs::remove_file(&path).expect("a file");
    fs::write(folder.path().join("incarnation-1/shard-0/x.log"), "data").expect("a file");
    let fault = DataFolder::open(folder.path(), 2).expect_err("whose data is it?");
    assert!(matches!(fault, FolderFault::NoManifest { .. }));
}

#[test]
fn another_shard_count_counts_only_once_it_is_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut data = DataFolder::open(folder.path(), 1).expect("a new folder");
    let old: PathBuf = data.shard_folder(0).join("segment.log");
    fs::write(&old, "old").expect("a file");
    // A crash before the commit: the old one counts, and the remains go.
    let new = data.begin_incarnation(3).expect("folders");
    fs::write(new.shard_folder(2).join("x"), "new").expect("a file");
    fs::write(data.shard_folder(0).join("segment.tmp"), "half").expect("a file");
    drop((data, new));
    data = DataFolder::open(folder.path(), 3).expect("a folder");
    assert_eq!((data.manifest().shards, old.exists()), (1, true));
    assert_eq!(names(folder.path()), ["LOCK", "MANIFEST", "incarnation-1"]);
    assert_eq!(names(&data.shard_folder(0)), ["segment.log"]);
    let node = data.identity(0).node;
    let new = data.begin_incarnation(3).expect("folders");
    assert_eq!(new.identity(2), LogIdentity { node, incarnation: 2, shard: 2 });
    data.commit_incarnation(new).expect("a switch");
    assert_eq!((data.manifest().shards, old.exists()), (3, false));
    drop(data);
    let data = DataFolder::open(folder.path(), 3).expect("a folder");
    assert_eq!((data.manifest().incarnation, names(&data.shard_folder(2)).len()), (2, 0));
}

/// What a sync costs in a file made three ways. Run it with `cargo test --lib zero_fill
/// -- --ignored --nocapture`.
#[test]
#[ignore = "measures the disk"]
fn zero_fill_or_not() {
    let folder = tempfile::tempdir_in(".").expect("a folder");
    for name in ["sparse", "fallocate", "zeros", "recycled"] {
        let path = folder.path().join(name);
        measure::prepare(&path, name);
        let [p50, p99] = measure::syncs(&path);
        println!("{name:10} write 16 KiB + fdatasync: p50 {p50:?} p99 {p99:?}");
    }
}

mod measure {
    //! One file and many small writes, each with its sync.

    use std::os::fd::AsFd;
    use std::os::unix::fs::OpenOptionsExt;

    use nix::fcntl::{FallocateFlags, fallocate};

    use super::{File, FileExt, OpenOptions, Path, monotonic_now};
    use crate::base::bytes::AlignedBuffer;
    use crate::base::time::Duration;

    const FILE_BYTES: usize = 16 << 20;
    const WRITE_BYTES: usize = 16 << 10;

    fn block(byte: u8, len: usize) -> AlignedBuffer {
        let mut block = AlignedBuffer::with_capacity(len);
        block.extend_from_slice(&vec![byte; len]);
        block
    }

    fn open(path: &Path) -> File {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).custom_flags(libc::O_DIRECT);
        options.open(path).expect("a file system with O_DIRECT")
    }

    pub fn prepare(path: &Path, how: &str) {
        let file = open(path);
        let len = i64::try_from(FILE_BYTES).expect("small");
        if how != "sparse" {
            fallocate(file.as_fd(), FallocateFlags::empty(), 0, len).expect("room");
        }
        if how == "zeros" || how == "recycled" {
            let byte = if how == "zeros" { 0 } else { 0x5a };
            let start = monotonic_now();
            for offset in (0..FILE_BYTES).step_by(1 << 20) {
                file.write_all_at(&block(byte, 1 << 20), offset as u64).expect("a write");
            }
            file.sync_all().expect("a sync");
            println!("{how}: filling {FILE_BYTES} bytes took {:?}", start.elapsed());
        }
        file.set_len(FILE_BYTES as u64).expect("a length");
        file.sync_all().expect("a sync");
    }

    pub fn syncs(path: &Path) -> [Duration; 2] {
        let (file, block) = (open(path), block(1, WRITE_BYTES));
        let mut took: Vec<Duration> = Vec::new();
        for offset in (0..FILE_BYTES).step_by(WRITE_BYTES) {
            let start = monotonic_now();
            file.write_all_at(&block, offset as u64).expect("a write");
            file.sync_data().expect("a sync");
            took.push(start.elapsed());
        }
        took.sort_unstable();
        [took[took.len() / 2], took[took.len() * 99 / 100]]
    }
}
