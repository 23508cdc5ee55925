//! How the process is: health, readiness, metrics, build, and the page at `/` that says where
//! things are.

use std::fmt::Write;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::control::api::ApiState;
use crate::control::api::json;
use crate::control::gather::{gather_reports, gather_store};
use crate::control::host::ProcessUsage;
use crate::control::metrics::{MetricsInput, render};
use crate::control::readiness::Readiness;

/// A shard that takes longer is shown as down: a scrape has 10 s.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

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
    let page = render(&MetricsInput {
        store: store.as_deref(),
        reports: &reports,
        readiness: state.server.readiness(),
        usage: ProcessUsage::read(),
        started_at_seconds: state.started_at_ms as f64 / 1000.0,
        queries: state.admission.report(),
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
    ([(header::CONTENT_TYPE, json::CONTENT_TYPE)], body).into_response()
}
