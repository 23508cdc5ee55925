//! DRIVER: what is on disk -> node shards that go on from there. Blocking, on its own thread, while
//! the shards already run.
//!
//! The old shards are replayed side by side. If their number is the wanted one and nothing is
//! missing, each goes on with its own log. Else every series is routed to its new owner and the
//! whole is written as snapshots of a new incarnation, which counts from the moment that the
//! manifest names it.

use crate::background::blocks::block::block_file_name;
use crate::background::blocks::store::{BlockStore, OpenReport, StoreFault};
use crate::background::command::{BackgroundEvent, SnapshotCommand};
use crate::background::disk::plain::PlainDisk;
use crate::background::executor::{self, Background, BackgroundSender, Blocks};
use crate::background::folder::{BLOCKS_NAME, DataFolder, FolderFault};
use crate::background::replay::{ReplayFault, ReplayReport, ReplaySink, replay_shard};
use crate::base::queue::QueueSender;
use crate::base::ready::run_ready;
use crate::base::time::{Duration, Instant, monotonic_now};
use crate::control::fleet::store::PlacementFault;
use crate::control::readiness::ServerState;
use crate::node::block::request::{BlockSelect, StoreRequest};
use crate::node::flush::FlushCourse;
use crate::node::head::{Head, Row, SnapshotPiece};
use crate::node::log::{Log, LogConfig, LogIdentity, LogPosition, Record};
use crate::node::replay::{HeadReplay, ReplayLoss};
use crate::node::shard::NodeShard;
use crate::node::snapshot::SnapshotCourse;
use crate::server::rules::NodeRules;
use std::sync::Arc;
use std::{fmt, io, thread};

/// How often a long replay says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Ids that a replay with losses leaves out: more than the records of a write give.
const IDS_LOST_MAX: u32 = 1 << 20;
const REBUILD_PIECE_BYTES: usize = 1 << 20;
/// Segments ready ahead: one thread makes those of all shards, a snapshot takes one at its
/// beginning, and a fast shard fills one in less time than the next takes to be made.
const SPARE_SEGMENTS: u32 = 2;

/// Node shards in order, the thread that serves them, and the way to it.
pub struct Recovered {
    /// One per shard.
    pub nodes: Vec<NodeShard>,
    /// Lives until the shards are done with it.
    pub background: Background,
    /// For the shards.
    pub sender: BackgroundSender,
}

/// The ends of the queues to the blocks.
pub struct BlockQueues {
    /// Questions of queries.
    pub selects: flume::Receiver<BlockSelect>,
    /// Everything else.
    pub requests: flume::Receiver<StoreRequest>,
}

/// Why the data folder cannot be served.
#[derive(Debug)]
pub enum RecoverFault {
    /// A log or snapshot cannot be read.
    Replay(ReplayFault),
    /// The folder cannot be written.
    Folder(FolderFault),
    /// The blocks cannot be read.
    Blocks(StoreFault),
    /// The background thread did not start, or ended.
    Background(io::Error),
    /// A snapshot of the new incarnation could not be written.
    Snapshot(io::Error),
    /// The port for reads could not be opened.
    ReadPort(io::Error),
    /// The placement that the node keeps.
    Placement(PlacementFault),
    /// A replayed head does not read its own snapshot: our mistake, and nothing on disk is touched.
    Rebuild,
}

impl fmt::Display for RecoverFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replay(fault) => fault.fmt(out),
            Self::Folder(fault) => fault.fmt(out),
            Self::Blocks(fault) => fault.fmt(out),
            Self::Background(error) => write!(out, "cannot run the background thread: {error}"),
            Self::Snapshot(error) => {
                write!(out, "cannot write the data for the new shards: {error}; the old is kept")
            }
            Self::ReadPort(error) => write!(out, "cannot open the port for reads: {error}"),
            Self::Placement(fault) => fault.fmt(out),
            Self::Rebuild => {
                write!(out, "cannot route the data to the new shards; the old is kept")
            }
        }
    }
}

struct Replayed {
    head: Head,
    report: ReplayReport,
    loss: ReplayLoss,
}

