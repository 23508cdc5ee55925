//! The hint logs of a gateway on a disk: does what they ask of it.
//!
//! ```text
//! DIR/<node, 32 hex digits>/hints-<segment>.log     see `gateway/hint/segment`
//! ```
//! A segment is read in pieces, so that what is appended meanwhile waits for one piece only. At a
//! start the headers of all segments are read, and all of the last one of each node, whose end may
//! be torn. Not here: threads and channels (`hints`).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::complaints::{Complaints, News};
use crate::background::disk::{Disk, DiskFile};
use crate::gateway::hint::command::HintCommand;
use crate::gateway::hint::log::{FoundSegment, HintFigures, HintLimits, HintWrite, LogEvent};
use crate::gateway::hint::logs::HintLogs;
use crate::gateway::hint::segment::{
    BLOCK_BYTES, LoadedSegment, SEGMENT_BYTES_MAX, SegmentFault, SegmentHeader, SegmentTally,
    parse_segment_file_name, segment_file_name,
};
use crate::model::placement::NodeId;

/// What is read of a segment at once.
const READ_BYTES: usize = 4 << 20;

/// See the module's description.
pub struct HintStore<D: Disk> {
    disk: D,
    folder: PathBuf,
    logs: HintLogs,
    /// The segment that is written to.
    open: HashMap<NodeId, (u64, D::File)>,
    loads: HashMap<NodeId, Load<D>>,
    /// Folders whose name is durable.
    folders: HashSet<NodeId>,
    complaints: Complaints,
}

struct Load<D: Disk> {
    segment: u64,
    file: D::File,
    len_bytes: u64,
    bytes: Vec<u8>,
    piece: Vec<u8>,
}

/// Whether there is more to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// There is.
    More,
    /// Not before something is said to the store, or its timeout.
    Done,
}

/// What waits for a node at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundHints {
    /// Whose.
    pub node: NodeId,
    /// Segments.
    pub segments: u64,
    /// How much.
    pub figures: HintFigures,
    /// Names of segments whose header is damaged, which were read whole.
    pub damaged: Vec<String>,
}

/// Why the hints cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HintStoreFault {
    /// The disk (errno), and at what.
    Io { path: PathBuf, errno: i32 },
    /// A segment that another program wrote, or that was moved.
    Segment { path: PathBuf, fault: SegmentFault },
}

impl std::fmt::Display for HintStoreFault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(out, "cannot use the hints at {}: {error}", path.display())
            }
            Self::Segment { path, fault } => {
                write!(out, "cannot use the hints in {}: {fault}", path.display())
            }
        }
    }
}

impl std::error::Error for HintStoreFault {}

impl<D: Disk> HintStore<D> {
    /// Opens what is in `folder`, made if it is not there, for a gateway with `shard_count` shards.
    pub async fn open(
        disk: &D,
        folder: &Path,
        limits: HintLimits,
        shard_count: u32,
    ) -> Result<(Self, Vec<FoundHints>), HintStoreFault> {
        let mut store = Self {
            disk: disk.clone(),
            folder: folder.to_owned(),
            logs: HintLogs::new(limits, shard_count),
            open: HashMap::new(),
            loads: HashMap::new(),
            folders: HashSet::new(),
            complaints: Complaints::default(),
        };
        make_folder(disk, folder).await.map_err(io(folder))?;
        let mut found = Vec::new();
        for entry in disk.list(folder).await.map_err(io(folder))? {
            let Some(node) = NodeId::parse(&entry.name).filter(|_| entry.is_folder) else {
                continue;
            };
            found.push(store.open_node(node).await?);
        }
        disk.sync_folder(folder).await.map_err(io(folder))?;
        found.sort_by_key(|found| found.node);
        Ok((store, found))
    }

