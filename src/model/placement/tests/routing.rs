//! Strategies: where series go, and that a query asks wherever one that matches can be.

use std::collections::BTreeSet;

use super::{Chance, canonical_of, ready};
use crate::model::labels;
use crate::model::matcher::{MatchOperator, Matcher, compile_regex};
use crate::model::placement::{
    GroupIndex, PlacedNode, Placement, PlacementDocument, Reach, SLOTS_PINNED_MAX, SlotReach,
    SlotRule, Strategy, TagRule,
};
use crate::model::series::{SeriesHash, Slot, TenantId};

const TENANT: TenantId = TenantId(3);

fn matcher(name: &str, operator: MatchOperator, value: &str) -> Matcher {
    Matcher { name: name.into(), operator, value: value.into() }
}

fn shard_by(labels: &[&str]) -> Strategy {
    Strategy::ShardBy { labels: labels.iter().map(|label| (*label).into()).collect() }
}

fn tags(within: SlotRule) -> Strategy {
    let regex = |value| matcher("job", MatchOperator::Regex, value);
    let rule = |matchers, group: &str| TagRule { matchers, group: group.into() };
    let rules = vec![
        rule(vec![Matcher::equal("dc", "1"), regex("b.*")], "hot"),
        rule(vec![matcher("dc", MatchOperator::NotEqual, "1"), regex("b1|c2")], "cold"),
        rule(vec![matcher("env", MatchOperator::Equal, "")], "hot"),
    ];
    Strategy::Tags { rules, within }
}

fn placement(strategy: Strategy) -> Placement {
    let mut nodes = Chance::new(50).nodes(9, 0);
    if matches!(strategy, Strategy::Tags { .. }) {
        let groups = [None, Some("hot"), Some("cold")];
        for (node, group) in nodes.iter_mut().zip(groups.into_iter().cycle()) {
            node.group = group.map(Into::into);
        }
    }
    let document = PlacementDocument::found(0, 2, strategy, nodes).expect("a good fleet");
    ready(&document)
}

fn strategies() -> Vec<Strategy> {
    let within = SlotRule::ShardBy { labels: vec!["__name__".into(), "job".into()] };
    vec![
        Strategy::Hash {},
        shard_by(&["__name__"]),
        shard_by(&["job", "__name__"]),
        shard_by(&["absent", "dc", "job"]),
        tags(SlotRule::Hash {}),
        tags(within),
    ]
}

fn place(placement: &Placement, canonical: &[u8]) -> (GroupIndex, Slot) {
    let hash = SeriesHash::of(TENANT, canonical);
    let place = placement.router().place(TENANT, hash, canonical);
    assert_eq!(placement.owners_of(TENANT, hash, canonical), placement.owners(place));
    (place.group, place.slot)
}

/// All series of a small world; a label may be missing.
fn world() -> Vec<Vec<u8>> {
    let mut series = Vec::new();
    for name in ["up", "down"] {
        for job in ["", "a", "b", "b1", "c2"] {
            for dc in ["", "1", "2"] {
                for env in ["", "x"] {
                    let labels = [("__name__", name), ("job", job), ("dc", dc), ("env", env)];
                    series.push(canonical_of(&labels));
                }
            }
        }
    }
    series
}

fn matches(canonical: &[u8], matcher: &Matcher) -> bool {
    let value = labels::find(canonical, matcher.name.as_bytes()).unwrap_or_default();
    let regex = || compile_regex(&matcher.value).expect("a good pattern").is_match(value);
    match matcher.operator {
        MatchOperator::Equal => matcher.value.as_bytes() == value,
        MatchOperator::NotEqual => matcher.value.as_bytes() != value,
        MatchOperator::Regex => regex(),
        MatchOperator::NotRegex => !regex(),
    }
}

