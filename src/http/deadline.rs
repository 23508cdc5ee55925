//! How long a client may take: when to look again, and what is overdue. The caller has the clock
//! and the timer.
//!
//! In: phases, progress and the time. Out: one deadline. O(1), so a timer wheel of coarse ticks is
//! enough: ask again when it fires, since progress moves the deadline without telling anyone.

use super::fault::HttpFault;
use crate::base::time::{Duration, Instant};

/// How long each phase may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadlineRules {
    /// Between requests.
    pub idle: Duration,
    /// From a head's first byte to its last.
    pub head: Duration,
    /// Without a byte of a body that is awaited.
    pub body_stall: Duration,
    /// From the start of a body until its average rate counts.
    pub body_grace: Duration,
    /// The least average rate behind the grace period.
    pub body_bytes_per_second_min: u64,
    /// Without a byte of an answer taken by the client.
    pub answer_stall: Duration,
}

impl Default for DeadlineRules {
    fn default() -> Self {
        Self {
            // Prometheus' HTTP client drops idle connections after 5 minutes, Go's default after 90
            // s.
            idle: Duration::from_secs(90),
            head: Duration::from_secs(10),
            body_stall: Duration::from_secs(30),
            body_grace: Duration::from_secs(30),
            body_bytes_per_second_min: 1 << 10,
            answer_stall: Duration::from_secs(30),
        }
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for a request.
    Idle,
    /// A head has begun.
    Head,
    /// A body is awaited.
    Body,
    /// It is our turn: the client is not measured.
    Working,
    /// The client is to take an answer.
    Answering,
}

/// What to do with a client that took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Close without a word: nothing was asked, or the client does not read.
    Close,
    /// Answer with this, then close.
    Refuse(HttpFault),
}

/// The clock face of one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionDeadlines {
    rules: DeadlineRules,
    phase: Phase,
    /// When the phase began, moved on by pauses.
    since: Instant,
    /// When the last byte came or went in this phase, moved on by pauses.
    last_progress: Instant,
    /// Bytes of this phase.
    bytes: u64,
    paused_at: Option<Instant>,
}

impl ConnectionDeadlines {
    /// A new connection, idle.
    pub fn new(rules: DeadlineRules, now: Instant) -> Self {
        Self {
            rules,
            phase: Phase::Idle,
            since: now,
            last_progress: now,
            bytes: 0,
            paused_at: None,
        }
    }

    /// The phase it is in.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Begins `phase`, unless it is in it.
    pub fn enter(&mut self, phase: Phase, now: Instant) {
        if phase != self.phase {
            self.restart(phase, now);
        }
    }

    /// Begins `phase`, even if it is in it: another request's head, body or answer.
    pub fn restart(&mut self, phase: Phase, now: Instant) {
        *self = Self { phase, ..Self::new(self.rules, now) };
    }

    /// `bytes` came in, or were taken by the client.
    pub fn handle_progress(&mut self, bytes: u64, now: Instant) {
        if bytes > 0 {
            self.bytes = self.bytes.saturating_add(bytes);
            self.last_progress = now;
        }
    }

    /// We stop reading, for lack of buffers or room: from now on the delay is ours.
    pub fn handle_pause(&mut self, now: Instant) {
        self.paused_at.get_or_insert(now);
    }

    /// We read again.
    pub fn handle_resume(&mut self, now: Instant) {
        if let Some(paused_at) = self.paused_at.take() {
            let pause = now.saturating_duration_since(paused_at);
            self.since += pause;
            self.last_progress += pause;
        }
    }

    /// Whether nothing was asked for `duration`.
    pub fn is_idle_for(&self, duration: Duration, now: Instant) -> bool {
        self.phase == Phase::Idle && now >= self.since + duration
    }

