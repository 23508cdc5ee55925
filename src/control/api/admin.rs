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
//! The work goes on when the client leaves: a deletion that the blocks have seen and a shard has
//! not would hide samples that are still to come.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::control::api::ApiState;
use crate::control::api::error::ApiError;
use crate::control::api::json;
use crate::control::api::parameters::Parameters;
use crate::control::shards::{BlocksHandle, Done, ShardRequest, Shards};
use crate::model::matcher::Matcher;
use crate::model::series::TenantId;
use crate::node::block::Tombstone;
use crate::node::block::request::{StoreRefusal, StoreRequest};
use crate::node::select::check_matchers;
use crate::query::merge::Window;
use crate::wire::delete::DELETE_TEXT_BYTES_MAX;

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
    to_the_end(async move {
        // One after the other: shards must see deletions in the order of their ids.
        let _turn = state.deleting.lock().await;
        for matchers in groups {
            delete(&state.shards, matchers, window).await?;
        }
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

async fn delete(shards: &Shards, matchers: Vec<Matcher>, window: Window) -> Result<(), ApiError> {
    let Window { start_ms, end_ms } = window;
    let asked = Tombstone { id: 0, tenant: TenantId::default(), matchers, start_ms, end_ms };
    let blocks = blocks(shards)?;
    let written = ask(blocks, |reply| StoreRequest::Delete { tombstone: asked, reply }).await?;
    let (id, tombstone) = (written.id, Arc::new(written));
    let request = |reply| ShardRequest::Delete { tombstone: Arc::clone(&tombstone), reply };
    ask_shards(shards, request).await.map_err(|_| {
        let text = "cannot delete everywhere: a shard's log failed; delete again after a restart";
        ApiError::Unavailable(text.into())
    })?;
    let sent = blocks.requests.send_async(StoreRequest::Deleted { tombstone: id }).await;
    sent.map_err(|_| gone())
}

/// Writes blocks that hold something deleted anew, without it.
pub async fn clean_tombstones(State(state): State<ApiState>) -> Answer {
    to_the_end(async move {
        let blocks = blocks(&state.shards)?;
        ask(blocks, |reply| StoreRequest::CleanTombstones { reply }).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// Makes a folder with all that was acknowledged before: a data folder to be copied or started on.
pub async fn snapshot(State(state): State<ApiState>) -> Answer {
    to_the_end(async move {
        let blocks = blocks(&state.shards)?;
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
        blocks(&state.shards)?;
        flush_shards(&state.shards).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// Merges blocks until there is nothing to merge.
pub async fn compact(State(state): State<ApiState>) -> Answer {
    to_the_end(async move {
        let blocks = blocks(&state.shards)?;
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
    ask_shards(shards, |reply| ShardRequest::Flush { reply }).await.map_err(|_| {
        let text =
            "cannot write blocks: memory and log keep everything; the program's log says why";
        ApiError::Unavailable(text.into())
    })
}

/// A shard closed its channel without an answer.
struct Unanswered;

async fn ask_shards(
    shards: &Shards,
    request: impl Fn(flume::Sender<Done>) -> ShardRequest,
) -> Result<(), Unanswered> {
    let mut answers = Vec::with_capacity(shards.len());
    for shard in shards.iter() {
        let (reply, answer) = flume::bounded(1);
        shard.push(request(reply)).await.map_err(|_| Unanswered)?;
        answers.push(answer);
    }
    for answer in answers {
        answer.recv_async().await.map_err(|_| Unanswered)?;
    }
    Ok(())
}

fn blocks(shards: &Shards) -> Result<&BlocksHandle, ApiError> {
    shards.blocks().ok_or_else(gone)
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
