//! Epochs: who is followed, who is asked, who may go.

use std::sync::Arc;

use super::{Chance, ready};
use crate::model::placement::{
    Accepted, EPOCHS_MAX, History, HistoryFault, NodeId, PlacedNode, Placement, PlacementDocument,
    SampleBounds, Strategy,
};

const ENDLESS: SampleBounds = SampleBounds { ahead_ms: 10, behind_ms: i64::MAX };

fn node() -> PlacedNode {
    Chance::new(30).node(0, 0)
}

fn document(epoch: u64, start_ms: i64) -> PlacementDocument {
    let nodes = vec![node()];
    PlacementDocument { epoch, start_ms, replication: 1, strategy: Strategy::Hash {}, nodes }
}

fn placement(epoch: u64, start_ms: i64) -> Arc<Placement> {
    Arc::new(ready(&document(epoch, start_ms)))
}

/// Epochs 1, 2, 3 from 0, 1000 and 2000 on.
fn history() -> History {
    let mut history = History::default();
    for (epoch, start_ms) in [(1, 0), (2, 1000), (3, 2000)] {
        let accepted = history.handle_placement(placement(epoch, start_ms));
        assert_eq!(accepted, Ok(Accepted::Newest));
    }
    history
}

fn epochs_of<'a>(placements: impl Iterator<Item = &'a Arc<Placement>>) -> Vec<u64> {
    placements.map(|placement| placement.document().epoch).collect()
}

/// Red when `current` looks from the oldest, or leaves out the start itself.
#[test]
fn writes_follow_the_highest_epoch_that_started() {
    #[track_caller]
    fn check(now_ms: i64, want: u64) {
        let history = history();
        let current = history.current(now_ms).expect("there are some");
        assert_eq!(current.document().epoch, want, "at {now_ms}");
    }
    check(-5, 1);
    check(0, 1);
    check(999, 1);
    check(1000, 2);
    check(1999, 2);
    check(2000, 3);
    check(i64::MAX, 3);
    assert!(History::default().current(0).is_none());
}

/// Red when `check_same` compares the epoch instead of the content.
#[test]
fn two_documents_of_one_epoch_are_a_conflict() {
    let mut history = history();
    assert_eq!(history.handle_placement(placement(2, 1000)), Ok(Accepted::Known));
    let mut other = document(2, 1000);
    other.nodes[0].shards += 1;
    let (ours, theirs) = (document(2, 1000).content_hash(), other.content_hash());
    let fault = history.handle_placement(Arc::new(ready(&other)));
    assert_eq!(fault, Err(HistoryFault::Conflict { epoch: 2, ours, theirs }));
    assert_eq!(epochs_of(history.overlapping((0, 5000), ENDLESS)), [1, 2, 3]);
    let kept = history.overlapping((0, 5000), ENDLESS).nth(1).expect("there are three");
    assert_eq!(kept.document().content_hash(), ours);
}

#[test]
fn a_missed_epoch_is_filled_in() {
    let mut history = History::default();
    for epoch in [2, 7, 4] {
        history.handle_placement(placement(epoch, epoch as i64 * 10)).expect("in order");
    }
    assert_eq!(history.missing().collect::<Vec<_>>(), [(3, 3), (5, 6)]);
    assert_eq!(history.newest().expect("it is there").document().epoch, 7);
    assert_eq!(history.handle_placement(placement(3, 30)), Ok(Accepted::Filled));
    assert_eq!(history.missing().collect::<Vec<_>>(), [(5, 6)]);
}

/// Red when either neighbour is not looked at.
#[test]
fn epochs_start_in_their_order() {
    #[track_caller]
    fn check(epoch: u64, start_ms: i64, is_good: bool) {
        let mut history = History::default();
        history.handle_placement(placement(2, 1000)).expect("the first");
        history.handle_placement(placement(6, 2000)).expect("in order");
        let result = history.handle_placement(placement(epoch, start_ms));
        assert_eq!(result.is_ok(), is_good, "epoch {epoch} from {start_ms}: {result:?}");
        assert_eq!(history.overlapping((0, 0), ENDLESS).count(), 2 + usize::from(is_good));
    }
    check(7, 1999, false);
    check(7, 2000, true);
    check(4, 2001, false);
    check(4, 999, false);
    check(4, 1000, true);
    check(1, 1001, false);
}

