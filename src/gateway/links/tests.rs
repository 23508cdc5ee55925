//! The links of a shard without nodes at their other ends.

use super::*;
use crate::base::time::monotonic_now;
use crate::gateway::fleet::FleetNode;
use crate::gateway::owner::AckPolicy;
use crate::model::labels::LabelLimits;
use crate::model::placement::{PlacedNode, Placement, PlacementDocument, Strategy};

fn links() -> Links {
    let config = LinksConfig {
        gateway: 1,
        shard: 0,
        shard_count: 1,
        secret: LinkSecret::new(&[7; 32]).expect("long enough"),
        silence: SilenceLimits::default(),
        kept_bytes_max: 1 << 20,
    };
    Links::new(config, Box::new(|| [3; NONCE_BYTES]))
}

/// A fleet of `nodes`, each with two shards.
fn fleet(epoch: u64, nodes: &[u128]) -> Fleet {
    let placed = nodes.iter().map(|node| PlacedNode::new(NodeId(*node), &format!("n{node}:1"), 1));
    let strategy = Strategy::Hash {};
    let placed = placed.collect();
    let document =
        PlacementDocument { epoch, start_ms: 0, replication: 1, strategy, nodes: placed };
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let nodes = nodes.iter().map(|node| {
        let shards = vec![address(9), address(10)];
        FleetNode { id: NodeId(*node), shards }
    });
    Fleet {
        placement: Arc::new(Placement::new(document).expect("a document")),
        nodes: nodes.collect(),
    }
}

/// Red when each node that comes takes lanes that nobody uses after it has left: after 32,767 nodes
/// a gateway would have none left; or when a lane is used again while its connection is closing.
#[test]
fn lanes_of_nodes_that_left_are_used_again() {
    let now = monotonic_now();
    let mut owner = Owner::placed(LabelLimits::default(), u64::MAX, AckPolicy::All);
    let mut links = links();
    for round in 1..200 {
        let stays = [1, 1 + u128::from(round)];
        links.handle_fleet(now, &fleet(round, &stays), &mut owner);
        links.work(now, &mut owner);
        let up = links.nodes_up(&owner);
        assert_eq!(up.keys().map(|node| node.0).collect::<Vec<_>>(), stays);
        // As the driver does it: what is closed while it is dialled is told as not connected.
        while let Some(action) = links.poll_action() {
            if let LinkAction::Close { link } = action {
                links.handle_connected(now, link, false);
            }
        }
    }
    // Those of two nodes, and of one that has just left.
    assert!(owner.lane_count() <= 6, "{} lanes", owner.lane_count());
    // Without that word nothing may take its place.
    for round in 200..210 {
        links.handle_fleet(now, &fleet(round, &[1, 1 + u128::from(round)]), &mut owner);
        links.work(now, &mut owner);
    }
    assert!(owner.lane_count() > 20, "{} lanes", owner.lane_count());
}
