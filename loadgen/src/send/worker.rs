//! DRIVER: one connection of `loadgen send`: keeps up to `--pipeline` requests in flight, settles
//! each in the ledger, connects again and, with `--retry`, sends again what was not acknowledged,
//! in order, to the next server if there are several.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::body::{BodyMaker, RequestBytes};
use super::schedule::Schedule;
use super::{HORIZON_MS, RunState, Stop, now_ms};
use crate::http::{Answer, Connection};
use crate::ledger::{Outcome, Span};

/// Between attempts: long enough not to hammer a server that restarts.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A request on its way.
struct Flight {
    span: Span,
    bytes: RequestBytes,
    /// Its number in the ledger, once it was first sent.
    request: Option<u64>,
    intended_at: Instant,
    attempt: u32,
}

/// One connection.
pub struct Worker {
    shared: Rc<RunState>,
    schedule: Schedule,
    maker: BodyMaker,
    /// Which of the servers is used now.
    target: usize,
    connection: Option<Connection>,
    connected_before: bool,
    prebuilt: VecDeque<(Span, RequestBytes)>,
    /// To be sent again before anything new.
    again: VecDeque<Flight>,
    in_flight: VecDeque<Flight>,
    backoff: Duration,
    /// When the server last answered with success, or sending began.
    alive_at: Instant,
    /// When the first of the attempts failed that are not yet followed by a success.
    failing_since: Option<Instant>,
    /// Open loop: when the next request is due.
    due_after: Duration,
}

impl Worker {
    /// The worker of connection number `connection`.
    pub fn new(shared: Rc<RunState>, connection: u32) -> Result<Self, String> {
        let options = &shared.options;
        let stagger = options.rate.map_or(0.0, |rate| {
            f64::from(connection) * f64::from(options.points_per_request) / rate
        });
        let target = connection as usize % shared.targets.len();
        Ok(Self {
            schedule: Schedule::new(options, connection),
            maker: BodyMaker::new(options, shared.run, &shared.targets[target])?,
            target,
            connection: None,
            connected_before: false,
            prebuilt: VecDeque::new(),
            again: VecDeque::new(),
            in_flight: VecDeque::new(),
            backoff: BACKOFF_MIN,
            alive_at: shared.started.get(),
            failing_since: None,
            due_after: Duration::from_secs_f64(stagger),
            shared,
        })
    }

    /// Builds one request ahead; its length, or None at a limit.
    pub fn prebuild_one(&mut self) -> Option<u64> {
        let (span, bytes) = self.build()?;
        let len_bytes = bytes.as_bytes().len() as u64;
        self.prebuilt.push_back((span, bytes));
        Some(len_bytes)
    }

    /// Sends until a limit is met and everything is settled.
    /// # Errors
    /// The ledger cannot be written.
    pub async fn run(mut self) -> io::Result<()> {
        self.alive_at = self.shared.started.get();
        loop {
            self.fill_pipeline().await?;
            if self.in_flight.is_empty() {
                return Ok(());
            }
            let answer = match &mut self.connection {
                Some(connection) => connection.read_answer().await,
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            match answer {
                Ok(answer) => self.handle_answer(&answer).await?,
                Err(_) => self.handle_lost().await?,
            }
        }
    }

    async fn fill_pipeline(&mut self) -> io::Result<()> {
        let depth = self.shared.options.pipeline as usize;
        while self.in_flight.len() < depth {
            let Some(mut flight) = self.next_flight() else { return Ok(()) };
            if self.shared.options.rate.is_some() && flight.attempt == 0 {
                flight.intended_at = self.wait_until_due(&flight.span).await;
            }
            // Before the first byte: see `ledger`.
            let request = match flight.request {
                Some(request) => request,
                None => self.shared.ledger.borrow_mut().sent(flight.span)?,
            };
            flight.request = Some(request);
            if !self.connect().await {
                self.again.push_front(flight);
                return self.give_up();
            }
            self.shared.tally.borrow_mut().handle_sent(&flight.bytes, flight.attempt);
            self.in_flight.push_back(flight);
            let (Some(connection), Some(flight)) = (&mut self.connection, self.in_flight.back())
            else {
                unreachable!("connected and pushed above");
            };
            if connection.write(flight.bytes.as_bytes()).await.is_err() {
                self.handle_lost().await?;
            }
        }
        Ok(())
    }

    fn next_flight(&mut self) -> Option<Flight> {
        if let Some(flight) = self.again.pop_front() {
            return Some(flight);
        }
        let now = Instant::now();
        if self.shared.deadline.get().is_some_and(|deadline| now >= deadline) {
            self.shared.stop_for(Stop::Duration);
            return None;
        }
        if self.shared.interrupted.load(Ordering::Relaxed) {
            self.shared.stop_for(Stop::Signal);
            return None;
        }
        if self.shared.stop.get() == Some(Stop::GaveUp) {
            return None;
        }
        let (span, bytes) = if self.shared.options.prebuild {
            let next = self.prebuilt.pop_front();
            if next.is_none() {
                let all = self.shared.points_left.get() == 0;
                self.shared.stop_for(if all { Stop::Points } else { Stop::Prebuilt });
            }
            next?
        } else {
            self.build()?
        };
        let newest = self.newest_timestamp_ms(&span).max(self.shared.newest_timestamp_ms.get());
        self.shared.newest_timestamp_ms.set(newest);
        // Built first, then timed: the closed loop's latency is the server's alone.
        Some(Flight { span, bytes, request: None, intended_at: Instant::now(), attempt: 0 })
    }

    fn build(&mut self) -> Option<(Span, RequestBytes)> {
        let left = self.shared.points_left.get();
        if left == 0 {
            self.shared.stop_for(Stop::Points);
            return None;
        }
        let Some(mut span) = self.schedule.next_span(self.shared.started.get().elapsed()) else {
            self.shared.stop_for(Stop::Span);
            return None;
        };
        if left < span.point_count() {
            let points = u32::try_from(left).unwrap_or(u32::MAX);
            span.points = span.points.min(points);
            span.series = span.series.min(points / span.points).max(1);
        }
        if self.newest_timestamp_ms(&span) > now_ms() + HORIZON_MS {
            self.shared.stop_for(Stop::Horizon);
            return None;
        }
        self.shared.points_left.set(left - span.point_count());
        Some((span, self.maker.make(&span, self.schedule.window_first())))
    }

    fn newest_timestamp_ms(&self, span: &Span) -> i64 {
        let last_sample = span.first_sample + u64::from(span.points);
        self.shared.run.timestamp_ms(span.first_series, last_sample)
    }

    /// The next point in time of the open loop, waited for unless it is past.
    async fn wait_until_due(&mut self, span: &Span) -> Instant {
        let due_at = self.shared.started.get() + self.due_after;
        let options = &self.shared.options;
        let share = options.rate.unwrap_or(f64::INFINITY) / f64::from(options.connections);
        self.due_after += Duration::from_secs_f64(span.point_count() as f64 / share);
        let wait = due_at.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            glommio::timer::sleep(wait).await;
        }
        due_at
    }

