//! Which series satisfy all matchers: one condition after the other narrows the set, look-ups
//! first, automatons last.
//!
//! With `hits` the series that have the label with a matching value, and `having` those that have
//! it at all, a condition keeps
//! ```text
//! =  =~  that do not match the empty value    set and hits
//! =  =~  that do                              set and (hits or not having)
//! != !~  of the former                        set and not hits
//! != !~  of the latter                        set and having and not hits
//! ```

use roaring::RoaringBitmap;

use super::Steps;
use crate::model::matcher::Matcher;
use crate::model::series::TenantId;
use crate::node::index::{Condition, Index, Test};

/// Bytes of a value that an automaton reads in one step.
const VALUE_BYTES_PER_STEP: usize = 64;
/// Ids per step of a set operation: bitmaps work on 65,536 at a time, but sparse ones one by one.
const IDS_PER_STEP: u64 = 4096;
/// Looking a label up in a series takes about as long as so many values through an automaton.
const VALUES_PER_SERIES: u64 = 4;

/// The state of the search.
pub(super) struct Matching {
    tenant: TenantId,
    /// Not begun yet; the next is the last.
    conditions: Vec<Condition>,
    /// What the conditions before left; `None` stands for all series of the tenant.
    selected: Option<RoaringBitmap>,
    scan: Option<Scan>,
}

/// A condition that is being evaluated.
struct Scan {
    condition: Condition,
    /// `None` if no series of the tenant has the label.
    name: Option<u32>,
    walk: Walk,
    /// Values, pairs or series that were looked at.
    cursor: u64,
    /// The hits so far, or with [`Walk::Series`] what is kept so far.
    hits: RoaringBitmap,
}

/// What a scan goes through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// Look each wanted value up.
    Lookups,
    /// Ask the automaton about each value of the name.
    Values,
    /// Ask the automaton about the value of each series selected so far, as they are few.
    Series,
    /// Nothing: `hits` is complete.
    Nothing,
}

impl Matching {
    /// Makes the matchers ready; the error is the text of what is wrong with a regular expression.
    pub(super) fn new(tenant: TenantId, matchers: &[Matcher]) -> Result<Self, String> {
        let compiled: Result<Vec<_>, _> = matchers.iter().map(Condition::compile).collect();
        let mut conditions = compiled?;
        conditions.sort_by_key(|condition| std::cmp::Reverse(rank(condition)));
        Ok(Self { tenant, conditions, selected: None, scan: None })
    }

    /// Narrows the answer to series that have the label `name`.
    pub(super) fn require_label(&mut self, name: &str) {
        self.conditions.push(Condition {
            name: name.as_bytes().into(),
            test: Test::All,
            prefix: Box::default(),
            matches_empty: false,
            invert: false,
        });
        self.conditions.sort_by_key(|condition| std::cmp::Reverse(rank(condition)));
    }

    /// Works on; `None` if the steps did not suffice.
    pub(super) fn poll(&mut self, index: &Index, steps: &mut Steps) -> Option<RoaringBitmap> {
        loop {
            let Some(mut scan) = self.scan.take().or_else(|| self.begin_next(index)) else {
                let all = || index.all(self.tenant).cloned().unwrap_or_default();
                return Some(self.selected.take().unwrap_or_else(all));
            };
            if !scan.work(index, self.selected.as_ref(), steps) {
                self.scan = Some(scan);
                return None;
            }
            steps.take(1 + (scan.hits.len() / IDS_PER_STEP) as usize);
            self.apply(index, scan);
        }
    }

    fn begin_next(&mut self, index: &Index) -> Option<Scan> {
        let condition = self.conditions.pop()?;
        let name = index.name_id(self.tenant, &condition.name);
        // A condition that takes series away takes them from a set that no new series joins while
        // it is evaluated: the evaluation may be past the value of the new one. One that only adds
        // may begin with nothing.
        if self.selected.is_none() && (condition.invert || condition.matches_empty) {
            self.selected = index.all(self.tenant).cloned();
        }
        let mut hits = RoaringBitmap::new();
        let walk = match (&condition.test, name) {
            (_, None) => Walk::Nothing,
            (Test::All, Some(name)) => {
                hits.clone_from(index.having(name));
                Walk::Nothing
            }
            (Test::Values(_), _) => Walk::Lookups,
            (Test::Regex(_), Some(name)) => {
                let values = index.places_of_name(name) as u64;
                let series = self.selected.as_ref().map_or(u64::MAX, RoaringBitmap::len);
                let is_few = series.saturating_mul(VALUES_PER_SERIES) < values;
                if is_few { Walk::Series } else { Walk::Values }
            }
        };
        Some(Scan { condition, name, walk, cursor: 0, hits })
    }

