//! Who owns what in the simulated cluster: documents, and where nodes are. The control plane of the
//! simulation is a few lines; documents, tables and routes are the real ones.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tidegate::gateway::fleet::{Fleet, FleetNode};
use tidegate::model::placement::{NodeId, PlacedNode, Placement, PlacementDocument, Strategy};

use super::node::port_of;
use crate::random::Random;
use crate::series::Pool;

pub const NODES_MAX: usize = 4;
const EPOCHS_MAX: usize = 4;

/// What a document is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    epoch: u64,
    /// A bit per node.
    nodes: u8,
    replication: u8,
    is_by_label: bool,
}

/// Tables take long to compute, and few shapes are used.
static PLACEMENTS: LazyLock<Mutex<HashMap<Shape, Arc<Placement>>>> = LazyLock::new(Mutex::default);

/// All documents that a run may come to, in the order of their epochs.
pub struct Plan {
    documents: Vec<Arc<Placement>>,
    /// How many of them were announced.
    pub announced: usize,
}

impl Plan {
    pub fn new(node_count: usize, random: &mut Random) -> Self {
        let replication = 1 + random.below(node_count.min(3));
        let is_by_label = random.once_in(5);
        let documents = (1..=EPOCHS_MAX).map(|epoch| {
            let mut nodes = 0u8;
            while (nodes.count_ones() as usize) < replication {
                nodes = u8::try_from(random.below(1 << node_count)).expect("few");
                if epoch == EPOCHS_MAX {
                    nodes = (1 << node_count) - 1;
                }
            }
            let replication = u8::try_from(replication).expect("few");
            placement(Shape { epoch: epoch as u64, nodes, replication, is_by_label })
        });
        Self { documents: documents.collect(), announced: 1 }
    }

    pub fn newest_epoch(&self) -> u64 {
        self.announced as u64
    }

    pub fn has_more(&self) -> bool {
        self.announced < self.documents.len()
    }

    pub fn placement(&self, epoch: u64) -> &Arc<Placement> {
        &self.documents[usize::try_from(epoch).expect("small") - 1]
    }

    pub fn node_count(&self) -> usize {
        self.documents[EPOCHS_MAX - 1].document().nodes.len()
    }

    pub fn replication(&self) -> u8 {
        self.documents[0].document().replication
    }

    /// Whether a node is in the document of an epoch.
    pub fn has_node(&self, epoch: u64, node: usize) -> bool {
        let nodes = &self.placement(epoch).document().nodes;
        nodes.iter().any(|one| index_of(one.id) == node)
    }

    /// The nodes that own a series.
    pub fn owners(&self, epoch: u64, pool: &Pool, series: usize) -> Vec<usize> {
        let placement = self.placement(epoch);
        let one = &pool.series[series];
        let owners = placement.owners_of(one.tenant, one.hash, &one.labels);
        let nodes = &placement.document().nodes;
        owners.iter().map(|owner| index_of(nodes[usize::from(*owner)].id)).collect()
    }

    /// What a gateway is told; `ways`: shards and host of each node.
    pub fn fleet(&self, epoch: u64, ways: &[(usize, u8)]) -> Fleet {
        let placement = Arc::clone(self.placement(epoch));
        let nodes = placement.document().nodes.iter().map(|node| {
            let (shards, host) = ways[index_of(node.id)];
            let shards = (0..shards).map(|shard| address_of(host, shard));
            FleetNode { id: node.id, shards: shards.collect() }
        });
        let nodes = nodes.collect();
        Fleet { placement, nodes }
    }
}

fn placement(shape: Shape) -> Arc<Placement> {
    let mut known = PLACEMENTS.lock().unwrap_or_else(PoisonError::into_inner);
    let made = known.entry(shape).or_insert_with(|| {
        let is_in = |index: &usize| shape.nodes & 1 << index != 0;
        let nodes = (0..NODES_MAX).filter(is_in);
        let nodes = nodes
            .map(|index| PlacedNode::new(id_of(index), &format!("node-{index}:7000"), 1))
            .collect();
        let labels = vec!["instance".to_owned()];
        let document = PlacementDocument {
            epoch: shape.epoch,
            start_ms: i64::try_from(shape.epoch).expect("small"),
            replication: shape.replication,
            strategy: if shape.is_by_label {
                Strategy::ShardBy { labels }
            } else {
                Strategy::Hash {}
            },
            nodes,
        };
        Arc::new(Placement::new(document).expect("a good document"))
    });
    Arc::clone(made)
}

pub fn id_of(node: usize) -> NodeId {
    NodeId(0x0de0 + node as u128)
}

pub fn index_of(id: NodeId) -> usize {
    usize::try_from(id.0 - id_of(0).0).expect("one of ours")
}

fn address_of(host: u8, shard: usize) -> SocketAddr {
    let (net, port) = port_of(shard);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(net, 0, 0, host)), port)
}

/// The host and the shard that an address names.
pub fn place_at(address: SocketAddr) -> (u8, usize) {
    let IpAddr::V4(ip) = address.ip() else { panic!("made above") };
    (ip.octets()[3], usize::from(address.port() - port_of(0).1))
}
