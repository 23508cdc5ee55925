//! Hints in the order of what they are of, and the last word of what came last.

use super::*;
use crate::gateway::hint::replay::HintNumber;
use crate::gateway::owner::AckPolicy;
use crate::gateway::owner::fleet_tests::{NAMES, ack, answers, eight, owner, placement, send};
use crate::gateway::owner::tests::part;
use crate::gateway::route::Route;
use crate::model::labels::LabelLimits;
use crate::model::placement::NodeId;
use crate::model::refusal::Refusal;

/// Red when a newer value of a series is kept for an owner before an older one that is still on its
/// way to somebody else: the owner then gets the older one last. With one owner enough, the older
/// one was acknowledged before the newer one was sent.
#[test]
fn hints_of_one_series_keep_the_order_in_which_they_came() {
    let mut owner = owner(3, 2, AckPolicy::One).with_hints();
    // The lane that is down is 2; `both` is on lanes 0 and 2, `other` on lanes 0 and 1.
    owner.handle_lane_down(2);
    let lanes_of = |owner: &Owner, name: &str| {
        let part = part(0, &[(name, &[(5, 1.0)])]);
        let at = (&part.batch, 0);
        let mut lanes = owner.route.lanes_of(part.tenant, at, &part.bytes).as_slice().to_vec();
        lanes.sort_unstable();
        lanes
    };
    let names: Vec<String> = (0..100).map(|n| format!("m{n}")).collect();
    let find = |lanes: &[u16]| {
        names.iter().find(|name| lanes_of(&owner, name) == lanes).expect("one of a hundred")
    };
    let (both, other) = (find(&[0, 2]), find(&[0, 1]));
    owner.handle_part(part(1, &[(both, &[(5, 1.0)]), (other, &[(5, 1.0)])]));
    let (sequence, _, new) = send(&mut owner, 0);
    ack(&mut owner, 0, (sequence, new), &[]);
    assert_eq!(answers(&mut owner), [(1, 0)], "acknowledged: the client goes on");
    owner.handle_part(part(2, &[(both, &[(5, 2.0)])]));
    let (sequence, _, new) = send(&mut owner, 0);
    ack(&mut owner, 0, (sequence, new), &[]);
    assert_eq!(answers(&mut owner), [(2, 0)]);
    // Lane 1 was slow.
    let (sequence, _, new) = send(&mut owner, 1);
    ack(&mut owner, 1, (sequence, new), &[]);
    let hints: Vec<f64> =
        std::iter::from_fn(|| owner.poll_hint()).flat_map(|hint| hint.part.batch.value).collect();
    assert_eq!(hints, [1.0, 2.0], "the last value has the last word");
}

/// Red when only parts that a node that is down lacks are held back while too many hints wait, and
/// those that go behind hints are answered without an end.
#[test]
fn one_owner_is_not_enough_while_too_much_goes_behind_hints() {
    let mut owner = owner(2, 2, AckPolicy::One).with_hints();
    owner.lane_bytes_max = 10_000;
    owner.handle_waiting(NodeId(2), 5000);
    let mut answered = 0;
    for slot in 0..1000 {
        eight(&mut owner, slot, i64::from(slot));
        for lane in 0..2 {
            let (sequence, _, new) = send(&mut owner, lane);
            ack(&mut owner, lane, (sequence, new), &[]);
        }
        answered += answers(&mut owner).len();
    }
    // No hint was taken by the disk yet.
    assert!((1..200).contains(&answered), "{answered} answers, {} bytes", owner.hinting_bytes);
}

