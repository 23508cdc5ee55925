//! The owner in front of several nodes: who gets what, when a part is answered, and what happens to
//! open parts when a node goes, comes back as another, or the placement changes.

use std::sync::Arc;

use super::tests::{part, view};
use super::*;
use crate::gateway::hint::HintPart;
use crate::gateway::part::PartAnswer;
use crate::gateway::parts::HintOrigin;
use crate::gateway::route::Route;
use crate::model::placement::{NodeId, PlacedNode, Placement, PlacementDocument, Strategy};
use crate::model::series::SeriesId;
use crate::wire::frame::check_frame;

pub(in crate::gateway) const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

pub(in crate::gateway) fn placement(
    epoch: u64,
    node_count: u128,
    replication: u8,
) -> Arc<Placement> {
    let nodes =
        (1..=node_count).map(|node| PlacedNode::new(NodeId(node), &format!("n{node}:1"), 1));
    let strategy = Strategy::Hash {};
    let nodes = nodes.collect();
    let document = PlacementDocument { epoch, start_ms: 0, replication, strategy, nodes };
    Arc::new(Placement::new(document).expect("a document"))
}

/// An owner whose lanes lead to nodes of one shard, all up.
pub(in crate::gateway) fn owner(node_count: u16, replication: u8, ack: AckPolicy) -> Owner {
    owner_with((node_count, replication, ack), u64::MAX)
}

/// The same, whose lanes hold so many bytes.
pub(in crate::gateway) fn owner_with(
    (node_count, replication, ack): (u16, u8, AckPolicy),
    lane_bytes_max: u64,
) -> Owner {
    let mut owner = Owner::placed(LabelLimits::default(), lane_bytes_max, ack);
    for _ in 0..node_count {
        let lane = owner.add_lane(0);
        owner.handle_lane_up(lane, 100 + u64::from(lane));
    }
    let lanes = (0..node_count).map(|lane| vec![lane]).collect();
    owner.handle_route(Route::placed(placement(1, node_count.into(), replication), lanes));
    owner
}

/// An owner with a hint to be kept.
pub(in crate::gateway) fn one_of_two_is_down() -> Owner {
    let mut owner = owner(2, 2, AckPolicy::All).with_hints();
    owner.handle_lane_down(1);
    eight(&mut owner, 1, 5);
    let (sequence, _, new) = send(&mut owner, 0);
    ack(&mut owner, 0, (sequence, new), &[]);
    owner
}

/// An owner of two lanes that know eight series; a second part of them, at 6, is durable on lane 1
/// and waits for lane 0.
fn one_of_two_has_it() -> Owner {
    let mut owner = owner(2, 2, AckPolicy::All);
    eight(&mut owner, 1, 5);
    for lane in 0..2 {
        let (sequence, _, new) = send(&mut owner, lane);
        ack(&mut owner, lane, (sequence, new), &[]);
    }
    assert_eq!(answers(&mut owner), [(1, 0)]);
    eight(&mut owner, 2, 6);
    let (other, ..) = send(&mut owner, 1);
    ack(&mut owner, 1, (other, 0), &[]);
    owner
}

/// A part with one sample of each of eight series, at `time`.
pub(in crate::gateway) fn eight(owner: &mut Owner, slot: u32, time: i64) {
    let sample = [(time, 1.0)];
    let series: Vec<_> = NAMES.iter().map(|name| (*name, &sample[..])).collect();
    owner.handle_part(part(slot, &series));
}

/// A hint with one sample of each of the same series, at `time`.
pub(in crate::gateway) fn hint_part(time: i64) -> HintPart {
    let sample = [(time, 1.0)];
    let series: Vec<_> = NAMES.iter().map(|name| (*name, &sample[..])).collect();
    let Part { tenant, lateness, batch, bytes, .. } = part(0, &series);
    HintPart { tenant, lateness, batch, bytes }
}

/// What the next frame of a lane holds, in times; it is in flight then.
pub(in crate::gateway) fn send(owner: &mut Owner, lane: u16) -> (u64, Vec<i64>, usize) {
    let frame = owner.poll_frame(lane).expect("a frame");
    let seen = view(&frame);
    let sequence = check_frame(&frame.bytes).expect("sealed").sequence;
    let sent = (sequence, seen.timestamp_ms.to_vec(), seen.new_series_count());
    owner.lane_mut(lane).handle_frame_sent(frame);
    sent
}

