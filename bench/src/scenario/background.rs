//! What flush, merge and snapshots cost, and what requests see of them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use loadgen::report::Latency;

use super::{MILLION, Round, milliseconds, range_start_ms, start_ms};
use crate::blocks;
use crate::load::{self, Measured};
use crate::outcome::Figure;
use crate::server::{Cpus, Server};
use crate::threads::{CpuByRole, ThreadWatch};

/// Ranges of two hours that are sent one after the other, each flushed while the next is sent.
const RANGES: i64 = 6;
/// Every snapshot reads the whole head: with so little log there are several in a run.
const SNAPSHOTS: &str = "--log-bytes-max 256MiB";
/// Times that quiet and busy windows take turns.
const TURNS: usize = 2;

/// Twelve hours of TSBS' devops, 14.4 million samples a range.
pub(super) fn cost(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let quiet = send_ranges(round, "", |_| Ok(()))?;
    let busy = send_ranges(round, SNAPSHOTS, |server| {
        blocks::flush(server)?;
        blocks::compact(server)
    })?;
    let per_sample = |sent: &Sent, ns: u64| ns as f64 / sent.points.max(1) as f64;
    let shards = per_sample(&busy, busy.cpu.shards_ns);
    let shards_alone = per_sample(&quiet, quiet.cpu.shards_ns);
    let background = per_sample(&busy, busy.cpu.background_ns);
    // A flush also takes the shard's time, which hands its chunks over.
    let total = background + (shards - shards_alone).max(0.0);
    Ok(vec![
        Figure::new("background work per sample, all threads, ns", total).at_most(60.0),
        Figure::new("CPU of background threads per sample, ns", background),
        Figure::new("CPU of shards per sample with it, ns", shards),
        Figure::new("CPU of shards per sample without, ns", shards_alone),
        Figure::new("CPU of background threads per sample without, ns", {
            per_sample(&quiet, quiet.cpu.background_ns)
        }),
        Figure::new("CPU of other threads per sample with it, ns", {
            per_sample(&busy, busy.cpu.others_ns)
        }),
        Figure::new("samples", busy.points as f64),
        Figure::new("snapshots", busy.snapshots),
    ])
}

/// What a run was, and what it cost.
struct Sent {
    cpu: CpuByRole,
    points: u64,
    snapshots: f64,
}

/// Sends the ranges; `behind` runs beside the load once each range is in, and is waited for.
fn send_ranges(
    round: &Round<'_>,
    options: &str,
    behind: impl Fn(&Server<'_>) -> io::Result<()> + Sync,
) -> io::Result<Sent> {
    let server = Server::start_with(round.set_up, Cpus::All, 1, options)?;
    let watch = ThreadWatch::start(server.pid());
    let first = range_start_ms(RANGES + 1);
    let mut points = 0;
    thread::scope(|scope| {
        let mut running: Option<thread::ScopedJoinHandle<'_, io::Result<()>>> = None;
        for range in 0..RANGES {
            let start = first + range * super::BLOCK_RANGE_MS;
            let load = format!(
                "--shape tsbs --series 20000 --connections 8 --retry --protocol vm-json \
                 --points-per-series 30 --start {start} --span 2h --step 10s"
            );
            points += load::send(round.set_up, &server, &load)?.report.points_acked;
            wait(running.take())?;
            running = Some(scope.spawn(|| behind(&server)));
        }
        wait(running)
    })?;
    let cpu = watch.finish();
    Ok(Sent { cpu, points, snapshots: blocks::metric(&server, "tidegate_log_snapshots_total")? })
}

fn wait(running: Option<thread::ScopedJoinHandle<'_, io::Result<()>>>) -> io::Result<()> {
    let panicked = |_| io::Error::other("the thread beside the load panicked");
    running.map_or(Ok(()), |running| running.join().map_err(panicked)?)
}

/// An open loop of a million samples a second, a thousand a request, latency counted from when a
/// request was due.
pub(super) fn acks(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let server = Server::start_with(round.set_up, Cpus::All, 1, SNAPSHOTS)?;
    let load = "--connections 16 --points-per-request 1000";
    let warm_up = format!("{load} --points {} --start-timestamp {}", 10 * MILLION, start_ms());
    let mut newest = load::send(round.set_up, &server, &warm_up)?.report.newest_timestamp_ms;
    let (mut quiet, mut busy, mut flushes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..TURNS {
        for (latencies, is_busy) in [(&mut quiet, false), (&mut busy, true)] {
            let start = newest + 1000;
            let seconds = round.seconds;
            let load = format!("{load} --rate 1e6 --duration {seconds}s --start-timestamp {start}");
            let send = || load::send(round.set_up, &server, &load);
            let measured = if is_busy {
                let (measured, count) = while_flushing(&server, send)?;
                flushes += count;
                measured
            } else {
                send()?
            };
            newest = measured.report.newest_timestamp_ms;
            latencies.push(measured.report.latency);
        }
    }
    let mean = |latencies: &[Latency], pick: fn(&Latency) -> u64| {
        let sum: u64 = latencies.iter().map(pick).sum();
        milliseconds(sum) / latencies.len().max(1) as f64
    };
    Ok(vec![
        Figure::new("request p50, ms, quiet", mean(&quiet, |latency| latency.p50_us)),
        Figure::new("request p50, ms, flush and merge", mean(&busy, |latency| latency.p50_us)),
        Figure::new("request p99, ms, quiet", mean(&quiet, |latency| latency.p99_us)),
        Figure::new("request p99, ms, flush and merge", mean(&busy, |latency| latency.p99_us)),
        Figure::new("request p99.9, ms, quiet", mean(&quiet, |latency| latency.p99_9_us)),
        Figure::new("request p99.9, ms, flush and merge", mean(&busy, |latency| latency.p99_9_us)),
        Figure::new("flushes and merges in the windows", f64::from(flushes)),
    ])
}

/// Flushes and merges, again and again, for as long as `work` takes; how often.
fn while_flushing(
    server: &Server<'_>,
    work: impl FnOnce() -> io::Result<Measured>,
) -> io::Result<(Measured, u32)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let flusher = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                blocks::flush(server)?;
                blocks::compact(server)?;
                count += 1;
            }
            Ok(count)
        });
        let measured = work();
        done.store(true, Ordering::Relaxed);
        let panicked = |_| io::Error::other("the flushing thread panicked");
        let count: io::Result<u32> = flusher.join().map_err(panicked)?;
        Ok((measured?, count?))
    })
}
