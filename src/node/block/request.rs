//! What the control plane asks of the blocks, and what it hears back. The blocks live on the
//! background's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::BlockMeta;
use super::tombstone::Tombstone;
use crate::wire::select::{SelectAnswer, SelectRequest};

/// A query's question to the blocks.
pub struct BlockSelect {
    /// What to look for.
    pub request: Arc<SelectRequest>,
    /// Bounded: the reader waits for room, and ends when nobody wants the rest. What comes first
    /// wins at equal timestamps; samples that memory has win over all of it.
    pub reply: flume::Sender<SelectAnswer>,
}

/// Everything else. Each answer fits into its channel; a channel that closes without one means that
/// the process ends.
pub enum StoreRequest {
    /// Write a deletion down; blocks hide what it names from now on. Its id is given by the store.
    Delete {
        /// What; its id does not count.
        tombstone: Tombstone,
        /// The deletion with its id.
        reply: flume::Sender<Result<Tombstone, StoreRefusal>>,
    },
    /// Every shard has logged the deletions up to this one.
    Deleted {
        /// It.
        tombstone: u64,
    },
    /// Write the blocks that hold something deleted anew; answers how many.
    CleanTombstones {
        /// Blocks written.
        reply: flume::Sender<Result<u64, StoreRefusal>>,
    },
    /// Merge whatever can be merged; answers how many merges there were.
    Compact {
        /// Merges.
        reply: flume::Sender<Result<u64, StoreRefusal>>,
    },
    /// A second name for each block, under `snapshots/<name>` of the data folder.
    Snapshot {
        /// The folder's name.
        name: String,
        /// The folder's path.
        reply: flume::Sender<Result<String, StoreRefusal>>,
    },
    /// What there is.
    Report {
        /// It.
        reply: flume::Sender<Box<StoreReport>>,
    },
}

/// What everybody must know of the disk and the blocks at once. Atomics, no lock.
#[derive(Debug, Default)]
pub struct StoreHealth {
    disk_low: AtomicBool,
    blocks_lost: AtomicU64,
    closed: AtomicBool,
}

impl StoreHealth {
    /// Whether less than `disk_free_min` is free: samples are refused until there is more.
    pub fn set_disk_low(&self, is_low: bool) {
        self.disk_low.store(is_low, Ordering::Release);
    }

    /// See [`StoreHealth::set_disk_low`].
    pub fn is_disk_low(&self) -> bool {
        self.disk_low.load(Ordering::Acquire)
    }

    /// Whether the blocks cannot be opened: memory and log keep what comes.
    pub fn set_closed(&self, is_closed: bool) {
        self.closed.store(is_closed, Ordering::Release);
    }

    /// See [`StoreHealth::set_closed`].
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// So many blocks are damaged or missing: answers may lack samples.
    pub fn set_blocks_lost(&self, count: u64) {
        self.blocks_lost.store(count, Ordering::Release);
    }

    /// See [`StoreHealth::set_blocks_lost`].
    pub fn blocks_lost(&self) -> u64 {
        self.blocks_lost.load(Ordering::Acquire)
    }
}

/// Why the store did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreRefusal {
    /// The disk (errno).
    Disk { errno: i32 },
    /// So many deletions wait for merges already.
    TooManyTombstones { max: usize },
    /// Merges that somebody else asked for are under way.
    Busy,
}

impl std::fmt::Display for StoreRefusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disk { errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(out, "cannot write to the blocks: {error}")
            }
            Self::TooManyTombstones { max } => write!(
                out,
                "cannot delete: {max} deletions wait already; POST \
                 /api/v1/admin/tsdb/clean_tombstones applies them"
            ),
            Self::Busy => out.write_str(
                "cannot merge: merges that were asked for are under way; try again when they are \
                 done",
            ),
        }
    }
}

/// What the store has and did since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// Every block and its file's length.
    pub blocks: Vec<(BlockMeta, u64)>,
    /// Deletions that some block has not applied.
    pub tombstones: u64,
    /// Files put aside: damaged, or not ours.
    pub set_aside: u64,
    /// Blocks that were listed and are gone.
    pub missing: Vec<u64>,
    /// Merges done.
    pub merges: u64,
    /// Merges, retention and the like that the disk refused.
    pub failures: u64,
    /// Blocks deleted because they were too old or too much.
    pub retired: u64,
    /// Selects answered.
    pub selects: u64,
    /// Selects that the disk did not answer.
    pub selects_failed: u64,
    /// Pages found in the cache.
    pub cache_hits: u64,
    /// Pages read.
    pub cache_misses: u64,
    /// Bytes of pages in memory.
    pub cache_bytes: u64,
    /// Free on the disk.
    pub disk_free_bytes: u64,
}
