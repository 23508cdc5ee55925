//! A whole node against a failing disk: shards with their logs and heads, snapshots, flushes into
//! blocks, deletions, queries over both, restarts with another number of shards.
//!
//! The drivers are the simulation's, the decisions are all real: `NodeShard`, the jobs of the
//! background and replay. Checked: every acknowledged sample is read back, once and as it was
//! written; nothing is invented; what was deleted stays so; memory is bounded; with the faults gone
//! samples are taken again; a failed log takes nothing.

pub mod recover;
pub mod shard;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use tidegate::background::blocks::merge::{clean_tombstones, planned, upkeep};
use tidegate::background::blocks::plan::{StoreRules, plan_retention};
use tidegate::background::blocks::store::{BlockStore, StoreFault};
use tidegate::background::disk::Disk;
use tidegate::model::refusal::Refusal;
use tidegate::model::series::TenantId;
use tidegate::node::block::Tombstone;
use tidegate::node::shard::FrameReceipt;

use crate::drive::drive;
use crate::fake_disk::FakeDisk;
use crate::oracle::{Found, Oracle, Token, note_run};
use crate::questions::{ALWAYS, Runs, Unanswered, ask_blocks, request};
use crate::random::Random;
use crate::series::{EPOCH_MS, Pool, random_tombstone, random_value, time_near};
use crate::steps::Steps;
use shard::{Batch, ShardSide};

const RUNS: usize = 4;
const STEPS_PER_RUN: usize = 160;
const DATA: &str = "/data";
const NODE: u128 = 0x0de;
const CACHE_BYTES: u64 = 32 << 10;
const HOUR_MS: i64 = 3_600_000;
const SERIES: usize = 16;
const SHARDS_MAX: usize = 3;
/// With the faults gone, a sample is acknowledged within this many rounds.
const RECOVERY_ROUNDS: usize = 60;

pub type Store = Rc<BlockStore<FakeDisk>>;

/// What all restarts of a node have in common.
#[derive(Clone, Copy)]
pub struct Rules {
    pub store: StoreRules,
    pub head_bytes_max: u64,
    pub log_bytes_max: u64,
    pub frame_bytes_max: u32,
    pub log_buffer_bytes_max: u32,
}

/// A deletion under way: each shard has still to log it (a token from then on), or to sync it.
struct Deleting {
    tombstone: Rc<Tombstone>,
    waiting: Vec<usize>,
    logged: Vec<(usize, Token)>,
    has_failed: bool,
}

struct World {
    random: Random,
    disk: FakeDisk,
    pool: Pool,
    oracle: Oracle,
    rules: Rules,
    store: Store,
    shards: Vec<ShardSide>,
    incarnation: u64,
    now_ms: i64,
    deleting: Option<Deleting>,
    /// The newest deletion that all shards have logged, and the newest that is settled.
    confirmed: u64,
    settled: u64,
}

/// Several runs, each ended by a stop or a power cut.
pub fn simulate(seed: u64) {
    let mut world = World::new(seed);
    let mut steps = Steps::new();
    for _ in 0..RUNS {
        if world.random.once_in(2) {
            let after = 1 + world.random.below(250);
            world.disk.cut_power_after(after);
        }
        let count = 1 + world.random.below(STEPS_PER_RUN);
        for _ in 0..count {
            if !steps.take() || world.step().is_none() {
                break;
            }
            world.check_bounds();
        }
        if !world.disk.is_cut() && world.random.once_in(4) {
            world.check_recovery();
        }
        world.restart();
    }
    world.check_end();
}

