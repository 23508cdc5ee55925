//! Several blocks -> one: series by series in their common order, deletions applied.
//!
//! Memory: a batch of series of each source (at most [`BATCH_BYTES`] and one page) and
//! [`CACHE_BYTES`] of pages, whatever their size; and the distinct label pairs of what is written.
//! Cost: reading and writing; samples are decoded only where blocks overlap, chunks are short or
//! something was deleted.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::rc::Rc;

use roaring::RoaringBitmap;

use super::block::{Block, BlockSink, CachedSource};
use super::cache::PageCache;
use super::flush::errno_of;
use super::plan::{PlannedBlock, StoreRules, plan_merge, plan_retention};
use super::store::{BlockStore, is_needed};
use crate::background::disk::Disk;
use crate::model::chunk::Chunk;
use crate::model::labels;
use crate::node::block::reader::{BlockIndex, BlockReader, BlockSeries, BlockSource, ChunkEntry};
use crate::node::block::recode::{RecodeInput, Recoder};
use crate::node::block::tombstone::HiddenRange;
use crate::node::block::writer::BlockOrigin;
use crate::node::block::{BlockFault, BlockSelectFault, Tombstone};

/// Chunks of one source in memory.
const BATCH_BYTES: u64 = 1 << 20;
/// Pages of all sources in memory. Not those of queries: what is merged is read once, and goes.
const CACHE_BYTES: u64 = 32 << 20;

/// What a step of the store's upkeep did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// There was nothing to do.
    Nothing,
    /// So many blocks became one, or none.
    Merged { blocks: u64 },
    /// So many blocks were too old, or too much.
    Retired { blocks: u64 },
    /// A block was damaged and set aside.
    SetAside { block: u64 },
}

/// Does the next thing that is due. `settled`: see [`BlockStore::drop_needless_tombstones`].
pub async fn upkeep<D: Disk>(
    store: &BlockStore<D>,
    rules: &StoreRules,
    now_ms: i64,
    settled: u64,
) -> Result<Upkeep, i32> {
    let planned = planned(store);
    let old = plan_retention(&planned, rules, now_ms);
    if !old.is_empty() {
        let blocks = old.len() as u64;
        store.replace(&old, &[]).await.map_err(errno_of)?;
        store.drop_needless_tombstones(settled).await?;
        return Ok(Upkeep::Retired { blocks });
    }
    let Some(sources) = plan_merge(&planned, rules, now_ms) else {
        store.drop_needless_tombstones(settled).await?;
        return Ok(Upkeep::Nothing);
    };
    if !has_room(store, rules, &planned, &sources).await? {
        return Ok(Upkeep::Nothing);
    }
    merge(store, &sources).await
}

/// The blocks as the plan sees them.
pub fn planned<D: Disk>(store: &BlockStore<D>) -> Vec<PlannedBlock> {
    let blocks = store.blocks();
    let plan =
        |block: &Rc<Block<D>>| PlannedBlock { meta: block.meta.clone(), bytes: block.len_bytes };
    blocks.iter().map(plan).collect()
}

/// Whether the merged block fits above the floor.
async fn has_room<D: Disk>(
    store: &BlockStore<D>,
    rules: &StoreRules,
    planned: &[PlannedBlock],
    sources: &[u64],
) -> Result<bool, i32> {
    let is_source = |block: &&PlannedBlock| sources.contains(&block.meta.id);
    let bytes: u64 = planned.iter().filter(is_source).map(|block| block.bytes).sum();
    let space = store.disk().space(store.folder()).await?;
    Ok(space.free_bytes >= bytes.saturating_add(rules.disk_free_min_bytes))
}

/// Writes anew, one by one, the blocks that hold something deleted; returns how many.
pub async fn clean_tombstones<D: Disk>(store: &BlockStore<D>, settled: u64) -> Result<u64, i32> {
    let mut cleaned = 0;
    loop {
        let tombstones = store.tombstones();
        let dirty = store
            .blocks()
            .into_iter()
            .find(|block| tombstones.iter().any(|tombstone| is_needed(tombstone, &block.meta)));
        let Some(block) = dirty else { break };
        merge(store, &[block.meta.id]).await?;
        cleaned += 1;
    }
    store.drop_needless_tombstones(settled).await?;
    Ok(cleaned)
}

