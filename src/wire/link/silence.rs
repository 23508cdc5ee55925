//! How long the other end has said nothing, and what follows from that. Time comes in as an
//! argument.
//!
//! ```text
//!  heard      ping due    ping due  ...  unhealthy               given up
//!    |---ping_after---|---ping_after--|----...|---------------------|
//! ```

use crate::base::time::{Duration, Instant};

/// Limits of silence, ascending.
#[derive(Clone, Copy, Debug)]
pub struct SilenceLimits {
    /// Silence after which a ping is sent; again after each as long.
    pub ping_after: Duration,
    /// The health timeout: silence after which the other end counts as unhealthy.
    pub unhealthy_after: Duration,
    /// Silence after which the connection is given up. A frame has to pass within it.
    pub close_after: Duration,
    /// Time from connecting to the last word of the handshake.
    pub handshake_within: Duration,
}

impl Default for SilenceLimits {
    fn default() -> Self {
        Self {
            ping_after: Duration::from_millis(500),
            unhealthy_after: Duration::from_secs(2),
            close_after: Duration::from_secs(10),
            handshake_within: Duration::from_secs(2),
        }
    }
}

impl SilenceLimits {
    /// Asserts that they ascend: settings are checked where they are read.
    pub(super) fn assert_ascending(&self) {
        assert!(!self.ping_after.is_zero() && self.ping_after <= self.unhealthy_after);
        assert!(self.unhealthy_after <= self.close_after && !self.handshake_within.is_zero());
    }
}

/// When a node was heard last, whatever connection it was.
#[derive(Debug)]
pub(super) struct Silence {
    limits: SilenceLimits,
    heard: Instant,
    is_healthy: bool,
}

impl Silence {
    /// As if something had been heard at `now`, but not healthy before something was.
    pub fn new(now: Instant, limits: SilenceLimits) -> Self {
        limits.assert_ascending();
        Self { limits, heard: now, is_healthy: false }
    }

    pub fn limits(&self) -> &SilenceLimits {
        &self.limits
    }

    pub fn is_healthy(&self) -> bool {
        self.is_healthy
    }

    /// A whole frame came. Whether the node is healthy only since now.
    pub fn handle_heard(&mut self, now: Instant) -> bool {
        self.heard = self.heard.max(now);
        !std::mem::replace(&mut self.is_healthy, true)
    }

    /// Whether the node is unhealthy only since now.
    pub fn handle_timer(&mut self, now: Instant) -> bool {
        let is_over = now >= self.heard + self.limits.unhealthy_after;
        is_over && std::mem::replace(&mut self.is_healthy, false)
    }

    /// We did not run for `late`: that silence was ours.
    pub fn handle_late(&mut self, late: Duration) {
        self.heard += late;
    }

    /// When a healthy node is not any more.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.is_healthy.then(|| self.heard + self.limits.unhealthy_after)
    }
}
