//! Finds `pull` and `salt` of nodes, so that each owns the slots that its weight asks for.
//!
//! In: a checked document. Out: the same with other pulls and salts. Only whoever writes a new
//! document runs this; those who read it take the numbers as they are.
//! - One node that comes, or gets another weight: the others stay. For every slot, the pull that
//!   would win it is known, so the one that wins just enough is found by sorting them; whatever the
//!   salt. Of [`SALTS_TRIED`] salts the one is kept whose slots leave the others most even.
//!   So exactly the fair share moves, and imbalance does not add up over the years.
//!   O(slots x (nodes + salts)).
//! - All nodes of the first document: pulls are corrected by how much each is off, again and again,
//!   until all are right to a slot or two. O(rounds x slots x nodes).

use super::document::{PULL_PER_WEIGHT, PlacementDocument};
use super::rendezvous::{Draws, pull_for};
use super::share::shares;
use super::table::{Contest, Hurdle};
use crate::model::series::{SLOT_COUNT, Slot};

/// Each costs a sort of all slots. `tests/measure.rs` compares other numbers of them.
pub(super) const SALTS_TRIED: u32 = 32;
/// Usual fleets stop before; zones and weights at odds may not.
const ROUNDS_MAX: usize = 24;
/// Off by so many slots is not worth another round.
const SLOTS_OFF: f64 = 1.5;

/// Which salts may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Salts {
    /// The one it has: what it owns it keeps, as far as possible.
    Keep,
    /// Any of so many, as it owns nothing yet.
    First(u32),
}

/// Fits the node at `index`; the others stay as they are.
pub(super) fn fit_node(document: &mut PlacementDocument, index: usize, salts: Salts) {
    let unfitted = document.nodes[index].weight * PULL_PER_WEIGHT;
    let contest = Contest::new(document, document.nodes[index].group.as_deref());
    let place = contest.members.iter().position(|member| usize::from(member.node) == index);
    let place = place.expect("the node is a member of its group");
    let shares = shares(&contest);
    let others = Others::without(&contest, place);
    let tried = match salts {
        Salts::Keep => document.nodes[index].salt..=document.nodes[index].salt,
        Salts::First(count) => 0..=count - 1,
    };
    let mut best: Option<(f64, u32, u32)> = None;
    for salt in tried {
        let draws = Draws::with_salt(&document.nodes[index], salt);
        let (pull, taken_from) = others.pull_to_own(draws, shares[place], unfitted);
        let unevenness = others.unevenness(&taken_from, &shares, place);
        if best.is_none_or(|(least, ..)| unevenness < least) {
            best = Some((unevenness, pull, salt));
        }
    }
    let (_, pull, salt) = best.expect("one salt at least was tried");
    document.nodes[index].pull = pull;
    document.nodes[index].salt = salt;
}

/// The group as it is without one of its members.
struct Others {
    /// For each slot.
    hurdles: Vec<Option<Hurdle>>,
    /// Slots of each member.
    loads: Vec<u32>,
}

impl Others {
    fn without(contest: &Contest, newcomer: usize) -> Self {
        let newcomer = u16::try_from(newcomer).expect("at most NODES_MAX members");
        let mut keys = Vec::new();
        let mut loads = vec![0; contest.members.len()];
        let mut hurdles = Vec::with_capacity(SLOT_COUNT.into());
        for slot in (0..SLOT_COUNT).map(Slot) {
            contest.draw(slot, &mut keys);
            hurdles.push(contest.hurdle(&keys, newcomer));
            // As if its draw had been the worst of all.
            keys[usize::from(newcomer)] = u64::MAX;
            contest.count_owners(&keys, &mut loads);
        }
        Self { hurdles, loads }
    }

