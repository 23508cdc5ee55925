//! Frames: sent from the memory that they were made in, received into that in which they stay.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use socket2::SockRef;

use super::*;

const LINK: Token = Token(3);
/// As of a frame: the length is known once it is here.
const HEADER_BYTES: usize = 64;
const FRAME_BYTES_MAX: usize = 4 << 20;

/// A frame of this test: its length, then a pattern that differs by `seed`.
fn frame(len: usize, seed: u8) -> FrameBuffer {
    let mut frame = FrameBuffer::with_capacity(len);
    frame.extend_from_slice(&(len as u64).to_le_bytes());
    let rest = pattern(len - 8);
    frame.extend_from_slice(&rest);
    frame[8..].iter_mut().for_each(|byte| *byte ^= seed);
    frame
}

fn room() -> FrameBuffer {
    FrameBuffer::with_capacity(FRAME_BYTES_MAX + HEADER_BYTES)
}

/// What the shard loop does with a link: frames out of a stream of them.
struct Reader {
    frames: Vec<FrameBuffer>,
}

impl Reader {
    fn start(ring: &mut Ring, token: Token, fd: i32) -> Self {
        ring.receive_into(token, fd, room(), ReceiveRange::to(HEADER_BYTES));
        Self { frames: Vec::new() }
    }

    /// Keeps a whole frame; asks for the rest of one, or for the next.
    fn handle(&mut self, ring: &mut Ring, (token, fd): (Token, i32), mut buffer: FrameBuffer) {
        let len = buffer.first_chunk().map(|len| u64::from_le_bytes(*len)).expect("a header");
        let len = usize::try_from(len).expect("small");
        if buffer.len() < len {
            let range = ReceiveRange { need: len, room: len + HEADER_BYTES };
            return ring.receive_into(token, fd, buffer, range);
        }
        let mut next = room();
        next.extend_from_slice(&buffer[len..]);
        buffer.resize(len, 0);
        self.frames.push(buffer);
        if next.len() < HEADER_BYTES {
            ring.receive_into(token, fd, next, ReceiveRange::to(HEADER_BYTES));
        } else {
            self.handle(ring, (token, fd), next);
        }
    }
}

/// Red when a continued send or receive begins at the wrong byte, when sends of a token overlap,
/// or when a buffer is not the one that was handed in.
#[test]
fn large_frames_both_ways_on_several_connections_with_tiny_buffers() {
    const PAIRS: u64 = 3;
    const LENGTHS: [usize; 3] = [FRAME_BYTES_MAX, 64, 192 << 10];
    let mut ring = small_ring();
    // Every end is on this ring: each sends and receives at once.
    let ends: Vec<OwnedFd> = (0..PAIRS)
        .flat_map(|_| {
            let (ours, theirs) = pair();
            [ours, OwnedFd::from(theirs)]
        })
        .collect();
    // The same memory to all of them, as to replicas, and frames of their own behind it.
    let shared = Arc::new(frame(LENGTHS[0], 0));
    let mut readers = Vec::new();
    for (index, end) in (0..).zip(&ends) {
        let socket = SockRef::from(end);
        socket.set_send_buffer_size(8 << 10).expect("an option");
        socket.set_recv_buffer_size(128 << 10).expect("an option");
        let (token, fd) = (Token(index), end.as_raw_fd());
        readers.push(Reader::start(&mut ring, token, fd));
        ring.send(token, fd, Arc::clone(&shared));
        let seed = u8::try_from(index).expect("few");
        LENGTHS[1..].iter().for_each(|len| ring.send(token, fd, frame(*len, seed)));
    }
    let (mut sent, mut received) = (vec![Vec::new(); ends.len()], 0);
    turn_until(&mut ring, |ring, event| {
        match event {
            Event::Sent { token, buffer, result: Ok(()) } => {
                sent[usize::try_from(token.0).expect("small")].push(buffer.len());
            }
            Event::ReceivedInto { token, buffer, result: Ok(()) } => {
                let index = usize::try_from(token.0).expect("small");
                readers[index].handle(ring, (token, ends[index].as_raw_fd()), buffer);
                received = readers.iter().map(|reader| reader.frames.len()).sum();
            }
            other => panic!("unexpected {other:?}"),
        }
        received == ends.len() * LENGTHS.len() && sent.iter().all(|sent| sent.len() == 3)
    });
    for (index, reader) in (0u8..).zip(&readers) {
        assert_eq!(sent[usize::from(index)], LENGTHS, "out of order");
        let peer = index ^ 1;
        for (place, got) in reader.frames.iter().enumerate() {
            let want = frame(LENGTHS[place], if place == 0 { 0 } else { peer });
            assert!(got[..] == want[..], "frame {place} of connection {index} differs");
            assert!(got.as_ptr().addr().is_multiple_of(16));
        }
    }
    assert_eq!(Arc::strong_count(&shared), 1, "a send that is over keeps its frame");
    for (index, end) in (0..).zip(ends) {
        close_and_wait(&mut ring, Token(index), end);
    }
    assert_eq!(ring.in_flight(), 1);
}

