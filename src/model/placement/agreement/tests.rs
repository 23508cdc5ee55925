//! Scripts of agreement: who is asked what, and what comes of it.

#![cfg(test)]

use std::sync::Arc;

use super::{Acceptor, Answer, Ballot, Draft, Learned, Outcome, Proposal, Request, Saved};
use crate::base::time::{Duration, Instant, monotonic_now};
use crate::model::placement::{EPOCHS_MAX, NodeId, PlacedNode, PlacementDocument, Strategy};

fn document(epoch: u64, ids: &[u128]) -> PlacementDocument {
    let node = |id: &u128| PlacedNode::new(NodeId(*id), &format!("node-{id}:9428"), 2);
    let nodes = ids.iter().map(node).collect();
    let start_ms = i64::try_from(epoch).expect("small") * 1000;
    PlacementDocument { epoch, start_ms, replication: 1, strategy: Strategy::Hash {}, nodes }
}

fn ballot(round: u64, proposer: u128) -> Ballot {
    Ballot { round, proposer }
}

/// Nodes that are all there, and save what they should.
struct Fleet(Vec<(NodeId, Acceptor)>);

impl Fleet {
    fn new(ids: &[u128], documents: &[PlacementDocument]) -> Self {
        let node = |id: &u128| {
            let known = documents.iter().map(|each| Learned::at(Arc::new(each.clone()), 0));
            (NodeId(*id), Acceptor::new(NodeId(*id), None, known, Draft::default()))
        };
        Self(ids.iter().map(node).collect())
    }

    fn ask(&mut self, id: u128, request: &Request) -> Answer {
        let node = self.0.iter_mut().find(|(known, _)| *known == NodeId(id)).expect("a node");
        let step = node.1.handle_request(request, 0);
        if let Some(save) = step.save {
            node.1.apply_saved(save);
        }
        step.answer
    }

    /// Until the proposal has nothing more to say; `down` do not answer.
    fn run(&mut self, now: Instant, proposal: &mut Proposal, down: &[u128]) {
        while let Some((id, request)) = proposal.poll_request() {
            if !down.contains(&id.0) {
                let answer = self.ask(id.0, &request);
                proposal.handle_answer(now, id, answer);
            }
        }
    }

    fn epochs(&self) -> Vec<u64> {
        self.0.iter().map(|(_, acceptor)| acceptor.newest_epoch()).collect()
    }
}

#[test]
fn a_fleet_is_founded_by_all_of_its_nodes() {
    let now = monotonic_now();
    let mut fleet = Fleet::new(&[1, 2, 3], &[]);
    let mut proposal = Proposal::found(now, 77, document(1, &[1, 2, 3]));
    // Red if a majority founds.
    fleet.run(now, &mut proposal, &[3]);
    assert_eq!(proposal.outcome(), None);
    assert_eq!(proposal.missing(), [(NodeId(3), None)]);
    let due = proposal.poll_timeout().expect("it goes on");
    assert!(due > now && due <= now + Duration::from_secs(1));
    proposal.handle_timer(due);
    fleet.run(due, &mut proposal, &[]);
    let founded = Arc::new(document(1, &[1, 2, 3]));
    let decided = Outcome::Decided { document: founded, is_ours: true };
    assert_eq!(proposal.outcome(), Some(&decided));
    assert!(proposal.is_over());
    assert_eq!(fleet.epochs(), [1, 1, 1]);
}

