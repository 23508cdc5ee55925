//! The blocks of a node: which there are, and the only place that adds, replaces and removes them.
//!
//! ```text
//! DIR/blocks/BLOCKS                 see `list`: what counts
//! DIR/blocks/block-<id>.blk         see `node/block/format`
//! DIR/blocks/block-<id>.tmp         being written; removed at the next start
//! DIR/blocks/aside/                 what is no block of ours or is damaged; never deleted
//! ```
//! A block is complete and durable under its name before `BLOCKS` lists it; one replacement of
//! `BLOCKS` lists a merged block and drops its sources; then their files go. So after a crash a
//! block that is not listed
//! - is a source of a listed one, or older than the list, which knew it and left it out: it goes,
//!   as what it holds may have been deleted since, and is in the log or in listed blocks if not;
//! - or is younger than the list: it was about to be listed, and counts.
//!
//! A block that is listed and not there, or not whole, is a loss; then all others count. It is said
//! at each start until the block is put back, from `aside` or from a backup.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::block::{Block, TEMPORARY_SUFFIX, block_file_name, parse_block_file_name};
use super::cache::PageCache;
use super::list::{BlockList, ListFault};
use crate::background::disk::{DISK_BLOCK_BYTES, Disk, DiskFile};
use crate::node::block::{BlockFault, Tombstone};

/// The file of the list.
pub const LIST_NAME: &str = "BLOCKS";
const LIST_TEMPORARY: &str = "BLOCKS.tmp";
/// The folder for what is no block of ours or is damaged.
pub const ASIDE: &str = "aside";
/// More deletions than this wait for merges: the next is refused.
pub const TOMBSTONES_MAX: usize = 1_000;
/// So many lost blocks are remembered: the newest.
const LOST_MAX: usize = 1_000;

/// See the module's description.
pub struct BlockStore<D: Disk> {
    disk: D,
    folder: PathBuf,
    node: u128,
    cache: Rc<PageCache>,
    state: RefCell<State<D>>,
    /// One change at a time: the next begins when `BLOCKS` is durable.
    turn: tokio::sync::Mutex<()>,
    set_aside: Cell<u64>,
}

struct State<D: Disk> {
    /// By `newest_flush`, ascending.
    blocks: Vec<Rc<Block<D>>>,
    tombstones: Vec<Rc<Tombstone>>,
    next_block: u64,
    next_tombstone: u64,
    /// The newest deletion that left the list, since the start.
    forgotten_tombstone: u64,
    /// Removed from the list, but the disk kept the files.
    leftover: Vec<u64>,
    /// Complete, but whether the list on the disk names them is not known: listing them failed.
    /// They go after the next list, which does not.
    orphans: Vec<u64>,
    /// In no list, and to be removed. Not named as sources: they may name blocks that count.
    remains: Vec<u64>,
    /// Gone when it was opened.
    missing: Vec<u64>,
    /// Those, and what was damaged: ascending.
    lost: Vec<u64>,
}

impl<D: Disk> State<D> {
    /// Whether a change failed and left files behind.
    fn has_remains(&self) -> bool {
        !self.orphans.is_empty() || !self.remains.is_empty() || !self.leftover.is_empty()
    }
}

/// What the start found that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Blocks that count.
    pub blocks: u64,
    /// Complete, and not listed yet.
    pub adopted: Vec<u64>,
    /// Replaced before, or left behind by a change that failed; now removed.
    pub removed: Vec<u64>,
    /// Listed, and not there: their samples are lost.
    pub missing: Vec<u64>,
    /// Names of files put into `aside`, and why.
    pub set_aside: Vec<(String, BlockFault)>,
    /// `BLOCKS` was damaged or gone while blocks were there: deletions may be forgotten.
    pub list_rebuilt: bool,
}

/// Why the blocks cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// The disk (errno), and what was done.
    Io { path: PathBuf, errno: i32 },
    /// `BLOCKS` is of a later version.
    UnknownVersion { version: u32 },
    /// The folder belongs to another node.
    Foreign { node: u128 },
}

/// Why the list could not be written.
#[derive(Clone, Copy, Debug)]
struct SaveFault {
    errno: i32,
    /// Else a power cut may leave either list.
    is_old_list_there: bool,
}

impl From<SaveFault> for i32 {
    fn from(fault: SaveFault) -> Self {
        fault.errno
    }
}

impl std::fmt::Display for StoreFault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(out, "cannot use the blocks at {}: {error}", path.display())
            }
            Self::UnknownVersion { version } => {
                write!(out, "cannot read {LIST_NAME}: version {version} is not known; upgrade")
            }
            Self::Foreign { node } => {
                write!(out, "cannot use these blocks: they are those of node {node:032x}")
            }
        }
    }
}

