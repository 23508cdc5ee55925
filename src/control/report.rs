//! What a shard tells about itself: plain numbers that it counts as it goes and copies out when
//! asked.
//!
//! Counters rise from the shard's start; gauges are as of the report. `metrics` prints them.

use crate::base::latency::LatencyBuckets;
use crate::gateway::request::IgnoredCounts;
use crate::model::refusal::RefusalCounts;

/// What requests are counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestKind {
    /// Remote write 1.0.
    RemoteWrite,
    /// VictoriaMetrics JSON lines.
    VmJson,
    /// Passed to the control plane.
    Control,
    /// Refused before it was known what it was: a bad head, a timeout.
    Unknown,
    /// An ingest path, answered by the head of the request alone.
    Ingest,
}

impl RequestKind {
    /// In counter order.
    pub const ALL: [Self; 5] =
        [Self::RemoteWrite, Self::VmJson, Self::Control, Self::Unknown, Self::Ingest];

    /// The `endpoint` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RemoteWrite => "remote_write",
            Self::VmJson => "vm_json",
            Self::Control => "control",
            Self::Unknown => "unknown",
            Self::Ingest => "ingest",
        }
    }
}

/// Requests answered, by endpoint and class of status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts([[u64; 4]; RequestKind::ALL.len()]);

impl RequestCounts {
    /// The `code` labels, in counter order.
    pub const CLASSES: [&'static str; 4] = ["2xx", "3xx", "4xx", "5xx"];

    /// Counts an answer.
    pub fn add(&mut self, kind: RequestKind, status: u16) {
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.0[kind as usize][class] += 1;
    }

    /// Answers of the class with this index in [`RequestCounts::CLASSES`].
    pub fn get(&self, kind: RequestKind, class: usize) -> u64 {
        self.0[kind as usize][class]
    }
}

/// Samples of one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleCounts {
    /// Decoded, refused ones included.
    pub received: u64,
    /// Durable and acknowledged.
    pub accepted: u64,
}

/// Why connections were closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClosedCounts {
    /// The client closed it, or asked for it.
    pub client: u64,
    /// It sent nothing, or too slowly.
    pub timeout: u64,
    /// What it sent is not HTTP, or not safe to read on.
    pub protocol: u64,
    /// Reset, or another fault of the socket.
    pub socket: u64,
    /// `connections-max` was reached.
    pub limit: u64,
    /// The process shuts down.
    pub shutdown: u64,
}

/// Connections and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkReport {
    /// Received from clients.
    pub received_bytes: u64,
    /// Sent to clients.
    pub sent_bytes: u64,
    /// Open now.
    pub connections_open: u64,
    /// Accepted.
    pub connections_accepted: u64,
    /// Closed.
    pub closed: ClosedCounts,
    /// Requests being received or worked on, bytes held for them now.
    pub in_flight_bytes: u64,
}

/// What waits in the shard's mailboxes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxReport {
    /// From other shards.
    pub handoff: u64,
    /// From the control plane.
    pub control: u64,
    /// From the background executor.
    pub background: u64,
    /// Batches handed to other shards.
    pub handoffs_sent: u64,
    /// Batches that other shards handed over.
    pub handoffs_received: u64,
}

/// The reactor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingReport {
    /// Turns of the loop.
    pub turns: u64,
    /// Completions handled.
    pub completions: u64,
    /// Receives that found no buffer: back-pressure.
    pub no_buffers: u64,
    /// Turns that had to sleep for work.
    pub sleeps: u64,
}

/// Whether the log takes records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum LogState {
    /// It is being replayed.
    #[default]
    Replaying,
    /// It does.
    Open,
    /// No room on the disk; it opens again when there is.
    DiskFull,
    /// A write or sync failed; it stays so until a restart.
    Failed,
}

impl LogState {
    /// In the order of the `state` label's values.
    pub const ALL: [Self; 4] = [Self::Replaying, Self::Open, Self::DiskFull, Self::Failed];

