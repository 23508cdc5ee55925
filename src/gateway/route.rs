//! Series -> the lanes that must take it: one per owner, each a node shard.
//!
//! In: a placement, and which lane leads to which node shard. Out: per lane, which series of a
//! batch are its own. A shard with one lane only (one process that stores what it takes in) looks
//! at nothing. Placement by all labels costs one lookup a series; by chosen labels, a walk over its
//! labels. Not here: what lanes do.

use std::sync::Arc;

use crate::gateway::request::{RequestBytes, SeriesBatch};
use crate::model::placement::{GroupIndex, NodeId, Place, Placement, REPLICATION_MAX};
use crate::model::series::{SLOT_COUNT, SeriesHash, Slot, TenantId};

/// Owners of a series at most.
const LANES_MAX: usize = REPLICATION_MAX as usize;

/// Which lanes take a series.
#[derive(Debug, Default)]
pub struct Route {
    placed: Option<Placed>,
}

#[derive(Debug)]
struct Placed {
    placement: Arc<Placement>,
    /// By node of the document; by node shard. Never empty.
    lanes: Vec<Vec<u16>>,
    replication: usize,
    /// `replication` lanes per slot, if the slot of a series is that of its hash.
    by_slot: Option<Box<[u16]>>,
}

/// The lanes of one series; they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesLanes {
    lanes: [u16; LANES_MAX],
    len: usize,
}

impl SeriesLanes {
    /// They.
    pub fn as_slice(&self) -> &[u16] {
        &self.lanes[..self.len]
    }
}

impl Route {
    /// Everything to lane 0.
    pub fn single() -> Self {
        Self::default()
    }

    /// By `placement`; `lanes` are those of each of its document's nodes, by node shard. A node of
    /// which nothing is known has one lane for all.
    pub fn placed(placement: Arc<Placement>, lanes: Vec<Vec<u16>>) -> Self {
        assert!(lanes.len() == placement.document().nodes.len());
        assert!(lanes.iter().all(|lanes| !lanes.is_empty()));
        let replication = usize::from(placement.document().replication);
        let mut placed = Placed { placement, lanes, replication, by_slot: None };
        let is_by_hash = placed.placement.document().strategy.labels().is_none()
            && placed.placement.document().strategy.rules().is_empty();
        if is_by_hash {
            let slots = (0..SLOT_COUNT).map(Slot);
            let lanes = slots.flat_map(|slot| {
                let place = Place { group: GroupIndex::default(), slot };
                placed.lanes_at(place, slot).as_slice().to_vec()
            });
            placed.by_slot = Some(lanes.collect());
        }
        Self { placed: Some(placed) }
    }

    /// How many lanes take each series.
    pub fn replication(&self) -> usize {
        self.placed.as_ref().map_or(1, |placed| placed.replication)
    }

    /// Whether lane 0 takes everything.
    pub fn is_single(&self) -> bool {
        self.placed.is_none()
    }

    /// The epoch that is followed; 0 without a placement.
    pub fn epoch(&self) -> u64 {
        self.placed.as_ref().map_or(0, |placed| placed.placement.document().epoch)
    }

    /// The node that a lane leads to, if the placement has it.
    pub fn node_of(&self, lane: u16) -> Option<NodeId> {
        let placed = self.placed.as_ref()?;
        let node = placed.lanes.iter().position(|lanes| lanes.contains(&lane))?;
        Some(placed.placement.document().nodes[node].id)
    }

    /// The lanes to the shards of a node; `None` if the placement does not have it.
    pub fn lanes_to(&self, node: NodeId) -> Option<&[u16]> {
        let placed = self.placed.as_ref()?;
        let node = placed.placement.document().find(node)?;
        Some(&placed.lanes[node])
    }

    /// The lanes of the series at `index`.
    pub fn lanes_of(
        &self,
        tenant: TenantId,
        (batch, index): (&SeriesBatch, usize),
        bytes: &RequestBytes,
    ) -> SeriesLanes {
        let Some(placed) = &self.placed else {
            return SeriesLanes { lanes: [0; LANES_MAX], len: 1 };
        };
        let hash = batch.hash[index];
        if let Some(by_slot) = &placed.by_slot {
            return placed.lanes_in(by_slot, hash);
        }
        let labels = bytes.labels(batch.labels[index]);
        let place = placed.placement.router().place(tenant, hash, labels);
        placed.lanes_at(place, hash.slot())
    }

    /// As [`Route::split`], but to the shards of one node; `false` if the placement does not have
    /// it.
    pub fn split_to_node(
        &self,
        node: NodeId,
        batch: &SeriesBatch,
        series: &mut [Vec<u32>],
    ) -> bool {
        let Some(lanes) = self.lanes_to(node) else { return false };
        for (place, hash) in (0u32..).zip(&batch.hash) {
            series[usize::from(lane_among(lanes, *hash))].push(place);
        }
        true
    }

    /// As [`Route::split`], and to the shards of `node`, whatever it owns.
    pub fn split_and_to_node(
        &self,
        node: NodeId,
        (tenant, batch, bytes): (TenantId, &SeriesBatch, &RequestBytes),
        series: &mut [Vec<u32>],
    ) {
        let to_node = self.lanes_to(node);
        for (index, place) in (0..batch.len()).zip(0u32..) {
            let owners = self.lanes_of(tenant, (batch, index), bytes);
            let own = to_node.map(|lanes| lane_among(lanes, batch.hash[index]));
            let own = own.filter(|lane| !owners.as_slice().contains(lane));
            for lane in owners.as_slice().iter().copied().chain(own) {
                series[usize::from(lane)].push(place);
            }
        }
    }

    /// Appends to `series[lane]` the places in `batch` of the series that the lane takes.
    pub fn split(
        &self,
        tenant: TenantId,
        batch: &SeriesBatch,
        bytes: &RequestBytes,
        series: &mut [Vec<u32>],
    ) {
        for (index, place) in (0..batch.len()).zip(0u32..) {
            for &lane in self.lanes_of(tenant, (batch, index), bytes).as_slice() {
                series[usize::from(lane)].push(place);
            }
        }
    }
}

/// Of the lanes to a node's shards, that of a series.
fn lane_among(lanes: &[u16], hash: SeriesHash) -> u16 {
    let shard_count = u32::try_from(lanes.len()).expect("at most 1024");
    lanes[hash.slot().shard(shard_count) as usize]
}

impl Placed {
    #[inline]
    fn lanes_in(&self, by_slot: &[u16], hash: SeriesHash) -> SeriesLanes {
        let start = usize::from(hash.slot().0) * self.replication;
        let mut lanes = [0; LANES_MAX];
        for (lane, found) in lanes.iter_mut().zip(&by_slot[start..start + self.replication]) {
            *lane = *found;
        }
        SeriesLanes { lanes, len: self.replication }
    }

    /// The shard within a node is that of the hash's slot, whatever chose the node.
    fn lanes_at(&self, place: Place, slot: Slot) -> SeriesLanes {
        let owners = self.placement.owners(place);
        let mut lanes = [0; LANES_MAX];
        for (lane, owner) in lanes.iter_mut().zip(owners) {
            let shards = &self.lanes[usize::from(*owner)];
            let shard_count = u32::try_from(shards.len()).expect("at most 1024");
            *lane = shards[slot.shard(shard_count) as usize];
        }
        SeriesLanes { lanes, len: owners.len() }
    }
}
