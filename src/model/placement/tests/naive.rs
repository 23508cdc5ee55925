//! The same contest again, the way one would write it first: floats, sorting, no early exit.

use super::{Chance, ready};
use crate::model::placement::document::PULL_PER_WEIGHT;
use crate::model::placement::rendezvous::Draws;
use crate::model::placement::router::GroupIndex;
use crate::model::placement::{PlacedNode, PlacementDocument, Strategy};
use crate::model::series::{SLOT_COUNT, Slot};

/// -ln(u) / weight of all nodes, sorted; then zone by zone.
fn naive_owners(document: &PlacementDocument, slot: Slot) -> Vec<u16> {
    let draw = |node: &PlacedNode| {
        // The logarithm is taken back, so that this checks what is done with it.
        let exponent = Draws::of(node).exponent(slot) as f64 / 2_f64.powi(44);
        let uniform = (-exponent).exp2();
        -uniform.ln() / (f64::from(node.pull) / f64::from(PULL_PER_WEIGHT))
    };
    let mut order: Vec<(f64, u16)> =
        (0..).zip(&document.nodes).map(|(i, n)| (draw(n), i)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let zone_of = |index: u16| document.nodes[usize::from(index)].zone.as_ref();
    let mut owners: Vec<u16> = Vec::new();
    for &(_, index) in &order {
        let is_new = zone_of(index)
            .is_none_or(|zone| owners.iter().all(|&owner| zone_of(owner) != Some(zone)));
        if is_new && owners.len() < usize::from(document.replication) {
            owners.push(index);
        }
    }
    for &(_, index) in &order {
        if owners.len() < usize::from(document.replication) && !owners.contains(&index) {
            owners.push(index);
        }
    }
    owners
}

/// Fleets of all sorts. A slot in 100,000 may differ where two draws are nearly alike. Red when
/// `offer_one_per` keeps the worse of a zone, `would_take` is wrong about the last place, or
/// the key does not divide by the pull.
#[test]
fn the_contest_is_the_naive_one() {
    let mut chance = Chance::new(20);
    let mut differing = 0;
    for round in 0..24 {
        let zone_count = [0, 0, 1, 2, 3, 5][round % 6];
        let node_count = 3 + chance.below(14) as usize;
        let mut nodes = chance.nodes(node_count, zone_count);
        for node in &mut nodes {
            node.pull = 1 + chance.below(1 << [10, 20, 31][round % 3]) as u32;
            node.salt = chance.below(3) as u32;
        }
        let replication = 1 + (round % 3) as u8;
        let mut document = PlacementDocument {
            epoch: 1,
            start_ms: 0,
            replication,
            strategy: Strategy::Hash {},
            nodes,
        };
        document.sort();
        let placement = ready(&document);
        for slot in (0..SLOT_COUNT).step_by(4).map(Slot) {
            let naive = naive_owners(&document, slot);
            let ours = placement.table(GroupIndex(0)).owners(slot);
            differing += usize::from(naive != ours);
        }
    }
    assert!(differing <= 2, "{differing} of {}", 24 * 4096);
}

/// Of two nodes the one with three times the pull owns three quarters: the draws are uniform, and
/// the key is what a race of exponential variables needs.
#[test]
fn pull_is_a_weight() {
    let mut nodes = Chance::new(21).nodes(2, 0);
    nodes[0].pull = 3_000_000;
    nodes[1].pull = 1_000_000;
    let heavy = nodes[0].id;
    let (epoch, start_ms, replication, strategy) = (1, 0, 1, Strategy::Hash {});
    let mut document = PlacementDocument { epoch, start_ms, replication, strategy, nodes };
    document.sort();
    let owned = ready(&document).table(GroupIndex(0)).slots_owned(2);
    let index = document.find(heavy).expect("it is there");
    let share = f64::from(owned[index]) / f64::from(SLOT_COUNT);
    // Four standard deviations.
    assert!((share - 0.75).abs() < 0.0136, "{share}");
}
