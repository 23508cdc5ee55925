//! The part of `/metrics` that is about links, a gateway's and a node's.

use crate::control::exposition::{Exposition, FamilyKind};
use crate::control::report::{LinkPortReport, LinkReport, ShardReport};
use crate::gateway::hint::log::HintFigures;
use crate::model::placement::NodeId;

use super::{Number, counter, gauge};

const OF_LINK: [Number<LinkReport>; 10] = [
    gauge("tidegate_link_up", "1 while the node is heard", |one| one.is_up.into()),
    counter("tidegate_link_frames_total", "Frames sent to node shards", |one| one.frames),
    counter("tidegate_link_frame_bytes_total", "Bytes of frames sent to node shards", |one| {
        one.frame_bytes
    }),
    counter("tidegate_link_rows_total", "Samples sent to node shards", |one| one.rows),
    counter("tidegate_link_refused_samples_total", "Samples that nodes refused", |one| one.refused),
    counter("tidegate_link_connections_total", "Connections that nodes took", |one| {
        one.connections
    }),
    gauge("tidegate_link_in_flight_frames", "Frames sent and not acknowledged", |one| {
        one.in_flight_frames
    }),
    gauge("tidegate_link_in_flight_bytes", "Bytes sent and not acknowledged", |one| {
        one.in_flight_bytes
    }),
    gauge("tidegate_link_credit_bytes", "Bytes that the node has room for", |one| one.credit_bytes),
    gauge("tidegate_link_known_series", "Series whose ids are known", |one| one.known_series),
];

const OF_PORT: [Number<LinkPortReport>; 9] = [
    gauge("tidegate_link_port_connections", "Connections of gateways open", |one| one.connections),
    gauge("tidegate_link_port_links", "Links remembered", |one| one.links),
    counter("tidegate_link_port_frames_total", "Frames taken from gateways", |one| one.frames),
    counter("tidegate_link_port_frame_bytes_total", "Bytes of frames taken", |one| one.frame_bytes),
    counter("tidegate_link_port_frames_refused_total", "Frames refused whole", |one| {
        one.frames_refused
    }),
    counter("tidegate_link_port_frames_stale_total", "Frames of an old placement", |one| {
        one.frames_stale
    }),
    gauge("tidegate_link_port_memory_bytes", "Memory of the links", |one| one.memory_bytes),
    gauge("tidegate_link_port_window_bytes", "Bytes that a link may have in flight", |one| {
        one.window_bytes
    }),
    gauge("tidegate_link_port_epoch", "Placement that is in force", |one| one.epoch),
];

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
    for Number { name, kind, help, read } in &OF_LINK {
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
    for Number { name, kind, help, read } in &OF_PORT {
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
    let numbers: [Number<HintFigures>; 6] = [
        gauge("tidegate_hint_bytes", "Disk of hints that wait for a node", |one| one.bytes),
        gauge("tidegate_hint_samples", "Samples that wait for a node", |one| one.samples),
        counter("tidegate_hint_appended_samples_total", "Samples kept for a node", |one| {
            one.appended_samples
        }),
        counter("tidegate_hint_delivered_samples_total", "Kept samples delivered", |one| {
            one.delivered_samples
        }),
        counter("tidegate_hint_refused_samples_total", "Samples that found no room", |one| {
            one.refused_samples
        }),
        counter("tidegate_hint_lost_samples_total", "Kept samples found damaged", |one| {
            one.samples_lost
        }),
    ];
    if hints.is_empty() {
        return;
    }
    for Number { name, kind, help, read } in numbers {
        page.family(name, kind, help);
        for (node, figures) in hints {
            page.sample(&[("node", &node.to_string())], read(figures));
        }
    }
    let help = "When the oldest that waits was made, Unix seconds";
    page.family("tidegate_hint_oldest_timestamp_seconds", FamilyKind::Gauge, help);
    for (node, figures) in hints {
        if let Some(at_ms) = figures.oldest_ms {
            page.sample_f64(&[("node", &node.to_string())], at_ms as f64 / 1000.0);
        }
    }
}
