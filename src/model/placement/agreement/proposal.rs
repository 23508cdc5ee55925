//! A proposer's part: one change, brought to a decision.
//!
//! In: answers of nodes, time. Out: requests to nodes, and the [`Outcome`].
//! It asks under a ballot; whenever the answers do not suffice in time it asks again under a higher
//! one, later each time and by chance, so that two proposers do not outbid each other for ever.
//!
//! # Founding
//! A vote for the first document decides nothing unless all nodes of that document vote alike. So
//! a vote that is found may be passed over if a node of its document has promised us and has not
//! voted under that ballot, or a higher one: it never will. What is proposed has the promises of
//! all its nodes, and is the highest vote that is not passed over. Why that is safe: let v be
//! decided under ballot b, and w be proposed under a later one, with a node x in both. x reports
//! a vote for v, by induction over ballots, at b or higher; none of v at b is passed over, as all
//! nodes of v voted so; so w is a vote at b or higher: of v, or of a document that has no node in
//! common with v.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::{Answer, Ballot, Request, Vote};
use crate::base::time::{Duration, Instant};
use crate::model::placement::document::{NodeId, PlacementDocument};
use crate::model::placement::fault::DocumentFault;

/// How long the answers to the first ballot may take.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// And to the later ones; as much again by chance.
const RETRY_MAX: Duration = Duration::from_secs(4);
/// After a higher ballot was heard of: by chance up to this.
const OUTBID_WAIT_MS: u64 = 300;

/// How a proposal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This document is the next one, for ever.
    Decided {
        /// It.
        document: Arc<PlacementDocument>,
        /// Whether it is the one that was proposed. If not, somebody else's change came first;
        /// plan again upon it.
        is_ours: bool,
    },
    /// The epoch was decided before; this is the newest. Plan again upon it, or see that
    /// everything is there already.
    Overtaken {
        /// The newest.
        newest: Arc<PlacementDocument>,
    },
}

#[derive(Debug)]
enum Phase {
    Preparing {
        promises: BTreeMap<NodeId, Option<Vote>>,
        /// Who was asked.
        asked: BTreeSet<NodeId>,
    },
    Accepting {
        document: Arc<PlacementDocument>,
        voted: BTreeSet<NodeId>,
    },
    /// Decided; those who do not know it yet.
    Committing {
        document: Arc<PlacementDocument>,
        untold: BTreeSet<NodeId>,
    },
    Over,
}

/// A proposer's part.
#[derive(Debug)]
pub struct Proposal {
    base: Option<Arc<PlacementDocument>>,
    wanted: Arc<PlacementDocument>,
    ballot: Ballot,
    /// The highest that was heard of.
    round_seen: u64,
    phase: Phase,
    requests: VecDeque<(NodeId, Request)>,
    /// What nodes said last that could not vote.
    faults: BTreeMap<NodeId, String>,
    outcome: Option<Outcome>,
    retry_at: Instant,
    retry_wait: Duration,
    chance: u64,
}

impl Proposal {
    /// `wanted` as the first document of a fleet. `proposer` was never used before.
    pub fn found(now: Instant, proposer: u128, wanted: PlacementDocument) -> Self {
        assert!(wanted.epoch == 1);
        Self::new(now, proposer, (None, wanted))
    }

    /// `wanted` as what follows `base`, which was decided. `proposer` was never used before.
    ///
    /// # Errors
    /// It may not follow.
    pub fn change(
        now: Instant,
        proposer: u128,
        base: Arc<PlacementDocument>,
        wanted: PlacementDocument,
    ) -> Result<Self, DocumentFault> {
        base.check_next(&wanted)?;
        assert!(wanted.epoch == base.epoch + 1, "epochs have no gaps");
        Ok(Self::new(now, proposer, (Some(base), wanted)))
    }

    fn new(
        now: Instant,
        proposer: u128,
        (base, wanted): (Option<Arc<PlacementDocument>>, PlacementDocument),
    ) -> Self {
        let mut proposal = Self {
            base,
            wanted: Arc::new(wanted),
            ballot: Ballot { round: 0, proposer },
            round_seen: 0,
            phase: Phase::Over,
            requests: VecDeque::new(),
            faults: BTreeMap::new(),
            outcome: None,
            retry_at: now,
            retry_wait: RETRY_FIRST,
            // Only spreads retries; the proposer's number was drawn already.
            chance: fold(proposer) | 1,
        };
        proposal.begin_ballot(now);
        proposal
    }

    /// The next request to send. It may get lost; what matters is asked again.
    pub fn poll_request(&mut self) -> Option<(NodeId, Request)> {
        self.requests.pop_front()
    }

