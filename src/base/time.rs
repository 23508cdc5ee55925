//! DRIVER: the only place that reads a clock. Everything else is handed the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

pub use std::time::{Duration, Instant};

/// One reading of both clocks, taken once per turn and handed down.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For timeouts and latencies: never jumps.
    pub monotonic: Instant,
    /// For sample time: Unix milliseconds, may jump with the host's clock.
    pub unix_ms: i64,
}

impl Now {
    /// Reads both clocks (two vDSO calls, about 40 ns).
    pub fn read() -> Self {
        Self { monotonic: Instant::now(), unix_ms: unix_now_ms() }
    }
}

/// Reads the monotonic clock.
pub fn monotonic_now() -> Instant {
    Instant::now()
}

/// Reads the wall clock: milliseconds since 1970, negative before.
pub fn unix_now_ms() -> i64 {
    unix_ms_of(SystemTime::now())
}

/// Milliseconds since 1970, negative before; cut off at what an i64 holds.
pub fn unix_ms_of(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}
