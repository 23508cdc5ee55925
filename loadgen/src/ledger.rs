//! DRIVER: the ledger, an append-only file of JSON lines that says what was sent and what was
//! acknowledged.
//!
//! A request's line is written before its first byte goes out, so that a generator that is killed
//! leaves no sample on the server that its ledger does not know. Lines go to the page cache one by
//! one (no buffer of ours: a kill loses at most the line being written) and are synced at the end.
//! ```text
//! {"run":{"seed":1,"label_count":11,"start_timestamp_ms":...,"interval_ms":1}}
//! {"sent":{"request":0,"connection":0,"first_series":0,"series":5000,"first_sample":0,"points":1}}
//! {"done":{"request":0,"outcome":"acked"}}        or {"refused":400} or "unknown"
//! ```
//! A file may hold several runs; each begins with its `run` line.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::series::Run;

/// The samples of one request: `points` samples from `first_sample` on of each of `series` series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Which connection sent it; a series belongs to one connection, so its samples go out in
    /// order.
    pub connection: u32,
    /// Number of the first series.
    pub first_series: u64,
    /// How many series, from `first_series` on.
    pub series: u32,
    /// Index of the first sample of each.
    pub first_sample: u64,
    /// Samples of each series.
    pub points: u32,
}

impl Span {
    /// Samples in all.
    pub fn point_count(&self) -> u64 {
        u64::from(self.series) * u64::from(self.points)
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 2xx, no sample left out: every one must be there.
    Acked,
    /// Another status, or 200 with some samples refused. Some may still be there: a 400 writes
    /// the valid ones, a 503 comes from one shard of several.
    Refused(u16),
    /// The connection died before an answer: each sample may be there or not.
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Run(Run),
    Sent {
        request: u64,
        #[serde(flatten)]
        span: Span,
    },
    Done {
        request: u64,
        outcome: Outcome,
    },
}

/// The writing half.
#[derive(Debug)]
pub struct Ledger {
    file: Option<File>,
    line: Vec<u8>,
    request_next: u64,
}

impl Ledger {
    /// Opens `path` to append a run. Without a path the ledger only numbers the requests.
    pub fn open(path: Option<&Path>, run: &Run) -> io::Result<Self> {
        let mut ledger = Self { file: None, line: Vec::new(), request_next: 0 };
        if let Some(path) = path {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            end_torn_line(&mut file)?;
            ledger.file = Some(file);
        }
        ledger.append(&Line::Run(*run))?;
        Ok(ledger)
    }

    /// Notes a request that is about to be sent for the first time; returns its number.
    pub fn sent(&mut self, span: Span) -> io::Result<u64> {
        let request = self.request_next;
        self.request_next += 1;
        self.append(&Line::Sent { request, span })?;
        Ok(request)
    }

    /// Notes what became of it.
    pub fn done(&mut self, request: u64, outcome: Outcome) -> io::Result<()> {
        self.append(&Line::Done { request, outcome })
    }

    /// Syncs the file.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.sync_data())
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        file.write_all(&self.line)
    }
}

/// A generator that was killed may have left half a line: the next run begins on a line of its own.
fn end_torn_line(file: &mut File) -> io::Result<()> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// One run as the ledger tells it: what was sent, neighbours merged, each with what became of it.
#[derive(Clone, Debug)]
pub struct RunRecord {
    /// What the data depends on.
    pub run: Run,
    /// Disjoint unless the sender sent the same samples twice.
    pub spans: Vec<(Span, Outcome)>,
}

/// Reads every run in `path`. Requests without an outcome are `Unknown`.
/// # Errors
/// A line that is neither known nor the torn last one of a run.
pub fn read(path: &Path) -> io::Result<Vec<RunRecord>> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut runs: Vec<Reading> = Vec::new();
    let mut torn: Option<u64> = None;
    let mut text = Vec::new();
    for number in 1_u64.. {
        text.clear();
        if reader.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let parsed = serde_json::from_slice(&text).ok();
        if let (Some(torn), false) = (torn, matches!(parsed, Some(Line::Run(_)))) {
            return Err(bad_line(path, torn));
        }
        torn = None;
        match (parsed, runs.last_mut()) {
            (Some(Line::Run(run)), _) => runs.push(Reading::new(run)),
            (Some(Line::Sent { request, span }), Some(reading)) => {
                reading.pending.insert(request, span);
            }
            (Some(Line::Done { request, outcome }), Some(reading)) => {
                let span = reading.pending.remove(&request);
                reading.push(span.ok_or_else(|| bad_line(path, number))?, outcome);
            }
            (None, Some(_)) => torn = Some(number),
            (_, None) => return Err(bad_line(path, number)),
        }
    }
    Ok(runs.into_iter().map(Reading::finish).collect())
}

fn bad_line(path: &Path, number: u64) -> io::Error {
    let path: PathBuf = path.into();
    let text =
        format!("cannot read ledger {}: line {number} is not one of its lines", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// A run while its lines come in. Rounds of the same series that follow each other with the same
/// outcome become one span, so that hours of requests stay a few spans.
struct Reading {
    run: Run,
    pending: HashMap<u64, Span>,
    spans: Vec<(Span, Outcome)>,
    last_of: HashMap<(u64, u32), usize>,
}

impl Reading {
    fn new(run: Run) -> Self {
        Self { run, pending: HashMap::new(), spans: Vec::new(), last_of: HashMap::new() }
    }

    fn push(&mut self, span: Span, outcome: Outcome) {
        let key = (span.first_series, span.series);
        if let Some((last, last_outcome)) = self.last_of.get(&key).map(|&at| &mut self.spans[at]) {
            let follows = last.first_sample + u64::from(last.points) == span.first_sample;
            if let (true, Some(points)) =
                (follows && *last_outcome == outcome, last.points.checked_add(span.points))
            {
                last.points = points;
                return;
            }
        }
        self.last_of.insert(key, self.spans.len());
        self.spans.push((span, outcome));
    }

    fn finish(mut self) -> RunRecord {
        let mut pending: Vec<_> = std::mem::take(&mut self.pending).into_iter().collect();
        pending.sort_by_key(|(request, _)| *request);
        for (_, span) in pending {
            self.push(span, Outcome::Unknown);
        }
        RunRecord { run: self.run, spans: self.spans }
    }
}