    /// How it ended, once it has. Requests and answers go on until everybody was told.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Whether there is nothing more to do or to tell.
    pub fn is_over(&self) -> bool {
        match &self.phase {
            Phase::Over => true,
            Phase::Committing { untold, .. } => untold.is_empty(),
            Phase::Preparing { .. } | Phase::Accepting { .. } => false,
        }
    }

    /// Nodes that were asked and did not say yes, each with what it said: for people.
    pub fn missing(&self) -> Vec<(NodeId, Option<&str>)> {
        let nodes: Vec<NodeId> = match &self.phase {
            Phase::Preparing { promises, asked } => {
                asked.iter().filter(|id| !promises.contains_key(id)).copied().collect()
            }
            Phase::Accepting { document, voted } => {
                let voters = ids(self.voters(document));
                voters.difference(voted).copied().collect()
            }
            Phase::Committing { untold, .. } => untold.iter().copied().collect(),
            Phase::Over => Vec::new(),
        };
        nodes.into_iter().map(|id| (id, self.faults.get(&id).map(String::as_str))).collect()
    }

    /// When to call [`Proposal::handle_timer`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_over()).then_some(self.retry_at)
    }

    /// Time went by.
    pub fn handle_timer(&mut self, now: Instant) {
        if now < self.retry_at || self.is_over() {
            return;
        }
        if let Phase::Committing { document, untold } = &self.phase {
            let commit = Request::Commit { document: Arc::clone(document) };
            self.requests.extend(untold.iter().map(|id| (*id, commit.clone())));
            self.put_off(now);
        } else {
            self.begin_ballot(now);
        }
    }

    /// A node answered. Answers may come twice, late, or never.
    pub fn handle_answer(&mut self, now: Instant, from: NodeId, answer: Answer) {
        match answer {
            Answer::Promised { epoch, ballot, vote } => {
                if epoch == self.wanted.epoch && ballot == self.ballot {
                    self.handle_promise(from, vote);
                }
            }
            Answer::Accepted { epoch, ballot } => {
                if epoch == self.wanted.epoch && ballot == self.ballot {
                    self.handle_vote(from);
                }
            }
            Answer::Outbid { epoch, promised } => {
                let is_asking =
                    matches!(self.phase, Phase::Preparing { .. } | Phase::Accepting { .. });
                if epoch == self.wanted.epoch && promised > self.ballot && is_asking {
                    self.round_seen = self.round_seen.max(promised.round);
                    let wait = Duration::from_millis(self.draw() % OUTBID_WAIT_MS);
                    self.retry_at = self.retry_at.min(now + wait);
                }
            }
            Answer::Ahead { newest } => self.handle_ahead(newest),
            Answer::Behind { newest_epoch } => self.handle_behind(from, newest_epoch),
            Answer::Committed { newest_epoch } => self.handle_told(from, newest_epoch),
            Answer::Failed { text } => {
                self.faults.insert(from, text);
            }
            Answer::Documents { .. } => {}
        }
    }

    fn begin_ballot(&mut self, now: Instant) {
        self.ballot.round = self.round_seen.saturating_add(1);
        self.round_seen = self.ballot.round;
        self.requests.clear();
        self.phase = Phase::Preparing { promises: BTreeMap::new(), asked: BTreeSet::new() };
        self.prepare(&ids(self.voters(&self.wanted)));
        self.put_off(now);
    }

    fn prepare(&mut self, nodes: &BTreeSet<NodeId>) {
        let Phase::Preparing { asked, .. } = &mut self.phase else { return };
        let request = Request::Prepare { epoch: self.wanted.epoch, ballot: self.ballot };
        for id in nodes {
            if asked.insert(*id) {
                self.requests.push_back((*id, request.clone()));
            }
        }
    }

    fn handle_promise(&mut self, from: NodeId, vote: Option<Vote>) {
        let Phase::Preparing { promises, asked } = &mut self.phase else { return };
        if !asked.contains(&from) || promises.insert(from, vote).is_some() {
            return;
        }
        self.faults.remove(&from);
        let Phase::Preparing { promises, .. } = &self.phase else { return };
        let found = match &self.base {
            Some(_) => promises.values().flatten().max_by_key(|vote| vote.ballot),
            None => promises
                .values()
                .flatten()
                .filter(|vote| may_have_decided(vote, promises))
                .max_by_key(|vote| vote.ballot),
        };
        let document = Arc::clone(found.map_or(&self.wanted, |vote| &vote.document));
        let promised: BTreeSet<NodeId> = promises.keys().copied().collect();
        if self.is_quorum(&document, &promised) {
            let accept = Request::Accept { ballot: self.ballot, document: Arc::clone(&document) };
            let voters = ids(self.voters(&document));
            self.requests.extend(voters.into_iter().map(|id| (id, accept.clone())));
            self.phase = Phase::Accepting { document, voted: BTreeSet::new() };
        } else {
            self.prepare(&ids(self.voters(&document)));
        }
    }

    fn handle_vote(&mut self, from: NodeId) {
        let Phase::Accepting { voted, .. } = &mut self.phase else { return };
        voted.insert(from);
        self.faults.remove(&from);
        let Phase::Accepting { document, voted } = &self.phase else { return };
        if !self.is_quorum(document, voted) {
            return;
        }
        let document = Arc::clone(document);
        let mut untold = ids(&document);
        untold.extend(self.base.iter().flat_map(|base| ids(base)));
        let commit = Request::Commit { document: Arc::clone(&document) };
        self.requests.clear();
        self.requests.extend(untold.iter().map(|id| (*id, commit.clone())));
        let is_ours = *document == *self.wanted;
        self.outcome = Some(Outcome::Decided { document: Arc::clone(&document), is_ours });
        self.phase = Phase::Committing { document, untold };
    }

    fn handle_ahead(&mut self, newest: Arc<PlacementDocument>) {
        if self.outcome.is_some() || newest.epoch < self.wanted.epoch {
            return;
        }
        self.requests.clear();
        self.phase = Phase::Over;
        self.outcome = Some(if newest == self.wanted {
            // Somebody completed it for us.
            Outcome::Decided { document: newest, is_ours: true }
        } else {
            Outcome::Overtaken { newest }
        });
    }

    /// Tells it what went before; its answer makes it be asked again.
    fn handle_behind(&mut self, from: NodeId, newest_epoch: u64) {
        if let Some(base) = &self.base
            && newest_epoch < base.epoch
            && matches!(self.phase, Phase::Preparing { .. } | Phase::Accepting { .. })
        {
            let document = Arc::clone(base);
            self.requests.push_back((from, Request::Commit { document }));
        }
    }

    fn handle_told(&mut self, from: NodeId, newest_epoch: u64) {
        let (epoch, ballot) = (self.wanted.epoch, self.ballot);
        let request = match &mut self.phase {
            Phase::Committing { untold, .. } => {
                if newest_epoch >= epoch {
                    untold.remove(&from);
                }
                return;
            }
            Phase::Preparing { promises, asked }
                if asked.contains(&from) && !promises.contains_key(&from) =>
            {
                Request::Prepare { epoch, ballot }
            }
            Phase::Accepting { document, voted } if !voted.contains(&from) => {
                Request::Accept { ballot, document: Arc::clone(document) }
            }
            _ => return,
        };
        self.requests.push_back((from, request));
    }

    /// Who decides about `document`.
    fn voters<'a>(&'a self, document: &'a PlacementDocument) -> &'a PlacementDocument {
        self.base.as_deref().unwrap_or(document)
    }

    /// Whether these suffice.
    fn is_quorum(&self, document: &PlacementDocument, nodes: &BTreeSet<NodeId>) -> bool {
        let voters = &self.voters(document).nodes;
        let count = voters.iter().filter(|voter| nodes.contains(&voter.id)).count();
        if self.base.is_some() { count * 2 > voters.len() } else { count == voters.len() }
    }

    /// Longer each time, and by chance.
    fn put_off(&mut self, now: Instant) {
        let wait_ms = u64::try_from(self.retry_wait.as_millis()).unwrap_or(u64::MAX);
        let wait = self.retry_wait + Duration::from_millis(self.draw() % wait_ms);
        self.retry_at = now + wait;
        self.retry_wait = (self.retry_wait * 2).min(RETRY_MAX);
    }

    /// xorshift64*.
    fn draw(&mut self) -> u64 {
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
fn fold(number: u128) -> u64 {
    number as u64 ^ (number >> 64) as u64
}

/// Whether no node of the founded document has promised us without having voted so.
fn may_have_decided(vote: &Vote, promises: &BTreeMap<NodeId, Option<Vote>>) -> bool {
    vote.document.nodes.iter().all(|node| {
        let promise = promises.get(&node.id);
        promise.is_none_or(|last| last.as_ref().is_some_and(|last| last.ballot >= vote.ballot))
    })
}

fn ids(document: &PlacementDocument) -> BTreeSet<NodeId> {
    document.nodes.iter().map(|node| node.id).collect()
}
