//! DRIVER: the background thread: a glommio executor with one long-lived task per job, each behind
//! a bounded channel.
//!
//! In: commands from any thread. Out: `BackgroundEvent`s to the shard that asked. Never a task per
//! request: glommio 0.9.0 leaks a little with each. Not here: the jobs (`segments`, `snapshots`).

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use glommio::{
    ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares, Task, executor,
};

use crate::base::queue::QueueSender;
use crate::base::time::Duration;
use crate::node::block::request::{BlockSelect, StoreHealth, StoreRequest};
use crate::node::log::LogIdentity;

use super::blocks::job::Jobs;
use super::blocks::plan::StoreRules;
use super::blocks::store::BlockStore;
use super::command::{BackgroundEvent, FlushCommand, SegmentCommand, SnapshotCommand};
use super::disk::direct::DirectDisk;
use super::{segments, snapshots};

/// Commands that one shard can have waiting per job: two pieces and what begins and ends a
/// snapshot, and its mirror for segments. More is refused, which no shard that keeps to the limits
/// ever sees.
const COMMANDS_PER_SHARD: usize = 8;
/// Registered memory of the executor; larger buffers come from the allocator.
const IO_MEMORY_BYTES: usize = 1 << 20;
/// Making the next segment goes before writing a snapshot: a shard may wait for it.
const SEGMENT_SHARES: usize = 800;
const SNAPSHOT_SHARES: usize = 200;
/// Blocks that cannot be opened are tried again after.
const REOPEN_AFTER: Duration = Duration::from_secs(10);
/// The thread's share where it meets a shard on a core: about a quarter.
const NICE: i32 = 5;
/// Somebody waits for a query; flushes free memory; merges can wait.
const READ_SHARES: usize = 600;
const FLUSH_SHARES: usize = 300;
const MERGE_SHARES: usize = 100;

/// Where a shard's files are, and where its answers go.
pub struct Shard {
    /// Its folder.
    pub folder: PathBuf,
    /// What its files are marked with.
    pub identity: LogIdentity,
    /// Into the shard's queue, with room for every answer to what it may have waiting (8).
    pub events: QueueSender<BackgroundEvent>,
}

/// Sends commands; one per shard, cheap to clone.
#[derive(Clone, Debug)]
pub struct BackgroundSender {
    segments: flume::Sender<SegmentCommand>,
    snapshots: flume::Sender<SnapshotCommand>,
    flushes: flume::Sender<FlushCommand>,
}

impl BackgroundSender {
    /// Hands `command` to its job, or back if the job's channel is full or the thread gone. Never
    /// waits.
    pub fn try_send_segment(&self, command: SegmentCommand) -> Result<(), SegmentCommand> {
        self.segments.try_send(command).map_err(flume::TrySendError::into_inner)
    }

    /// As `try_send_segment`, for snapshots.
    pub fn try_send_snapshot(&self, command: SnapshotCommand) -> Result<(), SnapshotCommand> {
        self.snapshots.try_send(command).map_err(flume::TrySendError::into_inner)
    }

    /// As `try_send_segment`, for flushes.
    pub fn try_send_flush(&self, command: FlushCommand) -> Result<(), FlushCommand> {
        self.flushes.try_send(command).map_err(flume::TrySendError::into_inner)
    }
}

/// The running thread. It ends once every `BackgroundSender` is gone and what they sent is done.
pub struct Background {
    thread: ExecutorJoinHandle<()>,
}

impl Background {
    /// Starts the thread for `shards`; `cpu` pins it. Without `blocks` nothing is flushed.
    pub fn start(
        shards: Vec<Shard>,
        blocks: Option<Blocks>,
        cpu: Option<usize>,
    ) -> io::Result<(Self, BackgroundSender)> {
        let capacity = COMMANDS_PER_SHARD * shards.len();
        let (segment_sender, segment_commands) = flume::bounded(capacity);
        let (snapshot_sender, snapshot_commands) = flume::bounded(capacity);
        let (flush_sender, flush_commands) = flume::bounded(capacity);
        let commands = Commands {
            segments: segment_commands,
            snapshots: snapshot_commands,
            flushes: flush_commands,
        };
        let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
        let thread = LocalExecutorBuilder::new(placement)
            .name("background")
            .io_memory(IO_MEMORY_BYTES)
            .spawn(move || async move {
                if let Err(error) = rustix::process::nice(NICE) {
                    tracing::warn!(%error, "the background runs as eagerly as shards");
                }
                run(shards, blocks, commands).await;
            })
            .map_err(io::Error::from)?;
        let sender = BackgroundSender {
            segments: segment_sender,
            snapshots: snapshot_sender,
            flushes: flush_sender,
        };
        Ok((Self { thread }, sender))
    }

