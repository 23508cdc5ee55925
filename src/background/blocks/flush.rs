//! What leaves the heads -> blocks, one per run and aligned range of two hours; of samples that are
//! scattered over many ranges, as an import of years is, one per longer window. Each block is an
//! open file, and a merge by and by.
//!
//! A run is what gathered of one shard until its labels and lists take [`RUN_BYTES`]; the chunks'
//! bytes are still shared with the head. In: series in any order. Out: how many of them, in the
//! order of sending, are in durable blocks. Cost: decoding and encoding each sample once, 30-40 ns.

use std::rc::Rc;

use super::block::BlockSink;
use super::plan::LADDER_STEP;
use super::store::BlockStore;
use crate::background::disk::Disk;
use crate::model::labels;
use crate::node::block::recode::{RecodeInput, Recoder, is_in_window, windows_of};
use crate::node::block::writer::BlockOrigin;
use crate::node::block::{BLOCK_RANGE_MS, BlockFault, FlushSeries};

/// What a run may gather.
pub const RUN_BYTES: usize = 64 << 20;
/// What a series costs in a run beside its labels: its lists.
const SERIES_BYTES: usize = 96;
const CHUNK_BYTES: usize = 16;
/// More blocks of a run than this are put into longer windows...
const BLOCKS_FEW: usize = 16;
/// ...even longer than those of merges from so many on. Blocks of those are not merged any more.
const BLOCKS_MAX: usize = 1024;

/// The flush of one shard.
pub struct Flush {
    tombstones_applied: u64,
    run_bytes_max: usize,
    window_ms_max: i64,
    run: Vec<FlushSeries>,
    run_bytes: usize,
    /// Series in published blocks, since the beginning.
    published: u64,
    recoder: Recoder,
}

impl Flush {
    /// Begins one whose samples have seen the deletions up to `tombstones_applied`.
    pub fn new(tombstones_applied: u64, run_bytes_max: usize) -> Self {
        let recoder = Recoder::default();
        let (run, run_bytes, published) = (Vec::new(), 0, 0);
        let window_ms_max = BLOCK_RANGE_MS;
        Self {
            tombstones_applied,
            run_bytes_max,
            window_ms_max,
            run,
            run_bytes,
            published,
            recoder,
        }
    }

    /// The same, with windows as long as those of merges.
    pub fn with_windows(self, window_ms_max: i64) -> Self {
        Self { window_ms_max, ..self }
    }

    /// The deletions that its samples have seen.
    pub fn tombstones_applied(&self) -> u64 {
        self.tombstones_applied
    }

    /// Takes some series. Returns how many are in published blocks if that has changed.
    pub async fn handle_series<D: Disk>(
        &mut self,
        store: &BlockStore<D>,
        mut series: Vec<FlushSeries>,
    ) -> Result<Option<u64>, i32> {
        for one in &series {
            self.run_bytes += one.labels.len() + SERIES_BYTES + one.chunks.len() * CHUNK_BYTES;
        }
        self.run.append(&mut series);
        if self.run_bytes < self.run_bytes_max {
            return Ok(None);
        }
        self.publish(store).await.map(Some)
    }

    /// Publishes the rest; returns how many series there were in all.
    pub async fn finish<D: Disk>(&mut self, store: &BlockStore<D>) -> Result<u64, i32> {
        self.publish(store).await
    }

    async fn publish<D: Disk>(&mut self, store: &BlockStore<D>) -> Result<u64, i32> {
        let mut run = std::mem::take(&mut self.run);
        self.run_bytes = 0;
        let count = run.len() as u64;
        run.sort_by(|one, other| {
            one.tenant
                .cmp(&other.tenant)
                .then_with(|| labels::iterate(&one.labels).cmp(labels::iterate(&other.labels)))
        });
        let mut written = Vec::new();
        let (window_ms, starts) = self.windows(&run);
        for start_ms in starts {
            match self.write_block(store, &run, (start_ms, window_ms)).await {
                Ok(id) => written.extend(id),
                Err(errno) => {
                    store.discard(&written).await;
                    return Err(errno);
                }
            }
        }
        if !written.is_empty() {
            let added = store.add_flushed(&written, self.tombstones_applied).await;
            added.map_err(errno_of)?;
        }
        self.published += count;
        Ok(self.published)
    }

