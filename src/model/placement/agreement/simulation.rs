//! A fleet that agrees while everything fails, on one thread, from one seed.
//!
//! Messages are lost, doubled and late, so they come in any order; nodes crash before and after
//! they save, and keep what they saved; proposers come, compete, and die at any moment, with bases
//! that are out of date. Every vote that reaches a disk is counted by an observer.
//! Checked all the time: of each epoch at most one document is ever decided, and nobody follows
//! another. Checked at the end, once faults stop: each proposal ends, with a minority of the nodes
//! still down; and a read by what the nodes say then asks for all that they can have taken.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Acceptor, Answer, Ballot, Draft, Learned, Outcome, Proposal, Request, Saved};
use crate::base::random::{Random, run_seeds};
use crate::base::time::{Duration, Instant, monotonic_now};
use crate::model::placement::{
    History, NodeId, PlacedNode, Placement, PlacementDocument, SampleBounds, Strategy,
};

const FAULTS_FOR: Duration = Duration::from_secs(60);
const QUIET_AT_MOST: Duration = Duration::from_secs(120);
const PROPOSALS_MAX: usize = 4;

/// A node: what runs, and what is on its disk.
struct Node {
    acceptor: Acceptor,
    documents: Vec<Learned>,
    draft: Draft,
    is_up: bool,
}

enum Event {
    Request { proposal: u128, node: NodeId, request: Request },
    Answer { proposal: u128, node: NodeId, answer: Answer },
}

#[derive(Debug, Default)]
struct Deeds {
    founded: usize,
    decided: usize,
    completed_for_another: usize,
    overtaken: usize,
    crashes: usize,
    lost: usize,
    /// Nodes that took frames of an epoch after the start of the next.
    late: usize,
}

struct World {
    random: Random,
    begin: Instant,
    now: Instant,
    network: BTreeMap<(Instant, u64), Event>,
    sent: u64,
    nodes: BTreeMap<NodeId, Node>,
    proposals: BTreeMap<u128, Proposal>,
    proposers: u128,
    /// The observer: who voted so, and what so was decided.
    votes: BTreeMap<(u64, Ballot), (Arc<PlacementDocument>, BTreeSet<NodeId>)>,
    decided: BTreeMap<u64, Arc<PlacementDocument>>,
    /// The observer: when each node could have taken frames of an epoch last.
    taken_ms: BTreeMap<(NodeId, u64), i64>,
    is_faulty: bool,
    deeds: Deeds,
}

