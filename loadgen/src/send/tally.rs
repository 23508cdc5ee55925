//! Counts what came back, and shows how far the run is: a bar on a terminal, else a line every two
//! seconds.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use super::body::RequestBytes;
use crate::http::Answer;
use crate::ledger::{Outcome, Span};
use crate::report::{Latency, Report, grouped, grouped_f64};

const LINE_EVERY: Duration = Duration::from_secs(2);
const BAR_EVERY: Duration = Duration::from_millis(200);
/// An hour: slower answers count as that.
const LATENCY_US_MAX: u64 = 3_600_000_000;
const EXAMPLE_BYTES_MAX: usize = 300;

/// Counters of a run.
pub struct Tally {
    report: Report,
    statuses: BTreeMap<u16, u64>,
    lost: u64,
    latency_us: Histogram<u64>,
    settled_at: Instant,
    shown_at: Instant,
    shown_points: u64,
    bar: Option<ProgressBar>,
}

impl Tally {
    /// Starts counting; `goal` is the samples to send, if known.
    pub fn new(protocol: &str, goal: Option<u64>, now: Instant) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| progress_bar(goal));
        Self {
            report: Report { protocol: protocol.to_owned(), ..Report::default() },
            statuses: BTreeMap::new(),
            lost: 0,
            latency_us: Histogram::new_with_max(LATENCY_US_MAX, 3).expect("3 digits are allowed"),
            settled_at: now,
            shown_at: now,
            shown_points: 0,
            bar,
        }
    }

    /// A request goes out, again if `attempt` is above 0.
    pub fn handle_sent(&mut self, request: &RequestBytes, attempt: u32) {
        self.report.bytes_sent += request.as_bytes().len() as u64;
        self.report.bytes_raw += request.raw_len_bytes;
        self.report.retries += u64::from(attempt > 0);
    }

    /// An answer came, final or not.
    pub fn handle_answer(&mut self, answer: &Answer) {
        *self.statuses.entry(answer.status).or_default() += 1;
        if !answer.is_success() && self.report.refusal_example.is_none() {
            let body = &answer.body[..answer.body.len().min(EXAMPLE_BYTES_MAX)];
            let text = String::from_utf8_lossy(body);
            self.report.refusal_example = Some(format!("{} {}", answer.status, text.trim()));
        }
    }

    /// `requests` in flight got no answer.
    pub fn handle_lost(&mut self, requests: u64) {
        self.lost += requests;
    }

    /// Another connection than the first was made.
    pub fn handle_reconnect(&mut self) {
        self.report.reconnects += 1;
    }

    /// A connection has a success again, so long after the first of its failures.
    pub fn handle_recovered(&mut self, after: Duration) {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.report.failing_ms_max = self.report.failing_ms_max.max(ms);
    }

    /// A request has its final outcome. `latency` counts for acknowledged ones.
    pub fn handle_settled(
        &mut self,
        span: &Span,
        outcome: Outcome,
        latency: Duration,
        now: Instant,
    ) {
        let report = &mut self.report;
        let (points, requests) = match outcome {
            Outcome::Acked => (&mut report.points_acked, &mut report.requests_acked),
            Outcome::Refused(_) => (&mut report.points_refused, &mut report.requests_refused),
            Outcome::Unknown => (&mut report.points_unknown, &mut report.requests_unknown),
        };
        *points += span.point_count();
        *requests += 1;
        if outcome == Outcome::Acked {
            let us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
            self.latency_us.saturating_record(us);
        }
        self.settled_at = now;
        self.show(now);
    }

    /// The report; `started` is when the first request went out.
    pub fn finish(&mut self, started: Instant, generator_cpu_ns: u64) -> Report {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let mut report = std::mem::take(&mut self.report);
        report.seconds = self.settled_at.saturating_duration_since(started).as_secs_f64();
        report.points_per_second = report.points_acked as f64 / report.seconds.max(1e-9);
        report.generator_cpu_ns_per_point =
            generator_cpu_ns as f64 / report.points_acked.max(1) as f64;
        report.latency = Latency::of(&self.latency_us);
        report.statuses = self.statuses.iter().map(|(k, v)| (k.to_string(), *v)).collect();
        if self.lost > 0 {
            report.statuses.insert("lost".to_owned(), self.lost);
        }
        report
    }

    fn show(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.shown_at);
        let every = if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        if since < every {
            return;
        }
        let points = self.report.points_acked;
        let rate = (points - self.shown_points) as f64 / since.as_secs_f64();
        let failed = self.report.requests_refused + self.report.requests_unknown;
        let note = format!("{}/s, {failed} requests failed", grouped_f64(rate));
        self.shown_at = now;
        self.shown_points = points;
        match &self.bar {
            Some(bar) => {
                bar.set_message(note);
                bar.set_position(points);
            }
            // Nobody reading is no reason to stop.
            None => drop(writeln!(std::io::stderr(), "{} acked, {note}", grouped(points))),
        }
    }
}

fn progress_bar(goal: Option<u64>) -> ProgressBar {
    let (bar, template) = match goal {
        Some(goal) => {
            (ProgressBar::new(goal), "{wide_bar} {human_pos}/{human_len} points, {msg}, {eta}")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} points, {msg}, {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    bar.with_style(style)
}