pub(in crate::gateway) fn ack(
    owner: &mut Owner,
    lane: u16,
    (sequence, new): (u64, usize),
    refused: &[(u32, Refusal)],
) {
    let assigned = (0u32..).take(new).map(|id| Ok(SeriesId(id))).collect();
    let refused = refused.iter().map(|&(index, reason)| RefusedSample { index, reason }).collect();
    owner.handle_ack(lane, &Ack { sequence, assigned, refused });
}

pub(in crate::gateway) fn answers(owner: &mut Owner) -> Vec<(u32, u64)> {
    let answers: Vec<PartAnswer> = std::iter::from_fn(|| owner.poll_answer()).collect();
    answers.iter().map(|answer| (answer.request.slot, answer.refused.total())).collect()
}

/// Red when a series goes to one lane only, or a part is answered by its first owner.
#[test]
fn every_owner_has_it_before_the_answer() {
    let mut owner = owner(3, 2, AckPolicy::All);
    eight(&mut owner, 1, 5);
    let sent: Vec<_> = (0..3).map(|lane| send(&mut owner, lane)).collect();
    assert_eq!(sent.iter().map(|(_, times, _)| times.len()).sum::<usize>(), 16);
    for (lane, (sequence, _, new)) in (0..3).zip(&sent) {
        assert_eq!(answers(&mut owner), [], "before lane {lane}");
        ack(&mut owner, lane, (*sequence, *new), &[]);
    }
    assert_eq!(answers(&mut owner), [(1, 0)]);
    assert!(owner.is_idle());
}

/// Red when both owners' refusals of one sample are added up, or the wrong sample is refused.
#[test]
fn a_sample_that_two_owners_refuse_counts_once() {
    let mut owner = owner(2, 2, AckPolicy::All);
    eight(&mut owner, 1, 5);
    for lane in 0..2 {
        let (sequence, _, new) = send(&mut owner, lane);
        ack(&mut owner, lane, (sequence, new), &[(3, Refusal::TooOld)]);
    }
    assert_eq!(answers(&mut owner), [(1, 1)]);
}

/// Red when one owner is not enough, when the second one is forgotten, or when what one refuses and
/// the other has counts as refused.
#[test]
fn one_owner_is_enough_if_so_configured() {
    let mut owner = owner(2, 2, AckPolicy::One);
    eight(&mut owner, 1, 5);
    let (sequence, _, new) = send(&mut owner, 0);
    let (other, _, other_new) = send(&mut owner, 1);
    ack(&mut owner, 0, (sequence, new), &[(3, Refusal::HeadFull)]);
    assert_eq!(answers(&mut owner), [], "one sample has no owner yet");
    ack(&mut owner, 1, (other, other_new), &[]);
    assert_eq!(answers(&mut owner), [(1, 0)]);
    eight(&mut owner, 2, 6);
    let (sequence, ..) = send(&mut owner, 0);
    ack(&mut owner, 0, (sequence, 0), &[]);
    assert_eq!(answers(&mut owner), [(2, 0)]);
    assert!(!owner.is_idle(), "the other owner still lacks it");
    let (other, ..) = send(&mut owner, 1);
    ack(&mut owner, 1, (other, 0), &[]);
    assert_eq!(answers(&mut owner), []);
    assert!(owner.is_idle());
}

/// Red when samples of a node that is down are waited for, or those of others are refused with
/// them.
#[test]
fn a_node_that_is_down_refuses_its_share_alone() {
    let mut owner = owner(2, 1, AckPolicy::All);
    eight(&mut owner, 1, 5);
    let (first, times, new) = send(&mut owner, 0);
    let share = 8 - times.len() as u64;
    send(&mut owner, 1);
    owner.handle_lane_down(1);
    assert_eq!(answers(&mut owner), []);
    ack(&mut owner, 0, (first, new), &[]);
    assert_eq!(answers(&mut owner), [(1, share)]);
    eight(&mut owner, 2, 6);
    let (second, ..) = send(&mut owner, 0);
    ack(&mut owner, 0, (second, 0), &[]);
    assert_eq!(answers(&mut owner), [(2, share)]);
    owner.handle_lane_up(1, 101);
    eight(&mut owner, 3, 7);
    let (sequence, times, _) = send(&mut owner, 1);
    assert_eq!((sequence, times.len() as u64), (1, share), "the link began anew");
}

