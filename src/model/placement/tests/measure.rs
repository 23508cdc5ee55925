//! Figures of ARCHITECTURE.md and of comments: many random fleets, and how long it takes.
//! `cargo test --profile e2e --lib placement::tests::measure -- --ignored --nocapture`
//! `TIDEGATE_FLEETS=2000` is for more of them.
#![cfg(test)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::{Chance, found, moved_ratio, plan_of, ready};
use crate::model::placement::fit::{Salts, fit_node};
use crate::model::placement::router::GroupIndex;
use crate::model::placement::{Placement, PlacementDocument, Strategy, plan};
use crate::model::series::{SLOT_COUNT, Slot};

/// Without `TIDEGATE_FLEETS`.
const FLEETS: u64 = 1000;
/// Aims: what must hold for a fleet.
const DEVIATION_MAX: f64 = 0.05;
const MOVED_MAX: f64 = 1.05;
/// In how many ways zones are laid out.
const LAYOUTS: [(usize, &[usize]); 3] = [(3, &[0, 3]), (19, &[0, 3, 5]), (40, &[0, 3, 5])];

#[derive(Default)]
struct Figures(Vec<f64>);

impl Figures {
    fn at(&mut self, part: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[((self.0.len() - 1) as f64 * part) as usize]
    }
}

/// What a fleet was like, and became with a node more.
#[derive(Clone, Copy)]
struct Fleet {
    deviation: f64,
    deviation_by_weight: f64,
    deviation_after: f64,
    moved: f64,
}

fn fleets() -> u64 {
    std::env::var("TIDEGATE_FLEETS").ok().and_then(|text| text.parse().ok()).unwrap_or(FLEETS)
}

/// `make` of each seed, on all cores.
fn of_seeds<T: Send>(make: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicU64::new(1), Mutex::new(Vec::new()));
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed > fleets() {
            return;
        }
        let one = make(seed);
        done.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(work);
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn plain(
    replication: u8,
    chance: &mut Chance,
    (nodes, zones): (usize, usize),
) -> PlacementDocument {
    let nodes = chance.nodes(nodes, zones);
    let (epoch, start_ms, strategy) = (1, 0, Strategy::Hash {});
    let mut document = PlacementDocument { epoch, start_ms, replication, strategy, nodes };
    document.sort();
    document
}

/// Owners are distinct, and stand in as many zones as there are, or owners.
fn check_owners(placement: &Placement, zone_count: usize) {
    let nodes = &placement.document().nodes;
    for slot in (0..SLOT_COUNT).map(Slot) {
        let owners = placement.table(GroupIndex(0)).owners(slot);
        let zone_of = |owner: u16| nodes[usize::from(owner)].zone.as_deref();
        let mut zones = Vec::with_capacity(owners.len());
        for (at, owner) in owners.iter().enumerate() {
            assert!(!owners[..at].contains(owner), "{owners:?} of {slot:?}");
            if !zones.contains(&zone_of(*owner)) {
                zones.push(zone_of(*owner));
            }
        }
        let want = if zone_count == 0 { 1 } else { zone_count.min(owners.len()) };
        assert_eq!(zones.len(), want, "zones of {slot:?}");
    }
}

/// Founds a fleet, fitted or plain, and adds a node.
fn grow(seed: u64, (nodes, zones): (usize, usize), replication: u8, is_fitted: bool) -> Fleet {
    let mut chance = Chance::new(seed * 7919);
    let before = plain(replication, &mut chance, (nodes, zones));
    let newcomer = chance.node(nodes, zones);
    let (before, after) = if is_fitted {
        let before = found(replication, before.nodes);
        let after = before.with_node(0, newcomer).expect("a good node");
        (before, after)
    } else {
        let mut after = before.clone();
        after.epoch += 1;
        after.nodes.push(newcomer);
        after.sort();
        (before, after)
    };
    let (was, is) = (ready(&before), ready(&after));
    check_owners(&was, zones);
    check_owners(&is, zones);
    let plan = plan(&was, &is);
    let group = &plan.groups[0];
    let [was, is] = [group.even_before, group.even_after].map(|each| each.expect("a group"));
    Fleet {
        deviation: was.deviation,
        deviation_by_weight: was.deviation_by_weight,
        deviation_after: is.deviation,
        moved: moved_ratio(group).expect("a new node has a share"),
    }
}