    /// The `state` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replaying => "replaying",
            Self::Open => "open",
            Self::DiskFull => "disk_full",
            Self::Failed => "failed",
        }
    }
}

/// The log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Now.
    pub state: LogState,
    /// Records made durable.
    pub records: u64,
    /// Bytes of these records.
    pub record_bytes: u64,
    /// Bytes written to the disk, padding included.
    pub written_bytes: u64,
    /// Write and sync, from submission to completion.
    pub sync_latency: LatencyBuckets,
    /// Segment files now.
    pub segments: u64,
    /// Bytes of log that a restart would replay.
    pub bytes_since_snapshot: u64,
    /// Snapshots finished.
    pub snapshots: u64,
}

/// The head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadReport {
    /// Series in memory now.
    pub series: u64,
    /// Series that ever got an id.
    pub registered: u64,
    /// Those of them that left.
    pub left: u64,
    /// Flushes into blocks that are done.
    pub flushes: u64,
    /// Flushes that failed; they are tried again.
    pub flushes_failed: u64,
    /// Samples in memory now.
    pub samples: u64,
    /// Bytes now: labels, series table and postings.
    pub index_bytes: u64,
    /// Bytes now: open chunks and side chunks.
    pub open_bytes: u64,
    /// Bytes now: sealed chunks.
    pub sealed_bytes: u64,
    /// Samples taken although older than the newest of their series.
    pub out_of_order: u64,
    /// Samples whose series had one at that time already.
    pub duplicates: u64,
}

/// The way from the gateway half to a node shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// The node's id; empty in one process.
    pub node: String,
    /// Its shard.
    pub node_shard: u32,
    /// Whether the node is heard.
    pub is_up: bool,
    /// Frames sent.
    pub frames: u64,
    /// Bytes of these frames.
    pub frame_bytes: u64,
    /// Samples in them.
    pub rows: u64,
    /// Samples that the node refused.
    pub refused: u64,
    /// Times that the node proved itself anew.
    pub connections: u64,
    /// Frames not acknowledged yet.
    pub in_flight_frames: u64,
    /// Bytes of these frames.
    pub in_flight_bytes: u64,
    /// Bytes that the node has room for.
    pub credit_bytes: u64,
    /// How long the oldest frame has waited for its answer.
    pub unacked_age_ms: u64,
    /// Series whose ids are known.
    pub known_series: u64,
}

/// A node shard's end of all its links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkPortReport {
    /// Connections open.
    pub connections: u64,
    /// Links remembered.
    pub links: u64,
    /// Frames taken.
    pub frames: u64,
    /// Bytes of these frames.
    pub frame_bytes: u64,
    /// Frames refused whole, but for those of an old placement.
    pub frames_refused: u64,
    /// Frames that followed an old placement.
    pub frames_stale: u64,
    /// Memory of what arrived and was not taken, and of answers.
    pub memory_bytes: u64,
    /// Bytes that a link may have in flight.
    pub window_bytes: u64,
    /// The placement that is in force.
    pub epoch: u64,
}

/// All of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardReport {
    /// Requests answered.
    pub requests: RequestCounts,
    /// Samples that came by remote write.
    pub remote_write: SampleCounts,
    /// Samples that came as VictoriaMetrics JSON lines.
    pub vm_json: SampleCounts,
    /// Samples refused.
    pub refused: RefusalCounts,
    /// What is understood but not stored yet.
    pub ignored: IgnoredCounts,
    /// Connections.
    pub network: NetworkReport,
    /// Mailboxes.
    pub mailbox: MailboxReport,
    /// The reactor.
    pub ring: RingReport,
    /// The log.
    pub log: LogReport,
    /// The head.
    pub head: HeadReport,
    /// Each link.
    pub links: Vec<LinkReport>,
    /// The placement that a gateway follows; 0 without one.
    pub epoch: u64,
    /// Samples kept for nodes that were down, which they will never take.
    pub hints_refused: RefusalCounts,
    /// A node's link port.
    pub link_port: Option<LinkPortReport>,
}
