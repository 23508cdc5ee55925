//! The HTTP API of the read side: Prometheus' query API, VictoriaMetrics' export, health and
//! metrics, as an axum router.
//!
//! `parameters` reads requests, `admission` lets so many in, `query`, `series` and `export` answer
//! them, `admin` deletes and keeps up, `status` says how the process is; `json`, `body` and `error`
//! write answers. It asks the shards through `control/gather` and touches no socket.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::watch;

use crate::control::api::admission::Admission;
use crate::control::api::error::ApiError;
use crate::control::deletion::Deleter;
use crate::control::discovery::schedule::DiscoveryCounts;
use crate::control::gather::{GatherLimits, Question};
use crate::control::readiness::{Readiness, ServerState};
use crate::control::reads::fleet::FleetReads;
use crate::control::reads::own_hints::HintFiguresSource;
use crate::control::shards::Shards;
use crate::control::source::ReadSource;
use crate::model::matcher::Matcher;
use crate::model::series::TenantId;
use crate::query::merge::Window;

pub mod admission;
pub mod parameters;

pub mod admin;
pub mod export;
pub mod query;
pub mod series;
pub mod status;

pub mod body;
pub mod error;
pub mod json;

/// What bounds queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Series that one query reads.
    pub series_max: u32,
    /// Samples that one query decodes, and points that it makes of them.
    pub samples_max: u64,
    /// Queries at a time.
    pub concurrency_max: u32,
    /// How long a query waits for its turn.
    pub wait_max: Duration,
    /// How long a query takes, waiting included; `timeout` can only shorten it.
    pub timeout: Duration,
    /// How old a sample may be to be seen at an instant.
    pub lookback: Duration,
    /// Older samples are not shown, whether they have left the disk or not; 0 shows all.
    pub retention: Duration,
}

/// Tells Unix milliseconds.
type Clock = fn() -> i64;

/// What the API needs of the process. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub(crate) shards: Shards,
    pub(crate) source: ReadSource,
    pub(crate) server: Arc<ServerState>,
    pub(crate) limits: QueryLimits,
    pub(crate) admission: Arc<Admission>,
    /// Unix milliseconds.
    pub(crate) clock: Clock,
    pub(crate) started_at_ms: i64,
    pub(crate) deleter: Deleter,
    /// What a gateway keeps for nodes that are down.
    pub(crate) hints: Option<HintFiguresSource>,
    /// How a gateway finds its nodes.
    pub(crate) discovery: Option<watch::Receiver<DiscoveryCounts>>,
}

impl ApiState {
    /// The API of a process that starts now, by `clock` (Unix milliseconds).
    pub fn new(
        shards: Shards,
        server: Arc<ServerState>,
        limits: QueryLimits,
        clock: Clock,
    ) -> Self {
        let admission = Arc::new(Admission::new(limits));
        Self {
            source: ReadSource::Local(shards.clone()),
            deleter: Deleter::new(shards.clone()),
            shards,
            server,
            limits,
            admission,
            clock,
            started_at_ms: clock(),
            hints: None,
            discovery: None,
        }
    }

    /// The API of a gateway, which reads the fleet; `shards` are asked about themselves only.
    pub fn with_fleet(self, fleet: FleetReads) -> Self {
        Self { source: ReadSource::Fleet(fleet), ..self }
    }

    /// The same, where others delete too, in turn.
    pub fn with_deleter(self, deleter: Deleter) -> Self {
        Self { deleter, ..self }
    }

    /// The same, which keeps hints.
    pub fn with_hints(self, hints: HintFiguresSource) -> Self {
        Self { hints: Some(hints), ..self }
    }

    /// The same, which finds nodes by name.
    pub fn with_discovery(self, counts: watch::Receiver<DiscoveryCounts>) -> Self {
        Self { discovery: Some(counts), ..self }
    }