impl<D: Disk> BlockStore<D> {
    /// Opens the blocks in `folder`, made if it is not there, of the node `node`.
    pub async fn open(
        disk: &D,
        folder: &Path,
        node: u128,
        cache_bytes: u64,
    ) -> Result<(Self, OpenReport), StoreFault> {
        let cache = Rc::new(PageCache::new(cache_bytes));
        let state = State {
            blocks: Vec::new(),
            tombstones: Vec::new(),
            next_block: 1,
            next_tombstone: 1,
            forgotten_tombstone: 0,
            leftover: Vec::new(),
            orphans: Vec::new(),
            remains: Vec::new(),
            missing: Vec::new(),
            lost: Vec::new(),
        };
        let store = Self {
            disk: disk.clone(),
            folder: folder.to_owned(),
            node,
            cache,
            state: RefCell::new(state),
            turn: tokio::sync::Mutex::new(()),
            set_aside: Cell::new(0),
        };
        let report = store.load().await?;
        Ok((store, report))
    }

    async fn load(&self) -> Result<OpenReport, StoreFault> {
        let io = |errno| StoreFault::Io { path: self.folder.clone(), errno };
        self.make_folders().await.map_err(io)?;
        let names = self.disk.list(&self.folder).await.map_err(io)?;
        let mut report = OpenReport::default();
        let mut ids = Vec::new();
        for entry in names.iter().filter(|entry| !entry.is_folder) {
            if entry.name.ends_with(TEMPORARY_SUFFIX) {
                self.disk.remove(&self.folder.join(&entry.name)).await.map_err(io)?;
            } else if let Some(id) = parse_block_file_name(&entry.name) {
                ids.push(id);
            } else if entry.name != LIST_NAME {
                self.put_aside(&entry.name).await.map_err(io)?;
                report.set_aside.push((entry.name.clone(), BlockFault::NotABlock));
            }
        }
        ids.sort_unstable();
        let list = self.read_list(!ids.is_empty(), &mut report).await?;
        let mut found = Vec::new();
        for id in &ids {
            let name = block_file_name(*id);
            match Block::open(&self.disk, &self.folder.join(&name), &self.cache).await {
                Ok(block) if block.meta.id == *id && block.meta.node == self.node => {
                    found.push(Rc::new(block));
                }
                // What the disk refuses to read may be readable at the next start.
                Err(BlockFault::Io { errno }) => return Err(io(errno)),
                outcome => {
                    let fault = outcome.err().unwrap_or(BlockFault::NotABlock);
                    self.put_aside(&name).await.map_err(io)?;
                    report.set_aside.push((name, fault));
                }
            }
        }
        self.settle(list, found, &mut report);
        self.set_aside.set(report.set_aside.len() as u64);
        self.save().await.map_err(|fault| io(fault.errno))?;
        self.remove_leftover().await;
        report.blocks = self.state.borrow().blocks.len() as u64;
        Ok(report)
    }

    /// The folders' own names are made durable too: a file in a folder whose name a power cut takes
    /// is gone with it, synced or not.
    async fn make_folders(&self) -> Result<(), i32> {
        self.disk.make_folder(&self.folder.join(ASIDE)).await?;
        self.disk.sync_folder(&self.folder).await?;
        match self.folder.parent() {
            Some(parent) => self.disk.sync_folder(parent).await,
            None => Ok(()),
        }
    }

    async fn read_list(
        &self,
        has_blocks: bool,
        report: &mut OpenReport,
    ) -> Result<BlockList, StoreFault> {
        let path = self.folder.join(LIST_NAME);
        let io = |errno| StoreFault::Io { path: path.clone(), errno };
        let file = match self.disk.open(&path).await {
            Ok(file) => file,
            Err(libc::ENOENT) => {
                report.list_rebuilt = has_blocks;
                return Ok(BlockList::new(self.node));
            }
            Err(errno) => return Err(io(errno)),
        };
        let len = usize::try_from(file.len_bytes().await.map_err(io)?).expect("64 bits");
        let mut bytes = Vec::new();
        file.read_at(0, len, &mut bytes).await.map_err(io)?;
        match BlockList::decode(&String::from_utf8_lossy(&bytes)) {
            Ok(list) if list.node == self.node => Ok(list),
            Ok(list) => Err(StoreFault::Foreign { node: list.node }),
            Err(ListFault::UnknownVersion { version }) => {
                Err(StoreFault::UnknownVersion { version })
            }
            Err(ListFault::Damaged) => {
                self.put_aside(LIST_NAME).await.map_err(io)?;
                report.list_rebuilt = true;
                Ok(BlockList::new(self.node))
            }
        }
    }

