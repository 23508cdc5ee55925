//! The placement document and its text form: JSON, versioned.
//!
//! In: a value or a text. Out: the other. Decoding checks everything (`check.rs`).
//! One encoding per document: fields in the order below, nodes by id, no spaces; so equal contents
//! have equal texts, and [`PlacementDocument::content_hash`] is of the text.
//!
//! Another `version`, and a field that version 1 does not have, are errors: whoever skipped over
//! what it does not know would put series elsewhere than the others do.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::fault::{Cause, DocumentFault, Field};
use crate::model::matcher::{MatchOperator, Matcher};

/// The version that is written, and the only one that is read.
pub const DOCUMENT_VERSION: u32 = 1;
/// Longer texts are refused: four times as much as [`super::NODES_MAX`] nodes take.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// The weight of a node that is like the others.
pub const WEIGHT_USUAL: u32 = 100;
/// The pull per weight of a node that was not fitted.
pub const PULL_PER_WEIGHT: u32 = 1 << 16;

/// A node, for as long as its data folder lives. Written as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u128);

/// Who owns what, from when on. A new epoch for every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementDocument {
    /// Ascending by one; the highest is followed.
    pub epoch: u64,
    /// Unix milliseconds: what arrives from then on follows this epoch.
    pub start_ms: i64,
    /// Owners of each slot, 1 to [`super::REPLICATION_MAX`].
    pub replication: u8,
    /// How a series finds its slot and group.
    pub strategy: Strategy,
    /// Ascending by id. Each is named in the table by its index here.
    pub nodes: Vec<PlacedNode>,
}

/// A node of the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacedNode {
    /// Stays, whatever else changes.
    #[serde(with = "hex")]
    pub id: NodeId,
    /// `host:port` of its first link port. May change: no slot moves for it.
    pub link: String,
    /// Shards, so link ports. May change: no slot moves between nodes for it.
    pub shards: u32,
    /// Where it stands: the owners of a slot stand in different zones as far as there are some.
    /// All nodes have one, or none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// With [`Strategy::Tags`]: takes series of the rules that name this group; without, those of
    /// no rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How much it should own beside the others of its group; [`WEIGHT_USUAL`] is usual.
    #[serde(default = "weight_usual")]
    pub weight: u32,
    /// The weight that it draws with: [`PULL_PER_WEIGHT`] times its weight, or what fitting found.
    pub pull: u32,
    /// Which draws are its own: another salt, other slots.
    #[serde(default)]
    pub salt: u32,
}

/// How a series finds its slot and group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// By all labels.
    Hash {},
    /// By these labels only: a query that pins them all asks their owners alone.
    ShardBy {
        /// Names. Their order does not matter and is kept ascending.
        labels: Vec<String>,
    },
    /// The first rule that matches names the group of nodes; within it `within`.
    Tags {
        /// Asked in this order.
        rules: Vec<TagRule>,
        /// How a series finds its slot in the group.
        within: SlotRule,
    },
}

/// How a series finds its slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SlotRule {
    /// By all labels.
    Hash {},
    /// By these.
    ShardBy {
        /// Names, ascending.
        labels: Vec<String>,
    },
}

/// Series that match go to the nodes of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagRule {
    /// All of them; at least one. Written `["job", "=~", "edge-.*"]`.
    #[serde(with = "triples")]
    pub matchers: Vec<Matcher>,
    /// The `group` of nodes.
    pub group: String,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<Nodes, Rule> {
    version: u32,
    epoch: u64,
    start_ms: i64,
    replication: u8,
    strategy: Rule,
    nodes: Nodes,
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl PlacementDocument {
    /// The text; see the head of this file. Ends without a newline.
    pub fn encode(&self) -> String {
        let written = Written {
            version: DOCUMENT_VERSION,
            epoch: self.epoch,
            start_ms: self.start_ms,
            replication: self.replication,
            strategy: &self.strategy,
            nodes: &self.nodes,
        };
        serde_json::to_string(&written).expect("numbers and texts are JSON")
    }

    /// Reads and checks a text. Nodes and labels may come in any order.
    pub fn decode(text: &str) -> Result<Self, DocumentFault> {
        let whole = |cause| DocumentFault { field: Field::Document, cause };
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(whole(Cause::TooLong { bytes_max: DOCUMENT_BYTES_MAX }));
        }
        let not_json = |fault: serde_json::Error| whole(Cause::BadJson(fault.to_string()));
        let Versioned { version } = serde_json::from_str(text).map_err(not_json)?;
        if version != DOCUMENT_VERSION {
            return Err(whole(Cause::UnknownVersion { version }));
        }
        let written: Written<Vec<PlacedNode>, Strategy> =
            serde_json::from_str(text).map_err(not_json)?;
        let mut document = Self {
            epoch: written.epoch,
            start_ms: written.start_ms,
            replication: written.replication,
            strategy: written.strategy,
            nodes: written.nodes,
        };
        document.sort();
        document.check()?;
        Ok(document)
    }

    /// Brings nodes and labels into the order in which they are kept.
    pub fn sort(&mut self) {
        self.nodes.sort_by_key(|node| node.id);
        match &mut self.strategy {
            Strategy::ShardBy { labels }
            | Strategy::Tags { within: SlotRule::ShardBy { labels }, .. } => labels.sort(),
            Strategy::Hash {} | Strategy::Tags { within: SlotRule::Hash {}, .. } => {}
        }
    }

    /// XXH3-128 of the text: tells documents of the same epoch apart.
    pub fn content_hash(&self) -> u128 {
        xxh3_128(self.encode().as_bytes())
    }

    /// The index of the node, if it is there.
    pub fn find(&self, id: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok()
    }
}

