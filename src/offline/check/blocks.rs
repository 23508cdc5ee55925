//! The blocks of a folder: the list, every block that it names, and what else lies there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Check, list};
use crate::background::blocks::block::{block_file_name, parse_block_file_name};
use crate::background::blocks::list::BlockList;
use crate::background::blocks::store::{ASIDE, LIST_NAME};
use crate::background::disk::plain::PlainDisk;
use crate::background::folder::{BLOCKS_NAME, TEMPORARY_SUFFIX};
use crate::base::ready::run_ready;
use crate::node::block::check::{BlockCheck, check_block};
use crate::node::block::{BlockFault, BlockMeta, range_start_ms};
use crate::offline::source::FileSource;

/// What a block's own check found.
enum BlockState {
    /// It can be read, whatever is wrong inside.
    Readable(BlockCheck),
    Broken(BlockFault),
    Unreadable(i32),
}

impl Check<'_> {
    /// Checks `blocks/`; `node` is whose they have to be, if that is known.
    pub(super) fn check_blocks(&mut self, node: Option<u128>) {
        let folder = self.root.join(BLOCKS_NAME);
        if !folder.exists() {
            return;
        }
        let entries = match list(&folder) {
            Ok(entries) => entries,
            Err(fault) => return self.fault(&folder, 0, fault.to_string()),
        };
        let mut files = BTreeMap::new();
        for entry in &entries {
            let path = folder.join(&entry.name);
            match parse_block_file_name(&entry.name) {
                Some(id) if !entry.is_folder => {
                    files.insert(id, path);
                }
                _ => self.note_other(&path, &entry.name, entry.is_folder),
            }
        }
        let list = self.check_list(&folder.join(LIST_NAME), node, !files.is_empty());
        let node = node.or(list.as_ref().map(|list| list.node));
        let listed = |id: u64| list.as_ref().is_none_or(|list| list.blocks.contains(&id));
        let mut metas = BTreeMap::new();
        for (id, path) in &files {
            if let Some(meta) = self.check_block(*id, path, (node, listed(*id))) {
                metas.insert(*id, meta);
            }
        }
        if let Some(list) = &list {
            self.check_listed(list, (&folder, &files), &metas);
        }
    }

    /// What is neither a block nor the list.
    fn note_other(&mut self, path: &Path, name: &str, is_folder: bool) {
        match name {
            LIST_NAME if !is_folder => {}
            ASIDE if is_folder => {
                let files = list(path).map_or(0, |files| files.len());
                if files > 0 {
                    let what = format!("{files} set aside before: damaged, or not ours");
                    self.note(path, what);
                }
            }
            _ if name.ends_with(TEMPORARY_SUFFIX) => {
                self.note(path, "unfinished; the next start removes it");
            }
            _ => self.note(path, "not ours; the next start sets it aside"),
        }
    }

    fn check_list(
        &mut self,
        path: &Path,
        node: Option<u128>,
        has_blocks: bool,
    ) -> Option<BlockList> {
        if !path.exists() {
            if has_blocks {
                self.fault(path, 0, "missing: deletions may be forgotten");
            }
            return None;
        }
        let text = self.read_text(path)?;
        let list = match BlockList::decode(&text) {
            Ok(list) => list,
            Err(fault) => {
                self.fault(path, 0, format!("not a list of blocks: {fault:?}"));
                return None;
            }
        };
        let rest = text.strip_prefix(&list.encode());
        if rest.is_none_or(|rest| !rest.bytes().all(|byte| byte == b' ')) {
            self.fault(path, 0, "bytes that belong to nothing");
        }
        if node.is_some_and(|node| node != list.node) {
            self.fault(path, 0, format!("it is that of node {:032x}", list.node));
        }
        let ascends = list.blocks.is_sorted_by(|one, next| one < next);
        if !ascends || list.blocks.last().is_some_and(|last| *last >= list.next_block) {
            self.fault(path, 0, "the ids of the blocks are not in order");
        }
        let ascends = list.tombstones.is_sorted_by(|one, next| one.id < next.id);
        if !ascends || list.tombstones.last().is_some_and(|last| last.id >= list.next_tombstone) {
            self.fault(path, 0, "the ids of the deletions are not in order");
        }
        Some(list)
    }

    /// Checks one block; its meta if it has one and is ours.
    fn check_block(
        &mut self,
        id: u64,
        path: &Path,
        (node, is_listed): (Option<u128>, bool),
    ) -> Option<BlockMeta> {
        self.count_file(path);
        let state = match run_ready(FileSource::open(&PlainDisk, path, self.progress)) {
            Err(errno) => BlockState::Unreadable(errno),
            Ok(source) => match run_ready(check_block(&source, source.len_bytes())) {
                Ok(check) => BlockState::Readable(check),
                Err(BlockFault::Io { errno }) => BlockState::Unreadable(errno),
                Err(fault) => BlockState::Broken(fault),
            },
        };
        let check = match state {
            BlockState::Readable(check) => check,
            BlockState::Unreadable(errno) => {
                self.fault(path, 0, BlockFault::Io { errno }.to_string());
                return None;
            }
            // Its samples are in the log, or in blocks that it was to replace.
            BlockState::Broken(fault) if !is_listed => {
                let what = format!("not listed, and it {fault}; the next start sets it aside");
                self.note(path, what);
                return None;
            }
            BlockState::Broken(fault) => {
                self.fault(path, fault.offset().unwrap_or(0), format!("it {fault}"));
                return None;
            }
        };
        let meta = check.meta;
        let is_ours = node.is_none_or(|node| node == meta.node) && meta.id == id;
        if !is_ours && !is_listed {
            self.note(path, "a block of another node or name; the next start sets it aside");
            return None;
        }
        if !is_ours {
            let what = format!("it is block {} of node {:032x}", meta.id, meta.node);
            self.fault(path, 0, what);
        }
        for flaw in check.faults {
            self.fault(path, flaw.offset, flaw.text);
        }
        // Only merges make blocks that span ranges.
        if meta.level == 0 && range_start_ms(meta.min_ms) != range_start_ms(meta.max_ms) {
            self.fault(path, 0, "it was flushed from a head, but spans two ranges of two hours");
        }
        if meta.oldest_flush > meta.newest_flush {
            self.fault(path, 0, "its oldest flush is newer than its newest");
        }
        self.report.samples += meta.samples;
        Some(meta)
    }

    /// Compares the list with what is there, as a start of the server does.
    fn check_listed(
        &mut self,
        list: &BlockList,
        (folder, files): (&Path, &BTreeMap<u64, PathBuf>),
        metas: &BTreeMap<u64, BlockMeta>,
    ) {
        let replaced_by =
            |id: u64| metas.values().find(|meta| meta.sources.contains(&id)).map(|meta| meta.id);
        for id in &list.blocks {
            match (files.get(id), replaced_by(*id)) {
                (None, None) => {
                    let path = folder.join(block_file_name(*id));
                    self.fault(&path, 0, "listed, and missing: its samples are lost");
                }
                (Some(path), Some(by)) if list.blocks.contains(&by) => {
                    self.fault(path, 0, format!("listed, though block {by} has replaced it"));
                }
                _ => {}
            }
        }
        for (id, meta) in metas.iter().filter(|(id, _)| !list.blocks.contains(id)) {
            let path = folder.join(block_file_name(*id));
            match replaced_by(*id) {
                Some(by) => {
                    self.note(&path, format!("replaced by block {by}; the next start removes it"));
                }
                None => self.note(&path, "complete and not listed; the next start takes it in"),
            }
            if meta.id >= list.next_block {
                self.note(&path, "newer than the list");
            }
        }
        let applied = metas.values().map(|meta| meta.tombstones_applied).max().unwrap_or(0);
        if applied >= list.next_tombstone {
            let path = folder.join(LIST_NAME);
            self.fault(&path, 0, format!("a block has applied deletion {applied}, still to come"));
        }
    }
}
