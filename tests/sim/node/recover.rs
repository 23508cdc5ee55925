//! Starts of the simulated node, as `server/recover.rs` does them: blocks, replay, and another
//! number of shards. The manifest and its incarnations are a few lines of their own here:
//! `background/folder.rs` stands on plain files.

use std::path::Path;
use std::rc::Rc;

use tidegate::background::blocks::store::StoreFault;
use tidegate::background::disk::{DISK_BLOCK_BYTES, Disk, DiskFile};
use tidegate::background::replay::{ReplayFault, ReplayReport, ReplaySink, replay};
use tidegate::background::snapshots::OpenSnapshot;
use tidegate::node::flush::FlushCourse;
use tidegate::node::head::{Head, HeadLimits, Row, SnapshotPiece};
use tidegate::node::log::{Log, LogConfig, LogIdentity, LogPosition, Record, SEGMENT_BYTES_MIN};
use tidegate::node::replay::{HeadReplay, ReplayLoss};
use tidegate::node::shard::NodeShard;
use tidegate::node::snapshot::SnapshotCourse;

use super::shard::ShardSide;
use super::shard_folder;
use super::{DATA, HOUR_MS, NODE, Rules, SHARDS_MAX, Store, World, make_folders, open_store};
use crate::drive::drive;
use crate::fake_disk::FakeDisk;

const PIECE_BYTES: usize = 2_000;

/// What a start is to make of what it finds.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// 0: as many as before.
    pub shards: usize,
    /// New ids, as if they had become scarce.
    pub are_ids_new: bool,
    /// Bits flipped: what is missing is counted, and not our mistake.
    pub may_be_damaged: bool,
}

/// The errno of a start that damage prevents.
pub const DAMAGED: i32 = libc::EBADMSG;

/// What a replayed shard is.
struct Replayed {
    head: Head,
    report: ReplayReport,
    loss: ReplayLoss,
}

struct Sink(HeadReplay);

impl ReplaySink for Sink {
    fn handle_piece(&mut self, piece: &[u8]) {
        self.0.handle_piece(piece);
    }

    fn handle_record(&mut self, record: &Record<'_>) {
        self.0.handle_record(record);
    }

    fn handle_progress(&mut self, bytes_done: u64, bytes_total: u64) {
        assert!(bytes_done <= bytes_total.max(DISK_BLOCK_BYTES as u64));
    }
}

fn identity(incarnation: u64, shard: usize) -> LogIdentity {
    LogIdentity { node: NODE, incarnation, shard: u32::try_from(shard).expect("few") }
}

fn limits(rules: &Rules) -> HeadLimits {
    HeadLimits {
        out_of_order_window_ms: rules.store.out_of_order_window_ms,
        bytes_max: rules.head_bytes_max,
    }
}

fn node_shard(
    rules: &Rules,
    head: Head,
    identity: LogIdentity,
    (start, replayed_bytes, tombstones_applied): (LogPosition, u64, u64),
) -> NodeShard {
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        buffer_bytes_max: rules.log_buffer_bytes_max,
        frame_bytes_max: rules.frame_bytes_max,
        spare_segments: 2,
        ..LogConfig::new(identity)
    };
    let log = Log::new(config, start, replayed_bytes).expect("a good configuration");
    let courses =
        (SnapshotCourse::new(rules.log_bytes_max), FlushCourse::new(HOUR_MS, tombstones_applied));
    NodeShard::new(head, log, courses, rules.store.retention_ms)
}

/// The first start, without faults.
pub fn first_start(disk: &FakeDisk, rules: &Rules, shard_count: usize) -> (Store, Vec<ShardSide>) {
    let store = drive(disk, async {
        make_folders(disk, Path::new(DATA)).await.expect("no faults");
        for shard in 0..shard_count {
            make_folders(disk, &shard_folder(1, shard)).await.expect("no faults");
        }
        write_manifest(disk, 1, shard_count).await.expect("no faults");
        open_store(disk, false).await.expect("no faults").0
    });
    let start = LogPosition { segment: 1, sequence: 1 };
    let side = |shard| {
        let identity = identity(1, shard);
        let node = node_shard(rules, Head::new(limits(rules)), identity, (start, 0, 0));
        ShardSide::new(node, shard_folder(1, shard), identity)
    };
    (Rc::new(store.expect("power")), (0..shard_count).map(side).collect())
}

