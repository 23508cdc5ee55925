//! A gateway and two nodes: what a sample costs over all three processes, how fast a node that was
//! down gets what it missed, and how long clients see errors when one is killed.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::ingest::Window;
use super::{MILLION, Round, milliseconds, start_ms};
use crate::fleet::Fleet;
use crate::load::{self, Target as _};
use crate::outcome::Figure;
use crate::process::Cpus;

const REMOTE_WRITE: &str = "--cpu 1 --connections 16";
/// Bytes of frames, and the samples in them, that the gateway sent to nodes.
const FRAME_BYTES: &str = "tidegate_link_frame_bytes_total";
const ROWS: &str = "tidegate_link_rows_total";
const HINTS_WAITING: &str = "tidegate_hint_samples";
const HINTS_DELIVERED: &str = "tidegate_hint_delivered_samples_total";
const KNOWN_SERIES: &str = "tidegate_link_known_series";
/// What the nodes know when a new gateway comes.
const SERIES: u64 = 5_000_000;
/// How often the drain is looked at: a scrape costs about a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(300);
/// Before and after the kill.
const FAILOVER_SECONDS: u64 = 5;

/// Each sample on one node.
pub(super) fn remote_write(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    ingest(round, 1, &Window { load: REMOTE_WRITE, mib_per_s: 150, aim: Some(300.0) })
}

/// Each sample on both.
pub(super) fn remote_write_2(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    ingest(round, 2, &Window { load: REMOTE_WRITE, mib_per_s: 150, aim: Some(420.0) })
}

pub(super) fn vm_json(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let load = "--cpu 1 --connections 16 --protocol vm-json --points-per-series 100";
    ingest(round, 1, &Window { load, mib_per_s: 400, aim: Some(80.0) })
}

fn ingest(round: &Round<'_>, replication: u8, window: &Window) -> io::Result<Vec<Figure>> {
    let fleet = Fleet::start(round.set_up, Cpus::First, (2, replication))?;
    // The series get their names across before the window.
    let warm_until_ms = window.warm_up(round, &fleet)?;
    let before = (fleet.metric(FRAME_BYTES)?, fleet.metric(ROWS)?);
    let mut figures = window.measure_warm(round, &fleet, warm_until_ms)?;
    let bytes = fleet.metric(FRAME_BYTES)? - before.0;
    let rows = fleet.metric(ROWS)? - before.1;
    figures
        .insert(1, Figure::new("bytes on links per sample and owner", bytes / rows).at_most(22.0));
    Ok(figures)
}

/// A node is down for as long as a window; then it is back, and nothing else is sent.
pub(super) fn hints(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let mut fleet = Fleet::start(round.set_up, Cpus::All, (2, 2))?;
    let start = start_ms();
    let warm_up = format!("--connections 8 --duration 1s --start-timestamp {start}");
    let warmed = load::send(round.set_up, &fleet, &warm_up)?;
    fleet.last_node().kill();
    let start = warmed.report.newest_timestamp_ms + 1000;
    let away = format!(
        "--connections 8 --retry --duration {}s --start-timestamp {start}",
        round.seconds + FAILOVER_SECONDS
    );
    load::send(round.set_up, &fleet, &away)?;
    let waiting = fleet.metric(HINTS_WAITING)?;
    let cpu_before_ns = fleet.cpu_ns();
    let back_after = fleet.restart_last_node()?;
    // From the first of them on: that the gateway looks for the node once a second is not its
    // speed, and is said apart.
    let (begun, begun_with) = wait_until(&fleet, |_, delivered| delivered > 0.0)?;
    let (drained, delivered) = wait_until(&fleet, |waiting, _| waiting == 0.0)?;
    let seconds = (drained - begun).as_secs_f64();
    let cpu_ns = fleet.cpu_ns().saturating_sub(cpu_before_ns) as f64;
    Ok(vec![
        Figure::new("hints delivered per second", (delivered - begun_with) / seconds)
            .at_least(2.0 * MILLION as f64),
        Figure::new("samples that waited", waiting),
        Figure::new("drain, s", seconds),
        Figure::new("kill -9 to ready, s", back_after.as_secs_f64()),
        Figure::new("CPU per hint, ns", cpu_ns / delivered.max(1.0)),
    ])
}

/// Looks at the hints until they are as `is_enough` wants them: waiting, delivered.
fn wait_until(
    fleet: &Fleet<'_>,
    is_enough: impl Fn(f64, f64) -> bool,
) -> io::Result<(Instant, f64)> {
    let deadline = Instant::now() + DRAIN_WAIT_MAX;
    loop {
        let (waiting, delivered) = (fleet.metric(HINTS_WAITING)?, fleet.metric(HINTS_DELIVERED)?);
        let now = Instant::now();
        if is_enough(waiting, delivered) {
            return Ok((now, delivered));
        }
        if now > deadline {
            let text = format!("the hints don't drain: {waiting} wait, {delivered} are delivered");
            return Err(io::Error::other(text));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// A gateway that knows nothing in front of nodes that know millions of series.
pub(super) fn warm(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let mut fleet = Fleet::start(round.set_up, Cpus::All, (2, 1))?;
    let fill = format!(
        "--connections 8 --series {SERIES} --points {SERIES} --step 1s --start-timestamp {}",
        start_ms()
    );
    load::send(round.set_up, &fleet, &fill)?;
    let known = fleet.metric(KNOWN_SERIES)?;
    let before = Instant::now();
    let ready_after = fleet.replace_gateway()?;
    let deadline = before + DRAIN_WAIT_MAX;
    while fleet.metric(KNOWN_SERIES)? < known {
        if Instant::now() > deadline {
            return Err(io::Error::other("the new gateway does not learn what the nodes know"));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(vec![
        Figure::new("kill -9 to warm, s", before.elapsed().as_secs_f64()).at_most(10.0),
        Figure::new("kill -9 to ready, s", ready_after.as_secs_f64()),
        Figure::new("series", known),
    ])
}

/// One node of two is killed in the middle of a steady load that both store.
pub(super) fn failover(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let fleet = Fleet::start(round.set_up, Cpus::All, (2, 2))?;
    let ledger = round.set_up.scratch("ledger");
    let load = format!(
        "--connections 8 --series 2000 --points-per-request 500 --rate 200000 --retry \
         --duration {}s --ledger {}",
        2 * FAILOVER_SECONDS,
        ledger.display()
    );
    let node = fleet.last_node();
    let sent = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(FAILOVER_SECONDS));
            node.kill();
        });
        load::send(round.set_up, &fleet, &load)
    })?;
    load::verify(round.set_up, &fleet, &ledger)?;
    let report = &sent.report;
    let failing_s = report.failing_ms_max as f64 / 1000.0;
    let failed: u64 =
        report.statuses.iter().filter(|(status, _)| *status != "204").map(|s| s.1).sum();
    Ok(vec![
        Figure::new("longest time that a client saw errors, s", failing_s).at_most(2.0),
        Figure::new("request max, ms", milliseconds(report.latency.max_us)),
        Figure::new("requests that failed and were sent again", failed as f64),
        Figure::new("samples acknowledged, read back one by one", report.points_acked as f64),
    ])
}