fn print_aims((nodes, zones): (usize, usize), replication: u8, is_fitted: bool) {
    let fleets = of_seeds(|seed| grow(seed, (nodes, zones), replication, is_fitted));
    let figures = |of: fn(&Fleet) -> f64| Figures(fleets.iter().map(of).collect());
    let mut even = figures(|fleet| fleet.deviation);
    let mut after = figures(|fleet| fleet.deviation_after);
    let mut by_weight = figures(|fleet| fleet.deviation_by_weight);
    let mut moved = figures(|fleet| fleet.moved);
    let is_good = |fleet: &&Fleet| fleet.deviation < DEVIATION_MAX && fleet.moved <= MOVED_MAX;
    let good = fleets.iter().filter(is_good).count() as f64 / fleets.len() as f64;
    println!(
        "| {nodes} | {replication} | {zones} | {} | {} | {:.1} % | {:.2} % | {:.2} % | {:.2} % | \
         {:.2} % | {:.4} |",
        if is_fitted { "fitted" } else { "plain" },
        fleets.len(),
        good * 100.0,
        even.at(0.99) * 100.0,
        even.at(1.0) * 100.0,
        by_weight.at(1.0) * 100.0,
        after.at(0.99) * 100.0,
        moved.at(1.0),
    );
}

#[test]
#[ignore = "a measurement"]
fn aims_over_many_fleets() {
    println!(
        "| nodes | owners | zones | draws | fleets | both aims | deviation p99 | worst | worst by \
         weight | p99 with one more | worst moved |\n|---:|---:|---:|---|---:|---:|---:|---:|---:|\
         ---:|---:|"
    );
    for (nodes, zones) in LAYOUTS {
        for replication in 1..=3 {
            // One owner needs no zones.
            for &zones in zones.iter().filter(|zones| replication > 1 || **zones == 0) {
                print_aims((nodes, zones), replication, false);
                print_aims((nodes, zones), replication, true);
            }
        }
    }
}

/// From 3 nodes to 10, one by one.
#[test]
#[ignore = "a measurement"]
fn growth_from_three_to_ten() {
    println!("| owners | zones | fleets | deviation of 3 to 10 nodes, worst | worst moved |");
    println!("|---:|---:|---:|---|---:|");
    for (replication, zones) in [(1, 0), (2, 0), (3, 0), (2, 3), (3, 3)] {
        let fleets = of_seeds(|seed| {
            let mut chance = Chance::new(seed * 15_485_863);
            let mut document = found(replication, chance.nodes(3, zones));
            let mut deviations = vec![ready(&document).evenness(GroupIndex(0)).deviation];
            let mut moved: f64 = 0.0;
            for index in 3..10 {
                let next = document.with_node(0, chance.node(index, zones)).expect("a good node");
                let plan = plan_of(&document, &next);
                let group = &plan.groups[0];
                deviations.push(group.even_after.expect("a group").deviation);
                moved = moved.max(moved_ratio(group).expect("a share"));
                document = next;
            }
            (deviations, moved)
        });
        let of_step = |step: usize| fleets.iter().map(move |(each, _)| each[step]);
        let worst = |step| format!("{:.2}", of_step(step).fold(0.0, f64::max) * 100.0);
        let moved = fleets.iter().map(|(_, moved)| *moved).fold(0.0, f64::max);
        let steps: Vec<String> = (0..8).map(worst).collect();
        println!(
            "| {replication} | {zones} | {} | {} % | {moved:.4} |",
            fleets.len(),
            steps.join(", ")
        );
    }
}

/// From 3 to 40 nodes one by one, by how many salts are tried.
#[test]
#[ignore = "a measurement"]
fn growth_by_salts() {
    for salts in [1, 8, 32, 256] {
        let (mut even, mut moved) = (Figures::default(), Figures::default());
        for seed in 1..=20 {
            let mut chance = Chance::new(seed * 104_729);
            let mut document = found(1, chance.nodes(3, 0));
            for index in 3..40 {
                let node = chance.node(index, 0);
                let id = node.id;
                let mut next = document.clone();
                next.epoch += 1;
                next.nodes.push(node);
                next.sort();
                let place = next.find(id).expect("it was just added");
                fit_node(&mut next, place, Salts::First(salts));
                if index >= 30 {
                    let plan = plan_of(&document, &next);
                    moved.0.push(moved_ratio(&plan.groups[0]).expect("a share"));
                }
                document = next;
            }
            even.0.push(ready(&document).evenness(GroupIndex(0)).deviation);
        }
        println!(
            "grown to 40, {salts} salts: deviation p50 {:.2} % worst {:.2} %, moved worst {:.4}",
            even.at(0.5) * 100.0,
            even.at(1.0) * 100.0,
            moved.at(1.0)
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn how_long_it_takes() {
    for (node_count, replication, zone_count) in [(3, 2, 0), (40, 1, 0), (40, 3, 3), (999, 3, 0)] {
        let mut chance = Chance::new(60);
        let nodes = chance.nodes(node_count, zone_count);
        let start = Instant::now();
        let document = found(replication, nodes);
        let founded = start.elapsed();
        let start = Instant::now();
        let placement = ready(&document);
        let table = start.elapsed();
        let start = Instant::now();
        document.with_node(0, chance.node(node_count, zone_count)).expect("a good node");
        let added = start.elapsed();
        println!(
            "{node_count} nodes R={replication} zones={zone_count}: table {table:.1?}, first \
             document {founded:.1?}, one node more {added:.1?}, {} bytes of text",
            placement.document().encode().len()
        );
    }
}