async fn write_manifest(disk: &FakeDisk, incarnation: u64, shards: usize) -> Result<(), i32> {
    let mut bytes = format!("{incarnation} {shards}").into_bytes();
    bytes.resize(DISK_BLOCK_BYTES, b' ');
    let temporary = Path::new(DATA).join("MANIFEST.tmp");
    let file = disk.create(&temporary).await?;
    file.write_at(&bytes, 0).await?;
    file.sync().await?;
    disk.rename(&temporary, &Path::new(DATA).join("MANIFEST")).await?;
    disk.sync_folder(Path::new(DATA)).await
}

async fn read_manifest(disk: &FakeDisk) -> Result<(u64, usize), i32> {
    let file = disk.open(&Path::new(DATA).join("MANIFEST")).await?;
    let mut bytes = Vec::new();
    file.read_at(0, DISK_BLOCK_BYTES, &mut bytes).await?;
    let text = String::from_utf8(bytes).expect("the manifest is whole");
    let (incarnation, shards) = text.trim().split_once(' ').expect("the manifest is whole");
    Ok((incarnation.parse().expect("a number"), shards.parse().expect("a number")))
}

/// Removes other incarnations, and what is temporary.
async fn remove_remains(disk: &FakeDisk, incarnation: u64, shards: usize) -> Result<(), i32> {
    for entry in disk.list(Path::new(DATA)).await? {
        let path = Path::new(DATA).join(&entry.name);
        let is_other = entry.name != format!("incarnation-{incarnation}");
        if entry.name.starts_with("incarnation-") && is_other {
            remove_incarnation(disk, &path).await?;
        } else if entry.name.strip_suffix(".tmp").is_some() {
            disk.remove(&path).await?;
        }
    }
    for shard in 0..shards {
        let folder = shard_folder(incarnation, shard);
        for entry in disk.list(&folder).await? {
            if entry.name.strip_suffix(".tmp").is_some() {
                disk.remove(&folder.join(&entry.name)).await?;
            }
        }
    }
    Ok(())
}

async fn remove_incarnation(disk: &FakeDisk, path: &Path) -> Result<(), i32> {
    for shard in disk.list(path).await? {
        let folder = path.join(&shard.name);
        for file in disk.list(&folder).await? {
            disk.remove(&folder.join(&file.name)).await?;
        }
        disk.remove_folder(&folder).await?;
    }
    disk.remove_folder(path).await
}

impl World {
    /// The process or the power ends, and all begins anew, perhaps with other shards.
    pub fn restart(&mut self) {
        self.deleting = None;
        self.shards.clear();
        if self.disk.is_cut() || self.random.once_in(2) {
            self.disk.restore_power();
        } else {
            self.disk.keep_all();
        }
        let wanted = if self.random.once_in(3) {
            1 + self.random.below(SHARDS_MAX)
        } else {
            0 // As it is.
        };
        for attempt in 0.. {
            if attempt < 3 && self.random.once_in(4) {
                self.disk.cut_power_after(self.random.below(30));
            }
            if attempt < 3 && self.random.once_in(4) {
                self.disk.fail_one(&mut self.random);
            }
            let disk = self.disk.clone();
            let wanted = Wanted { shards: wanted, are_ids_new: false, may_be_damaged: false };
            match drive(&disk, start(&disk, &self.rules, wanted)) {
                Some(Ok(((store, shards, incarnation), _))) => {
                    (self.store, self.shards, self.incarnation) = (store, shards, incarnation);
                    break;
                }
                Some(Err(errno)) => {
                    assert!(attempt < 4, "cannot start: {errno}");
                    self.disk.keep_all();
                }
                None => self.disk.restore_power(),
            }
        }
        self.disk.heal();
        self.confirmed = self.store.newest_tombstone();
        self.settled = self.confirmed;
        let found = self.find().expect("power").expect("no faults");
        self.oracle.check(&found, "after a restart");
        self.oracle.settle(&found);
    }
}

/// Blocks, shards, the incarnation of ids.
pub type Started = (Store, Vec<ShardSide>, u64);

