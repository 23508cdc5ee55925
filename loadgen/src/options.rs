//! The command line of `loadgen`, and the checks that clap cannot make.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::series::{LABEL_COUNT_MAX, LABEL_COUNT_MIN, Shape};

/// Far enough behind that samples a millisecond apart do not catch up with the clock.
const START_BEFORE_NOW: Duration = Duration::from_secs(30 * 60);

/// What the requests look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Prometheus remote write 1.0: protobuf, snappy.
    RemoteWrite,
    /// VictoriaMetrics JSON lines.
    VmJson,
}

impl Protocol {
    /// Where servers take it.
    pub fn default_path(self) -> &'static str {
        match self {
            Self::RemoteWrite => "/api/v1/write",
            Self::VmJson => "/api/v1/import",
        }
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::RemoteWrite => "remote-write",
            Self::VmJson => "vm-json",
        }
    }
}

/// Options of `loadgen send`.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct SendOptions {
    /// Server, as http://host:port; may be given several times: connections are spread over them,
    /// and one that is lost or refused with 5xx or 429 goes to the next
    #[arg(long, default_value = "http://127.0.0.1:8428")]
    pub url: Vec<String>,
    /// Format of the requests
    #[arg(long, value_enum, default_value = "remote-write")]
    pub protocol: Protocol,
    /// Path of the requests [default: /api/v1/write or /api/v1/import]
    #[arg(long)]
    pub path: Option<String>,
    /// Active series, spread over the connections
    #[arg(long, default_value_t = 20_000)]
    pub series: u64,
    /// What the series look like
    #[arg(long, value_enum, default_value = "mixed")]
    pub shape: Shape,
    /// Labels of each series, the metric name counted (tsbs: always 11)
    #[arg(long, default_value_t = 11)]
    pub labels: u32,
    /// Samples in a request, at most
    #[arg(long, default_value_t = 5000)]
    pub points_per_request: u32,
    /// Samples of one series in a request (vm-json: on a line)
    #[arg(long, default_value_t = 1)]
    pub points_per_series: u32,
    /// Connections; each has series of its own
    #[arg(long, default_value_t = 4)]
    pub connections: u32,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 1)]
    pub pipeline: u32,
    /// Open loop: samples a second in all, latency counted from the intended time; without it, as
    /// fast as answers come
    #[arg(long, conflicts_with = "pipeline")]
    pub rate: Option<f64>,
    /// How long to send, like 500ms, 10s, 5m [default: 10s, or endless with --points and --span]
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// How many samples to send
    #[arg(long)]
    pub points: Option<u64>,
    /// Series that are replaced by new ones each second
    #[arg(long, default_value_t = 0.0, conflicts_with = "prebuild")]
    pub churn: f64,
    /// Makes other series (label lg_run) and other values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Unix milliseconds of the first sample [default: --span ago, or 30 minutes]
    #[arg(long, visible_alias = "start")]
    pub start_timestamp: Option<i64>,
    /// The first sample is so much older than now, like 1d or 365d
    #[arg(long, value_parser = parse_duration, conflicts_with = "start_timestamp")]
    pub ago: Option<Duration>,
    /// Send this much time of samples of each series, like 2h, as fast as answers come
    #[arg(long, value_parser = parse_duration)]
    pub span: Option<Duration>,
    /// Between two samples of a series. Sending stops when samples would lie 9 minutes in the
    /// future
    #[arg(long, visible_alias = "step", value_parser = parse_duration, default_value = "1ms")]
    pub interval: Duration,
    /// Compress bodies with gzip (vm-json)
    #[arg(long)]
    pub gzip: bool,
    /// Append what was sent and acknowledged to this file, for `loadgen verify`
    #[arg(long)]
    pub ledger: Option<PathBuf>,
    /// Send a request again on 5xx, 429 or a lost connection until it is acknowledged, as
    /// Prometheus does
    #[arg(long)]
    pub retry: bool,
    /// Give up when nothing was answered, or no connection made, for so long
    #[arg(long, value_parser = parse_duration, default_value = "60s")]
    pub give_up: Duration,
    /// Longest wait for an answer
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    pub timeout: Duration,
    /// Pin the generator to this CPU
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Build the requests before the clock starts; sending ends when they are used up
    #[arg(long)]
    pub prebuild: bool,
    /// Memory for prebuilt requests, in MiB
    #[arg(long, default_value_t = 1024)]
    pub prebuild_mib: u64,
    /// Print "ready" when everything is built, then wait for a line on standard input before
    /// sending
    #[arg(long)]
    pub wait: bool,
    /// Write the report to this file as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl SendOptions {
    /// What clap cannot check.
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        let at_least_1 = [
            ("--series", self.series),
            ("--connections", self.connections.into()),
            ("--pipeline", self.pipeline.into()),
            ("--points-per-series", self.points_per_series.into()),
        ];
        for (name, value) in at_least_1 {
            if value == 0 {
                return Err(format!("{name} must be at least 1"));
            }
        }
        if !(LABEL_COUNT_MIN..=LABEL_COUNT_MAX).contains(&self.labels) {
            return Err(format!("--labels must be {LABEL_COUNT_MIN} to {LABEL_COUNT_MAX}"));
        }
        if u64::from(self.connections) > self.series {
            return Err("--connections must not exceed --series: a series has one".into());
        }
        if self.points_per_series > self.points_per_request {
            return Err("--points-per-series must not exceed --points-per-request".into());
        }
        if self.interval_ms() == 0 {
            return Err("--interval must be 1ms to 49 days, whole milliseconds".into());
        }
        if self.samples_per_series() == Some(0) {
            return Err("--span must be at least one --interval".into());
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return Err("--rate must be above 0".into());
        }
        if !(self.churn >= 0.0 && self.churn.is_finite()) {
            return Err("--churn must not be below 0".into());
        }
        if self.gzip && self.protocol != Protocol::VmJson {
            return Err("--gzip is for vm-json; remote write is snappy".into());
        }
        Ok(())
    }

    /// 0 where it is out of range.
    pub fn interval_ms(&self) -> u32 {
        u32::try_from(self.interval.as_millis()).unwrap_or(0)
    }

    /// As many as `--span` asks for; call `check` first.
    pub fn samples_per_series(&self) -> Option<u64> {
        let span_ms = u64::try_from(self.span?.as_millis()).unwrap_or(u64::MAX);
        Some(span_ms / u64::from(self.interval_ms()))
    }

    /// Unix milliseconds of the first sample.
    pub fn start_ms(&self, now_ms: i64) -> i64 {
        let before = self.ago.or(self.span).unwrap_or(START_BEFORE_NOW);
        let before_ms = i64::try_from(before.as_millis()).unwrap_or(i64::MAX);
        self.start_timestamp.unwrap_or_else(|| now_ms.saturating_sub(before_ms))
    }
}