/// Red when the ring copies, or hands another buffer back.
#[test]
fn memory_comes_back_as_it_was_handed_in() {
    let (ours, mut theirs) = pair();
    let mut ring = small_ring();
    let out = frame(1000, 9);
    let into = FrameBuffer::with_capacity(1000);
    let want = (out.as_ptr().addr(), out.capacity(), into.as_ptr().addr(), into.capacity());
    ring.send(LINK, ours.as_raw_fd(), out);
    ring.receive_into(LINK, ours.as_raw_fd(), into, ReceiveRange::to(1000));
    let mut events = Vec::new();
    ring.turn(monotonic_now(), Idle::Poll, &mut events).expect("turn");
    let mut echoed = vec![0; 1000];
    theirs.read_exact(&mut echoed).expect("read");
    // In two pieces: the second is waited for.
    theirs.write_all(&echoed[..10]).expect("write");
    events.append(&mut next_events(&mut ring));
    theirs.write_all(&echoed[10..]).expect("write");
    while events.len() < 2 {
        events.append(&mut next_events(&mut ring));
    }
    let mut got = (0, 0, 0, 0);
    for event in events {
        match event {
            Event::Sent { buffer: SendBuffer::Frame(frame), result: Ok(()), .. } => {
                (got.0, got.1) = (frame.as_ptr().addr(), frame.capacity());
            }
            Event::ReceivedInto { buffer, result: Ok(()), .. } => {
                (got.2, got.3) = (buffer.as_ptr().addr(), buffer.capacity());
                assert!(buffer[..] == echoed[..]);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(got, want);
    close_and_wait(&mut ring, LINK, ours);
}

/// Red when an end is taken for a whole frame, or what came before it is lost.
#[test]
fn a_peer_that_leaves_mid_frame() {
    #[track_caller]
    fn check(is_reset: bool, range: ReceiveRange, want: ReceiveEnd) {
        let (ours, mut theirs) = pair();
        let mut ring = small_ring();
        ring.receive_into(LINK, ours.as_raw_fd(), room(), range);
        theirs.write_all(&frame(5000, 1)[..3000]).expect("write");
        let _ = next_events(&mut ring);
        if is_reset {
            SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).expect("an option");
            drop(theirs);
        } else {
            theirs.shutdown(Shutdown::Write).expect("shutdown");
        }
        turn_until(&mut ring, |_, event| {
            let Event::ReceivedInto { token: LINK, buffer, result } = event else {
                panic!("unexpected {event:?}");
            };
            assert_eq!(result, Err(want));
            assert!(buffer[..] == frame(5000, 1)[..3000], "{} bytes", buffer.len());
            true
        });
        close_and_wait(&mut ring, LINK, ours);
    }
    let ahead = ReceiveRange { need: 5000, room: 5064 };
    check(false, ReceiveRange::to(5000), ReceiveEnd::PeerClosed);
    check(false, ahead, ReceiveEnd::PeerClosed);
    check(true, ahead, ReceiveEnd::Failed(Errno(libc::ECONNRESET)));
}

/// Red when a closing token's receive goes on, or its buffer stays in the ring.
#[test]
fn close_hands_frames_back() {
    let mut ring = small_ring();
    for round in 0..20 {
        let (ours, mut theirs) = pair();
        let fd = ours.as_raw_fd();
        ring.receive_into(LINK, fd, room(), ReceiveRange { need: 5000, room: 5064 });
        let shared = Arc::new(frame(FRAME_BYTES_MAX, 0));
        (0..4).for_each(|_| ring.send(LINK, fd, Arc::clone(&shared)));
        theirs.write_all(&[1; 100]).expect("write");
        if round % 2 == 0 {
            let mut events = Vec::new();
            ring.turn(monotonic_now(), Idle::Poll, &mut events).expect("turn");
            assert!(events.iter().all(|event| matches!(event, Event::Sent { .. })), "{events:?}");
        }
        let events = close_and_wait(&mut ring, LINK, ours);
        let is_receive = |event: &&Event| {
            matches!(event, Event::ReceivedInto { result: Err(ReceiveEnd::Cancelled), .. })
        };
        assert_eq!(events.iter().filter(is_receive).count(), 1, "{events:?}");
        drop(events);
        assert_eq!(Arc::strong_count(&shared), 1, "a frame stays in the ring");
        assert_eq!(ring.in_flight(), 1);
    }
}

/// A link may begin with small messages and go on with large frames. Red when the change loses
/// bytes.
#[test]
fn from_provided_buffers_to_the_frames_own() {
    let (ours, mut theirs) = pair();
    let fd = ours.as_raw_fd();
    let mut ring = small_ring();
    ring.receive(LINK, fd);
    theirs.write_all(b"hello").expect("write");
    let mut got = FrameBuffer::with_capacity(4096);
    turn_until(&mut ring, |ring, event| {
        let Event::Received { lease, .. } = event else { panic!("unexpected {event:?}") };
        got.extend_from_slice(ring.buffer(&lease));
        ring.recycle(lease);
        got.len() == 5
    });
    ring.stop_receive(LINK);
    theirs.write_all(b", then the rest").expect("write");
    turn_until(&mut ring, |ring, event| match event {
        Event::Received { lease, .. } => {
            got.extend_from_slice(ring.buffer(&lease));
            ring.recycle(lease);
            false
        }
        Event::ReceiveEnded { reason: ReceiveEnd::Cancelled, .. } => true,
        other => panic!("unexpected {other:?}"),
    });
    if got.len() < 20 {
        ring.receive_into(LINK, fd, std::mem::take(&mut got), ReceiveRange::to(20));
        ring.receive(LINK, fd); // No effect.
        turn_until(&mut ring, |_, event| {
            let Event::ReceivedInto { buffer, result: Ok(()), .. } = event else {
                panic!("unexpected {event:?}");
            };
            got = buffer;
            true
        });
    }
    assert_eq!(&got[..], b"hello, then the rest");
    close_and_wait(&mut ring, LINK, ours);
}

/// Starts one of everything that hands memory to the kernel, and lets the kernel have it.
fn busy_ring(ours: &OwnedFd, shared: &Arc<FrameBuffer>) -> (Ring, TcpListener) {
    let mut ring = small_ring();
    let options =
        ConnectOptions { deadline: monotonic_now() + PATIENCE, socket: SocketOptions::default() };
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let full = full.expect("socket");
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    full.listen(0).expect("listen");
    let address = full.local_addr().expect("bound").as_socket().expect("an IP address");
    // The second finds no room and waits.
    ring.connect(Token(10), address, &options);
    ring.connect(Token(11), address, &options);
    ring.receive_into(LINK, ours.as_raw_fd(), room(), ReceiveRange::to(FRAME_BYTES_MAX));
    (0..20).for_each(|_| ring.send(LINK, ours.as_raw_fd(), Arc::clone(shared)));
    let mut events = Vec::new();
    ring.turn(monotonic_now(), Idle::Poll, &mut events).expect("turn");
    (ring, full.into())
}

/// Red when the end does not cancel, or does not wait for what it cancelled (then the frames are
/// leaked), and when a receive lives on and takes what it should not.
#[test]
fn a_ring_that_ends_gets_all_memory_back() {
    let (ours, mut theirs) = pair();
    let shared = Arc::new(frame(FRAME_BYTES_MAX, 0));
    let (ring, _full) = busy_ring(&ours, &shared);
    assert!(ring.in_flight() >= 4, "the waker, a connect, a receive, a send");
    drop(ring);
    assert_eq!(Arc::strong_count(&shared), 1, "not waited for, so leaked");
    theirs.write_all(b"later").expect("write");
    let mut got = [0; 5];
    TcpStream::from(ours).read_exact(&mut got).expect("read");
    assert_eq!(&got, b"later");
}

/// A kernel that does not let go in time must not find its memory freed. Red when the end frees
/// operations that are in flight.
#[test]
fn memory_that_the_kernel_still_has_is_leaked() {
    let (ours, _theirs) = pair();
    let shared = Arc::new(frame(FRAME_BYTES_MAX, 0));
    let (ring, _full) = busy_ring(&ours, &shared);
    let held = Arc::strong_count(&shared);
    assert!(held > 1, "nothing is in flight");
    let mut ring = std::mem::ManuallyDrop::new(ring);
    // SAFETY: once, and the ring is forgotten.
    unsafe { ring.end(0) };
    // What waits behind the send in the kernel is forgotten with the ring.
    assert_eq!(Arc::strong_count(&shared), held, "freed under the kernel's hands");
}