/// Red when an owner whose hint was refused keeps being one that hints wait for: nothing is on the
/// disk, all owners are up, and what clients write goes on failing.
#[test]
fn a_hint_that_was_refused_is_not_waited_for() {
    use crate::base::time::monotonic_now;
    use crate::gateway::hint::command::HintCommand;
    use crate::gateway::hint::command::HintEvent;
    use crate::gateway::hint::log::{HintLimits, HintTicket, LogEvent};
    use crate::gateway::hint::logs::HintLogs;
    use crate::gateway::hint::side::HintSide;
    use std::collections::BTreeMap;
    let now = monotonic_now();
    let (me, other) = (NodeId(1), NodeId(2));
    let up = BTreeMap::from([(me, true), (other, true)]);
    let mut owner = owner(2, 2, AckPolicy::All).with_hints();
    let mut side = HintSide::new(0, [], 0);
    // No room: another node, which is gone for good, has it all.
    let limits = HintLimits {
        node_bytes_max: 4096,
        bytes_max: 4096,
        age_max_ms: 1_000_000,
        segment_bytes: 1 << 20,
    };
    let mut logs = HintLogs::new(limits, 1);
    let keep = |side: &mut HintSide, logs: &mut HintLogs, owner: &mut Owner| {
        side.work(now, owner);
        while let Some(command) = side.poll_command() {
            match command {
                HintCommand::Append { node, ticket, part } => {
                    let ticket: HintTicket = ticket;
                    logs.handle_append(0, node, ticket, &part);
                }
                HintCommand::Read { node, shard } => logs.log_mut(node).handle_read(shard),
                HintCommand::Pause { node, shard } => logs.log_mut(node).handle_pause(shard),
                HintCommand::Delivered { .. } => {}
            }
        }
        while let Some((node, event)) = logs.poll_event() {
            let event = match event {
                LogEvent::Appended { ticket, outcome } => {
                    HintEvent::Appended { node, ticket: ticket.number, outcome }
                }
                LogEvent::Record { record, .. } => HintEvent::Record { node, record },
                LogEvent::Drained { .. } => HintEvent::Drained { node },
            };
            side.handle_event(event, owner);
        }
    };
    side.handle_nodes(&up);
    keep(&mut side, &mut logs, &mut owner);
    // A moment without memory at the second node: as good as down.
    eight(&mut owner, 1, 1000);
    for lane in 0..2 {
        let (sequence, _, new) = send(&mut owner, lane);
        let refused = [(0, Refusal::HeadFull)];
        ack(&mut owner, lane, (sequence, new), if lane == 1 { &refused } else { &[] });
    }
    keep(&mut side, &mut logs, &mut owner);
    assert_eq!(answers(&mut owner), [(1, 8)], "no room for hints");
    // It has memory again. Both take everything.
    for slot in 2..50 {
        eight(&mut owner, slot, 1000);
        for lane in 0..2 {
            let (sequence, _, new) = send(&mut owner, lane);
            ack(&mut owner, lane, (sequence, new), &[]);
        }
        keep(&mut side, &mut logs, &mut owner);
        side.handle_nodes(&up);
        assert_eq!(answers(&mut owner), [(slot, 0)], "both owners have it, and no hint waits");
    }
}

/// Red when a value that was on its way while its owner refused an older one is not kept behind the
/// hint that the older one becomes. With one owner enough the older one was acknowledged before.
#[test]
fn what_was_on_its_way_when_an_older_value_was_refused_has_the_last_word() {
    let mut owner = owner(2, 2, AckPolicy::One).with_hints();
    owner.handle_part(part(1, &[("a", &[(5, 1.0)])]));
    let (sequence, _, new) = send(&mut owner, 0);
    let (first, ..) = send(&mut owner, 1);
    ack(&mut owner, 0, (sequence, new), &[]);
    assert_eq!(answers(&mut owner), [(1, 0)], "acknowledged: the client goes on");
    owner.handle_part(part(2, &[("a", &[(5, 2.0)])]));
    let (sequence, ..) = send(&mut owner, 0);
    let (second, _, new) = send(&mut owner, 1);
    ack(&mut owner, 0, (sequence, 0), &[]);
    assert_eq!(answers(&mut owner), [(2, 0)]);
    // The first frame comes in a moment without memory, the second does not.
    owner.handle_refused(1, first, Refusal::Overloaded);
    ack(&mut owner, 1, (second, new), &[]);
    let hints: Vec<f64> =
        std::iter::from_fn(|| owner.poll_hint()).flat_map(|hint| hint.part.batch.value).collect();
    assert_eq!(hints, [1.0, 2.0], "the node has 2.0 already, and gets 1.0 behind it");
}

/// Red when all of a part becomes a hint of which less was to be kept, behind older hints, and what
/// is newer in it is not known to be a hint: a value that is written after it is undone by it.
#[test]
fn what_became_a_hint_as_its_node_went_has_not_the_last_word() {
    let mut owner = owner(2, 2, AckPolicy::All).with_hints();
    owner.handle_waiting(NodeId(2), 5);
    let hints = |owner: &mut Owner| -> Vec<(i64, f64)> {
        let hints: Vec<HintOut> = std::iter::from_fn(|| owner.poll_hint()).collect();
        for hint in &hints {
            owner.handle_hinted(hint.ticket, Ok(()));
        }
        let batches = hints.into_iter().map(|hint| hint.part.batch);
        batches.flat_map(|batch| batch.timestamp_ms.into_iter().zip(batch.value)).collect()
    };
    owner.handle_part(part(1, &[("a", &[(5, 1.0), (9, 1.0)])]));
    let (sequence, _, new) = send(&mut owner, 0);
    send(&mut owner, 1);
    ack(&mut owner, 0, (sequence, new), &[]);
    owner.handle_lane_down(1);
    assert_eq!(hints(&mut owner), [(5, 1.0), (9, 1.0)]);
    assert_eq!(answers(&mut owner), [(1, 0)]);
    owner.handle_lane_up(1, 200);
    owner.handle_part(part(2, &[("a", &[(9, 2.0), (10, 2.0)])]));
    for lane in 0..2 {
        let (sequence, _, new) = send(&mut owner, lane);
        ack(&mut owner, lane, (sequence, new), &[]);
    }
    assert_eq!(hints(&mut owner), [(9, 2.0)], "behind the hint of 1.0");
}

