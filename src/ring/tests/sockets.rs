//! Accept, receive, send and close against plain blocking sockets on other threads.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread;

use super::*;

const LISTENER: Token = Token(u64::MAX);
const PEER: Token = Token(7);

#[test]
fn ten_megabytes_through_four_buffers_with_back_pressure() {
    let want = pattern(12 << 20);
    let sent = want.clone();
    let (listener, address) = listen();
    let mut ring = small_ring();
    ring.accept(LISTENER, listener.as_raw_fd());
    let client = thread::spawn(move || {
        TcpStream::connect(address).expect("connect").write_all(&sent).expect("write");
    });
    let mut got = Vec::new();
    let mut socket = None;
    let mut held = Vec::new();
    let mut starved = 0;
    turn_until(&mut ring, |ring, event| {
        match event {
            Event::Accepted { listener: LISTENER, socket: accepted } => {
                ring.receive(PEER, accepted.as_raw_fd());
                socket = Some(accepted);
            }
            Event::Received { token: PEER, lease } => {
                assert!(!lease.is_empty());
                got.extend_from_slice(ring.buffer(&lease));
                held.push(lease);
            }
            Event::ReceiveEnded { token: PEER, reason: ReceiveEnd::NoBuffers } => {
                starved += 1;
                assert_eq!(ring.free_buffers(), 0);
                held.drain(..).for_each(|lease| ring.recycle(lease));
                assert_eq!(ring.free_buffers(), 4);
                ring.receive(PEER, socket.as_ref().expect("accepted").as_raw_fd());
            }
            Event::ReceiveEnded { token: PEER, reason: ReceiveEnd::PeerClosed } => return true,
            other => panic!("unexpected {other:?}"),
        }
        false
    });
    assert!(got == want, "bytes differ");
    assert!(starved > 100, "only {starved} times out of buffers");
    assert_eq!(ring.counters().no_buffers, starved);
    client.join().expect("client");
    held.drain(..).for_each(|lease| ring.recycle(lease));
    close_and_wait(&mut ring, PEER, socket.expect("accepted"));
    close_and_wait(&mut ring, LISTENER, listener.into());
    assert_eq!(ring.in_flight(), 1, "only the waker's poll is left");
}

#[test]
fn fifty_megabytes_to_a_slow_reader_in_order() {
    const PIECES: usize = 5;
    let want = pattern(50 << 20);
    let (ours, mut theirs) = pair();
    let mut ring = small_ring();
    for piece in want.chunks(want.len() / PIECES) {
        ring.send(PEER, ours.as_raw_fd(), piece.to_vec());
    }
    let reader = thread::spawn(move || {
        // Small reads: the socket's buffer is full nearly all of the time.
        let mut got = Vec::new();
        let mut piece = [0; 3000];
        loop {
            match theirs.read(&mut piece).expect("read") {
                0 => return got,
                len => got.extend_from_slice(&piece[..len]),
            }
        }
    });
    let mut sent = 0;
    turn_until(&mut ring, |_, event| {
        let Event::Sent { token: PEER, buffer, result: Ok(()) } = event else {
            panic!("unexpected {event:?}");
        };
        assert_eq!(buffer.len(), want.len() / PIECES);
        sent += 1;
        sent == PIECES
    });
    close_and_wait(&mut ring, PEER, ours);
    assert!(reader.join().expect("reader") == want, "bytes differ");
}

