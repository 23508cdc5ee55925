//! How long a query takes that reads blocks: of a million series with a sample every 30 minutes
//! over 24 hours, and 10,000 among them with a sample a minute. Both are in blocks, flushed and
//! merged; each query runs until its answer is read whole, on a kept connection.

use std::io;
use std::time::Duration;

use loadgen::http::encode_query;

use super::{HOUR_MS, MILLION, Round, range_start_ms};
use crate::blocks;
use crate::client::{Answer, Client};
use crate::load;
use crate::outcome::Figure;
use crate::server::{Cpus, Server, SetUp};

const DAY_MS: i64 = 24 * HOUR_MS;
const DENSE_SERIES: u64 = 10_000;
/// The runs' seeds, which are values of a label.
const SPARSE: u32 = 1;
const DENSE: u32 = 2;
/// Not measured: the first ones fill the caches.
const WARM_UP: usize = 3;
const ONE_COUNT: usize = 300;
const MANY_COUNT: usize = 15;

/// A server with both data sets, and the begin of their 24 hours.
struct Loaded<'a> {
    server: Server<'a>,
    start_ms: i64,
}

fn load(set_up: &SetUp) -> io::Result<Loaded<'_>> {
    let server = Server::start_with(set_up, Cpus::All, 2, "--query-series-max 2000000")?;
    let start_ms = range_start_ms(13);
    let common = format!(
        "--protocol vm-json --connections 8 --retry --points-per-request 20000 --span 24h \
         --start {start_ms}"
    );
    let sparse = format!("{common} --seed {SPARSE} --series {MILLION} --points-per-series 48");
    load::send(set_up, &server, &format!("{sparse} --step 30m"))?;
    let dense = format!("{common} --seed {DENSE} --series {DENSE_SERIES} --points-per-series 120");
    load::send(set_up, &server, &format!("{dense} --step 1m"))?;
    blocks::flush_whole(&server)?;
    blocks::compact(&server)?;
    Ok(Loaded { server, start_ms })
}

/// Other series each time, spread over all; each is asked for twice and the second time counts, so
/// that what is measured is warm.
pub(super) fn one(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let loaded = load(round.set_up)?;
    let mut client = Client::connect(loaded.server.address())?;
    let (start, end) = (loaded.start_ms, loaded.start_ms + DAY_MS - 1);
    let mut measure = |seed: u32, series_count: u64, step: &str, want: usize| {
        let mut times = Times::default();
        for number in 0..ONE_COUNT {
            // A prime: the series are not neighbours.
            let series = number as u64 * 7919 % series_count;
            let selector = format!("{{lg_run=\"{seed}\",lg_series=\"{series:08}\"}}");
            let export = export_path(&selector, start, end);
            let range = range_path(&selector, start, end, step);
            client.get(&export)?;
            let answer = client.get(&export)?;
            check_samples(&answer, 1, want)?;
            times.export.push(answer.took);
            client.get(&range)?;
            times.range.push(client.get(&range)?.took);
        }
        io::Result::Ok(times)
    };
    let sparse = measure(SPARSE, MILLION, "30m", 48)?;
    let dense = measure(DENSE, DENSE_SERIES, "1m", 1440)?;
    Ok(vec![
        Figure::new("export, 48 samples: p50, ms", quantile(&sparse.export, 50)).at_most(5.0),
        Figure::new("export, 48 samples: p99, ms", quantile(&sparse.export, 99)).at_most(5.0),
        Figure::new("query_range, 48 samples: p50, ms", quantile(&sparse.range, 50)).at_most(5.0),
        Figure::new("query_range, 48 samples: p99, ms", quantile(&sparse.range, 99)),
        Figure::new("export, 1,440 samples: p50, ms", quantile(&dense.export, 50)).at_most(5.0),
        Figure::new("export, 1,440 samples: p99, ms", quantile(&dense.export, 99)),
        Figure::new("query_range, 1,440 steps: p50, ms", quantile(&dense.range, 50)),
        Figure::new("query_range, 1,440 steps: p99, ms", quantile(&dense.range, 99)),
    ])
}

/// The 10,000 by the label that tells the runs apart, over an hour in the middle of the day.
pub(super) fn many(round: &Round<'_>) -> io::Result<Vec<Figure>> {
    let loaded = load(round.set_up)?;
    let mut client = Client::connect(loaded.server.address())?;
    let start = loaded.start_ms + DAY_MS / 2;
    let end = start + HOUR_MS - 1;
    let selector = format!("{{lg_run=\"{DENSE}\"}}");
    let export = export_path(&selector, start, end);
    let range = range_path(&selector, start, end, "5m");
    let summed = range_path(&format!("sum by (job) ({selector})"), start, end, "5m");
    let (mut times, mut sums) = (Times::default(), Vec::new());
    for number in 0..WARM_UP + MANY_COUNT {
        let exported = client.get(&export)?;
        check_samples(&exported, usize::try_from(DENSE_SERIES).unwrap_or(0), 60)?;
        let ranged = client.get(&range)?;
        let sum = client.get(&summed);
        if number >= WARM_UP {
            times.export.push(exported.took);
            times.range.push(ranged.took);
            sums.extend(sum.ok().map(|answer| answer.took));
        }
    }
    let mut figures = vec![
        Figure::new("export, 60 samples each: p50, ms", quantile(&times.export, 50)).at_most(150.0),
        Figure::new("export, 60 samples each: p99, ms", quantile(&times.export, 99)),
        Figure::new("query_range, 12 steps: p50, ms", quantile(&times.range, 50)).at_most(150.0),
        Figure::new("query_range, 12 steps: p99, ms", quantile(&times.range, 99)),
    ];
    // Until the server evaluates PromQL beyond selectors there is nothing to measure here.
    if !sums.is_empty() {
        figures.push(Figure::new("sum by (job), 12 steps: p50, ms", quantile(&sums, 50)));
    }
    Ok(figures)
}

#[derive(Default)]
struct Times {
    export: Vec<Duration>,
    range: Vec<Duration>,
}

fn quantile(times: &[Duration], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = (sorted.len().max(1) - 1) * percent / 100;
    sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

fn export_path(selector: &str, start_ms: i64, end_ms: i64) -> String {
    let selector = encode_query(selector);
    format!("/api/v1/export?match[]={selector}&{}", range_parameters(start_ms, end_ms))
}

fn range_path(query: &str, start_ms: i64, end_ms: i64, step: &str) -> String {
    let query = encode_query(query);
    format!("/api/v1/query_range?query={query}&step={step}&{}", range_parameters(start_ms, end_ms))
}

fn range_parameters(start_ms: i64, end_ms: i64) -> String {
    format!("start={:.3}&end={:.3}", start_ms as f64 / 1000.0, end_ms as f64 / 1000.0)
}

/// An export has as many timestamps as it has samples; each is 13 digits behind `[` or a comma.
fn check_samples(answer: &Answer, series: usize, samples: usize) -> io::Result<()> {
    let mut found = 0;
    for line in answer.body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let text = String::from_utf8_lossy(line);
        let times = text.rsplit_once('[').map_or("", |(_, times)| times);
        found += times.split(',').count();
    }
    if found == series * samples {
        return Ok(());
    }
    let want = series * samples;
    Err(io::Error::other(format!("a select gave {found} samples instead of {want}")))
}
