//! What is measured: each scenario starts a server of its own, warms it up, and measures a window.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::load::{self, Measured};
use crate::outcome::Figure;
use crate::server::{Cpus, Server, SetUp};

/// Samples begin an hour ago: a millisecond apart they do not catch up with the clock.
const START_BEFORE_NOW_MS: i64 = 3_600_000;
const CPU_PER_SAMPLE: &str = "server CPU per sample, ns";
const POINTS_PER_SECOND: &str = "samples acknowledged per second";
const MILLION: u64 = 1_000_000;

/// The scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// The budget of DESIGN section 4.
    RemoteWriteStandalone,
    /// Decoding of numbers, mostly.
    VmJsonStandalone,
    /// What crosses between shards.
    TwoShards,
    /// Registration, and memory per series.
    MillionSeries,
    /// How long a crash costs.
    RestartReplay,
    /// Memory per sample.
    HeadMemory,
}

impl Scenario {
    /// All, in the order they run.
    pub const ALL: [Self; 6] = [
        Self::RemoteWriteStandalone,
        Self::VmJsonStandalone,
        Self::TwoShards,
        Self::MillionSeries,
        Self::RestartReplay,
        Self::HeadMemory,
    ];

    /// On the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::RemoteWriteStandalone => "remote-write-standalone",
            Self::VmJsonStandalone => "vm-json-standalone",
            Self::TwoShards => "two-shards",
            Self::MillionSeries => "million-series",
            Self::RestartReplay => "restart-replay",
            Self::HeadMemory => "head-memory",
        }
    }

    /// A line for `bench list`.
    pub fn about(self) -> &'static str {
        match self {
            Self::RemoteWriteStandalone => {
                "20,000 series of 11 labels, a sample each, 5,000 a request, on CPU 0 (aim: 250 ns)"
            }
            Self::VmJsonStandalone => {
                "JSON lines of 100 samples, 5,000 a request, on CPU 0 (aim: 60 ns)"
            }
            Self::TwoShards => "remote write as above, two shards, both CPUs shared with the load",
            Self::MillionSeries => "a million new series: rate, CPU and memory of each",
            Self::RestartReplay => "kill -9 under load, then how fast the log replays",
            Self::HeadMemory => "memory for each sample in the head",
        }
    }

    /// Those that `names` name; `all` is all.
    pub fn named(names: &[String]) -> io::Result<Vec<Self>> {
        if names.iter().any(|name| name == "all") {
            return Ok(Self::ALL.to_vec());
        }
        let find = |name: &String| {
            Self::ALL.into_iter().find(|scenario| scenario.name() == name).ok_or_else(|| {
                io::Error::other(format!("there is no scenario {name:?}: see `bench list`"))
            })
        };
        names.iter().map(find).collect()
    }

    /// One round.
    pub fn measure(self, set_up: &SetUp, seconds: u64) -> io::Result<Vec<Figure>> {
        match self {
            Self::RemoteWriteStandalone => {
                let server = Server::start(set_up, Cpus::First, 1)?;
                let load = "--cpu 1 --connections 16";
                Window { load, seconds, mib_per_s: 150, aim: Some(250.0) }.measure(set_up, &server)
            }
            Self::VmJsonStandalone => {
                let server = Server::start(set_up, Cpus::First, 1)?;
                let load = "--cpu 1 --connections 16 --protocol vm-json --points-per-series 100";
                Window { load, seconds, mib_per_s: 400, aim: Some(60.0) }.measure(set_up, &server)
            }
            Self::TwoShards => {
                let server = Server::start(set_up, Cpus::All, 2)?;
                let load = "--connections 8";
                Window { load, seconds, mib_per_s: 150, aim: None }.measure(set_up, &server)
            }
            Self::MillionSeries => million_series(set_up),
            Self::RestartReplay => restart_replay(set_up, seconds),
            Self::HeadMemory => head_memory(set_up),
        }
    }
}

/// A load at full speed.
struct Window {
    /// Options of `loadgen send`.
    load: &'static str,
    seconds: u64,
    /// Requests built beforehand, so that the generator does not limit the server; the window ends
    /// early when they are used up.
    mib_per_s: u64,
    aim: Option<f64>,
}

