//! DRIVER: a gateway that has just started learns from its nodes which series have which ids, so
//! that their labels need not travel again.
//!
//! In: the fleet's nodes. Out: pages of ids, into the mailboxes of the shards that own the series.
//! Until an id is known its series travels with its labels, so nothing waits for this. Asked again
//! when a node gives other ids.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::client::{NodeClient, NodeStatus};
use super::fleet::FleetReads;
use crate::base::queue::QueueSender;
use crate::gateway::fleet::{FleetMail, IdsPage};
use crate::model::placement::NodeId;
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameKind};
use crate::wire::registry::{RegistryRequest, RegistryView};

/// Series that are asked for at once: a shard learns them in about a millisecond.
const PAGE_SERIES: u32 = 8192;
/// How often it is looked whether nodes are others.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Learns the ids of every node, and again when a node gives others, until the shards are gone.
pub async fn warm(reads: FleetReads, shards: Vec<QueueSender<FleetMail>>) {
    let mut learned: BTreeMap<NodeId, (u64, u32)> = BTreeMap::new();
    let mut placed: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        let view = reads.view();
        for node in &view.nodes {
            // The shards have heard of it by now if it was there at the last look.
            let newest = view.history.newest();
            let is_placed = newest.is_some_and(|one| one.document().find(node.id).is_some());
            if !is_placed || placed.insert(node.id) {
                continue;
            }
            let Ok(client) = reads.client(&view, node.id) else { continue };
            let NodeStatus::Up(welcome) = client.status().borrow().clone() else { continue };
            let ids = (welcome.incarnation, welcome.shard_count);
            if learned.get(&node.id) == Some(&ids) {
                continue;
            }
            let mut is_whole = true;
            for shard in 0..welcome.shard_count {
                match learn(&client, (node.id, shard), &shards).await {
                    Ok(Learned::All) => {}
                    Ok(Learned::Less) => is_whole = false,
                    Err(ShardsGone) => return,
                }
            }
            if is_whole {
                learned.insert(node.id, ids);
                tracing::info!(node = %node.id, "learned the ids of a node");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The process ends.
struct ShardsGone;

/// How far it came.
enum Learned {
    All,
    /// The node went away: what was learned is good, the rest is asked for again.
    Less,
}

async fn learn(
    client: &NodeClient,
    (node, node_shard): (NodeId, u32),
    shards: &[QueueSender<FleetMail>],
) -> Result<Learned, ShardsGone> {
    let shard_count = u32::try_from(shards.len()).expect("at most 1024 shards");
    let mut position = 0;
    loop {
        let request = RegistryRequest { shard: node_shard, position, entries_max: PAGE_SERIES };
        let Ok((header, frame)) = client.request(request.encode_frame()).await else {
            return Ok(Learned::Less);
        };
        if header.kind != FrameKind::RegistryPage {
            return Ok(Learned::Less);
        }
        let Ok(page) = RegistryView::check(&header, &frame[FRAME_HEADER_BYTES..]) else {
            return Ok(Learned::Less);
        };
        let mut of_shards = vec![Vec::new(); shards.len()];
        for (hash, id) in page.entries() {
            of_shards[hash.slot().shard(shard_count) as usize].push((hash, id));
        }
        let (id_space, is_end) = (page.id_space(), page.is_end());
        position = page.next_position();
        for (shard, ids) in shards.iter().zip(of_shards).filter(|(_, ids)| !ids.is_empty()) {
            let page = IdsPage { node, node_shard, id_space, ids };
            shard.push(FleetMail::Ids(page)).await.map_err(|_| ShardsGone)?;
        }
        if is_end {
            return Ok(Learned::All);
        }
    }
}
