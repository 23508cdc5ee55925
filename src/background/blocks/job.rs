//! DRIVER: the long-lived tasks of the blocks: flushes, upkeep, requests, selects. Each takes from
//! a channel and calls the store; what they do is decided there.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::flush::{Flush, RUN_BYTES, SharedStore};
use super::merge::{self, Upkeep, clean_tombstones, upkeep};
use super::plan::{StoreRules, plan_merge_now, window_ms_max};
use super::select;
use super::snapshot::take_snapshot;
use super::store::TOMBSTONES_MAX;
use crate::background::command::{BackgroundEvent, FlushCommand};
use crate::background::disk::Disk;
use crate::background::executor::Shard;
use crate::base::time::{Duration, Instant, monotonic_now, unix_now_ms};
use crate::node::block::request::{
    BlockSelect, StoreHealth, StoreRefusal, StoreReport, StoreRequest,
};

/// How often upkeep looks for work, and the free space is looked at.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// A deletion is not forgotten before: whatever a shard sent before it has arrived by then.
const SETTLE_AFTER: Duration = Duration::from_secs(60);
/// Attempts after a failure wait so long.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What the tasks share.
pub struct Jobs<D: Disk> {
    /// The blocks.
    pub store: SharedStore<D>,
    /// What is kept.
    pub rules: StoreRules,
    /// Told when the disk has too little room.
    pub health: Arc<StoreHealth>,
    /// Deletions that a flush under way has seen, by shard.
    flushing: RefCell<Vec<Option<u64>>>,
    /// One merge or retirement at a time: it is planned by what there is.
    merging: tokio::sync::Mutex<()>,
    /// Somebody asked for merges, which may take hours: who asks meanwhile is refused, or a few
    /// askers would keep all others from an answer.
    is_asked: Cell<bool>,
    /// One at a time: names are told apart by what is there.
    snapshotting: tokio::sync::Mutex<()>,
    /// Deletions that every shard has logged, and since when.
    confirmed: RefCell<VecDeque<(u64, Instant)>>,
    settled: Cell<u64>,
    merges: Cell<u64>,
    failures: Cell<u64>,
    retired: Cell<u64>,
    selects: Cell<u64>,
    selects_failed: Cell<u64>,
}

impl<D: Disk> Jobs<D> {
    /// The tasks of a node with `shard_count` shards.
    pub fn new(
        store: SharedStore<D>,
        rules: StoreRules,
        health: Arc<StoreHealth>,
        shard_count: usize,
    ) -> Rc<Self> {
        // What was deleted before the start is in every log.
        let newest = store.newest_tombstone();
        Rc::new(Self {
            store,
            rules,
            health,
            flushing: RefCell::new(vec![None; shard_count]),
            merging: tokio::sync::Mutex::new(()),
            is_asked: Cell::new(false),
            snapshotting: tokio::sync::Mutex::new(()),
            confirmed: RefCell::default(),
            settled: Cell::new(newest),
            merges: Cell::new(0),
            failures: Cell::new(0),
            retired: Cell::new(0),
            selects: Cell::new(0),
            selects_failed: Cell::new(0),
        })
    }

    /// The deletions that no block which is still to come has not seen.
    fn settled(&self) -> u64 {
        let now = monotonic_now();
        let mut confirmed = self.confirmed.borrow_mut();
        while let Some((tombstone, since)) = confirmed.front().copied()
            && now.saturating_duration_since(since) >= SETTLE_AFTER
        {
            self.settled.set(tombstone);
            confirmed.pop_front();
        }
        let flushing = self.flushing.borrow();
        let seen = flushing.iter().flatten().copied().min().unwrap_or(u64::MAX);
        self.settled.get().min(seen)
    }

