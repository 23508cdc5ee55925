//! What a placement document must be: its limits, and that every series has owners.
//! In: a document in order. Out: the first fault, by field. O(nodes log nodes), but for rules'
//! regular expressions, which are compiled.

use super::document::{DOCUMENT_BYTES_MAX, PlacedNode, PlacementDocument, Strategy};
use super::fault::{Cause, DocumentFault, Field};
use crate::model::matcher::{MatchOperator, compile_regex};

/// Nodes of a document.
pub const NODES_MAX: usize = 1000;
/// Owners of a slot.
pub const REPLICATION_MAX: u8 = 3;
/// The heaviest node: ten times the usual one.
pub const WEIGHT_MAX: u32 = 1000;
/// Shards of a node.
pub const SHARDS_MAX: u32 = 1024;
/// Labels of `shard_by`.
pub const LABELS_SHARDED_BY_MAX: usize = 8;
/// Rules of `tags`.
pub const GROUP_RULES_MAX: usize = 256;
/// Matchers of one rule.
pub const MATCHERS_PER_RULE_MAX: usize = 16;
/// Bytes of a label name or value in the strategy.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Bytes of the name of a zone or group.
const NAME_BYTES_MAX: usize = 64;
/// As DNS has it.
const HOST_BYTES_MAX: usize = 253;

impl PlacementDocument {
    /// Checks everything that `decode` would refuse.
    pub fn check(&self) -> Result<(), DocumentFault> {
        check_range(Field::Top("epoch"), self.epoch, 1, i64::MAX as u64)?;
        let replication = u64::from(self.replication);
        check_range(Field::Top("replication"), replication, 1, REPLICATION_MAX.into())?;
        check_count(Field::Top("nodes"), self.nodes.len(), NODES_MAX)?;
        self.check_nodes()?;
        self.check_addresses()?;
        self.check_strategy()?;
        self.check_groups()?;
        if self.encode().len() > DOCUMENT_BYTES_MAX {
            let cause = Cause::TooLong { bytes_max: DOCUMENT_BYTES_MAX };
            return Err(DocumentFault { field: Field::Document, cause });
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), DocumentFault> {
        assert!(self.nodes.is_sorted_by_key(|node| node.id), "documents are kept in order");
        let has_zones = self.nodes.iter().any(|node| node.zone.is_some());
        for (index, node) in self.nodes.iter().enumerate() {
            let field = |name| Field::Node(index, node.id, name);
            if index > 0 && self.nodes[index - 1].id == node.id {
                return Err(DocumentFault { field: field("id"), cause: Cause::Duplicate });
            }
            if !is_address(&node.link) {
                return Err(DocumentFault { field: field("link"), cause: Cause::BadAddress });
            }
            check_range(field("shards"), node.shards.into(), 1, SHARDS_MAX.into())?;
            check_range(field("weight"), node.weight.into(), 1, WEIGHT_MAX.into())?;
            check_range(field("pull"), node.pull.into(), 1, u32::MAX.into())?;
            if has_zones && node.zone.is_none() {
                return Err(DocumentFault { field: field("zone"), cause: Cause::NoZone });
            }
            for (name, value) in [("zone", &node.zone), ("group", &node.group)] {
                if value.as_deref().is_some_and(|value| !is_name(value)) {
                    return Err(DocumentFault { field: field(name), cause: Cause::BadName });
                }
            }
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), DocumentFault> {
        let mut by_link: Vec<usize> = (0..self.nodes.len()).collect();
        by_link.sort_by_key(|&index| &self.nodes[index].link);
        for pair in by_link.windows(2) {
            let [first, second] = [pair[0], pair[1]].map(|index| &self.nodes[index]);
            if first.link == second.link {
                let field = Field::Node(pair[1], second.id, "link");
                return Err(DocumentFault { field, cause: Cause::AddressOf(first.id) });
            }
        }
        Ok(())
    }

    fn check_strategy(&self) -> Result<(), DocumentFault> {
        if let Some(labels) = self.strategy.labels() {
            let field = Field::Top("strategy.labels");
            check_count(field, labels.len(), LABELS_SHARDED_BY_MAX)?;
            for label in labels {
                check_text(field, label, 1)?;
            }
            assert!(labels.is_sorted(), "documents are kept in order");
            if labels.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(DocumentFault { field, cause: Cause::Duplicate });
            }
        }
        let Strategy::Tags { rules, .. } = &self.strategy else { return Ok(()) };
        check_count(Field::Top("strategy.rules"), rules.len(), GROUP_RULES_MAX)?;
        for (index, rule) in rules.iter().enumerate() {
            let field = Field::Rule(index, "matchers");
            check_count(field, rule.matchers.len(), MATCHERS_PER_RULE_MAX)?;
            for matcher in &rule.matchers {
                check_text(field, &matcher.name, 1)?;
                check_text(field, &matcher.value, 0)?;
                if matches!(matcher.operator, MatchOperator::Regex | MatchOperator::NotRegex) {
                    let bad = |what| DocumentFault { field, cause: Cause::BadRegex(what) };
                    compile_regex(&matcher.value).map_err(bad)?;
                }
            }
            if !is_name(&rule.group) {
                let field = Field::Rule(index, "group");
                return Err(DocumentFault { field, cause: Cause::BadName });
            }
        }
        Ok(())
    }

    /// That each group has nodes enough, and each node series.
    fn check_groups(&self) -> Result<(), DocumentFault> {
        let rules = self.strategy.rules();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(group) = &node.group else { continue };
            if rules.iter().all(|rule| rule.group != *group) {
                let field = Field::Node(index, node.id, "group");
                return Err(DocumentFault { field, cause: Cause::UnusedGroup });
            }
        }
        for (index, rule) in rules.iter().enumerate() {
            let field = Field::Rule(index, "group");
            self.check_group(field, Some(&rule.group), Cause::EmptyGroup)?;
        }
        self.check_group(Field::Top("nodes"), None, Cause::NoRest)
    }

