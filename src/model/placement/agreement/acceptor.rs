//! A node's part: what it promised, what it voted for, which documents it follows.
//!
//! In: requests. Out: [`Step`]: what must be on the disk before anything else happens, and the
//! answer that may be given then. The caller saves, applies, answers, in this order; if it cannot
//! save it answers `Failed`, and nothing has changed.
//! Keeps the newest [`EPOCHS_MAX`] documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Answer, Ballot, Learned, Request, Vote};
use crate::model::placement::document::{DOCUMENT_BYTES_MAX, NodeId, PlacementDocument};
use crate::model::placement::history::EPOCHS_MAX;

/// Bytes of the documents of one [`Answer::Documents`]; one always fits.
pub const DOCUMENTS_BYTES_MAX: usize = 2 << 20;

const _: () = assert!(DOCUMENTS_BYTES_MAX >= DOCUMENT_BYTES_MAX);

/// What a node remembers of an epoch that is not decided, as far as it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Which.
    pub epoch: u64,
    /// Nothing is promised or voted for under a lower one.
    pub promised: Ballot,
    /// The last vote.
    pub vote: Option<Vote>,
}

/// What has to be durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// In place of the draft before.
    Draft(Draft),
    /// Beside the others. A draft of its epoch, or an earlier one, means nothing any more.
    Document(Learned),
}

/// What a request leads to.
#[derive(Debug)]
pub struct Step {
    /// To be saved, then given to [`Acceptor::apply_saved`]. `None`: nothing changes.
    pub save: Option<Saved>,
    /// To be said after that.
    pub answer: Answer,
}

/// A node's part.
#[derive(Clone, Debug)]
pub struct Acceptor {
    node: NodeId,
    zone: Option<String>,
    group: Option<String>,
    documents: BTreeMap<u64, Learned>,
    draft: Draft,
}

impl Acceptor {
    /// A node that knows what it saved before: committed documents, and its last draft.
    pub fn new(
        node: NodeId,
        zone: Option<String>,
        documents: impl IntoIterator<Item = Learned>,
        draft: Draft,
    ) -> Self {
        let documents = documents.into_iter().map(|each| (each.document.epoch, each)).collect();
        let mut acceptor = Self { node, zone, group: None, documents, draft };
        acceptor.forget_draft();
        acceptor
    }

    /// The same, of a node that is to be in this group.
    pub fn in_group(self, group: Option<String>) -> Self {
        Self { group, ..self }
    }

    /// Who it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What the node follows.
    pub fn newest(&self) -> Option<&Arc<PlacementDocument>> {
        self.documents.last_key_value().map(|(_, learned)| &learned.document)
    }

    /// Its epoch; 0 if there is none.
    pub fn newest_epoch(&self) -> u64 {
        self.newest().map_or(0, |document| document.epoch)
    }

    /// The highest epoch that has started at `now_ms`; before any has, the lowest, as in
    /// [`crate::model::placement::History::current`]. 0: there is none.
    pub fn epoch_in_force(&self, now_ms: i64) -> u64 {
        let mut newest_first = self.documents.values().map(|each| &each.document).rev();
        let started = newest_first.find(|document| document.start_ms <= now_ms);
        started.map_or(self.oldest_epoch(), |document| document.epoch)
    }

    /// The lowest epoch that is kept.
    pub fn oldest_epoch(&self) -> u64 {
        self.documents.first_key_value().map_or(0, |(epoch, _)| *epoch)
    }

    /// What to save and to say; `now_ms` is when it is asked.
    pub fn handle_request(&self, request: &Request, now_ms: i64) -> Step {
        match request {
            Request::Read { from_epoch } => say(self.read(*from_epoch)),
            Request::Prepare { epoch, ballot } => match self.check_turn(*epoch, *ballot) {
                Err(answer) => say(*answer),
                Ok(()) => self.promise(*ballot),
            },
            Request::Accept { ballot, document } => {
                match self.check_turn(document.epoch, *ballot) {
                    Err(answer) => say(*answer),
                    Ok(()) => self.vote(*ballot, document),
                }
            }
            Request::Commit { document } => self.commit(document, now_ms),
        }
    }

