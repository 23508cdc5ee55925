//! A gateway shard's end of hints, with a keeper that is played by the test.

use super::*;
use crate::base::time::monotonic_now;
use crate::gateway::hint::HintPart;
use crate::gateway::hint::replay::{HintNumber, HintRecord};
use crate::gateway::owner::{AckPolicy, fleet_tests};
use crate::model::labels::LabelLimits;

const NODE: NodeId = NodeId(1);

/// What the side asks of the keeper, in short.
fn commands(side: &mut HintSide) -> Vec<&'static str> {
    let name = |command| match command {
        HintCommand::Append { .. } => "append",
        HintCommand::Read { .. } => "read",
        HintCommand::Pause { .. } => "pause",
        HintCommand::Delivered { .. } => "delivered",
    };
    std::iter::from_fn(|| side.poll_command()).map(name).collect()
}

fn record(index: u32) -> HintEvent {
    let number = HintNumber { segment: 1, index };
    HintEvent::Record { node: NODE, record: HintRecord { number, part: HintPart::default() } }
}

/// Red when a gateway that is told to end goes on reading hints: it is idle only when all of them
/// are delivered, however many there are, and is cut off by `shutdown-timeout` instead.
#[test]
fn a_side_that_drains_takes_no_more_hints() {
    let mut owner = Owner::placed(LabelLimits::default(), u64::MAX, AckPolicy::All).with_hints();
    let lane = owner.add_lane(0);
    owner.handle_lane_up(lane, 1);
    let now = monotonic_now();
    let mut side = HintSide::new(0, [NODE], 0);
    side.handle_nodes(&BTreeMap::from([(NODE, true)]));
    side.work(now, &mut owner);
    assert_eq!(commands(&mut side), ["read"]);
    side.handle_event(record(0), &mut owner);
    side.work(now, &mut owner);
    assert_eq!(commands(&mut side), ["delivered"]);
    side.drain();
    assert_eq!(commands(&mut side), ["pause"]);
    side.handle_event(record(1), &mut owner);
    side.handle_nodes(&BTreeMap::from([(NODE, true)]));
    side.work(now + AGAIN_AFTER, &mut owner);
    assert_eq!(commands(&mut side), Vec::<&str>::new());
    assert!(owner.is_idle());
}

/// Red when a hint that is kept for a node which leaves the placement before the next look at the
/// links is not read before the next start.
#[test]
fn hints_of_a_node_that_leaves_at_once_are_read() {
    let mut owner = fleet_tests::one_of_two_is_down();
    let now = monotonic_now();
    let mut side = HintSide::new(0, [], 0);
    side.work(now, &mut owner);
    assert_eq!(commands(&mut side), ["append"]);
    side.handle_nodes(&BTreeMap::new());
    side.work(now, &mut owner);
    assert_eq!(commands(&mut side), ["read"]);
}

/// Hints were refused when a lane had as much as it may hold, and what was refused was asked for a
/// second later: of long records a few came a second. Live samples found the lane full as well, and
/// became hints.
#[test]
fn hints_wait_for_room_in_their_lane() {
    // Red if a hint is refused for want of room, if one waits though there is some, if live samples
    // find none beside them, or if what waits is given out again behind a pause.
    let mut owner = fleet_tests::owner_with((2, 2, AckPolicy::All), 1_500).with_hints();
    let now = monotonic_now();
    let mut side = HintSide::new(0, [NODE], 0);
    let up = BTreeMap::from([(NODE, true)]);
    side.handle_nodes(&up);
    side.work(now, &mut owner);
    assert_eq!(commands(&mut side), ["read"]);
    let hint = |index| {
        let number = HintNumber { segment: 1, index };
        let part = fleet_tests::hint_part(i64::from(index));
        HintEvent::Record { node: NODE, record: HintRecord { number, part } }
    };
    for index in 0..8 {
        side.handle_event(hint(index), &mut owner);
    }
    side.work(now, &mut owner);
    let held = owner.lane(0).held_bytes();
    assert!((700..1_300).contains(&held), "{held} bytes of eight hints");
    fleet_tests::eight(&mut owner, 1, 100);
    assert!(owner.poll_hint().is_none(), "there is room beside them");
    let (mut delivered, mut turns) = (0, 0);
    while delivered < 8 {
        turns += 1;
        assert!(turns < 20, "{delivered} were delivered");
        for lane in 0..2 {
            while owner.lane(lane).has_frames_to_send() {
                let (sequence, _, new) = fleet_tests::send(&mut owner, lane);
                fleet_tests::ack(&mut owner, lane, (sequence, new), &[]);
            }
        }
        side.work(now, &mut owner);
        let said = commands(&mut side);
        assert!(said.iter().all(|command| *command == "delivered"), "{said:?}");
        delivered += said.len();
    }
    // Those that did not go out are the keeper's again.
    for index in 8..16 {
        side.handle_event(hint(index), &mut owner);
    }
    side.work(now, &mut owner);
    side.handle_nodes(&BTreeMap::from([(NODE, false)]));
    assert!(side.held.is_empty() && commands(&mut side) == ["pause"]);
}

/// Red when a gateway whose disk is full names a limit of its configuration to clients.
#[test]
fn a_full_disk_is_called_so() {
    #[track_caller]
    fn check(refusal: HintRefusal, want: Refusal) {
        assert_eq!(refusal_of(refusal), want, "{refusal:?}");
    }
    check(HintRefusal::Disk(libc::ENOSPC), Refusal::DiskFull);
    check(HintRefusal::Disk(libc::EDQUOT), Refusal::DiskFull);
    check(HintRefusal::Disk(libc::EIO), Refusal::HintsFull);
    check(HintRefusal::Full, Refusal::HintsFull);
}