    /// What an answer that lacks `lacking` is to warn of, as the end of its JSON:
    /// `,"warnings":[...]`, or nothing.
    pub(crate) fn warnings(&self, lacking: &[String], is_cut: bool) -> Vec<u8> {
        let mut warnings: Vec<&str> = lacking.iter().map(String::as_str).collect();
        if self.server.store().blocks_lost() > 0 {
            warnings.push("blocks are damaged or missing, and samples with them: see /-/ready");
        }
        if is_cut {
            warnings.push("results truncated due to limit");
        }
        if warnings.is_empty() {
            return Vec::new();
        }
        let list = serde_json::to_string(&warnings).expect("texts");
        format!(",\"warnings\":{list}").into_bytes()
    }

    /// What to ask the shards and blocks: nothing older than the retention.
    pub(crate) fn question(&self, groups: Vec<Vec<Matcher>>, window: Window) -> Question {
        let retention_ms = i64::try_from(self.limits.retention.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = match retention_ms {
            0 => i64::MIN,
            _ => (self.clock)().saturating_sub(retention_ms),
        };
        let window = Window { start_ms: window.start_ms.max(oldest_ms), ..window };
        Question { tenant: TenantId::default(), groups, window }
    }

    pub(crate) fn gather_limits(&self) -> GatherLimits {
        GatherLimits { series_max: self.limits.series_max, samples_max: self.limits.samples_max }
    }
}

/// The routes. Methods that a route does not know get 405 with `Allow`, `OPTIONS` 204 with it,
/// unknown paths 404.
pub fn router(state: ApiState) -> Router {
    let data = Router::new()
        .route("/api/v1/query", get(query::query).post(query::query))
        .route("/api/v1/query_range", get(query::query_range).post(query::query_range))
        .route("/api/v1/series", get(series::series).post(series::series))
        .route("/api/v1/labels", get(series::labels).post(series::labels))
        .route("/api/v1/label/{name}/values", get(series::label_values))
        .route("/api/v1/status/tsdb", get(status::tsdb))
        .route("/api/v1/export", get(export::export).post(export::export))
        .nest("/api/v1/admin/tsdb", admin_routes())
        .route_layer(middleware::from_fn_with_state(state.clone(), refuse_in_replay));
    Router::new()
        .merge(data)
        .route("/", get(status::index))
        .route("/-/healthy", get(status::healthy))
        .route("/-/ready", get(status::ready))
        .route("/health", get(status::health))
        .route("/metrics", get(status::metrics))
        .route("/api/v1/metadata", get(status::metadata))
        .route("/api/v1/status/buildinfo", get(status::build_info))
        .fallback(unknown_path)
        .method_not_allowed_fallback(other_method)
        .with_state(state)
}

/// `PUT` as in Prometheus.
fn admin_routes() -> Router<ApiState> {
    let delete_series = admin::delete_series;
    Router::new()
        .route("/delete_series", post(delete_series).put(delete_series))
        .route("/clean_tombstones", post(admin::clean_tombstones).put(admin::clean_tombstones))
        .route("/snapshot", post(admin::snapshot).put(admin::snapshot))
        .route("/flush", post(admin::flush))
        .route("/compact", post(admin::compact))
}

/// A head that is half read would answer with holes that look like data: wait instead.
async fn refuse_in_replay(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match state.server.readiness() {
        readiness @ (Readiness::Replaying { .. } | Readiness::NoFleet) => {
            Err(ApiError::Unavailable(readiness.describe()))
        }
        _ => Ok(next.run(request).await),
    }
}

async fn unknown_path(request: Request) -> Response {
    if request.method() == Method::OPTIONS && request.uri().path() == "*" {
        // What the server can at all.
        let allow = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
        return (StatusCode::NO_CONTENT, [(header::ALLOW, allow)]).into_response();
    }
    let path = request.uri().path();
    ApiError::NotFound(format!("{path:?} is not a path of this API; / lists them")).into_response()
}

/// A method that a route does not have. The route adds `Allow`.
async fn other_method(request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let (method, path) = (request.method(), request.uri().path());
    ApiError::MethodNotAllowed(format!("{path:?} does not take {method}; see Allow"))
        .into_response()
}

#[cfg(test)]
mod tests;
