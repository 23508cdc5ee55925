//! DRIVER: deletions over the fleet: every node that may hold some of the samples deletes them, or
//! the one who asked is told which did not.
//!
//! Hints that wait would bring deleted samples back when they are delivered. So nothing is deleted
//! while any are known to wait for an owner, or for a node that left, whose hints go to the owners
//! of now: this gateway knows its own, a node those of the gateways that have told it. Not seen:
//! hints of a gateway that cannot reach the node, and those that were made in the moment of the
//! deletion; who deletes again after it is safe from both.
//!
//! A node that left the placement and is away may never come back: it is left out, and the log
//! names it. If it does come back, it still has what was deleted meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::base::time::unix_now_ms;
use crate::control::reads::client::{NodeClient, NodeStatus};
use crate::control::reads::fleet::FleetReads;
use crate::control::reads::view::ReadView;
use crate::model::placement::NodeId;
use crate::query::merge::Window;
use crate::wire::delete::{DeleteOutcome, Deletion};
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameKind, Memory};

/// Why something is not deleted everywhere. Deleting it again mends that, once the cause is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetDeleteFault {
    /// It is not known who may have it.
    Unplaced,
    /// A node follows a newer placement than is known here: others than were asked may have it.
    Behind {
        /// The newest one here.
        known_epoch: u64,
        /// The node's.
        epoch: u64,
    },
    /// Nothing was deleted, because of these nodes.
    Refused(BTreeMap<NodeId, String>),
    /// These nodes did not delete; all others that may have some of it did.
    Incomplete(BTreeMap<NodeId, String>),
}

impl fmt::Display for FleetDeleteFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unplaced => out.write_str(
                "cannot delete: not every placement that may hold it is known here yet; ask again",
            ),
            Self::Behind { known_epoch, epoch } => write!(
                out,
                "cannot delete: placement epoch {epoch} is in force, and this gateway knows those \
                 up to {known_epoch} only; it asks nodes for it every second: ask again then"
            ),
            Self::Refused(nodes) => write!(out, "cannot delete: {}", Named(nodes)),
            Self::Incomplete(nodes) => write!(
                out,
                "cannot delete everywhere: {}; the other owners have deleted; delete again when \
                 this is mended",
                Named(nodes)
            ),
        }
    }
}

impl std::error::Error for FleetDeleteFault {}

struct Named<'a>(&'a BTreeMap<NodeId, String>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (id, why) in self.0 {
            write!(out, "{separator}node {:032x}: {why}", id.0)?;
            separator = "; ";
        }
        Ok(())
    }
}

impl FleetReads {
    /// Deletes one after the other on all owners of all placements that overlap, but those that
    /// left and are away; their ids do not count. Answers when every one of these nodes has made it
    /// durable. The work goes on when the answer is not waited for.
    ///
    /// # Errors
    /// Which nodes did not, and why.
    pub async fn delete(&self, deletions: Vec<Deletion>) -> Result<(), FleetDeleteFault> {
        let this = self.clone();
        let work = tokio::spawn(async move { this.delete_all(deletions).await });
        work.await.map_err(|_| FleetDeleteFault::Unplaced)?
    }