    /// Decides what counts of what was found.
    fn settle(&self, list: BlockList, found: Vec<Rc<Block<D>>>, report: &mut OpenReport) {
        let state = &mut *self.state.borrow_mut();
        let highest = found.iter().map(|block| block.meta.id).max().unwrap_or(0);
        state.next_block = list.next_block.max(highest + 1);
        let applied = found.iter().map(|block| block.meta.tombstones_applied).max().unwrap_or(0);
        state.next_tombstone = list.next_tombstone.max(applied + 1);
        state.tombstones = list.tombstones.into_iter().map(Rc::new).collect();
        let sources_of = |blocks: &mut dyn Iterator<Item = &Rc<Block<D>>>| -> Vec<u64> {
            blocks.flat_map(|block| block.meta.sources.iter().copied()).collect()
        };
        // One that the list left out may name blocks that still count: a merge that failed.
        let is_listed = |id: &u64| list.blocks.contains(id) || list.lost.contains(id);
        let is_left_out =
            |block: &Rc<Block<D>>| !is_listed(&block.meta.id) && block.meta.id < list.next_block;
        let mut sources = sources_of(&mut found.iter().filter(|block| !is_left_out(block)));
        let is_found =
            |id: &u64| sources.contains(id) || found.iter().any(|block| block.meta.id == *id);
        // If something is lost, what an older block holds is better than nothing.
        let is_whole = !report.list_rebuilt && list.blocks.iter().all(is_found);
        if !is_whole {
            sources = sources_of(&mut found.iter());
        }
        for block in found {
            let id = block.meta.id;
            if sources.contains(&id) || is_whole && is_left_out(&block) {
                report.removed.push(id);
                let is_replaced = sources.contains(&id);
                let list = if is_replaced { &mut state.leftover } else { &mut state.remains };
                list.push(id);
                continue;
            }
            if !is_listed(&id) {
                report.adopted.push(id);
            }
            state.blocks.push(block);
        }
        state.blocks.sort_by_key(|block| block.meta.newest_flush);
        let is_there = |id: &u64| {
            state.blocks.iter().any(|block| block.meta.id == *id) || sources.contains(id)
        };
        let is_aside =
            |id: &u64| report.set_aside.iter().any(|(name, _)| *name == block_file_name(*id));
        let mut gone: Vec<_> =
            list.blocks.iter().chain(&list.lost).copied().filter(|id| !is_there(id)).collect();
        gone.sort_unstable();
        report.missing = gone.iter().copied().filter(|id| !is_aside(id)).collect();
        state.missing.clone_from(&report.missing);
        state.lost = gone;
    }

    /// Where the blocks lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The disk that they lie on.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The node whose blocks they are.
    pub fn node(&self) -> u128 {
        self.node
    }

    /// The cache of pages.
    pub fn cache(&self) -> &PageCache {
        &self.cache
    }

    /// The blocks as they are now, the one that wins last.
    pub fn blocks(&self) -> Vec<Rc<Block<D>>> {
        self.state.borrow().blocks.clone()
    }

    /// The deletions that some block has not applied.
    pub fn tombstones(&self) -> Vec<Rc<Tombstone>> {
        self.state.borrow().tombstones.clone()
    }

    /// The id of the newest deletion.
    pub fn newest_tombstone(&self) -> u64 {
        self.state.borrow().next_tombstone - 1
    }

    /// Listed blocks that were not there at the start.
    pub fn missing(&self) -> Vec<u64> {
        self.state.borrow().missing.clone()
    }

    /// Files put aside, at the start and since.
    pub fn set_aside_count(&self) -> u64 {
        self.set_aside.get()
    }

    /// An id for a block that will be written.
    pub fn next_block_id(&self) -> u64 {
        let state = &mut *self.state.borrow_mut();
        state.next_block += 1;
        state.next_block - 1
    }

    /// Files of blocks that were replaced and that the disk kept: whoever replaces more names them
    /// among its sources, so that they never count again.
    pub fn leftover(&self) -> Vec<u64> {
        self.state.borrow().leftover.clone()
    }

    /// Lists blocks that are complete under their names, and drops `sources`, in one step.
    ///
    /// After a fault nothing has changed for readers, and the files of `added` go.
    pub async fn replace(&self, sources: &[u64], added: &[u64]) -> Result<(), BlockFault> {
        let turn = self.turn.lock().await;
        let replaced = self.exchange(sources, added).await;
        drop(turn);
        replaced
    }

