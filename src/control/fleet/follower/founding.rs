//! The first document: which nodes a fleet is founded of, and what it waits for.
//!
//! A fleet is founded once every seed answers, and never of fewer nodes than the seeds may mean. A
//! seed is a name; several addresses of one family (IPv4, IPv6) may be several nodes, so each of
//! them has to answer, however long that takes. Its two families may be two ways to the same nodes
//! (`localhost` is 127.0.0.1 and ::1, and a node listens on one of them), so one may be missing:
//! - when all of the other have answered, by at least as many nodes as the missing one has
//!   addresses;
//! - when all of the missing one were tried and nobody answered, neither now nor before, unless it
//!   was a node that answers now.
//!
//! What this cannot tell from `localhost`: a name with the IPv4 address of one node and the IPv6
//! address of another that is down. Who has such a name waits for both before a gateway is started.
//! A node is counted once, by its id, however many addresses lead to it.
//!
//! That two foundings with a node in common do not both succeed is agreement's
//! (`agreement/proposal.rs`), whatever they wait for.

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
/// So many of the addresses that are waited for are told.
const TOLD_MAX: usize = 16;

/// An address that is waited for, of a seed, and why.
struct Awaited<'a> {
    seed: &'a Seed,
    cause: String,
}

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
        let (mut nodes, mut awaited) = (BTreeMap::new(), Vec::new());
        for seed in &self.seeds {
            for node in self.nodes_of(seed, &mut awaited) {
                nodes.entry(node.id).or_insert(node);
            }
        }
        if !awaited.is_empty() {
            if settled >= TOLD_AFTER {
                self.note_founding_fault(explain(&awaited));
            }
            return None;
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

    /// Who answers for a seed; whoever it lacks goes to `awaited`.
    fn nodes_of<'a>(&self, seed: &'a Seed, awaited: &mut Vec<Awaited<'a>>) -> Vec<PlacedNode> {
        if seed.addresses.is_empty() {
            let cause = "no address of it is known yet; is the name right?".into();
            awaited.push(Awaited { seed, cause });
        }
        let spare = self.spare_addresses(seed);
        let mut nodes = Vec::new();
        for address in seed.addresses.iter().filter(|address| !spare.contains(address)) {
            match self.newcomer_at(*address) {
                Ok(node) => nodes.push(node),
                Err(cause) if address.to_string() == *seed.name => {
                    awaited.push(Awaited { seed, cause });
                }
                Err(cause) => {
                    awaited.push(Awaited { seed, cause: format!("{address}: {cause}") });
                }
            }
        }
        nodes
    }

    /// The node at an address, that belongs to no fleet, or what is missing.
    fn newcomer_at(&self, address: SocketAddr) -> Result<PlacedNode, String> {
        let peer = self.peers.by_address.get(&address);
        let fault = peer.and_then(|peer| peer.fault.clone());
        let is_there = peer.is_some_and(|peer| peer.met.is_some());
        match peer.and_then(|peer| peer.newest_epoch) {
            Some(0) => placed_node(&self.peers, address).ok_or("nobody answers there"),
            Some(_) => Err("it belongs to a fleet, whose documents are awaited"),
            None if is_there => Err("it has not said yet whether it belongs to a fleet"),
            None => Err("nobody answers there"),
        }
        .map_err(|cause| fault.unwrap_or_else(|| cause.into()))
    }

    /// Addresses of a name that nobody needs: see the top of this file.
    fn spare_addresses(&self, seed: &Seed) -> Vec<SocketAddr> {
        let (v4, v6): (Vec<_>, Vec<_>) = seed.addresses.iter().partition(|each| each.is_ipv4());
        if self.is_enough(&v4, &v6) {
            v6
        } else if self.is_enough(&v6, &v4) {
            v4
        } else {
            Vec::new()
        }
    }

    /// Whether the nodes at the addresses of one family stand for those of the other.
    fn is_enough(&self, family: &[SocketAddr], other: &[SocketAddr]) -> bool {
        let node_at =
            |address: &SocketAddr| Some(self.peers.by_address.get(address)?.met.as_ref()?.node);
        let nodes: Option<BTreeSet<NodeId>> = family.iter().map(node_at).collect();
        let Some(nodes) = nodes else { return false };
        let is_silent = |address: &SocketAddr| {
            let peer = self.peers.by_address.get(address);
            // The fault says that it was tried.
            peer.is_some_and(|peer| peer.met.is_none() && peer.fault.is_some())
        };
        // Whoever was there before is a node as well; it may be starting again.
        let last_met = &self.peers.last_met;
        let is_missed = |address: &SocketAddr| {
            last_met.iter().any(|(node, (last, _))| last == address && !nodes.contains(node))
        };
        other.len() <= nodes.len() && other.iter().all(|each| is_silent(each) && !is_missed(each))
    }

    /// Silent addresses of names that nodes answer for by another family are no fault, unless the
    /// placement names them, or the list does once more.
    pub(super) fn leave_out_alternatives(&self, report: &mut StatusReport) {
        let (mut spare, mut needed) = (BTreeSet::new(), BTreeSet::new());
        for seed in &self.seeds {
            let of_seed = self.spare_addresses(seed);
            needed.extend(seed.addresses.iter().filter(|address| !of_seed.contains(address)));
            spare.extend(of_seed);
        }
        let spare: BTreeSet<String> = spare.difference(&needed).map(ToString::to_string).collect();
        let is_placed = |address: &str| report.nodes.iter().any(|node| node.address == address);
        report.silent.retain(|each| is_placed(&each.address) || !spare.contains(&each.address));
    }
}

/// For people: who is waited for, and what to do.
fn explain(awaited: &[Awaited]) -> String {
    let told = awaited.iter().take(TOLD_MAX);
    let mut causes: Vec<String> =
        told.map(|Awaited { seed, cause }| format!("{}: {cause}", seed.name)).collect();
    if awaited.len() > TOLD_MAX {
        causes.push(format!("and {} more", awaited.len() - TOLD_MAX));
    }
    let of_names = if awaited.iter().any(|each| each.seed.addresses.len() > 1) {
        "; each address of a name counts as a node, so if one is only another way to a node, write \
         in --nodes one IP:PORT of each node instead of the name"
    } else {
        ""
    };
    format!(
        "cannot found the fleet before all of its nodes answer; waiting for {}. Start the nodes \
         there{of_names}; what is no node of this fleet, take out of --nodes",
        causes.join(", ")
    )
}
