//! A small data folder with a block or more, a log of two segments and a snapshot of a head, all
//! written by the code that a server uses.

use std::fs;
use std::path::{Path, PathBuf};

use rkyv::util::AlignedVec;
use tempfile::TempDir;

use crate::background::blocks::block::{BlockSink, block_file_name};
use crate::background::blocks::list::BlockList;
use crate::background::disk::plain::PlainDisk;
use crate::background::folder::{MANIFEST_NAME, Manifest};
use crate::background::snapshot_format::{PieceTally, SnapshotHeader, snapshot_file_name};
use crate::base::ready::run_ready;
use crate::model::chunk::BlockEncoder;
use crate::model::labels::encode_label;
use crate::model::refusal::Refusal;
use crate::model::series::{SeriesHash, SeriesId, TenantId};
use crate::node::block::writer::BlockOrigin;
use crate::node::head::{Head, HeadLimits, Row};
use crate::node::log::{
    Log, LogConfig, LogIdentity, LogOperation, LogPosition, SEGMENT_BYTES_MIN, SegmentHeader,
    segment_file_name,
};
use crate::wire::write::WritePayload;

pub const NODE: u128 = 77;
const IDENTITY: LogIdentity = LogIdentity { node: NODE, incarnation: 1, shard: 0 };
/// Samples in all files of `Data::new`: 2 blocks, the head, the log.
pub const SAMPLES: u64 = 2 * BLOCK_SAMPLES + HEAD_SAMPLES + LOG_SAMPLES;
pub const BLOCK_SAMPLES: u64 = 5 * 40;
const HEAD_SAMPLES: u64 = 30 * 100;
const LOG_SAMPLES: u64 = 3 * 10;
/// Offsets of the three records' groups: each has its own.
pub const GROUPS: [u64; 3] = [4096, 8192, 12288];

pub struct Data {
    pub folder: TempDir,
}

fn labels(number: u64) -> Vec<u8> {
    let mut labels = Vec::new();
    encode_label(&mut labels, b"__name__", b"temperature");
    encode_label(&mut labels, b"room", format!("{number:04}").as_bytes());
    labels
}

impl Data {
    /// Blocks 1 and 2, a head snapshot at segment 1, and the log from there: record 1 to 3.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = Self { folder };
        write_backup(data.path(), NODE, &[1, 2]);
        let shard = data.shard();
        fs::create_dir_all(&shard).expect("a folder");
        fs::write(data.path().join("LOCK"), "1\n").expect("a file");
        write_head(&shard, 1);
        write_log(&shard);
        data
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn shard(&self) -> PathBuf {
        self.path().join("incarnation-1/shard-0")
    }

    pub fn block(&self, id: u64) -> PathBuf {
        self.path().join("blocks").join(block_file_name(id))
    }

    pub fn list(&self) -> PathBuf {
        self.path().join("blocks/BLOCKS")
    }

    pub fn segment(&self, segment: u64) -> PathBuf {
        self.shard().join(segment_file_name(segment))
    }

    pub fn head(&self) -> PathBuf {
        self.shard().join(snapshot_file_name(1))
    }
}

/// What a backup or a snapshot consists of.
pub fn write_backup(folder: &Path, node: u128, blocks: &[u64]) {
    fs::create_dir_all(folder.join("blocks")).expect("a folder");
    let manifest = Manifest { node, incarnation: 1, shards: 1 };
    fs::write(folder.join(MANIFEST_NAME), manifest.encode()).expect("a file");
    for id in blocks {
        write_block(folder, node, *id, Vec::new());
    }
    write_list(folder, node, blocks);
}

pub fn write_list(folder: &Path, node: u128, blocks: &[u64]) {
    let next_block = blocks.iter().max().map_or(1, |last| last + 1);
    let list = BlockList { next_block, blocks: blocks.to_vec(), ..BlockList::new(node) };
    // As the store writes it: whole 4096s.
    let mut text = list.encode().into_bytes();
    text.resize(4096, b' ');
    fs::write(folder.join("blocks/BLOCKS"), text).expect("a file");
}