impl PlacedNode {
    /// A node of the usual weight, without zone and group.
    pub fn new(id: NodeId, link: &str, shards: u32) -> Self {
        Self {
            id,
            link: link.into(),
            shards,
            zone: None,
            group: None,
            weight: WEIGHT_USUAL,
            pull: WEIGHT_USUAL * PULL_PER_WEIGHT,
            salt: 0,
        }
    }
}

impl SlotRule {
    /// The names of the labels that decide, ascending; `None` if all do.
    pub fn labels(&self) -> Option<&[String]> {
        match self {
            Self::Hash {} => None,
            Self::ShardBy { labels } => Some(labels),
        }
    }
}

impl Strategy {
    /// By rules if there are some, and by chosen labels if there are some.
    pub fn of(rules: Vec<TagRule>, labels: Vec<String>) -> Self {
        match (rules.is_empty(), labels.is_empty()) {
            (true, true) => Self::Hash {},
            (true, false) => Self::ShardBy { labels },
            (false, true) => Self::Tags { rules, within: SlotRule::Hash {} },
            (false, false) => Self::Tags { rules, within: SlotRule::ShardBy { labels } },
        }
    }

    /// The rules, if there are groups.
    pub fn rules(&self) -> &[TagRule] {
        match self {
            Self::Tags { rules, .. } => rules,
            Self::Hash {} | Self::ShardBy { .. } => &[],
        }
    }

    /// The names of the labels that decide about the slot, ascending; `None` if all do.
    pub fn labels(&self) -> Option<&[String]> {
        match self {
            Self::Hash {} => None,
            Self::ShardBy { labels } => Some(labels),
            Self::Tags { within, .. } => within.labels(),
        }
    }
}

impl NodeId {
    /// Reads 32 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

/// As people write it: `{team="payments", job=~"edge-.*"} -> payments`.
impl fmt::Display for TagRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Matcher { name, operator, value }) in self.matchers.iter().enumerate() {
            let comma = if index == 0 { "{" } else { ", " };
            write!(f, "{comma}{name}{}\"", operator.as_str())?;
            for letter in value.chars() {
                match letter {
                    '"' | '\\' => write!(f, "\\{letter}")?,
                    '\n' => write!(f, "\\n")?,
                    _ => write!(f, "{letter}")?,
                }
            }
            write!(f, "\"")?;
        }
        write!(f, "}} -> {}", self.group)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

fn weight_usual() -> u32 {
    WEIGHT_USUAL
}

/// A [`NodeId`] in JSON.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::NodeId;

    pub(super) fn serialize<S: Serializer>(id: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<NodeId, D::Error> {
        let text = String::deserialize(input)?;
        let fault = || D::Error::custom(format!("`{text}` is no id: 32 lower-case hex digits"));
        NodeId::parse(&text).ok_or_else(fault)
    }
}

/// Matchers in JSON: name, operator, value.
mod triples {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{MatchOperator, Matcher};

    pub(super) fn serialize<S: Serializer>(
        matchers: &[Matcher],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let triple = |matcher: &Matcher| {
            (matcher.name.clone(), matcher.operator.as_str(), matcher.value.clone())
        };
        serializer.collect_seq(matchers.iter().map(triple))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Vec<Matcher>, D::Error> {
        let triples = Vec::<(String, String, String)>::deserialize(input)?;
        let read = |(name, operator, value): (String, String, String)| {
            let parsed = MatchOperator::parse(&operator);
            let fault = || D::Error::custom(format!("`{operator}` is none of = != =~ !~"));
            Ok(Matcher { name, operator: parsed.ok_or_else(fault)?, value })
        };
        triples.into_iter().map(read).collect()
    }
}
