//! A disk under the jobs of the background: what was synced stays, what was not may be there in
//! any part after a power cut.
//!
//! Bytes: each file has what the process reads (`live`), what a power cut leaves for certain
//! (`durable`) and the writes between the two, of which a power cut keeps any subset of sectors.
//! Names: each folder has the same three; a change of names is kept or dropped as a whole, and
//! never kept when an earlier one of the same name or file was dropped. Half of the disks keep a
//! prefix of all changes, as one journal does, the others any subset. Faults: see [`Faults`]. A
//! failed sync has done some of its work and forgets the rest, as Linux does: a later sync that
//! succeeds says nothing about it.

mod operations;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use tidegate::background::disk::DiskEntry;

use crate::random::Random;

/// What a disk writes at once.
pub const SECTOR_BYTES: usize = 512;
const ROOT: u64 = 0;
/// Faults that the disk can be asked for at once.
const FAULTS_MAX: usize = 4;

/// What an operation does, as far as faults tell operations apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opening, listing, asking for lengths.
    Look,
    /// Reading bytes.
    Read,
    /// Making a file or folder, reserving room.
    Create,
    /// Writing bytes, changing a length.
    Write,
    /// Making a file's bytes durable.
    Sync,
    /// Renaming, linking.
    Rename,
    /// Removing.
    Remove,
    /// Making a folder's names durable.
    SyncFolder,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Look,
        Self::Read,
        Self::Create,
        Self::Write,
        Self::Sync,
        Self::Rename,
        Self::Remove,
        Self::SyncFolder,
    ];

    fn changes(self) -> bool {
        !matches!(self, Self::Look | Self::Read)
    }
}

/// An operation that fails: the one after `after` others of its kind, with this errno.
#[derive(Clone, Copy, Debug)]
struct Failure {
    kind: Kind,
    after: usize,
    errno: i32,
}

/// What goes wrong.
#[derive(Debug, Default)]
struct Faults {
    failures: Vec<Failure>,
    /// The power is cut at the operation after so many others that change something.
    cut_after: Option<usize>,
    is_cut: bool,
    /// All files together are at most so long.
    room_bytes: Option<u64>,
}

#[derive(Debug)]
enum Inode {
    File(FileState),
    /// Names that the process sees, and those that a power cut leaves for certain.
    Folder {
        live: BTreeMap<String, u64>,
        durable: BTreeMap<String, u64>,
    },
}

#[derive(Debug, Default)]
struct FileState {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

#[derive(Debug)]
enum Unsynced {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

impl Unsynced {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: written } => put(bytes, *offset, written),
            Self::Len(len) => set_len(bytes, *len),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        set_len(bytes, end);
    }
    bytes[offset..end].copy_from_slice(written);
}

/// Cuts, or adds zeros: at once, as a loop over megabytes takes long without an optimiser.
fn set_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.truncate(len);
    let zeros = vec![0; len - bytes.len()];
    bytes.extend_from_slice(&zeros);
}

/// Names that change together: folder, name, what it leads to from then on; and whose names they
/// are.
#[derive(Debug)]
struct NameChange {
    sets: Vec<(u64, String, Option<u64>)>,
    inode: u64,
}

struct State {
    random: Random,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    unsynced_names: Vec<NameChange>,
    /// Changes of names are kept in their order.
    is_journal: bool,
    faults: Faults,
    /// Operations so far.
    operations: u64,
    has_trace: bool,
}

/// See the module's description. Clones are the same disk.
#[derive(Clone)]
pub struct FakeDisk(Rc<RefCell<State>>);

/// An open file: it can be read after its name is gone.
pub struct FakeFile {
    disk: FakeDisk,
    inode: u64,
}

impl FakeDisk {
    pub fn new(random: &mut Random) -> Self {
        let root = Inode::Folder { live: BTreeMap::new(), durable: BTreeMap::new() };
        let is_journal = random.once_in(2);
        Self(Rc::new(RefCell::new(State {
            random: Random::new(random.next()),
            inodes: BTreeMap::from([(ROOT, root)]),
            next_inode: ROOT + 1,
            unsynced_names: Vec::new(),
            is_journal,
            faults: Faults::default(),
            operations: 0,
            has_trace: std::env::var_os("TIDEGATE_SIM_TRACE").is_some(),
        })))
    }

