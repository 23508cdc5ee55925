//! DRIVER: `loadgen verify`. Reads everything back through `/api/v1/export`, a group of series at a
//! time, and compares it with the ledgers. In: options. Out: a result. Memory: a line of the export
//! and the bits of one group.

mod checker;
mod export_line;
mod result;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use checker::GroupChecker;
use export_line::ExportLine;
pub use result::{Example, Fault, VerifyResult};

use crate::executor;
use crate::http::{Connection, Target, encode_query};
use crate::ledger::{self, RunRecord};
use crate::options::VerifyOptions;
use crate::series::{Run, Shape};

/// Longer lines are not believed: a series of a hundred million samples.
const LINE_BYTES_MAX: usize = 4 << 30;
/// So that a sample at a time that nobody sent is found. Seconds, as in the Prometheus API.
const WHOLE_OF_TIME: &str = "start=0&end=4102444800";
/// The answer that lists the groups.
const LIST_BYTES_MAX: usize = 64 << 20;

/// Verifies as `options` say.
/// # Errors
/// A ledger or an answer that cannot be read.
pub fn run(options: &VerifyOptions) -> io::Result<VerifyResult> {
    let mut runs_of: BTreeMap<(u64, Shape), Vec<RunRecord>> = BTreeMap::new();
    for path in &options.ledger {
        for record in ledger::read(path)? {
            runs_of.entry((record.run.seed, record.run.shape)).or_default().push(record);
        }
    }
    let target = Target::resolve(&options.url)?;
    let options = options.clone();
    executor::run(async move {
        let connection = Connection::open(&target, options.timeout).await?;
        let mut reader = Reader { target, options, connection };
        let examples_max = reader.options.examples;
        let mut result = VerifyResult { examples_max, ..VerifyResult::default() };
        for records in runs_of.values() {
            let mut groups = groups_of(records);
            groups.extend(reader.read_groups(&records[0].run).await?);
            for group in groups {
                reader.check_group(records, group, &mut result).await?;
            }
        }
        Ok(result)
    })?
}

fn groups_of(records: &[RunRecord]) -> BTreeSet<u64> {
    let mut groups = BTreeSet::new();
    for record in records {
        let per_group = record.run.series_per_group();
        for (span, _) in &record.spans {
            let last = span.first_series + u64::from(span.series) - 1;
            groups.extend(span.first_series / per_group..=last / per_group);
        }
    }
    groups
}

/// The server, read over one connection.
struct Reader {
    target: Target,
    options: VerifyOptions,
    connection: Connection,
}

impl Reader {
    /// The groups that the server has of a run: series that nobody sent may be in others than the
    /// ledger's.
    async fn read_groups(&mut self, run: &Run) -> io::Result<BTreeSet<u64>> {
        let (label, selector) = run.groups();
        let path = format!(
            "/api/v1/label/{label}/values?match[]={}&{WHOLE_OF_TIME}",
            encode_query(&selector)
        );
        let status = self.get(&path).await?;
        let mut body = Vec::new();
        while let Some(piece) = self.connection.read_body().await? {
            if body.len() + piece.len() > LIST_BYTES_MAX {
                return Err(invalid("the list of groups is too long"));
            }
            body.extend_from_slice(piece);
        }
        if status != 200 {
            return Err(refused(&path, status, &body));
        }
        let list: LabelValues = serde_json::from_slice(&body)?;
        let numbers = list.data.iter().map(|label| run.group_of_label(label));
        numbers
            .collect::<Option<_>>()
            .ok_or_else(|| invalid("the server has a group that no run could have"))
    }

    async fn check_group(
        &mut self,
        records: &[RunRecord],
        group: u64,
        result: &mut VerifyResult,
    ) -> io::Result<()> {
        let selector = records[0].run.group_selector(group);
        let path = format!("/api/v1/export?match[]={}&{WHOLE_OF_TIME}", encode_query(&selector));
        let status = self.get(&path).await?;
        result.groups += 1;
        let mut checker = GroupChecker::new(records, group, result);
        let mut parsed = ExportLine::default();
        let mut text: Vec<u8> = Vec::new();
        while let Some(piece) = self.connection.read_body().await? {
            for part in piece.split_inclusive(|&byte| byte == b'\n') {
                if text.len() + part.len() > LINE_BYTES_MAX {
                    return Err(invalid("a line of the export has no end"));
                }
                text.extend_from_slice(part);
                if status == 200 && part.ends_with(b"\n") {
                    handle_line(&mut checker, &mut parsed, &text)?;
                    text.clear();
                }
            }
        }
        if status != 200 {
            return Err(refused(&path, status, &text));
        }
        handle_line(&mut checker, &mut parsed, &text)?;
        checker.finish(group);
        Ok(())
    }

    async fn get(&mut self, path: &str) -> io::Result<u16> {
        if self.connection.is_closing() {
            self.connection = Connection::open(&self.target, self.options.timeout).await?;
        }
        let Target { authority, base_path, .. } = &self.target;
        let head = format!(
            "GET {base_path}{path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: loadgen\r\n\r\n"
        );
        self.connection.write(head.as_bytes()).await?;
        self.connection.read_head().await
    }
}

#[derive(serde::Deserialize)]
struct LabelValues {
    data: Vec<String>,
}

fn handle_line(
    checker: &mut GroupChecker<'_>,
    parsed: &mut ExportLine,
    text: &[u8],
) -> io::Result<()> {
    if text.trim_ascii().is_empty() {
        return Ok(());
    }
    parsed.parse(text).map_err(|fault| {
        let cut = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
        invalid(&format!(
            "cannot read an exported line: expected {} at byte {} of {cut}",
            fault.expected, fault.offset_bytes
        ))
    })?;
    checker.handle_line(parsed);
    Ok(())
}

fn refused(path: &str, status: u16, body: &[u8]) -> io::Error {
    let cut = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    io::Error::other(format!("cannot read back: {path} was answered with {status} {cut}"))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}
