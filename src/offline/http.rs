//! DRIVER: one request over HTTP to a server of ours, for commands that ask one. Not here: what the
//! answer says.

use ureq::http::StatusCode;

use crate::base::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum HttpRequest<'a> {
    Get,
    Post,
    PostJson(&'a str),
}

/// How long an answer may take, and be.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerLimits {
    pub timeout: Duration,
    pub body_bytes_max: u64,
}

/// What came back, whether well or not.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub status: StatusCode,
    pub body: String,
}

/// Asks at `url`, without a proxy: whoever may ask these things reaches the server directly.
///
/// # Errors
/// Why there is no answer, for people. An answer that is an error is an answer.
pub(super) fn ask(
    url: &str,
    request: HttpRequest<'_>,
    limits: AnswerLimits,
) -> Result<HttpAnswer, String> {
    if !url.starts_with("http://") {
        return Err("an address begins with http://, and TLS is not spoken".into());
    }
    let config = ureq::Agent::config_builder()
        // The server says in its body what is wrong.
        .http_status_as_error(false)
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(limits.timeout))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let answer = match request {
        HttpRequest::Get => agent.get(url).call(),
        HttpRequest::Post => agent.post(url).send_empty(),
        HttpRequest::PostJson(body) => agent.post(url).content_type("application/json").send(body),
    };
    let mut answer = answer.map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(limits.body_bytes_max).read_to_string();
    Ok(HttpAnswer { status: answer.status(), body: body.map_err(|error| error.to_string())? })
}
