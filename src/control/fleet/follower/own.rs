//! What a gateway wants of a founded fleet by itself: a node's new address, seeds that join.
//! In: what the follower knows. Out: a document that is to be proposed, or none.

use std::net::SocketAddr;

use super::Follower;
use crate::base::time::{Duration, Now};
use crate::control::fleet::change::placed_node;
use crate::model::placement::{NodeId, PlacementDocument};

/// A node's address is another one when nobody answered at the old one for so long.
const MOVED_AFTER: Duration = Duration::from_secs(10);

impl Follower {
    /// A node that is elsewhere than its document says, or has another number of shards.
    pub(super) fn moved(
        &self,
        now: Now,
        document: &PlacementDocument,
        start_ms: i64,
    ) -> Option<PlacementDocument> {
        let start_ms = start_ms.max(document.start_ms);
        document.nodes.iter().find_map(|node| {
            let address = self.peers.address_of(node.id)?;
            let met = self.peers.by_address.get(&address)?.met.as_ref()?;
            let shards = u32::try_from(met.shards.len()).ok()?;
            let link: Option<SocketAddr> = node.link.parse().ok();
            let at_link = link.and_then(|link| self.peers.by_address.get(&link));
            let is_gone = at_link.is_none_or(|peer| {
                let silent = now.monotonic.saturating_duration_since(peer.since);
                peer.met.as_ref().map_or(silent >= MOVED_AFTER, |met| met.node != node.id)
            });
            let link = address.to_string();
            let is_at_link = link == node.link;
            if (!is_at_link && !is_gone) || (is_at_link && shards == node.shards) {
                return None;
            }
            document.with_link(start_ms, node.id, (&link, shards)).ok()
        })
    }

    /// A seed that never belonged to the fleet, if seeds are to be joined.
    pub(super) fn joining(
        &self,
        document: &PlacementDocument,
        start_ms: i64,
    ) -> Option<PlacementDocument> {
        if !self.config.is_auto_join {
            return None;
        }
        let start_ms = start_ms.max(document.start_ms);
        // Whoever was taken out stays out.
        let was_in = |id: NodeId| self.documents.values().any(|each| each.find(id).is_some());
        let addresses = self.seeds.iter().flat_map(|seed| &seed.addresses);
        let news = addresses.filter_map(|address| placed_node(&self.peers, *address));
        news.filter(|node| !was_in(node.id)).find_map(|node| {
            let joined = document.with_node(start_ms, node);
            joined.inspect_err(|fault| tracing::warn!("cannot add a seed: {fault}")).ok()
        })
    }
}
