//! Which samples go into the next request of a connection. Pure.
//!
//! A connection has a window of series and walks it from front to back, a round after the other;
//! each round sends the next samples of every series. Churn moves the window's front between
//! rounds: the oldest series end, new ones begin.

use std::time::Duration;

use crate::ledger::Span;
use crate::options::SendOptions;

/// Numbers apart that the windows of two connections begin when they move.
const STRIDE_WITH_CHURN: u64 = 1 << 32;

/// One connection's way through its series.
#[derive(Clone, Debug)]
pub struct Schedule {
    connection: u32,
    window_first: u64,
    window_len: u64,
    series_per_request: u32,
    points_per_series: u32,
    /// Series of the window that this round has done.
    position: u64,
    round: u64,
    /// With `--span`.
    samples_max: u64,
    churn_per_s: f64,
    churned: u64,
}

impl Schedule {
    /// The schedule of connection `connection` of those in `options`.
    pub fn new(options: &SendOptions, connection: u32) -> Self {
        let connections = u64::from(options.connections);
        let number = u64::from(connection);
        let first = options.series * number / connections;
        let end = options.series * (number + 1) / connections;
        let moves = options.churn > 0.0;
        Self {
            connection,
            window_first: if moves { number * STRIDE_WITH_CHURN } else { first },
            window_len: end - first,
            series_per_request: options.points_per_request / options.points_per_series,
            points_per_series: options.points_per_series,
            position: 0,
            round: 0,
            samples_max: options.samples_per_series().unwrap_or(u64::MAX),
            churn_per_s: options.churn / f64::from(options.connections),
            churned: 0,
        }
    }

    /// The next request's samples, or None at the end of the span of time that was asked for;
    /// `elapsed` since the start decides how far churn has come.
    pub fn next_span(&mut self, elapsed: Duration) -> Option<Span> {
        if self.position == self.window_len {
            self.position = 0;
            self.round += 1;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            let due = (elapsed.as_secs_f64() * self.churn_per_s) as u64;
            self.window_first += due - self.churned;
            self.churned = due;
        }
        let first_sample = self.round * u64::from(self.points_per_series);
        let samples_left = self.samples_max.saturating_sub(first_sample);
        let points = u32::try_from(samples_left)
            .map_or(self.points_per_series, |left| left.min(self.points_per_series));
        if points == 0 {
            return None;
        }
        let left = self.window_len - self.position;
        let series = u32::try_from(left)
            .map_or(self.series_per_request, |left| left.min(self.series_per_request));
        let first_series = self.window_first + self.position;
        self.position += u64::from(series);
        Some(Span { connection: self.connection, first_series, series, first_sample, points })
    }

    /// No later span has a series below this.
    pub fn window_first(&self) -> u64 {
        self.window_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: SendOptions,
    }

    fn options(line: &str) -> SendOptions {
        let words = std::iter::once("x").chain(line.split_ascii_whitespace());
        Line::parse_from(words).options
    }

    fn span(first_series: u64, series: u32, first_sample: u64, points: u32) -> Span {
        Span { connection: 1, first_series, series, first_sample, points }
    }

    #[test]
    fn rounds_cover_the_window() {
        let options =
            options("--series 21 --connections 2 --points-per-request 10 --points-per-series 2");
        let mut schedule = Schedule::new(&options, 1);
        let spans: Vec<Span> = (0..4).filter_map(|_| schedule.next_span(Duration::ZERO)).collect();
        assert_eq!(
            spans,
            [span(10, 5, 0, 2), span(15, 5, 0, 2), span(20, 1, 0, 2), span(10, 5, 2, 2)]
        );
    }

    #[test]
    fn churn_moves_the_window_between_rounds() {
        let options = options("--series 20 --connections 2 --churn 4");
        let mut schedule = Schedule::new(&options, 1);
        let mut next = |seconds| schedule.next_span(Duration::from_secs(seconds));
        let spans: Vec<Span> = (0..3).filter_map(&mut next).collect();
        let first = STRIDE_WITH_CHURN;
        assert_eq!(
            spans,
            [span(first, 10, 0, 1), span(first + 2, 10, 1, 1), span(first + 4, 10, 2, 1)]
        );
    }

    #[test]
    fn a_span_of_time_has_an_end() {
        let options = options(
            "--series 10 --connections 1 --points-per-request 50 --points-per-series 5 \
             --span 2m --interval 10s",
        );
        let mut schedule = Schedule::new(&options, 0);
        let spans: Vec<Span> = std::iter::from_fn(|| schedule.next_span(Duration::ZERO)).collect();
        let points: Vec<u32> = spans.iter().map(|span| span.points).collect();
        assert_eq!(points, [5, 5, 2]);
    }
}
