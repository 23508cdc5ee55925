//! One query's walk over the blocks, from the one that wins to the one that loses.
//!
//! In: a request. Out: pieces of the answer, as a shard's head gives them (`node/select`). Memory:
//! one piece of [`ANSWER_BYTES`] and the labels of a page of series. What was deleted is left out.
//! A damaged block is set aside, and every answer from this one on says that something is missing.

use std::rc::Rc;

use roaring::RoaringBitmap;

use super::block::Block;
use super::merge::hidden_of;
use super::store::BlockStore;
use crate::background::disk::Disk;
use crate::model::chunk::Chunk;
use crate::node::block::reader::{BlockIndex, BlockReader, BlockSeries, BlockSource, ChunkEntry};
use crate::node::block::recode::{RecodeInput, Recoder};
use crate::node::block::request::BlockSelect;
use crate::node::block::tombstone::HiddenRange;
use crate::node::block::{BlockFault, BlockSelectFault, Tombstone};
use crate::wire::select::{SelectAnswer, SelectFault, SelectRequest, SelectWant, SelectedSeries};

/// An answer is given out once it holds so many bytes.
const ANSWER_BYTES: u64 = 1 << 20;
/// Most series of an answer.
const ANSWER_SERIES_MAX: usize = 512;
/// Most strings of an answer.
const ANSWER_STRINGS_MAX: usize = 4096;

/// Why a select ends before its end.
enum Stop {
    /// The asker has left.
    Left,
    /// It is told so.
    Fault(SelectFault),
    /// The block of this id.
    Block(u64, BlockFault),
}

/// Answers `select`. An `Err` says that the disk failed, and that the asker was told. `tell_lost`
/// is called when a block was set aside, before the asker hears the end.
pub async fn answer<D: Disk>(
    store: &BlockStore<D>,
    select: BlockSelect,
    tell_lost: impl Fn(),
) -> Result<(), BlockFault> {
    let BlockSelect { request, reply } = select;
    // Both of one moment: a block that is merged meanwhile is read to its end as it was, and needs
    // the deletions that nothing else needs any more.
    let (blocks, tombstones) = (store.blocks(), store.tombstones());
    let mut series_most = 0;
    for block in blocks.into_iter().rev() {
        if !block.meta.overlaps(request.start_ms, request.end_ms) {
            continue;
        }
        // Each block counts for itself: most series are in all of them, and the asker, who sees
        // which are the same, counts those of all together.
        let mut series_count = 0;
        let walked = walk(&tombstones, &block, &request, (&reply, &mut series_count)).await;
        series_most = series_most.max(series_count);
        match walked {
            Ok(()) => {}
            Err(Stop::Left) => return Ok(()),
            Err(Stop::Fault(fault)) => {
                // An asker that has left needs no answer.
                let _ = reply.send_async(SelectAnswer::Fault(fault)).await;
                return Ok(());
            }
            Err(Stop::Block(block, fault)) if fault.is_damage() => {
                if let Err(errno) = store.set_aside(block, fault).await {
                    tracing::error!(block, errno, "cannot set a damaged block aside");
                }
                tell_lost();
            }
            Err(Stop::Block(block, fault)) => {
                let text = format!("block {block}: {fault}");
                let _ = reply.send_async(SelectAnswer::Fault(SelectFault::Disk(text))).await;
                return Err(fault);
            }
        }
    }
    let _ = reply.send_async(SelectAnswer::End { series_count: series_most }).await;
    Ok(())
}

async fn walk<D: Disk>(
    tombstones: &[Rc<Tombstone>],
    block: &Rc<Block<D>>,
    request: &SelectRequest,
    (reply, series_count): (&flume::Sender<SelectAnswer>, &mut u32),
) -> Result<(), Stop> {
    let damaged = |fault| Stop::Block(block.meta.id, fault);
    let index: Rc<BlockIndex> = block.index().await.map_err(damaged)?;
    let reader = BlockReader::new(&index, &**block);
    let selected = match reader.select(request.tenant, &request.matchers).await {
        Ok(selected) => selected,
        Err(BlockSelectFault::BadRegex(text)) => {
            return Err(Stop::Fault(SelectFault::BadRegex(text)));
        }
        Err(BlockSelectFault::Block(fault)) => return Err(damaged(fault)),
    };
    let hidden = hidden_of(&reader, tombstones).await.map_err(damaged)?;
    let mut walk = Walk {
        block: block.meta.id,
        reader,
        hidden,
        request,
        reply,
        series: Vec::new(),
        bytes: 0,
        recoder: Recoder::default(),
    };
    match &request.want {
        SelectWant::LabelNames => {
            let names = walk.reader.label_names(request.tenant, &selected).await;
            walk.send_strings(names.map_err(damaged)?).await
        }
        SelectWant::LabelValues(name) => {
            let values = walk.reader.label_values(request.tenant, name.as_bytes(), &selected);
            let values = values.await.map_err(damaged)?;
            walk.send_strings(values).await
        }
        SelectWant::Labels | SelectWant::Samples => walk.series(&selected, series_count).await,
    }
}