impl Window {
    /// Two seconds to register the series and fill the caches, then the window.
    fn measure(&self, set_up: &SetUp, server: &Server<'_>) -> io::Result<Vec<Figure>> {
        let Self { load, seconds, .. } = self;
        let start = start_ms();
        let warm_up = format!("{load} --duration 2s --start-timestamp {start}");
        let warmed = load::send(set_up, server, &warm_up)?;
        let start = warmed.report.newest_timestamp_ms + 1000;
        let mib = self.mib_per_s * seconds;
        let options = format!(
            "{load} --duration {seconds}s --start-timestamp {start} --prebuild --prebuild-mib {mib}"
        );
        let measured = load::send(set_up, server, &options)?;
        let report = &measured.report;
        let busy = measured.server_cpu_ns as f64 / report.seconds / 1e7;
        let mut figures = vec![
            Figure { name: CPU_PER_SAMPLE, aim: self.aim, value: measured.cpu_ns_per_point() },
            Figure::new(POINTS_PER_SECOND, report.points_per_second),
        ];
        figures.extend(latencies(&measured));
        figures.push(Figure::new("window, s", report.seconds));
        figures.push(Figure::new("server CPU busy, %", busy));
        let generator = report.generator_cpu_ns_per_point;
        figures.push(Figure::new("loadgen CPU per sample, ns", generator));
        Ok(figures)
    }
}

fn latencies(measured: &Measured) -> [Figure; 4] {
    let latency = measured.report.latency;
    let ms = |us: u64| us as f64 / 1000.0;
    [
        Figure::new("request p50, ms", ms(latency.p50_us)),
        Figure::new("request p99, ms", ms(latency.p99_us)),
        Figure::new("request p99.9, ms", ms(latency.p99_9_us)),
        Figure::new("request max, ms", ms(latency.max_us)),
    ]
}

fn million_series(set_up: &SetUp) -> io::Result<Vec<Figure>> {
    let server = Server::start(set_up, Cpus::First, 1)?;
    let before = server.rss_bytes()?;
    let start = start_ms();
    let load = format!("--cpu 1 --prebuild --series {MILLION} --points {MILLION}");
    let new = load::send(set_up, &server, &format!("{load} --start-timestamp {start}"))?;
    let grown = server.rss_bytes()?.saturating_sub(before);
    let start = new.report.newest_timestamp_ms + 1000;
    let known = load::send(set_up, &server, &format!("{load} --start-timestamp {start}"))?;
    Ok(vec![
        Figure::new("series registered per second", new.report.points_per_second),
        Figure::new("server CPU per new series, ns", new.cpu_ns_per_point()),
        Figure::new("resident bytes per series of 11 labels", grown as f64 / MILLION as f64),
        Figure::new("server CPU per sample of a known series, ns", known.cpu_ns_per_point()),
    ])
}

fn restart_replay(set_up: &SetUp, seconds: u64) -> io::Result<Vec<Figure>> {
    let mut server = Server::start(set_up, Cpus::First, 1)?;
    let empty = server.ready_after;
    let start = start_ms();
    let load = format!("--cpu 1 --duration {seconds}s --start-timestamp {start}");
    let sent = load::send(set_up, &server, &load)?;
    server.kill_and_restart()?;
    let replay = server.ready_after.saturating_sub(empty).as_secs_f64();
    let points = sent.report.points_acked as f64;
    Ok(vec![
        Figure::new("samples replayed", points),
        Figure::new("kill -9 to ready, s", server.ready_after.as_secs_f64()),
        Figure::new("samples replayed per second", points / replay.max(1e-3)),
        Figure::new("server CPU per replayed sample, ns", server.cpu_ns() as f64 / points),
    ])
}

/// A thousand samples a series, so that the series themselves weigh little; they are counted
/// before.
fn head_memory(set_up: &SetUp) -> io::Result<Vec<Figure>> {
    let server = Server::start(set_up, Cpus::First, 1)?;
    let load = "--cpu 1 --connections 16 --protocol vm-json --points-per-series 100";
    let start = start_ms();
    let options = format!("{load} --points {} --start-timestamp {start}", 2 * MILLION);
    let warmed = load::send(set_up, &server, &options)?;
    let before = server.rss_bytes()?;
    let start = warmed.report.newest_timestamp_ms + 1000;
    let options = format!("{load} --points {} --start-timestamp {start}", 20 * MILLION);
    let sent = load::send(set_up, &server, &options)?;
    let grown = server.rss_bytes()?.saturating_sub(before);
    let points = sent.report.points_acked as f64;
    Ok(vec![
        Figure::new("resident bytes per sample", grown as f64 / points),
        Figure::new("samples in the head", points),
    ])
}

fn start_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX) - START_BEFORE_NOW_MS
}