    /// The power is cut after `operations` more that change something: none ends from then on.
    pub fn cut_power_after(&self, operations: usize) {
        self.0.borrow_mut().faults.cut_after = Some(operations);
    }

    pub fn is_cut(&self) -> bool {
        self.0.borrow().faults.is_cut
    }

    /// One of the next operations of some kind fails.
    pub fn fail_one(&self, random: &mut Random) {
        let kind = Kind::ALL[random.below(Kind::ALL.len())];
        let errno = if random.once_in(4) { libc::EROFS } else { libc::EIO };
        self.fail(kind, random.below(6), errno);
    }

    /// The operation of this kind after `after` others fails.
    pub fn fail(&self, kind: Kind, after: usize, errno: i32) {
        let failures = &mut self.0.borrow_mut().faults.failures;
        if failures.len() < FAULTS_MAX {
            failures.push(Failure { kind, after, errno });
        }
    }

    /// So many bytes more fit; `None`: however many.
    pub fn set_room(&self, bytes: Option<u64>) {
        let mut state = self.0.borrow_mut();
        let used = state.used_bytes();
        state.faults.room_bytes = bytes.map(|bytes| used + bytes);
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.0.borrow_mut().faults = Faults::default();
    }

    /// The power comes back: what was not durable is there in part. Files of before are closed.
    pub fn restore_power(&self) {
        let state = &mut *self.0.borrow_mut();
        state.faults = Faults::default();
        state.lose_names();
        state.lose_bytes();
        state.forget_unreachable();
    }

    /// Only the process ends: what was written is there, but for what a failed sync has forgotten,
    /// which whoever reads past the page cache does not see.
    pub fn keep_all(&self) {
        let state = &mut *self.0.borrow_mut();
        state.faults = Faults::default();
        for inode in state.inodes.values_mut() {
            let Inode::File(file) = inode else { continue };
            file.live.clone_from(&file.durable);
            file.unsynced.iter().for_each(|change| change.apply(&mut file.live));
        }
    }

    /// The paths of all files below `folder`.
    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let state = self.0.borrow();
        let Ok(start) = state.find(folder) else { return Vec::new() };
        let mut found = Vec::new();
        let mut waiting = vec![(folder.to_owned(), start)];
        while let Some((path, inode)) = waiting.pop() {
            match &state.inodes[&inode] {
                Inode::File(_) => found.push(path),
                Inode::Folder { live, .. } => {
                    waiting.extend(live.iter().map(|(name, inode)| (path.join(name), *inode)));
                }
            }
        }
        found.sort();
        found
    }

    /// What a file holds.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.borrow();
        match &state.inodes[&state.find(path).ok()?] {
            Inode::File(file) => Some(file.live.clone()),
            Inode::Folder { .. } => None,
        }
    }

    /// Changes a file behind everybody's back: on the disk at once.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let state = &mut *self.0.borrow_mut();
        let inode = state.find(path).expect("a file that is there");
        let Some(Inode::File(file)) = state.inodes.get_mut(&inode) else { panic!("a folder") };
        change(&mut file.live);
        file.durable.clone_from(&file.live);
        file.unsynced.clear();
    }

    /// Puts a file there behind everybody's back, in a folder that is there.
    pub fn plant(&self, path: &Path, bytes: Vec<u8>) {
        let state = &mut *self.0.borrow_mut();
        let (folder, name) = state.parent(path).expect("a folder that is there");
        let inode = state.next_inode;
        state.next_inode += 1;
        let file = FileState { live: bytes.clone(), durable: bytes, unsynced: Vec::new() };
        state.inodes.insert(inode, Inode::File(file));
        state.set_everywhere(folder, &name, Some(inode));
    }

    /// Removes a file behind everybody's back.
    pub fn uproot(&self, path: &Path) {
        let state = &mut *self.0.borrow_mut();
        let (folder, name) = state.parent(path).expect("a folder that is there");
        state.set_everywhere(folder, &name, None);
    }

    /// Says what happens, where somebody wants to read it.
    pub fn trace(&self, what: impl FnOnce() -> String) {
        if self.0.borrow().has_trace {
            eprintln!("       {}", what());
        }
    }

    /// Whether the operation may go on; waits for ever once the power is cut.
    async fn begin(&self, kind: Kind, what: impl FnOnce() -> String) -> Result<(), i32> {
        let (is_cut, outcome) = {
            let state = &mut *self.0.borrow_mut();
            let was_cut = state.faults.is_cut;
            let outcome = state.begin(kind);
            if state.has_trace && !was_cut {
                eprintln!("{:6} {kind:?} {} {outcome:?}", state.operations, what());
            }
            (was_cut, outcome)
        };
        if is_cut {
            return std::future::pending().await;
        }
        outcome
    }

    /// The end of an operation: of the one at which the power is cut there is none.
    async fn end<T>(&self, outcome: Result<T, i32>) -> Result<T, i32> {
        if self.is_cut() { std::future::pending().await } else { outcome }
    }
}

