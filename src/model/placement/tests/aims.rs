//! What placement is for: distinct owners, zones, even load, little movement.
//! A few seeds each, as debug builds are slow; hundreds in `measure.rs`.

use std::collections::BTreeSet;

use super::{Chance, found, moved_ratio, plan_of, ready};
use crate::model::placement::router::GroupIndex;
use crate::model::placement::{NodeId, PlacedNode, Placement, PlacementDocument};
use crate::model::series::{SLOT_COUNT, Slot};

fn owners(placement: &Placement, slot: u16) -> Vec<&PlacedNode> {
    let indices = placement.table(GroupIndex(0)).owners(Slot(slot));
    indices.iter().map(|&index| &placement.document().nodes[usize::from(index)]).collect()
}

fn owner_ids(placement: &Placement, slot: u16) -> BTreeSet<NodeId> {
    owners(placement, slot).iter().map(|node| node.id).collect()
}

/// Red when `winners` fills up with a node that is there already, or `best_of_zones` takes two of
/// one zone while another is left.
#[track_caller]
fn check_owners(document: &PlacementDocument) {
    let placement = ready(document);
    let zones: BTreeSet<_> = document.nodes.iter().filter_map(|node| node.zone.clone()).collect();
    let replication = usize::from(document.replication);
    for slot in 0..SLOT_COUNT {
        let owners = owners(&placement, slot);
        let ids: BTreeSet<_> = owners.iter().map(|node| node.id).collect();
        assert_eq!(ids.len(), replication, "owners of slot {slot} are distinct");
        let of_owners: BTreeSet<_> = owners.iter().filter_map(|node| node.zone.clone()).collect();
        assert_eq!(of_owners.len(), zones.len().min(replication), "zones of slot {slot}");
    }
}

/// Founds a fleet, adds a node, and removes it again.
#[track_caller]
fn check_fleet(node_count: usize, replication: u8, zone_count: usize, seed: u64) {
    let say = format!("nodes={node_count} R={replication} zones={zone_count} seed={seed}");
    let mut chance = Chance::new(seed);
    let before = found(replication, chance.nodes(node_count, zone_count));
    check_owners(&before);
    let even = ready(&before).evenness(GroupIndex(0));
    // Red when `fit_all` stops after its first round.
    assert!(even.deviation < 0.01, "{say}: {even:?}");
    assert!(even.deviation_by_weight < 0.05, "{say}: {even:?}");
    let newcomer = chance.node(node_count, zone_count);
    let id = newcomer.id;
    let after = before.with_node(0, newcomer).expect("a good node");
    check_owners(&after);
    let plan = plan_of(&before, &after);
    let group = &plan.groups[0];
    // Red when `fit_node` leaves the pull as it was, or also fits another node.
    let ratio = moved_ratio(group).expect("a new node has a share");
    assert!((0.99..=1.05).contains(&ratio), "{say}: moved {ratio}");
    // Red when a key depends on anything but its own node.
    let gained_by_others = group.nodes.iter().filter(|node| node.id != id);
    assert_eq!(gained_by_others.map(|node| node.slots_gained).sum::<u32>(), 0, "{say}");
    let without = after.without_node(0, id).expect("nodes enough");
    let (was, is) = (ready(&before), ready(&without));
    for slot in 0..SLOT_COUNT {
        assert_eq!(owner_ids(&was, slot), owner_ids(&is, slot), "{say}: a node came and went");
    }
}

#[test]
fn three_nodes() {
    for seed in 1..=3 {
        for replication in 1..=3 {
            check_fleet(3, replication, 0, seed);
            check_fleet(3, replication, 3, seed);
        }
    }
}

#[test]
fn nineteen_nodes() {
    for replication in 1..=3 {
        check_fleet(19, replication, 0, 4);
        check_fleet(19, replication, 5, 5);
    }
}

#[test]
fn forty_nodes() {
    for replication in 1..=3 {
        check_fleet(40, replication, 0, 6);
        check_fleet(40, replication, 3, 7);
    }
}

/// Fewer zones than owners: both zones own every slot, the third owner is any of the rest.
#[test]
fn two_zones_for_three_owners() {
    check_fleet(8, 3, 2, 8);
    check_fleet(6, 3, 1, 9);
}

