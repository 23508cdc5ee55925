//! DRIVER: asks a server for a snapshot, over HTTP.

use std::path::PathBuf;

use super::check_snapshot;
use crate::base::time::Duration;
use crate::offline::fault::OfflineFault;

const PATH: &str = "/api/v1/admin/tsdb/snapshot";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What is in memory is written into blocks first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);
/// An answer is one line.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Lets the server at `url` take a snapshot; returns its folder.
pub(super) fn take_snapshot(url: &str) -> Result<PathBuf, OfflineFault> {
    let url = format!("{}{PATH}", url.trim_end_matches('/'));
    let fault = |cause: String| OfflineFault::Server { url: url.clone(), cause };
    if !url.starts_with("http://") {
        return Err(fault("an address begins with http://, and TLS is not spoken".into()));
    }
    let config = ureq::Agent::config_builder()
        // The server says in its body what is wrong.
        .http_status_as_error(false)
        // A snapshot is for this host only; no proxy has a part in it.
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let mut answer = agent.post(&url).send_empty().map_err(|error| fault(error.to_string()))?;
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let body = body.map_err(|error| fault(error.to_string()))?;
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
