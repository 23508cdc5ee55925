//! How a fleet agrees on its next document: what proposers and nodes say to each other.
//!
//! ```text
//!  proposer (a gateway)                     voters (nodes)
//!   Prepare (epoch, ballot) ------------->  promise: nothing under a lower ballot any more
//!      <----------- Promised (vote so far)
//!   Accept (ballot, document) ----------->  vote
//!      <----------------------- Accepted
//!   Commit (document) ------------------->  all nodes of the old and the new document: followed
//! ```
//! One decision per epoch, by single-decree Paxos (Lamport, "Paxos Made Simple", 2001):
//! - Epoch n+1 is decided by a majority of the nodes of document n. Epochs have no gaps.
//! - Epoch 1 has no document before it: all nodes of the founded document must vote for it, so two
//!   foundings that have a node in common cannot both succeed.
//! - A vote that may have decided is completed by whoever finds it, before anything else.
//! - A node votes only for what may follow its newest document ([`PlacementDocument::check_next`]).
//! - What a node says is on its disk first ([`Acceptor`]). Proposers keep nothing: a ballot is
//!   never used twice, as each proposal draws a number of its own.
//!
//! Nothing here depends on clocks for being right, only for ending. A document may be decided long
//! after it was planned, and so after its start, by whoever finds the votes for it: so each node
//! keeps when it was told, for reads ([`Learned`]).
//! Not here: bytes (`wire/placement.rs`), files and sockets (`control/fleet`).

use std::sync::Arc;

use super::document::PlacementDocument;

mod acceptor;
mod proposal;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use acceptor::{Acceptor, DOCUMENTS_BYTES_MAX, Draft, Saved, Step};
pub use proposal::{Outcome, Proposal};

/// Which attempt of whom; the higher one wins. Round 0 is below every attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Counted up until nobody has promised more.
    pub round: u64,
    /// Drawn anew for each proposal.
    pub proposer: u128,
}

/// What a node voted for last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Under which ballot.
    pub ballot: Ballot,
    /// For what.
    pub document: Arc<PlacementDocument>,
}

/// A document that was decided, and since when a node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// It.
    pub document: Arc<PlacementDocument>,
    /// When the node was told, by its clock; Unix milliseconds. Until then it took frames of the
    /// epochs before. The document's start where it is not known, or was later.
    pub learned_ms: i64,
}

impl Learned {
    /// Told at `now_ms`.
    pub fn at(document: Arc<PlacementDocument>, now_ms: i64) -> Self {
        Self { learned_ms: now_ms.max(document.start_ms), document }
    }
}

/// What a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Committed documents from this epoch on, ascending, as many as fit; the rest by asking again.
    Read {
        /// The first that is wanted.
        from_epoch: u64,
    },
    /// A promise.
    Prepare {
        /// Which document is to be decided.
        epoch: u64,
        /// Under which ballot.
        ballot: Ballot,
    },
    /// A vote.
    Accept {
        /// Under which ballot.
        ballot: Ballot,
        /// For what.
        document: Arc<PlacementDocument>,
    },
    /// A document that was decided on: to be followed.
    Commit {
        /// It.
        document: Arc<PlacementDocument>,
    },
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `Read`.
    Documents {
        /// The highest epoch that the node follows; 0: none.
        newest_epoch: u64,
        /// Some of those that were asked for, ascending.
        documents: Vec<Learned>,
        /// Where the node stands, by its own configuration.
        zone: Option<String>,
        /// Which group it is to be in, by the same.
        group: Option<String>,
    },
    /// To `Prepare`: promised.
    Promised {
        /// Of the request.
        epoch: u64,
        /// Of the request.
        ballot: Ballot,
        /// What the node voted for until now.
        vote: Option<Vote>,
    },
    /// To `Accept`: the node voted so.
    Accepted {
        /// Of the request.
        epoch: u64,
        /// Of the request.
        ballot: Ballot,
    },
    /// To both: no, a higher ballot was promised.
    Outbid {
        /// Of the request.
        epoch: u64,
        /// To that one.
        promised: Ballot,
    },
    /// To both: the epoch, or a later one, was decided already.
    Ahead {
        /// The highest.
        newest: Arc<PlacementDocument>,
    },
    /// To both: the node does not know the document before. It is to be told.
    Behind {
        /// The highest epoch that it follows; 0: none.
        newest_epoch: u64,
    },
    /// To `Commit`: the node follows it, or a later one.
    Committed {
        /// The highest epoch that it follows.
        newest_epoch: u64,
    },
    /// The node cannot, and why, for people.
    Failed {
        /// Why.
        text: String,
    },
}
