//! DRIVER: says on stderr how far a command is, once it has taken longer than people wait for.

use std::io::{IsTerminal, Write};

use super::quantity::bytes;
use crate::base::time::{Duration, Instant, monotonic_now};

/// Nothing is said before.
const PATIENCE: Duration = Duration::from_secs(2);
/// A line on a terminal is written over.
const TERMINAL_EVERY: Duration = Duration::from_millis(250);
/// A log gets fewer of them.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How far a command is.
pub struct Progress {
    /// What it does: "checked".
    verb: &'static str,
    total_bytes: u64,
    done_bytes: u64,
    began: Instant,
    told: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    /// Begins now.
    pub fn new(verb: &'static str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let (total_bytes, done_bytes, told) = (0, 0, None);
        Self { verb, total_bytes, done_bytes, began: monotonic_now(), told, is_terminal }
    }

    /// There is more to do than was known.
    pub fn add_total(&mut self, bytes: u64) {
        self.total_bytes += bytes;
    }

    /// Some of it is done.
    pub fn add(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        let now = monotonic_now();
        let every = if self.is_terminal { TERMINAL_EVERY } else { LOG_EVERY };
        let is_due = match self.told {
            None => now.duration_since(self.began) >= PATIENCE,
            Some(told) => now.duration_since(told) >= every,
        };
        if is_due {
            self.told = Some(now);
            self.tell(now);
        }
    }

    fn tell(&self, now: Instant) {
        let done = self.done_bytes.min(self.total_bytes);
        let percent = done as f64 * 100.0 / self.total_bytes.max(1) as f64;
        let a_second = done as f64 / now.duration_since(self.began).as_secs_f64().max(0.001);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
        let a_second = bytes(a_second as u64);
        let (verb, done, total) = (self.verb, bytes(done), bytes(self.total_bytes));
        let line = format!("{verb} {done} of {total} ({percent:.0} %), {a_second}/s");
        // Whoever closed stderr does not want to know.
        let _ = if self.is_terminal {
            write!(std::io::stderr(), "\r\x1b[2K{line}")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }
}

impl Drop for Progress {
    /// What is printed next begins on a clean line.
    fn drop(&mut self) {
        if self.told.is_some() && self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}
