//! What the series of a head are made of: which metrics and label pairs have the most of them,
//! which names the most values. A walk over the index in slices, as a select is.
//!
//! What comes and goes while it runs may or may not be counted. Top lists of several shards are put
//! together by adding: series are spread evenly, so what is high in one is high in all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;

use super::head::Head;
use super::select::SelectBudget;
use crate::model::series::TenantId;

/// The name whose values are the metrics.
const METRIC_NAME: &[u8] = b"__name__";

/// A text and its count, most first.
pub type Top = Vec<(Box<str>, u64)>;

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series in memory.
    pub series: u64,
    /// Distinct label pairs.
    pub label_pairs: u64,
    /// Sealed chunks.
    pub chunks: u64,
    /// Series that were ever given an id, and those of them that left.
    pub registered: u64,
    /// See `registered`.
    pub left: u64,
    /// Oldest and newest sample in memory, Unix milliseconds; `None` without samples.
    pub range_ms: Option<(i64, i64)>,
    /// Metrics by series.
    pub metrics: Top,
    /// `name=value` by series.
    pub pairs: Top,
    /// Names by values.
    pub name_values: Top,
    /// Names by the bytes of their values.
    pub name_bytes: Top,
}

/// A walk that is under way.
pub struct CardinalityRun {
    tenant: TenantId,
    limit: usize,
    next_pair: u32,
    next_row: u32,
    metrics: Best,
    pairs: Best,
    /// Number of a name -> its values, and their bytes.
    names: HashMap<u32, (u64, u64)>,
    range_ms: Option<(i64, i64)>,
}

impl CardinalityRun {
    /// A walk that keeps the `limit` first of each list.
    pub fn new(tenant: TenantId, limit: usize) -> Self {
        Self {
            tenant,
            limit,
            next_pair: 0,
            next_row: 0,
            metrics: Best::new(limit),
            pairs: Best::new(limit),
            names: HashMap::new(),
            range_ms: None,
        }
    }

    /// Goes on for a while; the answer, once it is there.
    pub fn poll(&mut self, head: &Head, budget: SelectBudget) -> Option<Cardinality> {
        let index = head.index();
        let mut steps = budget.steps.max(1);
        while steps > 0 && self.next_pair < index.pair_numbers() {
            steps -= 1;
            let pair = self.next_pair;
            self.next_pair += 1;
            let Some(name) = index.name_of_pair(pair) else { continue };
            if index.name_tenant(name) != self.tenant {
                continue;
            }
            let value = index.pair_value(pair);
            let (values, bytes) = self.names.entry(name).or_default();
            *values += 1;
            *bytes += value.len() as u64;
            let series = index.postings(pair).len();
            let name = index.name_text(name);
            if name == METRIC_NAME {
                self.metrics.add(series, || String::from_utf8_lossy(value).into());
            }
            let text = |bytes| String::from_utf8_lossy(bytes);
            self.pairs.add(series, || format!("{}={}", text(name), text(value)).into());
        }
        while steps > 0 && self.next_row < head.row_count() {
            steps -= 1;
            if let Some((min_ms, max_ms)) = head.row_range_ms(self.next_row) {
                let (low_ms, high_ms) = self.range_ms.get_or_insert((min_ms, max_ms));
                *low_ms = min_ms.min(*low_ms);
                *high_ms = max_ms.max(*high_ms);
            }
            self.next_row += 1;
        }
        (steps > 0).then(|| self.finish(head))
    }

    fn finish(&mut self, head: &Head) -> Cardinality {
        let index = head.index();
        let report = head.report();
        let mut values = Best::new(self.limit);
        let mut bytes = Best::new(self.limit);
        for (name, counts) in self.names.drain() {
            // A name that left meanwhile has another text now, or none: one line is off.
            let text = || String::from_utf8_lossy(index.name_text(name)).into();
            values.add(counts.0, text);
            bytes.add(counts.1, text);
        }
        Cardinality {
            series: u64::from(report.series),
            label_pairs: u64::from(report.label_pairs),
            chunks: report.chunks,
            registered: u64::from(head.next_id()),
            left: u64::from(head.next_id().saturating_sub(report.series)),
            range_ms: self.range_ms,
            metrics: std::mem::take(&mut self.metrics).into_top(),
            pairs: std::mem::take(&mut self.pairs).into_top(),
            name_values: values.into_top(),
            name_bytes: bytes.into_top(),
        }
    }
}

/// The highest counts of many.
#[derive(Default)]
struct Best {
    limit: usize,
    heap: BinaryHeap<Reverse<(u64, Reverse<Box<str>>)>>,
}