    async fn open_node(&mut self, node: NodeId) -> Result<FoundHints, HintStoreFault> {
        let folder = self.folder.join(node.to_string());
        let entries = self.disk.list(&folder).await.map_err(io(&folder))?;
        let mut files: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some((parse_segment_file_name(&entry.name)?, entry.len_bytes)))
            .collect();
        files.sort_unstable();
        let mut damaged = Vec::new();
        let mut found = Vec::new();
        let mut later: Option<SegmentHeader> = None;
        for (index, &(segment, len_bytes)) in files.iter().enumerate().rev() {
            let path = folder.join(segment_file_name(segment));
            let file = self.disk.open(&path).await.map_err(io(&path))?;
            let mut bytes = Vec::new();
            file.read_at(0, BLOCK_BYTES, &mut bytes).await.map_err(io(&path))?;
            let header = match SegmentHeader::decode(&bytes, node, segment) {
                Ok(header) => Some(header),
                Err(SegmentFault::Damaged) => None,
                Err(fault) => return Err(HintStoreFault::Segment { path, fault }),
            };
            // The last one may be torn: then nothing in it was acknowledged.
            if header.is_none() && index + 1 < files.len() {
                damaged.push(segment_file_name(segment));
            }
            let durable_number = later.map_or(0, |later| later.durable_number);
            let tally = if let (Some(header), Some(later)) = (header, later) {
                tally_between(&header, &later)
            } else {
                // What a process wrote and did not live to sync is handed out too.
                file.sync().await.map_err(io(&path))?;
                let len = usize::try_from(len_bytes.min(SEGMENT_BYTES_MAX)).unwrap_or(0);
                file.read_at(0, len, &mut bytes).await.map_err(io(&path))?;
                *LoadedSegment::new(bytes, (node, segment), 1, durable_number).tally()
            };
            let mut segment = FoundSegment::new(segment, len_bytes, tally);
            segment.header = header;
            found.push(segment);
            // Without the next header the segment behind says nothing of this one.
            later = header;
        }
        found.reverse();
        self.logs.add_found(node, &found);
        self.folders.insert(node);
        let figures = self.logs.log_mut(node).figures();
        Ok(FoundHints { node, segments: found.len() as u64, figures, damaged })
    }

    /// Does as told; what follows from it is done by [`HintStore::work`].
    pub fn handle(&mut self, now_ms: i64, command: HintCommand) {
        match command {
            HintCommand::Append { node, ticket, part } => {
                self.logs.handle_append(now_ms, node, ticket, &part);
            }
            HintCommand::Read { node, shard } => self.logs.log_mut(node).handle_read(shard),
            HintCommand::Pause { node, shard } => self.logs.log_mut(node).handle_pause(shard),
            HintCommand::Delivered { node, shard, number } => {
                self.logs.log_mut(node).handle_delivered(shard, number);
            }
        }
    }

    /// Writes and syncs everything that waits, reads a piece for each node, removes what is
    /// delivered. Blocks for as long as the disk does.
    pub async fn work(&mut self, now_ms: i64) -> Work {
        let mut work = Work::Done;
        for node in self.logs.nodes() {
            while let Some(write) = self.logs.log_mut(node).poll_write() {
                let outcome = self.write(node, &write).await;
                if outcome.is_err() {
                    self.open.remove(&node);
                }
                self.tell_write(node, outcome);
                self.logs.log_mut(node).handle_written(outcome);
            }
            while let Some(segment) = self.logs.log_mut(node).poll_remove(now_ms) {
                let outcome = self.remove(node, segment).await;
                self.tell("remove", node, segment, outcome.err());
                self.logs.log_mut(node).handle_removed(now_ms, outcome);
            }
            if self.load_piece(now_ms, node).await == Work::More {
                work = Work::More;
            }
        }
        while let Some((node, segment)) = self.logs.poll_load(now_ms) {
            match self.begin_load(node, segment).await {
                Ok(load) => {
                    self.loads.insert(node, load);
                    work = Work::More;
                }
                Err(errno) => self.end_load(now_ms, (node, segment), Err(errno)),
            }
        }
        work
    }

    /// The next thing to tell a shard, and of which node.
    pub fn poll_event(&mut self) -> Option<(NodeId, LogEvent)> {
        self.logs.poll_event()
    }

    /// When to call [`HintStore::work`] though nothing is said to it.
    pub fn poll_timeout_ms(&self) -> Option<i64> {
        self.logs.poll_timeout_ms()
    }

    /// Figures for people, by node.
    pub fn figures(&self) -> Vec<(NodeId, HintFigures)> {
        self.logs.figures()
    }

    fn path(&self, node: NodeId, segment: u64) -> PathBuf {
        self.folder.join(node.to_string()).join(segment_file_name(segment))
    }

    async fn write(&mut self, node: NodeId, write: &HintWrite) -> Result<(), i32> {
        if write.offset == 0 {
            self.open.remove(&node);
            let folder = self.folder.join(node.to_string());
            if !self.folders.contains(&node) {
                make_folder(&self.disk, &folder).await?;
                self.folders.insert(node);
            }
            let file = self.disk.create(&self.path(node, write.segment)).await?;
            file.write_at(&write.bytes, 0).await?;
            file.sync().await?;
            self.disk.sync_folder(&folder).await?;
            self.open.insert(node, (write.segment, file));
            return Ok(());
        }
        let (segment, file) = self.open.get(&node).ok_or(libc::EBADF)?;
        assert!(*segment == write.segment, "a segment is written from its begin");
        file.write_at(&write.bytes, write.offset).await?;
        file.sync().await
    }

    async fn remove(&mut self, node: NodeId, segment: u64) -> Result<(), i32> {
        if self.open.get(&node).is_some_and(|(open, _)| *open == segment) {
            self.open.remove(&node);
        }
        match self.disk.remove(&self.path(node, segment)).await {
            Ok(()) | Err(libc::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        // Else a power cut brings it back, and with it what was delivered long ago.
        self.disk.sync_folder(&self.folder.join(node.to_string())).await
    }

    /// Reads the next piece of the segment that is wanted, if one is.
    async fn load_piece(&mut self, now_ms: i64, node: NodeId) -> Work {
        if !self.logs.log_mut(node).has_loaded() {
            self.loads.remove(&node);
        }
        let Some(load) = self.loads.get_mut(&node) else { return Work::Done };
        let offset = load.bytes.len() as u64;
        let rest = usize::try_from(load.len_bytes - offset).unwrap_or(READ_BYTES);
        let read = load.file.read_at(offset, rest.min(READ_BYTES), &mut load.piece).await;
        load.bytes.extend_from_slice(&load.piece);
        let segment = load.segment;
        match read {
            Ok(()) if load.piece.is_empty() || load.bytes.len() as u64 == load.len_bytes => {
                let bytes = std::mem::take(&mut load.bytes);
                self.end_load(now_ms, (node, segment), Ok(bytes));
            }
            Ok(()) => {}
            Err(errno) => self.end_load(now_ms, (node, segment), Err(errno)),
        }
        Work::More
    }

    async fn begin_load(&self, node: NodeId, segment: u64) -> Result<Load<D>, i32> {
        let file = self.disk.open(&self.path(node, segment)).await?;
        let len_bytes = file.len_bytes().await?.min(SEGMENT_BYTES_MAX);
        let bytes = Vec::with_capacity(usize::try_from(len_bytes).map_err(|_| libc::EFBIG)?);
        Ok(Load { segment, file, len_bytes, bytes, piece: Vec::new() })
    }

    fn end_load(
        &mut self,
        now_ms: i64,
        (node, segment): (NodeId, u64),
        outcome: Result<Vec<u8>, i32>,
    ) {
        self.loads.remove(&node);
        self.tell("read", node, segment, outcome.as_ref().err().copied());
        let log = self.logs.log_mut(node);
        let before = log.figures();
        log.handle_loaded(now_ms, segment, outcome);
        let after = log.figures();
        let records = after.records_lost - before.records_lost;
        let samples = after.samples_lost - before.samples_lost;
        if records + samples > 0 {
            let path = self.path(node, segment);
            tracing::error!(
                "hints are damaged in {}: {records} records are lost, and {samples} samples of \
                 others whose labels were in them; the replicas of node {node} have them",
                path.display()
            );
        }
    }

    /// Once: clients retry what is refused.
    fn tell_write(&mut self, node: NodeId, outcome: Result<(), i32>) {
        match self.complaints.handle_write(node, outcome) {
            Some(News::Refused(errno)) => {
                let error = std::io::Error::from_raw_os_error(errno);
                tracing::error!(
                    "cannot keep hints for node {node}: {error}; answering 503 until that works"
                );
            }
            Some(News::Works { refused }) => tracing::info!(
                "hints for node {node} are kept again; {refused} writes were refused"
            ),
            None => {}
        }
    }

    fn tell(&self, verb: &str, node: NodeId, segment: u64, errno: Option<i32>) {
        if let Some(errno) = errno {
            let error = std::io::Error::from_raw_os_error(errno);
            let path = self.path(node, segment);
            tracing::error!("cannot {verb} {}: {error}; trying again", path.display());
        }
    }
}

/// What two neighbours' headers say of the first of them.
fn tally_between(header: &SegmentHeader, later: &SegmentHeader) -> SegmentTally {
    SegmentTally {
        records: later.records_before.saturating_sub(header.records_before),
        samples: later.samples_before.saturating_sub(header.samples_before),
        oldest_ms: Some(header.made_ms),
        last_number: later.durable_number,
        durable_number: later.durable_number,
        ..SegmentTally::default()
    }
}

/// Makes a folder, and its name durable.
async fn make_folder<D: Disk>(disk: &D, folder: &Path) -> Result<(), i32> {
    disk.make_folder(folder).await?;
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    disk.sync_folder(above.unwrap_or(Path::new("."))).await
}

fn io(path: &Path) -> impl FnOnce(i32) -> HintStoreFault {
    let path = path.to_owned();
    move |errno| HintStoreFault::Io { path, errno }
}