    /// The pull that owns `share` slots with these draws, and how many it takes from each member.
    fn pull_to_own(&self, draws: Draws, share: f64, unfitted: u32) -> (u32, Vec<u32>) {
        let slots = (0..SLOT_COUNT).map(Slot);
        let contested = slots.zip(&self.hurdles).filter_map(|(slot, hurdle)| {
            let hurdle = hurdle.as_ref()?;
            Some((pull_for(draws.exponent(slot), hurdle.key), hurdle.member))
        });
        let mut pulls: Vec<(f64, u16)> = contested.collect();
        let sure = usize::from(SLOT_COUNT) - pulls.len();
        let want = to_count(share).saturating_sub(sure).min(pulls.len());
        let is_less = |a: &(f64, u16), b: &(f64, u16)| a.0.total_cmp(&b.0);
        // The least `want` of them, in any order, then the next; all in order is not needed.
        let has_next = want < pulls.len();
        let next = has_next.then(|| pulls.select_nth_unstable_by(want, is_less).1.0);
        let mut taken_from = vec![0; self.loads.len()];
        let mut last = None;
        for &(pull, member) in &pulls[..want] {
            taken_from[usize::from(member)] += 1;
            last = Some(last.map_or(pull, |last: f64| last.max(pull)));
        }
        let pull = match (last, next) {
            // Nothing is contested: what it will be worth when that changes is its weight.
            (None, None) => f64::from(unfitted),
            (Some(last), Some(next)) => f64::midpoint(last, next),
            (Some(last), None) => last * 2.0,
            (None, Some(next)) => next / 2.0,
        };
        (to_pull(pull), taken_from)
    }

    /// The sum of squares by which the others are off what they should own.
    fn unevenness(&self, taken_from: &[u32], shares: &[f64], newcomer: usize) -> f64 {
        let off = |member: usize| {
            let left = f64::from(self.loads[member].saturating_sub(taken_from[member]));
            (left - shares[member]) / shares[member]
        };
        (0..shares.len()).filter(|&each| each != newcomer).map(|each| off(each).powi(2)).sum()
    }
}

/// Gives all nodes new pulls. Slots move for it: for documents that nothing follows yet, or if
/// evenness is worth it.
pub(super) fn fit_all(document: &mut PlacementDocument) {
    let mut groups: Vec<Option<String>> =
        document.nodes.iter().map(|node| node.group.clone()).collect();
    groups.sort();
    groups.dedup();
    for group in groups {
        fit_group(document, group.as_deref());
    }
}

/// Gives the nodes of a group new pulls.
pub(super) fn fit_group(document: &mut PlacementDocument, group: Option<&str>) {
    for node in document.nodes.iter_mut().filter(|node| node.group.as_deref() == group) {
        node.pull = node.weight * PULL_PER_WEIGHT;
    }
    for (node, pull) in even_pulls(Contest::new(document, group)) {
        document.nodes[usize::from(node)].pull = pull;
    }
}

/// The pull of each node of the document that is a member.
fn even_pulls(mut contest: Contest) -> Vec<(u16, u32)> {
    let shares = shares(&contest);
    let total: f64 = contest.members.iter().map(|member| f64::from(member.pull)).sum();
    let mut best: Option<(f64, Vec<u32>)> = None;
    for _ in 0..ROUNDS_MAX {
        let loads = contest.loads();
        let off = |(load, share): (&u32, &f64)| (f64::from(*load) - share).abs();
        let worst = loads.iter().zip(&shares).map(off).fold(0.0, f64::max);
        if best.as_ref().is_none_or(|(least, _)| worst < *least) {
            let pulls = contest.members.iter().map(|member| member.pull).collect();
            best = Some((worst, pulls));
        }
        if worst <= SLOTS_OFF {
            break;
        }
        let corrected =
            contest.members.iter().zip(loads.iter().zip(&shares)).map(|(member, (load, share))| {
                f64::from(member.pull) * share / f64::from(*load).max(1.0)
            });
        let corrected: Vec<f64> = corrected.collect();
        // Only proportions count; kept in the middle of their range.
        let scale = total / corrected.iter().sum::<f64>();
        for (member, pull) in contest.members.iter_mut().zip(corrected) {
            member.set_pull(to_pull(pull * scale));
        }
    }
    let (_, pulls) = best.expect("one round at least was done");
    contest.members.iter().map(|member| member.node).zip(pulls).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn to_pull(pull: f64) -> u32 {
    pull.round().clamp(1.0, f64::from(u32::MAX)) as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn to_count(share: f64) -> usize {
    share.round().clamp(0.0, f64::from(SLOT_COUNT)) as usize
}