/// Each node that leaves a larger fleet leaves only its slots: those that it did not own keep their
/// owners. Red when a key depends on the index of a node instead of its id.
#[test]
fn only_the_slots_of_a_node_that_leaves_move() {
    for (zone_count, replication) in [(0, 1), (0, 3), (3, 2), (2, 3)] {
        let before = found(replication, Chance::new(10).nodes(9, zone_count));
        let was = ready(&before);
        for gone in &before.nodes {
            let after = before.without_node(0, gone.id).expect("nodes enough");
            let is = ready(&after);
            for slot in 0..SLOT_COUNT {
                let (was, is) = (owner_ids(&was, slot), owner_ids(&is, slot));
                if was.contains(&gone.id) {
                    assert_eq!(was.intersection(&is).count(), was.len() - 1, "slot {slot}");
                } else {
                    assert_eq!(was, is, "slot {slot}");
                }
            }
        }
    }
}

/// With the plain draw, nodes of weights 200 and 100 own 80 % and 60 % with two owners of three.
/// Red when `shares` leaves out the weights, or pulls are not corrected.
#[test]
fn weights_are_kept_with_replicas() {
    let mut nodes = Chance::new(11).nodes(9, 0);
    for (index, node) in nodes.iter_mut().enumerate() {
        node.weight = [50, 100, 300][index % 3];
    }
    for replication in 1..=3 {
        let even = ready(&found(replication, nodes.clone())).evenness(GroupIndex(0));
        assert!(even.deviation < 0.01, "R={replication} {even:?}");
        // Three of the nodes own 2/3 of all between them: with three owners 2/3 of the slots each.
        assert!(even.deviation_by_weight < 0.01, "R={replication} {even:?}");
    }
}

/// A node whose weight is over its limit owns every slot, and the others share the rest.
#[test]
fn a_node_owns_a_slot_once() {
    let mut nodes = Chance::new(12).nodes(4, 0);
    nodes[1].weight = 900;
    let heavy = nodes[1].id;
    let document = found(2, nodes);
    let owned = ready(&document).table(GroupIndex(0)).slots_owned(4);
    for (node, owned) in document.nodes.iter().zip(owned) {
        let want = if node.id == heavy { f64::from(SLOT_COUNT) } else { 16384.0 / 3.0 };
        assert!((f64::from(owned) / want - 1.0).abs() < 0.02, "{owned} of {want}");
    }
}

/// What zones allow, of all slots, for each node: by right, and after the contest. Red when
/// `shares` leaves out the weights within a zone, that a node owns a slot once, or that a zone does
/// where zones suffice for all owners.
#[test]
fn zones_bend_what_weights_ask_for() {
    #[track_caller]
    fn check(replication: u8, nodes: &[(&str, u32, f64)]) {
        let mut placed = Chance::new(18).nodes(nodes.len(), 0);
        placed.sort_by_key(|node| node.id);
        for (node, (zone, weight, _)) in placed.iter_mut().zip(nodes) {
            (node.zone, node.weight) = (Some((*zone).into()), *weight);
        }
        let document = found(replication, placed);
        let plan = plan_of(&document, &document);
        for (change, (.., share)) in plan.groups[0].nodes.iter().zip(nodes) {
            let want = share * f64::from(SLOT_COUNT);
            assert!((change.fair_after / want - 1.0).abs() < 1e-6, "by right {want}: {change:?}");
            let owned = f64::from(change.slots_after);
            assert!((owned / want - 1.0).abs() < 0.01, "{want}: {change:?}");
        }
    }
    check(2, &[("a", 100, 0.25), ("a", 300, 0.75), ("b", 100, 0.5), ("b", 100, 0.5)]);
    let third = 1.0 / 3.0;
    check(2, &[("a", 900, 1.0), ("a", 100, third), ("a", 100, third), ("a", 100, third)]);
    let half = ("a", 100, 0.5);
    check(3, &[half, half, half, half, ("b", 1, 1.0)]);
    check(2, &[("a", 500, 0.5), ("a", 500, 0.5), ("b", 100, 0.5), ("c", 100, 0.5)]);
}