fn some_matchers(chance: &mut Chance) -> Vec<Matcher> {
    use MatchOperator::{Equal, NotEqual, NotRegex, Regex};
    let all = [
        matcher("__name__", Equal, "up"),
        matcher("__name__", Regex, "up|down"),
        matcher("__name__", Regex, "u.*"),
        matcher("job", Equal, "b1"),
        matcher("job", Equal, ""),
        matcher("job", Regex, "(b1|c2|)"),
        matcher("job", Regex, "a|b"),
        matcher("job", NotEqual, "a"),
        matcher("job", NotRegex, "b.*"),
        matcher("dc", Equal, "1"),
        matcher("dc", Regex, "1|2"),
        matcher("dc", NotEqual, ""),
        matcher("env", Equal, "x"),
        matcher("env", Equal, ""),
        matcher("absent", Equal, ""),
        matcher("absent", Equal, "1"),
    ];
    let count = 1 + chance.below(5);
    (0..count).map(|_| all[chance.below(all.len() as u64) as usize].clone()).collect()
}

/// Against brute force: each series that matches lives where the reach says, and its owners are
/// asked. Red when a missing label is not the empty value in one of the two, a rule is left out
/// that can match, the rest is left out, or values of several matchers are joined, not cut.
#[test]
fn a_query_reaches_every_series_that_matches() {
    let world = world();
    let mut chance = Chance::new(51);
    for strategy in strategies() {
        let placement = placement(strategy);
        for _ in 0..400 {
            let matchers = some_matchers(&mut chance);
            let reach = placement.reach(TENANT, &matchers);
            let asked = placement.nodes_reached(&reach);
            assert!(asked.is_sorted_by(|a, b| a < b));
            let matching = world.iter().filter(|each| matchers.iter().all(|m| matches(each, m)));
            for canonical in matching {
                let (group, slot) = place(&placement, canonical);
                assert!(reach.groups.contains(&group), "{matchers:?} {reach:?} {group:?}");
                if let SlotReach::These(slots) = &reach.slots {
                    assert!(slots.contains(&slot), "{matchers:?} {reach:?} {slot:?}");
                }
                let hash = SeriesHash::of(TENANT, canonical);
                for owner in placement.owners_of(TENANT, hash, canonical) {
                    assert!(asked.contains(owner), "{matchers:?} {asked:?} {owner}");
                }
            }
        }
    }
}

/// And no more than it must: exactly the places of the world where everything is pinned.
/// Red when a pinned query goes to all.
#[test]
fn a_query_that_pins_the_key_asks_its_owners_alone() {
    let placement = placement(shard_by(&["job", "__name__"]));
    let owner_count =
        |matchers: &[Matcher]| placement.nodes_reached(&placement.reach(TENANT, matchers)).len();
    let name = Matcher::equal("__name__", "up");
    let regex = |value: &str| matcher("job", MatchOperator::Regex, value);
    assert_eq!(owner_count(&[name.clone(), Matcher::equal("job", "b1")]), 2);
    assert_eq!(owner_count(&[name.clone(), Matcher::equal("job", "")]), 2);
    assert!(owner_count(&[name.clone(), regex("b1|c2")]) <= 4);
    assert_eq!(owner_count(&[name.clone(), regex("b1|c2"), regex("a|b1")]), 2);
    assert_eq!(owner_count(&[name.clone(), regex("b1"), regex("c2")]), 0);
    assert_eq!(owner_count(std::slice::from_ref(&name)), 9);
    assert_eq!(owner_count(&[name.clone(), regex("b.*")]), 9);
    let many: Vec<String> = (0..=SLOTS_PINNED_MAX).map(|each| each.to_string()).collect();
    let reach = |count: usize| {
        placement.reach(TENANT, &[name.clone(), regex(&many[..count].join("|"))]).slots
    };
    assert_eq!(reach(SLOTS_PINNED_MAX + 1), SlotReach::All);
    let SlotReach::These(slots) = reach(SLOTS_PINNED_MAX) else { panic!("they are pinned") };
    let want: BTreeSet<Slot> = many[..SLOTS_PINNED_MAX]
        .iter()
        .map(|job| place(&placement, &canonical_of(&[("__name__", "up"), ("job", job)])).1)
        .collect();
    assert_eq!(slots, want.into_iter().collect::<Vec<_>>());
}