/// Red when frames in flight are lost with the ids, when they name old ids, or their order changes.
#[test]
fn a_node_with_other_ids_gets_everything_again_in_order() {
    let mut owner = one_of_two_has_it();
    send(&mut owner, 0);
    eight(&mut owner, 3, 7);
    owner.handle_lane_up(0, 200);
    owner.handle_ids_forgotten(0);
    let (sequence, times, new) = send(&mut owner, 0);
    assert_eq!((sequence, new), (1, 8));
    assert_eq!(times, [[6; 8], [7; 8]].concat());
    ack(&mut owner, 0, (sequence, new), &[]);
    assert_eq!(answers(&mut owner), [(2, 0)]);
}

/// Red when open parts stay with their old owners, or what those say is taken for the new ones'.
#[test]
fn open_parts_go_the_ways_of_a_new_placement() {
    let mut owner = owner(2, 1, AckPolicy::All);
    eight(&mut owner, 1, 5);
    let (sequence, times, new) = send(&mut owner, 0);
    let (refused, ..) = send(&mut owner, 1);
    assert!(times.len() < 8);
    // The node has heard of the new placement first.
    owner.handle_refused(1, refused, Refusal::StaleEpoch);
    assert!(owner.has_parked(1));
    // Everything to a third node.
    let lane = owner.add_lane(0);
    owner.handle_lane_up(lane, 300);
    owner.handle_route(Route::placed(placement(2, 1, 1), vec![vec![lane]]));
    ack(&mut owner, 0, (sequence, new), &[]);
    assert_eq!(answers(&mut owner), [], "the old owner's word is not enough");
    let (sequence, times, new) = send(&mut owner, lane);
    assert_eq!((times.len(), new), (8, 8));
    ack(&mut owner, lane, (sequence, new), &[]);
    assert_eq!(answers(&mut owner), [(1, 0)]);
    assert!(owner.is_idle());
}

/// Red when a lane takes whatever comes while its node stands still.
#[test]
fn a_lane_that_is_full_refuses_its_share_alone() {
    let mut owner = owner(2, 1, AckPolicy::All);
    owner.lane_bytes_max = 400;
    eight(&mut owner, 1, 5);
    let (_, times, _) = send(&mut owner, 0);
    let share = times.len() as u64;
    eight(&mut owner, 2, 6);
    let (second, _, new) = send(&mut owner, 1);
    ack(&mut owner, 1, (second, new), &[]);
    assert_eq!(answers(&mut owner), [(2, share)], "part 1 waits for lane 0");
}

/// Red when an answer leaves before the hint is durable, when what the owner that is up refused is
/// hinted, or when a hint that found no room counts as written.
#[test]
fn what_an_owner_that_is_down_lacks_is_hinted_once_another_has_it() {
    let mut owner = owner(2, 2, AckPolicy::All).with_hints();
    owner.handle_lane_down(1);
    eight(&mut owner, 1, 5);
    assert!(owner.poll_hint().is_none(), "nobody has it yet");
    let (sequence, _, new) = send(&mut owner, 0);
    ack(&mut owner, 0, (sequence, new), &[(2, Refusal::TooOld)]);
    assert_eq!(answers(&mut owner), []);
    let hint = owner.poll_hint().expect("for the owner that is down");
    assert_eq!((hint.node, hint.part.batch.len(), hint.part.sample_count()), (NodeId(2), 7, 7));
    owner.handle_hinted(hint.ticket, Ok(()));
    assert_eq!(answers(&mut owner), [(1, 1)]);
    eight(&mut owner, 2, 6);
    let (sequence, ..) = send(&mut owner, 0);
    ack(&mut owner, 0, (sequence, 0), &[]);
    let hint = owner.poll_hint().expect("another");
    owner.handle_hinted(hint.ticket, Err(Refusal::HintsFull));
    assert_eq!(answers(&mut owner), [(2, 8)]);
    // With no owner left there is nobody to vouch for it.
    owner.handle_lane_down(0);
    eight(&mut owner, 3, 7);
    assert!(owner.poll_hint().is_none());
    assert_eq!(answers(&mut owner), [(3, 8)]);
    assert!(owner.is_idle());
}

/// Red when a node that goes while it has frames leaves them without a hint.
#[test]
fn what_a_node_had_in_flight_is_hinted_when_it_goes() {
    let mut owner = owner(2, 2, AckPolicy::All).with_hints();
    eight(&mut owner, 1, 5);
    let (sequence, _, new) = send(&mut owner, 0);
    send(&mut owner, 1);
    ack(&mut owner, 0, (sequence, new), &[]);
    assert_eq!(answers(&mut owner), []);
    owner.handle_lane_down(1);
    let hint = owner.poll_hint().expect("a hint");
    assert_eq!((hint.node, hint.part.sample_count()), (NodeId(2), 8));
    owner.handle_hinted(hint.ticket, Ok(()));
    assert_eq!(answers(&mut owner), [(1, 0)]);
}

