//! Bytes on disk per sample, after flush and merge. What is weighed is what the file system
//! allocated; that it holds every sample is verified first.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use loadgen::encode::remote_write;

use super::{Round, range_start_ms};
use crate::blocks::{self, DiskUse};
use crate::client::Client;
use crate::load;
use crate::outcome::Figure;
use crate::recording;
use crate::server::{Cpus, Server};

const BLOCKS_PER_SAMPLE: &str = "bytes of blocks per sample, list and index in it";
const LIVE_PER_SAMPLE: &str = "bytes of everything but the log's empty room, per sample";
const FOLDER_PER_SAMPLE: &str = "bytes of the whole folder per sample, log ahead in it";
const REMOTE_WRITE_HEADERS: &str = "Content-Type: application/x-protobuf\r\n\
                                    Content-Encoding: snappy\r\n\
                                    X-Prometheus-Remote-Write-Version: 0.1.0\r\n";

/// One block's range whole.
pub(super) fn tsbs(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let start = range_start_ms(2);
    tsbs_span(round, &format!("--start {start} --span 2h --step 10s"), Some(1.7))
}

/// Twelve ranges.
pub(super) fn tsbs_day(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let start = range_start_ms(13);
    tsbs_span(round, &format!("--start {start} --span 24h --step 60s"), None)
}

fn tsbs_span(round: &Round<'_>, span: &str, aim: Option<f64>) -> io::Result<Vec<Figure>> {
    let set_up = round.set_up;
    let server = Server::start(set_up, Cpus::All, 2)?;
    let ledger = set_up.scratch("ledger");
    let options = format!(
        "--shape tsbs --series 20000 --connections 8 {span} --retry --ledger {}",
        ledger.display()
    );
    let sent = load::send(set_up, &server, &options)?;
    blocks::flush_whole(&server)?;
    let flushed = DiskUse::of(&server)?;
    blocks::compact(&server)?;
    let merged = DiskUse::of(&server)?;
    let logged = blocks::metric(&server, "tidegate_log_replay_bytes")?;
    let live = merged.all.saturating_sub(merged.segments) as f64 + logged;
    load::verify(set_up, &server, &ledger)?;
    let files = blocks::files(&server)?;
    let index = blocks::index_bytes(set_up, &files)?;
    let points = sent.report.points_acked as f64;
    let per_sample = Figure::new(BLOCKS_PER_SAMPLE, merged.blocks as f64 / points);
    Ok(vec![
        match aim {
            Some(aim) => per_sample.at_most(aim),
            None => per_sample,
        },
        Figure::new(LIVE_PER_SAMPLE, live / points),
        Figure::new(FOLDER_PER_SAMPLE, merged.all as f64 / points),
        Figure::new("bytes of indexes per sample", index as f64 / points),
        Figure::new("bytes of blocks per sample before merging", flushed.blocks as f64 / points),
        Figure::new("samples, read back one by one", points),
        Figure::new("blocks", files.len() as f64),
    ])
}

/// One exporter, as it was recorded, one remote-write request a scrape.
pub(super) fn node_exporter(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let set_up = round.set_up;
    if !set_up.recording.is_file() {
        recording::record(&set_up.recording, Duration::from_secs(round.record_seconds))?;
    }
    let scrapes = recording::read(&set_up.recording)?;
    let server = Server::start(set_up, Cpus::All, 1)?;
    let mut client = Client::connect(server.address())?;
    let (mut points, mut series) = (0, HashSet::new());
    for scrape in scrapes {
        points += scrape.lines.len();
        let at = scrape.timestamp_ms;
        let plain = scrape.lines.into_iter().map(|line| {
            let mut labels = line.labels;
            labels.push(("instance".to_owned(), "localhost:9100".to_owned()));
            labels.push(("job".to_owned(), "node".to_owned()));
            series.insert(labels.clone());
            (labels, vec![(at, line.value)])
        });
        let body = remote_write::encode_compressed(&plain.collect::<Vec<_>>());
        client.post("/api/v1/write", REMOTE_WRITE_HEADERS, &body)?;
    }
    blocks::flush_whole(&server)?;
    blocks::compact(&server)?;
    check_count(&mut client, points)?;
    let disk = DiskUse::of(&server)?;
    let files = blocks::files(&server)?;
    let index = blocks::index_bytes(set_up, &files)?;
    let samples = points as f64;
    let beyond = disk.blocks.saturating_sub(index) as f64 / samples;
    Ok(vec![
        Figure::new("bytes of blocks beyond the index per sample", beyond).at_most(0.6),
        Figure::new(BLOCKS_PER_SAMPLE, disk.blocks as f64 / samples),
        Figure::new(FOLDER_PER_SAMPLE, disk.all as f64 / samples),
        Figure::new("bytes of index per series", index as f64 / series.len().max(1) as f64),
        Figure::new("samples", samples),
        Figure::new("series", series.len() as f64),
    ])
}

/// Everything reads back, by number; the values are compared by the end-to-end tests.
fn check_count(client: &mut Client, want: usize) -> io::Result<()> {
    let selector = loadgen::http::encode_query("{job=\"node\"}");
    let answer = client.get(&format!("/api/v1/export?match[]={selector}"))?;
    let lines = answer.body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let mut found = 0;
    for line in lines {
        let json: serde_json::Value = serde_json::from_slice(line)?;
        found += json["timestamps"].as_array().map_or(0, Vec::len);
    }
    if found == want {
        return Ok(());
    }
    Err(io::Error::other(format!("{found} samples read back instead of {want}")))
}