fn document(epoch: u64, start_ms: i64, ids: &BTreeSet<NodeId>) -> PlacementDocument {
    let node = |id: &NodeId| PlacedNode::new(*id, &format!("node-{}:9428", id.0), 2);
    let nodes = ids.iter().map(node).collect();
    PlacementDocument { epoch, start_ms, replication: 1, strategy: Strategy::Hash {}, nodes }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xa9_4ee);
        let count = 2 + random.below(6);
        let now = monotonic_now();
        let node = |id: u128| {
            let acceptor = Acceptor::new(NodeId(id), None, [], Draft::default());
            let (documents, draft) = (Vec::new(), Draft::default());
            (NodeId(id), Node { acceptor, documents, draft, is_up: true })
        };
        Self {
            nodes: (1..=u128::from(count)).map(node).collect(),
            random,
            begin: now,
            now,
            network: BTreeMap::new(),
            sent: 0,
            proposals: BTreeMap::new(),
            proposers: 0,
            votes: BTreeMap::new(),
            decided: BTreeMap::new(),
            taken_ms: BTreeMap::new(),
            is_faulty: true,
            deeds: Deeds::default(),
        }
    }

    fn run(&mut self) {
        let end = self.now + FAULTS_FOR;
        while self.now < end {
            self.now += Duration::from_millis(1 + self.random.below(20));
            self.commit_fault();
            self.turn();
        }
        self.be_quiet();
        let quiet_until = self.now + QUIET_AT_MOST;
        while self.proposals.values().any(|proposal| proposal.outcome().is_none()) {
            assert!(self.now < quiet_until, "a proposal does not end: {:?}", self.proposals);
            self.now += Duration::from_millis(1 + self.random.below(20));
            self.turn();
        }
    }

    fn now_ms(&self) -> i64 {
        i64::try_from((self.now - self.begin).as_millis()).expect("minutes")
    }

    fn commit_fault(&mut self) {
        if self.random.once_in(30) && self.proposals.len() < PROPOSALS_MAX {
            self.propose();
        }
        if self.random.once_in(60) {
            self.proposals.pop_first();
        }
        if self.random.once_in(40) {
            let index = self.random.index(self.nodes.len());
            let node = self.nodes.values_mut().nth(index).expect("an index");
            node.is_up = !node.is_up;
            node.restart();
            self.deeds.crashes += 1;
        }
    }

    /// No more faults; some nodes stay down, as many as may.
    fn be_quiet(&mut self) {
        self.is_faulty = false;
        self.nodes.values_mut().for_each(|node| node.is_up = true);
        if let Some(newest) = self.newest_that_is_up() {
            for node in newest.nodes.iter().take((newest.nodes.len() - 1) / 2) {
                self.nodes.get_mut(&node.id).expect("a node").is_up = false;
            }
            if self.newest_that_is_up() != Some(newest) {
                // The others do not know it, so they cannot know whose majority counts.
                self.nodes.values_mut().for_each(|node| node.is_up = true);
            }
        }
        // Who follows brings nodes up to date: here somebody did.
        let ups = || self.nodes.values().filter(|node| node.is_up);
        let known: Vec<_> = ups().flat_map(|node| node.documents.clone()).collect();
        let now_ms = self.now_ms();
        for node in self.nodes.values_mut().filter(|node| node.is_up) {
            for document in &known {
                node.ask(&Request::Commit { document: Arc::clone(&document.document) }, now_ms);
            }
        }
        self.proposals.clear();
        self.propose();
        self.propose();
    }

    fn newest_that_is_up(&self) -> Option<Arc<PlacementDocument>> {
        let ups = self.nodes.values().filter(|node| node.is_up);
        ups.filter_map(|node| node.acceptor.newest()).max_by_key(|each| each.epoch).cloned()
    }

    /// Somebody wants another document, by what some node knows.
    fn propose(&mut self) {
        let ups: Vec<NodeId> =
            self.nodes.iter().filter(|(_, node)| node.is_up).map(|(id, _)| *id).collect();
        if ups.is_empty() {
            return;
        }
        let asked = ups[self.random.index(ups.len())];
        let base = self.nodes[&asked].acceptor.newest().cloned();
        self.proposers += 1;
        let mut ids: BTreeSet<NodeId> = match &base {
            Some(base) => base.nodes.iter().map(|node| node.id).collect(),
            None => [NodeId(1)].into(),
        };
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.random.once_in(3) && (ids.len() > 1 || !ids.contains(&id)) && !ids.remove(&id) {
                ids.insert(id);
            }
        }
        if base.is_none() {
            ids.insert(NodeId(1));
        }
        let epoch = base.as_ref().map_or(1, |base| base.epoch + 1);
        // The proposer's number makes each document another one.
        let start_ms = base.as_ref().map_or(0, |base| base.start_ms).max(self.now_ms() + 3000)
            + i64::try_from(self.proposers).expect("few");
        let wanted = document(epoch, start_ms, &ids);
        let proposal = match base {
            Some(base) => Proposal::change(self.now, self.proposers, base, wanted),
            None => Ok(Proposal::found(self.now, self.proposers, wanted)),
        };
        self.proposals.insert(self.proposers, proposal.expect("it may follow"));
    }

    fn turn(&mut self) {
        self.take_frames();
        while let Some(due) = self.network.first_entry().filter(|due| due.key().0 <= self.now) {
            match due.remove() {
                Event::Request { proposal, node, request } => {
                    self.deliver(proposal, node, &request);
                }
                Event::Answer { proposal, node, answer } => {
                    if let Some(proposal) = self.proposals.get_mut(&proposal) {
                        proposal.handle_answer(self.now, node, answer);
                    }
                }
            }
        }
        for id in self.proposals.keys().copied().collect::<Vec<_>>() {
            let proposal = self.proposals.get_mut(&id).expect("a key");
            if proposal.poll_timeout().is_some_and(|due| due <= self.now) {
                proposal.handle_timer(self.now);
            }
            let mut requests = Vec::new();
            while let Some(request) = proposal.poll_request() {
                requests.push(request);
            }
            let outcome = proposal.outcome().cloned();
            let is_over = proposal.is_over();
            for (node, request) in requests {
                self.send(|| Event::Request { proposal: id, node, request: request.clone() });
            }
            if let Some(outcome) = outcome {
                self.check_outcome(&outcome, is_over);
            }
            if is_over {
                self.proposals.remove(&id);
            }
        }
    }

    fn check_outcome(&mut self, outcome: &Outcome, is_over: bool) {
        let count = usize::from(is_over);
        match outcome {
            Outcome::Decided { document, is_ours } => {
                self.check_decided(document);
                self.deeds.founded += usize::from(document.epoch == 1) * count;
                self.deeds.decided += count;
                self.deeds.completed_for_another += usize::from(!is_ours) * count;
            }
            Outcome::Overtaken { newest } => {
                self.check_decided(newest);
                self.deeds.overtaken += count;
            }
        }
    }

    /// Red with: a quorum of half of the nodes; the lowest vote taken over instead of the highest;
    /// votes below the promise; a promise that is not saved.
    fn check_decided(&self, document: &Arc<PlacementDocument>) {
        let decided = self.decided.get(&document.epoch);
        assert_eq!(decided, Some(document), "followed, and not what was decided");
    }

    /// Lost at times, doubled at times, late always.
    fn send(&mut self, event: impl Fn() -> Event) {
        let copies = match self.random.below(10) {
            0 if self.is_faulty => 0,
            1 if self.is_faulty => 2,
            _ => 1,
        };
        self.deeds.lost += usize::from(copies == 0);
        for _ in 0..copies {
            let late = self.is_faulty && self.random.once_in(8);
            let delay = self.random.below(if late { 5000 } else { 60 });
            self.sent += 1;
            let due = self.now + Duration::from_millis(delay);
            self.network.insert((due, self.sent), event());
        }
    }

    fn deliver(&mut self, proposal: u128, id: NodeId, request: &Request) {
        let crash_before = self.is_faulty && self.random.once_in(50);
        let crash_after = self.is_faulty && self.random.once_in(50);
        if !self.nodes[&id].is_up {
            return;
        }
        if crash_before {
            // The disk has what the request led to, or not; nobody hears of it.
            if self.random.once_in(2) {
                self.ask(id, request);
            }
            self.nodes.get_mut(&id).expect("a node").restart();
            return;
        }
        let answer = self.ask(id, request);
        if crash_after {
            self.nodes.get_mut(&id).expect("a node").restart();
        }
        self.send(|| Event::Answer { proposal, node: id, answer: answer.clone() });
    }

    fn ask(&mut self, id: NodeId, request: &Request) -> Answer {
        let now_ms = self.now_ms();
        let answer = self.nodes.get_mut(&id).expect("a node").ask(request, now_ms);
        match (&answer, request) {
            (Answer::Accepted { .. }, Request::Accept { ballot, document }) => {
                self.count_vote(id, *ballot, document);
            }
            (Answer::Committed { .. }, Request::Commit { document }) => {
                self.check_decided(document);
            }
            _ => {}
        }
        answer
    }

    /// Whoever is up takes what is not older than the epoch that is in force for it.
    fn take_frames(&mut self) {
        let now_ms = self.now_ms();
        for (id, node) in self.nodes.iter().filter(|(_, node)| node.is_up) {
            let in_force = node.acceptor.epoch_in_force(now_ms);
            for epoch in self.decided.range(in_force..).map(|(epoch, _)| *epoch) {
                self.taken_ms.insert((*id, epoch), now_ms);
            }
        }
    }

    /// Everybody is told the last document, and is read: each epoch lasts for as long as any of its
    /// nodes can have taken frames of it. Red if the time of being told is not kept, or not over a
    /// restart; if the start counts, or the first word instead of the last.
    fn check_reads(&mut self) {
        let now_ms = self.now_ms();
        let mut history = History::default();
        for document in self.decided.values() {
            let placement = Placement::new((**document).clone()).expect("it was voted for");
            history.handle_placement(Arc::new(placement)).expect("in order");
        }
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| node.is_up) {
            if let Some(document) = self.decided.values().last() {
                node.ask(&Request::Commit { document: Arc::clone(document) }, now_ms);
            }
            node.restart();
            let Answer::Documents { documents, .. } =
                node.ask(&Request::Read { from_epoch: 0 }, now_ms)
            else {
                panic!("no documents")
            };
            let mut after = 0;
            for Learned { document, learned_ms } in documents {
                history.handle_learned(*id, (after, document.epoch), learned_ms);
                after = document.epoch;
            }
        }
        let bounds = SampleBounds { ahead_ms: 0, behind_ms: i64::MAX };
        for ((id, epoch), taken_ms) in &self.taken_ms {
            let Some(document) = self.decided.get(epoch) else { continue };
            if !self.nodes[id].is_up || document.find(*id).is_none() {
                continue;
            }
            let mut asked = history.overlapping((*taken_ms, *taken_ms), bounds);
            let is_asked = asked.any(|placement| placement.document().epoch == *epoch);
            assert!(is_asked, "{id} took frames of epoch {epoch} at {taken_ms}");
            let next = self.decided.get(&(epoch + 1));
            self.deeds.late += usize::from(next.is_some_and(|next| next.start_ms < *taken_ms));
        }
    }

    fn count_vote(&mut self, id: NodeId, ballot: Ballot, document: &Arc<PlacementDocument>) {
        let epoch = document.epoch;
        let fresh = || (Arc::clone(document), BTreeSet::new());
        let (voted, voters) = self.votes.entry((epoch, ballot)).or_insert_with(fresh);
        assert_eq!(voted, document, "two documents under one ballot");
        voters.insert(id);
        let is_decided = match self.decided.get(&(epoch - 1)) {
            Some(base) => {
                let count = base.nodes.iter().filter(|node| voters.contains(&node.id)).count();
                count > base.nodes.len() / 2
            }
            None => document.nodes.iter().all(|node| voters.contains(&node.id)),
        };
        if is_decided {
            let first = self.decided.entry(epoch).or_insert_with(|| Arc::clone(document));
            assert_eq!(first, document, "two documents of epoch {epoch} were decided");
        }
    }
}

