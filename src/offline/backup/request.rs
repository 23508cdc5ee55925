//! Asks a server for a snapshot, over HTTP.

use std::path::PathBuf;

use super::check_snapshot;
use crate::base::time::Duration;
use crate::offline::fault::OfflineFault;
use crate::offline::http::{self, AnswerLimits, HttpAnswer, HttpRequest};

const PATH: &str = "/api/v1/admin/tsdb/snapshot";
const LIMITS: AnswerLimits = AnswerLimits {
    // What is in memory is written into blocks first.
    timeout: Duration::from_secs(3600),
    // An answer is one line.
    body_bytes_max: 1 << 20,
};

/// Lets the server at `url` take a snapshot; returns its folder.
pub(super) fn take_snapshot(url: &str) -> Result<PathBuf, OfflineFault> {
    let url = format!("{}{PATH}", url.trim_end_matches('/'));
    let fault = |cause: String| OfflineFault::Server { url: url.clone(), cause };
    let HttpAnswer { status, body } = http::ask(&url, HttpRequest::Post, LIMITS).map_err(fault)?;
    if !status.is_success() {
        let body = body.trim();
        return Err(fault(format!("the server answered {status}: {body}")));
    }
    let (name, path) = parse_answer(&body)
        .ok_or_else(|| fault(format!("the answer names no snapshot: {}", body.trim())))?;
    check_snapshot(&name, &path).map_err(fault)
}

/// `{"status":"success","data":{"name":"...","path":"..."}}`
fn parse_answer(body: &str) -> Option<(String, String)> {
    let answer: serde_json::Value = serde_json::from_str(body).ok()?;
    let text = |field: &str| answer["data"][field].as_str().map(str::to_owned);
    Some((text("name")?, text("path")?))
}
