//! Figures of ARCHITECTURE.md and of comments: hundreds of random fleets, and how long it takes.
//! `cargo test --profile e2e --lib placement::tests::measure -- --ignored --nocapture`
#![cfg(test)]

use std::time::Instant;

use super::{Chance, found, plan_of, ready};
use crate::model::placement::fit::{Salts, fit_node};
use crate::model::placement::router::GroupIndex;
use crate::model::placement::{PlacementDocument, Strategy};

const SEEDS: u64 = 100;

/// Aims: what must hold for a fleet.
const DEVIATION_MAX: f64 = 0.05;
const MOVED_MAX: f64 = 1.05;

#[derive(Default)]
struct Figures(Vec<f64>);

impl Figures {
    fn at(&mut self, part: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[((self.0.len() - 1) as f64 * part) as usize]
    }

    fn within(&self, max: f64) -> f64 {
        self.0.iter().filter(|each| **each <= max).count() as f64 / self.0.len() as f64
    }
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

/// Founds fleets, adds a node, and prints how it went; `is_fitted` or plain rendezvous hashing.
fn print_aims(node_count: usize, replication: u8, zone_count: usize, is_fitted: bool) {
    let (mut even, mut by_weight) = (Figures::default(), Figures::default());
    let (mut moved, mut even_after) = (Figures::default(), Figures::default());
    let mut good = 0;
    for seed in 1..=SEEDS {
        let mut chance = Chance::new(seed * 7919);
        let before = plain(replication, &mut chance, (node_count, zone_count));
        let newcomer = chance.node(node_count, zone_count);
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
        let plan = plan_of(&before, &after);
        let group = &plan.groups[0];
        let [was, is] = [group.even_before, group.even_after].map(|each| each.expect("a group"));
        let ratio = group.moved_ratio().expect("a new node has a share");
        even.0.push(was.deviation);
        by_weight.0.push(was.deviation_by_weight);
        even_after.0.push(is.deviation);
        moved.0.push(ratio);
        good += u32::from(was.deviation < DEVIATION_MAX && ratio <= MOVED_MAX);
    }
    let percent = |value: f64| value * 100.0;
    println!(
        "{} nodes={node_count} R={replication} zones={zone_count}: deviation p50 {:.2} % p99 \
         {:.2} % (by weight p99 {:.2} %), moved p50 {:.3} p99 {:.3}, within 1.05 {:.1} %, \
         deviation after p99 {:.2} %, both aims {:.1} %",
        if is_fitted { "fitted" } else { "plain " },
        percent(even.at(0.5)),
        percent(even.at(0.99)),
        percent(by_weight.at(0.99)),
        moved.at(0.5),
        moved.at(0.99),
        percent(moved.within(MOVED_MAX)),
        percent(even_after.at(0.99)),
        percent(f64::from(good) / SEEDS as f64),
    );
}

#[test]
#[ignore = "a measurement"]
fn aims_over_many_fleets() {
    for is_fitted in [false, true] {
        for (node_count, zones) in [(3, [0, 3, 3]), (19, [0, 3, 5]), (40, [0, 3, 5])] {
            for replication in 1..=3 {
                for zone_count in zones.into_iter().take(if node_count == 3 { 2 } else { 3 }) {
                    print_aims(node_count, replication, zone_count, is_fitted);
                }
            }
        }
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
                    moved.0.push(plan.groups[0].moved_ratio().expect("a share"));
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
    for (node_count, replication, zone_count) in [(3, 2, 0), (40, 1, 0), (40, 3, 3), (1000, 3, 0)] {
        let mut chance = Chance::new(60);
        let nodes = chance.nodes(node_count, zone_count);
        let start = Instant::now();
        let document = found(replication, nodes);
        let founded = start.elapsed();
        let start = Instant::now();
        let placement = ready(&document);
        let table = start.elapsed();
        let start = Instant::now();
        document.with_node(0, chance.node(node_count, zone_count)).err();
        let added = start.elapsed();
        println!(
            "{node_count} nodes R={replication} zones={zone_count}: table {table:.1?}, first \
             document {founded:.1?}, one node more {added:.1?}, {} bytes of text",
            placement.document().encode().len()
        );
    }
}