/// Another weight moves what the node gains or loses, and nothing else.
#[test]
fn another_weight_moves_only_what_it_asks_for() {
    let before = found(2, Chance::new(13).nodes(10, 0));
    let id = before.nodes[4].id;
    for weight in [50, 200] {
        let after = before.with_weights(0, &[(id, weight)]).expect("a good weight");
        assert_eq!(after.nodes[4].salt, before.nodes[4].salt);
        let plan = plan_of(&before, &after);
        let group = &plan.groups[0];
        let ratio = moved_ratio(group).expect("it has another share");
        assert!((0.98..=1.05).contains(&ratio), "weight {weight}: {ratio}");
        for node in group.nodes.iter().filter(|node| node.id != id) {
            assert_eq!(node.slots_gained.min(node.slots_lost), 0, "{node:?}");
            let of_heavier = if weight > 100 { node.slots_gained } else { node.slots_lost };
            assert_eq!(of_heavier, 0, "{node:?}");
        }
    }
}

/// An owner more for each slot, and those that were stay.
#[test]
fn more_replicas_keep_the_owners() {
    let one = found(1, Chance::new(14).nodes(7, 0));
    let two = one.with_replication(0, 2).expect("nodes enough");
    let plan = plan_of(&one, &two);
    assert_eq!(plan.groups[0].slots_moved, u32::from(SLOT_COUNT));
    assert_eq!(plan.groups[0].slots_owned_after, 2 * u32::from(SLOT_COUNT));
    assert_eq!(plan.groups[0].nodes.iter().map(|node| node.slots_lost).sum::<u32>(), 0);
}

/// Addresses and shards are not drawn with.
#[test]
fn another_address_moves_nothing() {
    let before = found(2, Chance::new(15).nodes(5, 0));
    let id = before.nodes[2].id;
    let after = before.with_link(0, id, ("[fd00::7]:1000", 16)).expect("a good address");
    assert_ne!(before, after);
    let plan = plan_of(&before, &after);
    assert_eq!((plan.groups[0].slots_moved, plan.is_resharded), (0, false));
    assert_eq!(moved_ratio(&plan.groups[0]), None);
}

/// A fleet that grows one by one stays even, because salts are chosen. Red when `fit_node` takes
/// the first salt.
#[test]
fn a_fleet_that_grows_stays_even() {
    let mut chance = Chance::new(16);
    let mut document = found(1, chance.nodes(3, 0));
    for index in 3..12 {
        document = document.with_node(0, chance.node(index, 0)).expect("a good node");
    }
    let even = ready(&document).evenness(GroupIndex(0));
    assert!(even.deviation < 0.012, "{even:?}");
}

/// The plan's numbers fit together and with a count made another way.
#[test]
fn plans_add_up() {
    let mut random = Chance::new(17);
    let before = found(2, random.nodes(6, 3));
    let first = before.nodes[0].id;
    let after = before.without_node(0, first).expect("nodes enough");
    let after = after.with_node(0, random.node(7, 3)).expect("a good node");
    let (old, new) = (ready(&before), ready(&after));
    let moved_count: usize = (0..SLOT_COUNT)
        .map(|slot| owner_ids(&new, slot).difference(&owner_ids(&old, slot)).count())
        .sum();
    let group = &plan_of(&before, &after).groups[0];
    assert_eq!(group.slots_moved as usize, moved_count);
    assert_eq!(group.slots_owned_after, 2 * u32::from(SLOT_COUNT));
    assert_eq!(group.nodes.len(), 7);
    for node in &group.nodes {
        let change = i64::from(node.slots_after) - i64::from(node.slots_before);
        assert_eq!(change, i64::from(node.slots_gained) - i64::from(node.slots_lost), "{node:?}");
    }
    for total in [
        group.nodes.iter().map(|node| node.fair_before).sum::<f64>(),
        group.nodes.iter().map(|node| node.fair_after).sum::<f64>(),
    ] {
        assert!((total - 2.0 * f64::from(SLOT_COUNT)).abs() < 0.01, "{total}");
    }
}
