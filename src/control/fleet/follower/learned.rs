//! What nodes say of documents: which there are, and since when they know them.

use std::net::SocketAddr;

use super::Follower;
use crate::base::time::Now;
use crate::model::placement::NodeId;
use crate::model::placement::agreement::Learned;

/// A clock that jumped by more was set.
const CLOCK_STEP_MS: u64 = 10_000;

impl Follower {
    /// Some of the documents of the node at this address, ascending.
    pub(super) fn handle_documents(
        &mut self,
        now: Now,
        (address, node): (SocketAddr, NodeId),
        documents: &[Learned],
    ) {
        let Some(peer) = self.peers.by_address.get_mut(&address) else { return };
        let (Some(first), Some(last)) = (documents.first(), documents.last()) else { return };
        let mut after = (peer.read_from.max(1) - 1).min(first.document.epoch - 1);
        peer.read_from = last.document.epoch + 1;
        if peer.newest_epoch.is_some_and(|newest| last.document.epoch < newest) {
            peer.ask_at = now.monotonic;
        }
        if documents.iter().any(|each| !self.follow(now, &each.document)) {
            if let Some(peer) = self.peers.by_address.get_mut(&address) {
                peer.is_foreign = true;
                peer.fault = Some("it belongs to another fleet".into());
            }
            return;
        }
        for Learned { document, learned_ms } in documents {
            // It was told before we were: later than now is a clock that is ahead.
            let learned_ms = (*learned_ms).min(now.unix_ms);
            self.history.handle_learned(node, (after, document.epoch), learned_ms);
            after = document.epoch;
        }
    }

    /// After the clock was set all nodes are read again: what they say was capped by it.
    pub(super) fn handle_clock(&mut self, now: Now) {
        let elapsed = now.monotonic.saturating_duration_since(self.clock.monotonic);
        let elapsed_ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let expected_ms = self.clock.unix_ms.saturating_add(elapsed_ms);
        self.clock = now;
        if now.unix_ms.abs_diff(expected_ms) > CLOCK_STEP_MS {
            for peer in self.peers.by_address.values_mut() {
                peer.read_from = 0;
            }
        }
    }

    /// Samples that are older are not kept.
    pub(super) fn oldest_ms(&self, now: Now) -> i64 {
        match self.config.retention_ms {
            0 => i64::MIN,
            retention_ms => now.unix_ms.saturating_sub(retention_ms),
        }
    }
}