    async fn delete_all(&self, deletions: Vec<Deletion>) -> Result<(), FleetDeleteFault> {
        let view = self.view();
        let Some(newest) = view.history.newest().map(|newest| newest.document()) else {
            return Err(FleetDeleteFault::Unplaced);
        };
        if view.history.missing().next().is_some() {
            return Err(FleetDeleteFault::Unplaced);
        }
        let owners = |deletion: &Deletion| {
            let window = Window { start_ms: deletion.start_ms, end_ms: deletion.end_ms };
            view.plan(deletion.tenant, &deletion.matchers, window).nodes
        };
        let mut epoch = self.epoch_told(&view);
        let mut clients = BTreeMap::new();
        let (mut faults, mut left_out) = (BTreeMap::new(), Vec::new());
        let now_ms = unix_now_ms();
        let asked: BTreeSet<NodeId> = deletions.iter().flat_map(owners).collect();
        for (id, samples) in self.own_waiting() {
            if asked.contains(&id) || !view.is_in_all(id, now_ms) {
                faults.insert(id, waiting_text(samples));
            }
        }
        for id in asked.into_iter().filter(|id| !faults.contains_key(id)).collect::<Vec<_>>() {
            match self.client_that_may_delete(&view, id).await {
                Ok((client, followed)) => {
                    epoch = epoch.max(followed);
                    clients.insert(id, client);
                }
                Err(why) if self.may_be_left_out(&view, id) => left_out.push((id, why)),
                Err(why) => _ = faults.insert(id, why),
            }
        }
        if epoch > newest.epoch {
            return Err(FleetDeleteFault::Behind { known_epoch: newest.epoch, epoch });
        }
        if !faults.is_empty() {
            return Err(FleetDeleteFault::Refused(faults));
        }
        for (id, why) in &left_out {
            tracing::warn!(
                "deleting without node {:032x}, which left the placement and is away ({why}): \
                 never start it again, or delete again then",
                id.0
            );
        }
        for deletion in &deletions {
            let mut asked = Vec::new();
            for id in owners(deletion) {
                let Some(client) = clients.get(&id) else { continue };
                let work = delete_on(client.clone(), deletion.encode_frame(0));
                asked.push((id, tokio::spawn(work)));
            }
            for (id, done) in asked {
                if let Err(why) = done.await.unwrap_or_else(|fault| Err(fault.to_string())) {
                    faults.insert(id, why);
                }
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(FleetDeleteFault::Incomplete(faults)) }
    }

    /// Whether a node that is away has left for good, as far as can be known: not one that was not
    /// met yet, as the gateway has just started.
    fn may_be_left_out(&self, view: &ReadView, id: NodeId) -> bool {
        let is_met = view.nodes.iter().any(|node| node.id == id);
        !view.is_in_any(id, unix_now_ms()) && (self.is_settled(view) || is_met)
    }

    /// The newest placement that a node of the one here is known to follow; some of them may not be
    /// asked to delete.
    fn epoch_told(&self, view: &ReadView) -> u64 {
        let nodes = view.history.newest().into_iter().flat_map(|newest| &newest.document().nodes);
        let epochs = nodes.filter_map(|node| {
            let status = self.client(view, node.id).ok()?.status();
            match &*status.borrow() {
                NodeStatus::Up(welcome) => Some(welcome.placement_epoch),
                NodeStatus::Dialling | NodeStatus::Down(_) => None,
            }
        });
        epochs.max().unwrap_or(0)
    }

    /// The way to a node, and the placement that it follows; or why it cannot be asked.
    async fn client_that_may_delete(
        &self,
        view: &ReadView,
        id: NodeId,
    ) -> Result<(NodeClient, u64), String> {
        let client = self.client(view, id).map_err(|fault| fault.to_string())?;
        let epoch = client.placement_epoch().await.map_err(|fault| fault.to_string())?;
        Ok((client, epoch))
    }
}

fn waiting_text(samples: u64) -> String {
    format!(
        "{samples} samples wait for it at this gateway, which would come back; ask again when they \
         are delivered"
    )
}

async fn delete_on(client: NodeClient, frame: Memory) -> Result<(), String> {
    let (header, frame) = client.request(frame).await.map_err(|fault| fault.to_string())?;
    if header.kind != FrameKind::Deleted {
        return Err(format!("a {:?} frame answers; run newer releases", header.kind));
    }
    match DeleteOutcome::decode(&header, &frame[FRAME_HEADER_BYTES..]) {
        Ok(DeleteOutcome::Done) => Ok(()),
        Ok(DeleteOutcome::Refused { text }) => Err(text),
        Err(fault) => Err(format!("its answer cannot be read: {fault:?}")),
    }
}
