//! The hint logs of all nodes, and what they may take together.

use std::collections::BTreeMap;

use crate::model::placement::NodeId;

use super::HintPart;
use super::log::{FoundSegment, HintFigures, HintLimits, HintLog, HintTicket, LogEvent};

/// Segments in memory at once, of all nodes: when many come back together they take turns.
pub const LOADED_SEGMENTS_MAX: usize = 4;

/// One log per node that hints were kept for since the start.
#[derive(Debug)]
pub struct HintLogs {
    limits: HintLimits,
    shard_count: u32,
    logs: BTreeMap<NodeId, HintLog>,
    /// Nodes in the order in which a segment of theirs was loaded last.
    loaded: Vec<NodeId>,
}

impl HintLogs {
    /// No log yet, for a gateway with `shard_count` shards.
    pub fn new(limits: HintLimits, shard_count: u32) -> Self {
        Self { limits, shard_count, logs: BTreeMap::new(), loaded: Vec::new() }
    }

    /// A start found hints of `node`, oldest first.
    pub fn add_found(&mut self, node: NodeId, found: &[FoundSegment]) {
        let log = HintLog::new(node, self.limits, self.shard_count, found);
        self.logs.insert(node, log);
    }

    /// The log of `node`; made if there is none.
    pub fn log_mut(&mut self, node: NodeId) -> &mut HintLog {
        let make = || HintLog::new(node, self.limits, self.shard_count, &[]);
        self.logs.entry(node).or_insert_with(make)
    }

    /// See [`HintLog::handle_append`].
    pub fn handle_append(
        &mut self,
        now_ms: i64,
        node: NodeId,
        ticket: HintTicket,
        part: &HintPart,
    ) {
        let all = self.bytes();
        let log = self.log_mut(node);
        let other_bytes = all - log.bytes();
        log.handle_append(now_ms, ticket, part, other_bytes);
    }

    /// The next segment to be loaded, for [`HintLog::handle_loaded`]: of the node that has waited
    /// longest, while there is room in memory.
    pub fn poll_load(&mut self, now_ms: i64) -> Option<(NodeId, u64)> {
        let waits = self.logs.iter().filter(|(_, log)| log.wants_load(now_ms));
        let turn = |node: NodeId| self.loaded.iter().position(|loaded| *loaded == node);
        let next = waits.map(|(node, _)| *node).min_by_key(|node| turn(*node))?;
        let in_memory = self.logs.values().filter(|log| log.has_loaded()).count();
        if in_memory >= LOADED_SEGMENTS_MAX && !self.logs.values_mut().any(HintLog::unload_unread) {
            return None;
        }
        let segment = self.log_mut(next).poll_load(now_ms)?;
        self.loaded.retain(|node| *node != next);
        self.loaded.push(next);
        Some((next, segment))
    }

    /// Bytes of all nodes.
    pub fn bytes(&self) -> u64 {
        self.logs.values().map(HintLog::bytes).sum()
    }

    /// The nodes that have a log.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.logs.keys().copied().collect()
    }

    /// The next thing to tell a shard, and of which node.
    pub fn poll_event(&mut self) -> Option<(NodeId, LogEvent)> {
        self.logs.iter_mut().find_map(|(node, log)| Some((*node, log.poll_event()?)))
    }

    /// When to ask again for what the disk refused.
    pub fn poll_timeout_ms(&self) -> Option<i64> {
        self.logs.values().filter_map(HintLog::poll_timeout_ms).min()
    }

    /// Figures for people, by node.
    pub fn figures(&self) -> Vec<(NodeId, HintFigures)> {
        self.logs.iter().map(|(node, log)| (*node, log.figures())).collect()
    }
}
