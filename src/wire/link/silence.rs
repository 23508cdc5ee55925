//! How long the other end has said nothing, and what follows from that. Time comes in as an
//! argument.
//!
//! ```text
//!  heard      ping due    ping due  ...  unhealthy               given up
//!    |---ping_after---|---ping_after--|----...|---------------------|
//! ```

use super::dialled::Dialled;
use super::fault::LinkFault;
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

    pub fn is_healthy(&self) -> bool {
        self.is_healthy
    }

    /// A whole frame came. Whether the node is healthy only since now.
    pub fn handle_heard(&mut self, now: Instant) -> bool {
        self.heard = self.heard.max(now);
        !std::mem::replace(&mut self.is_healthy, true)
    }

    /// Time went by, also for the open connection: whether the node is unhealthy only since now,
    /// and what is wrong with the connection. Silence while nobody called this does not count.
    pub fn handle_timer(
        &mut self,
        now: Instant,
        mut connection: Option<&mut Dialled>,
    ) -> (bool, Result<(), LinkFault>) {
        let due = self.poll_timeout(connection.as_deref());
        let late = due.map(|due| now.saturating_duration_since(due));
        if let Some(late) = late.filter(|late| *late > self.limits.ping_after) {
            self.heard += late;
            if let Some(connection) = &mut connection {
                connection.handle_late(late);
            }
        }
        let is_over = now >= self.heard + self.limits.unhealthy_after;
        let is_unhealthy = is_over && std::mem::replace(&mut self.is_healthy, false);
        let timed = connection.map(|connection| connection.handle_timer(now, &self.limits));
        (is_unhealthy, timed.unwrap_or(Ok(())))
    }

    /// When to call [`Silence::handle_timer`].
    pub fn poll_timeout(&self, connection: Option<&Dialled>) -> Option<Instant> {
        let health = self.is_healthy.then(|| self.heard + self.limits.unhealthy_after);
        let connection = connection.map(|connection| connection.poll_timeout(&self.limits));
        [connection, health].into_iter().flatten().min()
    }
}
