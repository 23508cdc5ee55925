//! What a run came to: for people on stderr and stdout, for programs as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The result of `loadgen send`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `remote-write` or `vm-json`.
    pub protocol: String,
    /// Samples in requests answered with 2xx.
    pub points_acked: u64,
    /// Samples in requests answered otherwise, for good.
    pub points_refused: u64,
    /// Samples in requests without an answer.
    pub points_unknown: u64,
    /// Requests by final outcome.
    pub requests_acked: u64,
    /// See `points_refused`.
    pub requests_refused: u64,
    /// See `points_unknown`.
    pub requests_unknown: u64,
    /// Answers by status, those to attempts that were repeated counted; `lost` for none.
    pub statuses: BTreeMap<String, u64>,
    /// The first body that came with a refusal.
    pub refusal_example: Option<String>,
    /// Attempts after the first.
    pub retries: u64,
    /// Connections opened after the first ones.
    pub reconnects: u64,
    /// The longest that a connection saw nothing but failures: from the first to the next success.
    #[serde(default)]
    pub failing_ms_max: u64,
    /// Requests as sent, heads counted.
    pub bytes_sent: u64,
    /// Bodies before compression.
    pub bytes_raw: u64,
    /// From the first request sent to the last one settled.
    pub seconds: f64,
    /// Acknowledged samples a second.
    pub points_per_second: f64,
    /// From the intended time of a request to its 2xx.
    pub latency: Latency,
    /// The generator's own CPU between start and end of sending, all its threads, for each
    /// acknowledged sample.
    pub generator_cpu_ns_per_point: f64,
    /// Why it ended: `points`, `span`, `duration`, `prebuilt`, `horizon` (timestamps would be in
    /// the future), `signal` or `gave-up`.
    pub stopped_by: String,
    /// Unix milliseconds of the newest sample sent: a later run of the same series starts behind
    /// it.
    pub newest_timestamp_ms: i64,
}

/// In microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half are faster.
    pub p50_us: u64,
    /// 90 % are faster.
    pub p90_us: u64,
    /// 99 % are faster.
    pub p99_us: u64,
    /// 99.9 % are faster.
    pub p99_9_us: u64,
    /// The slowest.
    pub max_us: u64,
}

impl Latency {
    /// Reads the percentiles off.
    pub fn of(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        Self {
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p99_9_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        write!(
            f,
            "p50 {:.2} ms, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
            ms(self.p50_us),
            ms(self.p90_us),
            ms(self.p99_us),
            ms(self.p99_9_us),
            ms(self.max_us)
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} points acknowledged in {:.2} s, {} points/s; ended by {}",
            self.protocol,
            grouped(self.points_acked),
            self.seconds,
            grouped_f64(self.points_per_second),
            self.stopped_by
        )?;
        writeln!(
            f,
            "requests: {} acked, {} refused, {} unknown; {} retries, {} reconnects",
            self.requests_acked,
            self.requests_refused,
            self.requests_unknown,
            self.retries,
            self.reconnects
        )?;
        if self.points_refused + self.points_unknown > 0 {
            writeln!(
                f,
                "points:   {} refused, {} unknown",
                grouped(self.points_refused),
                grouped(self.points_unknown)
            )?;
        }
        let statuses: Vec<String> =
            self.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        writeln!(f, "answers:  {}", statuses.join(", "))?;
        if let Some(example) = &self.refusal_example {
            writeln!(f, "          first refusal: {example}")?;
        }
        if self.failing_ms_max > 0 {
            writeln!(f, "failing:  {} ms at most, until the next success", self.failing_ms_max)?;
        }
        let points = self.points_acked.max(1) as f64;
        writeln!(
            f,
            "bytes:    {} sent ({:.1} a point), {} before compression ({:.1} a point)",
            grouped(self.bytes_sent),
            self.bytes_sent as f64 / points,
            grouped(self.bytes_raw),
            self.bytes_raw as f64 / points
        )?;
        writeln!(f, "latency:  {}", self.latency)?;
        write!(f, "loadgen:  {:.0} ns of its own CPU a point", self.generator_cpu_ns_per_point)
    }
}

/// `12345678` -> `12,345,678`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The same, rounded.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are in range")]
pub fn grouped_f64(number: f64) -> String {
    grouped(number.max(0.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(grouped_f64(12_345_678.4), "12,345,678");
    }
}