/// A read asks every epoch that may hold a sample of its range: of later ones too, as samples may
/// come late. Red when `ahead_ms` or `behind_ms` is left out, or a bound is off by one.
#[test]
fn reads_ask_every_epoch_that_overlaps() {
    #[track_caller]
    fn check(range: (i64, i64), behind_ms: i64, want: &[u64]) {
        let bounds = SampleBounds { ahead_ms: 10, behind_ms };
        assert_eq!(epochs_of(history().overlapping(range, bounds)), want, "{range:?}");
    }
    check((0, 500), i64::MAX, &[1, 2, 3]);
    check((1010, 1500), i64::MAX, &[1, 2, 3]);
    check((1011, 1500), i64::MAX, &[2, 3]);
    check((2010, 2500), i64::MAX, &[2, 3]);
    check((2011, 2500), i64::MAX, &[3]);
    check((0, 899), 100, &[1]);
    check((0, 900), 100, &[1, 2]);
    check((-900, -800), 100, &[1]);
    check((0, 1899), 100, &[1, 2]);
    check((0, 1900), 100, &[1, 2, 3]);
    check((1100, 1200), 100, &[2]);
}

/// For every sample that can be: written under the epoch of its arrival, found by every read of
/// its time. Red with any bound of `overlapping` or `since` too tight by one.
#[test]
fn no_sample_is_overlooked() {
    let bounds = SampleBounds { ahead_ms: 3, behind_ms: 7 };
    let retention_ms = 20;
    let epochs = [(1, 0), (2, 10), (3, 10), (4, 25)].map(|(epoch, start)| placement(epoch, start));
    let history = || {
        let mut history = History::default();
        for placement in &epochs {
            history.handle_placement(placement.clone()).expect("in order");
        }
        history
    };
    let whole = history();
    for arrival_ms in -10..40 {
        let written = whole.current(arrival_ms).expect("there is one").document().epoch;
        for timestamp_ms in arrival_ms - 7..=arrival_ms + 3 {
            let range = (timestamp_ms, timestamp_ms);
            for now_ms in arrival_ms..=timestamp_ms + retention_ms {
                let later = history().since(now_ms - retention_ms, bounds);
                let asked = epochs_of(later.overlapping(range, bounds));
                assert!(asked.contains(&written), "{range:?} at {now_ms}: {asked:?}");
            }
        }
    }
}

#[test]
fn an_epoch_goes_when_retention_is_past_it() {
    #[track_caller]
    fn check(oldest_ms: i64, want: &[u64]) {
        let since = history().since(oldest_ms, ENDLESS);
        assert_eq!(epochs_of(since.overlapping((i64::MIN, i64::MAX), ENDLESS)), want);
        assert_eq!(since.count(), want.len());
        // Red if it is forgotten while there is room: a clock that jumped may come back.
        let mut history = history();
        history.make_room(oldest_ms, ENDLESS);
        assert!(history.is_same(&self::history()));
    }
    check(i64::MIN, &[1, 2, 3]);
    check(1009, &[1, 2, 3]);
    check(1010, &[1, 2, 3]);
    // The last sample of epoch 1 can be of 1010.
    check(1011, &[2, 3]);
    // The newest stays for ever.
    check(i64::MAX, &[3]);
}

