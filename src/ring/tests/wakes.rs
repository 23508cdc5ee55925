//! Wake-ups between two rings: none is lost, and what a hop costs.

use std::thread;

use super::*;
use crate::base::queue::{QueueSender, Wake};

/// What one end of a game of ping-pong does between looks into its mailbox.
#[derive(Clone, Copy)]
enum Style {
    /// Sleeps in the ring whenever the mailbox is empty.
    Sleep,
    /// Never sleeps: each hop finds the target awake.
    Poll,
}

struct End {
    ring: Ring,
    mailbox: flume::Receiver<Instant>,
}

impl End {
    fn new() -> (Self, QueueSender<Instant>) {
        let ring = small_ring();
        let (sender, mailbox) = flume::bounded(1);
        let sender = QueueSender::new(sender, ring.waker());
        (Self { ring, mailbox }, sender)
    }

    /// Plays `hops` rounds: takes a message, notes how long it took, answers. No timeout anywhere
    /// in the ring, so that a lost wake-up hangs the game.
    fn play(mut self, peer: &QueueSender<Instant>, hops: usize, style: Style) -> Vec<Duration> {
        let mailbox = self.mailbox;
        let mut latencies = Vec::with_capacity(hops);
        let mut events = Vec::new();
        while latencies.len() < hops {
            if let Ok(sent_at) = mailbox.try_recv() {
                latencies.push(sent_at.elapsed());
                // The game's last answer finds nobody.
                let _ = peer.try_push(monotonic_now());
                continue;
            }
            let idle = match style {
                Style::Sleep => Idle::Wait { until: None, is_idle: &|| mailbox.is_empty() },
                Style::Poll => Idle::Poll,
            };
            self.ring.turn(monotonic_now(), idle, &mut events).expect("turn");
            assert!(events.drain(..).all(|event| matches!(event, Event::Woken)));
        }
        latencies
    }
}

/// One player on a thread of its own, which makes its ring there, as a ring belongs to its maker.
fn spawn_player(
    mine: flume::Sender<QueueSender<Instant>>,
    peer: flume::Receiver<QueueSender<Instant>>,
    done: flume::Sender<Vec<Duration>>,
    game: Game,
) {
    thread::spawn(move || {
        topology::pin_current_thread(game.cpu);
        let (end, sender) = End::new();
        mine.send(sender).expect("the peer waits");
        let peer = peer.recv().expect("the peer sends");
        if game.serves {
            peer.try_push(monotonic_now()).expect("an empty mailbox");
        }
        done.send(end.play(&peer, game.hops, game.style)).expect("main waits");
    });
}

#[derive(Clone, Copy)]
struct Game {
    cpu: usize,
    serves: bool,
    hops: usize,
    style: Style,
}

/// Plays, and returns the latency of every hop, sorted.
fn play(hops: usize, style: Style) -> Vec<Duration> {
    let cpus = topology::ordered_cpus();
    let (first, second) = (flume::bounded(1), flume::bounded(1));
    let (done_sender, done) = flume::bounded(2);
    let game = |cpu, serves| Game { cpu, serves, hops: hops / 2, style };
    let last = cpus[cpus.len() - 1];
    spawn_player(first.0, second.1, done_sender.clone(), game(cpus[0], true));
    spawn_player(second.0, first.1, done_sender, game(last, false));
    let mut latencies = done.recv_timeout(PATIENCE).expect("a wake-up was lost");
    latencies.extend(done.recv_timeout(PATIENCE).expect("a wake-up was lost"));
    latencies.sort_unstable();
    latencies
}

#[test]
fn a_hundred_thousand_hops_lose_no_wake_up() {
    // Prints what ARCHITECTURE.md quotes: cargo test --release --lib ring::tests::wakes --
    // --nocapture
    for (name, style) in [("sleeping", Style::Sleep), ("busy", Style::Poll)] {
        let hops = play(100_000, style);
        let [p50, p99] = [50, 99].map(|percent| hops[hops.len() * percent / 100].as_nanos());
        println!("hop to a {name} ring, one way: p50 {p50} ns, p99 {p99} ns");
    }
}

#[test]
fn many_senders_with_random_pauses_lose_no_wake_up() {
    // The target falls asleep and wakes at ever other distances from the pushes.
    const SENDERS: usize = 3;
    const PUSHES: usize = 30_000;
    let (done_sender, done) = flume::bounded(1);
    let (to_main, targets) = flume::bounded(1);
    thread::spawn(move || {
        let (mut end, sender) = End::new();
        to_main.send(sender).expect("main waits");
        let mut events = Vec::new();
        let mut received = 0;
        while received < SENDERS * PUSHES {
            received += end.mailbox.try_iter().count();
            if received == SENDERS * PUSHES {
                break;
            }
            let idle = Idle::Wait { until: None, is_idle: &|| end.mailbox.is_empty() };
            end.ring.turn(monotonic_now(), idle, &mut events).expect("turn");
            events.clear();
        }
        done_sender.send(end.ring.counters()).expect("main waits");
    });
    let target = targets.recv_timeout(PATIENCE).expect("a target");
    for seed in 0..SENDERS {
        let target = target.clone();
        thread::spawn(move || {
            let mut random = seed;
            for _ in 0..PUSHES {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
                (0..(random >> 33) % 400).for_each(|_| std::hint::spin_loop());
                while target.try_push(monotonic_now()).is_err() {
                    thread::yield_now();
                }
            }
        });
    }
    let counters = done.recv_timeout(PATIENCE).expect("a wake-up was lost");
    assert!(counters.woken > 0 && counters.woken <= counters.turns, "{counters:?}");
}

#[test]
fn a_wake_before_the_sleep_needs_no_write() {
    let mut ring = small_ring();
    let waker = ring.waker();
    waker.wake();
    let mut events = Vec::new();
    ring.turn(monotonic_now(), Idle::Poll, &mut events).expect("turn");
    assert!(events.is_empty(), "nobody slept, so nothing was written");
    // Between the announcement and the sleep: the look into the mailbox is the last chance, and the
    // wake is seen.
    let now = monotonic_now();
    let wake_late = || {
        waker.wake();
        true
    };
    let until = Some(now + PATIENCE);
    ring.turn(now, Idle::Wait { until, is_idle: &wake_late }, &mut events).expect("turn");
    assert!(matches!(events[..], [Event::Woken]), "{events:?}");
    assert!(now.elapsed() < PATIENCE / 2);
}
