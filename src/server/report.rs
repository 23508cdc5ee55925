//! What a shard tells the control plane about itself, put together from its parts when asked.

use crate::control::report::{
    HeadReport, LinkReport, LogReport, LogState, MailboxReport, NetworkReport, RingReport,
    ShardReport,
};
use crate::gateway::endpoint::Endpoint;
use crate::node::log;
use crate::node::shard::NodeShard;
use crate::server::shard::Shard;

/// What the shard loop itself counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardStats {
    /// Bytes and connections; the gauges in it are filled in at the report.
    pub network: NetworkReport,
    /// Accepts that failed.
    pub accepts_failed: u64,
    /// Parts of other shards' requests.
    pub parts_received: u64,
}

impl Shard {
    /// Everything that the shard tells about itself.
    pub(super) fn report(&self) -> ShardReport {
        let ingest = self.ingest.stats();
        let (sent, waiting) = self.post.counts();
        let ring = self.ring.counters();
        let (ready, in_flight) = self.owner.frames_waiting();
        let stats = self.node.node().map(NodeShard::stats);
        ShardReport {
            requests: ingest.requests,
            remote_write: ingest.samples[Endpoint::RemoteWriteV1 as usize],
            vm_json: ingest.samples[Endpoint::VmJson as usize],
            refused: ingest.refused,
            ignored: ingest.ignored,
            network: NetworkReport {
                connections_open: self.clients.len() as u64,
                in_flight_bytes: self.reading_bytes + self.ingest.held_bytes(),
                ..self.stats.network
            },
            mailbox: MailboxReport {
                handoff: self.mail.gateway.len() as u64 + waiting,
                control: self.mail.control.len() as u64,
                background: self.mail.background.len() as u64,
                handoffs_sent: sent,
                handoffs_received: self.stats.parts_received,
            },
            ring: RingReport {
                turns: ring.turns,
                completions: ring.completions,
                no_buffers: ring.no_buffers,
                sleeps: ring.sleeps,
            },
            log: self.node.node().map(|node| self.log_report(node)).unwrap_or_default(),
            head: self.node.node().map(head_report).unwrap_or_default(),
            link: LinkReport {
                frames: stats.map_or(0, |stats| stats.frames),
                frame_bytes: stats.map_or(0, |stats| stats.frame_bytes),
                in_flight_frames: ready + in_flight,
                ..LinkReport::default()
            },
        }
    }

    fn log_report(&self, node: &NodeShard) -> LogReport {
        let stats = node.stats();
        LogReport {
            state: match node.log().state() {
                log::LogState::Running => LogState::Open,
                log::LogState::Stopped(_) => LogState::DiskFull,
                log::LogState::Failed { .. } => LogState::Failed,
            },
            records: stats.frames,
            record_bytes: stats.frame_bytes,
            written_bytes: stats.write_bytes,
            sync_latency: stats.sync_latency,
            segments: self.node.open_segments(),
            bytes_since_snapshot: node.log().bytes_since_snapshot(),
            snapshots: stats.snapshots,
        }
    }
}

fn head_report(node: &NodeShard) -> HeadReport {
    let (head, flushes) = (node.head().report(), node.flush_stats());
    HeadReport {
        series: u64::from(head.series),
        registered: u64::from(node.head().next_id()),
        left: u64::from(node.head().next_id().saturating_sub(head.series)),
        flushes: flushes.flushes,
        flushes_failed: flushes.failed,
        samples: head.samples,
        index_bytes: head.index_bytes + head.label_bytes,
        open_bytes: head.open_bytes,
        sealed_bytes: head.sealed_bytes,
        out_of_order: head.out_of_order,
        duplicates: head.duplicates,
    }
}
