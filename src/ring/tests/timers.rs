//! Timers through real sleeps of the ring.

use super::*;

#[test]
fn timers_fire_in_order_and_never_early() {
    let mut ring = small_ring();
    let start = monotonic_now();
    for delay_ms in [90, 10, 50, 30, 70, 200] {
        ring.set_timer(start + Duration::from_millis(delay_ms), Token(delay_ms));
    }
    let mut fired = Vec::new();
    turn_until(&mut ring, |_, event| {
        let Event::Timer { token: Token(delay_ms) } = event else {
            panic!("unexpected {event:?}");
        };
        assert!(start.elapsed() >= Duration::from_millis(delay_ms), "early");
        fired.push(delay_ms);
        delay_ms == 200
    });
    assert_eq!(fired, [10, 30, 50, 70, 90, 200]);
    // It slept in between, instead of going round.
    assert!(ring.counters().turns < 30, "{:?}", ring.counters());
}

#[test]
fn a_wait_ends_at_its_deadline_without_events() {
    let mut ring = small_ring();
    let start = monotonic_now();
    let until = start + Duration::from_millis(30);
    let mut events = Vec::new();
    while monotonic_now() < until {
        let idle = Idle::Wait { until: Some(until), is_idle: &|| true };
        ring.turn(monotonic_now(), idle, &mut events).expect("turn");
        assert!(events.is_empty(), "{events:?}");
    }
    assert!((1..5).contains(&ring.counters().sleeps), "{:?}", ring.counters());
}

#[test]
fn an_idle_poll_makes_no_system_call() {
    let mut ring = small_ring();
    let mut events = Vec::new();
    for _ in 0..10 {
        ring.turn(monotonic_now(), Idle::Poll, &mut events).expect("turn");
    }
    assert_eq!((events.len(), ring.counters().enters), (0, 1)); // One for the waker's poll.
}

#[test]
fn impossible_sizes_are_refused() {
    #[track_caller]
    fn check(entries: u32, receive_buffer_count: u16, receive_buffer_bytes: u32) {
        let options = RingOptions { entries, receive_buffer_count, receive_buffer_bytes };
        let error = Ring::new(options, monotonic_now()).err();
        assert_eq!(error, Some(RingSetupError::Options));
    }
    check(0, 4, 4096);
    check(8, 3, 4096);
    check(8, 0, 4096);
    check(8, 4, 0);
    check(1 << 20, 4, 4096);
}