#[test]
fn a_founding_that_cannot_succeed_any_more_is_passed_over() {
    // Red if every vote that is found must be completed: a node that is gone for good would stop
    // all foundings that another node took part in.
    let now = monotonic_now();
    let mut fleet = Fleet::new(&[1, 2], &[]);
    let gone = Arc::new(document(1, &[2, 9]));
    fleet.ask(2, &Request::Accept { ballot: ballot(1, 5), document: Arc::clone(&gone) });
    // As long as node 9 may have voted for it, it must not be.
    let mut proposal = Proposal::found(now, 77, document(1, &[1, 2]));
    fleet.run(now, &mut proposal, &[9]);
    let due = proposal.poll_timeout().expect("it goes on");
    proposal.handle_timer(due);
    fleet.run(due, &mut proposal, &[9]);
    assert_eq!(proposal.outcome(), None);
    // Node 9 comes, and did not: it promises, and so never will.
    fleet.0.extend(Fleet::new(&[9], &[]).0);
    let due = proposal.poll_timeout().expect("it goes on");
    proposal.handle_timer(due);
    fleet.run(due, &mut proposal, &[]);
    let decided = Outcome::Decided { document: Arc::new(document(1, &[1, 2])), is_ours: true };
    assert_eq!(proposal.outcome(), Some(&decided));
}

#[test]
fn what_was_voted_for_is_completed_first() {
    // Red if a proposer does not look at the votes.
    let now = monotonic_now();
    let first = document(1, &[1, 2, 3]);
    let mut fleet = Fleet::new(&[1, 2, 3], std::slice::from_ref(&first));
    let theirs = Arc::new(document(2, &[1, 2]));
    for (id, round) in [(1, 1), (2, 1)] {
        let request = Request::Accept { ballot: ballot(round, 5), document: Arc::clone(&theirs) };
        fleet.ask(id, &request);
    }
    let mine = document(2, &[2, 3]);
    let mut proposal = Proposal::change(now, 77, Arc::new(first), mine).expect("it may follow");
    fleet.run(now, &mut proposal, &[1]);
    // Round 1 of proposer 77 is above round 1 of proposer 5.
    let decided = Outcome::Decided { document: theirs, is_ours: false };
    assert_eq!(proposal.outcome(), Some(&decided));
    assert_eq!(fleet.epochs(), [1, 2, 2]);
    assert!(!proposal.is_over(), "node 1 was not told");
    let due = proposal.poll_timeout().expect("it goes on telling");
    proposal.handle_timer(due);
    fleet.run(due, &mut proposal, &[]);
    assert!(proposal.is_over());
    assert_eq!(fleet.epochs(), [2, 2, 2]);
}

#[test]
fn a_node_that_is_behind_is_told_and_asked_again() {
    // Red if `Behind` is not answered: one of two nodes is no majority.
    let now = monotonic_now();
    let first = document(1, &[1, 2]);
    let mut fleet = Fleet::new(&[1, 2], std::slice::from_ref(&first));
    let second = document(2, &[1, 2]);
    fleet.ask(1, &Request::Commit { document: Arc::new(second.clone()) });
    let third = document(3, &[1, 2]);
    let proposal = Proposal::change(now, 77, Arc::new(second), third.clone());
    let mut proposal = proposal.expect("it may follow");
    fleet.run(now, &mut proposal, &[]);
    let decided = Outcome::Decided { document: Arc::new(third), is_ours: true };
    assert_eq!(proposal.outcome(), Some(&decided));
    assert_eq!(fleet.epochs(), [3, 3]);
    // And whoever is behind himself hears of it.
    let mut late = Proposal::change(now, 78, Arc::new(first), document(2, &[1]))
        .expect("it may follow what it knows");
    fleet.run(now, &mut late, &[]);
    assert_eq!(
        late.outcome(),
        Some(&Outcome::Overtaken { newest: Arc::new(document(3, &[1, 2])) })
    );
}

#[test]
fn a_higher_promise_holds_over_a_restart() {
    // Red if the draft is not what is given back, or not asked for.
    let mut fleet = Fleet::new(&[1], &[]);
    let request = Request::Prepare { epoch: 1, ballot: ballot(7, 1) };
    let (_, acceptor) = &fleet.0[0];
    let Some(Saved::Draft(draft)) = acceptor.handle_request(&request, 0).save else {
        panic!("a promise is saved")
    };
    fleet.0[0].1 = Acceptor::new(NodeId(1), None, [], draft);
    let lower = Request::Prepare { epoch: 1, ballot: ballot(6, 9) };
    let outbid = Answer::Outbid { epoch: 1, promised: ballot(7, 1) };
    assert_eq!(fleet.ask(1, &lower), outbid);
    let document = Arc::new(document(1, &[1]));
    let accept = Request::Accept { ballot: ballot(6, 9), document: Arc::clone(&document) };
    assert_eq!(fleet.ask(1, &accept), outbid);
    // Said twice is promised twice, and saved once.
    assert!(fleet.0[0].1.handle_request(&request, 0).save.is_none());
    let accept = Request::Accept { ballot: ballot(7, 1), document };
    assert_eq!(fleet.ask(1, &accept), Answer::Accepted { epoch: 1, ballot: ballot(7, 1) });
    assert!(fleet.0[0].1.handle_request(&accept, 0).save.is_none());
}

