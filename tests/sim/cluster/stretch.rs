//! Long stretches of a run in which little happens: a lonely sample now and then, a fault that
//! lasts for minutes, hours in which tables age, series leave heads and hints grow old.
//!
//! Whenever nothing is under way, time goes on to whatever is due next. What is left out are the
//! pings of links that are idle: for all processes it is as if the machine had been asleep, which
//! they bear by design (`wire/link/silence`).

use tidegate::base::time::{Duration, Instant};

use super::gateway::Gateway;
use super::{GatewayPlace, World, delay};
use crate::steps::Steps;

/// After something happened time goes on step by step for so long: links that break are noticed,
/// logs and snapshots come to their ends.
const AWAKE_FOR: Duration = Duration::from_secs(4);
/// And for so long after time was left out: pings go out again, and come back.
const AWAKE_AFTER_SKIP: Duration = Duration::from_millis(700);
/// A step while nothing but timers and pings is to be seen to.
const IDLE_STEP_US: u64 = 240_000;
/// And while little happens otherwise.
const STEP_US_MIN: u64 = 20_000;
/// Time never goes on for longer at once, so that whoever looks at the clock now and then does.
const SKIP_MAX: Duration = Duration::from_secs(600);
/// Shorter ones are not worth it.
const SKIP_MIN: Duration = Duration::from_secs(1);

const MINUTE_MS: usize = 60_000;

/// How time goes.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// What lasts until then.
    until: Instant,
    /// The next fault.
    fault_at: Instant,
    /// No time is left out before.
    awake_until: Instant,
}

impl World {
    /// A long stretch; ends early when no steps are left.
    pub fn run_stretch(&mut self, steps: &mut Steps) {
        let minutes = match self.random.below(8) {
            0 => 200 + self.random.below(200),
            1 | 2 => 60 + self.random.below(90),
            _ => 5 + self.random.below(30),
        };
        let now = self.now;
        self.stretch = Some(Stretch {
            until: now + Duration::from_secs(60 * minutes as u64),
            fault_at: now,
            awake_until: now + AWAKE_FOR,
        });
        let pauses_ms = [MINUTE_MS, 10 * MINUTE_MS, 30 * MINUTE_MS][self.random.below(3)];
        for client in &mut self.clients {
            client.slow_down(now, pauses_ms, &mut self.random);
        }
        while let Some(stretch) = self.stretch
            && self.now < stretch.until
            && steps.take()
        {
            self.skip();
            self.fail_in_stretch();
            self.turn();
        }
        self.stretch = None;
        for client in &mut self.clients {
            client.hurry_up(self.now);
        }
    }

    /// Something happened that others have to notice.
    pub fn stay_awake(&mut self) {
        if let Some(stretch) = &mut self.stretch {
            stretch.awake_until = self.now + AWAKE_FOR;
        }
    }

    /// The length of the next turn, microseconds.
    pub fn step_us(&mut self) -> u64 {
        let short_us = 500 + self.random.below(self.turn_us_max) as u64;
        match self.stretch {
            None => short_us,
            Some(_) if self.is_quiet() => IDLE_STEP_US,
            Some(_) => short_us + STEP_US_MIN,
        }
    }

    /// Whether nobody waits for anybody who is there.
    fn is_quiet(&self) -> bool {
        let is_quiet = |place: &GatewayPlace| {
            self.now < place.stopped_until || place.running.as_ref().is_none_or(Gateway::is_quiet)
        };
        let soon = self.now + SKIP_MIN;
        self.mail.iter().all(|(at, _)| *at > soon) && self.gateways.iter().all(is_quiet)
    }

    fn fail_in_stretch(&mut self) {
        let Some(stretch) = &mut self.stretch else { return };
        if self.now >= stretch.fault_at {
            stretch.fault_at = self.now + delay(&mut self.random, 20 * MINUTE_MS);
            self.fail_now();
            self.stay_awake();
        }
    }

    /// Goes on to what is due next, if nothing is under way.
    fn skip(&mut self) {
        let Some(Stretch { until, fault_at, awake_until }) = self.stretch else { return };
        if self.now < awake_until || !self.is_quiet() {
            return;
        }
        let mut due = vec![until, fault_at, self.now + SKIP_MAX];
        for place in &self.gateways {
            due.extend([place.start_at, place.stopped_until]);
            due.extend(place.fleet_at);
        }
        for node in &self.nodes {
            due.extend([node.start_at, node.stopped_until]);
            due.extend(node.flush_at.into_iter().chain(node.crash_at));
        }
        due.extend(self.node_epoch_at.iter().flatten());
        due.extend(self.clients.iter().map(super::Client::due));
        due.extend(self.mail.iter().map(|(at, _)| *at));
        due.extend(self.net.ends_of_blocks());
        let due = due.into_iter().filter(|at| *at > self.now).min().unwrap_or(until);
        let left_out = due.duration_since(self.now);
        if left_out < SKIP_MIN {
            return;
        }
        self.trace(|| format!("nothing happens for {left_out:?}"));
        self.pass(u64::try_from(left_out.as_micros()).expect("hours"));
        self.skipped += left_out;
        if let Some(stretch) = &mut self.stretch {
            stretch.awake_until = self.now + AWAKE_AFTER_SKIP;
        }
    }
}
