//! Connecting: to listeners, to nobody, into a black hole, and giving up.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::thread;

use socket2::{Domain, SockRef, Socket, Type};

use super::*;
use crate::ring::socket_options::is_connected_to_itself;

const LINK: Token = Token(3);
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn options_for(patience: Duration) -> ConnectOptions {
    ConnectOptions { deadline: monotonic_now() + patience, socket: SocketOptions::default() }
}

fn connected(ring: &mut Ring) -> Result<OwnedFd, Errno> {
    let mut outcome = None;
    turn_until(ring, |_, event| {
        let Event::Connected { token: LINK, result } = event else {
            panic!("unexpected {event:?}");
        };
        assert!(outcome.replace(result).is_none(), "told twice");
        true
    });
    outcome.expect("told once")
}

/// A listener that answers no further connect: its queue of one is full. Keep both.
fn black_hole(ip: IpAddr) -> (Socket, TcpStream, SocketAddr) {
    let any = SocketAddr::new(ip, 0);
    let listener = Socket::new(Domain::for_address(any), Type::STREAM, None).expect("socket");
    listener.bind(&any.into()).expect("bind");
    listener.listen(0).expect("listen");
    let address = listener.local_addr().expect("bound").as_socket().expect("an IP address");
    let first = TcpStream::connect(address).expect("room for one");
    (listener, first, address)
}

fn assert_idle(ring: &Ring) {
    assert_eq!(ring.in_flight(), 1, "only the waker's poll is left");
    assert!(ring.endpoints.is_empty(), "a token is kept");
    assert_eq!(ring.timers.next_deadline(), None, "a deadline is kept");
}

/// Red without the entry of `IORING_OP_CONNECT` (no event), with an address of the other family,
/// or when the deadline's timer outlives the connect.
#[test]
fn connects_then_talks_as_an_accepted_one() {
    for ip in LOOPBACKS {
        let listener = TcpListener::bind((ip, 0)).expect("bind");
        let mut ring = small_ring();
        let address = listener.local_addr().expect("address");
        ring.connect(LINK, address, &options_for(PATIENCE));
        let ours = connected(&mut ring).expect("a listener");
        assert_idle(&ring);
        let (mut theirs, from) = listener.accept().expect("accept");
        let local = SockRef::from(&ours).local_addr().expect("connected");
        assert_eq!(local.as_socket(), Some(from));
        assert!(SockRef::from(&ours).tcp_nodelay().expect("an option"));
        ring.receive(LINK, ours.as_raw_fd());
        ring.send(LINK, ours.as_raw_fd(), b"ping".to_vec());
        let echo = thread::spawn(move || {
            let mut got = [0; 4];
            theirs.read_exact(&mut got).expect("read");
            theirs.write_all(&got).expect("write");
            theirs
        });
        let mut is_sent = false;
        turn_until(&mut ring, |ring, event| match event {
            Event::Sent { token: LINK, result: Ok(()), .. } => {
                is_sent = true;
                false
            }
            Event::Received { token: LINK, lease } => {
                assert_eq!(ring.buffer(&lease), b"ping");
                ring.recycle(lease);
                true
            }
            other => panic!("unexpected {other:?}"),
        });
        assert!(is_sent, "an answer to what was not sent");
        close_and_wait(&mut ring, LINK, ours);
        assert_idle(&ring);
        echo.join().expect("echoes");
    }
}