/// Some rules.
pub fn rules(random: &mut Random) -> Rules {
    let retention_ms = [0, 0, 3 * 24 * HOUR_MS][random.below(3)];
    Rules {
        store: StoreRules {
            retention_ms,
            retention_bytes: 0,
            out_of_order_window_ms: HOUR_MS,
            disk_free_min_bytes: 100_000,
        },
        head_bytes_max: [1 << 20, 64 << 20][random.below(2)],
        log_bytes_max: [10_000, 60_000, 400_000][random.below(3)],
        frame_bytes_max: 64 << 10,
        log_buffer_bytes_max: 256 << 10,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = FakeDisk::new(&mut random);
        let rules = rules(&mut random);
        let shard_count = 1 + random.below(SHARDS_MAX);
        let (store, shards) = recover::first_start(&disk, &rules, shard_count);
        Self {
            pool: Pool::new(SERIES),
            oracle: Oracle::default(),
            store,
            shards,
            rules,
            incarnation: 1,
            now_ms: EPOCH_MS + 5 * HOUR_MS,
            deleting: None,
            confirmed: 0,
            settled: 0,
            random,
            disk,
        }
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        drive(&self.disk, future)
    }

    /// One step; `None` once the power is cut.
    fn step(&mut self) -> Option<()> {
        let shard = self.random.below(self.shards.len());
        let choice = self.random.below(48);
        self.disk.trace(|| format!("step {choice} on shard {shard}, clock {}", self.now_ms));
        match choice {
            0..10 => self.write(),
            10..16 => self.shards[shard].begin_log_write(&self.disk)?,
            16..22 => self.finish_log_write(shard)?,
            22..25 => self.shards[shard].step_segments(&self.disk)?,
            25..28 => self.shards[shard].step_snapshot(&self.disk)?,
            28..34 => {
                let run_bytes = [1, 300, 1 << 20][self.random.below(3)];
                let store = Rc::clone(&self.store);
                self.shards[shard].step_flush(&self.disk, &store, run_bytes)?;
            }
            34 => {
                self.shards[shard].node.handle_flush_request();
            }
            35..38 => self.pass_time(),
            38 => self.begin_delete()?,
            39..41 => self.step_delete(),
            41 => self.step_upkeep()?,
            42 => {
                let store = Rc::clone(&self.store);
                // What the disk refuses is tried again by a later step.
                let _ = self.run(clean_tombstones(&store, self.settled()))?;
            }
            43 => self.disk.fail_one(&mut self.random),
            44 => {
                let room = [None, None, Some(self.random.below(2_000_000) as u64)];
                self.disk.set_room(room[self.random.below(3)]);
            }
            45 => self.shards[shard].retire(),
            _ => self.check()?,
        }
        for shard in 0..self.shards.len() {
            self.take_acks(shard);
        }
        Some(())
    }

    fn write(&mut self) {
        let count = [3, 20, 150][self.random.below(3)];
        let mut batch = Batch { is_backfill: self.random.once_in(4), ..Batch::default() };
        // A head in order: what a scrape looks like.
        let is_scrape = self.random.once_in(2);
        for index in 0..=self.random.below(count) {
            let series = self.random.below(SERIES);
            let at_ms = if is_scrape {
                let seconds = i64::try_from(index).expect("small");
                self.now_ms + seconds * 1_000
            } else {
                time_near(self.now_ms, &mut self.random)
            };
            let bits = random_value(&mut self.random);
            if !batch.samples.iter().any(|each| (each.series, each.at_ms) == (series, at_ms)) {
                batch.push(series, at_ms, bits);
            }
        }
        let shard_count = self.shards.len();
        for shard in 0..shard_count {
            let mut own = batch.of_shard(&self.pool, shard, shard_count);
            if own.samples.is_empty() {
                continue;
            }
            for sample in &mut own.samples {
                sample.token = self.oracle.token();
            }
            let receipt = self.shards[shard].offer(&self.pool, &own);
            self.disk.trace(|| format!("frame to shard {shard}: {receipt:?}"));
            match receipt {
                FrameReceipt::Taken => self.note_taken(shard, &own),
                FrameReceipt::Delayed | FrameReceipt::Refused(_) => {}
            }
        }
    }

    fn note_taken(&mut self, shard: usize, batch: &Batch) {
        for sample in &batch.samples {
            self.oracle.write(sample.token, sample.series, sample.at_ms, sample.bits);
        }
        // A deletion under way may take what comes meanwhile.
        if let Some(deleting) = &self.deleting
            && deleting.waiting.contains(&shard)
        {
            let token = self.oracle.token();
            self.oracle.delete(token, &self.pool, &deleting.tombstone);
        }
    }

    fn take_acks(&mut self, shard: usize) {
        while let Some((batch, outcomes)) = self.shards[shard].poll_ack() {
            for (sample, outcome) in batch.samples.iter().zip(outcomes) {
                match outcome {
                    Ok(()) => {
                        self.oracle.confirm_write(sample.token, sample.series, sample.at_ms);
                    }
                    Err(_) => self.oracle.refuse_write(sample.token, sample.series, sample.at_ms),
                }
            }
        }
    }

    fn finish_log_write(&mut self, shard: usize) -> Option<()> {
        self.shards[shard].finish_log_write(&self.disk)
    }

    fn pass_time(&mut self) {
        let hours = match self.random.below(16) {
            0 => -10,
            1 => 30,
            2..5 => 1,
            _ => 0,
        };
        let seconds = i64::try_from(self.random.below(1_200)).expect("small");
        self.now_ms += hours * HOUR_MS + seconds * 1_000;
        for shard in &mut self.shards {
            shard.node.handle_retry();
            shard.node.handle_second(self.now_ms);
        }
        if self.shards.iter().all(ShardSide::has_no_flush_command) {
            self.settled = self.confirmed;
        }
    }

    /// Deletions that no block which is still to come has not seen.
    fn settled(&self) -> u64 {
        let flushing = self.shards.iter().filter_map(ShardSide::flushing);
        self.settled.min(flushing.min().unwrap_or(u64::MAX))
    }

    fn begin_delete(&mut self) -> Option<()> {
        if self.deleting.is_some() {
            return Some(());
        }
        let asked = random_tombstone(self.now_ms, &mut self.random);
        let token = self.oracle.token();
        self.disk.trace(|| format!("deletion {token:x}: {asked:?}"));
        self.oracle.delete(token, &self.pool, &asked);
        let store = Rc::clone(&self.store);
        let Ok(written) = self.run(store.add_tombstone(asked))? else { return Some(()) };
        let tombstone = Rc::new(written.expect("there are few"));
        let waiting = (0..self.shards.len()).collect();
        self.deleting =
            Some(Deleting { tombstone, waiting, logged: Vec::new(), has_failed: false });
        Some(())
    }

    /// A shard logs the deletion under way; when all have synced it, it is certain.
    fn step_delete(&mut self) {
        let Some(mut deleting) = self.deleting.take() else { return };
        if let Some(shard) = deleting.waiting.pop() {
            let receipt = self.shards[shard].node.handle_delete(&deleting.tombstone);
            if receipt == FrameReceipt::Delayed {
                deleting.waiting.insert(0, shard);
            } else {
                let token = self.oracle.token();
                let (pool, count) = (&self.pool, self.shards.len());
                self.oracle.delete_of(token, pool, &deleting.tombstone, |series| {
                    pool.shard_of(series, count) == shard
                });
                match receipt {
                    FrameReceipt::Taken => deleting.logged.push((shard, token)),
                    // The client will be told that it failed.
                    _ => deleting.has_failed = true,
                }
            }
        }
        let id = deleting.tombstone.id;
        for (shard, token) in &deleting.logged {
            while let Some(durable) = self.shards[*shard].node.poll_deleted() {
                self.shards[*shard].deleted = durable;
            }
            if self.shards[*shard].deleted >= id {
                self.oracle.confirm_delete(*token);
            }
        }
        let is_durable = |(shard, _): &(usize, Token)| self.shards[*shard].deleted >= id;
        let is_lost = |(shard, _): &(usize, Token)| self.shards[*shard].has_failed();
        if !deleting.waiting.is_empty() {
            self.deleting = Some(deleting);
        } else if deleting.logged.iter().all(is_durable) {
            self.confirmed = if deleting.has_failed { self.confirmed } else { id };
        } else if !deleting.logged.iter().any(is_lost) {
            self.deleting = Some(deleting);
        }
    }

    fn step_upkeep(&mut self) -> Option<()> {
        let blocks = planned(&self.store);
        let old = plan_retention(&blocks, &self.rules.store, self.now_ms);
        for block in blocks.iter().filter(|block| old.contains(&block.meta.id)) {
            self.oracle.retire(block.meta.min_ms, block.meta.max_ms);
        }
        let store = Rc::clone(&self.store);
        let done = upkeep(&store, &self.rules.store, self.now_ms, self.settled());
        // What the disk refuses is tried again by a later step.
        let _ = self.run(done)?;
        Some(())
    }

    fn find(&mut self) -> Option<Result<Found, Unanswered>> {
        let sides: Vec<_> = self.shards.iter().collect();
        find(&self.disk, &self.store, (&sides, &self.pool), &mut self.random)
    }

    fn check(&mut self) -> Option<()> {
        if let Ok(found) = self.find()? {
            self.oracle.check(&found, "while it runs");
        }
        Some(())
    }

    fn check_bounds(&self) {
        assert_eq!(self.store.set_aside_count(), 0, "nothing was damaged");
        assert!(self.store.cache().report().bytes <= CACHE_BYTES);
        for shard in &self.shards {
            shard.check_bounds(&self.rules);
        }
    }

    /// With the faults gone samples are acknowledged again, but by a failed log.
    fn check_recovery(&mut self) {
        self.disk.heal();
        for shard in 0..self.shards.len() {
            if self.shards[shard].has_failed() {
                let mut batch = Batch::default();
                batch.push(self.pool.series_of(shard, self.shards.len()), self.now_ms, 0);
                let refused = self.shards[shard].offer(&self.pool, &batch);
                assert_eq!(refused, FrameReceipt::Refused(Refusal::LogFailed));
                continue;
            }
            let before = self.shards[shard].acks;
            for _ in 0..RECOVERY_ROUNDS {
                self.shards[shard].node.handle_retry();
                self.write();
                self.work(shard);
            }
            // What was written before may have failed.
            let is_served = self.shards[shard].acks > before || self.shards[shard].has_failed();
            assert!(is_served, "no ack after the faults");
        }
        self.check().expect("power");
    }

    /// Everything that a shard's drivers do, once.
    fn work(&mut self, shard: usize) {
        let (disk, store) = (self.disk.clone(), Rc::clone(&self.store));
        let side = &mut self.shards[shard];
        side.step_segments(&disk).expect("power");
        side.begin_log_write(&disk).expect("power");
        side.finish_log_write(&disk).expect("power");
        side.step_snapshot(&disk).expect("power");
        side.step_flush(&disk, &store, 1 << 20).expect("power");
        self.take_acks(shard);
        self.step_delete();
    }

    /// With the faults gone everything comes to rest, and is still there after a clean restart.
    fn check_end(&mut self) {
        self.disk.heal();
        for shard in 0..self.shards.len() {
            let wanted = self.shards[shard].node.handle_flush_request();
            let mut rounds = 0;
            while self.shards[shard].node.flushes_answered() < wanted {
                self.shards[shard].node.handle_retry();
                self.shards[shard].node.handle_second(self.now_ms);
                self.work(shard);
                rounds += 1;
                assert!(rounds < 1_000, "a flush of everything does not end");
            }
        }
        self.check().expect("power");
        for _ in 0..20 {
            self.step_upkeep().expect("power");
        }
        self.check().expect("power");
        self.restart();
        self.check().expect("power");
    }
}