/// A start like all but the first; and how often damage was told.
pub async fn start(disk: &FakeDisk, rules: &Rules, wanted: Wanted) -> Result<(Started, u64), i32> {
    let Wanted { shards, are_ids_new, may_be_damaged } = wanted;
    let (incarnation, shard_count) = read_manifest(disk).await?;
    remove_remains(disk, incarnation, shard_count).await?;
    let opened = open_store(disk, may_be_damaged).await;
    let (store, mut told) = opened.map_err(|fault| match fault {
        StoreFault::Io { .. } => libc::EIO,
        _ => DAMAGED,
    })?;
    let applied = store.newest_tombstone();
    let mut replayed = Vec::new();
    for shard in 0..shard_count {
        let one = replay_one(disk, rules, (incarnation, shard), may_be_damaged).await?;
        let report = &one.report;
        let damage = report.records_lost + report.missing_segments + report.damaged;
        // At the very end of the log it looks like a write that was torn.
        told += damage + report.damaged_headers + report.torn_tails + report.records_torn;
        replayed.push(one);
    }
    let wanted = if shards == 0 { shard_count } else { shards };
    let is_other = wanted != shard_count || are_ids_new;
    let must_rebuild = is_other || replayed.iter().any(|one| one.loss.must_rebuild());
    if must_rebuild {
        let (shards, incarnation) =
            rebuild(disk, rules, (replayed, incarnation, applied), wanted).await?;
        remove_remains(disk, incarnation, wanted).await?;
        return Ok(((Rc::new(store), shards, incarnation), told));
    }
    let sides = replayed.into_iter().enumerate().map(|(shard, one)| {
        let identity = identity(incarnation, shard);
        let from = (one.report.next, one.report.segment_bytes, applied);
        let node = node_shard(rules, one.head, identity, from);
        ShardSide::new(node, shard_folder(incarnation, shard), identity)
    });
    let sides = sides.collect();
    Ok(((Rc::new(store), sides, incarnation), told))
}

async fn replay_one(
    disk: &FakeDisk,
    rules: &Rules,
    (incarnation, shard): (u64, usize),
    may_be_damaged: bool,
) -> Result<Replayed, i32> {
    let mut sink = Sink(HeadReplay::new(Head::new(limits(rules))));
    let identity = identity(incarnation, shard);
    let folder = shard_folder(incarnation, shard);
    let report =
        replay(disk, &folder, &identity, &mut sink).await.map_err(|fault| match fault {
            ReplayFault::Io { error, .. } => error.raw_os_error().expect("an errno"),
            fault => {
                assert!(may_be_damaged, "nothing was damaged: {fault}");
                DAMAGED
            }
        })?;
    let (head, loss) = sink.0.finish();
    assert!(may_be_damaged || !report.is_loss(), "{report:?}");
    assert_eq!((loss.pieces, loss.frames), (0, 0), "{loss:?}");
    Ok(Replayed { head, report, loss })
}

async fn rebuild(
    disk: &FakeDisk,
    rules: &Rules,
    (replayed, incarnation, applied): (Vec<Replayed>, u64, u64),
    wanted: usize,
) -> Result<(Vec<ShardSide>, u64), i32> {
    let mut heads: Vec<_> = (0..wanted).map(|_| Head::new(limits(rules))).collect();
    for one in replayed {
        route(&one.head, &mut heads);
    }
    let incarnation = incarnation + 1;
    let start = LogPosition { segment: 1, sequence: 1 };
    for (shard, head) in heads.iter().enumerate() {
        let folder = shard_folder(incarnation, shard);
        make_folders(disk, &folder).await?;
        let identity = identity(incarnation, shard);
        let mut snapshot = OpenSnapshot::create(disk, &folder, identity, start).await?;
        let (mut next, mut bytes) = (Row(0), Vec::new());
        while next.0 < head.row_count() {
            next = head.snapshot_piece(next, &mut bytes, PIECE_BYTES);
            bytes = snapshot.write_piece(bytes).await?;
        }
        snapshot.finish().await?;
    }
    write_manifest(disk, incarnation, wanted).await?;
    let sides = heads.into_iter().enumerate().map(|(shard, head)| {
        let identity = identity(incarnation, shard);
        let node = node_shard(rules, head, identity, (start, 0, applied));
        ShardSide::new(node, shard_folder(incarnation, shard), identity)
    });
    Ok((sides.collect(), incarnation))
}

fn route(old: &Head, heads: &mut [Head]) {
    let shard_count = u32::try_from(heads.len()).expect("few");
    let (mut next, mut bytes) = (Row(0), Vec::new());
    while next.0 < old.row_count() {
        bytes.clear();
        next = old.snapshot_piece(next, &mut bytes, PIECE_BYTES);
        let (piece, _) = SnapshotPiece::check(&bytes).expect("its own piece");
        for series in piece.iterate() {
            let series = series.expect("its own piece");
            let head = &mut heads[series.hash.slot().shard(shard_count) as usize];
            head.absorb(&series).expect("its own piece");
        }
    }
}