/// Red when a hint goes to other owners than the one that lacks it, when it is told delivered
/// before its ack, or when one that the node cannot take now is forgotten.
#[test]
fn a_hint_is_delivered_to_its_node_alone() {
    let mut owner = one_of_two_is_down();
    let hint = owner.poll_hint().expect("a hint");
    owner.handle_hinted(hint.ticket, Ok(()));
    let number = crate::gateway::hint::replay::HintNumber { segment: 1, index: 0 };
    let origin = HintOrigin { node: NodeId(2), number };
    let again = || HintPart { bytes: Arc::clone(&hint.part.bytes), ..HintPart::default() };
    let mut first = again();
    first.batch.timestamp_ms.push(5);
    first.batch.value.push(1.0);
    first.batch.push_series(hint.part.batch.hash[0], hint.part.batch.labels[0]);
    owner.handle_hint(origin, first);
    let outcome = owner.poll_delivered().expect("its node is down");
    assert_eq!((outcome.hint, outcome.is_done), (origin, false));
    owner.handle_lane_up(1, 101);
    owner.handle_hint(origin, hint.part);
    assert!(owner.poll_frame(0).is_none(), "the other owner has it");
    let (sequence, times, new) = send(&mut owner, 1);
    assert_eq!(times, [5; 8]);
    assert!(owner.poll_delivered().is_none());
    // What no retry can mend is delivered, and counted.
    ack(&mut owner, 1, (sequence, new), &[(0, Refusal::OlderThanRetention)]);
    let outcome = owner.poll_delivered().expect("delivered");
    assert_eq!((outcome.hint, outcome.is_done), (origin, true));
    assert_eq!(outcome.refused.get(Refusal::OlderThanRetention), 1);
}

/// Red when what a client writes again is not kept behind the hint that it replaces (the owner then
/// gets the old value last), or everything is kept while a hint waits.
#[test]
fn what_is_written_again_has_the_last_word() {
    let mut owner = one_of_two_is_down();
    let first = owner.poll_hint().expect("a hint");
    owner.handle_hinted(first.ticket, Ok(()));
    assert_eq!(answers(&mut owner), [(1, 0)]);
    owner.handle_lane_up(1, 101);
    let both = |owner: &mut Owner, refused: &[(u32, Refusal)]| {
        for lane in 0..2 {
            let (sequence, _, new) = send(owner, lane);
            ack(owner, lane, (sequence, new), refused);
        }
    };
    eight(&mut owner, 2, 5);
    both(&mut owner, &[(3, Refusal::OlderThanRetention)]);
    assert_eq!(answers(&mut owner), [], "not durable behind the hint");
    let again = owner.poll_hint().expect("a hint");
    assert_eq!((again.node, again.part.sample_count()), (NodeId(2), 7));
    owner.handle_hinted(again.ticket, Ok(()));
    assert_eq!(answers(&mut owner), [(2, 1)]);
    // Of a series with older and newer samples the older ones alone.
    owner.handle_part(part(3, &[("a", &[(6, 1.0), (5, 1.0), (4, 1.0), (7, 1.0)])]));
    both(&mut owner, &[]);
    let again = owner.poll_hint().expect("a hint");
    assert_eq!(again.part.batch.timestamp_ms, [5, 4]);
    owner.handle_hinted(again.ticket, Err(Refusal::HintsFull));
    assert_eq!(answers(&mut owner), [(3, 2)]);
    eight(&mut owner, 4, 6);
    both(&mut owner, &[]);
    assert_eq!(answers(&mut owner), [(4, 0)], "newer than all hints");
    owner.handle_drained(NodeId(2));
    eight(&mut owner, 5, 5);
    both(&mut owner, &[]);
    assert_eq!(answers(&mut owner), [(5, 0)], "no hint is left");
    assert!(owner.poll_hint().is_none());
}

