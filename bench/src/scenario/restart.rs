//! How long a crash costs: until what the log holds is in memory again, and how long where most of
//! it is in blocks.

use std::io;

use super::{Round, start_ms};
use crate::blocks;
use crate::load::{self, Target as _};
use crate::outcome::Figure;
use crate::server::{Cpus, Server};

pub(super) fn restart_replay(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let mut server = Server::start(round.set_up, Cpus::First, 1)?;
    let empty = server.ready_after;
    let start = start_ms();
    let load = format!("--cpu 1 --duration {}s --start-timestamp {start}", round.seconds);
    let sent = load::send(round.set_up, &server, &load)?;
    server.kill_and_restart()?;
    let ready = server.ready_after;
    let replay = ready.saturating_sub(empty).as_secs_f64();
    let cpu_ns = server.cpu_ns() as f64;
    let points = sent.report.points_acked as f64;
    blocks::flush_whole(&server)?;
    server.kill_and_restart()?;
    let flushed = server.ready_after;
    Ok(vec![
        Figure::new("samples replayed", points),
        Figure::new("kill -9 to ready, s", ready.as_secs_f64()),
        Figure::new("samples replayed per second", points / replay.max(1e-3)),
        Figure::new("server CPU per replayed sample, ns", cpu_ns / points),
        Figure::new("kill -9 to ready behind a flush, s", flushed.as_secs_f64()),
    ])
}
