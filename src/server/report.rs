//! What a shard tells the control plane about itself, put together from its parts when asked.

use crate::control::report::{
    HeadReport, LinkPortReport, LinkReport, LogReport, LogState, MailboxReport, NetworkReport,
    RingReport, ShardReport,
};
use crate::gateway::endpoint::Endpoint;
use crate::gateway::links::LinkView;
use crate::model::refusal::RefusalCounts;
use crate::node::log;
use crate::node::shard::NodeShard;
use crate::server::halves::{Halves, LANE};
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
            links: self.link_reports(),
            epoch: self.owner.epoch(),
            hints_refused: match &self.halves {
                Halves::Gateway(side) => *side.hints_refused(),
                Halves::Together | Halves::Node(_) => RefusalCounts::default(),
            },
            link_port: self.link_port_report(),
        }
    }

    fn link_reports(&self) -> Vec<LinkReport> {
        match &self.halves {
            Halves::Node(_) => Vec::new(),
            Halves::Together => {
                let (ready, in_flight) = self.owner.frames_waiting();
                let lane = self.owner.lane(LANE);
                let stats = self.node.node().map(NodeShard::stats);
                vec![LinkReport {
                    node_shard: self.index,
                    is_up: stats.is_some(),
                    frames: stats.map_or(0, |stats| stats.frames),
                    frame_bytes: stats.map_or(0, |stats| stats.frame_bytes),
                    in_flight_frames: ready + in_flight,
                    in_flight_bytes: lane.held_bytes(),
                    known_series: lane.series_count(),
                    ..LinkReport::default()
                }]
            }
            Halves::Gateway(side) => {
                let views = side.links().views(self.now.monotonic);
                let report = |view: LinkView| LinkReport {
                    node: view.node.to_string(),
                    node_shard: view.shard,
                    is_up: view.is_up,
                    frames: view.stats.frames,
                    frame_bytes: view.stats.bytes,
                    rows: view.stats.rows,
                    refused: view.stats.refused,
                    connections: view.stats.connections,
                    in_flight_frames: view.unacked_frames,
                    in_flight_bytes: view.unacked_bytes,
                    credit_bytes: view.credit_bytes,
                    unacked_age_ms: u64::try_from(view.unacked_age.as_millis()).unwrap_or(u64::MAX),
                    known_series: self.owner.lane(view.lane).series_count(),
                };
                views.map(report).collect()
            }
        }
    }

    fn link_port_report(&self) -> Option<LinkPortReport> {
        let Halves::Node(port) = &self.halves else { return None };
        let links = port.links()?;
        let (stats, (connections, count, _)) = (links.stats(), links.counts());
        Some(LinkPortReport {
            connections: connections as u64,
            links: count as u64,
            frames: stats.frames,
            frame_bytes: stats.bytes,
            frames_refused: stats.frames_refused - stats.frames_stale,
            frames_stale: stats.frames_stale,
            memory_bytes: links.memory_bytes() as u64,
            window_bytes: links.window_bytes(),
            epoch: port.epoch(),
        })
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
