//! The `/metrics` page: reports of the shards and numbers of the control plane -> Prometheus' text
//! format. Pure.

mod discovery;
mod links;

use crate::control::discovery::schedule::DiscoveryCounts;
use crate::control::exposition::{Exposition, FamilyKind};
use crate::control::host::ProcessUsage;
use crate::control::readiness::Readiness;
use crate::control::report::{LogState, RequestCounts, RequestKind, ShardReport};
use crate::gateway::hint::log::HintFigures;
use crate::model::placement::NodeId;
use crate::model::refusal::Refusal;
use crate::node::block::BlockMeta;
use crate::node::block::request::StoreReport;

/// What the page is made of.
#[derive(Debug)]
pub struct MetricsInput<'a> {
    /// By shard; `None` where a shard did not answer in time.
    pub reports: &'a [Option<Box<ShardReport>>],
    /// Whether clients should come.
    pub readiness: Readiness,
    /// The process.
    pub usage: ProcessUsage,
    /// Unix seconds.
    pub started_at_seconds: f64,
    /// The blocks; `None` where they did not answer in time.
    pub store: Option<&'a StoreReport>,
    /// The control plane's own.
    pub queries: QueryReport,
    /// What a gateway keeps for nodes that are down.
    pub hints: &'a [(NodeId, HintFigures)],
    /// How a gateway finds its nodes.
    pub discovery: Option<DiscoveryCounts>,
}

/// What the query API counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryReport {
    /// Being worked on now.
    pub running: u64,
    /// Waiting for a place now.
    pub waiting: u64,
    /// Answered well.
    pub succeeded: u64,
    /// Refused or failed, whoever is to blame.
    pub failed: u64,
}

/// Picks one number of a report.
type Read<R> = fn(&R) -> u64;

/// A number that every report has one of: of a shard, a link, a node.
struct Number<R> {
    name: &'static str,
    kind: FamilyKind,
    help: &'static str,
    read: Read<R>,
}

const fn counter<R>(name: &'static str, help: &'static str, read: Read<R>) -> Number<R> {
    Number { name, kind: FamilyKind::Counter, help, read }
}

const fn gauge<R>(name: &'static str, help: &'static str, read: Read<R>) -> Number<R> {
    Number { name, kind: FamilyKind::Gauge, help, read }
}

const NUMBERS: [Number<ShardReport>; 25] = [
    counter("tidegate_received_bytes_total", "Bytes received from clients", |r| {
        r.network.received_bytes
    }),
    counter("tidegate_sent_bytes_total", "Bytes sent to clients", |r| r.network.sent_bytes),
    gauge("tidegate_connections_open", "Client connections open", |r| r.network.connections_open),
    counter("tidegate_connections_accepted_total", "Client connections accepted", |r| {
        r.network.connections_accepted
    }),
    gauge("tidegate_request_in_flight_bytes", "Memory held for requests in flight", |r| {
        r.network.in_flight_bytes
    }),
    counter("tidegate_handoffs_sent_total", "Batches handed to other shards", |r| {
        r.mailbox.handoffs_sent
    }),
    counter("tidegate_handoffs_received_total", "Batches taken from other shards", |r| {
        r.mailbox.handoffs_received
    }),
    counter("tidegate_ring_turns_total", "Turns of the shard loop", |r| r.ring.turns),
    counter("tidegate_ring_completions_total", "Completions handled", |r| r.ring.completions),
    counter("tidegate_ring_no_buffers_total", "Receives that found no buffer", |r| {
        r.ring.no_buffers
    }),
    counter("tidegate_ring_sleeps_total", "Turns that slept for work", |r| r.ring.sleeps),
    counter("tidegate_log_records_total", "Log records made durable", |r| r.log.records),
    counter("tidegate_log_record_bytes_total", "Bytes of log records made durable", |r| {
        r.log.record_bytes
    }),
    counter("tidegate_log_written_bytes_total", "Bytes written to the log, with padding", |r| {
        r.log.written_bytes
    }),
    gauge("tidegate_log_segments", "Segment files of the log", |r| r.log.segments),
    gauge("tidegate_log_replay_bytes", "Bytes of log that a restart would replay", |r| {
        r.log.bytes_since_snapshot
    }),
    counter("tidegate_log_snapshots_total", "Snapshots of the head finished", |r| r.log.snapshots),
    gauge("tidegate_head_series", "Series in memory", |r| r.head.series),
    counter("tidegate_head_series_registered_total", "Series that ever got an id", |r| {
        r.head.registered
    }),
    counter("tidegate_head_series_left_total", "Series that left the memory", |r| r.head.left),
    counter("tidegate_flushes_total", "Flushes of the head into blocks", |r| r.head.flushes),
    counter("tidegate_flushes_failed_total", "Flushes that the disk refused", |r| {
        r.head.flushes_failed
    }),
    gauge("tidegate_head_samples", "Samples in memory", |r| r.head.samples),
    counter("tidegate_out_of_order_samples_total", "Samples taken late, inside the window", |r| {
        r.head.out_of_order
    }),
    counter("tidegate_duplicate_samples_total", "Samples that replaced one of that time", |r| {
        r.head.duplicates
    }),
];

