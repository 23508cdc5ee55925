//! The next document: what an operator asks for -> a document of the next epoch, checked.
//!
//! In: the newest document, the change, when it starts. Out: the next one; compare the two with
//! `plan` before it is used. Each of these moves only what it must, but for [`evened`], which says.
//!
//! [`evened`]: PlacementDocument::evened

use super::document::{NodeId, PlacedNode, PlacementDocument, Strategy};
use super::fault::{Cause, DocumentFault, Field};
use super::fit::{SALTS_TRIED, Salts, fit_all, fit_group, fit_node};

/// Other groups.
#[derive(Clone, Debug, Default)]
pub struct Regrouping {
    /// The strategy, if it is another one.
    pub strategy: Option<Strategy>,
    /// The groups of nodes that are there, or come.
    pub groups: Vec<(NodeId, Option<String>)>,
    /// Nodes that come.
    pub nodes: Vec<PlacedNode>,
}

impl PlacementDocument {
    /// The first document of a fleet, as even as can be. `pull` and `salt` of the nodes are chosen.
    pub fn found(
        start_ms: i64,
        replication: u8,
        strategy: Strategy,
        nodes: Vec<PlacedNode>,
    ) -> Result<Self, DocumentFault> {
        let mut document = Self { epoch: 1, start_ms, replication, strategy, nodes };
        document.finish()?;
        fit_all(&mut document);
        Ok(document)
    }

    /// One node more, which takes its fair share from the others.
    pub fn with_node(&self, start_ms: i64, node: PlacedNode) -> Result<Self, DocumentFault> {
        let id = node.id;
        let mut next = self.next(start_ms)?;
        next.nodes.push(node);
        next.finish()?;
        let index = next.find(id).expect("it was just added");
        fit_node(&mut next, index, Salts::First(SALTS_TRIED));
        Ok(next)
    }

    /// One node less, whose slots the others take.
    pub fn without_node(&self, start_ms: i64, id: NodeId) -> Result<Self, DocumentFault> {
        let mut next = self.next(start_ms)?;
        let index = next.index_of(id)?;
        next.nodes.remove(index);
        next.finish()?;
        Ok(next)
    }

    /// Other weights. Only these nodes gain or lose to reach them, one after the other.
    pub fn with_weights(
        &self,
        start_ms: i64,
        weights: &[(NodeId, u32)],
    ) -> Result<Self, DocumentFault> {
        let mut next = self.next(start_ms)?;
        for &(id, weight) in weights {
            let index = next.index_of(id)?;
            next.nodes[index].weight = weight;
        }
        next.finish()?;
        for &(id, _) in weights {
            let index = next.index_of(id)?;
            fit_node(&mut next, index, Salts::Keep);
        }
        Ok(next)
    }

    /// Another address or number of shards of a node. Nothing moves.
    pub fn with_link(
        &self,
        start_ms: i64,
        id: NodeId,
        (link, shards): (&str, u32),
    ) -> Result<Self, DocumentFault> {
        let mut next = self.next(start_ms)?;
        let index = next.index_of(id)?;
        next.nodes[index].link = link.into();
        next.nodes[index].shards = shards;
        next.finish()?;
        Ok(next)
    }

    /// Another number of owners. Without zones the first owners stay.
    pub fn with_replication(&self, start_ms: i64, replication: u8) -> Result<Self, DocumentFault> {
        let mut next = self.next(start_ms)?;
        next.replication = replication;
        next.finish()?;
        Ok(next)
    }

    /// Another way from series to slots, other groups of nodes, and nodes that come, all at once: a
    /// rule needs nodes in its group, and a group a rule. With another strategy most series change
    /// their owners, so groups that get nodes for it are placed anew; with the same one only nodes
    /// that are new in their group move slots.
    pub fn regrouped(&self, start_ms: i64, regrouping: Regrouping) -> Result<Self, DocumentFault> {
        let mut next = self.next(start_ms)?;
        let Regrouping { strategy, groups, nodes } = regrouping;
        let mut changed: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        next.nodes.extend(nodes);
        next.nodes.sort_by_key(|node| node.id);
        for (id, group) in groups {
            let index = next.index_of(id)?;
            if next.nodes[index].group != group {
                next.nodes[index].group = group;
                changed.push(id);
            }
        }
        let is_other = strategy.as_ref().is_some_and(|strategy| *strategy != self.strategy);
        if let Some(strategy) = strategy {
            next.strategy = strategy;
        }
        next.finish()?;
        changed.sort();
        changed.dedup();
        let mut done: Vec<Option<String>> = Vec::new();
        for id in &changed {
            let index = next.index_of(*id)?;
            let group = next.nodes[index].group.clone();
            let is_new = |node: &PlacedNode| changed.contains(&node.id);
            let mut members = next.nodes.iter().filter(|node| node.group == group);
            if !is_other && !members.all(is_new) {
                fit_node(&mut next, index, Salts::First(SALTS_TRIED));
            } else if !done.contains(&group) {
                fit_group(&mut next, group.as_deref());
                done.push(group);
            }
        }
        Ok(next)
    }

    /// The same nodes, as even as can be: moves about as many slots as were unevenly placed, and
    /// some more.
    pub fn evened(&self, start_ms: i64) -> Result<Self, DocumentFault> {
        let mut next = self.next(start_ms)?;
        fit_all(&mut next);
        Ok(next)
    }

    /// Whether `next` may follow this document: a higher epoch, from a later time or the same.
    pub fn check_next(&self, next: &Self) -> Result<(), DocumentFault> {
        if next.epoch <= self.epoch {
            let (got, min) = (next.epoch, self.epoch.saturating_add(1));
            let cause = Cause::OutOfRange { got, min, max: i64::MAX as u64 };
            return Err(DocumentFault { field: Field::Top("epoch"), cause });
        }
        if next.start_ms < self.start_ms {
            let cause = Cause::StartsBefore { start_ms: self.start_ms };
            return Err(DocumentFault { field: Field::Top("start_ms"), cause });
        }
        Ok(())
    }

    fn next(&self, start_ms: i64) -> Result<Self, DocumentFault> {
        let next = Self { epoch: self.epoch.saturating_add(1), start_ms, ..self.clone() };
        self.check_next(&next)?;
        Ok(next)
    }

    fn finish(&mut self) -> Result<(), DocumentFault> {
        self.sort();
        for node in &mut self.nodes {
            // A node that nobody fitted yet need not bring a pull.
            node.pull = node.pull.max(1);
        }
        self.check()
    }

    fn index_of(&self, id: NodeId) -> Result<usize, DocumentFault> {
        let fault = DocumentFault { field: Field::Top("nodes"), cause: Cause::UnknownNode(id) };
        self.find(id).ok_or(fault)
    }
}