    /// Waits for the end of the thread; fails if its executor could not be set up.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().map_err(io::Error::from)
    }
}

/// The blocks, and who asks for them.
pub struct Blocks {
    /// Where they lie.
    pub folder: PathBuf,
    /// Whose they are.
    pub node: u128,
    /// For pages.
    pub cache_bytes: u64,
    /// What is kept.
    pub rules: StoreRules,
    /// Told when the disk has too little room.
    pub health: Arc<StoreHealth>,
    /// Queries.
    pub selects: flume::Receiver<BlockSelect>,
    /// Everything else.
    pub requests: flume::Receiver<StoreRequest>,
}

struct Commands {
    segments: flume::Receiver<SegmentCommand>,
    snapshots: flume::Receiver<SnapshotCommand>,
    flushes: flume::Receiver<FlushCommand>,
}

async fn run(shards: Vec<Shard>, blocks: Option<Blocks>, commands: Commands) {
    let shards = Rc::new(shards);
    let Commands { segments, snapshots, flushes } = commands;
    let own = Rc::clone(&shards);
    let segment_job = spawn("segments", SEGMENT_SHARES, async move {
        segments::run(&own, segments).await;
    });
    let own = Rc::clone(&shards);
    let snapshot_job = spawn("snapshots", SNAPSHOT_SHARES, async move {
        snapshots::run(&own, snapshots).await;
    });
    if let Some(blocks) = blocks {
        run_blocks(&shards, blocks, flushes).await;
    }
    for job in [segment_job, snapshot_job].into_iter().flatten() {
        job.await;
    }
}

/// Runs the tasks of the blocks until the shards are gone. Those that answer the control plane go
/// on until it is gone too, or the process ends.
async fn run_blocks(
    shards: &Rc<Vec<Shard>>,
    blocks: Blocks,
    flushes: flume::Receiver<FlushCommand>,
) {
    let Blocks { folder, node, cache_bytes, rules, health, selects, requests } = blocks;
    let store = loop {
        match BlockStore::open(&DirectDisk, &folder, node, cache_bytes).await {
            Ok((store, _)) => break Rc::new(store),
            // They were opened a moment ago, to see what there is. Shards keep what they have.
            Err(fault) => tracing::error!("{fault}; nothing goes to blocks; trying again"),
        }
        health.set_closed(true);
        if flushes.is_disconnected() {
            return;
        }
        glommio::timer::sleep(REOPEN_AFTER).await;
    };
    health.set_closed(false);
    let jobs = Jobs::new(store, rules, health, shards.len());
    for name in ["read-0", "read-1", "read-2", "read-3"] {
        let (jobs, selects) = (Rc::clone(&jobs), selects.clone());
        detach(spawn(name, READ_SHARES, async move { jobs.run_selects(selects).await }));
    }
    for name in ["requests-0", "requests-1", "requests-2", "requests-3"] {
        let (own, requests) = (Rc::clone(&jobs), requests.clone());
        detach(spawn(name, MERGE_SHARES, async move { own.run_requests(requests).await }));
    }
    let own = Rc::clone(&jobs);
    detach(spawn("space", SEGMENT_SHARES, async move { own.run_watch().await }));
    let own = Rc::clone(&jobs);
    let upkeep = spawn("merge", MERGE_SHARES, async move { own.run_upkeep().await });
    let (own, shards) = (Rc::clone(&jobs), Rc::clone(shards));
    let flush =
        spawn("flush", FLUSH_SHARES, async move { own.run_flushes(&shards, flushes).await });
    if let Some(flush) = flush {
        flush.await;
    }
    if let Some(upkeep) = upkeep {
        // A merge may take hours, and the next start removes what it leaves.
        upkeep.cancel().await;
    }
}

fn detach(task: Option<Task<()>>) {
    if let Some(task) = task {
        task.detach();
    }
}

fn spawn(
    name: &'static str,
    shares: usize,
    job: impl Future<Output = ()> + 'static,
) -> Option<Task<()>> {
    let queue = executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name);
    let spawned = glommio::spawn_local_into(job, queue);
    if let Err(error) = &spawned {
        tracing::error!("cannot start the background job {name}: {error}");
    }
    spawned.ok()
}
