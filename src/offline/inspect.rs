//! DRIVER: what one file of ours holds, for people or as JSON. Reads only; a server may run.
//!
//! The kind is told by the first bytes, not by the name. Exit: whether the file is whole; what can
//! be read of a damaged one is printed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::fault::{OfflineFault, io_fault};
use super::quantity::{count, of, time};
use crate::background::blocks::list::BlockList;
use crate::background::folder::Manifest;
use crate::model::matcher::MatchOperator;
use crate::node::block::Tombstone;

mod block;
mod head;
mod log;

/// What to show.
#[derive(Clone, Copy, Debug)]
pub struct InspectOptions {
    /// Print JSON.
    pub is_json: bool,
    /// Series of a block to print with all their samples.
    pub series: u64,
}

/// Texts are short; what is longer is none.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Prints what the file holds. Whether it is whole.
pub fn run(
    path: &Path,
    options: InspectOptions,
    out: &mut dyn Write,
) -> Result<bool, OfflineFault> {
    let mut file = File::open(path).map_err(io_fault("open", path))?;
    let mut magic = Vec::new();
    (&mut file).take(64).read_to_end(&mut magic).map_err(io_fault("read", path))?;
    let is_whole = match magic.get(..4) {
        Some(b"tdgB") => block::inspect(path, options, out),
        Some(b"tdgS") => log::inspect(path, options, out),
        Some(b"tdgH") => head::inspect(path, options, out),
        _ if magic.starts_with(b"{\"version\":") => inspect_list(path, options, out),
        _ if magic.starts_with(b"tidegate data folder") => inspect_manifest(path, options, out),
        _ => Err(OfflineFault::Unfit {
            path: path.to_owned(),
            cause: "it begins as no block, log segment, head snapshot, BLOCKS or MANIFEST does"
                .into(),
        }),
    }?;
    out.flush()?;
    Ok(is_whole)
}

fn print_json(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// A title, and lines of a name and a value.
fn print_table(title: &str, lines: &[(&str, String)], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{title}")?;
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in lines {
        writeln!(out, "  {name:width$}  {value}")?;
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<String, OfflineFault> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io_fault("open", path))?;
    file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).map_err(io_fault("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn inspect_list(
    path: &Path,
    options: InspectOptions,
    out: &mut dyn Write,
) -> Result<bool, OfflineFault> {
    let list = match BlockList::decode(&read_text(path)?) {
        Ok(list) => list,
        Err(fault) => {
            let what = format!("{fault:?}");
            return Err(OfflineFault::Damaged { path: path.to_owned(), what });
        }
    };
    let node = format!("{:032x}", list.node);
    if options.is_json {
        let tombstones: Vec<_> = list.tombstones.iter().map(describe_tombstone).collect();
        let value = json!({
            "kind": "block list", "node": node, "next_block": list.next_block,
            "next_tombstone": list.next_tombstone, "blocks": list.blocks, "tombstones": tombstones,
        });
        print_json(&value, out)?;
        return Ok(true);
    }
    let lines = [
        ("node", node),
        ("blocks", of(list.blocks.len() as u64, "block")),
        ("next block", count(list.next_block)),
        ("deletions", of(list.tombstones.len() as u64, "deletion")),
        ("next deletion", count(list.next_tombstone)),
    ];
    print_table("list of blocks", &lines, out)?;
    for id in &list.blocks {
        writeln!(out, "  block {id}")?;
    }
    for tombstone in &list.tombstones {
        writeln!(out, "  deletion {}", describe_tombstone(tombstone))?;
    }
    Ok(true)
}

/// As people write it.
fn describe_tombstone(tombstone: &Tombstone) -> String {
    let matchers: Vec<_> = tombstone
        .matchers
        .iter()
        .map(|matcher| {
            let operator = match matcher.operator {
                MatchOperator::Equal => "=",
                MatchOperator::NotEqual => "!=",
                MatchOperator::Regex => "=~",
                MatchOperator::NotRegex => "!~",
            };
            format!("{}{operator}{:?}", matcher.name, matcher.value)
        })
        .collect();
    let (id, tenant) = (tombstone.id, tombstone.tenant.0);
    let (start, end) = (time(tombstone.start_ms), time(tombstone.end_ms));
    format!("{id}: {{{}}} of tenant {tenant}, {start} to {end}", matchers.join(","))
}

fn inspect_manifest(
    path: &Path,
    options: InspectOptions,
    out: &mut dyn Write,
) -> Result<bool, OfflineFault> {
    let Manifest { node, incarnation, shards } = match Manifest::decode(&read_text(path)?) {
        Ok(manifest) => manifest,
        Err(fault) => {
            let what = format!("{fault:?}");
            return Err(OfflineFault::Damaged { path: path.to_owned(), what });
        }
    };
    let node = format!("{node:032x}");
    if options.is_json {
        let value = json!({
            "kind": "manifest", "node": node, "incarnation": incarnation, "shards": shards,
        });
        print_json(&value, out)?;
        return Ok(true);
    }
    let lines =
        [("node", node), ("incarnation", count(incarnation)), ("shards", shards.to_string())];
    print_table("manifest of a data folder", &lines, out)?;
    Ok(true)
}