/// Makes one block of those with the ids `sources`.
pub async fn merge<D: Disk>(store: &BlockStore<D>, sources: &[u64]) -> Result<Upkeep, i32> {
    let blocks: Vec<_> =
        store.blocks().into_iter().filter(|block| sources.contains(&block.meta.id)).collect();
    let tombstones = store.tombstones();
    let tombstones_applied = store.newest_tombstone();
    let id = store.next_block_id();
    let metas = || blocks.iter().map(|block| &block.meta);
    let mut replaced = sources.to_vec();
    replaced.extend(store.leftover());
    let origin = BlockOrigin {
        id,
        node: store.node(),
        level: metas().map(|meta| meta.level).max().unwrap_or(0) + 1,
        oldest_flush: metas().map(|meta| meta.oldest_flush).min().unwrap_or(0),
        newest_flush: metas().map(|meta| meta.newest_flush).max().unwrap_or(0),
        tombstones_applied,
        sources: replaced,
    };
    let mut sink = BlockSink::create(store.disk(), store.folder(), origin).await?;
    match copy(store.disk(), &blocks, &tombstones, &mut sink).await {
        Ok(()) => {}
        Err(fault) => {
            sink.abandon().await;
            let (block, fault) = fault;
            if block == 0 || !fault.is_damage() {
                return Err(errno_of(fault));
            }
            store.set_aside(block, fault).await?;
            return Ok(Upkeep::SetAside { block });
        }
    }
    let added = match sink.finish().await {
        Ok(meta) => meta.map(|meta| meta.id),
        Err(errno) => {
            store.discard(&[id]).await;
            return Err(errno);
        }
    };
    store.replace(sources, added.as_slice()).await.map_err(errno_of)?;
    Ok(Upkeep::Merged { blocks: sources.len() as u64 })
}

/// Copies all series of `blocks` to `sink`. A fault comes with the block that has it, or the id 0.
async fn copy<D: Disk>(
    disk: &D,
    blocks: &[Rc<Block<D>>],
    tombstones: &[Rc<Tombstone>],
    sink: &mut BlockSink<D>,
) -> Result<(), (u64, BlockFault)> {
    let mut indexes = Vec::new();
    for block in blocks {
        let index = block.index().await.map_err(|fault| (block.meta.id, fault))?;
        indexes.push(index);
    }
    let cache = PageCache::new(CACHE_BYTES);
    let cached: Vec<_> = blocks.iter().map(|block| CachedSource { block, cache: &cache }).collect();
    let mut sources = Vec::new();
    for (source, index) in cached.iter().zip(&indexes) {
        let id = source.block.meta.id;
        let source = Source::open(source, index, tombstones).await;
        let mut source = source.map_err(|fault| (id, fault))?;
        source.fill().await.map_err(|fault| (id, fault))?;
        sources.push(source);
    }
    let mut recoder = Recoder::default();
    loop {
        let Some(first) = first_of(&sources) else { return Ok(()) };
        let (tenant, labels) = (first.tenant, first.labels.clone());
        let (mut inputs, mut blocks) = (Vec::new(), Vec::new());
        // In the order of their flushes, so that the later one wins.
        for source in &mut sources {
            let is_same = source
                .ready
                .front()
                .is_some_and(|(series, _)| series.tenant == tenant && series.labels == labels);
            if is_same && let Some((_, chunks)) = source.ready.pop_front() {
                let id = source.block;
                blocks.extend(chunks.iter().map(|_| id));
                inputs.extend(chunks);
                source.fill().await.map_err(|fault| (id, fault))?;
            }
        }
        let chunks = recoder.recode_all(inputs.clone()).map_err(|_| {
            let is_bad = |input: &RecodeInput| input.chunk.decode(&mut Vec::new()).is_err();
            let bad = inputs.iter().position(is_bad).map_or(0, |at| blocks[at]);
            (bad, BlockFault::Malformed { offset: 0 })
        })?;
        if !chunks.is_empty() {
            let columns = chunks.iter().map(Chunk::columns);
            let added = sink.add_series(tenant, &labels, columns).await;
            added.map_err(|errno| (0, BlockFault::Io { errno }))?;
        }
        disk.yield_if_needed().await;
    }
}