#[test]
fn history_is_bounded() {
    let mut history = History::default();
    let start = EPOCHS_MAX as u64;
    let shared: Vec<_> = (1..=start + 1).map(|epoch| placement(epoch, epoch as i64)).collect();
    for placement in &shared[..EPOCHS_MAX] {
        history.handle_placement(placement.clone()).expect("room");
    }
    let fault = history.handle_placement(shared[EPOCHS_MAX].clone());
    assert_eq!(fault, Err(HistoryFault::TooMany { epoch: start + 1 }));
    history.make_room(12, ENDLESS);
    assert_eq!(history.count(), EPOCHS_MAX);
    // Red if all go that may: they may be wanted again.
    history.make_room(20, ENDLESS);
    assert_eq!(history.count(), EPOCHS_MAX - 1);
    assert_eq!(history.handle_placement(shared[0].clone()), Ok(Accepted::Forgotten));
    assert_eq!(history.handle_placement(shared[EPOCHS_MAX].clone()), Ok(Accepted::Newest));
}

/// A document that was planned for 1000, and that the nodes of epoch 1 were told at 5000 only.
/// Red if an epoch ends at the start of the next one whatever its nodes say, if a word from before
/// the start counts, or one of a node that was not in the epoch.
#[test]
fn an_epoch_ends_when_its_nodes_learned_of_the_next() {
    #[track_caller]
    fn check(words: &[(NodeId, (u64, u64), i64)], from_ms: i64, want: &[u64]) {
        let mut history = history();
        for (node, epochs, learned_ms) in words {
            history.handle_learned(*node, *epochs, *learned_ms);
        }
        let asked = epochs_of(history.overlapping((from_ms, from_ms + 9), ENDLESS));
        assert_eq!(asked, want, "{words:?} from {from_ms}");
        let since = history.since(from_ms, ENDLESS);
        assert_eq!(epochs_of(since.overlapping((from_ms, from_ms + 9), ENDLESS)), want);
    }
    let (ours, stranger) = (node().id, NodeId(99));
    check(&[], 2011, &[3]);
    check(&[(ours, (1, 2), 5000)], 5010, &[1, 3]);
    check(&[(ours, (1, 2), 5000), (ours, (1, 2), 4000)], 5010, &[1, 3]);
    check(&[(ours, (1, 2), 5000)], 5011, &[3]);
    check(&[(ours, (1, 2), 500)], 1010, &[1, 2, 3]);
    check(&[(ours, (1, 2), 500)], 1011, &[2, 3]);
    check(&[(stranger, (1, 2), 5000)], 5010, &[3]);
    // One that was never told the second, and took frames of the first until the third.
    check(&[(ours, (1, 3), 5000)], 5010, &[1, 2, 3]);
    check(&[(ours, (2, 3), 5000)], 5010, &[2, 3]);
}

/// Red if documents, or how many there are, or what nodes said of them, is not looked at.
#[test]
fn histories_that_lead_to_other_reads_are_told_apart() {
    let with = |placements: &[Arc<Placement>]| {
        let mut history = History::default();
        for placement in placements {
            history.handle_placement(placement.clone()).expect("in order");
        }
        history
    };
    let (first, second) = (placement(1, 0), placement(2, 1000));
    let base = with(&[first.clone(), second.clone()]);
    assert!(base.is_same(&with(&[first.clone(), second])));
    assert!(!base.is_same(&with(std::slice::from_ref(&first))));
    assert!(!base.is_same(&with(&[first, placement(2, 1001)])));
    let mut told = base.clone();
    told.handle_learned(node().id, (1, 2), 5000);
    assert!(!base.is_same(&told));
}

/// Red if what a node said of a later epoch is lost when one between is heard of.
#[test]
fn a_word_counts_for_epochs_that_are_filled_in_later() {
    let mut history = History::default();
    history.handle_placement(placement(1, 0)).expect("the first");
    history.handle_placement(placement(3, 2000)).expect("in order");
    history.handle_learned(node().id, (1, 3), 5000);
    assert_eq!(epochs_of(history.overlapping((5000, 6000), ENDLESS)), [1, 3]);
    history.handle_placement(placement(2, 1000)).expect("in order");
    assert_eq!(epochs_of(history.overlapping((5000, 6000), ENDLESS)), [1, 2, 3]);
}
