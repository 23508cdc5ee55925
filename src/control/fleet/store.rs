//! DRIVER: a node's placement on its disk, and its answers about it.
//!
//! ```text
//! DATA/placement/epoch-<20 digits>.json   a document that was decided on, and since when
//! DATA/placement/agreement.json           what was promised and voted for in the epoch after it
//! ```
//! Each file bears a checksum (`envelope`), is written under a temporary name, synced, renamed, and
//! the folder synced; only then the node answers. A damaged file stops the start and says what to
//! do: a node that forgot what it promised could help to decide twice.
//! In: requests. Out: answers, and the newest epoch for whoever waits for it. Blocks on the disk,
//! so it is called where that may be. What is decided is `model/placement/agreement`'s.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::envelope::{open_content, seal_content};
use crate::base::time::unix_now_ms;
use crate::model::placement::agreement::{
    Acceptor, Answer, Ballot, Draft, Learned, Request, Saved, Vote,
};
use crate::model::placement::{DocumentFault, NodeId, PlacementDocument};
use crate::wire::frame::{FrameFault, FrameHeader, Memory};

/// The folder in a node's data folder.
pub const PLACEMENT_NAME: &str = "placement";
const AGREEMENT_NAME: &str = "agreement.json";
const EPOCH_PREFIX: &str = "epoch-";
const EPOCH_SUFFIX: &str = ".json";
const TEMPORARY_SUFFIX: &str = ".tmp";
const LEARNED_BEFORE: &str = "{\"learned_ms\":";
const LEARNED_BETWEEN: &str = ",\"document\":";
/// How late a document may start by the node's clock.
const START_AHEAD_MS_MAX: i64 = 5 * 60_000;

/// A node's placement. Shared by whoever answers requests.
#[derive(Debug)]
pub struct NodePlacement {
    kept: Mutex<Kept>,
    epoch: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    folder: PathBuf,
    acceptor: Acceptor,
}

/// Why a node's placement cannot be used.
#[derive(Debug)]
pub enum PlacementFault {
    /// A file operation failed.
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file is not what was written.
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// A document that this program cannot read.
    Document {
        /// Where.
        path: PathBuf,
        /// Why not.
        fault: DocumentFault,
    },
}

