//! DRIVER: `/api/v1/admin/tsdb/...`: deletions, snapshots and upkeep, as Prometheus names them, and
//! two of our own. Each answers when what was asked is done and durable.
//!
//! ```text
//! POST delete_series?match[]=...[&start=][&end=]  204   samples are gone, in memory and in blocks
//! POST clean_tombstones                           204   what is deleted leaves the disk
//! POST snapshot                                   200   everything so far, by hard links
//! POST flush                                      204   everything in memory goes to blocks
//! POST compact                                    204   blocks are merged as far as they can be
//! ```
//! The work goes on when the client leaves. A gateway deletes on every node that may have some of
//! the samples (`reads/deleting`), and leaves the rest to them: 501.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::control::api::ApiState;
use crate::control::api::error::ApiError;
use crate::control::api::json;
use crate::control::api::parameters::Parameters;
use crate::control::gather::{Unanswered, ask_each};
use crate::control::shards::{BlocksHandle, ShardRequest, Shards};
use crate::control::source::ReadSource;
use crate::model::series::TenantId;
use crate::node::block::request::{StoreRefusal, StoreRequest};
use crate::node::select::check_matchers;
use crate::query::merge::Window;
use crate::wire::delete::{DELETE_TEXT_BYTES_MAX, Deletion};

type Answer = Result<Response, ApiError>;

/// Deletes the samples of the series that match any `match[]`, from `start` to `end`.
pub async fn delete_series(State(state): State<ApiState>, parameters: Parameters) -> Answer {
    let groups = parameters.groups()?;
    if groups.is_empty() {
        return Err(ApiError::BadData("no match[] parameter provided".into()));
    }
    for group in &groups {
        let bytes: usize = group.iter().map(|each| each.name.len() + each.value.len() + 16).sum();
        if bytes > DELETE_TEXT_BYTES_MAX {
            let text = format!("a selector is longer than {DELETE_TEXT_BYTES_MAX} bytes");
            return Err(ApiError::parameter("match[]", text));
        }
        check_matchers(group).map_err(|fault| {
            ApiError::BadData(format!("cannot compile a regular expression: {fault}"))
        })?;
    }
    let window = parameters.window()?;
    let Window { start_ms, end_ms } = window;
    let tenant = TenantId::default();
    let deletion = |matchers| Deletion { id: 0, tenant, matchers, start_ms, end_ms };
    let deletions = groups.into_iter().map(deletion).collect();
    match &state.source {
        ReadSource::Local(_) => {
            let deleted = state.deleter.delete(deletions).await;
            deleted.map_err(|fault| ApiError::Unavailable(fault.to_string()))?;
        }
        ReadSource::Fleet(fleet) => {
            let deleted = fleet.delete(deletions).await;
            deleted.map_err(|fault| ApiError::Unavailable(fault.to_string()))?;
        }
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Writes blocks that hold something deleted anew, without it.
pub async fn clean_tombstones(State(state): State<ApiState>) -> Answer {
    to_the_end(async move {
        let blocks = blocks(&state)?;
        ask(blocks, |reply| StoreRequest::CleanTombstones { reply }).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// Makes a folder with all that was acknowledged before: a data folder to be copied or started on.
pub async fn snapshot(State(state): State<ApiState>) -> Answer {
    to_the_end(async move {
        let blocks = blocks(&state)?;
        flush_shards(&state.shards).await?;
        let name = (state.clock)().to_string();
        let own = name.clone();
        let path = ask(blocks, |reply| StoreRequest::Snapshot { name: own, reply }).await?;
        let mut body = b"{\"status\":\"success\",\"data\":{\"name\":".to_vec();
        json::write_string(&mut body, name.as_bytes());
        body.extend_from_slice(b",\"path\":");
        json::write_string(&mut body, path.as_bytes());
        body.extend_from_slice(b"}}");
        Ok(([(header::CONTENT_TYPE, json::CONTENT_TYPE)], body).into_response())
    })
    .await
}

/// Puts everything that is in memory into blocks.
pub async fn flush(State(state): State<ApiState>) -> Answer {
    to_the_end(async move {
        blocks(&state)?;
        flush_shards(&state.shards).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// Merges blocks until there is nothing to merge.
pub async fn compact(State(state): State<ApiState>) -> Answer {
    to_the_end(async move {
        let blocks = blocks(&state)?;
        ask(blocks, |reply| StoreRequest::Compact { reply }).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// Whether the client stays or not.
async fn to_the_end(work: impl Future<Output = Answer> + Send + 'static) -> Answer {
    tokio::spawn(work).await.map_err(|fault| ApiError::Internal(fault.to_string()))?
}

async fn flush_shards(shards: &Shards) -> Result<(), ApiError> {
    ask_each(shards, |reply| ShardRequest::Flush { reply }).await.map_err(|Unanswered| {
        let text =
            "cannot write blocks: memory and log keep everything; the program's log says why";
        ApiError::Unavailable(text.into())
    })
}

fn blocks(state: &ApiState) -> Result<&BlocksHandle, ApiError> {
    if let ReadSource::Fleet(_) = state.source {
        let text = "a gateway has no blocks: ask each node, at its --http address";
        return Err(ApiError::NotImplemented(text.into()));
    }
    state.shards.blocks().ok_or_else(gone)
}

fn gone() -> ApiError {
    ApiError::Unavailable("the blocks do not answer; the program's log says why".into())
}

async fn ask<T>(
    blocks: &BlocksHandle,
    request: impl FnOnce(flume::Sender<Result<T, StoreRefusal>>) -> StoreRequest,
) -> Result<T, ApiError> {
    let (reply, answers) = flume::bounded(1);
    blocks.requests.send_async(request(reply)).await.map_err(|_| gone())?;
    let answer = answers.recv_async().await.map_err(|_| gone())?;
    answer.map_err(|refusal| ApiError::Unavailable(refusal.to_string()))
}