/// Red when a node counts as drained while what is to be hinted for it still waits for the other
/// owner, or for the disk.
#[test]
fn a_node_is_not_drained_while_hints_are_in_the_making() {
    let mut owner = owner(2, 2, AckPolicy::All).with_hints();
    owner.handle_lane_down(1);
    eight(&mut owner, 1, 5);
    owner.handle_lane_up(1, 101);
    owner.handle_drained(NodeId(2));
    eight(&mut owner, 2, 5);
    let (sequence, times, new) = send(&mut owner, 0);
    assert_eq!(times.len(), 16);
    ack(&mut owner, 0, (sequence, new), &[]);
    owner.handle_drained(NodeId(2));
    let (sequence, times, new) = send(&mut owner, 1);
    assert_eq!(times.len(), 8);
    ack(&mut owner, 1, (sequence, new), &[]);
    let hints = [owner.poll_hint(), owner.poll_hint()].map(|hint| hint.expect("of each part"));
    owner.handle_drained(NodeId(2));
    for hint in &hints {
        owner.handle_hinted(hint.ticket, Ok(()));
    }
    assert_eq!(answers(&mut owner), [(1, 0), (2, 0)]);
}

/// Red when hints that a start found, for a node that has left, may undo what comes now.
#[test]
fn hints_of_a_node_that_left_undo_nothing() {
    let mut owner = owner(2, 2, AckPolicy::All).with_hints();
    owner.handle_waiting(NodeId(9), 5);
    eight(&mut owner, 1, 5);
    for lane in 0..2 {
        let (sequence, _, new) = send(&mut owner, lane);
        ack(&mut owner, lane, (sequence, new), &[]);
    }
    let hint = owner.poll_hint().expect("a hint");
    assert_eq!((hint.node, hint.part.sample_count()), (NodeId(9), 8));
}

/// Red when what a node may have is sent again as if it were new: the node has newer samples by
/// then, and would call it too old.
#[test]
fn what_is_sent_again_may_be_late() {
    let mut owner = owner(2, 2, AckPolicy::All);
    eight(&mut owner, 1, 5);
    let is_late = |owner: &mut Owner, lane: u16| {
        let frame = owner.poll_frame(lane).expect("a frame");
        let flags = check_frame(&frame.bytes).expect("sealed").flags;
        owner.lane_mut(lane).handle_frame_sent(frame);
        flags & crate::wire::frame::FLAG_BACKFILL != 0
    };
    assert!(!is_late(&mut owner, 0) && !is_late(&mut owner, 1));
    owner.handle_ids_forgotten(0);
    assert!(is_late(&mut owner, 0));
    eight(&mut owner, 2, 6);
    assert!(!is_late(&mut owner, 0), "new ones may not");
    let mut owner = self::owner(2, 2, AckPolicy::All);
    eight(&mut owner, 1, 5);
    assert!(!is_late(&mut owner, 0));
    owner.handle_route(Route::placed(placement(2, 2, 2), vec![vec![0], vec![1]]));
    assert!(is_late(&mut owner, 0) && is_late(&mut owner, 1));
}

/// Red when the places of a run's samples are looked up for each sample that is refused: a frame
/// that a node refuses whole, or an owner that is down while every other sample is refused, then
/// takes minutes instead of milliseconds, and the shard does nothing else meanwhile.
#[test]
fn many_refusals_are_no_more_than_one_pass() {
    const SERIES: u32 = 40_000;
    let names: Vec<String> = (0..SERIES).map(|n| format!("s{n}")).collect();
    let sample = [(5, 1.0)];
    let series: Vec<_> = names.iter().map(|name| (name.as_str(), &sample[..])).collect();
    let mut owner = owner(3, 3, AckPolicy::One).with_hints();
    owner.handle_lane_down(2);
    owner.handle_part(part(1, &series));
    for (lane, reason) in [(0, Refusal::UnknownSeries), (0, Refusal::TooOld), (1, Refusal::TooOld)]
    {
        let mut sent = Vec::new();
        while let Some(frame) = owner.poll_frame(lane) {
            let sequence = check_frame(&frame.bytes).expect("sealed").sequence;
            sent.push((sequence, view(&frame).new_series_count(), frame.sample_count()));
            owner.lane_mut(lane).handle_frame_sent(frame);
        }
        let (mut refused, mut seen) = (0, 0);
        for (sequence, new, count) in sent {
            // An odd one each time, or the whole frame.
            let is_whole = reason == Refusal::UnknownSeries;
            let own = (0..count).filter(|index| is_whole || (seen + index) % 2 == 1);
            let own: Vec<_> = own.map(|index| (index, reason)).collect();
            (refused, seen) = (refused + own.len() as u64, seen + count);
            ack(&mut owner, lane, (sequence, new), &own);
        }
        let is_whole = reason == Refusal::UnknownSeries;
        let share = u64::from(SERIES) / (2 - u64::from(is_whole));
        assert_eq!((refused, seen), (share, SERIES), "lane {lane}: {reason:?}");
    }
    let hint = owner.poll_hint().expect("for the owner that is down");
    assert_eq!((hint.node, hint.part.sample_count()), (NodeId(3), u64::from(SERIES) / 2));
    owner.handle_hinted(hint.ticket, Ok(()));
    assert_eq!(answers(&mut owner), [(1, u64::from(SERIES) / 2)]);
    assert!(owner.is_idle());
}