/// The content of `agreement.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDraft {
    epoch: u64,
    promised: WrittenBallot,
    vote: Option<WrittenVote>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenVote {
    ballot: WrittenBallot,
    document: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBallot {
    round: u64,
    /// 32 hex digits.
    proposer: String,
}

impl NodePlacement {
    /// What is in the data folder `data`, which this process has locked; made if it is not there.
    /// `zone` is where the node stands, for those who write documents.
    pub fn open(data: &Path, node: NodeId, zone: Option<String>) -> Result<Self, PlacementFault> {
        let folder = data.join(PLACEMENT_NAME);
        if !folder.exists() {
            fs::create_dir_all(&folder).map_err(io_fault("make", &folder))?;
            sync_folder(data)?;
        }
        let mut documents = Vec::new();
        let mut draft = Draft::default();
        for entry in fs::read_dir(&folder).map_err(io_fault("read", &folder))? {
            let path = entry.map_err(io_fault("read", &folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(TEMPORARY_SUFFIX) {
                fs::remove_file(&path).map_err(io_fault("remove", &path))?;
            } else if name == AGREEMENT_NAME {
                draft = read_draft(&path)?;
            } else if let Some(epoch) = parse_epoch(&name) {
                let learned = read_learned(&path, &read_content(&path)?)?;
                if learned.document.epoch != epoch {
                    return Err(PlacementFault::Damaged { path });
                }
                documents.push(learned);
            }
        }
        let acceptor = Acceptor::new(node, zone, documents, draft);
        let epoch = watch::Sender::new(acceptor.newest_epoch());
        Ok(Self { kept: Mutex::new(Kept { folder, acceptor }), epoch })
    }

    /// The same, of a node that is to be in this group.
    pub fn in_group(self, group: Option<String>) -> Self {
        let Self { kept, epoch } = self;
        let Kept { folder, acceptor } = kept.into_inner().unwrap_or_else(PoisonError::into_inner);
        let kept = Kept { folder, acceptor: acceptor.in_group(group) };
        Self { kept: Mutex::new(kept), epoch }
    }

    /// The newest epoch that the node follows, 0 while there is none; and every later one.
    pub fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// The epoch that samples follow which arrive at `now_ms`: the highest that has started.
    pub fn epoch_in_force(&self, now_ms: i64) -> u64 {
        self.lock().acceptor.epoch_in_force(now_ms)
    }

    /// The newest document that the node follows.
    pub fn newest(&self) -> Option<Arc<PlacementDocument>> {
        self.lock().acceptor.newest().cloned()
    }

    /// The answer to a `PlacementRequest` frame, as a frame. Blocks until it is true of the disk.
    ///
    /// # Errors
    /// It is no such frame; the connection is of no more use.
    pub fn handle_frame(&self, header: &FrameHeader, payload: &[u8]) -> Result<Memory, FrameFault> {
        let answer = match Request::decode(header, payload)? {
            Ok(request) => self.handle_request(&request),
            Err(fault) => Answer::Failed { text: format!("cannot read the document: {fault}") },
        };
        Ok(answer.encode_frame())
    }

    /// The answer to a request. Blocks until it is true of the disk.
    pub fn handle_request(&self, request: &Request) -> Answer {
        let mut kept = self.lock();
        let now_ms = unix_now_ms();
        if let Some(answer) = refuse_future(&kept.acceptor, request, now_ms) {
            return answer;
        }
        let step = kept.acceptor.handle_request(request, now_ms);
        let Some(saved) = step.save else { return step.answer };
        if let Err(fault) = kept.save(&saved) {
            tracing::error!("{fault}; the node neither promises nor votes until that is mended");
            return Answer::Failed { text: fault.to_string() };
        }
        kept.acceptor.apply_saved(saved);
        kept.remove_old();
        let epoch = kept.acceptor.newest_epoch();
        self.epoch.send_if_modified(|known| std::mem::replace(known, epoch) != epoch);
        step.answer
    }

    /// A panic while it was held left nothing half done: what is applied is one assignment.
    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn save(&self, saved: &Saved) -> Result<(), PlacementFault> {
        match saved {
            Saved::Draft(draft) => self.write(AGREEMENT_NAME, &encode_draft(draft)),
            Saved::Document(learned) => {
                self.write(&epoch_name(learned.document.epoch), &encode_learned(learned))
            }
        }
    }

    fn write(&self, name: &str, content: &str) -> Result<(), PlacementFault> {
        let path = self.folder.join(name);
        let temporary = self.folder.join(format!("{name}{TEMPORARY_SUFFIX}"));
        let mut file = File::create(&temporary).map_err(io_fault("make", &temporary))?;
        let bytes = seal_content(content);
        file.write_all(bytes.as_bytes()).map_err(io_fault("write", &temporary))?;
        file.sync_all().map_err(io_fault("sync", &temporary))?;
        fs::rename(&temporary, &path).map_err(io_fault("rename", &path))?;
        sync_folder(&self.folder)
    }

    /// What the acceptor has let go. Not being able to is no harm: the next start tries again.
    fn remove_old(&self) {
        let oldest = self.acceptor.oldest_epoch();
        let path = self.folder.join(epoch_name(oldest.saturating_sub(1)));
        if oldest > 1 && path.exists() {
            let _tried_again_later = fs::remove_file(path);
        }
    }
}

/// No vote for what starts too late: nothing could change before that, as epochs start in order.
fn refuse_future(acceptor: &Acceptor, request: &Request, now_ms: i64) -> Option<Answer> {
    let Request::Accept { document, .. } = request else { return None };
    let latest_ms = now_ms.saturating_add(START_AHEAD_MS_MAX);
    let latest_ms = acceptor.newest().map_or(latest_ms, |newest| newest.start_ms.max(latest_ms));
    (document.start_ms > latest_ms).then(|| {
        let ahead_s = document.start_ms.saturating_sub(now_ms) / 1000;
        let text = format!(
            "cannot vote: the document starts {ahead_s} s from now by this node's clock; set the \
             clocks of gateways and nodes"
        );
        Answer::Failed { text }
    })
}

fn epoch_name(epoch: u64) -> String {
    format!("{EPOCH_PREFIX}{epoch:020}{EPOCH_SUFFIX}")
}

fn parse_epoch(name: &str) -> Option<u64> {
    name.strip_prefix(EPOCH_PREFIX)?.strip_suffix(EPOCH_SUFFIX)?.parse().ok()
}

fn read_content(path: &Path) -> Result<String, PlacementFault> {
    let bytes = fs::read(path).map_err(io_fault("read", path))?;
    let damaged = || PlacementFault::Damaged { path: path.into() };
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    open_content(&text).map(str::to_owned).ok_or_else(damaged)
}

fn read_document(path: &Path, text: &str) -> Result<Arc<PlacementDocument>, PlacementFault> {
    let fault = |fault| PlacementFault::Document { path: path.into(), fault };
    PlacementDocument::decode(text).map(Arc::new).map_err(fault)
}

/// `{"learned_ms":N,"document":...}`, or a document alone of a program that kept no time.
fn read_learned(path: &Path, text: &str) -> Result<Learned, PlacementFault> {
    let parts = text.strip_prefix(LEARNED_BEFORE).and_then(|rest| rest.strip_suffix('}'));
    let Some(parts) = parts.and_then(|rest| rest.split_once(LEARNED_BETWEEN)) else {
        return Ok(Learned::at(read_document(path, text)?, i64::MIN));
    };
    let (learned_ms, document) = parts;
    let damaged = |_| PlacementFault::Damaged { path: path.into() };
    let learned_ms = learned_ms.parse().map_err(damaged)?;
    Ok(Learned::at(read_document(path, document)?, learned_ms))
}

fn encode_learned(Learned { document, learned_ms }: &Learned) -> String {
    format!("{LEARNED_BEFORE}{learned_ms}{LEARNED_BETWEEN}{}}}", document.encode())
}

fn read_draft(path: &Path) -> Result<Draft, PlacementFault> {
    let damaged = || PlacementFault::Damaged { path: path.into() };
    let written: WrittenDraft =
        serde_json::from_str(&read_content(path)?).map_err(|_| damaged())?;
    let ballot = |written: WrittenBallot| {
        let proposer = u128::from_str_radix(&written.proposer, 16).map_err(|_| damaged())?;
        Ok(Ballot { round: written.round, proposer })
    };
    let vote = match written.vote {
        None => None,
        Some(vote) => {
            let document = read_document(path, &vote.document)?;
            Some(Vote { ballot: ballot(vote.ballot)?, document })
        }
    };
    Ok(Draft { epoch: written.epoch, promised: ballot(written.promised)?, vote })
}

fn encode_draft(draft: &Draft) -> String {
    let ballot = |ballot: Ballot| WrittenBallot {
        round: ballot.round,
        proposer: format!("{:032x}", ballot.proposer),
    };
    let vote = draft
        .vote
        .as_ref()
        .map(|vote| WrittenVote { ballot: ballot(vote.ballot), document: vote.document.encode() });
    let written = WrittenDraft { epoch: draft.epoch, promised: ballot(draft.promised), vote };
    serde_json::to_string(&written).expect("numbers and texts are JSON")
}

fn sync_folder(path: &Path) -> Result<(), PlacementFault> {
    let folder = File::open(path).map_err(io_fault("open", path))?;
    folder.sync_all().map_err(io_fault("sync", path))
}

fn io_fault(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PlacementFault {
    let path = path.to_owned();
    move |error| PlacementFault::Io { action, path, error }
}

impl std::fmt::Display for PlacementFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { action, path, error } => {
                write!(f, "cannot {action} {}: {error}", path.display())
            }
            Self::Damaged { path } if path.ends_with(AGREEMENT_NAME) => write!(
                f,
                "cannot read {}: it is damaged. It holds what this node promised about the next \
                 placement. Make sure that no `tidegate cluster` command is under way, then delete \
                 it",
                path.display()
            ),
            Self::Damaged { path } => write!(
                f,
                "cannot read {}: it is damaged. Delete it: a gateway brings it back from another \
                 node",
                path.display()
            ),
            Self::Document { path, fault } => {
                write!(f, "cannot read {}: {fault}", path.display())
            }
        }
    }
}

impl std::error::Error for PlacementFault {}

#[cfg(test)]
mod tests;
