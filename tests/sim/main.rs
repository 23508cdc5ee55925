//! Simulations: state machines against faults that a seed decides, with everything checked after
//! each run.
//!
//! `TIDEGATE_SIM_SEEDS` is how many seeds are run (default 500), `TIDEGATE_SIM_SEED` runs a single
//! one. A failing seed prints the command that repeats it.

mod blocks;
mod disk;
mod drive;
mod fake_disk;
mod log;
mod node;
mod oracle;
mod questions;
mod random;
mod series;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS_DEFAULT: u64 = 500;
/// After so many failed seeds the rest is left alone.
const FAILURES_MAX: u64 = 3;

/// Runs `simulate` with each seed on every core; panics with how to repeat those that failed.
fn run_seeds(test: &str, simulate: impl Fn(u64) + Sync) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        return simulate(seed);
    }
    let count = number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let failures_max = number("TIDEGATE_SIM_FAILURES").unwrap_or(FAILURES_MAX);
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let run = || {
        while failed.load(Ordering::Relaxed) < failures_max {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count {
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
    run_seeds("log_keeps_what_it_acknowledged", log::simulate);
}

#[test]
fn log_loses_one_record_at_most_to_a_flipped_bit() {
    run_seeds("log_loses_one_record_at_most_to_a_flipped_bit", log::simulate_rot);
}

#[test]
fn blocks_keep_what_they_published() {
    run_seeds("blocks_keep_what_they_published", blocks::simulate);
}

#[test]
fn blocks_tell_damage() {
    run_seeds("blocks_tell_damage", blocks::simulate_damage);
}

#[test]
fn node_keeps_what_it_acknowledged() {
    run_seeds("node_keeps_what_it_acknowledged", node::simulate);
}
