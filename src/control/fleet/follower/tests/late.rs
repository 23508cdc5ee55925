//! Documents that nodes hear of long after their start, and clocks that are wrong meanwhile.

use super::*;
use crate::model::placement::agreement::Ballot;

const HOUR_MS: i64 = 3_600_000;

impl World {
    /// Time that nobody sees pass.
    fn skip(&mut self, milliseconds: i64) {
        self.now.unix_ms += milliseconds;
        self.now.monotonic += Duration::from_millis(milliseconds.unsigned_abs());
    }

    /// Which epochs a gateway asks for samples of this time.
    fn asked(&self, gateway: usize, at_ms: i64) -> Vec<u64> {
        let history = &self.gateways[gateway].follower.view().history;
        let asked = history.overlapping((at_ms, at_ms), config().bounds);
        asked.map(|placement| placement.document().epoch).collect()
    }
}

/// Nodes 1 to 3, all of which have voted for a second document that starts in three seconds.
/// Its proposer died before it heard of the votes.
fn voted() -> World {
    let mut world = founded(&config());
    let first = world.newest(0).expect("a fleet").clone();
    let mut nodes = first.nodes.clone();
    nodes[0].pull += 1;
    let start_ms = world.now.unix_ms + START_DELAY_MS;
    let document = Arc::new(PlacementDocument { epoch: 2, start_ms, nodes, ..first });
    let ballot = Ballot { round: 9, proposer: 1 };
    for node in &mut world.nodes {
        let request = Request::Accept { ballot, document: Arc::clone(&document) };
        let step = node.acceptor.handle_request(&request, world.now.unix_ms);
        assert_eq!(step.answer, Answer::Accepted { epoch: 2, ballot });
        node.acceptor.apply_saved(step.save.expect("a vote"));
    }
    world
}

fn weights() -> Command {
    weight(50)
}

fn weight(weight: u32) -> Command {
    let weights = BTreeMap::from([(address(2).to_string(), weight)]);
    Command::Apply(Change { weights, ..Change::default() })
}

/// A change that was planned, voted for and left alone is completed an hour later by the next one.
/// Red if the epoch before ends at the start of a document whatever nodes say, if what they say is
/// not taken from answers, if the first word counts and not the last, or if a gateway that comes
/// later ends it otherwise.
#[test]
fn what_was_decided_late_hides_no_samples() {
    let mut world = voted();
    let planned_ms = world.now.unix_ms;
    world.skip(HOUR_MS);
    world.nodes[2].is_up = false;
    let decided_ms = world.now.unix_ms;
    assert!(world.plan_of(0, weights()).is_done);
    assert_eq!(world.epochs(), [3, 3, 1]);
    world.skip(HOUR_MS);
    let told_ms = world.now.unix_ms;
    world.nodes[2].is_up = true;
    world.run(5.0);
    assert_eq!(world.epochs(), [3; 3]);
    let late = World::new(0, 1, &config()).gateways.pop().expect("one");
    world.gateways.push(late);
    world.seed(&[1]);
    world.run(5.0);
    for gateway in 0..3 {
        assert_eq!(world.asked(gateway, planned_ms + 60_000), [1, 2], "{gateway}");
        assert_eq!(world.asked(gateway, decided_ms), [1, 2], "{gateway}");
        assert_eq!(world.asked(gateway, told_ms), [1, 2, 3], "{gateway}");
        // Red if it never ends: a node of it may be gone for good.
        assert_eq!(world.asked(gateway, told_ms + 10_000), [3], "{gateway}");
    }
}

/// Red if the word on a document counts for those before it that the node was told in time, by a
/// gateway that read along or by one that comes later.
#[test]
fn a_word_on_one_document_is_none_on_those_before() {
    let mut world = founded(&config());
    assert!(world.plan_of(0, weights()).is_done);
    let second_ms = world.now.unix_ms;
    world.skip(HOUR_MS);
    assert!(world.plan_of(0, weight(70)).is_done);
    let late = World::new(0, 1, &config()).gateways.pop().expect("one");
    world.gateways.push(late);
    world.seed(&[1, 2, 3]);
    world.run(5.0);
    for gateway in 0..3 {
        assert_eq!(world.asked(gateway, second_ms + 60_000), [2], "{gateway}");
    }
}

/// Red if a node that was never told the second document is believed to have left the first before
/// it heard of the third.
#[test]
fn a_node_that_missed_a_document_kept_the_one_before() {
    let mut world = founded(&config());
    world.nodes[2].is_up = false;
    assert!(world.plan_of(0, weights()).is_done);
    assert!(world.plan_of(0, weight(70)).is_done);
    let third = world.newest(0).expect("a fleet").clone();
    world.skip(HOUR_MS);
    let told_ms = world.now.unix_ms;
    let third = Saved::Document(Learned::at(Arc::new(third), told_ms));
    world.nodes[2].acceptor.apply_saved(third);
    world.nodes[2].is_up = true;
    world.run(5.0);
    for gateway in [0, 1] {
        assert_eq!(world.asked(gateway, told_ms), [1, 2, 3], "{gateway}");
    }
}

/// Red if what a node says is not capped by the asker's clock, or stays capped by a clock that was
/// wrong after it was set.
#[test]
fn a_clock_that_is_days_ahead_does_not_make_an_epoch_last() {
    let mut world = voted();
    world.nodes[1].ahead_ms = 48 * HOUR_MS;
    world.skip(HOUR_MS);
    let decided_ms = world.now.unix_ms;
    assert!(world.plan_of(0, weights()).is_done);
    world.run(5.0);
    for gateway in [0, 1] {
        assert_eq!(world.asked(gateway, decided_ms), [1, 2]);
        assert_eq!(world.asked(gateway, decided_ms + 20_000), [3]);
    }
    // It was the gateways' clock that was wrong.
    world.now.unix_ms += 48 * HOUR_MS;
    world.nodes[1].ahead_ms = 0;
    world.run(5.0);
    for gateway in [0, 1] {
        assert_eq!(world.asked(gateway, decided_ms + 48 * HOUR_MS), [1, 2, 3]);
    }
}

/// Red if an epoch is forgotten as soon as a clock says that it is past retention.
#[test]
fn a_gateway_whose_clock_was_ahead_reads_all_epochs_again() {
    let mut world = founded(&FollowerConfig { retention_ms: HOUR_MS, ..config() });
    world.plan_of(0, weights());
    world.run(5.0);
    let before_ms = world.now.unix_ms - 4500;
    assert_eq!(world.asked(1, before_ms), [1, 2]);
    world.now.unix_ms += 48 * HOUR_MS;
    world.run(2.0);
    assert_eq!(world.gateways[1].follower.view().history.count(), 1);
    world.now.unix_ms -= 48 * HOUR_MS;
    world.run(0.1);
    assert_eq!(world.asked(1, before_ms), [1, 2]);
}
