//! Simulations: state machines against faults that a seed decides, with everything checked after
//! each run.
//!
//! `TIDEGATE_SIM_SEEDS` is how many seeds are run (each test has its default: 3,230 in all, which
//! take about three minutes of two cores), from `TIDEGATE_SIM_FROM` on; `TIDEGATE_SIM_SEED` runs a
//! single one. A failing seed prints the command that repeats it. `scripts/sim` runs them for
//! hours, cuts a failing one short, and checks that they notice `mutations`.
//!
//! `log` is the log alone, `blocks` the blocks alone, `node` a node with everything in it, `hints`
//! what a gateway keeps for nodes that are down, `cluster` gateways, nodes and the network between
//! them; `fake_disk` is what the last four stand on, `oracle` what blocks and nodes are compared
//! with.

mod blocks;
mod cluster;
mod disk;
mod drive;
mod fake_disk;
mod hints;
mod log;
mod node;
mod oracle;
mod questions;
mod random;
mod series;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// After so many failed seeds the rest is left alone.
const FAILURES_MAX: u64 = 3;

/// Runs `simulate` with each seed on every core; panics with how to repeat those that failed.
fn run_seeds(test: &str, seeds: u64, simulate: impl Fn(u64) + Sync) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        return simulate(seed);
    }
    let from = number("TIDEGATE_SIM_FROM").unwrap_or(0);
    let end = from + number("TIDEGATE_SIM_SEEDS").unwrap_or(seeds);
    let failures_max = number("TIDEGATE_SIM_FAILURES").unwrap_or(FAILURES_MAX);
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(0));
    let run = || {
        while failed.load(Ordering::Relaxed) < failures_max {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            if catch_unwind(AssertUnwindSafe(|| simulate(seed))).is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("repeat it: TIDEGATE_SIM_SEED={seed} cargo test --test sim {test}");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run);
        }
    });
    assert_eq!(failed.into_inner(), 0, "seeds failed");
}

#[test]
fn log_keeps_what_it_acknowledged() {
    run_seeds("log_keeps_what_it_acknowledged", 600, log::simulate);
}

#[test]
fn log_loses_one_record_at_most_to_a_flipped_bit() {
    run_seeds("log_loses_one_record_at_most_to_a_flipped_bit", 400, log::simulate_rot);
}

#[test]
fn blocks_keep_what_they_published() {
    run_seeds("blocks_keep_what_they_published", 500, blocks::simulate);
}

#[test]
fn blocks_tell_damage() {
    run_seeds("blocks_tell_damage", 300, blocks::simulate_damage);
}

#[test]
fn node_keeps_what_it_acknowledged() {
    run_seeds("node_keeps_what_it_acknowledged", 300, node::simulate);
}

#[test]
fn hints_keep_what_they_acknowledged() {
    run_seeds("hints_keep_what_they_acknowledged", 600, hints::simulate);
}

#[test]
fn hints_tell_damage() {
    run_seeds("hints_tell_damage", 300, hints::simulate_damage);
}

#[test]
fn cluster_keeps_what_it_acknowledged() {
    run_seeds("cluster_keeps_what_it_acknowledged", 200, cluster::simulate);
}

#[test]
fn cluster_waits_only_for_what_it_must() {
    run_seeds("cluster_waits_only_for_what_it_must", 30, cluster::simulate_waits);
}
