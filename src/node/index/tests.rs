//! The index against a plain list of series, while they come and go.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::random::Random;
use crate::model::matcher::{MatchOperator, Matcher};
use crate::node::select::matching_series;

type Labels = BTreeMap<String, String>;

fn random_labels(random: &mut Random, number: u64) -> Labels {
    let mut labels = Labels::new();
    if random.below(60) == 0 {
        return labels;
    }
    labels.insert("__name__".into(), format!("metric_{}", random.below(5)));
    labels.insert("instance".into(), format!("host-{number}"));
    for name in ["mode", "zone", "team"] {
        if random.below(2) == 0 {
            let value = "v".repeat(1 + random.below(20) as usize);
            labels.insert(name.into(), format!("{value}{}", random.below(6)));
        }
    }
    if random.below(40) == 0 {
        labels.insert(
            format!("rare_{}", random.below(100)),
            "x".repeat(random.below(900) as usize + 1),
        );
    }
    labels
}

fn encode(labels: &Labels) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in labels {
        super::labels::encode(name.as_bytes(), value.as_bytes(), &mut bytes);
    }
    bytes
}

fn random_matcher(random: &mut Random) -> Matcher {
    let names = ["__name__", "instance", "mode", "zone", "rare_7", "absent"];
    let values = ["metric_2", "metric_.*", "host-.*7", "", ".+", "v+3", "vvv1|vv2|metric_1", "v.*"];
    let operators = [
        MatchOperator::Equal,
        MatchOperator::NotEqual,
        MatchOperator::Regex,
        MatchOperator::NotRegex,
    ];
    Matcher {
        name: names[random.below(6) as usize].into(),
        operator: operators[random.below(4) as usize],
        value: values[random.below(8) as usize].into(),
    }
}

fn is_match(labels: &Labels, matcher: &Matcher) -> bool {
    let value = labels.get(&matcher.name).map_or("", String::as_str);
    let regex = || regex_automata::meta::Regex::new(&format!("^(?:{})$", matcher.value)).ok();
    match matcher.operator {
        MatchOperator::Equal => value == matcher.value,
        MatchOperator::NotEqual => value != matcher.value,
        MatchOperator::Regex => regex().expect("a good pattern").is_match(value),
        MatchOperator::NotRegex => !regex().expect("a good pattern").is_match(value),
    }
}

struct Harness {
    index: Index,
    rows: Vacant,
    row_count: u32,
    /// Row -> tenant and labels.
    model: BTreeMap<u32, (TenantId, Labels)>,
}

impl Harness {
    fn register(&mut self, tenant: TenantId, labels: Labels) {
        let row = self.rows.lowest().unwrap_or(self.row_count);
        self.index.register(row, tenant, &encode(&labels)).expect("canonical");
        self.rows.take(row);
        self.row_count = self.row_count.max(row + 1);
        self.model.insert(row, (tenant, labels));
    }

    fn remove(&mut self, row: u32, left: &mut LeftLabels) {
        self.index.remove(row, left);
        self.rows.give(row);
        self.model.remove(&row);
    }

    #[track_caller]
    fn check(&self, seed: u64) {
        let index = &self.index;
        assert_eq!(index.series_count() as usize, self.model.len());
        let mut pairs = BTreeSet::new();
        for row in 0..self.row_count {
            let mut bytes = Vec::new();
            index.encode_labels(row, &mut bytes);
            let Some((tenant, labels)) = self.model.get(&row) else {
                assert!(bytes.is_empty(), "seed={seed} row={row}");
                continue;
            };
            assert_eq!(bytes, encode(labels), "seed={seed} row={row}");
            assert_eq!(index.tenant_of(row), *tenant);
            pairs.extend(labels.iter().map(|(name, value)| (tenant.0, name, value)));
        }
        assert_eq!(index.pair_count() as usize, pairs.len(), "seed={seed}");
    }

    fn check_select(&self, random: &mut Random, seed: u64) {
        let matchers: Vec<_> = (0..random.below(4)).map(|_| random_matcher(random)).collect();
        for tenant in [0, 1].map(TenantId) {
            let found = matching_series(&self.index, tenant, &matchers).expect("good patterns");
            let want = self.model.iter().filter(|(_, (own, labels))| {
                *own == tenant && matchers.iter().all(|matcher| is_match(labels, matcher))
            });
            let want: Vec<u32> = want.map(|(row, _)| *row).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), want, "seed={seed} {matchers:?}");
        }
    }
}

/// Red when a removal forgets the postings, the set of a name, a hole, the table of pairs or names,
/// or the tenant; or when a cell is given back with another length.
#[test]
fn series_come_and_go() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let mut harness = Harness {
            index: Index::default(),
            rows: Vacant::default(),
            row_count: 0,
            model: BTreeMap::new(),
        };
        let mut number = 0;
        for round in 0..60 {
            for _ in 0..random.below(60) {
                let tenant = TenantId(u32::from(random.below(4) == 0));
                let labels = random_labels(&mut random, number);
                number += 1;
                harness.register(tenant, labels);
            }
            let mut left = LeftLabels::default();
            for row in harness.model.keys().copied().collect::<Vec<_>>() {
                if random.below(10) < round % 6 {
                    harness.remove(row, &mut left);
                }
            }
            harness.check(seed);
            harness.check_select(&mut random, seed);
            harness.index.vacate(&left);
            harness.check_select(&mut random, seed);
        }
        let mut left = LeftLabels::default();
        for row in harness.model.keys().copied().collect::<Vec<_>>() {
            harness.remove(row, &mut left);
        }
        harness.index.vacate(&left);
        harness.index.cut_numbers();
        harness.check(seed);
        let Index { boxed_bytes, label_count, pairs, names, tenants, .. } = &harness.index;
        assert_eq!((*boxed_bytes, *label_count), (0, 0), "seed={seed}");
        assert!(pairs.is_empty() && names.is_empty() && tenants.is_empty());
    }
}
