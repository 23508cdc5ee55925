//! DRIVER: `cluster`: asks a gateway over HTTP how the fleet is, or to change it, and prints what it
//! says, for people (`render`) or as JSON.

use std::io::Write;

use serde_json::Value;

use super::fault::OfflineFault;
use crate::base::time::Duration;
use crate::control::config::cluster_command::{ClusterCommand, ClusterRequest};
use crate::control::fleet::report::{PlanReport, StatusReport};

mod render;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A gateway gives a change up before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A document is at most 1 MiB, and what is said of its nodes about as long.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Runs the command; false: it was answered, and something needs a look.
///
/// # Errors
/// The gateway cannot be asked, or says why it does not do it.
pub fn run(command: &ClusterCommand, out: &mut impl Write) -> Result<bool, OfflineFault> {
    let (to, request) = command.request();
    let (path, body) = match &request {
        ClusterRequest::Status => ("status", None),
        ClusterRequest::Plan(change) => ("plan", Some(change)),
        ClusterRequest::Apply(change) => ("apply", Some(change)),
    };
    let url = format!("{}/api/v1/cluster/{path}", to.url.trim_end_matches('/'));
    let body = body.map(|change| serde_json::to_string(change).expect("texts and numbers"));
    let data = ask(&url, body.as_deref())?;
    let unknown = |fault: serde_json::Error| OfflineFault::Gateway {
        url: url.clone(),
        cause: format!("its answer is of another release: {fault}"),
    };
    let (text, is_well) = match request {
        ClusterRequest::Status => {
            let report: StatusReport = serde_json::from_value(data.clone()).map_err(unknown)?;
            (render::status(&report), render::is_well(&report))
        }
        ClusterRequest::Plan(_) | ClusterRequest::Apply(_) => {
            let report: PlanReport = serde_json::from_value(data.clone()).map_err(unknown)?;
            (render::plan(&report), true)
        }
    };
    if to.json {
        writeln!(out, "{data}")?
    } else {
        write!(out, "{text}")?
    }
    out.flush()?;
    Ok(is_well)
}

/// The `data` of the answer; with a body it is a POST.
fn ask(url: &str, body: Option<&str>) -> Result<Value, OfflineFault> {
    let fault = |cause: String| OfflineFault::Gateway { url: url.into(), cause };
    if !url.starts_with("http://") {
        return Err(fault("an address begins with http://, and TLS is not spoken".into()));
    }
    let config = ureq::Agent::config_builder()
        // The gateway says in its body what is wrong.
        .http_status_as_error(false)
        // Whoever may change a fleet reaches its gateways directly.
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let answer = match body {
        None => agent.get(url).call(),
        Some(body) => agent.post(url).content_type("application/json").send(body),
    };
    let mut answer = answer.map_err(|error| fault(error.to_string()))?;
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let body = body.map_err(|error| fault(error.to_string()))?;
    let mut read: Value = serde_json::from_str(&body).unwrap_or_default();
    if !status.is_success() {
        let cause = match read["error"].as_str() {
            Some(cause) => cause.to_owned(),
            None => format!("it answered {status}: {}", body.trim()),
        };
        return Err(fault(cause));
    }
    match read["data"].take() {
        Value::Null => {
            Err(fault("it is no gateway of a fleet: ask one of `tidegate gateway`".into()))
        }
        data => Ok(data),
    }
}
