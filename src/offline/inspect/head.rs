//! DRIVER: a snapshot of a head: whose it is, and what it holds.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::{InspectOptions, print_json, print_table};
use crate::model::labels::format_labels;
use crate::offline::fault::{OfflineFault, io_fault};
use crate::offline::head::{HeadFile, HeadFlaw};
use crate::offline::quantity::{bytes, count};

/// Series shown to people.
const SHOWN_SERIES: usize = 5;

pub(super) fn inspect(
    path: &Path,
    options: InspectOptions,
    out: &mut dyn Write,
) -> Result<bool, OfflineFault> {
    let damaged = |flaw: HeadFlaw| OfflineFault::Damaged {
        path: path.to_owned(),
        what: format!("{} at byte {}", flaw.what, flaw.offset),
    };
    let file = File::open(path).map_err(io_fault("open", path))?;
    let len_bytes = file.metadata().map_err(io_fault("read", path))?.len();
    let (mut head, header) = HeadFile::open(file).map_err(damaged)?;
    let (mut pieces, mut series, mut chunks, mut samples) = (0, 0, 0, 0);
    let mut first = Vec::new();
    let wanted = SHOWN_SERIES.max(usize::try_from(options.series).unwrap_or(usize::MAX));
    let flaw = loop {
        let piece = head.next_piece(&mut |labels| {
            if first.len() < wanted {
                first.push(format_labels(labels));
            }
        });
        match piece {
            Ok(Some(facts)) => {
                pieces += 1;
                series += facts.series;
                chunks += facts.chunks;
                samples += facts.samples;
            }
            Ok(None) => break None,
            Err(flaw) => break Some(flaw),
        }
    };
    let (identity, position) = (header.identity, header.position);
    let is_whole = flaw.is_none();
    let node = format!("{:032x}", identity.node);
    let fault = flaw.map(|flaw| format!("{} at byte {}", flaw.what, flaw.offset));
    if options.is_json {
        let value = json!({
            "kind": "head snapshot", "node": node, "incarnation": identity.incarnation,
            "shard": identity.shard, "segment": position.segment, "sequence": position.sequence,
            "bytes": len_bytes, "pieces": pieces, "series": series, "chunks": chunks,
            "samples": samples, "first_series": first, "fault": fault,
        });
        print_json(&value, out)?;
        return Ok(is_whole);
    }
    let lines = [
        ("node", node),
        ("incarnation", identity.incarnation.to_string()),
        ("shard", identity.shard.to_string()),
        ("log goes on", format!("segment {}, record {}", position.segment, position.sequence)),
        ("size", bytes(len_bytes)),
        ("pieces", count(pieces)),
        ("series", count(series)),
        ("sealed chunks", count(chunks)),
        ("samples", count(samples)),
        ("state", fault.map_or("whole".into(), |fault| format!("damaged: {fault}"))),
    ];
    print_table("snapshot of a head", &lines, out)?;
    for labels in first {
        writeln!(out, "  {labels}")?;
    }
    Ok(is_whole)
}
