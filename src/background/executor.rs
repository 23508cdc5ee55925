//! DRIVER: the background thread: a glommio executor with one long-lived task per job, each behind
//! a bounded channel.
//!
//! In: commands from any thread. Out: `BackgroundEvent`s to the shard that asked. Never a task per
//! request: glommio 0.9.0 leaks a little with each. Not here: the jobs (`segments`, `snapshots`).

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use glommio::{
    ExecutorJoinHandle, GlommioError, Latency, LocalExecutorBuilder, Placement, Shares, executor,
};

use crate::base::queue::QueueSender;
use crate::node::log::LogIdentity;

use super::command::{BackgroundEvent, SegmentCommand, SnapshotCommand};
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
}

/// The running thread. It ends once every `BackgroundSender` is gone and what they sent is done.
pub struct Background {
    thread: ExecutorJoinHandle<()>,
}

impl Background {
    /// Starts the thread for `shards`; `cpu` pins it.
    pub fn start(shards: Vec<Shard>, cpu: Option<usize>) -> io::Result<(Self, BackgroundSender)> {
        let capacity = COMMANDS_PER_SHARD * shards.len();
        let (segment_sender, segment_commands) = flume::bounded(capacity);
        let (snapshot_sender, snapshot_commands) = flume::bounded(capacity);
        let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
        let thread = LocalExecutorBuilder::new(placement)
            .name("background")
            .io_memory(IO_MEMORY_BYTES)
            .spawn(move || async move { run(shards, segment_commands, snapshot_commands).await })
            .map_err(io::Error::from)?;
        let sender = BackgroundSender { segments: segment_sender, snapshots: snapshot_sender };
        Ok((Self { thread }, sender))
    }

    /// Waits for the end of the thread; fails if its executor could not be set up.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().map_err(io::Error::from)
    }
}

async fn run(
    shards: Vec<Shard>,
    segment_commands: flume::Receiver<SegmentCommand>,
    snapshot_commands: flume::Receiver<SnapshotCommand>,
) {
    let shards = Rc::new(shards);
    let queue = |shares, name| {
        executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name)
    };
    let (segment_queue, snapshot_queue) =
        (queue(SEGMENT_SHARES, "segments"), queue(SNAPSHOT_SHARES, "snapshots"));
    let segment_shards = Rc::clone(&shards);
    let segment_job = glommio::spawn_local_into(
        async move { segments::run(&segment_shards, segment_commands).await },
        segment_queue,
    );
    let snapshot_job = glommio::spawn_local_into(
        async move { snapshots::run(&shards, snapshot_commands).await },
        snapshot_queue,
    );
    for job in [segment_job, snapshot_job] {
        match job {
            Ok(task) => task.await,
            Err(error) => report(&error),
        }
    }
}

fn report(error: &GlommioError<()>) {
    tracing::error!("cannot start a background job: {error}");
}