impl Best {
    fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::new() }
    }

    fn add(&mut self, count: u64, text: impl Fn() -> Box<str>) {
        if self.heap.len() < self.limit {
            self.heap.push(Reverse((count, Reverse(text()))));
        } else if let Some(mut lowest) = self.heap.peek_mut()
            && lowest.0.0 <= count
        {
            // At equal counts the first in the alphabet stays.
            *lowest = Reverse((count, Reverse(text()))).min(lowest.clone());
        }
    }

    fn into_top(self) -> Top {
        let sorted = self.heap.into_sorted_vec().into_iter();
        sorted.map(|Reverse((count, Reverse(text)))| (text, count)).collect()
    }
}

impl Cardinality {
    /// Adds that of another shard; `limit` are kept of each list.
    pub fn add(&mut self, other: Self, limit: usize) {
        self.series += other.series;
        self.chunks += other.chunks;
        self.registered += other.registered;
        self.left += other.left;
        // A pair may be in several shards: the true number lies between the highest and the sum.
        self.label_pairs = self.label_pairs.max(other.label_pairs);
        self.range_ms = match (self.range_ms, other.range_ms) {
            (Some((min_ms, max_ms)), Some((low_ms, high_ms))) => {
                Some((min_ms.min(low_ms), max_ms.max(high_ms)))
            }
            (one, another) => one.or(another),
        };
        add_top(&mut self.metrics, other.metrics, limit, |one, another| one + another);
        add_top(&mut self.pairs, other.pairs, limit, |one, another| one + another);
        add_top(&mut self.name_values, other.name_values, limit, u64::max);
        add_top(&mut self.name_bytes, other.name_bytes, limit, u64::max);
    }
}

fn add_top(top: &mut Top, other: Top, limit: usize, add: fn(u64, u64) -> u64) {
    let mut counts: HashMap<Box<str>, u64> = top.drain(..).collect();
    for (text, count) in other {
        let known = counts.entry(text).or_default();
        *known = add(*known, count);
    }
    top.extend(counts);
    top.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    top.truncate(limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::labels::encode_label;
    use crate::model::series::SeriesHash;
    use crate::node::tests::head;

    fn register(head: &mut Head, tenant: TenantId, metric: &str, host: u32) {
        let mut labels = Vec::new();
        encode_label(&mut labels, b"__name__", metric.as_bytes());
        encode_label(&mut labels, b"host", format!("host_{host:03}").as_bytes());
        let hash = SeriesHash::of(tenant, &labels);
        let id = head.register(tenant, hash, &labels).expect("room");
        head.append(&[id.0], &[1000 + i64::from(host)], &[1.0], &mut Vec::new());
    }

    fn walk(head: &Head, limit: usize, steps: u32) -> (Cardinality, u32) {
        let mut run = CardinalityRun::new(TenantId(0), limit);
        let mut polls = 0;
        loop {
            polls += 1;
            if let Some(found) = run.poll(head, SelectBudget { steps }) {
                return (found, polls);
            }
        }
    }

    fn text(top: &Top) -> Vec<(&str, u64)> {
        top.iter().map(|(text, count)| (&**text, *count)).collect()
    }

    #[test]
    fn the_most_of_everything() {
        let mut head = head();
        for (metric, hosts) in [("rare", 0..2), ("cpu", 0..50), ("disk", 10..40)] {
            hosts.for_each(|host| register(&mut head, TenantId(0), metric, host));
        }
        (0..99).for_each(|host| register(&mut head, TenantId(7), "foreign", host));
        let (found, polls) = walk(&head, 2, 10);
        assert!(polls > 20);
        assert_eq!(walk(&head, 2, 1_000_000), (found.clone(), 1));
        assert_eq!(text(&found.metrics), [("cpu", 50), ("disk", 30)]);
        assert_eq!(text(&found.pairs), [("__name__=cpu", 50), ("__name__=disk", 30)]);
        assert_eq!(text(&found.name_values), [("host", 50), ("__name__", 3)]);
        assert_eq!(text(&found.name_bytes), [("host", 400), ("__name__", 11)]);
        assert_eq!((found.series, found.registered, found.left), (181, 181, 0));
        assert_eq!(found.range_ms, Some((1000, 1098)));

        let mut both = found.clone();
        both.add(found, 1);
        assert_eq!(text(&both.metrics), [("cpu", 100)]);
        assert_eq!(text(&both.name_values), [("host", 50)]);
        assert_eq!((both.series, both.range_ms), (362, Some((1000, 1098))));
    }
}