    /// Connects if need be, for as long as `--give-up` allows.
    async fn connect(&mut self) -> bool {
        while self.connection.is_none() {
            let options = &self.shared.options;
            if self.alive_at.elapsed() > options.give_up {
                return false;
            }
            let target = &self.shared.targets[self.target];
            match Connection::open(target, options.timeout).await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    if self.connected_before {
                        self.shared.tally.borrow_mut().handle_reconnect();
                    }
                    self.connected_before = true;
                }
                Err(_) => self.handle_failure().await,
            }
        }
        true
    }

    async fn handle_answer(&mut self, answer: &Answer) -> io::Result<()> {
        let flight = self.in_flight.pop_front().expect("an answer is only read for a request");
        self.shared.tally.borrow_mut().handle_answer(answer);
        let closing = self.connection.as_ref().is_some_and(Connection::is_closing);
        if answer.is_success() {
            self.backoff = BACKOFF_MIN;
            self.alive_at = Instant::now();
            if let Some(since) = self.failing_since.take() {
                self.shared.tally.borrow_mut().handle_recovered(self.alive_at - since);
            }
            self.settle(flight, Outcome::Acked)?;
        } else if self.shared.options.retry && (answer.status >= 500 || answer.status == 429) {
            if self.alive_at.elapsed() > self.shared.options.give_up {
                self.shared.stop_for(Stop::GaveUp);
                self.settle(flight, Outcome::Refused(answer.status))?;
            } else {
                if self.shared.targets.len() > 1 {
                    self.connection = None;
                    self.shared.tally.borrow_mut().handle_lost(self.in_flight.len() as u64);
                    self.in_flight.push_front(flight);
                    return self.send_again().await;
                }
                self.again.push_back(Flight { attempt: flight.attempt + 1, ..flight });
                self.handle_failure().await;
            }
        } else {
            self.alive_at = Instant::now();
            self.settle(flight, Outcome::Refused(answer.status))?;
        }
        if closing { self.handle_lost().await } else { Ok(()) }
    }

    /// The connection is gone, and with it the answers to all that is in flight.
    async fn handle_lost(&mut self) -> io::Result<()> {
        self.connection = None;
        if self.in_flight.is_empty() {
            return Ok(());
        }
        self.shared.tally.borrow_mut().handle_lost(self.in_flight.len() as u64);
        self.send_again().await
    }

    async fn send_again(&mut self) -> io::Result<()> {
        if self.shared.options.retry {
            // In front of what waits already, in the order they were sent.
            while let Some(flight) = self.in_flight.pop_back() {
                self.again.push_front(Flight { attempt: flight.attempt + 1, ..flight });
            }
        } else {
            while let Some(flight) = self.in_flight.pop_front() {
                self.settle(flight, Outcome::Unknown)?;
            }
        }
        self.handle_failure().await;
        Ok(())
    }

    fn settle(&mut self, flight: Flight, outcome: Outcome) -> io::Result<()> {
        let request = flight.request.expect("numbered before it was sent");
        self.shared.ledger.borrow_mut().done(request, outcome)?;
        let now = Instant::now();
        let latency = now.saturating_duration_since(flight.intended_at);
        self.shared.tally.borrow_mut().handle_settled(&flight.span, outcome, latency, now);
        self.maker.recycle(flight.bytes);
        Ok(())
    }

    fn give_up(&mut self) -> io::Result<()> {
        self.shared.stop_for(Stop::GaveUp);
        while let Some(flight) = self.again.pop_front() {
            self.settle(flight, Outcome::Unknown)?;
        }
        Ok(())
    }

    /// The next attempt is made a little later, at the next server.
    async fn handle_failure(&mut self) {
        self.failing_since.get_or_insert_with(Instant::now);
        self.target = (self.target + 1) % self.shared.targets.len();
        glommio::timer::sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }
}
