//! A gateway shard's end of hints: what its owner cannot deliver goes to the keeper, what the
//! keeper hands out goes to the owner. Pure.
//!
//! In: which nodes are up, what the keeper says, time. Out: commands. A node's hints are asked for
//! while its links are up; what it could not take is asked for again later. What is handed out
//! waits here while the lanes to the node are full. Hints for a node that the placement does not
//! have any more go to whoever owns their series now.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::command::{HintCommand, HintEvent};
use super::log::{HintRefusal, HintTicket};
use super::replay::HintRecord;
use crate::base::time::{Duration, Instant};
use crate::gateway::owner::{Delivered, Owner};
use crate::gateway::parts::HintOrigin;
use crate::model::placement::NodeId;
use crate::model::refusal::{Refusal, RefusalCounts};

/// How long a node that could not take a hint is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The shard's end.
#[derive(Debug)]
pub struct HintSide {
    shard: u32,
    commands: VecDeque<HintCommand>,
    nodes: BTreeMap<NodeId, Reading>,
    /// What the keeper handed out and the owner had no room for yet: as much as a shard may have.
    held: BTreeMap<NodeId, VecDeque<HintRecord>>,
    /// What the owner is to be told of hints that the start found.
    found: Vec<(NodeId, i64)>,
    is_draining: bool,
    /// Samples of hints that nodes will never take.
    refused: RefusalCounts,
}

/// How the hints of a node are.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    is_up: bool,
    is_asked: bool,
    again_at: Option<Instant>,
}

impl HintSide {
    /// The end of `shard`. `waiting` are the nodes for which a start at `now_ms` found hints on the
    /// disk; whatever a client writes again from before that has to get behind them.
    pub fn new(shard: u32, waiting: impl IntoIterator<Item = NodeId>, now_ms: i64) -> Self {
        let waiting: Vec<NodeId> = waiting.into_iter().collect();
        let nodes = waiting.iter().map(|node| (*node, Reading::default())).collect();
        let found = waiting.into_iter().map(|node| (node, now_ms)).collect();
        let (commands, refused) = (VecDeque::new(), RefusalCounts::default());
        let held = BTreeMap::new();
        Self { shard, commands, nodes, held, found, is_draining: false, refused }
    }

    /// How the nodes are: those of the placement, with whether all links of the shard to them are
    /// up. Others have left it.
    pub fn handle_nodes(&mut self, nodes: &BTreeMap<NodeId, bool>) {
        let known: BTreeSet<NodeId> = self.nodes.keys().chain(nodes.keys()).copied().collect();
        for node in known {
            let reading = self.nodes.entry(node).or_default();
            reading.is_up = nodes.get(&node).copied().unwrap_or(true);
            if !reading.is_up && std::mem::take(&mut reading.is_asked) {
                self.held.remove(&node);
                self.commands.push_back(HintCommand::Pause { node, shard: self.shard });
            }
        }
    }

    /// The process ends: hints stay on the disk for the next start, but those that went out.
    pub fn drain(&mut self) {
        self.is_draining = true;
        self.held.clear();
        for (&node, reading) in &mut self.nodes {
            if std::mem::take(&mut reading.is_asked) {
                self.commands.push_back(HintCommand::Pause { node, shard: self.shard });
            }
        }
    }

    /// What the keeper says.
    pub fn handle_event(&mut self, event: HintEvent, owner: &mut Owner) {
        match event {
            HintEvent::Appended { ticket, outcome, .. } => {
                owner.handle_hinted(ticket, outcome.map_err(refusal_of));
            }
            // It was on its way when the keeper heard that no more are wanted.
            HintEvent::Record { .. } if self.is_draining => {}
            HintEvent::Record { node, record } => {
                self.held.entry(node).or_default().push_back(record);
            }
            HintEvent::Drained { node } => owner.handle_drained(node),
        }
    }

    /// Carries on: hints out of the owner, and what became of those that came back.
    pub fn work(&mut self, now: Instant, owner: &mut Owner) {
        let shard = self.shard;
        for (node, until_ms) in self.found.drain(..) {
            owner.handle_waiting(node, until_ms);
        }
        for (&node, records) in &mut self.held {
            while owner.has_room_for_hint(node)
                && let Some(HintRecord { number, part }) = records.pop_front()
            {
                owner.handle_hint(HintOrigin { node, number }, part);
            }
        }
        self.held.retain(|_, records| !records.is_empty());
        while let Some(out) = owner.poll_hint() {
            let ticket = HintTicket { shard, number: out.ticket };
            let node = out.node;
            // It may leave the placement before anybody asks how it is.
            self.nodes.entry(node).or_default();
            self.commands.push_back(HintCommand::Append { node, ticket, part: out.part });
        }
        while let Some(Delivered { hint, is_done, refused }) = owner.poll_delivered() {
            let HintOrigin { node, number } = hint;
            let reading = self.nodes.entry(node).or_default();
            if is_done {
                self.refused.merge(&refused);
                self.commands.push_back(HintCommand::Delivered { node, shard, number });
            } else if std::mem::take(&mut reading.is_asked) {
                // They are handed out again, behind this one.
                self.held.remove(&node);
                reading.again_at = Some(now + AGAIN_AFTER);
                self.commands.push_back(HintCommand::Pause { node, shard });
            }
        }
        for (&node, reading) in &mut self.nodes {
            let is_due = reading.again_at.is_none_or(|again_at| again_at <= now);
            if reading.is_up && !reading.is_asked && is_due && !self.is_draining {
                reading.is_asked = true;
                reading.again_at = None;
                self.commands.push_back(HintCommand::Read { node, shard });
            }
        }
    }

    /// The next command for the keeper.
    pub fn poll_command(&mut self) -> Option<HintCommand> {
        self.commands.pop_front()
    }

    /// The keeper had no room: it comes first again.
    pub fn handle_command_delayed(&mut self, command: HintCommand) {
        self.commands.push_front(command);
    }

    /// Samples of hints that nodes will never take, and why.
    pub fn refused(&self) -> &RefusalCounts {
        &self.refused
    }
}

/// What the client hears: a full disk is no limit of ours.
fn refusal_of(refusal: HintRefusal) -> Refusal {
    match refusal {
        HintRefusal::Disk(libc::ENOSPC | libc::EDQUOT) => Refusal::DiskFull,
        _ => Refusal::HintsFull,
    }
}

#[cfg(test)]
mod tests;