/// Red when samples of a series that a node does not know travel without those before them, when
/// one of two neighbours is forgotten, or a part is answered while one is on its way again.
#[test]
fn what_a_node_does_not_know_travels_again_with_labels() {
    let mut owner = one_of_two_has_it();
    let (first, ..) = send(&mut owner, 0);
    eight(&mut owner, 3, 7);
    let (second, ..) = send(&mut owner, 0);
    let (other, ..) = send(&mut owner, 1);
    ack(&mut owner, 1, (other, 0), &[]);
    let unknown = |index| (index, Refusal::UnknownSeries);
    ack(&mut owner, 0, (first, 0), &[unknown(1), unknown(2), (4, Refusal::TooOld), unknown(7)]);
    ack(&mut owner, 0, (second, 0), &[unknown(1), unknown(2), unknown(7)]);
    assert_eq!(answers(&mut owner), []);
    let (third, times, new) = send(&mut owner, 0);
    assert_eq!((times, new), (vec![6, 6, 6, 7, 7, 7], 3));
    ack(&mut owner, 0, (third, new), &[]);
    assert_eq!(answers(&mut owner), [(2, 1), (3, 0)]);
    assert!(owner.is_idle());
}

/// Red when parts are answered by one owner without an end while their hints wait for the disk:
/// nothing is admitted by bytes any more then, and memory grows as fast as clients send.
#[test]
fn one_owner_is_not_enough_while_too_many_hints_wait() {
    let mut owner = owner(2, 2, AckPolicy::One).with_hints();
    owner.lane_bytes_max = 10_000;
    owner.handle_lane_down(1);
    let mut answered = 0;
    for slot in 0..1000 {
        eight(&mut owner, slot, i64::from(slot));
        let (sequence, _, new) = send(&mut owner, 0);
        ack(&mut owner, 0, (sequence, new), &[]);
        answered += answers(&mut owner).len();
    }
    assert!((1..200).contains(&answered), "{answered} answers");
    while let Some(hint) = owner.poll_hint() {
        owner.handle_hinted(hint.ticket, Ok(()));
    }
    assert_eq!(answered + answers(&mut owner).len(), 1000);
    assert!(owner.is_idle());
    eight(&mut owner, 1000, 1000);
    let (sequence, _, new) = send(&mut owner, 0);
    ack(&mut owner, 0, (sequence, new), &[]);
    assert_eq!(answers(&mut owner), [(1000, 0)], "there is room again");
}

/// Red when a node whose disk is full, or that takes too long, makes clients wait or fail although
/// another owner has their samples.
#[test]
fn what_an_owner_cannot_take_now_is_hinted_once_another_has_it() {
    let mut owner = owner(2, 2, AckPolicy::All).with_hints();
    eight(&mut owner, 1, 5);
    let (sequence, _, new) = send(&mut owner, 0);
    let (other, ..) = send(&mut owner, 1);
    owner.handle_refused(1, other, Refusal::DiskFull);
    assert_eq!(answers(&mut owner), []);
    ack(&mut owner, 0, (sequence, new), &[]);
    let hint = owner.poll_hint().expect("for the owner whose disk is full");
    assert_eq!((hint.node, hint.part.sample_count()), (NodeId(2), 8));
    owner.handle_hinted(hint.ticket, Ok(()));
    assert_eq!(answers(&mut owner), [(1, 0)]);
    // Both of them: nobody has it, and the client hears why.
    eight(&mut owner, 2, 6);
    for lane in 0..2 {
        let (sequence, ..) = send(&mut owner, lane);
        owner.handle_refused(lane, sequence, Refusal::HeadFull);
    }
    assert!(owner.poll_hint().is_none());
    let answer = owner.poll_answer().expect("refused");
    assert_eq!(answer.refused.get(Refusal::HeadFull), 8);
    assert!(owner.is_idle());
}