fn compare(one: &BlockSeries, other: &BlockSeries) -> Ordering {
    one.tenant
        .cmp(&other.tenant)
        .then_with(|| labels::iterate(&one.labels).cmp(labels::iterate(&other.labels)))
}

fn first_of<'a, D: Disk>(sources: &'a [Source<'_, D>]) -> Option<&'a BlockSeries> {
    let fronts = sources.iter().filter_map(|source| source.ready.front());
    fronts.map(|(series, _)| series).min_by(|one, other| compare(one, other))
}

/// One of the blocks that are merged.
struct Source<'a, D: Disk> {
    block: u64,
    reader: BlockReader<'a, CachedSource<'a, D>>,
    page: usize,
    /// Series of a page whose chunks are not read yet.
    waiting: VecDeque<BlockSeries>,
    ready: VecDeque<(BlockSeries, Vec<RecodeInput>)>,
    /// What was deleted from it: series and range.
    hidden: Vec<(RoaringBitmap, HiddenRange)>,
}

impl<'a, D: Disk> Source<'a, D> {
    async fn open(
        source: &'a CachedSource<'a, D>,
        index: &'a BlockIndex,
        tombstones: &[Rc<Tombstone>],
    ) -> Result<Self, BlockFault> {
        let reader = BlockReader::new(index, source);
        let hidden = hidden_of(&reader, tombstones).await?;
        let (waiting, ready) = (VecDeque::new(), VecDeque::new());
        Ok(Self { block: source.block.meta.id, reader, page: 0, waiting, ready, hidden })
    }

    /// Reads on until a series is ready, or there is none.
    async fn fill(&mut self) -> Result<(), BlockFault> {
        while self.ready.is_empty() {
            if self.waiting.is_empty() {
                if self.page >= self.reader.page_count() {
                    return Ok(());
                }
                self.waiting = self.reader.series_of_page(self.page, |_| true).await?.into();
                self.page += 1;
                continue;
            }
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < BATCH_BYTES
                && let Some(series) = self.waiting.pop_front()
            {
                bytes += series.chunks.iter().map(ChunkEntry::len_bytes).sum::<u64>();
                batch.push(series);
            }
            let entries: Vec<_> =
                batch.iter().flat_map(|series| series.chunks.iter().copied()).collect();
            let mut chunks = self.reader.chunks(&entries).await?.into_iter();
            for series in batch {
                let ranges: Vec<_> = self
                    .hidden
                    .iter()
                    .filter(|(ids, _)| ids.contains(series.id))
                    .map(|(_, range)| *range)
                    .collect();
                let inputs = chunks.by_ref().take(series.chunks.len());
                let hide = |chunk| RecodeInput { chunk, hidden: ranges.clone() };
                let inputs = inputs.map(hide).collect();
                self.ready.push_back((series, inputs));
            }
        }
        Ok(())
    }
}

/// The series of a block that deletions speak of, and what they hide of them.
pub(super) async fn hidden_of<S: BlockSource>(
    reader: &BlockReader<'_, S>,
    tombstones: &[Rc<Tombstone>],
) -> Result<Vec<(RoaringBitmap, HiddenRange)>, BlockFault> {
    let mut hidden = Vec::new();
    for tombstone in tombstones.iter().filter(|each| is_needed(each, reader.meta())) {
        let selected = reader.select(tombstone.tenant, &tombstone.matchers).await;
        let selected = match selected {
            Ok(selected) => selected,
            Err(BlockSelectFault::Block(fault)) => return Err(fault),
            // It compiled when it was written down.
            Err(BlockSelectFault::BadRegex(_)) => return Err(BlockFault::Malformed { offset: 0 }),
        };
        if !selected.is_empty() {
            hidden.push((selected, tombstone.range()));
        }
    }
    Ok(hidden)
}