impl Node {
    fn ask(&mut self, request: &Request, now_ms: i64) -> Answer {
        let step = self.acceptor.handle_request(request, now_ms);
        if let Some(save) = step.save {
            match &save {
                Saved::Draft(draft) => self.draft = draft.clone(),
                Saved::Document(learned) => self.documents.push(learned.clone()),
            }
            self.acceptor.apply_saved(save);
        }
        step.answer
    }

    fn restart(&mut self) {
        let id = self.acceptor.node();
        self.acceptor = Acceptor::new(id, None, self.documents.clone(), self.draft.clone());
    }
}

#[test]
fn never_two_documents_of_one_epoch_whatever_fails() {
    let names = ("TIDEGATE_AGREEMENT_SEEDS", "never_two_documents");
    let mut all = Deeds::default();
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        // The tables of all epochs take most of the time.
        if seed % 16 == 0 {
            world.check_reads();
        }
        world.deeds
    };
    for deeds in run_seeds(names, 0..400, run) {
        all.founded += deeds.founded;
        all.decided += deeds.decided;
        all.completed_for_another += deeds.completed_for_another;
        all.overtaken += deeds.overtaken;
        all.crashes += deeds.crashes;
        all.lost += deeds.lost;
        all.late += deeds.late;
    }
    // Red if the simulation does not do what it is for.
    assert!(
        all.founded > 0 && all.decided > all.founded && all.completed_for_another > 0,
        "{all:?}"
    );
    assert!(all.overtaken > 0 && all.crashes > 0 && all.lost > 0 && all.late > 0, "{all:?}");
    if std::env::var_os("TIDEGATE_AGREEMENT_SEEDS").is_some() {
        println!("{all:?}");
    }
}