/// Numbers that share a family, told apart by one label.
struct Group {
    name: &'static str,
    kind: FamilyKind,
    help: &'static str,
    label: &'static str,
    members: &'static [(&'static str, Read<ShardReport>)],
}

const GROUPS: [Group; 6] = [
    Group {
        name: "tidegate_samples_received_total",
        kind: FamilyKind::Counter,
        help: "Samples decoded, refused ones included",
        label: "protocol",
        members: &[
            ("remote_write", |r| r.remote_write.received),
            ("vm_json", |r| r.vm_json.received),
        ],
    },
    Group {
        name: "tidegate_samples_accepted_total",
        kind: FamilyKind::Counter,
        help: "Samples durable and acknowledged",
        label: "protocol",
        members: &[
            ("remote_write", |r| r.remote_write.accepted),
            ("vm_json", |r| r.vm_json.accepted),
        ],
    },
    Group {
        name: "tidegate_ignored_total",
        kind: FamilyKind::Counter,
        help: "Parts of requests that are understood but not stored yet",
        label: "kind",
        members: &[
            ("exemplar", |r| r.ignored.exemplars),
            ("metadata", |r| r.ignored.metadata),
            ("histogram", |r| r.ignored.histograms),
        ],
    },
    Group {
        name: "tidegate_connections_closed_total",
        kind: FamilyKind::Counter,
        help: "Client connections closed",
        label: "reason",
        members: &[
            ("client", |r| r.network.closed.client),
            ("timeout", |r| r.network.closed.timeout),
            ("protocol", |r| r.network.closed.protocol),
            ("socket", |r| r.network.closed.socket),
            ("limit", |r| r.network.closed.limit),
            ("shutdown", |r| r.network.closed.shutdown),
        ],
    },
    Group {
        name: "tidegate_mailbox_depth",
        kind: FamilyKind::Gauge,
        help: "Messages that wait for the shard",
        label: "from",
        members: &[
            ("handoff", |r| r.mailbox.handoff),
            ("control", |r| r.mailbox.control),
            ("background", |r| r.mailbox.background),
        ],
    },
    Group {
        name: "tidegate_head_bytes",
        kind: FamilyKind::Gauge,
        help: "Memory of the head",
        label: "kind",
        members: &[
            ("index", |r| r.head.index_bytes),
            ("open", |r| r.head.open_bytes),
            ("sealed", |r| r.head.sealed_bytes),
        ],
    },
];

/// Writes the page.
pub fn render(input: &MetricsInput) -> String {
    let mut page = Exposition::default();
    let names: Vec<String> = (0..input.reports.len()).map(|shard| shard.to_string()).collect();
    let shards: Vec<(&str, &ShardReport)> = names
        .iter()
        .zip(input.reports)
        .filter_map(|(name, report)| Some((name.as_str(), report.as_deref()?)))
        .collect();
    render_process(&mut page, input);
    if let Some(store) = input.store {
        render_store(&mut page, store);
    }
    page.family("tidegate_shard_up", FamilyKind::Gauge, "1 if the shard answered for this page");
    for (name, report) in names.iter().zip(input.reports) {
        page.sample(&[("shard", name)], u64::from(report.is_some()));
    }
    for number in &NUMBERS {
        page.family(number.name, number.kind, number.help);
        for (shard, report) in &shards {
            page.sample(&[("shard", shard)], (number.read)(report));
        }
    }
    for group in &GROUPS {
        page.family(group.name, group.kind, group.help);
        for (shard, report) in &shards {
            for (value, read) in group.members {
                page.sample(&[("shard", shard), (group.label, value)], read(report));
            }
        }
    }
    render_shards(&mut page, &shards);
    links::render(&mut page, &shards);
    links::render_hints(&mut page, input.hints);
    if let Some(counts) = &input.discovery {
        discovery::render(&mut page, counts);
    }
    page.into_text()
}