/// Brings back what `folder` holds. `events` are the queues of the shards, in order.
pub fn recover(
    folder: &mut DataFolder,
    rules: &NodeRules,
    state: &Arc<ServerState>,
    (events, blocks): (&[QueueSender<BackgroundEvent>], BlockQueues),
) -> Result<Recovered, RecoverFault> {
    let began = monotonic_now();
    let (blocks, tombstones_applied) = open_blocks(folder, rules, state, blocks)?;
    let rules = &NodeRules { tombstones_applied, ..*rules };
    let replayed = replay_all(folder, rules, state)?;
    let records: u64 = replayed.iter().map(|shard| shard.report.records).sum();
    let series: u64 = replayed.iter().map(|shard| u64::from(shard.head.series_count())).sum();
    let log_bytes: u64 = replayed.iter().map(|shard| shard.report.file_bytes).sum();
    let seconds = monotonic_now().duration_since(began).as_secs_f64();
    tracing::info!(records, series, log_bytes, seconds, "replayed the log");
    for (shard, one) in (0u32..).zip(&replayed) {
        tell_damage(shard, one);
    }
    let must_rebuild = folder.manifest().shards != rules.shard_count
        || replayed.iter().any(|one| one.loss.must_rebuild() || one.head.are_ids_scarce());
    if must_rebuild {
        return rebuild(folder, rules, replayed, (events, blocks));
    }
    let identities: Vec<_> = (0..rules.shard_count).map(|shard| folder.identity(shard)).collect();
    let (background, sender) =
        start_background(&identities, events, Some(blocks), |shard| folder.shard_folder(shard))?;
    let nodes = replayed.into_iter().zip(&identities).map(|(one, identity)| {
        // Whole files, used or not: each start begins a new one, so a server that is restarted
        // often and writes little would otherwise never come to a snapshot, and keep them all.
        node_shard(rules, one.head, *identity, (one.report.next, one.report.segment_bytes))
    });
    Ok(Recovered { nodes: nodes.collect(), background, sender })
}

/// Looks at the blocks there are, and tells what is wrong with them. Returns what the background is
/// given to serve them, and the newest deletion.
fn open_blocks(
    folder: &DataFolder,
    rules: &NodeRules,
    state: &Arc<ServerState>,
    queues: BlockQueues,
) -> Result<(Blocks, u64), RecoverFault> {
    let (path, node) = (folder.path().join(BLOCKS_NAME), folder.manifest().node);
    let opened = run_ready(BlockStore::open(&PlainDisk, &path, node, 0));
    let (store, report) = opened.map_err(RecoverFault::Blocks)?;
    let newest_tombstone = store.newest_tombstone();
    state.store().set_blocks_lost((report.missing.len() + report.set_aside.len()) as u64);
    if report.list_rebuilt {
        tracing::error!(
            "blocks/BLOCKS was damaged or gone: made anew of the blocks that are there; samples \
             that were deleted and not merged since may be back"
        );
    }
    for (file, fault) in &report.set_aside {
        tracing::error!(file, %fault, "set aside in blocks/aside: not a block that can be read");
    }
    if !report.missing.is_empty() {
        let files: Vec<_> = report.missing.iter().map(|id| block_file_name(*id)).collect();
        tracing::error!(?files, "blocks are missing, and their samples with them");
    }
    let OpenReport { blocks, adopted, removed, .. } = report;
    tracing::info!(blocks, ?adopted, ?removed, "opened the blocks");
    let blocks = Blocks {
        folder: path,
        node,
        cache_bytes: rules.block_cache_bytes,
        rules: rules.store,
        health: Arc::clone(state.store()),
        selects: queues.selects,
        requests: queues.requests,
    };
    Ok((blocks, newest_tombstone))
}

fn replay_all(
    folder: &DataFolder,
    rules: &NodeRules,
    state: &Arc<ServerState>,
) -> Result<Vec<Replayed>, RecoverFault> {
    let limits = rules.head;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..folder.manifest().shards)
            .map(|shard| {
                let (path, identity) = (folder.shard_folder(shard), folder.identity(shard));
                scope.spawn(move || {
                    let replay = HeadReplay::new(Head::new(limits));
                    let mut sink = Sink {
                        replay,
                        state,
                        shard,
                        done_bytes: 0,
                        total_bytes: 0,
                        told_at: monotonic_now(),
                    };
                    let report = replay_shard(&path, &identity, &mut sink)?;
                    let (mut head, loss) = sink.replay.finish();
                    if report.is_loss() {
                        // What is lost may have given ids that somebody still knows.
                        head.set_next_id(head.next_id().saturating_add(IDS_LOST_MAX));
                    }
                    Ok(Replayed { head, report, loss })
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("replay does not panic"))
            .collect::<Result<_, _>>()
            .map_err(RecoverFault::Replay)
    })
}

/// Feeds a head and tells the world how far it is.
struct Sink<'a> {
    replay: HeadReplay,
    state: &'a ServerState,
    shard: u32,
    done_bytes: u64,
    total_bytes: u64,
    told_at: Instant,
}