    /// When [`ConnectionDeadlines::check`] is worth calling; `None` while the client is not
    /// measured.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.paused_at.is_some() {
            return None;
        }
        match self.phase {
            Phase::Idle => Some(self.since + self.rules.idle),
            Phase::Head => Some(self.since + self.rules.head),
            Phase::Body => {
                let stalled = self.last_progress + self.rules.body_stall;
                Some(self.slow().map_or(stalled, |slow| slow.min(stalled)))
            }
            Phase::Working => None,
            Phase::Answering => Some(self.last_progress + self.rules.answer_stall),
        }
    }

    /// What is overdue at `now`.
    pub fn check(&self, now: Instant) -> Option<Overdue> {
        if now < self.next_deadline()? {
            return None;
        }
        Some(match self.phase {
            Phase::Head | Phase::Body => Overdue::Refuse(HttpFault::Timeout),
            Phase::Idle | Phase::Working | Phase::Answering => Overdue::Close,
        })
    }

    /// When the body's average falls below the least rate if nothing more comes. `None`: not in
    /// this world's time.
    fn slow(&self) -> Option<Instant> {
        let earned_seconds = self.bytes.checked_div(self.rules.body_bytes_per_second_min)?;
        let allowed = self.rules.body_grace.checked_add(Duration::from_secs(earned_seconds))?;
        self.since.checked_add(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::monotonic_now;

    const TIMEOUT: Option<Overdue> = Some(Overdue::Refuse(HttpFault::Timeout));

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn each_phase_has_its_deadline() {
        #[track_caller]
        fn check(phase: Phase, after_seconds: u64, want: Option<Overdue>) {
            let start = monotonic_now();
            let mut deadlines = ConnectionDeadlines::new(DeadlineRules::default(), start);
            deadlines.restart(phase, start);
            assert_eq!(deadlines.check(start + seconds(after_seconds)), want);
        }
        check(Phase::Idle, 89, None);
        check(Phase::Idle, 90, Some(Overdue::Close));
        check(Phase::Head, 9, None);
        check(Phase::Head, 10, TIMEOUT);
        check(Phase::Body, 29, None);
        check(Phase::Body, 30, TIMEOUT);
        check(Phase::Working, 1_000_000, None);
        check(Phase::Answering, 29, None);
        check(Phase::Answering, 30, Some(Overdue::Close));
    }

    /// Sends `bytes` each second and says after how many seconds it is cut off.
    fn cut_off_after(phase: Phase, bytes: u64) -> Option<u64> {
        let start = monotonic_now();
        let mut deadlines = ConnectionDeadlines::new(DeadlineRules::default(), start);
        deadlines.enter(phase, start);
        (1..1_000).find(|&second| {
            let now = start + seconds(second);
            deadlines.handle_progress(bytes, now);
            deadlines.enter(phase, now);
            deadlines.check(now).is_some()
        })
    }

    #[test]
    fn drip_feeding_does_not_hold_a_connection() {
        // A byte a second never stalls, so only the rate (or the head's fixed time) catches it.
        assert_eq!(cut_off_after(Phase::Body, 1), Some(30));
        assert_eq!(cut_off_after(Phase::Head, 1), Some(10));
        // Half the least rate buys twice the grace period.
        assert_eq!(cut_off_after(Phase::Body, 512), Some(59));
        assert_eq!(cut_off_after(Phase::Body, 1024), None);
        assert_eq!(cut_off_after(Phase::Answering, 1), None);
    }

    #[test]
    fn our_own_pause_does_not_count() {
        let start = monotonic_now();
        let mut deadlines = ConnectionDeadlines::new(DeadlineRules::default(), start);
        deadlines.enter(Phase::Body, start);
        deadlines.handle_pause(start + seconds(10));
        deadlines.handle_pause(start + seconds(50));
        assert_eq!(deadlines.next_deadline(), None);
        assert_eq!(deadlines.check(start + seconds(500)), None);
        deadlines.handle_resume(start + seconds(110));
        assert_eq!(deadlines.next_deadline(), Some(start + seconds(130)));
        assert_eq!(deadlines.check(start + seconds(129)), None);
        assert_eq!(deadlines.check(start + seconds(130)), TIMEOUT);
    }
}