fn render_process(page: &mut Exposition, input: &MetricsInput) {
    use FamilyKind::{Counter, Gauge};
    page.family("tidegate_build_info", Gauge, "The program; always 1");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("tidegate_ready", Gauge, "1 if /-/ready says so");
    page.sample(&[], u64::from(input.readiness == Readiness::Ready));
    if let Readiness::Replaying { done_bytes, total_bytes } = input.readiness {
        page.family("tidegate_replay_bytes", Gauge, "Log and snapshots to be read at this start");
        page.sample(&[("state", "done")], done_bytes);
        page.sample(&[("state", "total")], total_bytes);
    }
    page.family("tidegate_queries_running", Gauge, "Queries being worked on");
    page.sample(&[], input.queries.running);
    page.family("tidegate_queries_waiting", Gauge, "Queries waiting for query-concurrency-max");
    page.sample(&[], input.queries.waiting);
    page.family("tidegate_queries_total", Counter, "Queries answered");
    page.sample(&[("result", "success")], input.queries.succeeded);
    page.sample(&[("result", "error")], input.queries.failed);
    let usage = &input.usage;
    page.family("process_start_time_seconds", Gauge, "Start of the process, Unix seconds");
    page.sample_f64(&[], input.started_at_seconds);
    if let Some(seconds) = usage.cpu_seconds {
        page.family("process_cpu_seconds_total", Counter, "User and system CPU time");
        page.sample_f64(&[], seconds);
    }
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory", usage.resident_bytes),
        ("process_open_fds", "Open file descriptors", usage.open_fds),
        ("process_threads", "Threads", usage.threads),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            page.family(name, Gauge, help);
            page.sample(&[], value);
        }
    }
}

/// The blocks of the node.
fn render_store(page: &mut Exposition, store: &StoreReport) {
    use FamilyKind::{Counter, Gauge};
    let by_level: [Number<(BlockMeta, u64)>; 4] = [
        gauge("tidegate_blocks", "Blocks on disk, by how often they were merged", |_| 1),
        gauge("tidegate_block_bytes", "Bytes of blocks on disk", |block| block.1),
        gauge("tidegate_block_samples", "Samples in blocks", |block| block.0.samples),
        gauge("tidegate_block_series", "Series in blocks, counted in each", |block| block.0.series),
    ];
    let mut levels: Vec<u32> = store.blocks.iter().map(|(meta, _)| meta.level).collect();
    levels.sort_unstable();
    levels.dedup();
    for Number { name, kind, help, read } in by_level {
        page.family(name, kind, help);
        for level in &levels {
            let own = store.blocks.iter().filter(|(meta, _)| meta.level == *level);
            page.sample(&[("level", &level.to_string())], own.map(read).sum::<u64>());
        }
    }
    let numbers = [
        ("tidegate_block_merges_total", Counter, "Merges of blocks", store.merges),
        ("tidegate_block_failures_total", Counter, "Upkeep that the disk refused", store.failures),
        ("tidegate_blocks_retired_total", Counter, "Blocks deleted by retention", store.retired),
        (
            "tidegate_blocks_set_aside",
            Gauge,
            "Files set aside: damaged or foreign",
            store.set_aside,
        ),
        (
            "tidegate_blocks_missing",
            Gauge,
            "Blocks listed and not there",
            store.missing.len() as u64,
        ),
        ("tidegate_tombstones", Gauge, "Deletions that wait for merges", store.tombstones),
        ("tidegate_block_selects_total", Counter, "Selects on blocks", store.selects),
        ("tidegate_block_selects_failed_total", Counter, "Those that failed", store.selects_failed),
        ("tidegate_block_cache_hits_total", Counter, "Pages found in memory", store.cache_hits),
        ("tidegate_block_cache_misses_total", Counter, "Pages read from disk", store.cache_misses),
        ("tidegate_block_cache_bytes", Gauge, "Pages in memory", store.cache_bytes),
        ("tidegate_disk_free_bytes", Gauge, "Free on the data disk", store.disk_free_bytes),
    ];
    for (name, kind, help, value) in numbers {
        page.family(name, kind, help);
        page.sample(&[], value);
    }
}

