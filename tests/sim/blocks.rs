//! The blocks of a node against a failing disk: flushes, merges, retention, deletions, snapshots
//! and queries in an order that the seed decides, with power cuts and restarts.
//!
//! What stands above the blocks is a list of samples that no published block holds yet: it never
//! fails, as a log that is replayed. Checked: what was published is not lost, nothing is invented,
//! what was deleted stays deleted, the last write wins; snapshots hold what they held; no file is
//! left behind; damage is told, and takes nothing down.

mod damage;
mod flush;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tidegate::background::blocks::block::parse_block_file_name;
use tidegate::background::blocks::merge::{Upkeep, clean_tombstones, merge, planned, upkeep};
use tidegate::background::blocks::plan::{StoreRules, plan_merge_now, plan_retention};
use tidegate::background::blocks::snapshot::take_snapshot;
use tidegate::background::blocks::store::BlockStore;
use tidegate::background::disk::Disk;
use tidegate::model::sample::Sample;
use tidegate::model::series::TenantId;
use tidegate::query::merge::Window;
use tidegate::wire::select::SelectedSeries;

use crate::drive::drive;
use crate::fake_disk::FakeDisk;
use crate::oracle::{Found, Oracle, Token, note_run};
use crate::questions::{ALWAYS, Runs, Unanswered, ask_blocks, request};
use crate::random::Random;
use crate::series::{EPOCH_MS, Pool, random_tombstone, random_value, time_near};
use crate::steps::Steps;
use flush::OpenFlush;

const RUNS: usize = 4;
const STEPS_PER_RUN: usize = 60;
const NODE: u128 = 0xb10c;
const DATA: &str = "/data";
const CACHE_BYTES: u64 = 32 << 10;
const HOUR_MS: i64 = 3_600_000;
const SERIES: usize = 12;
/// With the faults gone, upkeep has nothing to do after so many steps.
const UPKEEP_STEPS_MAX: usize = 200;

type Store = Rc<BlockStore<FakeDisk>>;

/// Samples that are in no published block: value and token by series and time.
type Pending = BTreeMap<(usize, i64), (u64, Token)>;

struct World {
    random: Random,
    disk: FakeDisk,
    pool: Pool,
    oracle: Oracle,
    store: Store,
    rules: StoreRules,
    now_ms: i64,
    pending: Pending,
    /// The newest deletion that what is pending has seen, and the newest that is settled.
    applied: u64,
    confirmed: u64,
    flush: Option<OpenFlush>,
    /// Folders of snapshots, and what the blocks held then.
    snapshots: Vec<(PathBuf, Found)>,
    next_snapshot: u64,
    is_damaged: bool,
    /// Losses that were told, in all runs.
    told: u64,
    /// Of those that this start knows.
    aside_known: u64,
}

/// Several runs, each ended by a stop or a power cut.
pub fn simulate(seed: u64) {
    simulate_with(seed, false);
}

/// The same, and files are damaged between the runs.
pub fn simulate_damage(seed: u64) {
    simulate_with(seed, true);
}

fn simulate_with(seed: u64, has_damage: bool) {
    let mut world = World::new(seed);
    let mut steps = Steps::new();
    for _ in 0..RUNS {
        if world.random.once_in(2) {
            let after = 1 + world.random.below(150);
            world.disk.cut_power_after(after);
        }
        for _ in 0..=world.random.below(STEPS_PER_RUN) {
            if !steps.take() || world.step().is_none() {
                break;
            }
        }
        world.restart(has_damage);
    }
    world.check_end();
}