    fn apply(&mut self, index: &Index, scan: Scan) {
        let Scan { condition, name, walk, hits, .. } = scan;
        if walk == Walk::Series {
            self.selected = Some(hits);
            return;
        }
        let Some(mut selected) = self.selected.take() else {
            self.selected = Some(hits);
            return;
        };
        match (condition.invert, condition.matches_empty) {
            (false, false) => selected &= hits,
            (false, true) => {
                let mut dropped = name.map(|name| index.having(name).clone()).unwrap_or_default();
                dropped -= hits;
                selected -= dropped;
            }
            (true, false) => selected -= hits,
            (true, true) => {
                match name {
                    Some(name) => selected &= index.having(name),
                    None => selected.clear(),
                }
                selected -= hits;
            }
        }
        self.selected = Some(selected);
    }
}

/// What narrows most for the least work comes first.
fn rank(condition: &Condition) -> u32 {
    let is_regex = matches!(condition.test, Test::Regex(_));
    let keeps_absent = condition.invert || condition.matches_empty;
    u32::from(is_regex) * 2 + u32::from(keeps_absent)
}

impl Scan {
    /// Goes on; true once `hits` is complete.
    fn work(&mut self, index: &Index, selected: Option<&RoaringBitmap>, steps: &mut Steps) -> bool {
        let Some(name) = self.name else { return true };
        match (self.walk, &self.condition.test) {
            (Walk::Lookups, Test::Values(values)) => {
                let rest = values.get(usize::try_from(self.cursor).unwrap_or(usize::MAX)..);
                for value in rest.unwrap_or(&[]) {
                    if steps.are_used_up() {
                        return false;
                    }
                    self.cursor += 1;
                    steps.take(1);
                    if let Some(pair) = index.pair_id(name, value) {
                        add_postings(index, pair, &mut self.hits, steps);
                    }
                }
            }
            (Walk::Values, test) => {
                let from = usize::try_from(self.cursor).unwrap_or(usize::MAX);
                for place in from..index.places_of_name(name) {
                    if steps.are_used_up() {
                        return false;
                    }
                    self.cursor += 1;
                    steps.take(1);
                    let Some(pair) = index.pair_at(name, place) else { continue };
                    let value = index.pair_value(pair);
                    steps.take(value.len() / VALUE_BYTES_PER_STEP);
                    if test.matches(value) {
                        add_postings(index, pair, &mut self.hits, steps);
                    }
                }
            }
            (Walk::Series, _) => {
                return selected
                    .is_none_or(|selected| self.work_by_series(index, name, selected, steps));
            }
            (Walk::Lookups | Walk::Nothing, _) => {}
        }
        true
    }

    fn work_by_series(
        &mut self,
        index: &Index,
        name: u32,
        selected: &RoaringBitmap,
        steps: &mut Steps,
    ) -> bool {
        let Ok(first) = u32::try_from(self.cursor) else { return true };
        for id in selected.range(first..) {
            if steps.are_used_up() {
                return false;
            }
            self.cursor = u64::from(id) + 1;
            let pair = index.pairs_of(id).find(|pair| index.pair_name(*pair) == name);
            let value = pair.map_or(&[][..], |pair| index.pair_value(pair));
            steps.take(2 + value.len() / VALUE_BYTES_PER_STEP);
            let matches = match value {
                [] => self.condition.matches_empty,
                value => self.condition.test.matches(value),
            };
            if matches != self.condition.invert {
                self.hits.insert(id);
            }
        }
        true
    }
}

fn add_postings(index: &Index, pair: u32, hits: &mut RoaringBitmap, steps: &mut Steps) {
    let postings = index.postings(pair);
    steps.take((postings.len() / IDS_PER_STEP) as usize);
    postings.union_into(hits);
}
