//! DRIVER: a log segment: whose it is, its records in order, and what lies between them.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::{InspectOptions, print_json, print_table};
use crate::node::log::{ReplayTally, SegmentHeader};
use crate::offline::fault::{OfflineFault, io_fault};
use crate::offline::quantity::{bytes, count};
use crate::offline::segment::{RecordFacts, SegmentStep, SegmentWalk, read_header};

/// People see the first and the last ones.
const SHOWN_FIRST: usize = 20;
const SHOWN_LAST: usize = 5;

/// What a segment holds.
struct Contents {
    steps: Vec<SegmentStep>,
    torn_offset: Option<u64>,
    records: u64,
    record_bytes: u64,
    samples: u64,
    new_series: u64,
    /// Holes, and records that contradict themselves.
    flaws: u64,
}

pub(super) fn inspect(
    path: &Path,
    options: InspectOptions,
    out: &mut dyn Write,
) -> Result<bool, OfflineFault> {
    let io = |error| io_fault("read", path)(error);
    let mut file = File::open(path).map_err(io_fault("open", path))?;
    let len_bytes = file.metadata().map_err(io)?.len();
    let header = match read_header(&mut file).map_err(io)? {
        Ok(header) => header,
        // The checksums of the records begin with what the header says.
        Err(fault) => {
            let what = format!("{fault}; without it no record can be checked");
            return Err(OfflineFault::Damaged { path: path.to_owned(), what });
        }
    };
    let contents = read(&mut file, &header).map_err(io)?;
    if options.is_json {
        print_json(&to_json(&header, len_bytes, &contents), out)?;
    } else {
        print(&header, len_bytes, &contents, out)?;
    }
    Ok(contents.flaws == 0 && contents.torn_offset.is_none())
}

fn read(file: &mut File, header: &SegmentHeader) -> io::Result<Contents> {
    let mut walk = SegmentWalk::new(file, &header.identity, header.segment);
    let (records, record_bytes, samples, new_series, flaws) = (0, 0, 0, 0, 0);
    let (steps, torn_offset) = (Vec::new(), None);
    let mut contents =
        Contents { steps, torn_offset, records, record_bytes, samples, new_series, flaws };
    // What is missing is known only with the segments around it.
    let mut tally = ReplayTally::new(1);
    while let Some(step) = walk.next_step(&mut tally, &mut |_| ())? {
        match &step {
            SegmentStep::Record(facts) => {
                contents.records += 1;
                contents.record_bytes += facts.len_bytes;
                contents.samples += facts.samples;
                contents.new_series += facts.new_series;
                contents.flaws += u64::from(facts.problem.is_some());
            }
            SegmentStep::Hole { .. } => contents.flaws += 1,
        }
        contents.steps.push(step);
    }
    contents.torn_offset = walk.end().torn_offset_bytes;
    Ok(contents)
}

fn to_json(header: &SegmentHeader, len_bytes: u64, contents: &Contents) -> Value {
    let steps: Vec<_> = contents.steps.iter().map(step_json).collect();
    json!({
        "kind": "log segment",
        "node": format!("{:032x}", header.identity.node),
        "incarnation": header.identity.incarnation,
        "shard": header.identity.shard,
        "segment": header.segment,
        "bytes": len_bytes,
        "record_count": contents.records,
        "record_bytes": contents.record_bytes,
        "samples": contents.samples,
        "new_series": contents.new_series,
        "torn_offset": contents.torn_offset,
        "records": steps,
    })
}

fn step_json(step: &SegmentStep) -> Value {
    match step {
        SegmentStep::Record(facts) => json!({
            "offset": facts.offset, "sequence": facts.sequence, "kind": facts.kind,
            "bytes": facts.len_bytes, "samples": facts.samples, "refused": facts.refused,
            "new_series": facts.new_series, "durable_sequence": facts.durable_sequence,
            "run_sequence": facts.run_sequence, "crc": "ok", "problem": facts.problem,
        }),
        SegmentStep::Hole { offset, len_bytes } => json!({
            "offset": offset, "kind": "damaged", "bytes": len_bytes, "crc": "wrong",
        }),
    }
}

fn print(
    header: &SegmentHeader,
    len_bytes: u64,
    contents: &Contents,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Contents { records, record_bytes, samples, new_series, .. } = *contents;
    let identity = header.identity;
    let lines = [
        ("node", format!("{:032x}", identity.node)),
        ("incarnation", identity.incarnation.to_string()),
        ("shard", identity.shard.to_string()),
        ("size", format!("{}, {} of it records", bytes(len_bytes), bytes(record_bytes))),
        ("records", count(records)),
        ("samples", count(samples)),
        ("new series", count(new_series)),
    ];
    print_table(&format!("log segment {}", header.segment), &lines, out)?;
    let steps = &contents.steps;
    if !steps.is_empty() {
        writeln!(
            out,
            "\n{:>10}  {:>10}  {:6}  {:>9}  {:>8}  {:>10}  crc",
            "offset", "sequence", "kind", "bytes", "samples", "new series"
        )?;
    }
    let cut = steps.len().saturating_sub(SHOWN_LAST).max(SHOWN_FIRST.min(steps.len()));
    for step in &steps[..steps.len().min(SHOWN_FIRST)] {
        print_step(step, out)?;
    }
    if cut > SHOWN_FIRST {
        let (between, rest) = steps[SHOWN_FIRST..].split_at(cut - SHOWN_FIRST);
        writeln!(out, "  ... {} more; --json lists all of them", count(between.len() as u64))?;
        // What is wrong is never left out.
        for step in between.iter().filter(|step| is_wrong(step)) {
            print_step(step, out)?;
        }
        rest.iter().try_for_each(|step| print_step(step, out))?;
    } else {
        steps[cut..].iter().try_for_each(|step| print_step(step, out))?;
    }
    match contents.torn_offset {
        Some(offset) => writeln!(out, "{offset:>10}  a torn write: the end of the log"),
        None => Ok(()),
    }
}

fn is_wrong(step: &SegmentStep) -> bool {
    match step {
        SegmentStep::Record(facts) => facts.problem.is_some(),
        SegmentStep::Hole { .. } => true,
    }
}

fn print_step(step: &SegmentStep, out: &mut dyn Write) -> io::Result<()> {
    match step {
        SegmentStep::Hole { offset, len_bytes } => {
            writeln!(out, "{offset:>10}  {:>10}  damaged  {:>7}", "", count(*len_bytes))
        }
        SegmentStep::Record(facts) => {
            let RecordFacts { offset, sequence, kind, len_bytes, samples, new_series, .. } = facts;
            let problem = facts.problem.map_or(String::new(), |problem| format!(", but {problem}"));
            writeln!(
                out,
                "{offset:>10}  {sequence:>10}  {kind:6}  {len_bytes:>9}  {samples:>8}  \
                 {new_series:>10}  ok{problem}"
            )
        }
    }
}
