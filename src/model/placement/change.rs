//! The next document: what an operator asks for -> a document of the next epoch, checked.
//!
//! In: the newest document, the change, when it starts. Out: the next one; compare the two with
//! `plan` before it is used. Each of these moves only what it must, but for [`evened`], which says.
//!
//! [`evened`]: PlacementDocument::evened

use super::document::{NodeId, PlacedNode, PlacementDocument, Strategy};
use super::fault::{Cause, DocumentFault, Field};
use super::fit::{SALTS_TRIED, Salts, fit_all, fit_node};

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

    /// Another way from series to slots: most series change their owners.
    pub fn with_strategy(&self, start_ms: i64, strategy: Strategy) -> Result<Self, DocumentFault> {
        let mut next = self.next(start_ms)?;
        next.strategy = strategy;
        next.finish()?;
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
