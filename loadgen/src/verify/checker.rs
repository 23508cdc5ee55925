//! Exported lines against what the ledgers say, one group of series at a time. Pure.
//! Memory: a bit per expected sample of the group. Not here: fetching the lines.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::export_line::ExportLine;
use super::result::{Example, Fault, VerifyResult};
use crate::ledger::{Outcome, RunRecord, Span};
use crate::series::{Cursor, Run};

/// One group of one seed: what is expected of it, and what was seen so far.
pub struct GroupChecker<'a> {
    result: &'a mut VerifyResult,
    /// The runs of this seed. They have the same series; a later one may have written over an
    /// earlier one's samples.
    runs: Vec<RunSeen<'a>>,
    labels_of: HashMap<u64, Vec<(String, String)>>,
}

struct RunSeen<'a> {
    run: Run,
    spans: Vec<&'a (Span, Outcome)>,
    seen: HashMap<u64, Seen>,
}

/// One series of a run. Its samples may come in several lines, which usually follow each other in
/// time: each window of an export has lines of its own.
struct Seen {
    samples: Bitmap,
    cursor: Cursor,
}

/// Sample indexes.
#[derive(Default)]
struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// False if it was set before.
    fn set(&mut self, at: u64) -> bool {
        let word = usize::try_from(at / 64).expect("indexes were counted in memory");
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (at % 64);
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        fresh
    }

    fn get(&self, at: u64) -> bool {
        let word = usize::try_from(at / 64).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

impl<'a> GroupChecker<'a> {
    /// For group `group` of `records`, which are the runs of one seed.
    pub fn new(records: &'a [RunRecord], group: u64, result: &'a mut VerifyResult) -> Self {
        let runs = records
            .iter()
            .map(|record| {
                let wanted = series_of_group(&record.run, group);
                let overlaps = |(span, _): &&(Span, Outcome)| {
                    span.first_series < wanted.end
                        && span.first_series + u64::from(span.series) > wanted.start
                };
                let spans = record.spans.iter().filter(overlaps).collect();
                RunSeen { run: record.run, spans, seen: HashMap::new() }
            })
            .collect();
        Self { result, runs, labels_of: HashMap::new() }
    }

    /// Checks every sample of a line.
    pub fn handle_line(&mut self, line: &ExportLine) {
        self.result.samples_read += line.values.len() as u64;
        let Some(series) = self.series_of(line) else {
            for (&timestamp_ms, &value) in line.timestamps_ms.iter().zip(&line.values) {
                self.fault(Fault::Extra, line, (timestamp_ms, value), None);
            }
            return;
        };
        let pieces: Vec<Vec<Piece>> =
            self.runs.iter().map(|seen| pieces_of(&seen.spans, series)).collect();
        for (&timestamp_ms, &value) in line.timestamps_ms.iter().zip(&line.values) {
            let (mut want, mut matched, mut repeated) = (None, false, false);
            for (seen, pieces) in self.runs.iter_mut().zip(&pieces) {
                let Some(sample) = seen.run.sample_at(series, timestamp_ms) else { continue };
                if is_sent(pieces, sample) {
                    let run = seen.run;
                    let fresh = || Seen { samples: Bitmap::default(), cursor: run.cursor(series) };
                    let entry = seen.seen.entry(series).or_insert_with(fresh);
                    let sent = run.value(&mut entry.cursor, series, sample);
                    matched |= sent.to_bits() == value.to_bits();
                    want = Some(sent);
                    repeated |= !entry.samples.set(sample);
                }
            }
            let fault = match want {
                None => Fault::Extra,
                Some(_) if repeated => Fault::Repeated,
                Some(_) if !matched => Fault::Wrong,
                Some(_) => continue,
            };
            self.fault(fault, line, (timestamp_ms, value), want);
        }
    }

    /// The export is complete: counts what it lacks.
    pub fn finish(self, group: u64) {
        let examples_max = self.result.examples_max;
        let mut missing: BTreeMap<(u64, i64), f64> = BTreeMap::new();
        for seen in &self.runs {
            for series in series_of_group(&seen.run, group) {
                let bitmap = seen.seen.get(&series).map(|seen| &seen.samples);
                let pieces = pieces_of(&seen.spans, series);
                for (sample, acked) in
                    pieces.iter().flat_map(|p| (p.start..p.end).map(|sample| (sample, p.acked)))
                {
                    let found = bitmap.is_some_and(|bitmap| bitmap.get(sample));
                    let counter = match (acked, found) {
                        (true, true) => &mut self.result.acked_present,
                        (true, false) => &mut self.result.missing,
                        (false, true) => &mut self.result.uncertain_present,
                        (false, false) => &mut self.result.uncertain_absent,
                    };
                    *counter += 1;
                    if acked && !found && missing.len() < examples_max {
                        let mut cursor = seen.run.cursor(series);
                        let (timestamp_ms, value) = seen.run.sample(&mut cursor, series, sample);
                        missing.insert((series, timestamp_ms), value);
                    }
                }
            }
        }
        let run = self.runs.first().map(|seen| seen.run);
        for ((series, timestamp_ms), want) in missing {
            let labels = run.map(|run| run.labels(series)).unwrap_or_default();
            let example = Example::new(Fault::Missing, &labels, timestamp_ms, None, Some(want));
            self.result.example(example);
        }
    }

    /// The number of the series, if its labels are, all of them, what the run gives it.
    fn series_of(&mut self, line: &ExportLine) -> Option<u64> {
        // Runs of one seed and shape number their series alike.
        let series = self.runs.first()?.run.series_of(&line.labels)?;
        let known = self.runs.iter().any(|seen| {
            let labels = self.labels_of.entry(series).or_insert_with(|| seen.run.labels(series));
            // Runs of a seed may differ in the number of labels.
            *labels == line.labels || seen.run.labels(series) == line.labels
        });
        known.then_some(series)
    }

    fn fault(
        &mut self,
        fault: Fault,
        line: &ExportLine,
        (timestamp_ms, value): (i64, f64),
        want: Option<f64>,
    ) {
        let counter = match fault {
            Fault::Missing => &mut self.result.missing,
            Fault::Wrong => &mut self.result.wrong,
            Fault::Extra => &mut self.result.extra,
            Fault::Repeated => &mut self.result.repeated,
        };
        *counter += 1;
        if self.result.wants_example(fault) {
            let example = Example::new(fault, &line.labels, timestamp_ms, Some(value), want);
            self.result.example(example);
        }
    }
}

fn series_of_group(run: &Run, group: u64) -> Range<u64> {
    let first = group * run.series_per_group();
    first..first + run.series_per_group()
}

/// Consecutive samples of a series with the same fate.
struct Piece {
    start: u64,
    end: u64,
    acked: bool,
}

/// The samples of `series` that were sent: ascending, disjoint. Sent twice and acknowledged once is
/// acknowledged.
fn pieces_of(spans: &[&(Span, Outcome)], series: u64) -> Vec<Piece> {
    let mut edges: Vec<(u64, i32, i32)> = Vec::new();
    for (span, outcome) in spans {
        if (span.first_series..span.first_series + u64::from(span.series)).contains(&series) {
            let acked = i32::from(*outcome == Outcome::Acked);
            edges.push((span.first_sample, 1, acked));
            edges.push((span.first_sample + u64::from(span.points), -1, -acked));
        }
    }
    edges.sort_unstable();
    let mut pieces = Vec::new();
    let (mut sent_depth, mut acked_depth, mut start) = (0, 0, 0);
    for (at, sent_change, acked_change) in edges {
        if sent_depth > 0 && at > start {
            pieces.push(Piece { start, end: at, acked: acked_depth > 0 });
        }
        start = at;
        sent_depth += sent_change;
        acked_depth += acked_change;
    }
    pieces
}

fn is_sent(pieces: &[Piece], sample: u64) -> bool {
    let after = pieces.partition_point(|piece| piece.start <= sample);
    after > 0 && sample < pieces[after - 1].end
}
