//! What a byte of a frame costs on loopback, by the way in which it is received; sent as ever.
//!
//! Nearly all of it is the kernel and `memcpy`, so any profile will do:
//! `cargo test --lib ring::tests::measure -- --ignored --nocapture`

use std::os::fd::AsRawFd;
use std::thread;

use nix::sys::resource::{UsageWho, getrusage};

use super::*;

const LINK: Token = Token(3);
const HEADER_BYTES: usize = 64;
const FRAME_BYTES: usize = 192 << 10;
const FRAMES: usize = 20_000;
/// Frames that are with the kernel or behind it.
const WINDOW: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Way {
    /// Multishot into provided buffers, and a copy to the frame's memory.
    Provided,
    /// The header, then the rest.
    IntoExactly,
    /// The rest together with the next header.
    IntoAhead,
}

fn thread_cpu_ns() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("our own usage");
    [usage.user_time(), usage.system_time()]
        .map(|time| (time.tv_sec() * 1_000_000 + time.tv_usec()) * 1000)
        .iter()
        .sum()
}

fn measured_ring() -> Ring {
    Ring::new(RingOptions::default(), monotonic_now()).expect("a kernel with io_uring")
}

fn send_all(socket: OwnedFd) -> i64 {
    let start = thread_cpu_ns();
    let mut ring = measured_ring();
    let mut frame = FrameBuffer::with_capacity(FRAME_BYTES);
    frame.resize(FRAME_BYTES, 7);
    for _ in 0..WINDOW {
        ring.send(LINK, socket.as_raw_fd(), frame.clone());
    }
    let mut started = WINDOW;
    let mut done = 0;
    turn_until(&mut ring, |ring, event| {
        let Event::Sent { buffer, result: Ok(()), .. } = event else {
            panic!("unexpected {event:?}");
        };
        done += 1;
        if started < FRAMES {
            started += 1;
            ring.send(LINK, socket.as_raw_fd(), buffer);
        }
        done == FRAMES
    });
    close_and_wait(&mut ring, LINK, socket);
    thread_cpu_ns() - start
}

/// The frame under way and one to change it for, as a link would do.
struct Frames {
    current: FrameBuffer,
    spare: FrameBuffer,
    count: usize,
}

impl Frames {
    fn new() -> Self {
        let memory = || FrameBuffer::with_capacity(FRAME_BYTES + HEADER_BYTES);
        Self { current: memory(), spare: memory(), count: 0 }
    }

    /// A frame is whole: reads it once, as the check of its sum does, and takes the other's memory.
    fn turn_over(&mut self) {
        std::hint::black_box(crate::base::checksum::crc32c(&self.current[..FRAME_BYTES]));
        self.spare.clear();
        self.spare.extend_from_slice(&self.current[FRAME_BYTES..]);
        std::mem::swap(&mut self.current, &mut self.spare);
        self.count += 1;
    }
}

fn receive_provided(ring: &mut Ring, fd: i32) {
    let mut frames = Frames::new();
    ring.receive(LINK, fd);
    turn_until(ring, |ring, event| {
        match event {
            Event::Received { lease, .. } => {
                let mut rest = ring.buffer(&lease);
                while !rest.is_empty() {
                    let room = (FRAME_BYTES - frames.current.len()).min(rest.len());
                    frames.current.extend_from_slice(&rest[..room]);
                    rest = &rest[room..];
                    if frames.current.len() == FRAME_BYTES {
                        frames.turn_over();
                    }
                }
                ring.recycle(lease);
            }
            Event::ReceiveEnded { reason: ReceiveEnd::NoBuffers, .. } => ring.receive(LINK, fd),
            other => assert!(frames.count == FRAMES, "unexpected {other:?}"),
        }
        frames.count == FRAMES
    });
}

fn receive_into(ring: &mut Ring, fd: i32, ahead: usize) {
    let mut frames = Frames::new();
    let ask = |ring: &mut Ring, frames: &mut Frames| {
        let range = match frames.current.len() {
            ..HEADER_BYTES => ReceiveRange::to(HEADER_BYTES),
            _ => ReceiveRange { need: FRAME_BYTES, room: FRAME_BYTES + ahead },
        };
        ring.receive_into(LINK, fd, std::mem::take(&mut frames.current), range);
    };
    ask(ring, &mut frames);
    turn_until(ring, |ring, event| {
        let Event::ReceivedInto { buffer, result: Ok(()), .. } = event else {
            panic!("unexpected {event:?}");
        };
        frames.current = buffer;
        if frames.current.len() >= FRAME_BYTES {
            frames.turn_over();
        }
        if frames.count < FRAMES {
            ask(ring, &mut frames);
        }
        frames.count == FRAMES
    });
}

fn receive_all(socket: OwnedFd, way: Way) -> i64 {
    let start = thread_cpu_ns();
    let mut ring = measured_ring();
    let fd = socket.as_raw_fd();
    match way {
        Way::Provided => receive_provided(&mut ring, fd),
        Way::IntoExactly => receive_into(&mut ring, fd, 0),
        Way::IntoAhead => receive_into(&mut ring, fd, HEADER_BYTES),
    }
    close_and_wait(&mut ring, LINK, socket);
    thread_cpu_ns() - start
}

#[test]
#[ignore = "a measurement"]
fn cost_of_a_byte_by_way_of_receiving() {
    let cpus = topology::ordered_cpus();
    let last = cpus[cpus.len() - 1];
    for (place, cpu) in [("two cores", last), ("one core", cpus[0])] {
        for way in [Way::Provided, Way::IntoExactly, Way::IntoAhead].repeat(3) {
            let (ours, theirs) = pair();
            let first = cpus[0];
            let sender = thread::spawn(move || {
                topology::pin_current_thread(first);
                send_all(theirs.into())
            });
            let receiver = thread::spawn(move || {
                topology::pin_current_thread(cpu);
                receive_all(ours, way)
            });
            let start = monotonic_now();
            let costs = [sender.join().expect("sends"), receiver.join().expect("receives")];
            let bytes = (FRAMES * FRAME_BYTES) as f64;
            let gigabytes = bytes / start.elapsed().as_nanos() as f64;
            let [out, into] = costs.map(|cpu_ns| cpu_ns as f64 / bytes);
            let sum = out + into;
            println!(
                "{place}, {way:?}: out {out:.4} in {into:.4} sum {sum:.4} ns/B, {gigabytes:.1} GB/s"
            );
        }
    }
}