    /// The shortest windows that make few enough blocks, and where they start.
    fn windows(&self, run: &[FlushSeries]) -> (i64, Vec<i64>) {
        let chunks = || run.iter().flat_map(|series| &series.chunks);
        let mut window_ms = BLOCK_RANGE_MS;
        let mut starts = windows_of(chunks(), window_ms);
        loop {
            let longer_ms = window_ms.saturating_mul(LADDER_STEP);
            let is_few = starts.len() <= BLOCKS_FEW;
            if is_few || longer_ms > self.window_ms_max && starts.len() <= BLOCKS_MAX {
                return (window_ms, starts);
            }
            window_ms = longer_ms;
            starts = windows_of(chunks(), window_ms);
        }
    }

    async fn write_block<D: Disk>(
        &mut self,
        store: &BlockStore<D>,
        run: &[FlushSeries],
        (start_ms, window_ms): (i64, i64),
    ) -> Result<Option<u64>, i32> {
        let id = store.next_block_id();
        let origin = BlockOrigin {
            id,
            node: store.node(),
            // A longer one is as if its ranges had been merged.
            level: u32::from(window_ms > BLOCK_RANGE_MS),
            oldest_flush: id,
            newest_flush: id,
            tombstones_applied: self.tombstones_applied,
            sources: store.leftover(),
        };
        let mut sink = BlockSink::create(store.disk(), store.folder(), origin).await?;
        for series in run {
            let inputs: Vec<_> = series
                .chunks
                .iter()
                .filter(|chunk| is_in_window(chunk, start_ms, window_ms))
                .map(|chunk| RecodeInput { chunk: chunk.clone(), hidden: Vec::new() })
                .collect();
            if inputs.is_empty() {
                continue;
            }
            if let Err(errno) = sink.recode(&mut self.recoder, series, inputs).await {
                sink.abandon().await;
                return Err(errno);
            }
            store.disk().yield_if_needed().await;
        }
        match sink.finish().await {
            Ok(meta) => Ok(meta.map(|meta| meta.id)),
            Err(errno) => {
                store.discard(&[id]).await;
                Err(errno)
            }
        }
    }
}

/// The errno of a fault; damage of what was just written is the disk's.
pub(super) fn errno_of(fault: BlockFault) -> i32 {
    match fault {
        BlockFault::Io { errno } => errno,
        _ => libc::EIO,
    }
}

impl<D: Disk> BlockSink<D> {
    async fn recode(
        &mut self,
        recoder: &mut Recoder,
        series: &FlushSeries,
        inputs: Vec<RecodeInput>,
    ) -> Result<(), i32> {
        let chunks = recoder.recode_all(inputs).map_err(|fault| {
            tracing::error!(?fault, "a chunk in memory does not decode; nothing is flushed");
            libc::EIO
        })?;
        let columns = chunks.iter().map(crate::model::chunk::Chunk::columns);
        self.add_series(series.tenant, &series.labels, columns).await
    }
}

