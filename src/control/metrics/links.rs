//! The part of `/metrics` that is about links, a gateway's and a node's.

use crate::control::exposition::{Exposition, FamilyKind};
use crate::control::report::{LinkPortReport, LinkReport, ShardReport};
use crate::gateway::hint::log::HintFigures;
use crate::model::placement::NodeId;

/// A number that every link has one of.
struct OfLink {
    name: &'static str,
    kind: FamilyKind,
    help: &'static str,
    read: fn(&LinkReport) -> u64,
}

/// A number that every link port has one of.
struct OfPort {
    name: &'static str,
    kind: FamilyKind,
    help: &'static str,
    read: fn(&LinkPortReport) -> u64,
}

const fn link(
    name: &'static str,
    kind: FamilyKind,
    help: &'static str,
    read: fn(&LinkReport) -> u64,
) -> OfLink {
    OfLink { name, kind, help, read }
}

const fn port(
    name: &'static str,
    kind: FamilyKind,
    help: &'static str,
    read: fn(&LinkPortReport) -> u64,
) -> OfPort {
    OfPort { name, kind, help, read }
}

const OF_LINK: [OfLink; 10] = {
    use FamilyKind::{Counter, Gauge};
    [
        link("tidegate_link_up", Gauge, "1 while the node is heard", |one| one.is_up.into()),
        link("tidegate_link_frames_total", Counter, "Frames sent to node shards", |one| one.frames),
        link(
            "tidegate_link_frame_bytes_total",
            Counter,
            "Bytes of frames sent to node shards",
            |one| one.frame_bytes,
        ),
        link("tidegate_link_rows_total", Counter, "Samples sent to node shards", |one| one.rows),
        link("tidegate_link_refused_samples_total", Counter, "Samples that nodes refused", |one| {
            one.refused
        }),
        link("tidegate_link_connections_total", Counter, "Connections that nodes took", |one| {
            one.connections
        }),
        link("tidegate_link_in_flight_frames", Gauge, "Frames sent and not acknowledged", |one| {
            one.in_flight_frames
        }),
        link("tidegate_link_in_flight_bytes", Gauge, "Bytes sent and not acknowledged", |one| {
            one.in_flight_bytes
        }),
        link("tidegate_link_credit_bytes", Gauge, "Bytes that the node has room for", |one| {
            one.credit_bytes
        }),
        link("tidegate_link_known_series", Gauge, "Series whose ids are known", |one| {
            one.known_series
        }),
    ]
};

const OF_PORT: [OfPort; 9] = {
    use FamilyKind::{Counter, Gauge};
    [
        port("tidegate_link_port_connections", Gauge, "Connections of gateways open", |one| {
            one.connections
        }),
        port("tidegate_link_port_links", Gauge, "Links remembered", |one| one.links),
        port("tidegate_link_port_frames_total", Counter, "Frames taken from gateways", |one| {
            one.frames
        }),
        port("tidegate_link_port_frame_bytes_total", Counter, "Bytes of frames taken", |one| {
            one.frame_bytes
        }),
        port("tidegate_link_port_frames_refused_total", Counter, "Frames refused whole", |one| {
            one.frames_refused
        }),
        port(
            "tidegate_link_port_frames_stale_total",
            Counter,
            "Frames of an old placement",
            |one| one.frames_stale,
        ),
        port("tidegate_link_port_memory_bytes", Gauge, "Memory of the links", |one| {
            one.memory_bytes
        }),
        port(
            "tidegate_link_port_window_bytes",
            Gauge,
            "Bytes that a link may have in flight",
            |one| one.window_bytes,
        ),
        port("tidegate_link_port_epoch", Gauge, "Placement that is in force", |one| one.epoch),
    ]
};

/// Writes them.
pub(super) fn render(page: &mut Exposition, shards: &[(&str, &ShardReport)]) {
    if shards.iter().any(|(_, report)| report.links.iter().any(|link| !link.node.is_empty())) {
        page.family("tidegate_placement_epoch", FamilyKind::Gauge, "Placement that is followed");
        for (shard, report) in shards {
            page.sample(&[("shard", shard)], report.epoch);
        }
    }
    if shards.iter().any(|(_, report)| report.hints_refused.total() > 0) {
        let help = "Samples kept for a node that it will never take";
        page.family("tidegate_hint_undeliverable_samples_total", FamilyKind::Counter, help);
        for (shard, report) in shards {
            for (reason, samples) in report.hints_refused.iter() {
                page.sample(&[("shard", shard), ("reason", reason.as_str())], samples);
            }
        }
    }
    for OfLink { name, kind, help, read } in &OF_LINK {
        page.family(name, *kind, help);
        for_each_link(shards, |labels, link| page.sample(labels, read(link)));
    }
    let help = "Age of the oldest frame without an answer";
    page.family("tidegate_link_unacked_age_seconds", FamilyKind::Gauge, help);
    for_each_link(shards, |labels, link| {
        page.sample_f64(labels, link.unacked_age_ms as f64 / 1000.0);
    });
    if shards.iter().all(|(_, report)| report.link_port.is_none()) {
        return;
    }
    for OfPort { name, kind, help, read } in &OF_PORT {
        page.family(name, *kind, help);
        for (shard, report) in shards {
            if let Some(port) = &report.link_port {
                page.sample(&[("shard", shard)], read(port));
            }
        }
    }
}

fn for_each_link(
    shards: &[(&str, &ShardReport)],
    mut write: impl FnMut(&[(&str, &str)], &LinkReport),
) {
    for (shard, report) in shards {
        for link in &report.links {
            let node_shard = link.node_shard.to_string();
            write(&[("shard", shard), ("node", &link.node), ("node_shard", &node_shard)], link);
        }
    }
}

/// Writes what a gateway keeps for nodes that are down.
pub(super) fn render_hints(page: &mut Exposition, hints: &[(NodeId, HintFigures)]) {
    use FamilyKind::{Counter, Gauge};
    type Read = fn(&HintFigures) -> u64;
    let numbers: [(&str, FamilyKind, &str, Read); 7] = [
        ("tidegate_hint_bytes", Gauge, "Disk of hints that wait for a node", |one| one.bytes),
        ("tidegate_hint_samples", Gauge, "Samples that wait for a node", |one| one.samples),
        ("tidegate_hint_appended_samples_total", Counter, "Samples kept for a node", |one| {
            one.appended_samples
        }),
        ("tidegate_hint_delivered_samples_total", Counter, "Kept samples delivered", |one| {
            one.delivered_samples
        }),
        ("tidegate_hint_refused_samples_total", Counter, "Samples that found no room", |one| {
            one.refused_samples
        }),
        ("tidegate_hint_lost_samples_total", Counter, "Kept samples found damaged", |one| {
            one.samples_lost
        }),
        ("tidegate_hint_forgotten_samples_total", Counter, "Given up with their node", |one| {
            one.forgotten_samples
        }),
    ];
    if hints.is_empty() {
        return;
    }
    for (name, kind, help, read) in numbers {
        page.family(name, kind, help);
        for (node, figures) in hints {
            page.sample(&[("node", &node.to_string())], read(figures));
        }
    }
    let help = "When the oldest that waits was made, Unix seconds";
    page.family("tidegate_hint_oldest_timestamp_seconds", Gauge, help);
    for (node, figures) in hints {
        if let Some(at_ms) = figures.oldest_ms {
            page.sample_f64(&[("node", &node.to_string())], at_ms as f64 / 1000.0);
        }
    }
}