    /// Makes blocks of what the shards send, until they are gone.
    pub async fn run_flushes(&self, shards: &[Shard], commands: flume::Receiver<FlushCommand>) {
        let mut open: Vec<Option<(u64, Flush)>> = shards.iter().map(|_| None).collect();
        while let Ok(command) = commands.recv_async().await {
            let index = command.shard() as usize;
            let Some(shard) = shards.get(index) else { continue };
            let mut answers = Vec::new();
            match command {
                FlushCommand::Begin { flush, tombstones_applied, .. } => {
                    let begun = Flush::new(tombstones_applied, RUN_BYTES);
                    open[index] = Some((flush, begun.with_windows(window_ms_max(&self.rules))));
                }
                FlushCommand::Series { flush, series, .. } => {
                    let Some((_, run)) = open[index].as_mut().filter(|run| run.0 == flush) else {
                        continue;
                    };
                    match run.handle_series(&self.store, series).await {
                        Ok(published) => {
                            let told = |series| BackgroundEvent::FlushPublished { flush, series };
                            answers.extend(published.map(told));
                            answers.push(BackgroundEvent::FlushPieceTaken { flush });
                        }
                        Err(errno) => {
                            open[index] = None;
                            let outcome = Err(errno);
                            answers.push(BackgroundEvent::FlushDone { flush, outcome });
                        }
                    }
                }
                FlushCommand::End { flush, .. } => {
                    let Some((_, run)) = open[index].as_mut().filter(|run| run.0 == flush) else {
                        continue;
                    };
                    let outcome = run.finish(&self.store).await.map(drop);
                    open[index] = None;
                    answers.push(BackgroundEvent::FlushDone { flush, outcome });
                }
                FlushCommand::Abandon { .. } => open[index] = None,
            }
            self.flushing.borrow_mut()[index] =
                open[index].as_ref().map(|(_, run)| run.tombstones_applied());
            for answer in answers {
                // A shard that is gone needs no answer.
                let _ = shard.events.push(answer).await;
            }
        }
    }

    /// Watches the free space, also while a merge runs.
    pub async fn run_watch(&self) {
        loop {
            self.watch_space().await;
            glommio::timer::sleep(UPKEEP_EVERY).await;
        }
    }

    /// Merges and retires. May be dropped at any time: what is on the disk is as after a crash.
    pub async fn run_upkeep(&self) {
        let mut wait_until: Option<Instant> = None;
        loop {
            let is_waiting = wait_until.is_some_and(|until| monotonic_now() < until);
            if !is_waiting {
                match self.step().await {
                    Ok(Upkeep::Nothing) => {}
                    // There may be more.
                    Ok(_) => continue,
                    Err(errno) => {
                        self.failures.set(self.failures.get() + 1);
                        let error = std::io::Error::from_raw_os_error(errno);
                        tracing::warn!(%error, "cannot merge or retire blocks; trying again");
                        wait_until = Some(monotonic_now() + RETRY_AFTER);
                    }
                }
            }
            glommio::timer::sleep(UPKEEP_EVERY).await;
        }
    }

    async fn step(&self) -> Result<Upkeep, i32> {
        let settled = self.settled();
        let turn = self.merging.lock().await;
        let did = upkeep(&self.store, &self.rules, unix_now_ms(), settled).await;
        drop(turn);
        let did = did?;
        match did {
            Upkeep::Merged { blocks } => {
                tracing::debug!(blocks, "merged blocks");
                self.merges.set(self.merges.get() + 1);
            }
            Upkeep::Retired { blocks } => {
                tracing::info!(blocks, "deleted the oldest blocks");
                self.retired.set(self.retired.get() + blocks);
            }
            Upkeep::Nothing | Upkeep::SetAside { .. } => {}
        }
        Ok(did)
    }

    /// Below the floor samples are refused; a tenth above it they are taken again.
    async fn watch_space(&self) {
        self.tell_lost();
        let Ok(space) = self.store.disk().space(self.store.folder()).await else { return };
        let floor = self.rules.disk_free_min_bytes;
        let was_low = self.health.is_disk_low();
        let is_low = if was_low {
            space.free_bytes < floor.saturating_add(floor / 10)
        } else {
            space.free_bytes < floor
        };
        if is_low != was_low {
            self.health.set_disk_low(is_low);
            let (free, floor) = (space.free_bytes, floor);
            if is_low {
                tracing::error!(
                    free,
                    floor,
                    "less than disk-free-min is free: samples are refused"
                );
            } else {
                tracing::info!(free, floor, "the disk has room again: samples are taken");
            }
        }
    }