impl State {
    fn begin(&mut self, kind: Kind) -> Result<(), i32> {
        if self.faults.is_cut {
            return Ok(());
        }
        self.operations += 1;
        if kind.changes()
            && let Some(after) = &mut self.faults.cut_after
        {
            if *after == 0 {
                // This one is done, or not, and nobody hears of it.
                self.faults.is_cut = true;
                return if self.random.once_in(2) { Ok(()) } else { Err(libc::EIO) };
            }
            *after -= 1;
        }
        let mut errno = None;
        self.faults.failures.retain_mut(|failure| {
            if failure.kind != kind {
                return true;
            }
            if failure.after == 0 {
                errno = Some(failure.errno);
                return false;
            }
            failure.after -= 1;
            true
        });
        errno.map_or(Ok(()), Err)
    }

    fn used_bytes(&self) -> u64 {
        let len = |inode: &u64| match &self.inodes[inode] {
            Inode::File(file) => file.live.len() as u64,
            Inode::Folder { .. } => 0,
        };
        self.reached().iter().map(len).sum()
    }

    /// What names lead to, as the process sees it.
    fn reached(&self) -> BTreeSet<u64> {
        let mut reached = BTreeSet::from([ROOT]);
        let mut waiting = vec![ROOT];
        while let Some(inode) = waiting.pop() {
            if let Inode::Folder { live, .. } = &self.inodes[&inode] {
                waiting.extend(live.values().filter(|inode| reached.insert(**inode)));
            }
        }
        reached
    }

    /// How much of `bytes` more fits.
    fn fitting(&self, bytes: usize) -> usize {
        let Some(room) = self.faults.room_bytes else { return bytes };
        let free = room.saturating_sub(self.used_bytes());
        bytes.min(usize::try_from(free).unwrap_or(usize::MAX))
    }

    fn names(&self, folder: u64) -> Result<&BTreeMap<String, u64>, i32> {
        match &self.inodes[&folder] {
            Inode::Folder { live, .. } => Ok(live),
            Inode::File(_) => Err(libc::ENOTDIR),
        }
    }

    fn find(&self, path: &Path) -> Result<u64, i32> {
        let mut inode = ROOT;
        for component in path.components() {
            if let Component::Normal(name) = component {
                let names = self.names(inode)?;
                inode = *names.get(&*name.to_string_lossy()).ok_or(libc::ENOENT)?;
            }
        }
        Ok(inode)
    }

    /// The folder that holds `path`, and the name there.
    fn parent(&self, path: &Path) -> Result<(u64, String), i32> {
        let folder = self.find(path.parent().ok_or(libc::EINVAL)?)?;
        self.names(folder)?;
        let name = path.file_name().ok_or(libc::EINVAL)?;
        Ok((folder, name.to_string_lossy().into_owned()))
    }

    fn file(&mut self, inode: u64) -> &mut FileState {
        match self.inodes.get_mut(&inode) {
            Some(Inode::File(file)) => file,
            _ => panic!("an open file is a file, and stays"),
        }
    }