fn rules(random: &mut Random) -> StoreRules {
    StoreRules {
        retention_ms: [0, 0, 3 * 24 * HOUR_MS][random.below(3)],
        retention_bytes: [0, 0, 0, 60_000][random.below(4)],
        out_of_order_window_ms: HOUR_MS,
        disk_free_min_bytes: 100_000,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = FakeDisk::new(&mut random);
        // What a data folder has before there are blocks.
        drive(&disk, async {
            disk.make_folder(Path::new(DATA)).await.expect("no faults yet");
            disk.sync_folder(Path::new("/")).await.expect("no faults yet");
        });
        disk.plant(&Path::new(DATA).join("MANIFEST"), b"a manifest".to_vec());
        let (store, _) = drive(&disk, open(&disk, DATA)).expect("power").expect("an empty folder");
        Self {
            rules: rules(&mut random),
            pool: Pool::new(SERIES),
            oracle: Oracle::default(),
            store: Rc::new(store),
            now_ms: EPOCH_MS + 5 * HOUR_MS,
            pending: Pending::new(),
            applied: 0,
            confirmed: 0,
            flush: None,
            snapshots: Vec::new(),
            next_snapshot: 0,
            is_damaged: false,
            told: 0,
            aside_known: 0,
            random,
            disk,
        }
    }

    /// One step; `None` once the power is cut.
    fn step(&mut self) -> Option<()> {
        match self.random.below(40) {
            0..10 => self.write(),
            10..20 => self.step_flush()?,
            20..26 => self.step_upkeep()?,
            26 => self.compact()?,
            27 => drop(self.run(clean_tombstones(&Rc::clone(&self.store), self.settled()))?),
            28..31 => self.delete()?,
            31 => self.snapshot()?,
            32..34 => self.move_clock(),
            34 => self.disk.fail_one(&mut self.random),
            35 => {
                let room = [None, Some(self.random.below(200_000) as u64)][self.random.below(2)];
                self.disk.set_room(room);
            }
            36 => self.check_part()?,
            _ => self.check()?,
        }
        assert!(self.store.cache().report().bytes <= CACHE_BYTES);
        Some(())
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        drive(&self.disk, future)
    }

    fn write(&mut self) {
        let token = self.oracle.token();
        let few = self.random.once_in(2);
        for _ in 0..=self.random.below(if few { 6 } else { 60 }) {
            let series = self.random.below(SERIES);
            let timestamp_ms = time_near(self.now_ms, &mut self.random);
            let bits = random_value(&mut self.random);
            self.oracle.write(token, series, timestamp_ms, bits);
            self.oracle.confirm_write(token, series, timestamp_ms);
            self.pending.insert((series, timestamp_ms), (bits, token));
        }
    }

    fn move_clock(&mut self) {
        let hours = match self.random.below(12) {
            0 => -10,
            1 => 100,
            2 => 24,
            _ => 1 + i64::try_from(self.random.below(4)).expect("small"),
        };
        self.now_ms += hours * HOUR_MS;
    }

    /// Deletions that no block which is still to come has not seen.
    fn settled(&self) -> u64 {
        let flushing = self.flush.as_ref().map_or(u64::MAX, OpenFlush::tombstones_applied);
        self.confirmed.min(flushing)
    }

    fn step_upkeep(&mut self) -> Option<()> {
        self.note_retention();
        let store = Rc::clone(&self.store);
        // What the disk refuses is tried again by a later step.
        let _ = self.run(upkeep(&store, &self.rules, self.now_ms, self.settled()))?;
        self.note_aside();
        Some(())
    }

    /// What is about to be retired may be gone from now on.
    fn note_retention(&mut self) {
        let blocks = planned(&self.store);
        let old = plan_retention(&blocks, &self.rules, self.now_ms);
        for block in blocks.iter().filter(|block| old.contains(&block.meta.id)) {
            self.oracle.retire(block.meta.min_ms, block.meta.max_ms);
        }
    }

    fn compact(&mut self) -> Option<()> {
        let store = Rc::clone(&self.store);
        for _ in 0..3 {
            let Some(sources) = plan_merge_now(&planned(&store), &self.rules) else { break };
            if self.run(merge(&store, &sources))?.is_err() {
                break;
            }
        }
        self.note_aside();
        Some(())
    }

    fn delete(&mut self) -> Option<()> {
        let token = self.oracle.token();
        let asked = random_tombstone(self.now_ms, &mut self.random);
        self.oracle.delete(token, &self.pool, &asked);
        let store = Rc::clone(&self.store);
        let Ok(written) = self.run(store.add_tombstone(asked))? else { return Some(()) };
        let tombstone = written.expect("there are few");
        // As the shards do; what was taken of them before is not published as if it had seen it.
        self.flush = None;
        let pool = &self.pool;
        self.pending.retain(|(series, at_ms), _| !pool.is_hit(*series, *at_ms, &tombstone));
        self.applied = tombstone.id;
        self.confirmed = tombstone.id;
        self.oracle.confirm_delete(token);
        Some(())
    }

    fn snapshot(&mut self) -> Option<()> {
        let Ok(found) = self.found_in_blocks()? else { return Some(()) };
        let name = format!("s{}", self.next_snapshot);
        self.next_snapshot += 1;
        let store = Rc::clone(&self.store);
        if let Ok(path) = self.run(take_snapshot(&store, &name))? {
            self.snapshots.push((path.into(), found));
        }
        Some(())
    }

    /// What the blocks alone hold.
    fn found_in_blocks(&mut self) -> Option<Result<Found, Unanswered>> {
        let pending = std::mem::take(&mut self.pending);
        let found = self.find(&Rc::clone(&self.store), ALWAYS);
        self.pending = pending;
        found
    }

    /// What queries find in `store` and above it. The outer `None`: the power was cut.
    fn find(&mut self, store: &Store, window: Window) -> Option<Result<Found, Unanswered>> {
        let mut found = Found::new();
        for tenant in [TenantId(0), TenantId(7)] {
            let mut runs = Runs::new(window);
            for series in self.pending_of(tenant) {
                runs.add_head(&series);
            }
            match ask_blocks(&self.disk, store, request(tenant, Vec::new(), window))? {
                Ok(series) => series.iter().for_each(|series| runs.add_blocks(series)),
                Err(_) => return Some(Err(Unanswered)),
            }
            for (labels, run) in runs.by_labels {
                let series = self.pool.find(tenant, &labels).expect("a series that was written");
                note_run(&mut found, series, &run);
            }
        }
        found.retain(|_, run| !run.is_empty());
        self.note_aside();
        Some(Ok(found))
    }

    /// What is pending, as a head answers it.
    fn pending_of(&self, tenant: TenantId) -> Vec<SelectedSeries> {
        let of_tenant = (0..SERIES).filter(|series| self.pool.series[*series].tenant == tenant);
        let select = |series: usize| {
            let own = self.pending.range((series, i64::MIN)..=(series, i64::MAX));
            let sample = |(key, (bits, _)): (&(usize, i64), &(u64, Token))| Sample {
                timestamp_ms: key.1,
                value: f64::from_bits(*bits),
            };
            let labels = self.pool.series[series].labels.clone();
            SelectedSeries { labels, chunks: Vec::new(), samples: own.map(sample).collect() }
        };
        of_tenant.map(select).collect()
    }

    fn check(&mut self) -> Option<()> {
        let Ok(found) = self.find(&Rc::clone(&self.store), ALWAYS)? else { return Some(()) };
        self.check_found(&found, "while it runs");
        Some(())
    }

    fn check_found(&self, found: &Found, what: &str) {
        if self.is_damaged {
            self.oracle.check_nothing_invented(found, what);
            let is_told = self.told > 0 || !self.oracle.is_missing_something(found);
            assert!(is_told, "{what}: samples are missing, and nobody was told");
        } else {
            self.oracle.check(found, what);
            assert_eq!(self.told, 0, "{what}: a loss was told that is none");
        }
    }

    /// A window sees what all of time does, cut.
    fn check_part(&mut self) -> Option<()> {
        let start_ms = time_near(self.now_ms, &mut self.random);
        let hours = i64::try_from(self.random.below(8)).expect("small");
        let window = Window { start_ms, end_ms: start_ms + hours * HOUR_MS };
        let store = Rc::clone(&self.store);
        let Ok(mut all) = self.find(&store, ALWAYS)? else { return Some(()) };
        let Ok(part) = self.find(&store, window)? else { return Some(()) };
        for run in all.values_mut() {
            run.retain(|at_ms, _| window.start_ms <= *at_ms && *at_ms <= window.end_ms);
        }
        all.retain(|_, run| !run.is_empty());
        assert!(all == part || self.is_damaged, "a window sees something else: {window:?}");
        Some(())
    }

    fn note_aside(&mut self) {
        self.told += self.store.set_aside_count() - self.aside_known;
        self.aside_known = self.store.set_aside_count();
    }

    /// The process or the power ends, and all begins anew.
    fn restart(&mut self, has_damage: bool) {
        self.flush = None;
        if self.disk.is_cut() || self.random.once_in(2) {
            self.disk.restore_power();
        } else {
            self.disk.keep_all();
        }
        if has_damage && self.random.once_in(2) {
            self.damage();
        }
        let foreign = self.plant_foreign();
        let (mut attempts, mut is_failing) = (0, false);
        let (store, report) = loop {
            if attempts < 3 && self.random.once_in(4) {
                self.disk.cut_power_after(self.random.below(12));
            }
            if attempts < 3 && self.random.once_in(4) {
                self.disk.fail_one(&mut self.random);
                is_failing = true;
            }
            attempts += 1;
            match drive(&self.disk, open(&self.disk, DATA)) {
                Some(Ok(opened)) => break opened,
                Some(Err(fault)) => {
                    assert!(attempts < 4, "cannot open: {fault}");
                    self.disk.heal();
                    is_failing = false;
                }
                None => {
                    self.disk.restore_power();
                    is_failing = false;
                }
            }
        };
        self.disk.heal();
        self.store = Rc::new(store);
        self.aside_known = self.store.set_aside_count();
        self.applied = self.store.newest_tombstone();
        self.confirmed = self.applied;
        self.note_opened(&report, foreign.as_deref());
        let store = Rc::clone(&self.store);
        let found = self.find(&store, ALWAYS).expect("power").expect("no faults");
        self.check_found(&found, "after a restart");
        if !self.is_damaged && !is_failing {
            self.check_files(0);
        }
        self.oracle.settle(&found);
    }

    /// With no fault left, there are the files of the blocks that count, and no others.
    fn check_files(&self, temporary_max: usize) {
        let ids = |store: &Store| store.blocks().iter().map(|block| block.meta.id).collect();
        let mut listed: Vec<u64> = ids(&self.store);
        listed.sort_unstable();
        let blocks = Path::new(DATA).join("blocks");
        let (mut there, mut temporary) = (Vec::new(), 0);
        for path in self.disk.files(&blocks) {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            if path.parent() != Some(&blocks) {
                continue;
            }
            temporary += usize::from(name.strip_suffix(".tmp").is_some());
            there.extend(parse_block_file_name(&name));
        }
        there.sort_unstable();
        assert_eq!(there, listed, "files and blocks");
        assert!(temporary <= temporary_max, "{temporary} temporary files were left behind");
    }

    /// With the faults gone everything is published, merged and cleaned, and still the same.
    fn check_end(&mut self) {
        self.disk.heal();
        let store = Rc::clone(&self.store);
        for _ in 0..2 {
            self.flush_all();
            let mut steps = 0;
            loop {
                self.note_retention();
                let done = self.run(upkeep(&store, &self.rules, self.now_ms, self.settled()));
                let done = done.expect("power").expect("no faults");
                self.note_aside();
                if done == Upkeep::Nothing {
                    break;
                }
                steps += 1;
                assert!(steps < UPKEEP_STEPS_MAX, "upkeep has no end: {done:?}");
            }
            self.check().expect("power");
            let cleaned = clean_tombstones(&store, self.settled());
            let cleaned = self.run(cleaned).expect("power");
            cleaned.expect("no faults");
            self.note_aside();
            assert!(store.tombstones().is_empty() || self.is_damaged, "deletions wait for ever");
            self.check().expect("power");
            self.now_ms += 100 * HOUR_MS;
        }
        assert!(self.pending.is_empty());
        if !self.is_damaged {
            // Those that the disk did not remove wait for the next start.
            self.check_files(usize::MAX);
            self.check_snapshots();
        }
    }

    /// Each snapshot is a folder of blocks that holds what the blocks held then.
    fn check_snapshots(&mut self) {
        self.pending.clear();
        for (path, want) in std::mem::take(&mut self.snapshots) {
            let folder = path.to_string_lossy().into_owned();
            let opened = drive(&self.disk, open(&self.disk, &folder)).expect("power");
            let (store, report) = opened.expect("no faults");
            assert!(report.missing.is_empty() && report.set_aside.is_empty(), "{report:?}");
            let found = self.find(&Rc::new(store), ALWAYS).expect("power").expect("no faults");
            assert_eq!(found, want, "the snapshot {folder}");
            let manifest = self.disk.contents(&path.join("MANIFEST"));
            assert_eq!(manifest.as_deref(), Some(&b"a manifest"[..]));
        }
    }
}

type Opened = (BlockStore<FakeDisk>, tidegate::background::blocks::store::OpenReport);

async fn open(
    disk: &FakeDisk,
    data: &str,
) -> Result<Opened, tidegate::background::blocks::store::StoreFault> {
    BlockStore::open(disk, &Path::new(data).join("blocks"), NODE, CACHE_BYTES).await
}