/// Options of `loadgen verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyOptions {
    /// Server, as http://host:port
    #[arg(long, default_value = "http://127.0.0.1:8428")]
    pub url: String,
    /// Ledger of `loadgen send`; may be given several times
    #[arg(long, required = true)]
    pub ledger: Vec<PathBuf>,
    /// Longest wait for a piece of an answer
    #[arg(long, value_parser = parse_duration, default_value = "60s")]
    pub timeout: Duration,
    /// Examples of each fault
    #[arg(long, default_value_t = 5)]
    pub examples: usize,
    /// Write the result to this file as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// `500ms`, `10s`, `5m`, `2h`, `365d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("the unit is one of ms, s, m, h, d".into()),
    };
    let number: f64 = digits.parse().map_err(|_| "not a number with a unit, like 10s")?;
    let ms = (number * scale * 1000.0).round();
    if !(0.0..=4e12).contains(&ms) {
        return Err("out of range".into());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(Duration::from_millis(ms as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        #[track_caller]
        fn check(text: &str, want_ms: Option<u64>) {
            assert_eq!(parse_duration(text).ok(), want_ms.map(Duration::from_millis), "{text}");
        }
        check("500ms", Some(500));
        check("10s", Some(10_000));
        check("1.5m", Some(90_000));
        check("2h", Some(7_200_000));
        check("3", Some(3000));
        check("-1s", None);
        check("1d", Some(86_400_000));
        check("1w", None);
        check("s", None);
    }
}