    /// Lists blocks of samples that have seen the deletions up to `tombstones_applied`, as
    /// `replace` does.
    ///
    /// Refused (`ESTALE`) if a later deletion is forgotten: it would be undone. Every shard has
    /// seen that one, so the shard that sent these has given them up meanwhile, and has told so
    /// behind them.
    pub async fn add_flushed(
        &self,
        added: &[u64],
        tombstones_applied: u64,
    ) -> Result<(), BlockFault> {
        let turn = self.turn.lock().await;
        if tombstones_applied < self.state.borrow().forgotten_tombstone {
            self.discard(added).await;
            return Err(BlockFault::Io { errno: libc::ESTALE });
        }
        let listed = self.exchange(&[], added).await;
        drop(turn);
        listed
    }

    /// Whoever calls it has the turn.
    async fn exchange(&self, sources: &[u64], added: &[u64]) -> Result<(), BlockFault> {
        let mut opened = Vec::new();
        for id in added {
            let path = self.folder.join(block_file_name(*id));
            match Block::open(&self.disk, &path, &self.cache).await {
                Ok(block) => opened.push(Rc::new(block)),
                Err(fault) => {
                    self.discard(added).await;
                    return Err(fault);
                }
            }
        }
        let before = self.state.borrow().blocks.clone();
        {
            let state = &mut *self.state.borrow_mut();
            state.blocks.retain(|block| !sources.contains(&block.meta.id));
            state.blocks.extend(opened);
            state.blocks.sort_by_key(|block| block.meta.newest_flush);
        }
        if let Err(SaveFault { errno, is_old_list_there }) = self.save().await {
            self.state.borrow_mut().blocks = before;
            if is_old_list_there {
                self.discard(added).await;
            } else {
                self.state.borrow_mut().orphans.extend_from_slice(added);
            }
            return Err(BlockFault::Io { errno });
        }
        self.state.borrow_mut().leftover.extend_from_slice(sources);
        self.remove_leftover().await;
        Ok(())
    }

    /// Removes blocks that are complete under their names and that no list has ever named; those
    /// that the disk keeps with the next list.
    pub async fn discard(&self, ids: &[u64]) {
        for id in ids {
            if !self.remove(*id).await {
                self.state.borrow_mut().remains.push(*id);
            }
        }
    }

    /// Whether the file is gone.
    async fn remove(&self, id: u64) -> bool {
        self.cache.forget(id);
        let removed = self.disk.remove(&self.folder.join(block_file_name(id))).await;
        matches!(removed, Ok(()) | Err(libc::ENOENT))
    }

    /// Moves a damaged block out of the way; queries go on without it.
    pub async fn set_aside(&self, id: u64, fault: BlockFault) -> Result<(), i32> {
        let turn = self.turn.lock().await;
        let count = self.state.borrow().blocks.len();
        self.state.borrow_mut().blocks.retain(|block| block.meta.id != id);
        if self.state.borrow().blocks.len() == count {
            return Ok(());
        }
        tracing::error!(
            block = id,
            %fault,
            "a block is damaged: it is set aside in blocks/aside, and its samples are missing from \
             answers; `tidegate check` says what is wrong, a backup may have it whole"
        );
        // Its samples are missing from answers from here on, whether the file moves or not.
        self.set_aside.set(self.set_aside.get() + 1);
        self.state.borrow_mut().lost.push(id);
        self.put_aside(&block_file_name(id)).await?;
        let saved = self.save().await;
        drop(turn);
        Ok(saved?)
    }

    /// Writes a deletion down; returns it with its id. `None`: there are too many.
    pub async fn add_tombstone(&self, tombstone: Tombstone) -> Result<Option<Tombstone>, i32> {
        let turn = self.turn.lock().await;
        if self.state.borrow().tombstones.len() >= TOMBSTONES_MAX {
            return Ok(None);
        }
        let id = self.state.borrow().next_tombstone;
        let tombstone = Tombstone { id, ..tombstone };
        {
            let state = &mut *self.state.borrow_mut();
            state.next_tombstone += 1;
            state.tombstones.push(Rc::new(tombstone.clone()));
        }
        if let Err(fault) = self.save().await {
            // The shards will not hear of it: it would hide what they are given from now on. Its id
            // is not used again, and if the disk has it, a start before the next list tells them.
            self.state.borrow_mut().tombstones.retain(|each| each.id != id);
            return Err(fault.errno);
        }
        drop(turn);
        Ok(Some(tombstone))
    }