/// The walk over one block.
struct Walk<'a, D: Disk> {
    block: u64,
    reader: BlockReader<'a, Block<D>>,
    hidden: Vec<(RoaringBitmap, HiddenRange)>,
    request: &'a SelectRequest,
    reply: &'a flume::Sender<SelectAnswer>,
    series: Vec<BlockSeries>,
    bytes: u64,
    recoder: Recoder,
}

impl<D: Disk> Walk<'_, D> {
    fn damaged(&self, fault: BlockFault) -> Stop {
        Stop::Block(self.block, fault)
    }

    async fn send(&self, answer: SelectAnswer) -> Result<(), Stop> {
        self.reply.send_async(answer).await.map_err(|_| Stop::Left)
    }

    async fn send_strings(&self, strings: Vec<Box<[u8]>>) -> Result<(), Stop> {
        for part in strings.chunks(ANSWER_STRINGS_MAX) {
            let text = part.iter().map(|bytes| String::from_utf8_lossy(bytes).into());
            self.send(SelectAnswer::Strings(text.collect())).await?;
        }
        Ok(())
    }

    async fn series(
        &mut self,
        selected: &RoaringBitmap,
        series_count: &mut u32,
    ) -> Result<(), Stop> {
        let mut next = selected.min();
        while let Some(id) = next {
            let (page, end) = self.reader.page_of(id);
            let found = self.reader.series_of_page(page, |id| selected.contains(id)).await;
            for mut series in found.map_err(|fault| self.damaged(fault))? {
                let (start_ms, end_ms) = (self.request.start_ms, self.request.end_ms);
                series.chunks.retain(|chunk| chunk.overlaps(start_ms, end_ms));
                if series.chunks.is_empty() {
                    continue;
                }
                *series_count += 1;
                if *series_count > self.request.series_max {
                    let series_max = self.request.series_max;
                    return Err(Stop::Fault(SelectFault::TooManySeries { series_max }));
                }
                self.bytes += series.chunks.iter().map(ChunkEntry::len_bytes).sum::<u64>();
                self.series.push(series);
                if self.bytes >= ANSWER_BYTES || self.series.len() >= ANSWER_SERIES_MAX {
                    self.send_series().await?;
                }
            }
            next = selected.range(end..).next();
            self.reader_yield().await;
        }
        self.send_series().await
    }

    async fn reader_yield(&self) {
        self.reader.source().yield_if_needed().await;
    }

    /// Gives out the series that gathered, with what is wanted of them.
    async fn send_series(&mut self) -> Result<(), Stop> {
        let series = std::mem::take(&mut self.series);
        self.bytes = 0;
        if series.is_empty() {
            return Ok(());
        }
        let wants_samples = self.request.want == SelectWant::Samples;
        // Labels alone need the chunks only where it is not plain that they have a sample in range.
        let (start_ms, end_ms) = (self.request.start_ms, self.request.end_ms);
        let hidden: RoaringBitmap =
            self.hidden.iter().fold(RoaringBitmap::new(), |all, (ids, _)| all | ids);
        let is_plain = |series: &BlockSeries| {
            let inside = |ms: i64| start_ms <= ms && ms <= end_ms;
            let is_hidden = hidden.contains(series.id);
            !is_hidden && series.chunks.iter().any(|c| inside(c.min_ms) || inside(c.max_ms))
        };
        let entries: Vec<_> = series
            .iter()
            .filter(|series| wants_samples || !is_plain(series))
            .flat_map(|series| series.chunks.iter().copied())
            .collect();
        let chunks = self.reader.chunks(&entries).await.map_err(|fault| self.damaged(fault))?;
        let mut chunks = chunks.into_iter();
        let mut answer = Vec::with_capacity(series.len());
        for one in series {
            let mut own = Vec::new();
            if wants_samples || !is_plain(&one) {
                own = chunks.by_ref().take(one.chunks.len()).collect();
                own = self.without_hidden(one.id, own)?;
                // Who wants samples sees for himself whether there are any.
                if own.is_empty() || !wants_samples && !self.has_sample(&own)? {
                    continue;
                }
                if !wants_samples {
                    own.clear();
                }
            }
            let samples = Vec::new();
            answer.push(SelectedSeries { labels: one.labels, chunks: own, samples });
        }
        if answer.is_empty() { Ok(()) } else { self.send(SelectAnswer::Series(answer)).await }
    }

    fn without_hidden(&mut self, id: u32, chunks: Vec<Chunk>) -> Result<Vec<Chunk>, Stop> {
        let of_series = self.hidden.iter().filter(|(ids, _)| ids.contains(id));
        let hidden: Vec<_> = of_series.map(|(_, range)| *range).collect();
        if hidden.is_empty() {
            return Ok(chunks);
        }
        let hide = |chunk| RecodeInput { chunk, hidden: hidden.clone() };
        let recoded = self.recoder.recode_all(chunks.into_iter().map(hide).collect());
        recoded.map_err(|_| Stop::Block(self.block, BlockFault::Malformed { offset: 0 }))
    }

    /// Whether a sample lies in the range; decodes only what both ends of lie outside.
    fn has_sample(&self, chunks: &[Chunk]) -> Result<bool, Stop> {
        let (start_ms, end_ms) = (self.request.start_ms, self.request.end_ms);
        let inside = |ms: i64| start_ms <= ms && ms <= end_ms;
        for chunk in chunks {
            if inside(chunk.min_timestamp_ms()) || inside(chunk.max_timestamp_ms()) {
                return Ok(true);
            }
            let mut samples = Vec::new();
            let decoded = chunk.decode(&mut samples);
            decoded.map_err(|_| self.damaged(BlockFault::Malformed { offset: 0 }))?;
            if samples.iter().any(|sample| inside(sample.timestamp_ms)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::background::blocks::block::block_file_name;
    use crate::background::blocks::flush::Flush;
    use crate::background::blocks::merge::clean_tombstones;
    use crate::background::disk::plain::PlainDisk;
    use crate::base::ready::run_ready;
    use crate::model::labels::encode_label;
    use crate::model::matcher::Matcher;
    use crate::model::series::TenantId;
    use crate::node::block::FlushSeries;
    use crate::node::block::format::BLOCK_EDGE_BYTES;

    /// A store with a block for each of `times`, all of one series, the last the newest.
    fn store(folder: &std::path::Path, times: &[i64]) -> BlockStore<PlainDisk> {
        run_ready(async {
            let opened = BlockStore::open(&PlainDisk, &folder.join("blocks"), 1, 1 << 20).await;
            let (store, _) = opened.expect("an empty folder");
            let mut labels = Vec::new();
            encode_label(&mut labels, b"__name__", b"metric_1");
            for time_ms in times {
                let mut flush = Flush::new(0, 1 << 20);
                let one = FlushSeries {
                    tenant: TenantId(0),
                    labels: labels.clone().into(),
                    chunks: vec![Chunk::encode(&[*time_ms], &[0.5])],
                };
                flush.handle_series(&store, vec![one]).await.expect("a good disk");
                flush.finish(&store).await.expect("a good disk");
            }
            store
        })
    }

    /// Times of all samples that are given out; `meanwhile` runs when the first answer is ready.
    fn ask(
        store: &BlockStore<PlainDisk>,
        series_max: u32,
        meanwhile: impl FnOnce(),
    ) -> Result<Vec<i64>, SelectFault> {
        let request = SelectRequest {
            tenant: TenantId(0),
            matchers: vec![Matcher::equal("__name__", "metric_1")],
            start_ms: i64::MIN,
            end_ms: i64::MAX,
            want: SelectWant::Samples,
            series_max,
        };
        // No room: each answer waits until it is taken.
        let (reply, answers) = flume::bounded(0);
        let mut run = pin!(answer(store, BlockSelect { request: request.into(), reply }, || ()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(run.as_mut().poll(&mut context).is_pending(), "an answer waits");
        meanwhile();
        let mut times = Vec::new();
        loop {
            match answers.try_recv() {
                Ok(SelectAnswer::Series(series)) => {
                    let mut samples = Vec::new();
                    for chunk in series.iter().flat_map(|one| &one.chunks) {
                        chunk.decode(&mut samples).expect("as written");
                    }
                    times.extend(samples.iter().map(|sample| sample.timestamp_ms));
                }
                Ok(SelectAnswer::Fault(fault)) => return Err(fault),
                Ok(_) | Err(flume::TryRecvError::Disconnected) => return Ok(times),
                Err(flume::TryRecvError::Empty) => {
                    let _ = run.as_mut().poll(&mut context);
                }
            }
        }
    }

    /// A query that was under way while a deletion was applied to a block that it had still to read
    /// found the block as it was, and the deletion forgotten: what had been deleted, an hour ago
    /// perhaps, was in its answer.
    ///
    /// Red when the deletions are looked up block by block.
    #[test]
    fn what_is_deleted_stays_so_for_queries_under_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path(), &[1, 2]);
        let matchers = vec![Matcher::equal("__name__", "metric_1")];
        let deleted = Tombstone { id: 0, tenant: TenantId(0), matchers, start_ms: 1, end_ms: 1 };
        run_ready(store.add_tombstone(deleted)).expect("a good disk").expect("the first");
        let clean = || {
            assert_eq!(run_ready(clean_tombstones(&store, 1)), Ok(1));
            assert_eq!(store.tombstones(), []);
        };
        assert_eq!(ask(&store, 10, clean), Ok(vec![2]));
        assert_eq!(ask(&store, 10, || {}), Ok(vec![2]));
    }

    /// The removal of a file that was replaced is undone by a power cut, when the deletion that its
    /// replacement has seen is already forgotten.
    ///
    /// Red when a start takes a block that another one replaces.
    #[test]
    fn what_is_deleted_stays_so_when_a_replaced_block_is_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = store(folder.path(), &[1, 2]);
        let matchers = vec![Matcher::equal("__name__", "metric_1")];
        let deleted = Tombstone { id: 0, tenant: TenantId(0), matchers, start_ms: 1, end_ms: 1 };
        run_ready(opened.add_tombstone(deleted)).expect("a good disk").expect("the first");
        let blocks = || std::fs::read_dir(folder.path().join("blocks")).expect("it is there");
        let is_block = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "blk");
        let paths: Vec<_> =
            blocks().map(|entry| entry.expect("it is there").path()).filter(is_block).collect();
        let before: Vec<_> =
            paths.iter().map(|path| (path, std::fs::read(path).expect("a file"))).collect();
        assert_eq!(run_ready(clean_tombstones(&opened, 1)), Ok(1));
        drop(opened);
        for (path, bytes) in before {
            std::fs::write(path, bytes).expect("room");
        }
        assert!(blocks().count() > 3, "a list, two blocks, and one that was replaced");
        let again = store(folder.path(), &[]);
        assert_eq!(ask(&again, 10, || {}), Ok(vec![2]));
    }

    /// The answer that found a block to be damaged was given without a warning, as that was noted
    /// when it had been given.
    ///
    /// Red when it is told behind the end of the answer, or not at all.
    #[test]
    fn what_is_damaged_is_told_before_the_answer_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path(), &[1]);
        let path = folder.path().join("blocks").join(block_file_name(1));
        let mut bytes = std::fs::read(&path).expect("a block");
        let damaged = BLOCK_EDGE_BYTES..2 * BLOCK_EDGE_BYTES;
        bytes[damaged].iter_mut().for_each(|byte| *byte ^= 1);
        std::fs::write(&path, bytes).expect("room");
        let request = SelectRequest {
            tenant: TenantId(0),
            matchers: vec![Matcher::equal("__name__", "metric_1")],
            start_ms: i64::MIN,
            end_ms: i64::MAX,
            want: SelectWant::Samples,
            series_max: 10,
        };
        let (reply, answers) = flume::unbounded();
        let heard_before = std::cell::Cell::new(None);
        let tell_lost = || heard_before.set(Some(answers.len()));
        let select = BlockSelect { request: request.into(), reply };
        run_ready(answer(&store, select, tell_lost)).expect("a good disk");
        assert_eq!((heard_before.get(), store.set_aside_count()), (Some(0), 1));
        assert!(matches!(answers.try_recv(), Ok(SelectAnswer::End { .. })));
    }

    /// A query was refused for reading too many series when its series times the blocks were too
    /// many: a tenth of the limit, after ten flushes.
    #[test]
    fn a_series_in_many_blocks_is_one_series() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path(), &[1, 2, 3]);
        assert_eq!(ask(&store, 1, || {}), Ok(vec![3, 2, 1]));
        assert_eq!(ask(&store, 0, || {}), Err(SelectFault::TooManySeries { series_max: 0 }));
    }
}
