//! The first document: which nodes a fleet is founded of, and what it waits for.
//!
//! A fleet is founded once every seed answers. A seed is a name: its addresses are ways to one
//! node, such as its IPv4 and its IPv6 address, and a node is counted once, by its id, however many
//! lead to it. So a seed has answered
//! - when all of its addresses have, or all of IPv4, or all of IPv6 (`localhost` is 127.0.0.1 and
//!   ::1, and a node listens on one of them);
//! - when those that answer have all been one node for [`ALTERNATIVES_AFTER`]: the others are other
//!   ways to it. Where several nodes answer, the name stands for a list of nodes, and all of its
//!   addresses are waited for.
//!
//! Waiting is only against founding with fewer nodes than were meant. That two foundings with a
//! node in common do not both succeed is agreement's (`agreement/proposal.rs`), whatever they wait
//! for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::{AGAIN_AFTER, Follower};
use crate::base::time::{Duration, Now};
use crate::control::discovery::schedule::Seed;
use crate::control::fleet::change::placed_node;
use crate::control::fleet::report::StatusReport;
use crate::model::placement::{NodeId, PlacedNode, PlacementDocument};

/// A fleet is founded of seeds that stayed the same for so long.
const FOUND_AFTER: Duration = Duration::from_secs(1);
/// What is waited for is told after so long.
const TOLD_AFTER: Duration = Duration::from_secs(10);
/// When the silent addresses of a name count as ways to the one node that answers at the others.
const ALTERNATIVES_AFTER: Duration = Duration::from_secs(10);

impl Follower {
    /// The first document, once all seeds answer and none belongs to a fleet.
    pub(super) fn founding(
        &mut self,
        now: Now,
    ) -> Option<(Option<Arc<PlacementDocument>>, PlacementDocument)> {
        let settled = now.monotonic.saturating_duration_since(self.seeds_since);
        if self.seeds.is_empty() || settled < FOUND_AFTER {
            return None;
        }
        let mut nodes = BTreeMap::new();
        for seed in &self.seeds {
            match self.nodes_of(now, seed) {
                Ok(of_seed) => {
                    for node in of_seed {
                        nodes.entry(node.id).or_insert(node);
                    }
                }
                Err(cause) => {
                    if settled >= TOLD_AFTER {
                        let fault = format!(
                            "cannot found the fleet before all of its nodes answer; {}: {cause}",
                            seed.name
                        );
                        self.note_founding_fault(fault);
                    }
                    return None;
                }
            }
        }
        let nodes = nodes.into_values().collect();
        let strategy = self.config.strategy.clone();
        let replication = self.config.replication;
        match PlacementDocument::found(now.unix_ms, replication, strategy, nodes) {
            Ok(document) => Some((None, document)),
            Err(fault) => {
                self.note_founding_fault(format!("cannot found the fleet: {fault}"));
                self.propose_after = now.monotonic + AGAIN_AFTER;
                None
            }
        }
    }

    /// Told once each.
    fn note_founding_fault(&mut self, text: String) {
        if self.founding_fault.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            self.founding_fault = Some(text);
        }
    }

    /// Who answers for a seed, or what is missing.
    fn nodes_of(&self, now: Now, seed: &Seed) -> Result<Vec<PlacedNode>, String> {
        if seed.addresses.is_empty() {
            return Err("no address of it is known yet; is the name right?".into());
        }
        let mut nodes = Vec::new();
        let mut silent = Vec::new();
        for address in &seed.addresses {
            let peer = self.peers.by_address.get(address);
            let node = peer.filter(|peer| peer.newest_epoch == Some(0));
            match node.and_then(|peer| Some((peer, placed_node(&self.peers, *address)?))) {
                Some((peer, node)) => nodes.push((*address, peer.since, node)),
                None => silent.push((*address, peer.and_then(|peer| peer.fault.clone()))),
            }
        }
        let ids: BTreeSet<NodeId> = nodes.iter().map(|(_, _, node)| node.id).collect();
        let newest = nodes.iter().map(|(_, since, _)| *since).max();
        let is_settled = newest.is_some_and(|since| {
            now.monotonic.saturating_duration_since(since) >= ALTERNATIVES_AFTER
        });
        let is_family_there = |is_v4: bool| {
            let is_of = |address: &SocketAddr| address.is_ipv4() == is_v4;
            nodes.iter().any(|(address, ..)| is_of(address))
                && !silent.iter().any(|(address, _)| is_of(address))
        };
        if is_family_there(true) || is_family_there(false) || (ids.len() == 1 && is_settled) {
            return Ok(nodes.into_iter().map(|(.., node)| node).collect());
        }
        let causes = silent.into_iter().map(|(address, fault)| {
            let fault = fault.unwrap_or_else(|| "nobody answers there".into());
            if address.to_string() == *seed.name { fault } else { format!("{address}: {fault}") }
        });
        Err(causes.collect::<Vec<_>>().join("; "))
    }

    /// Silent addresses of names that a node answers for by another address are no fault, unless
    /// the placement names them.
    pub(super) fn leave_out_alternatives(&self, report: &mut StatusReport) {
        let is_answered = |seed: &Seed| {
            let met = seed.addresses.iter().filter_map(|address| {
                let peer = self.peers.by_address.get(address)?;
                Some(peer.met.as_ref()?.node)
            });
            met.collect::<BTreeSet<NodeId>>().len() == 1
        };
        let answered: Vec<&Seed> = self.seeds.iter().filter(|seed| is_answered(seed)).collect();
        let is_placed = |address: &str| report.nodes.iter().any(|node| node.address == address);
        report.silent.retain(|silent| {
            let is_of = |seed: &&Seed| {
                seed.addresses.iter().any(|address| address.to_string() == silent.address)
            };
            is_placed(&silent.address) || !answered.iter().any(is_of)
        });
    }
}