/// Block `id`, whose samples tell it from others.
pub fn write_block(folder: &Path, node: u128, id: u64, sources: Vec<u64>) {
    let origin = BlockOrigin {
        id,
        node,
        level: 0,
        oldest_flush: id,
        newest_flush: id,
        tombstones_applied: 0,
        sources,
    };
    let blocks = folder.join("blocks");
    let sink = BlockSink::create(&PlainDisk, &blocks, origin);
    let mut sink = run_ready(sink).expect("a disk that works");
    let mut encoder = BlockEncoder::default();
    for number in 0..5 {
        let times: Vec<i64> = (0..40).map(|step| 1_000_000 + step * 10_000).collect();
        let values: Vec<f64> = (0..40).map(|step| f64::from(step * 7 % 11) + id as f64).collect();
        let columns = encoder.encode(&times, &values);
        run_ready(sink.add_series(TenantId(0), &labels(number), [columns])).expect("a disk");
    }
    run_ready(sink.finish()).expect("a disk that works").expect("there are series");
}

fn write_head(shard: &Path, segment: u64) {
    let limits = HeadLimits { out_of_order_window_ms: 0, bytes_max: 1 << 30 };
    let mut head = Head::new(limits);
    for number in 0..30 {
        let labels = labels(number);
        let hash = SeriesHash::of(TenantId(0), &labels);
        let id = head.register(TenantId(0), hash, &labels).expect("room");
        for step in 0..100_i64 {
            let timestamp_ms = 2_000_000 + step * 10_000;
            head.replay(&[id.0], &[timestamp_ms], &[step as f64], &[]);
        }
    }
    let position = LogPosition { segment, sequence: 1 };
    let mut file = SnapshotHeader { identity: IDENTITY, position }.encode().to_vec();
    let mut tally = PieceTally::default();
    let mut next = Row(0);
    while next.0 < head.row_count() {
        let mut piece = Vec::new();
        next = head.snapshot_piece(next, &mut piece, 4000);
        file.extend_from_slice(&tally.encode_head(&piece));
        file.extend_from_slice(&piece);
    }
    file.extend_from_slice(&tally.encode_footer());
    file.resize(file.len().next_multiple_of(4096), 0);
    fs::write(shard.join(snapshot_file_name(segment)), file).expect("a file");
}

/// Three records in segment 1, each durable before the next; segment 2 waits.
fn write_log(shard: &Path) {
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        buffer_bytes_max: 512 << 10,
        frame_bytes_max: 128 << 10,
        ..LogConfig::new(IDENTITY)
    };
    let start = LogPosition { segment: 1, sequence: 1 };
    let mut log = Log::new(config, start, 0).expect("a good configuration");
    log.poll_segment_request().expect("the first segment");
    log.handle_segment_ready(1, Ok(()));
    let mut files = [new_segment(1), new_segment(2)];
    for number in 0..3_u32 {
        let labels = labels(100 + u64::from(number));
        let hash = SeriesHash::of(TenantId(0), &labels);
        let mut payload = WritePayload::default();
        let new = payload.push_new_series(TenantId(0), hash, &labels);
        for step in 0..10 {
            payload.series.push(new);
            payload.timestamp_ms.push(3_000_000 + step * 1000);
            payload.value.push(f64::from(number));
        }
        let frame = payload.encode_frame((u64::from(number), 0), 0, AlignedVec::new());
        let ids: [Result<SeriesId, Refusal>; 1] = [Ok(SeriesId(30 + number))];
        log.append(&frame, &ids, &[]).expect("room");
        let operation = log.poll_operation().expect("something gathered");
        let LogOperation::WriteSync { offset_bytes, buffer, .. } = operation;
        assert_eq!(offset_bytes, GROUPS[number as usize]);
        let at = usize::try_from(offset_bytes).expect("small");
        files[0][at..at + buffer.len()].copy_from_slice(&buffer);
        log.handle_written(buffer, Ok(()));
    }
    for (segment, bytes) in (1..).zip(files) {
        fs::write(shard.join(segment_file_name(segment)), bytes).expect("a file");
    }
}

pub fn new_segment(segment: u64) -> Vec<u8> {
    let header = SegmentHeader { identity: IDENTITY, segment, segment_bytes: SEGMENT_BYTES_MIN };
    let mut bytes = header.encode().to_vec();
    bytes.resize(usize::try_from(SEGMENT_BYTES_MIN).expect("small"), 0);
    bytes
}

/// Every file below `folder` with its bytes, by its path below it.
pub fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("a file");
                let below = path.strip_prefix(folder).expect("below it").to_path_buf();
                found.push((below, bytes));
            }
        }
    }
    found.sort();
    found
}
