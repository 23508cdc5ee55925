//! Series -> group and slot.
//!
//! In: canonical labels. Out: a [`Place`]. Nothing is allocated per series; once per new series,
//! as the gateway remembers it with the series.
//! By all labels the slot is that of the `SeriesHash`. By chosen labels it is the top 14 bits of
//! XXH3-64, chained: seeded with the tenant, then each value seeded with the hash of those before,
//! in ascending order of names; a missing label has the empty value. Frozen.
//! The slot of a place chooses among nodes. The shard within a node or gateway is that of the
//! `SeriesHash`, whatever the strategy: a node replays its log without knowing any strategy.

use std::fmt;

use regex_automata::meta::Regex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::document::PlacementDocument;
use super::fault::{Cause, DocumentFault, Field};
use crate::model::labels;
use crate::model::matcher::{MatchOperator, Matcher, compile_regex};
use crate::model::series::{SLOT_COUNT, SeriesHash, Slot, TenantId};

/// A group of nodes by its place in [`Router::groups`]. 0: the nodes without a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupIndex(pub u16);

/// Where a series lives under a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The nodes that may own it.
    pub group: GroupIndex,
    /// Its slot among them.
    pub slot: Slot,
}

/// A strategy, ready.
#[derive(Debug)]
pub struct Router {
    groups: Vec<Option<String>>,
    pub(super) rules: Vec<Rule>,
    /// Ascending; `None`: all labels decide.
    pub(super) labels: Option<Vec<Box<str>>>,
}

/// A rule of `tags`, ready.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) tests: Vec<Test>,
    pub(super) group: GroupIndex,
}

/// A matcher, ready.
pub(super) struct Test {
    pub(super) name: Box<str>,
    value: Box<str>,
    regex: Option<Regex>,
    is_inverted: bool,
}

impl Router {
    /// Of a checked document.
    ///
    /// # Errors
    /// A regular expression that does not compile, which the check would have found.
    pub fn new(document: &PlacementDocument) -> Result<Self, DocumentFault> {
        let strategy = &document.strategy;
        let mut groups: Vec<Option<String>> = vec![None];
        groups.extend(strategy.rules().iter().map(|rule| Some(rule.group.clone())));
        groups.sort();
        groups.dedup();
        let mut rules = Vec::new();
        for (index, rule) in strategy.rules().iter().enumerate() {
            let field = Field::Rule(index, "matchers");
            let tests: Result<Vec<Test>, String> = rule.matchers.iter().map(Test::new).collect();
            let bad = |what| DocumentFault { field, cause: Cause::BadRegex(what) };
            let group = groups.iter().position(|group| group.as_ref() == Some(&rule.group));
            let group = group.and_then(|group| u16::try_from(group).ok()).expect("of few groups");
            rules.push(Rule { tests: tests.map_err(bad)?, group: GroupIndex(group) });
        }
        let boxed = |labels: &[String]| labels.iter().map(|label| label.as_str().into()).collect();
        Ok(Self { groups, rules, labels: strategy.labels().map(boxed) })
    }

    /// The groups by name, by [`GroupIndex`].
    pub fn groups(&self) -> &[Option<String>] {
        &self.groups
    }

    /// The place of a series; `hash` is the hash of `canonical` under `tenant`.
    #[inline]
    pub fn place(&self, tenant: TenantId, hash: SeriesHash, canonical: &[u8]) -> Place {
        let slot = match &self.labels {
            None => hash.slot(),
            Some(names) => slot_of_labels(tenant, names, canonical),
        };
        let rule = self.rules.iter().find(|rule| rule.matches(canonical));
        Place { group: rule.map_or(GroupIndex(0), |rule| rule.group), slot }
    }
}

impl Rule {
    fn matches(&self, canonical: &[u8]) -> bool {
        self.tests.iter().all(|test| {
            test.matches(labels::find(canonical, test.name.as_bytes()).unwrap_or_default())
        })
    }
}

impl Test {
    fn new(matcher: &Matcher) -> Result<Self, String> {
        let (is_regex, is_inverted) = match matcher.operator {
            MatchOperator::Equal => (false, false),
            MatchOperator::NotEqual => (false, true),
            MatchOperator::Regex => (true, false),
            MatchOperator::NotRegex => (true, true),
        };
        let regex = if is_regex { Some(compile_regex(&matcher.value)?) } else { None };
        let (name, value) = (matcher.name.as_str().into(), matcher.value.as_str().into());
        Ok(Self { name, value, regex, is_inverted })
    }

    /// Whether a label with this value, empty if there is none, is what the matcher asks for.
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        let is_match = match &self.regex {
            Some(regex) => regex.is_match(value),
            None => self.value.as_bytes() == value,
        };
        is_match != self.is_inverted
    }
}

impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = if self.is_inverted { "!" } else { "" };
        write!(f, "{}{operator}={:?}", self.name, self.value)
    }
}

/// The start of the chain of hashes.
pub(super) fn chain_start(tenant: TenantId) -> u64 {
    tenant.0.into()
}

/// The chain with one value more.
#[inline]
pub(super) fn chain(hash: u64, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, hash)
}

/// The slot at the end of the chain.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "fourteen bits")]
pub(super) fn slot_of_chain(hash: u64) -> Slot {
    Slot((hash >> (u64::BITS - SLOT_COUNT.trailing_zeros())) as u16)
}

/// One walk over both, as both ascend.
fn slot_of_labels(tenant: TenantId, names: &[Box<str>], canonical: &[u8]) -> Slot {
    let mut walk = labels::iterate(canonical).peekable();
    let mut hash = chain_start(tenant);
    for name in names.iter().map(|name| name.as_bytes()) {
        while walk.next_if(|(candidate, _)| *candidate < name).is_some() {}
        let found = walk.next_if(|(candidate, _)| *candidate == name);
        hash = chain(hash, found.map_or(&[], |(_, value)| value));
    }
    slot_of_chain(hash)
}