/// Red when a verdict is mixed up: groups that a query cannot meet are not asked.
#[test]
fn a_query_asks_only_groups_that_it_can_meet() {
    #[track_caller]
    fn check(placement: &Placement, matchers: &[Matcher], want: &[Option<&str>]) {
        let Reach { groups, .. } = placement.reach(TENANT, matchers);
        let name =
            |group: &GroupIndex| placement.router().groups()[usize::from(group.0)].as_deref();
        assert_eq!(groups.iter().map(name).collect::<Vec<_>>(), want, "{matchers:?}");
    }
    let placement = placement(tags(SlotRule::Hash {}));
    let equal = |name, value| Matcher::equal(name, value);
    let all = [None, Some("cold"), Some("hot")];
    check(&placement, &[equal("__name__", "up")], &all);
    check(&placement, &[equal("dc", "1"), equal("job", "b1")], &[Some("hot")]);
    check(&placement, &[equal("dc", "2"), equal("job", "b1")], &[Some("cold")]);
    check(&placement, &[equal("dc", "2"), equal("job", "a")], &[None, Some("hot")]);
    check(&placement, &[equal("dc", "1"), equal("job", "a"), equal("env", "x")], &[None]);
    check(&placement, &[equal("env", "")], &[Some("cold"), Some("hot")]);
    check(&placement, &[equal("job", "a"), equal("job", "b")], &[]);
}

/// Series of other labels share a slot, of other tenants they do not. Red when a label that is not
/// chosen takes part.
#[test]
fn only_chosen_labels_decide() {
    let placement = placement(shard_by(&["job", "__name__"]));
    let of = |pairs: &[(&str, &str)]| place(&placement, &canonical_of(pairs)).1;
    let base = of(&[("__name__", "up"), ("job", "a")]);
    assert_eq!(of(&[("__name__", "up"), ("job", "a"), ("aa", "1"), ("zz", "2")]), base);
    assert_ne!(of(&[("__name__", "up"), ("job", "b")]), base);
    assert_ne!(of(&[("__name__", "upa"), ("job", "")]), base);
    assert_ne!(of(&[("__name__", "a"), ("job", "up")]), base);
    let canonical = canonical_of(&[("__name__", "up"), ("job", "a")]);
    let hash = SeriesHash::of(TenantId(4), &canonical);
    assert_ne!(placement.router().place(TenantId(4), hash, &canonical).slot, base);
    // Red if all labels are not the series' own hash, which its shard is found by too.
    let by_all = self::placement(Strategy::Hash {});
    assert_eq!(place(&by_all, &canonical).1, SeriesHash::of(TENANT, &canonical).slot());
}

/// A hundred thousand values fill the slots as balls fill urns: chained hashes are uniform.
#[test]
fn chosen_labels_spread_evenly() {
    let placement = placement(shard_by(&["job"]));
    let mut counts = [0_u32; 64];
    for job in 0..100_000 {
        let (_, slot) = place(&placement, &canonical_of(&[("job", &job.to_string())]));
        counts[usize::from(slot.0 >> 8)] += 1;
    }
    // 1562 each, six standard deviations.
    assert!(counts.iter().all(|count| (1325..1800).contains(count)), "{counts:?}");
}

/// Owners of a group are of the group. Red when `Contest::new` takes all nodes.
#[test]
fn series_of_a_rule_stay_in_its_group() {
    let placement = placement(tags(SlotRule::Hash {}));
    for canonical in world() {
        let (group, _) = place(&placement, &canonical);
        let want = placement.router().groups()[usize::from(group.0)].clone();
        let hash = SeriesHash::of(TENANT, &canonical);
        for &owner in placement.owners_of(TENANT, hash, &canonical) {
            let node: &PlacedNode = &placement.document().nodes[usize::from(owner)];
            assert_eq!(node.group, want);
        }
    }
}
