//! The course of the process that all of its threads see: running, draining, over. Never on the way
//! of a sample.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Shared by every thread of the process.
#[derive(Debug)]
pub struct Life {
    is_draining: AtomicBool,
    busy_shards: AtomicU32,
    running_shards: AtomicU32,
}

impl Life {
    /// A process with `shard_count` running shards.
    pub fn new(shard_count: u32) -> Self {
        Self {
            is_draining: AtomicBool::new(false),
            busy_shards: AtomicU32::new(shard_count),
            running_shards: AtomicU32::new(shard_count),
        }
    }

    /// No new requests from now on; what was accepted is answered. The shards see it at their next
    /// tick.
    pub fn begin_drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    /// Whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// A draining shard has answered everything that it accepted, and accepts nothing more. Once
    /// per shard.
    pub fn shard_quiet(&self) {
        self.busy_shards.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether no shard has an open request, so that none can have work for another.
    pub fn all_quiet(&self) -> bool {
        self.busy_shards.load(Ordering::SeqCst) == 0
    }

    /// A shard's thread ends.
    pub fn shard_ended(&self) {
        self.running_shards.fetch_sub(1, Ordering::SeqCst);
    }
}