/// The store that jobs share.
pub type SharedStore<D> = Rc<BlockStore<D>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::background::disk::plain::PlainDisk;
    use crate::base::ready::run_ready;
    use crate::model::chunk::Chunk;
    use crate::model::matcher::Matcher;
    use crate::model::series::TenantId;
    use crate::node::block::Tombstone;

    /// A shard's flush waited for minutes behind that of another shard. Meanwhile samples of it
    /// were deleted, all shards had seen that, and as no block needed the deletion it was
    /// forgotten. Then the flush became a block, which brought what was deleted back for good.
    ///
    /// Red when a flush is listed whatever was forgotten.
    #[test]
    fn a_flush_that_waited_brings_nothing_deleted_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut labels = Vec::new();
        labels::encode_label(&mut labels, b"__name__", b"up");
        let series = |time_ms| FlushSeries {
            tenant: TenantId(0),
            labels: labels.clone().into(),
            chunks: vec![Chunk::encode(&[time_ms], &[0.5])],
        };
        run_ready(async {
            let opened = BlockStore::open(&PlainDisk, &folder.path().join("blocks"), 1, 0).await;
            let (store, _) = opened.expect("an empty folder");
            let mut waiting = Flush::new(0, RUN_BYTES);
            waiting.handle_series(&store, vec![series(7)]).await.expect("it is gathered");
            let matchers = vec![Matcher::equal("__name__", "up")];
            let deleted =
                Tombstone { id: 0, tenant: TenantId(0), matchers, start_ms: 0, end_ms: 9 };
            let added = store.add_tombstone(deleted).await.expect("a good disk");
            let id = added.expect("the first").id;
            store.drop_needless_tombstones(id).await.expect("a good disk");
            assert_eq!(store.tombstones(), []);
            assert_eq!(waiting.finish(&store).await, Err(libc::ESTALE));
            assert_eq!(store.blocks().len(), 0);
            let files = std::fs::read_dir(store.folder()).expect("a folder").count();
            assert_eq!(files, 2, "the list and the folder for what is set aside");
            let mut again = Flush::new(id, RUN_BYTES);
            again.handle_series(&store, vec![series(8)]).await.expect("it is gathered");
            assert_eq!(again.finish(&store).await, Ok(1));
            assert_eq!(store.blocks().len(), 1);
        });
    }

    /// An import of a year made 4,380 blocks of each flush: more open files than many hosts allow,
    /// so that nothing was flushed any more, and a minute of syncs.
    ///
    /// Red when the windows stay two hours, or are longer than they need to be.
    #[test]
    fn samples_of_years_make_few_blocks() {
        const HOUR_MS: i64 = 3_600_000;
        #[track_caller]
        fn check(times_ms: impl Iterator<Item = i64>, window_ms_max: i64, want: (i64, usize)) {
            let flush = Flush::new(0, RUN_BYTES).with_windows(window_ms_max);
            let chunks = times_ms.map(|time_ms| Chunk::encode(&[time_ms], &[0.5])).collect();
            let series = FlushSeries { tenant: TenantId(0), labels: Box::default(), chunks };
            let run = [series];
            let (window_ms, starts) = flush.windows(&run);
            assert_eq!((window_ms / HOUR_MS, starts.len()), want);
            let is_in = |chunk: &Chunk, start: i64| is_in_window(chunk, start, window_ms);
            for chunk in &run[0].chunks {
                assert_eq!(starts.iter().filter(|start| is_in(chunk, **start)).count(), 1);
            }
        }
        let hours = |count: i64| (0..count).map(|hour| (hour - 20) * HOUR_MS);
        let three_weeks_ms = 21 * 24 * HOUR_MS;
        check(hours(32), three_weeks_ms, (2, 16));
        check(hours(40), three_weeks_ms, (8, 6));
        check(hours(365 * 24), three_weeks_ms, (128, 70));
        check(hours(365 * 24), 3 * 24 * HOUR_MS, (32, 275));
        check(hours(365 * 24), 2 * HOUR_MS, (32, 275));
        let wide = (-20..20).map(|at| at * (i64::MAX / 20)).chain([i64::MIN, i64::MAX]);
        check(wide, three_weeks_ms, (128, 41));
        let scattered = (-1500..1500).map(|at: i64| at * (i64::MAX / 1500));
        let flush = Flush::new(0, RUN_BYTES).with_windows(three_weeks_ms);
        let chunks = scattered.map(|time_ms| Chunk::encode(&[time_ms], &[0.5])).collect();
        let run = [FlushSeries { tenant: TenantId(0), labels: Box::default(), chunks }];
        assert!(flush.windows(&run).1.len() <= BLOCKS_MAX);
    }
}
