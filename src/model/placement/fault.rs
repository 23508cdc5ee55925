//! What is wrong with a placement document: which field, why, what to do.

use std::fmt;

use super::check::{
    GROUP_RULES_MAX, LABELS_SHARDED_BY_MAX, MATCHERS_PER_RULE_MAX, NODES_MAX, REPLICATION_MAX,
    TEXT_BYTES_MAX,
};
use super::document::{DOCUMENT_VERSION, NodeId};

/// What is wrong where. Its text begins with the field and ends with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentFault {
    /// Where.
    pub field: Field,
    /// What.
    pub cause: Cause,
}

/// A part of the document. Indices count from 0, in order of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// All of it.
    Document,
    /// A field of the document.
    Top(&'static str),
    /// A field of a node.
    Node(usize, NodeId, &'static str),
    /// A field of a rule.
    Rule(usize, &'static str),
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No JSON, or not of this shape: the parser's words, with line and column.
    BadJson(String),
    /// Written by a program that is newer, or older than the first release.
    UnknownVersion { version: u32 },
    /// The whole text.
    TooLong { bytes_max: usize },
    /// A number.
    OutOfRange { got: u64, min: u64, max: u64 },
    /// More of these than a document may have.
    TooMany { got: usize, max: usize },
    /// None where at least one is needed.
    Missing,
    /// Two nodes with this id, two labels with this name.
    Duplicate,
    /// A name that is empty, too long, or not in the grammar of zones and groups.
    BadName,
    /// An empty text, or one beyond [`TEXT_BYTES_MAX`].
    BadText,
    /// No `host:port`.
    BadAddress,
    /// Another node has the address.
    AddressOf(NodeId),
    /// Some nodes have a zone, this one has none.
    NoZone,
    /// The group has fewer nodes than a slot has owners.
    TooFewNodes { nodes: usize, replication: u8 },
    /// No node is in the group that a rule names.
    EmptyGroup,
    /// No rule names the group of the node.
    UnusedGroup,
    /// No node is without a group, so what no rule matches has no owner.
    NoRest,
    /// A regular expression that does not compile.
    BadRegex(String),
    /// There is no such node.
    UnknownNode(NodeId),
    /// The next epoch begins before the last.
    StartsBefore { start_ms: i64 },
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document => write!(f, "placement document"),
            Self::Top(name) => write!(f, "{name}"),
            Self::Node(index, id, name) => write!(f, "nodes[{index}].{name} (of {id})"),
            Self::Rule(index, name) => write!(f, "strategy.rules[{index}].{name}"),
        }
    }
}

impl fmt::Display for DocumentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.cause)
    }
}

impl std::error::Error for DocumentFault {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadJson(what) => {
                write!(f, "cannot be read: {what}; take it as `tidegate cluster status` writes it")
            }
            Self::UnknownVersion { version } => write!(
                f,
                "version {version}, and this program knows {DOCUMENT_VERSION}: \
                 run the program that wrote it, or a newer one"
            ),
            Self::TooLong { bytes_max } => {
                write!(f, "longer than {bytes_max} bytes: shorten its names and rules")
            }
            Self::OutOfRange { got, min, max } => {
                write!(f, "{got} is not in {min}..={max}: choose one that is")
            }
            Self::TooMany { got, max } => write!(f, "{got} of them, {max} may be: remove some"),
            Self::Missing => write!(f, "there is none: give at least one"),
            Self::Duplicate => write!(f, "stands there twice: remove one of them"),
            Self::BadName => {
                write!(f, "must be 1 to 64 letters, digits, `.`, `_` or `-`: give it another name")
            }
            Self::BadText => {
                write!(f, "must be 1 to {TEXT_BYTES_MAX} bytes: write another text")
            }
            Self::BadAddress => {
                write!(f, "must be host:port, as in 10.0.0.3:9428, node-3:9428 or [fd00::3]:9428")
            }
            Self::AddressOf(id) => {
                write!(f, "node {id} has the same address: remove that node, or change one")
            }
            Self::NoZone => {
                write!(f, "is missing, and other nodes have one: give all nodes a zone, or none")
            }
            Self::TooFewNodes { nodes, replication } => write!(
                f,
                "{replication} owners for each slot, and a group of {nodes} nodes: \
                 add nodes or lower the replication"
            ),
            Self::EmptyGroup => {
                write!(f, "no node is in this group: add one, or remove the rule")
            }
            Self::UnusedGroup => write!(
                f,
                "no rule names this group, so the node would get nothing: add a rule, or leave \
                 the group out"
            ),
            Self::NoRest => write!(
                f,
                "all nodes are in groups, so what no rule matches has no owner: add a node \
                 without a group"
            ),
            Self::BadRegex(what) => write!(f, "cannot compile the regular expression: {what}"),
            Self::UnknownNode(id) => {
                write!(f, "no node {id}: `tidegate cluster status` lists the ids")
            }
            Self::StartsBefore { start_ms } => {
                write!(f, "before that of the epoch before, {start_ms}: choose a later time")
            }
        }
    }
}

const _: () = assert!(NODES_MAX <= u16::MAX as usize && REPLICATION_MAX >= 1);
const _: () = assert!(GROUP_RULES_MAX * MATCHERS_PER_RULE_MAX <= 1 << 16);
const _: () = assert!(LABELS_SHARDED_BY_MAX <= 16); // `reach.rs` counts them in small arrays.