/// Red when a hint of a node that has left, and is back, goes there alone although older ones of
/// the same samples went to others meanwhile: those keep the older value.
#[test]
fn hints_of_a_node_that_is_back_go_where_older_ones_went() {
    let mut owner = owner(2, 1, AckPolicy::All).with_hints();
    let route = |epoch, nodes: u16| {
        let lanes = (0..nodes).map(|lane| vec![lane]).collect();
        Route::placed(placement(epoch, nodes.into(), 1), lanes)
    };
    let hint = |index| HintOrigin { node: NodeId(2), number: HintNumber { segment: 1, index } };
    let value_of_all = |value| {
        let sample = [(5, value)];
        let series: Vec<_> = NAMES.iter().map(|name| (*name, &sample[..])).collect();
        let part = part(0, &series);
        HintPart { batch: part.batch, bytes: part.bytes, ..HintPart::default() }
    };
    owner.handle_waiting(NodeId(2), 5);
    owner.handle_route(route(2, 1));
    owner.handle_hint(hint(1), value_of_all(1.0));
    let (sequence, times, new) = send(&mut owner, 0);
    assert_eq!(times.len(), 8, "all of it goes to the only one who is left");
    ack(&mut owner, 0, (sequence, new), &[]);
    owner.handle_route(route(3, 2));
    owner.handle_hint(hint(2), value_of_all(2.0));
    let placed = send(&mut owner, 0).1.len();
    assert_eq!(send(&mut owner, 1).1.len(), 8, "it lacks them");
    assert!((1..8).contains(&placed), "{placed}: those that it owns now");
}

/// Red when a gateway that starts with hints, and hears nothing of its fleet yet, panics at what
/// clients send.
#[test]
fn hints_that_wait_need_no_placement() {
    let mut owner = Owner::placed(LabelLimits::default(), u64::MAX, AckPolicy::All).with_hints();
    owner.handle_waiting(NodeId(2), 1000);
    eight(&mut owner, 1, 5);
    assert_eq!(answers(&mut owner), [(1, 8)]);
}

/// Red if one sample of a clock that is ahead, in a hint, sends everything that comes until then
/// over the disk, although hints of it are the only ones that wait.
#[test]
fn one_clock_ahead_sends_nobody_else_behind_hints() {
    let mut owner = owner(2, 2, AckPolicy::All).with_hints();
    let both = |owner: &mut Owner| {
        for lane in 0..2 {
            let (sequence, _, new) = send(owner, lane);
            ack(owner, lane, (sequence, new), &[]);
        }
    };
    owner.handle_lane_down(1);
    owner.handle_part(part(1, &[("ahead", &[(600_000, 1.0)])]));
    let (sequence, _, new) = send(&mut owner, 0);
    ack(&mut owner, 0, (sequence, new), &[]);
    let hint = owner.poll_hint().expect("a hint");
    owner.handle_hinted(hint.ticket, Ok(()));
    owner.handle_lane_up(1, 101);
    // All other series, for ten minutes. The keeper hands out what it has at once, and says so.
    let mut hinted = 0;
    for second in 1..600 {
        eight(&mut owner, 2, second * 1000);
        both(&mut owner);
        let hint = owner.poll_hint();
        // What was kept before is delivered by now, and the next part is here already.
        eight(&mut owner, 3, second * 1000 + 500);
        owner.handle_drained(NodeId(2));
        hinted += u32::from(hint.is_some());
        if let Some(hint) = hint {
            owner.handle_hinted(hint.ticket, Ok(()));
        }
        both(&mut owner);
        let hint = owner.poll_hint();
        hinted += u32::from(hint.is_some());
        if let Some(hint) = hint {
            owner.handle_hinted(hint.ticket, Ok(()));
        }
    }
    assert!(hinted < 10, "{hinted} of 1,198 parts went over the disk");
}