    fn change_names(&mut self, sets: Vec<(u64, String, Option<u64>)>, inode: u64) {
        for (folder, name, target) in &sets {
            let Some(Inode::Folder { live, .. }) = self.inodes.get_mut(folder) else {
                panic!("names are in folders");
            };
            match target {
                Some(inode) => live.insert(name.clone(), *inode),
                None => live.remove(name),
            };
        }
        self.unsynced_names.push(NameChange { sets, inode });
    }

    fn make_durable(&mut self, change: &NameChange) {
        for (folder, name, target) in &change.sets {
            let Some(Inode::Folder { durable, .. }) = self.inodes.get_mut(folder) else {
                panic!("names are in folders");
            };
            match target {
                Some(inode) => durable.insert(name.clone(), *inode),
                None => durable.remove(name),
            };
        }
    }

    fn set_everywhere(&mut self, folder: u64, name: &str, target: Option<u64>) {
        let inode = target.unwrap_or(u64::MAX);
        let change = NameChange { sets: vec![(folder, name.to_owned(), target)], inode };
        self.make_durable(&change);
        self.change_names(change.sets, inode);
        self.unsynced_names.pop();
    }

    /// Makes the changes of names in `folder` durable, with what they depend on.
    fn sync_names(&mut self, folder: u64) {
        let changes = std::mem::take(&mut self.unsynced_names);
        let mut needed = Touched::default();
        let mut is_synced = vec![false; changes.len()];
        for (index, change) in changes.iter().enumerate().rev() {
            let is_asked = change.sets.iter().any(|(each, ..)| *each == folder);
            let is_before = self.is_journal && is_synced[index..].contains(&true);
            if is_asked || is_before || needed.shares(change) {
                is_synced[index] = true;
                needed.add(change);
            }
        }
        for (change, is_synced) in changes.into_iter().zip(is_synced) {
            if is_synced {
                self.make_durable(&change);
            } else {
                self.unsynced_names.push(change);
            }
        }
    }

    /// A power cut, as far as names go.
    fn lose_names(&mut self) {
        let changes = std::mem::take(&mut self.unsynced_names);
        let kept_of_four = self.random.below(5);
        let mut kept_first = self.random.below(changes.len() + 1);
        let mut lost = Touched::default();
        for change in changes {
            let is_kept = if self.is_journal {
                let is_kept = kept_first > 0;
                kept_first = kept_first.saturating_sub(1);
                is_kept
            } else {
                !lost.shares(&change) && self.random.below(4) < kept_of_four
            };
            if is_kept {
                self.make_durable(&change);
            } else {
                lost.add(&change);
            }
        }
        for inode in self.inodes.values_mut() {
            if let Inode::Folder { live, durable } = inode {
                live.clone_from(durable);
            }
        }
    }

    /// A power cut, as far as bytes go.
    fn lose_bytes(&mut self) {
        let Self { random, inodes, .. } = self;
        for inode in inodes.values_mut() {
            let Inode::File(file) = inode else { continue };
            let kept_of_eight = random.below(9);
            for change in std::mem::take(&mut file.unsynced) {
                keep_some(&change, &mut file.durable, kept_of_eight, random);
            }
            file.live.clone_from(&file.durable);
        }
    }

    fn forget_unreachable(&mut self) {
        let reached = self.reached();
        self.inodes.retain(|inode, _| reached.contains(inode));
    }
}

/// Keeps each sector of a write, or a change of the length, by chance.
fn keep_some(change: &Unsynced, durable: &mut Vec<u8>, kept_of_eight: usize, random: &mut Random) {
    match change {
        Unsynced::Write { offset, bytes } => {
            let mut at = *offset;
            let end = offset + bytes.len();
            while at < end {
                let next = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
                let next = next.min(end);
                if random.below(8) < kept_of_eight {
                    put(durable, at, &bytes[at - offset..next - offset]);
                }
                at = next;
            }
        }
        Unsynced::Len(_) => {
            if random.below(8) < kept_of_eight {
                change.apply(durable);
            }
        }
    }
}

/// Names and files that changes touch.
#[derive(Default)]
struct Touched {
    names: BTreeSet<(u64, String)>,
    inodes: BTreeSet<u64>,
}

