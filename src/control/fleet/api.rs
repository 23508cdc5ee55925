//! DRIVER: the cluster API of a gateway, which the `tidegate cluster` commands use.
//!
//! ```text
//! GET  /api/v1/cluster/status                                 StatusReport
//! POST /api/v1/cluster/plan     {"add":[],"weights":{},...}   PlanReport, nothing is done
//! POST /api/v1/cluster/apply    the same body                 PlanReport, when it is done
//! POST /api/v1/cluster/add      {"nodes":["10.0.0.4:9500"]}   the same
//! POST /api/v1/cluster/remove   {"nodes":["3f2a..."]}         the same
//! POST /api/v1/cluster/weights  {"weights":{"3f2a...":50}}    the same
//! POST /api/v1/cluster/strategy {"strategy":{...},"groups":{"3f2a...":"payments"}}   the same
//! ```
//! Answers are `{"status":"success","data":...}`, or errors as in the rest of the API. The only
//! I/O: names of nodes that are to be added are looked up.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::change::{Change, ChangeFault};
use super::follower::{Command, CommandFault, Reply};
use super::following::FleetHandle;
use crate::control::api::error::ApiError;
use crate::control::api::json;
use crate::model::placement::Strategy;

type Answer = Result<Response, ApiError>;

/// The body of `add` and `remove`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodesWish {
    /// As in [`Change`].
    pub nodes: Vec<String>,
}

/// The body of `weights`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsWish {
    /// As in [`Change`].
    pub weights: BTreeMap<String, u32>,
}

/// The body of `strategy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrategyWish {
    /// As in [`Change`].
    #[serde(default)]
    pub strategy: Option<Strategy>,
    /// As in [`Change`].
    #[serde(default)]
    pub groups: BTreeMap<String, String>,
}

/// The routes, to be merged with those of the rest of the API.
pub fn router(fleet: FleetHandle) -> Router {
    Router::new()
        .route("/api/v1/cluster/status", get(status))
        .route("/api/v1/cluster/plan", post(plan))
        .route("/api/v1/cluster/apply", post(apply_all))
        .route("/api/v1/cluster/add", post(add))
        .route("/api/v1/cluster/remove", post(remove))
        .route("/api/v1/cluster/weights", post(weights))
        .route("/api/v1/cluster/strategy", post(strategy))
        .with_state(fleet)
}

async fn status(State(fleet): State<FleetHandle>) -> Answer {
    carry_out(&fleet, Command::Status).await
}

async fn plan(State(fleet): State<FleetHandle>, body: Bytes) -> Answer {
    let change = resolved(read(&body)?).await?;
    carry_out(&fleet, Command::Plan(change)).await
}

async fn apply_all(State(fleet): State<FleetHandle>, body: Bytes) -> Answer {
    apply(&fleet, read(&body)?).await
}

async fn add(State(fleet): State<FleetHandle>, body: Bytes) -> Answer {
    let NodesWish { nodes } = read(&body)?;
    apply(&fleet, Change { add: nodes, ..Change::default() }).await
}

async fn remove(State(fleet): State<FleetHandle>, body: Bytes) -> Answer {
    let NodesWish { nodes } = read(&body)?;
    apply(&fleet, Change { remove: nodes, ..Change::default() }).await
}

async fn weights(State(fleet): State<FleetHandle>, body: Bytes) -> Answer {
    let WeightsWish { weights } = read(&body)?;
    apply(&fleet, Change { weights, ..Change::default() }).await
}

async fn strategy(State(fleet): State<FleetHandle>, body: Bytes) -> Answer {
    let StrategyWish { strategy, groups } = read(&body)?;
    apply(&fleet, Change { strategy, groups, ..Change::default() }).await
}

async fn apply(fleet: &FleetHandle, change: Change) -> Answer {
    let change = resolved(change).await?;
    carry_out(fleet, Command::Apply(change)).await
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|fault| ApiError::BadData(format!("cannot read the body as JSON: {fault}")))
}

/// With the addresses of its names: the follower looks nothing up.
async fn resolved(mut change: Change) -> Result<Change, ApiError> {
    let Change { add, remove, weights, groups, .. } = &change;
    let names = add.iter().chain(remove).chain(weights.keys()).chain(groups.keys());
    // An id has no colon.
    let is_host =
        |name: &&String| name.contains(':') && name.parse::<std::net::SocketAddr>().is_err();
    let names: BTreeSet<String> = names.filter(is_host).cloned().collect();
    for name in names {
        let fault = |cause: String| ApiError::BadData(format!("cannot look {name:?} up: {cause}"));
        let found = tokio::net::lookup_host(&name).await;
        let found: Vec<_> = found.map_err(|error| fault(error.to_string()))?.collect();
        if found.is_empty() {
            return Err(fault("the name has no address".into()));
        }
        change.looked_up.insert(name, found);
    }
    Ok(change)
}

async fn carry_out(fleet: &FleetHandle, command: Command) -> Answer {
    let body = match fleet.command(command).await? {
        Reply::Status(report) => success(&*report),
        Reply::Plan(report) => success(&*report),
    };
    Ok(([(header::CONTENT_TYPE, json::CONTENT_TYPE)], body).into_response())
}

fn success(report: &impl Serialize) -> String {
    let data = serde_json::to_string(report).expect("numbers and texts are JSON");
    format!("{{\"status\":\"success\",\"data\":{data}}}")
}

impl From<CommandFault> for ApiError {
    fn from(fault: CommandFault) -> Self {
        let text = fault.to_string();
        match fault {
            CommandFault::Change(ChangeFault::UnknownNode { .. }) => Self::NotFound(text),
            CommandFault::Change(ChangeFault::NotMet { .. })
            | CommandFault::NotFounded(_)
            | CommandFault::NoMajority(_)
            | CommandFault::Busy => Self::Unavailable(text),
            CommandFault::Change(_) => Self::BadData(text),
        }
    }
}
