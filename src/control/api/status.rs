//! How the process is: health, readiness, metrics, build, and the page at `/` that says where
//! things are.

use std::fmt::Write;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::control::api::ApiState;
use crate::control::api::error::ApiError;
use crate::control::api::parameters::Parameters;
use crate::control::gather::{gather_cardinality, gather_reports, gather_store};
use crate::control::host::ProcessUsage;
use crate::control::metrics::{MetricsInput, render};
use crate::control::readiness::Readiness;
use crate::control::source::ReadSource;
use crate::node::cardinality::Cardinality;

/// A shard that takes longer is shown as down: a scrape has 10 s.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Lines of each list of `/api/v1/status/tsdb`, as in Prometheus.
const TOP_DEFAULT: usize = 10;
/// Prometheus' bound.
const TOP_MAX: usize = 10_000;
/// Each shard tells so many times more.
const SHARD_TOP_FACTOR: usize = 10;

const METRICS_CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

const INDEX: &str = concat!(
    "tidegate ",
    env!("CARGO_PKG_VERSION"),
    ": takes in metrics, stores them durably, answers queries.

Send
  Prometheus remote write    POST /api/v1/write
  VictoriaMetrics JSON lines POST /api/v1/import

Query (Prometheus' HTTP API: give Grafana this address as a Prometheus data source)
  /api/v1/query?query=up
  /api/v1/query_range?query=up&start=...&end=...&step=15s
  /api/v1/series?match[]=up
  /api/v1/labels
  /api/v1/label/job/values
  /api/v1/export?match[]=up  raw samples as JSON lines

Operate (POST)
  /api/v1/admin/tsdb/delete_series?match[]=up&start=...&end=...
  /api/v1/admin/tsdb/clean_tombstones  what is deleted leaves the disk
  /api/v1/admin/tsdb/snapshot          a folder with everything, by hard links
  /api/v1/admin/tsdb/flush             memory into blocks, now
  /api/v1/admin/tsdb/compact           blocks into fewer, now

Watch
  /api/v1/status/tsdb        which metrics and labels have the most series
  /metrics    what it does, in numbers
  /-/healthy  200 while the process lives
  /-/ready    200 when it takes samples, else 503 with the reason
"
);

/// What this is and where things are.
pub async fn index() -> &'static str {
    INDEX
}

/// 200 while the process lives.
pub async fn healthy() -> &'static str {
    "tidegate is healthy.\n"
}

/// As VictoriaMetrics answers it.
pub async fn health() -> &'static str {
    "OK"
}

/// 200 when clients should come, else 503 with the reason.
pub async fn ready(State(state): State<ApiState>) -> Response {
    let readiness = state.server.readiness();
    let mut text = format!("{}\n", readiness.describe());
    if state.server.store().is_closed() {
        text.push_str("the blocks cannot be opened: nothing goes to them, and queries fail\n");
    }
    let lost = state.server.store().blocks_lost();
    if lost > 0 {
        let _ = writeln!(
            text,
            "{lost} blocks are damaged (see blocks/aside in the data folder) or missing: answers \
             lack their samples; `tidegate check data` says which"
        );
    }
    match readiness {
        Readiness::Ready => text.into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], text).into_response(),
    }
}

/// The page that Prometheus scrapes.
pub async fn metrics(State(state): State<ApiState>) -> Response {
    let reports = gather_reports(&state.shards, REPORT_TIMEOUT).await;
    let store = gather_store(&state.shards, REPORT_TIMEOUT).await;
    let hints = state.hints.as_ref().map(|figures| figures()).unwrap_or_default();
    let page = render(&MetricsInput {
        store: store.as_deref(),
        reports: &reports,
        readiness: state.server.readiness(),
        usage: ProcessUsage::read(),
        started_at_seconds: state.started_at_ms as f64 / 1000.0,
        queries: state.admission.report(),
        hints: &hints,
        discovery: state.discovery.as_ref().map(|counts| *counts.borrow()),
    });
    ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], page).into_response()
}

/// Metadata is counted on arrival and not stored yet, so there is none to tell.
pub async fn metadata() -> Response {
    respond_json("{\"status\":\"success\",\"data\":{}}".into())
}

/// Which program this is. Grafana asks, to learn which API it may expect.
pub async fn build_info() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    respond_json(format!(
        "{{\"status\":\"success\",\"data\":{{\"application\":\"tidegate\",\
         \"version\":\"{version}\",\"revision\":\"\",\"branch\":\"\",\
         \"buildUser\":\"\",\"buildDate\":\"\",\
         \"goVersion\":\"\"}}}}"
    ))
}

fn respond_json(body: String) -> Response {
    ([(header::CONTENT_TYPE, crate::control::api::json::CONTENT_TYPE)], body).into_response()
}

/// Head cardinality, as Prometheus' page of that name shows it, and what came and went.
pub async fn tsdb(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    if let ReadSource::Fleet(_) = state.source {
        let text = "cannot count the series of the fleet here: a gateway holds none; ask each \
                    node's /api/v1/status/tsdb";
        return Err(ApiError::NotImplemented(text.into()));
    }
    let limit = parameters.limit()?.unwrap_or(TOP_DEFAULT);
    if limit > TOP_MAX {
        return Err(ApiError::parameter("limit", format_args!("{limit} is above {TOP_MAX}")));
    }
    // A shard's list is cut later than the whole, so that what is split unevenly is found too.
    let shard_limit = limit.saturating_mul(SHARD_TOP_FACTOR);
    let work = async { Ok(gather_cardinality(&state.shards, shard_limit).await?) };
    let mut found = state.admission.run(parameters.duration_ms("timeout")?, work).await?;
    found.add(Cardinality::default(), limit);
    let (min_ms, max_ms) = found.range_ms.unwrap_or((0, 0));
    let top = |list: &[(Box<str>, u64)]| -> Vec<Value> {
        list.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
    };
    let body = json!({ "status": "success", "data": {
        "headStats": {
            "numSeries": found.series,
            "numLabelPairs": found.label_pairs,
            "chunkCount": found.chunks,
            "minTime": min_ms,
            "maxTime": max_ms,
            "seriesRegistered": found.registered,
            "seriesLeft": found.left,
        },
        "seriesCountByMetricName": top(&found.metrics),
        "labelValueCountByLabelName": top(&found.name_values),
        "memoryInBytesByLabelName": top(&found.name_bytes),
        "seriesCountByLabelValuePair": top(&found.pairs),
    }});
    Ok(respond_json(body.to_string()))
}