impl Touched {
    fn add(&mut self, change: &NameChange) {
        self.inodes.insert(change.inode);
        self.names.extend(change.sets.iter().map(|(folder, name, _)| (*folder, name.clone())));
    }

    fn shares(&self, change: &NameChange) -> bool {
        self.inodes.contains(&change.inode)
            || change.sets.iter().any(|(folder, name, _)| {
                self.names.contains(&(*folder, name.clone())) || self.inodes.contains(folder)
            })
    }
}

impl FakeDisk {
    fn create_now(&self, path: &Path) -> Result<u64, i32> {
        let state = &mut *self.0.borrow_mut();
        let (folder, name) = state.parent(path)?;
        if let Ok(inode) = state.find(path) {
            let Inode::File(file) = state.inodes.get_mut(&inode).expect("just found") else {
                return Err(libc::EISDIR);
            };
            file.live.clear();
            file.unsynced.push(Unsynced::Len(0));
            return Ok(inode);
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::File(FileState::default()));
        state.change_names(vec![(folder, name, Some(inode))], inode);
        Ok(inode)
    }

    fn make_folder_now(&self, path: &Path) -> Result<(), i32> {
        let state = &mut *self.0.borrow_mut();
        let mut so_far = PathBuf::from("/");
        for component in path.components() {
            so_far.push(component);
            if state.find(&so_far).is_ok() {
                continue;
            }
            let (folder, name) = state.parent(&so_far)?;
            let inode = state.next_inode;
            state.next_inode += 1;
            let made = Inode::Folder { live: BTreeMap::new(), durable: BTreeMap::new() };
            state.inodes.insert(inode, made);
            state.change_names(vec![(folder, name, Some(inode))], inode);
        }
        Ok(())
    }

    fn rename_now(&self, from: &Path, to: &Path) -> Result<(), i32> {
        let state = &mut *self.0.borrow_mut();
        let inode = state.find(from)?;
        let (old, new) = (state.parent(from)?, state.parent(to)?);
        let sets = vec![(old.0, old.1, None), (new.0, new.1, Some(inode))];
        state.change_names(sets, inode);
        Ok(())
    }

    fn link_now(&self, from: &Path, to: &Path) -> Result<(), i32> {
        let state = &mut *self.0.borrow_mut();
        let inode = state.find(from)?;
        let (folder, name) = state.parent(to)?;
        if state.find(to).is_ok() {
            return Err(libc::EEXIST);
        }
        state.change_names(vec![(folder, name, Some(inode))], inode);
        Ok(())
    }

    fn remove_now(&self, path: &Path, wants_folder: bool) -> Result<(), i32> {
        let state = &mut *self.0.borrow_mut();
        let inode = state.find(path)?;
        match &state.inodes[&inode] {
            Inode::Folder { .. } if !wants_folder => return Err(libc::EISDIR),
            Inode::File(_) if wants_folder => return Err(libc::ENOTDIR),
            Inode::Folder { live, .. } if !live.is_empty() => return Err(libc::ENOTEMPTY),
            _ => {}
        }
        let (folder, name) = state.parent(path)?;
        state.change_names(vec![(folder, name, None)], inode);
        Ok(())
    }

    fn list_now(&self, folder: &Path) -> Result<Vec<DiskEntry>, i32> {
        let state = self.0.borrow();
        let names = state.names(state.find(folder)?)?;
        let entry = |(name, inode): (&String, &u64)| {
            let (is_folder, len_bytes) = match &state.inodes[inode] {
                Inode::File(file) => (false, file.live.len() as u64),
                Inode::Folder { .. } => (true, 0),
            };
            DiskEntry { name: name.clone(), is_folder, len_bytes }
        };
        Ok(names.iter().map(entry).collect())
    }

    fn open_now(&self, path: &Path) -> Result<FakeFile, i32> {
        let state = self.0.borrow();
        let inode = state.find(path)?;
        match &state.inodes[&inode] {
            Inode::File(_) => Ok(FakeFile { disk: self.clone(), inode }),
            Inode::Folder { .. } => Err(libc::EISDIR),
        }
    }
}
