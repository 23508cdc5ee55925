//! Ingest at full speed: what a sample costs, and how long a request waits.

use std::io;

use super::{CPU_PER_SAMPLE, POINTS_PER_SECOND, Round, milliseconds, start_ms};
use crate::blocks;
use crate::load::{self, Measured, Target};
use crate::outcome::Figure;
use crate::server::{Cpus, Server};

/// The budget of DESIGN section 4.
pub(super) fn remote_write(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let server = Server::start(round.set_up, Cpus::First, 1)?;
    let window = Window { load: "--cpu 1 --connections 16", mib_per_s: 150, aim: Some(250.0) };
    window.measure(round, &server)
}

/// Decoding of numbers, mostly.
pub(super) fn vm_json(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let server = Server::start(round.set_up, Cpus::First, 1)?;
    let load = "--cpu 1 --connections 16 --protocol vm-json --points-per-series 100";
    Window { load, mib_per_s: 400, aim: Some(60.0) }.measure(round, &server)
}

/// What crosses between shards.
pub(super) fn two_shards(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let server = Server::start(round.set_up, Cpus::All, 2)?;
    Window { load: "--connections 8", mib_per_s: 150, aim: None }.measure(round, &server)
}

/// A load at full speed.
pub(super) struct Window {
    /// Options of `loadgen send`.
    pub load: &'static str,
    /// Requests built beforehand, so that the generator does not limit the server; the window ends
    /// early when they are used up.
    pub mib_per_s: u64,
    /// Nanoseconds of CPU per sample.
    pub aim: Option<f64>,
}

impl Window {
    /// Two seconds to register the series and fill the caches, then the window.
    fn measure(&self, round: &Round<'_>, server: &dyn Target) -> io::Result<Vec<Figure>> {
        let warm_until = self.warm_up(round, server)?;
        self.measure_warm(round, server, warm_until)
    }

    /// Two seconds to register the series and fill the caches; the newest sample.
    pub fn warm_up(&self, round: &Round<'_>, server: &dyn Target) -> io::Result<i64> {
        let start = start_ms();
        let warm_up = format!("{} --duration 2s --start-timestamp {start}", self.load);
        Ok(load::send(round.set_up, server, &warm_up)?.report.newest_timestamp_ms)
    }

    /// The window, behind a warm-up.
    pub fn measure_warm(
        &self,
        round: &Round<'_>,
        server: &dyn Target,
        warm_until_ms: i64,
    ) -> io::Result<Vec<Figure>> {
        let (load, seconds) = (self.load, round.seconds);
        let start = warm_until_ms + 1000;
        let mib = self.mib_per_s * seconds;
        let options = format!(
            "{load} --duration {seconds}s --start-timestamp {start} --prebuild --prebuild-mib {mib}"
        );
        let measured = load::send(round.set_up, server, &options)?;
        let report = &measured.report;
        let busy = measured.server_cpu_ns as f64 / report.seconds / 1e7;
        let cost = Figure::new(CPU_PER_SAMPLE, measured.cpu_ns_per_point());
        let mut figures = vec![
            match self.aim {
                Some(aim) => cost.at_most(aim),
                None => cost,
            },
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
    [
        Figure::new("request p50, ms", milliseconds(latency.p50_us)),
        Figure::new("request p99, ms", milliseconds(latency.p99_us)),
        Figure::new("request p99.9, ms", milliseconds(latency.p99_9_us)),
        Figure::new("request max, ms", milliseconds(latency.max_us)),
    ]
}

/// Series that have samples of now get some of a year ago: all of them far out of order.
pub(super) fn backfill(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let set_up = round.set_up;
    let options = "--allow-backfill --retention 1000d";
    let server = Server::start_with(set_up, Cpus::First, 1, options)?;
    let ledger = set_up.scratch("ledger");
    let load = format!(
        "--cpu 1 --connections 16 --shape tsbs --protocol vm-json --step 10s --retry --ledger {}",
        ledger.display()
    );
    load::send(set_up, &server, &format!("{load} --points-per-series 6 --span 1m"))?;
    let year = format!("{load} --points-per-series 90 --span 1h --ago 365d");
    let sent = load::send(set_up, &server, &year)?;
    blocks::flush_whole(&server)?;
    load::verify(set_up, &server, &ledger)?;
    Ok(vec![
        Figure::new(POINTS_PER_SECOND, sent.report.points_per_second),
        Figure::new(CPU_PER_SAMPLE, sent.cpu_ns_per_point()),
        Figure::new("samples a year old, read back one by one", sent.report.points_acked as f64),
    ])
}