/// What queries find: the heads first, then the blocks. `None`: the power was cut.
pub fn find(
    disk: &FakeDisk,
    store: &Store,
    (shards, pool): (&[&ShardSide], &Pool),
    random: &mut Random,
) -> Option<Result<Found, Unanswered>> {
    let mut found = Found::new();
    for tenant in [TenantId(0), TenantId(7)] {
        let mut runs = Runs::new(ALWAYS);
        let asked = request(tenant, Vec::new(), ALWAYS);
        for shard in shards {
            let series = shard.select(asked.clone(), random);
            for one in &series {
                runs.add_head(one);
            }
        }
        match ask_blocks(disk, store, asked)? {
            Ok(series) => series.iter().for_each(|series| runs.add_blocks(series)),
            Err(_) => return Some(Err(Unanswered)),
        }
        for (labels, run) in runs.by_labels {
            let series = pool.find(tenant, &labels).expect("a series that was written");
            note_run(&mut found, series, &run);
        }
    }
    Some(Ok(found))
}

fn shard_folder(incarnation: u64, shard: usize) -> PathBuf {
    Path::new(DATA).join(format!("incarnation-{incarnation}")).join(format!("shard-{shard}"))
}

/// Opens the blocks; and how often damage was told.
async fn open_store(
    disk: &FakeDisk,
    may_be_damaged: bool,
) -> Result<(BlockStore<FakeDisk>, u64), StoreFault> {
    let folder = Path::new(DATA).join("blocks");
    let (store, report) = BlockStore::open(disk, &folder, NODE, CACHE_BYTES).await?;
    let told = report.missing.len() + report.set_aside.len() + usize::from(report.list_rebuilt);
    assert!(may_be_damaged || told == 0, "{report:?}");
    Ok((store, told as u64))
}

/// Makes folders and their names durable.
async fn make_folders(disk: &FakeDisk, path: &Path) -> Result<(), i32> {
    disk.make_folder(path).await?;
    for folder in path.ancestors() {
        disk.sync_folder(folder).await?;
    }
    Ok(())
}
