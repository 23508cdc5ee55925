//! Real sockets, files and threads on loopback and in temporary folders; every wait has a deadline.

mod connect;
mod files;
mod frames;
mod measure;
mod sockets;
mod timers;
mod wakes;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

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

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let address = listener.local_addr().expect("address");
    (listener, address)
}

/// A connected pair: ours (blocking, as the ring needs it) and the test's.
fn pair() -> (OwnedFd, TcpStream) {
    let (listener, address) = listen();
    let theirs = TcpStream::connect(address).expect("connect");
    theirs.set_read_timeout(Some(PATIENCE)).expect("timeout");
    (listener.accept().expect("accept").0.into(), theirs)
}

/// Bytes that show a gap, a swap or a repeat at any offset.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|offset| (offset.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

fn close_and_wait(ring: &mut Ring, token: Token, fd: OwnedFd) -> Vec<Event> {
    ring.close(token, fd);
    let mut before = Vec::new();
    turn_until(ring, |_, event| {
        let is_closed = matches!(event, Event::Closed { token: closed } if closed == token);
        before.push(event);
        is_closed
    });
    before
}