    /// It is on the disk.
    pub fn apply_saved(&mut self, saved: Saved) {
        match saved {
            Saved::Draft(draft) => self.draft = draft,
            Saved::Document(learned) => {
                self.documents.insert(learned.document.epoch, learned);
                while self.documents.len() > EPOCHS_MAX {
                    self.documents.pop_first();
                }
                self.forget_draft();
            }
        }
    }

    /// A draft of a decided epoch, or none: the next one is open.
    fn forget_draft(&mut self) {
        let epoch = self.newest_epoch() + 1;
        if self.draft.epoch != epoch {
            self.draft = Draft { epoch, ..Draft::default() };
        }
    }

    /// Whether this epoch is the one to decide, and the ballot not too low.
    fn check_turn(&self, epoch: u64, ballot: Ballot) -> Result<(), Box<Answer>> {
        let answer = match self.newest() {
            Some(newest) if epoch <= newest.epoch => Answer::Ahead { newest: Arc::clone(newest) },
            _ if epoch > self.draft.epoch => Answer::Behind { newest_epoch: self.newest_epoch() },
            _ if ballot.round == 0 || epoch == 0 => {
                Answer::Failed { text: "cannot vote: epochs and rounds begin at 1".into() }
            }
            _ if ballot < self.draft.promised => {
                Answer::Outbid { epoch, promised: self.draft.promised }
            }
            _ => return Ok(()),
        };
        Err(Box::new(answer))
    }

    fn promise(&self, ballot: Ballot) -> Step {
        let Draft { epoch, promised, vote } = &self.draft;
        let answer = Answer::Promised { epoch: *epoch, ballot, vote: vote.clone() };
        let draft = || Draft { promised: ballot, ..self.draft.clone() };
        Step { save: (ballot > *promised).then(|| Saved::Draft(draft())), answer }
    }

    fn vote(&self, ballot: Ballot, document: &Arc<PlacementDocument>) -> Step {
        let may_follow = match self.newest() {
            Some(newest) => newest.check_next(document).map_err(|fault| fault.to_string()),
            None if document.find(self.node).is_some() => Ok(()),
            None => {
                Err(format!("node {} is not in the document that is to be the first", self.node))
            }
        };
        if let Err(cause) = may_follow {
            return say(Answer::Failed { text: format!("cannot vote: {cause}") });
        }
        let epoch = self.draft.epoch;
        let vote = Some(Vote { ballot, document: Arc::clone(document) });
        let draft = Draft { epoch, promised: ballot, vote };
        let save = (draft != self.draft).then_some(Saved::Draft(draft));
        Step { save, answer: Answer::Accepted { epoch, ballot } }
    }

    fn commit(&self, document: &Arc<PlacementDocument>, now_ms: i64) -> Step {
        let newest_epoch = self.newest_epoch();
        if let Some(Learned { document: ours, .. }) = self.documents.get(&document.epoch) {
            if ours == document {
                return say(Answer::Committed { newest_epoch });
            }
            let text = format!(
                "cannot follow placement epoch {}: node {} follows another document of it, \
                 {:032x} and not {:032x}; two fleets were mixed up, or one was restored from a \
                 backup: take the node out of one of them",
                document.epoch,
                self.node,
                ours.content_hash(),
                document.content_hash()
            );
            return say(Answer::Failed { text });
        }
        if self.documents.len() >= EPOCHS_MAX && document.epoch < self.oldest_epoch() {
            return say(Answer::Committed { newest_epoch });
        }
        let newest_epoch = newest_epoch.max(document.epoch);
        let save = Some(Saved::Document(Learned::at(Arc::clone(document), now_ms)));
        Step { save, answer: Answer::Committed { newest_epoch } }
    }

    fn read(&self, from_epoch: u64) -> Answer {
        let mut documents = Vec::new();
        let mut bytes = 0;
        for learned in self.documents.range(from_epoch..).map(|(_, learned)| learned) {
            bytes += learned.document.encode().len();
            if bytes > DOCUMENTS_BYTES_MAX && !documents.is_empty() {
                break;
            }
            documents.push(learned.clone());
        }
        let newest_epoch = self.newest_epoch();
        let (zone, group) = (self.zone.clone(), self.group.clone());
        Answer::Documents { newest_epoch, documents, zone, group }
    }
}

/// Nothing changes.
fn say(answer: Answer) -> Step {
    Step { save: None, answer }
}