    /// Forgets deletions up to `settled` that no block needs any more. No shard can still publish a
    /// block that has not applied those.
    pub async fn drop_needless_tombstones(&self, settled: u64) -> Result<(), i32> {
        let turn = self.turn.lock().await;
        let before = self.state.borrow().tombstones.clone();
        {
            let state = &mut *self.state.borrow_mut();
            let blocks = &state.blocks;
            state.tombstones.retain(|tombstone| {
                tombstone.id > settled
                    || blocks.iter().any(|block| is_needed(tombstone, &block.meta))
            });
            if state.tombstones.len() == before.len() && !state.has_remains() {
                return Ok(());
            }
        }
        if let Err(fault) = self.save().await {
            self.state.borrow_mut().tombstones = before;
            return Err(fault.errno);
        }
        {
            let state = &mut *self.state.borrow_mut();
            let is_kept = |id: u64| state.tombstones.iter().any(|tombstone| tombstone.id == id);
            let gone = before.iter().map(|tombstone| tombstone.id).filter(|id| !is_kept(*id));
            let newest = gone.max().unwrap_or(0);
            state.forgotten_tombstone = state.forgotten_tombstone.max(newest);
        }
        self.remove_leftover().await;
        drop(turn);
        Ok(())
    }

    /// Calls `link` with the ids of all blocks, none of which goes meanwhile; returns the text of
    /// the list that names them.
    pub async fn list_with(
        &self,
        link: impl AsyncFnOnce(&[u64]) -> Result<(), i32>,
    ) -> Result<String, i32> {
        let turn = self.turn.lock().await;
        let list = self.list();
        link(&list.blocks).await?;
        drop(turn);
        Ok(list.encode())
    }

    fn list(&self) -> BlockList {
        let state = self.state.borrow();
        let mut blocks: Vec<_> = state.blocks.iter().map(|block| block.meta.id).collect();
        blocks.sort_unstable();
        BlockList {
            node: self.node,
            next_block: state.next_block,
            next_tombstone: state.next_tombstone,
            blocks,
            lost: state.lost[state.lost.len().saturating_sub(LOST_MAX)..].to_vec(),
            tombstones: state.tombstones.iter().map(|each| Tombstone::clone(each)).collect(),
        }
    }

    async fn save(&self) -> Result<(), SaveFault> {
        let early = |errno| SaveFault { errno, is_old_list_there: true };
        let late = |errno| SaveFault { errno, is_old_list_there: false };
        self.write_list().await.map_err(early)?;
        let (from, to) = (self.folder.join(LIST_TEMPORARY), self.folder.join(LIST_NAME));
        self.disk.rename(&from, &to).await.map_err(late)?;
        self.disk.sync_folder(&self.folder).await.map_err(late)?;
        let state = &mut *self.state.borrow_mut();
        state.remains.append(&mut state.orphans);
        Ok(())
    }

    async fn write_list(&self) -> Result<(), i32> {
        let mut bytes = self.list().encode().into_bytes();
        // Whole blocks, as direct writes ask; the reader does not mind spaces.
        bytes.resize(bytes.len().next_multiple_of(DISK_BLOCK_BYTES), b' ');
        let file = self.disk.create(&self.folder.join(LIST_TEMPORARY)).await?;
        file.write_at(&bytes, 0).await?;
        file.sync().await
    }

    async fn remove_leftover(&self) {
        let remains = self.state.borrow().remains.clone();
        for id in self.leftover().into_iter().chain(remains) {
            if self.remove(id).await {
                let state = &mut *self.state.borrow_mut();
                state.leftover.retain(|each| *each != id);
                state.remains.retain(|each| *each != id);
            }
        }
        // What this does not make durable is repeated by the next start.
        let _ = self.disk.sync_folder(&self.folder).await;
    }

    async fn put_aside(&self, name: &str) -> Result<(), i32> {
        let aside = self.folder.join(ASIDE);
        // What was put there before under the name stays.
        let taken = self.disk.list(&aside).await?;
        let mut target = name.to_owned();
        let mut copy = 1;
        while taken.iter().any(|entry| entry.name == target) {
            target = format!("{name}.{copy}");
            copy += 1;
        }
        self.disk.rename(&self.folder.join(name), &aside.join(target)).await?;
        self.disk.sync_folder(&aside).await?;
        self.disk.sync_folder(&self.folder).await
    }
}

/// Whether a tombstone hides samples of a block.
pub fn is_needed(tombstone: &Tombstone, meta: &crate::node::block::BlockMeta) -> bool {
    meta.tombstones_applied < tombstone.id && meta.overlaps(tombstone.start_ms, tombstone.end_ms)
}
