//! How many slots each node should own: in proportion to its weight, as far as the rules allow.
//!
//! In: weights and zones of a group. Out: slots per node, fractions and all; they sum up to slots
//! times replicas. Two rules bend proportions: a node owns a slot once, and a zone owns each slot
//! once (at most where zones suffice for all owners; at least where they do not).
//! Only those who write or judge a document use it, so it may be in floats; they are additions,
//! multiplications and comparisons, which all machines do alike.

use super::table::{Contest, Member};
use crate::model::series::SLOT_COUNT;

/// What a taker may get, in units of all slots.
struct Taker {
    weight: f64,
    least: f64,
    most: f64,
}

/// Halvings until a double cannot tell.
const HALVINGS: u32 = 100;

/// Slots per member.
pub(super) fn shares(contest: &Contest) -> Vec<f64> {
    let members = &contest.members;
    let replication = contest.replication as f64;
    let zone_count = contest.zone_count();
    let spare = contest.replication.saturating_sub(zone_count) as f64;
    let of_zone = |zone: usize| members.iter().filter(move |each| usize::from(each.zone) == zone);
    let weigh = |each: &Member| f64::from(each.weight);
    let zones: Vec<Taker> = (0..zone_count)
        .map(|zone| Taker {
            weight: of_zone(zone).map(weigh).sum(),
            least: if zone_count < contest.replication { 1.0 } else { 0.0 },
            most: (of_zone(zone).count() as f64).min(1.0 + spare),
        })
        .collect();
    let by_zone = divide(&zones, replication);
    let mut shares = vec![0.0; members.len()];
    for (zone, total) in by_zone.into_iter().enumerate() {
        let takers: Vec<Taker> = of_zone(zone)
            .map(|each| Taker { weight: weigh(each), least: 0.0, most: 1.0 })
            .collect();
        let places = (0..members.len()).filter(|&at| usize::from(members[at].zone) == zone);
        for (place, share) in places.zip(divide(&takers, total)) {
            shares[place] = share * f64::from(SLOT_COUNT);
        }
    }
    shares
}

/// Divides `total` in proportion to the weights, each within its bounds.
fn divide(takers: &[Taker], total: f64) -> Vec<f64> {
    let at = |level: f64| {
        takers.iter().map(move |taker| (level * taker.weight).clamp(taker.least, taker.most))
    };
    let (mut low, mut high) = (0.0, total.max(1.0) * 4.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if at(middle).sum::<f64>() < total { low = middle } else { high = middle }
    }
    at(high).collect()
}