/// Red when `into_outcome` takes a failure for success, or `handle_connect` keeps the token.
#[test]
fn a_refusal_leaves_the_token_free() {
    for ip in LOOPBACKS {
        let listener = TcpListener::bind((ip, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        drop(listener);
        let mut ring = small_ring();
        ring.connect(LINK, address, &options_for(PATIENCE));
        let refused = connected(&mut ring).expect_err("nobody listens");
        assert_eq!(refused, Errno(libc::ECONNREFUSED));
        assert_idle(&ring);
        let listener = TcpListener::bind((ip, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        ring.connect(LINK, address, &options_for(PATIENCE));
        assert!(connected(&mut ring).is_ok());
        assert_idle(&ring);
    }
}

/// Red (after a minute) when the deadline's timer cancels nothing, or says `ECANCELED`.
#[test]
fn a_black_hole_ends_at_the_deadline() {
    const PATIENCE_OF_LINK: Duration = Duration::from_millis(70);
    for ip in LOOPBACKS {
        let (_listener, _first, address) = black_hole(ip);
        let mut ring = small_ring();
        let started = monotonic_now();
        ring.connect(LINK, address, &options_for(PATIENCE_OF_LINK));
        let errno = connected(&mut ring).expect_err("nobody answers");
        assert_eq!(errno, Errno(libc::ETIMEDOUT));
        assert!(started.elapsed() >= PATIENCE_OF_LINK, "before its time");
        assert_idle(&ring);
    }
}

/// Red when a cancel of the caller is taken for the deadline, or is told twice.
#[test]
fn cancelled_while_connecting() {
    let (_listener, _first, address) = black_hole(LOOPBACKS[0]);
    let mut ring = small_ring();
    ring.connect(LINK, address, &options_for(PATIENCE));
    // The kernel has it and waits; then the same with a connect that it has not seen yet.
    let mut events = Vec::new();
    ring.turn(monotonic_now(), Idle::Poll, &mut events).expect("turn");
    assert!(events.is_empty(), "{events:?}");
    for _ in 0..2 {
        ring.cancel_connect(LINK);
        ring.cancel_connect(LINK); // No effect.
        let errno = connected(&mut ring).expect_err("given up");
        assert_eq!(errno, Errno(libc::ECANCELED));
        assert_idle(&ring);
        ring.connect(LINK, address, &options_for(PATIENCE));
    }
    ring.cancel_connect(LINK);
    connected(&mut ring).expect_err("given up");
    ring.cancel_connect(LINK); // Nothing is connecting.
    assert_idle(&ring);
}

/// A connect that wins the race against its cancel must not leak its connection. Red when
/// `into_outcome` looks at the kernel's result before it looks at who stopped it.
#[test]
fn a_connection_that_is_not_wanted_any_more_is_closed() {
    // More than the submission queue holds, so that the kernel has connected the first of them
    // before the first is cancelled; on loopback the handshake is over at once.
    const LINKS: u64 = 12;
    let (listener, address) = listen();
    let mut ring = small_ring();
    (0..LINKS).for_each(|link| ring.connect(Token(link), address, &options_for(PATIENCE)));
    (0..LINKS).for_each(|link| ring.cancel_connect(Token(link)));
    let mut cancelled = 0;
    turn_until(&mut ring, |_, event| {
        let Event::Connected { result, .. } = event else { panic!("unexpected {event:?}") };
        assert_eq!(result.expect_err("given up"), Errno(libc::ECANCELED));
        cancelled += 1;
        cancelled == LINKS
    });
    assert_idle(&ring);
    listener.set_nonblocking(true).expect("an option");
    let mut made = 0;
    while let Ok((mut theirs, _)) = listener.accept() {
        theirs.set_nonblocking(false).expect("an option");
        theirs.set_read_timeout(Some(PATIENCE)).expect("timeout");
        assert_eq!(theirs.read(&mut [0]).expect("the end, not a timeout"), 0);
        made += 1;
    }
    assert!(made > 0, "no connect won its race");
}

/// A link to a node of this host that is down, on a port from which the kernel also picks those of
/// clients, once in some ten thousand tries connects to itself. Red without the look at both ends.
#[test]
fn a_port_connected_to_itself_is_noticed() {
    let any = SocketAddr::new(LOOPBACKS[0], 0);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&any.into()).expect("bind");
    let address = socket.local_addr().expect("bound");
    socket.connect(&address).expect("both ends at once");
    assert!(is_connected_to_itself(&socket.into()));
    let (ours, _theirs) = pair();
    assert!(!is_connected_to_itself(&ours));
}

/// Red when an option is not set, or is set behind the connect (the window's scale).
#[test]
fn options_are_set() {
    let (_listener, address) = listen();
    let mut ring = small_ring();
    let seconds = Duration::from_secs;
    let socket = SocketOptions {
        is_nodelay: false,
        keepalive: Some(Keepalive { idle: seconds(7), interval: seconds(3), probes: 5 }),
        user_timeout: Some(seconds(9)),
        send_buffer_bytes: Some(20_000),
        receive_buffer_bytes: Some(30_000),
    };
    let deadline = monotonic_now() + PATIENCE;
    ring.connect(LINK, address, &ConnectOptions { deadline, socket });
    let ours = connected(&mut ring).expect("a listener");
    let ours = SockRef::from(&ours);
    let read = "an option";
    assert!(!ours.tcp_nodelay().expect(read) && ours.keepalive().expect(read));
    assert_eq!(ours.tcp_keepalive_time().expect(read), seconds(7));
    assert_eq!(ours.tcp_keepalive_interval().expect(read), seconds(3));
    assert_eq!(ours.tcp_keepalive_retries().expect(read), 5);
    assert_eq!(ours.tcp_user_timeout().expect(read), Some(seconds(9)));
    // The kernel doubles them.
    assert_eq!(ours.send_buffer_size().expect(read), 40_000);
    assert_eq!(ours.recv_buffer_size().expect(read), 60_000);
}

/// One for clients and one for links, of either family, on one ring. Red when listeners share more
/// than the ring.
#[test]
fn two_listeners_on_a_ring() {
    const CLIENTS: Token = Token(100);
    const LINKS: Token = Token(101);
    let mut ring = small_ring();
    let listeners = LOOPBACKS.map(|ip| TcpListener::bind((ip, 0)).expect("bind"));
    let addresses = [0, 1].map(|index: usize| listeners[index].local_addr().expect("address"));
    for (token, listener) in [CLIENTS, LINKS].into_iter().zip(&listeners) {
        ring.accept(token, listener.as_raw_fd());
    }
    for round in 0..6 {
        let (want, address) = ([CLIENTS, LINKS][round % 2], addresses[round % 2]);
        ring.connect(LINK, address, &options_for(PATIENCE));
        let (mut is_accepted, mut is_connected) = (false, false);
        turn_until(&mut ring, |_, event| {
            match event {
                Event::Accepted { listener, .. } if listener == want => is_accepted = true,
                Event::Connected { token: LINK, result: Ok(_) } => is_connected = true,
                other => panic!("unexpected {other:?}"),
            }
            is_accepted && is_connected
        });
    }
    // One goes, the other stays.
    let [clients, links] = listeners;
    close_and_wait(&mut ring, CLIENTS, clients.into());
    let _client = TcpStream::connect(addresses[1]).expect("connect");
    turn_until(&mut ring, |_, event| matches!(event, Event::Accepted { listener: LINKS, .. }));
    close_and_wait(&mut ring, LINKS, links.into());
    assert_idle(&ring);
}
