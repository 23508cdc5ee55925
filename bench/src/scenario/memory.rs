//! Memory: for each series, and for each sample in the head.

use std::io;

use super::{MILLION, POINTS_PER_SECOND, Round, start_ms};
use crate::load;
use crate::outcome::Figure;
use crate::server::{Cpus, Server};

/// Samples of each series in the windows that compare a million series with 20,000.
const ROUNDS: u64 = 5;

/// Registration and memory of a million series, and ingest at a million beside ingest at 20,000:
/// the same number of samples, one of each series in turn, on fresh servers.
pub(super) fn million_series(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let few = {
        let server = Server::start(round.set_up, Cpus::First, 1)?;
        let load = "--cpu 1 --prebuild --series 20000";
        let start = start_ms();
        let warm_up = format!("{load} --points {MILLION} --start-timestamp {start}");
        let warmed = load::send(round.set_up, &server, &warm_up)?;
        let start = warmed.report.newest_timestamp_ms + 1000;
        let points = ROUNDS * MILLION;
        let options = format!("{load} --points {points} --start-timestamp {start}");
        load::send(round.set_up, &server, &options)?
    };
    let server = Server::start(round.set_up, Cpus::First, 1)?;
    let before = server.rss_bytes()?;
    let start = start_ms();
    let load = format!("--cpu 1 --prebuild --series {MILLION}");
    let options = format!("{load} --points {MILLION} --start-timestamp {start}");
    let new = load::send(round.set_up, &server, &options)?;
    let grown = server.rss_bytes()?.saturating_sub(before);
    let start = new.report.newest_timestamp_ms + 1000;
    let points = ROUNDS * MILLION;
    let options = format!("{load} --points {points} --start-timestamp {start}");
    let known = load::send(round.set_up, &server, &options)?;
    let share = 100.0 * known.report.points_per_second / few.report.points_per_second;
    let registered = new.report.points_per_second;
    let per_series = grown as f64 / MILLION as f64;
    Ok(vec![
        Figure::new("series registered per second", registered).at_least(300_000.0),
        Figure::new("server CPU per new series, ns", new.cpu_ns_per_point()),
        Figure::new("resident bytes per series of 11 labels", per_series).at_most(400.0),
        Figure::new("server CPU per sample of a known series, ns", known.cpu_ns_per_point()),
        Figure::new("samples acknowledged per second, a million series", {
            known.report.points_per_second
        }),
        Figure::new("samples acknowledged per second, 20,000 series", few.report.points_per_second),
        Figure::new("rate at a million, % of that at 20,000", share).at_least(70.0),
    ])
}

/// A thousand samples a series, so that the series themselves weigh little; they are counted
/// before.
pub(super) fn head_memory(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let server = Server::start(round.set_up, Cpus::First, 1)?;
    let load = "--cpu 1 --connections 16 --protocol vm-json --points-per-series 100";
    let start = start_ms();
    let options = format!("{load} --points {} --start-timestamp {start}", 2 * MILLION);
    let warmed = load::send(round.set_up, &server, &options)?;
    let before = server.rss_bytes()?;
    let start = warmed.report.newest_timestamp_ms + 1000;
    let options = format!("{load} --points {} --start-timestamp {start}", 20 * MILLION);
    let sent = load::send(round.set_up, &server, &options)?;
    let grown = server.rss_bytes()?.saturating_sub(before);
    let points = sent.report.points_acked as f64;
    Ok(vec![
        Figure::new("resident bytes per sample", grown as f64 / points),
        Figure::new("samples in the head", points),
        Figure::new(POINTS_PER_SECOND, sent.report.points_per_second),
    ])
}