impl ReplaySink for Sink<'_> {
    fn handle_piece(&mut self, piece: &[u8]) {
        self.replay.handle_piece(piece);
    }

    fn handle_record(&mut self, record: &Record<'_>) {
        self.replay.handle_record(record);
    }

    fn handle_progress(&mut self, bytes_done: u64, bytes_total: u64) {
        self.state.add_replay_total(bytes_total.saturating_sub(self.total_bytes));
        self.state.add_replay_done(bytes_done.saturating_sub(self.done_bytes));
        (self.done_bytes, self.total_bytes) = (bytes_done, bytes_total);
        let now = monotonic_now();
        if now.duration_since(self.told_at) >= TELL_EVERY {
            self.told_at = now;
            tracing::info!(shard = self.shard, bytes_done, bytes_total, "replaying");
        }
    }
}

fn tell_damage(shard: u32, one: &Replayed) {
    let Replayed { report, loss, .. } = one;
    if report.torn_tails > 0 {
        let (tails, records) = (report.torn_tails, report.records_torn);
        tracing::info!(
            shard,
            tails,
            records,
            "the log ends in a torn write, as a crash leaves it; nothing acknowledged is in it"
        );
    }
    match verdict(report, loss) {
        Verdict::Whole => {}
        Verdict::Torn => tracing::warn!(
            shard,
            damaged = report.damaged,
            places = ?report.damaged_places,
            ?loss,
            "the last write before a crash arrived in parts; \
             nothing known to be acknowledged is missing"
        ),
        Verdict::Lost => tracing::error!(
            shard,
            records_lost = report.records_lost,
            missing_segments = report.missing_segments,
            damaged = report.damaged,
            places = ?report.damaged_places,
            ?loss,
            "the log is damaged: what could be read was kept, the rest is lost"
        ),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing is missing, but perhaps the end of a last write.
    Whole,
    /// What is missing was in flight at a crash: a disk may write the blocks of one write in any
    /// order.
    Torn,
    /// Something acknowledged is gone.
    Lost,
}

fn verdict(report: &ReplayReport, loss: &ReplayLoss) -> Verdict {
    if report.is_loss() || loss.pieces > 0 || loss.frames > 0 {
        Verdict::Lost
    } else if report.damaged > 0 || *loss != ReplayLoss::default() {
        // Samples of unknown series too: whoever named them came behind their registration in the
        // same write.
        Verdict::Torn
    } else {
        Verdict::Whole
    }
}

fn start_background(
    identities: &[LogIdentity],
    events: &[QueueSender<BackgroundEvent>],
    blocks: Option<Blocks>,
    folder: impl Fn(u32) -> std::path::PathBuf,
) -> Result<(Background, BackgroundSender), RecoverFault> {
    let shards = (0u32..).zip(identities).zip(events);
    let shards = shards
        .map(|((shard, identity), events)| executor::Shard {
            folder: folder(shard),
            identity: *identity,
            events: events.clone(),
        })
        .collect();
    Background::start(shards, blocks, None).map_err(RecoverFault::Background)
}

fn node_shard(
    rules: &NodeRules,
    head: Head,
    identity: LogIdentity,
    (start, replayed_bytes): (LogPosition, u64),
) -> NodeShard {
    let config = LogConfig {
        segment_bytes: rules.segment_bytes,
        spare_segments: SPARE_SEGMENTS,
        ..LogConfig::new(identity)
    };
    let log = Log::new(config, start, replayed_bytes).expect("checked with the configuration");
    let window_ms = rules.head.out_of_order_window_ms;
    let courses = (
        SnapshotCourse::new(rules.log_bytes_max),
        FlushCourse::new(window_ms, rules.tombstones_applied),
    );
    NodeShard::new(head, log, courses, rules.retention_ms)
}

/// Routes every series to its owner among the wanted shards, and makes that a new incarnation.
fn rebuild(
    folder: &mut DataFolder,
    rules: &NodeRules,
    replayed: Vec<Replayed>,
    (events, blocks): (&[QueueSender<BackgroundEvent>], Blocks),
) -> Result<Recovered, RecoverFault> {
    let shards = (folder.manifest().shards, rules.shard_count);
    tracing::info!(from = shards.0, to = shards.1, "writing the data anew for other shards");
    let mut heads: Vec<_> = (0..rules.shard_count).map(|_| Head::new(rules.head)).collect();
    for one in replayed {
        route(&one.head, &mut heads)?;
    }
    let new = folder.begin_incarnation(rules.shard_count).map_err(RecoverFault::Folder)?;
    let identities: Vec<_> = (0..rules.shard_count).map(|shard| new.identity(shard)).collect();
    let start = LogPosition { segment: 1, sequence: 1 };
    // Answers of this background come here, not to the shards; theirs is another one.
    let (answers, receiver) = flume::bounded(64);
    let queue = QueueSender::new(answers, Arc::new(Awake));
    let queues = vec![queue; heads.len()];
    let (background, sender) =
        start_background(&identities, &queues, None, |shard| new.shard_folder(shard))?;
    for (shard, head) in (0u32..).zip(&heads) {
        write_snapshot(shard, head, start, (&sender, &receiver))?;
    }
    drop(sender);
    background.join().map_err(RecoverFault::Background)?;
    folder.commit_incarnation(new).map_err(RecoverFault::Folder)?;
    let (background, sender) =
        start_background(&identities, events, Some(blocks), |shard| folder.shard_folder(shard))?;
    let nodes = heads.into_iter().zip(identities);
    let nodes = nodes.map(|(head, identity)| node_shard(rules, head, identity, (start, 0)));
    Ok(Recovered { nodes: nodes.collect(), background, sender })
}

/// The receiver of a rebuild's answers blocks on its channel: nobody has to be woken.
struct Awake;

impl crate::base::queue::Wake for Awake {
    fn wake(&self) {}
}

fn route(old: &Head, heads: &mut [Head]) -> Result<(), RecoverFault> {
    let shard_count = u32::try_from(heads.len()).expect("shards are counted in u32");
    let mut next = Row(0);
    let mut bytes = Vec::new();
    while next.0 < old.row_count() {
        bytes.clear();
        next = old.snapshot_piece(next, &mut bytes, REBUILD_PIECE_BYTES);
        let (piece, _) = SnapshotPiece::check(&bytes).map_err(|_| RecoverFault::Rebuild)?;
        for series in piece.iterate() {
            let series = series.map_err(|_| RecoverFault::Rebuild)?;
            let head = &mut heads[series.hash.slot().shard(shard_count) as usize];
            head.absorb(&series).map_err(|_| RecoverFault::Rebuild)?;
        }
    }
    Ok(())
}

fn write_snapshot(
    shard: u32,
    head: &Head,
    position: LogPosition,
    (sender, answers): (&BackgroundSender, &flume::Receiver<BackgroundEvent>),
) -> Result<(), RecoverFault> {
    let gone = || RecoverFault::Background(io::ErrorKind::BrokenPipe.into());
    let send = |command| sender.try_send_snapshot(command).map_err(|_| gone());
    send(SnapshotCommand::Begin { shard, position })?;
    let mut next = Row(0);
    let mut bytes = Vec::new();
    while next.0 < head.row_count() {
        next = head.snapshot_piece(next, &mut bytes, REBUILD_PIECE_BYTES);
        send(SnapshotCommand::Piece { shard, bytes: std::mem::take(&mut bytes) })?;
        bytes = match answers.recv().map_err(|_| gone())? {
            BackgroundEvent::SnapshotPieceWritten { bytes } => bytes,
            event => return Err(snapshot_fault(&event)),
        };
        bytes.clear();
    }
    send(SnapshotCommand::End { shard })?;
    match answers.recv().map_err(|_| gone())? {
        BackgroundEvent::SnapshotDone => Ok(()),
        event => Err(snapshot_fault(&event)),
    }
}

fn snapshot_fault(event: &BackgroundEvent) -> RecoverFault {
    let errno = match event {
        BackgroundEvent::SnapshotFailed { errno } => *errno,
        _ => libc::EIO,
    };
    RecoverFault::Snapshot(io::Error::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::background::replay::replay_shard;

    struct Nothing;

    impl ReplaySink for Nothing {
        fn handle_piece(&mut self, _: &[u8]) {}
        fn handle_record(&mut self, _: &Record<'_>) {}
        fn handle_progress(&mut self, _: u64, _: u64) {}
    }

    /// A write whose blocks reached the disk out of order leaves a damaged record with whole ones
    /// behind it. That was called a loss, at the level of an alarm, although nothing of it had been
    /// acknowledged.
    #[test]
    fn an_alarm_means_that_something_acknowledged_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = LogIdentity { node: 1, incarnation: 1, shard: 0 };
        let empty = replay_shard(folder.path(), &identity, &mut Nothing).expect("an empty folder");
        let none = ReplayLoss::default();
        assert_eq!(verdict(&empty, &none), Verdict::Whole);
        let torn = ReplayReport { torn_tails: 1, records_torn: 3, ..empty.clone() };
        assert_eq!(verdict(&torn, &none), Verdict::Whole);
        let torn = ReplayReport { damaged: 1, ..torn };
        assert_eq!(verdict(&torn, &none), Verdict::Torn);
        let unknown = ReplayLoss { samples_of_unknown_series: 9, moved_ids: 2, ..none };
        assert_eq!(verdict(&torn, &unknown), Verdict::Torn);
        assert_eq!(verdict(&torn, &ReplayLoss { frames: 1, ..none }), Verdict::Lost);
        assert_eq!(verdict(&ReplayReport { records_lost: 1, ..torn }, &none), Verdict::Lost);
        assert_eq!(verdict(&ReplayReport { missing_segments: 1, ..empty }, &none), Verdict::Lost);
    }
}