    fn check_group(
        &self,
        field: Field,
        group: Option<&str>,
        empty: Cause,
    ) -> Result<(), DocumentFault> {
        let is_in = |node: &&PlacedNode| node.group.as_deref() == group;
        let nodes = self.nodes.iter().filter(is_in).count();
        if nodes == 0 {
            return Err(DocumentFault { field, cause: empty });
        }
        if nodes < usize::from(self.replication) {
            let cause = Cause::TooFewNodes { nodes, replication: self.replication };
            return Err(DocumentFault { field: Field::Top("replication"), cause });
        }
        Ok(())
    }
}

fn check_range(field: Field, got: u64, min: u64, max: u64) -> Result<(), DocumentFault> {
    if (min..=max).contains(&got) {
        return Ok(());
    }
    Err(DocumentFault { field, cause: Cause::OutOfRange { got, min, max } })
}

fn check_count(field: Field, got: usize, max: usize) -> Result<(), DocumentFault> {
    match got {
        0 => Err(DocumentFault { field, cause: Cause::Missing }),
        got if got > max => Err(DocumentFault { field, cause: Cause::TooMany { got, max } }),
        _ => Ok(()),
    }
}

fn check_text(field: Field, text: &str, bytes_min: usize) -> Result<(), DocumentFault> {
    if (bytes_min..=TEXT_BYTES_MAX).contains(&text.len()) {
        return Ok(());
    }
    Err(DocumentFault { field, cause: Cause::BadText })
}

fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_letter)
}

/// `host:port`, the host a name, an IPv4 address or an IPv6 address in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit())
        && !port.starts_with('0')
        && port.parse::<u16>().is_ok();
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = if let Some(address) = bracketed {
        address.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(is_letter)
    };
    is_port && is_host
}
