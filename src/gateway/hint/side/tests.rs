//! A gateway shard's end of hints, with a keeper that is played by the test.

use super::*;
use crate::base::time::monotonic_now;
use crate::gateway::hint::HintPart;
use crate::gateway::hint::replay::{HintNumber, HintRecord};
use crate::gateway::owner::{AckPolicy, fleet_tests};
use crate::model::labels::LabelLimits;

const NODE: NodeId = NodeId(7);

/// What the side asks of the keeper, in short.
fn commands(side: &mut HintSide) -> Vec<&'static str> {
    let name = |command| match command {
        HintCommand::Append { .. } => "append",
        HintCommand::Read { .. } => "read",
        HintCommand::Pause { .. } => "pause",
        HintCommand::Delivered { .. } => "delivered",
        HintCommand::Forget { .. } => "forget",
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