#[test]
fn close_with_everything_in_flight_then_the_token_again() {
    let mut ring = small_ring();
    for round in 0..50 {
        let (ours, mut theirs) = pair();
        ring.receive(PEER, ours.as_raw_fd());
        // Nobody reads, so the first send sticks in the kernel and the second behind it.
        ring.send(PEER, ours.as_raw_fd(), vec![1; 16 << 20]);
        ring.send(PEER, ours.as_raw_fd(), vec![2; 10]);
        theirs.write_all(b"never told").expect("write");
        if round % 2 == 0 {
            // Half of the rounds close what the kernel has not even seen yet.
            let mut events = Vec::new();
            ring.turn(monotonic_now(), Idle::Poll, &mut events).expect("turn");
            for event in events {
                let Event::Received { lease, .. } = event else { panic!("unexpected {event:?}") };
                ring.recycle(lease);
            }
        }
        let events = close_and_wait(&mut ring, PEER, ours);
        let mut sizes = Vec::new();
        for event in &events {
            match event {
                Event::Sent { token: PEER, buffer, result: Err(_) } => sizes.push(buffer.len()),
                Event::Closed { token: PEER } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        sizes.sort_unstable();
        assert_eq!(sizes, [10, 16 << 20]);
        assert!(matches!(events.last(), Some(Event::Closed { token: PEER })));
        assert_eq!((ring.in_flight(), ring.free_buffers()), (1, 4), "round {round}");
        // The peer sees the end, after what had fitted into the sockets' buffers.
        let _ = theirs.read_to_end(&mut Vec::new());
    }
}

#[test]
fn stop_receive_then_receive_again_loses_nothing() {
    let (ours, mut theirs) = pair();
    let fd = ours.as_raw_fd();
    let mut ring = small_ring();
    ring.receive(PEER, fd);
    ring.receive(PEER, fd); // No effect.
    theirs.write_all(b"one").expect("write");
    let mut got = Vec::new();
    let mut take = |ring: &mut Ring, lease: BufferLease| {
        got.extend_from_slice(ring.buffer(&lease));
        ring.recycle(lease);
        got.clone()
    };
    turn_until(&mut ring, |ring, event| match event {
        Event::Received { lease, .. } => take(ring, lease) == b"one",
        other => panic!("unexpected {other:?}"),
    });
    ring.stop_receive(PEER);
    ring.stop_receive(PEER); // No effect.
    turn_until(&mut ring, |_, event| match event {
        Event::ReceiveEnded { token: PEER, reason } => reason == ReceiveEnd::Cancelled,
        other => panic!("unexpected {other:?}"),
    });
    theirs.write_all(b"two").expect("write");
    // Stopped and started within one turn: as if nothing had been said.
    ring.receive(PEER, fd);
    ring.stop_receive(PEER);
    ring.receive(PEER, fd);
    theirs.write_all(b"three").expect("write");
    turn_until(&mut ring, |ring, event| match event {
        Event::Received { lease, .. } => take(ring, lease) == b"onetwothree",
        other => panic!("unexpected {other:?}"),
    });
    close_and_wait(&mut ring, PEER, ours);
}

#[test]
fn a_reset_connection_fails_its_sends() {
    let (ours, theirs) = pair();
    let mut ring = small_ring();
    ring.send(PEER, ours.as_raw_fd(), vec![0; 64 << 20]);
    ring.send(PEER, ours.as_raw_fd(), vec![0; 1]);
    ring.send(PEER, ours.as_raw_fd(), Vec::new());
    let mut failed = 0;
    // Dropped with unread bytes, which is a reset.
    let mut theirs = Some(theirs);
    ring.turn(monotonic_now(), Idle::Poll, &mut Vec::new()).expect("turn");
    theirs.take();
    turn_until(&mut ring, |_, event| {
        assert!(matches!(event, Event::Sent { result: Err(_), .. }), "unexpected {event:?}");
        failed += 1;
        failed == 3
    });
    close_and_wait(&mut ring, PEER, ours);
}

#[test]
fn more_operations_than_the_queues_hold() {
    // 200 connections on a submission queue of 8 and a completion queue of 64.
    const CONNECTIONS: u64 = 200;
    let mut ring = small_ring();
    let mut pairs: Vec<_> = (0..CONNECTIONS).map(|_| pair()).collect();
    for (token, (ours, _)) in (0..).zip(&pairs) {
        ring.receive(Token(token), ours.as_raw_fd());
        ring.send(Token(token), ours.as_raw_fd(), vec![5; 1000]);
    }
    for (_, theirs) in &mut pairs {
        theirs.write_all(&[9; 1000]).expect("write");
    }
    let (mut sent, mut received) = (0, 0);
    turn_until(&mut ring, |ring, event| {
        match event {
            Event::Sent { result: Ok(()), .. } => sent += 1,
            Event::Received { lease, .. } => {
                received += lease.len();
                ring.recycle(lease);
            }
            Event::ReceiveEnded { token, reason: ReceiveEnd::NoBuffers } => {
                let (ours, _) = &pairs[usize::try_from(token.0).expect("small")];
                ring.receive(token, ours.as_raw_fd());
            }
            other => panic!("unexpected {other:?}"),
        }
        sent == CONNECTIONS && received == 200 * 1000
    });
    assert!(ring.counters().overflows > 0, "the test no longer fills the completion queue");
    let mut closed = 0;
    for (token, (ours, theirs)) in (0..).zip(pairs) {
        ring.close(Token(token), ours);
        drop(theirs);
    }
    turn_until(&mut ring, |_, event| {
        assert!(matches!(event, Event::Closed { .. }), "unexpected {event:?}");
        closed += 1;
        closed == CONNECTIONS
    });
    assert_eq!(ring.in_flight(), 1);
}

#[test]
fn an_unusable_listener_is_reported_once() {
    let (not_listening, _theirs) = pair();
    let mut ring = small_ring();
    ring.accept(LISTENER, not_listening.as_raw_fd());
    turn_until(&mut ring, |_, event| match event {
        Event::AcceptFailed { listener: LISTENER, errno } => errno == Errno(libc::EINVAL),
        other => panic!("unexpected {other:?}"),
    });
    assert_eq!(ring.in_flight(), 1);
    close_and_wait(&mut ring, LISTENER, not_listening);
}

#[test]
fn out_of_descriptors_rests_and_accepts_later() {
    // In a process of its own, because the limit would hit the tests beside this one.
    let this = std::env::current_exe().expect("our path");
    let test = "ring::tests::sockets::out_of_descriptors_in_its_own_process";
    let child = std::process::Command::new(this).args(["--exact", test, "--ignored"]).output();
    let child = child.expect("spawn");
    let printed = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && printed.contains("1 passed"), "{printed}");
}

#[test]
#[ignore = "run by out_of_descriptors_rests_and_accepts_later"]
fn out_of_descriptors_in_its_own_process() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let (listener, address) = listen();
    let _client = TcpStream::connect(address).expect("connect");
    let mut ring = small_ring();
    ring.accept(LISTENER, listener.as_raw_fd());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    let set_limit = |limit| setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("limit");
    // Descriptors are given out from the lowest: nothing below our newest is free.
    let newest = std::fs::File::open("/dev/null").expect("open");
    let full = u64::try_from(newest.as_raw_fd()).expect("not negative") + 1;
    let fail = |_: &mut Ring, event| match event {
        Event::AcceptFailed { listener: LISTENER, errno } => errno == Errno(libc::EMFILE),
        other => panic!("unexpected {other:?}"),
    };
    set_limit(full);
    turn_until(&mut ring, fail);
    let failed_at = monotonic_now();
    set_limit(hard);
    turn_until(&mut ring, |_, event| matches!(event, Event::Accepted { .. }));
    assert!(failed_at.elapsed() >= Duration::from_millis(90), "no rest");
    close_and_wait(&mut ring, LISTENER, listener.into());

    // Closed while it rests: it is not armed again.
    let (listener, address) = listen();
    let _client = TcpStream::connect(address).expect("connect");
    ring.accept(LISTENER, listener.as_raw_fd());
    set_limit(full);
    turn_until(&mut ring, fail);
    set_limit(hard);
    close_and_wait(&mut ring, LISTENER, listener.into());
    let mut events = Vec::new();
    ring.turn(monotonic_now() + Duration::from_secs(1), Idle::Poll, &mut events).expect("turn");
    assert_eq!((events.len(), ring.in_flight()), (0, 1));
}

#[test]
fn dropping_a_busy_ring_lets_go_of_everything() {
    let (ours, mut theirs) = pair();
    let (listener, _) = listen();
    let mut ring = small_ring();
    ring.accept(LISTENER, listener.as_raw_fd());
    ring.receive(PEER, ours.as_raw_fd());
    ring.send(PEER, ours.as_raw_fd(), vec![0; 16 << 20]);
    ring.turn(monotonic_now(), Idle::Poll, &mut Vec::new()).expect("turn");
    drop(ring);
    // Only if the kernel holds no reference any more does our close end the stream.
    drop(ours);
    let _ = theirs.read_to_end(&mut Vec::new()).expect("the end, not a timeout");
}
