//! DRIVER: the thread that keeps hints on the gateway's disk for nodes that are down, and hands
//! them out again once they are up.
//!
//! In: commands of the gateway's shards, by one bounded channel. Out: events into each shard's
//! queue. All that waits in the channel is one group per node: one write, one sync. A plain thread
//! with plain files: hints are appended and read in order, through the page cache, which is what
//! writes behind and reads ahead are made for; nobody but hints waits for this thread, and a
//! gateway has no other background. Not here: what is kept and when it goes (`gateway/hint`), and
//! what is asked of a disk (`store`).

mod complaints;
mod keeper;
mod store;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::base::queue::QueueSender;
use crate::base::ready::run_ready;
use crate::base::time::{Duration, unix_now_ms};
use crate::gateway::hint::log::{HintFigures, HintLimits, LogEvent};
use crate::model::placement::NodeId;

use super::disk::plain::PlainDisk;

pub use crate::gateway::hint::command::{HintCommand, HintEvent};
pub use store::{FoundHints, HintStore, HintStoreFault, Work};

/// Commands that one shard can have waiting. A full channel is back-pressure: the caller answers
/// 503.
const COMMANDS_PER_SHARD: usize = 256;
/// Waits are at least so long, so that a clock that jumps back makes no busy loop.
const WAIT_MS_MIN: i64 = 10;
/// And at most so long, so that one that jumps forward stops nothing.
const WAIT_MS_MAX: i64 = 5_000;

/// Where hints are kept, and how much.
#[derive(Clone, Debug)]
pub struct HintsConfig {
    /// `DIR/hints`, in a data folder that this process has locked.
    pub folder: PathBuf,
    /// How much.
    pub limits: HintLimits,
    /// What names the folder if nothing does yet.
    pub keeper_if_new: u128,
}

/// Sends commands; cheap to clone.
#[derive(Clone, Debug)]
pub struct HintSender {
    commands: flume::Sender<HintCommand>,
}

impl HintSender {
    /// Hands `command` to the thread, or back if its channel is full or it is gone. Never waits.
    #[expect(clippy::result_large_err, reason = "it is what was handed in")]
    pub fn try_send(&self, command: HintCommand) -> Result<(), HintCommand> {
        self.commands.try_send(command).map_err(flume::TrySendError::into_inner)
    }
}

/// The figures of all nodes, as of the thread's last turn. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HintBoard(Arc<Mutex<Vec<(NodeId, HintFigures)>>>);

impl HintBoard {
    /// They.
    pub fn read(&self) -> Vec<(NodeId, HintFigures)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether they are others now.
    fn write(&self, figures: Vec<(NodeId, HintFigures)>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = *known != figures;
        *known = figures;
        is_other
    }
}

/// The running thread. It ends once every `HintSender` is gone and what they sent is done.
#[derive(Debug)]
pub struct Hints {
    thread: JoinHandle<()>,
}

/// What a start gives.
#[derive(Debug)]
pub struct StartedHints {
    /// The thread.
    pub hints: Hints,
    /// Into it.
    pub sender: HintSender,
    /// Its figures.
    pub board: HintBoard,
    /// Says so when they are others; one that waits is as good as many.
    pub changes: flume::Receiver<()>,
    /// Names the folder, for ever.
    pub keeper: u128,
    /// What waited on the disk, by node.
    pub found: Vec<FoundHints>,
}

/// Why hints cannot be kept.
#[derive(Debug)]
pub enum HintsFault {
    /// What is on the disk cannot be opened.
    Store(HintStoreFault),
    /// There is no thread to be had.
    Thread(io::Error),
}

impl std::fmt::Display for HintsFault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(fault) => fault.fmt(out),
            Self::Thread(error) => write!(out, "cannot start the thread of the hints: {error}"),
        }
    }
}

impl std::error::Error for HintsFault {}

impl Hints {
    /// Opens what is there and starts the thread. `events[k]` is the queue of gateway shard `k`,
    /// with room for the answers to its appends and 8 records per node.
    pub fn start(
        config: &HintsConfig,
        events: Vec<QueueSender<HintEvent>>,
    ) -> Result<StartedHints, HintsFault> {
        let shard_count = u32::try_from(events.len()).expect("at most 1024 shards");
        let open = HintStore::open(&PlainDisk, &config.folder, config.limits, shard_count);
        let (store, found) = run_ready(open).map_err(HintsFault::Store)?;
        let keeper = keeper::keeper_of(&PlainDisk, &config.folder, config.keeper_if_new);
        let keeper = run_ready(keeper).map_err(|errno| {
            HintsFault::Store(HintStoreFault::Io { path: config.folder.clone(), errno })
        })?;
        let (sender, commands) = flume::bounded(COMMANDS_PER_SHARD * events.len());
        let board = HintBoard::default();
        board.write(store.figures());
        let (teller, changes) = flume::bounded(1);
        let turn = Turn { store, events, board: board.clone(), changes: teller };
        let thread = std::thread::Builder::new()
            .name("hints".to_owned())
            .spawn(move || turn.run(&commands))
            .map_err(HintsFault::Thread)?;
        let sender = HintSender { commands: sender };
        Ok(StartedHints { hints: Self { thread }, sender, board, changes, keeper, found })
    }

    /// Waits for the end of the thread; false if it panicked.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

struct Turn {
    store: HintStore<PlainDisk>,
    events: Vec<QueueSender<HintEvent>>,
    board: HintBoard,
    changes: flume::Sender<()>,
}

impl Turn {
    fn run(mut self, commands: &flume::Receiver<HintCommand>) {
        let mut work = Work::Done;
        loop {
            match self.wait(commands, work) {
                Ok(command) => self.store.handle(unix_now_ms(), command),
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => return,
            }
            // What came meanwhile shares the next write.
            for command in commands.try_iter().take(commands.capacity().unwrap_or(0)) {
                self.store.handle(unix_now_ms(), command);
            }
            work = run_ready(self.store.work(unix_now_ms()));
            // First: a client that is answered may ask at once.
            if self.board.write(self.store.figures()) {
                let _one_waits_already = self.changes.try_send(());
            }
            while let Some((node, event)) = self.store.poll_event() {
                self.tell(node, event);
            }
        }
    }

    fn wait(
        &self,
        commands: &flume::Receiver<HintCommand>,
        work: Work,
    ) -> Result<HintCommand, flume::RecvTimeoutError> {
        if work == Work::More {
            return commands.recv_timeout(Duration::ZERO);
        }
        let Some(at_ms) = self.store.poll_timeout_ms() else {
            return commands.recv().map_err(|_| flume::RecvTimeoutError::Disconnected);
        };
        let wait_ms = at_ms.saturating_sub(unix_now_ms()).clamp(WAIT_MS_MIN, WAIT_MS_MAX);
        commands.recv_timeout(Duration::from_millis(wait_ms.unsigned_abs()))
    }

    fn tell(&self, node: NodeId, event: LogEvent) {
        let (shard, event) = match event {
            LogEvent::Appended { ticket, outcome } => {
                (ticket.shard, HintEvent::Appended { node, ticket: ticket.number, outcome })
            }
            LogEvent::Record { shard, record } => (shard, HintEvent::Record { node, record }),
            LogEvent::Drained { shard } => (shard, HintEvent::Drained { node }),
        };
        if let Some(queue) = self.events.get(shard as usize) {
            // A shard that is gone wants no answer; its hints stay for the next start.
            let _ = queue.push_blocking(event);
        }
    }
}
