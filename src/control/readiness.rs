//! Whether clients should come: what shards and shutdown say about it, read by `/-/ready`. Atomics,
//! no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::node::block::request::StoreHealth;

const REPLAYING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;
const NO_FLEET: u8 = 3;

/// The process' state, shared by every thread. Starts as replaying nothing.
#[derive(Debug)]
pub struct ServerState {
    phase: AtomicU8,
    replay_done_bytes: AtomicU64,
    replay_total_bytes: AtomicU64,
    log_failed: Box<[AtomicBool]>,
    store: Arc<StoreHealth>,
}

/// What [`ServerState`] says at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Logs are being read; samples are refused, queries would miss some.
    Replaying {
        /// Read so far, all shards together.
        done_bytes: u64,
        /// To be read, as far as is known.
        total_bytes: u64,
    },
    /// A gateway that no node has told which nodes there are.
    NoFleet,
    /// All is well.
    Ready,
    /// The process shuts down.
    Draining,
    /// Less than `disk_free_min` is free: samples are refused, queries answered.
    DiskLow,
    /// These shards' logs failed: they take nothing until a restart.
    LogFailed {
        /// In order.
        shards: Vec<usize>,
    },
}

impl ServerState {
    /// The state of a process of `shard_count` shards that just started.
    pub fn new(shard_count: usize) -> Self {
        Self {
            phase: AtomicU8::new(REPLAYING),
            replay_done_bytes: AtomicU64::new(0),
            replay_total_bytes: AtomicU64::new(0),
            store: Arc::default(),
            log_failed: (0..shard_count).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// A shard found `bytes` of log to read.
    pub fn add_replay_total(&self, bytes: u64) {
        self.replay_total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A shard read `bytes` of log.
    pub fn add_replay_done(&self, bytes: u64) {
        self.replay_done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// This process has no log: it waits for what nodes say. To be said before anything else.
    pub fn set_no_fleet(&self) {
        self.phase.store(NO_FLEET, Ordering::Release);
    }

    /// Every shard has replayed, or there is a fleet. Does nothing once draining.
    pub fn set_ready(&self) {
        for before in [REPLAYING, NO_FLEET] {
            let _was_another =
                self.phase.compare_exchange(before, READY, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// The process shuts down; there is no way back.
    pub fn set_draining(&self) {
        self.phase.store(DRAINING, Ordering::Release);
    }

    /// The log of `shard` failed.
    pub fn set_log_failed(&self, shard: usize) {
        self.log_failed[shard].store(true, Ordering::Release);
    }

    /// The disk and the blocks.
    pub fn store(&self) -> &Arc<StoreHealth> {
        &self.store
    }

    /// What is the matter, the worst first.
    pub fn readiness(&self) -> Readiness {
        match self.phase.load(Ordering::Acquire) {
            DRAINING => return Readiness::Draining,
            NO_FLEET => return Readiness::NoFleet,
            REPLAYING => {
                return Readiness::Replaying {
                    done_bytes: self.replay_done_bytes.load(Ordering::Relaxed),
                    total_bytes: self.replay_total_bytes.load(Ordering::Relaxed),
                };
            }
            _ => {}
        }
        let failed = |shard: &usize| self.log_failed[*shard].load(Ordering::Acquire);
        let shards: Vec<_> = (0..self.log_failed.len()).filter(failed).collect();
        match shards.is_empty() {
            false => Readiness::LogFailed { shards },
            true if self.store.is_disk_low() => Readiness::DiskLow,
            true => Readiness::Ready,
        }
    }
}

impl Readiness {
    /// For people, one line.
    pub fn describe(&self) -> String {
        match self {
            Self::Ready => "ready".into(),
            Self::Draining => "not ready: shutting down".into(),
            Self::NoFleet => "not ready: no node has said yet which nodes there are; are they up, \
                              and does --nodes name them? The log says who does not answer"
                .into(),
            Self::Replaying { done_bytes, total_bytes } => {
                format!("not ready: replaying the log, {done_bytes} of {total_bytes} bytes")
            }
            Self::DiskLow => {
                "not ready: the disk has less room than disk-free-min; samples are refused".into()
            }
            Self::LogFailed { shards } => {
                let shards: Vec<_> = shards.iter().map(ToString::to_string).collect();
                format!("not ready: the log failed on shard {}", shards.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases() {
        let state = ServerState::new(3);
        state.add_replay_total(100);
        state.add_replay_done(40);
        let replaying = Readiness::Replaying { done_bytes: 40, total_bytes: 100 };
        assert_eq!(state.readiness(), replaying);
        state.set_ready();
        assert_eq!(state.readiness(), Readiness::Ready);
        state.set_no_fleet();
        assert_eq!(state.readiness(), Readiness::NoFleet);
        state.set_ready();
        assert_eq!(state.readiness(), Readiness::Ready);
        state.set_log_failed(2);
        assert_eq!(state.readiness(), Readiness::LogFailed { shards: vec![2] });
        state.set_draining();
        state.set_ready();
        assert_eq!(state.readiness(), Readiness::Draining);
    }
}