    /// Does what the control plane asks; several of these run side by side, so that a long merge
    /// holds up nothing else.
    pub async fn run_requests(&self, requests: flume::Receiver<StoreRequest>) {
        let disk = |errno| StoreRefusal::Disk { errno };
        while let Ok(request) = requests.recv_async().await {
            // Askers that have left need no answers.
            match request {
                StoreRequest::Delete { tombstone, reply } => {
                    let max = TOMBSTONES_MAX;
                    let refusal = StoreRefusal::TooManyTombstones { max };
                    let added = self.store.add_tombstone(tombstone).await.map_err(disk);
                    let _ = reply.try_send(added.and_then(|added| added.ok_or(refusal)));
                }
                StoreRequest::Deleted { tombstone } => {
                    self.confirmed.borrow_mut().push_back((tombstone, monotonic_now()));
                }
                StoreRequest::CleanTombstones { reply } if !self.is_asked.replace(true) => {
                    let cleaned = self.clean_tombstones().await;
                    self.is_asked.set(false);
                    let _ = reply.try_send(cleaned.map_err(disk));
                }
                StoreRequest::Compact { reply } if !self.is_asked.replace(true) => {
                    let merged = self.compact().await;
                    self.is_asked.set(false);
                    let _ = reply.try_send(merged.map_err(disk));
                }
                StoreRequest::CleanTombstones { reply } | StoreRequest::Compact { reply } => {
                    let _ = reply.try_send(Err(StoreRefusal::Busy));
                }
                StoreRequest::Snapshot { name, reply } => {
                    let turn = self.snapshotting.lock().await;
                    let taken = take_snapshot(&self.store, &name).await;
                    drop(turn);
                    let _ = reply.try_send(taken.map_err(disk));
                }
                StoreRequest::Report { reply } => {
                    let _ = reply.try_send(Box::new(self.report().await));
                }
            }
        }
    }

    async fn clean_tombstones(&self) -> Result<u64, i32> {
        let turn = self.merging.lock().await;
        let cleaned = clean_tombstones(&self.store, self.settled()).await;
        drop(turn);
        cleaned
    }

    /// Merges until there is nothing to merge; returns how often.
    async fn compact(&self) -> Result<u64, i32> {
        let turn = self.merging.lock().await;
        let mut merges = 0;
        while let Some(sources) = plan_merge_now(&merge::planned(&self.store), &self.rules) {
            merge::merge(&self.store, &sources).await?;
            self.merges.set(self.merges.get() + 1);
            merges += 1;
        }
        drop(turn);
        Ok(merges)
    }

    async fn report(&self) -> StoreReport {
        let store = &self.store;
        let cache = store.cache().report();
        let space = store.disk().space(store.folder()).await;
        StoreReport {
            blocks: merge::planned(store).into_iter().map(|each| (each.meta, each.bytes)).collect(),
            tombstones: store.tombstones().len() as u64,
            set_aside: store.set_aside_count(),
            missing: store.missing(),
            merges: self.merges.get(),
            failures: self.failures.get(),
            retired: self.retired.get(),
            selects: self.selects.get(),
            selects_failed: self.selects_failed.get(),
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            cache_bytes: cache.bytes,
            disk_free_bytes: space.map_or(0, |space| space.free_bytes),
        }
    }

    /// Answers selects, one after the other; several of these run side by side.
    pub async fn run_selects(&self, selects: flume::Receiver<BlockSelect>) {
        while let Ok(one) = selects.recv_async().await {
            self.selects.set(self.selects.get() + 1);
            if select::answer(&self.store, one, || self.tell_lost()).await.is_err() {
                self.selects_failed.set(self.selects_failed.get() + 1);
            }
        }
    }

    fn tell_lost(&self) {
        let lost = self.store.set_aside_count() + self.store.missing().len() as u64;
        self.health.set_blocks_lost(lost);
    }
}

#[cfg(test)]
mod tests {
    use glommio::LocalExecutor;

    use super::*;
    use crate::background::blocks::store::BlockStore;
    use crate::background::disk::plain::PlainDisk;

    /// The free space was looked at between two merges, of which one may take an hour: a disk that
    /// filled up meanwhile was written on, and one that had room again refused samples.
    #[test]
    fn the_free_space_is_watched_while_a_merge_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("blocks");
        let rules = StoreRules {
            retention_ms: 0,
            retention_bytes: 0,
            out_of_order_window_ms: 0,
            disk_free_min_bytes: 0,
        };
        LocalExecutor::default().run(async move {
            let opened = BlockStore::open(&PlainDisk, &path, 1, 0).await;
            let store = Rc::new(opened.expect("an empty folder").0);
            let health = Arc::new(StoreHealth::default());
            let jobs = Jobs::new(store, rules, Arc::clone(&health), 1);
            let merge = jobs.merging.lock().await;
            health.set_disk_low(true);
            let (one, other) = (Rc::clone(&jobs), Rc::clone(&jobs));
            let upkeep = glommio::spawn_local(async move { one.run_upkeep().await });
            let watch = glommio::spawn_local(async move { other.run_watch().await });
            let deadline = monotonic_now() + Duration::from_secs(60);
            while health.is_disk_low() {
                assert!(monotonic_now() < deadline, "there is room, and nobody says so");
                glommio::timer::sleep(Duration::from_millis(1)).await;
            }
            assert!(jobs.merging.try_lock().is_err(), "the merge still runs");
            drop(merge);
            watch.cancel().await;
            upkeep.cancel().await;
        });
    }
}