#[test]
fn nodes_vote_only_for_what_may_follow() {
    let first = document(1, &[1, 2]);
    let mut fleet = Fleet::new(&[1], &[first]);
    let mut early = document(2, &[1, 2]);
    early.start_ms = 0;
    let accept = |document| Request::Accept { ballot: ballot(1, 1), document: Arc::new(document) };
    // Red without `check_next`.
    let Answer::Failed { text } = fleet.ask(1, &accept(early)) else { panic!("it voted") };
    assert!(text.starts_with("cannot vote: start_ms: before that of the epoch before"), "{text}");
    assert_eq!(fleet.ask(1, &accept(document(3, &[1]))), Answer::Behind { newest_epoch: 1 });
    let mut stranger = Fleet::new(&[3], &[]);
    // Red if strangers vote on foundings: two could then succeed.
    let Answer::Failed { text } = stranger.ask(3, &accept(document(1, &[1, 2]))) else {
        panic!("it voted")
    };
    assert!(text.contains("is not in the document"), "{text}");
}

#[test]
fn documents_are_kept_and_read_and_never_replaced() {
    let mut fleet = Fleet::new(&[1], &[]);
    let last = EPOCHS_MAX as u64 + 5;
    for epoch in (1..=last).rev() {
        let document = Arc::new(document(epoch, &[1]));
        let answer = fleet.ask(1, &Request::Commit { document });
        assert_eq!(answer, Answer::Committed { newest_epoch: last });
    }
    // Red if the newest leave instead of the oldest, or none at all.
    assert_eq!(fleet.0[0].1.oldest_epoch(), 6);
    let Answer::Documents { newest_epoch, documents, .. } =
        fleet.ask(1, &Request::Read { from_epoch: last - 1 })
    else {
        panic!("no documents")
    };
    let epochs: Vec<u64> = documents.iter().map(|learned| learned.document.epoch).collect();
    assert_eq!((newest_epoch, epochs), (last, vec![last - 1, last]));
    // Red if an epoch is in force before it starts: a node would refuse what follows the last.
    let in_force = |now_ms| fleet.0[0].1.epoch_in_force(now_ms);
    assert_eq!(
        [in_force(0), in_force(9_999), in_force(10_000), in_force(i64::MAX)],
        [6, 9, 10, last]
    );
    // Red if the second document of an epoch is believed.
    let other = Request::Commit { document: Arc::new(document(last, &[2])) };
    let Answer::Failed { text } = fleet.ask(1, &other) else { panic!("it was believed") };
    assert!(text.contains("two fleets were mixed up"), "{text}");
}

#[test]
fn a_proposer_goes_above_what_it_was_outbid_with() {
    // Red if it counts up by one from its own round: fifty attempts instead of one.
    let now = monotonic_now();
    let mut fleet = Fleet::new(&[1], &[]);
    fleet.ask(1, &Request::Prepare { epoch: 1, ballot: ballot(50, 5) });
    let mut proposal = Proposal::found(now, 77, document(1, &[1]));
    fleet.run(now, &mut proposal, &[]);
    assert_eq!(proposal.outcome(), None);
    let due = proposal.poll_timeout().expect("it goes on");
    assert!(due < now + Duration::from_millis(300), "outbid is heard at once");
    proposal.handle_timer(due);
    fleet.run(due, &mut proposal, &[]);
    assert!(proposal.is_over() && proposal.outcome().is_some());
}
