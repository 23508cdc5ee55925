//! Real sockets, files and threads on loopback and in temporary folders; every wait has a deadline.

mod files;
mod sockets;
mod timers;
mod wakes;

use super::*;
use crate::base::time::{Duration, Instant, monotonic_now};

/// Longer than any test needs, so only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn small_ring() -> Ring {
    let options = RingOptions { entries: 8, receive_buffer_count: 4, receive_buffer_bytes: 4096 };
    Ring::new(options, monotonic_now()).expect("a kernel with io_uring")
}

/// One sleeping turn, in a batch of its own.
fn next_events(ring: &mut Ring) -> Vec<Event> {
    let mut events = Vec::new();
    let now = monotonic_now();
    let idle = Idle::Wait { until: Some(now + Duration::from_secs(1)), is_idle: &|| true };
    ring.turn(now, idle, &mut events).expect("turn");
    events
}

/// Turns until `handle` says so, which is given every event.
#[track_caller]
fn turn_until(ring: &mut Ring, mut handle: impl FnMut(&mut Ring, Event) -> bool) {
    let deadline = monotonic_now() + PATIENCE;
    let mut is_done = false;
    while !is_done {
        assert!(monotonic_now() < deadline, "what the test waits for did not happen");
        for event in next_events(ring) {
            is_done |= handle(ring, event);
        }
    }
}