/// What needs two labels, or is no plain number.
fn render_shards(page: &mut Exposition, shards: &[(&str, &ShardReport)]) {
    use FamilyKind::{Counter, Gauge, Histogram};
    page.family("tidegate_http_requests_total", Counter, "Requests answered, by class of status");
    for (shard, report) in shards {
        for kind in RequestKind::ALL {
            for (class, code) in RequestCounts::CLASSES.into_iter().enumerate() {
                let labels = [("shard", *shard), ("endpoint", kind.as_str()), ("code", code)];
                page.sample(&labels, report.requests.get(kind, class));
            }
        }
    }
    page.family("tidegate_refused_samples_total", Counter, "Samples refused, by reason");
    for (shard, report) in shards {
        for reason in Refusal::ALL {
            let labels = [("shard", *shard), ("reason", reason.as_str())];
            page.sample(&labels, report.refused.get(reason));
        }
    }
    page.family("tidegate_log_state", Gauge, "1 for the state that the log is in");
    for (shard, report) in shards {
        for state in LogState::ALL {
            let labels = [("shard", *shard), ("state", state.as_str())];
            page.sample(&labels, u64::from(report.log.state == state));
        }
    }
    let name = "tidegate_log_sync_duration_seconds";
    page.family(name, Histogram, "Write and sync of the log, submission to completion");
    for (shard, report) in shards {
        page.histogram(&[("shard", shard)], &report.log.sync_latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::exposition::tests::check_page;

    #[test]
    fn page_is_valid_and_says_what_the_shards_say() {
        #[track_caller]
        fn check(samples: &std::collections::HashMap<String, f64>, series: &str, want: u32) {
            let value = samples.get(series).unwrap_or_else(|| panic!("no {series}"));
            assert!((value - f64::from(want)).abs() < 1e-9, "{series} is {value}");
        }
        let mut report = Box::<ShardReport>::default();
        report.requests.add(RequestKind::RemoteWrite, 204);
        report.requests.add(RequestKind::RemoteWrite, 503);
        report.refused.add(Refusal::TooOld, 7);
        report.head.series = 11;
        report.log.state = LogState::Open;
        report.vm_json.accepted = 5;
        let store = StoreReport { tombstones: 3, ..StoreReport::default() };
        let page = render(&MetricsInput {
            reports: &[Some(report), None],
            readiness: Readiness::Ready,
            usage: ProcessUsage { resident_bytes: Some(4096), ..ProcessUsage::default() },
            started_at_seconds: 1.5,
            store: Some(&store),
            hints: &[],
            discovery: Some(DiscoveryCounts { replies: 9, failures: 2, ..Default::default() }),
            queries: QueryReport::default(),
        });

        let samples = check_page(&page);
        check(&samples, "tidegate_discovery_answers_total{result=\"success\"}", 7);
        check(&samples, "tidegate_discovery_answers_total{result=\"error\"}", 2);
        let requests = "tidegate_http_requests_total{shard=\"0\",endpoint=\"remote_write\",code=";
        check(&samples, &format!("{requests}\"2xx\"}}"), 1);
        check(&samples, &format!("{requests}\"5xx\"}}"), 1);
        check(&samples, &format!("{requests}\"4xx\"}}"), 0);
        check(&samples, "tidegate_refused_samples_total{shard=\"0\",reason=\"too_old\"}", 7);
        check(&samples, "tidegate_head_series{shard=\"0\"}", 11);
        check(&samples, "tidegate_samples_accepted_total{shard=\"0\",protocol=\"vm_json\"}", 5);
        check(&samples, "tidegate_log_state{shard=\"0\",state=\"open\"}", 1);
        check(&samples, "tidegate_log_state{shard=\"0\",state=\"failed\"}", 0);
        check(&samples, "tidegate_shard_up{shard=\"0\"}", 1);
        check(&samples, "tidegate_shard_up{shard=\"1\"}", 0);
        check(&samples, "tidegate_tombstones", 3);
        check(&samples, "tidegate_ready", 1);
        check(&samples, "process_resident_memory_bytes", 4096);
        assert!(!samples.contains_key("tidegate_head_series{shard=\"1\"}"));
    }
}
