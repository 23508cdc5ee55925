//! Placement as a whole: what fleets look like, for the tests in `tests/`.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod aims;
mod documents;
mod epochs;
mod golden;
mod measure;
mod naive;
mod routing;

use super::{GroupPlan, NodeId, PlacedNode, Placement, PlacementDocument, Plan, Strategy};
use crate::model::labels::LabelsEncoder;

/// Numbers from a seed (xorshift64*), so that a failure can be repeated.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn id(&mut self) -> NodeId {
        NodeId(u128::from(self.next()) << 64 | u128::from(self.next()))
    }

    /// The `index`th node of a fleet; zones in turn, none if there are 0.
    fn node(&mut self, index: usize, zone_count: usize) -> PlacedNode {
        let link = format!("node-{index}:9428");
        let zone = (zone_count > 0).then(|| format!("z{}", index % zone_count));
        PlacedNode { zone, ..PlacedNode::new(self.id(), &link, 4) }
    }

    fn nodes(&mut self, count: usize, zone_count: usize) -> Vec<PlacedNode> {
        (0..count).map(|index| self.node(index, zone_count)).collect()
    }
}

#[track_caller]
fn found(replication: u8, nodes: Vec<PlacedNode>) -> PlacementDocument {
    PlacementDocument::found(0, replication, Strategy::Hash {}, nodes).expect("a good fleet")
}

#[track_caller]
fn ready(document: &PlacementDocument) -> Placement {
    Placement::new(document.clone()).expect("a good document")
}

#[track_caller]
fn plan_of(before: &PlacementDocument, after: &PlacementDocument) -> Plan {
    super::plan(&ready(before), &ready(after))
}

fn canonical_of(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut encoder = LabelsEncoder::default();
    for (name, value) in pairs {
        encoder.push(name.as_bytes(), value.as_bytes());
    }
    let mut out = Vec::new();
    encoder.finish(&mut out).expect("good labels");
    out
}

/// What moves over what has to; `None` if nothing has to.
fn moved_ratio(group: &GroupPlan) -> Option<f64> {
    // Shares are found by halving, so one that stays may differ by a rounding.
    (group.slots_moved_fair > 0.5).then(|| f64::from(group.slots_moved) / group.slots_moved_fair)
}
