//! What the API answers instead of data: Prometheus' error types, each with its status.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::control::api::json;
use crate::control::gather::GatherFault;
use crate::query::expression::ExpressionFault;

/// Seconds that a client should wait when we are the ones who cannot.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// A refused or failed request of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// 400: the request is wrong.
    BadData(String),
    /// 422: the request is right and cannot be done.
    Execution(String),
    /// 404: nothing is there.
    NotFound(String),
    /// 405: not with this method.
    MethodNotAllowed(String),
    /// 503: it took too long.
    Timeout(String),
    /// 503: not now.
    Unavailable(String),
    /// 500: our fault.
    Internal(String),
    /// 501: not by a process of this kind; the text says by which.
    NotImplemented(String),
}

impl ApiError {
    /// A parameter that cannot be read.
    pub fn parameter(name: &str, cause: impl std::fmt::Display) -> Self {
        Self::BadData(format!("invalid parameter {name:?}: {cause}"))
    }

    /// A query, or selector, in parameter `name` that is not evaluated.
    pub fn expression(name: &str, fault: ExpressionFault) -> Self {
        match fault {
            ExpressionFault::Syntax(text) => {
                Self::parameter(name, format_args!("parse error: {text}"))
            }
            ExpressionFault::NotEvaluated(what) => {
                Self::Execution(format!("cannot evaluate the query: {what} is not supported yet"))
            }
        }
    }

    fn parts(&self) -> (StatusCode, &'static str, &str) {
        match self {
            Self::BadData(text) => (StatusCode::BAD_REQUEST, "bad_data", text),
            Self::Execution(text) => (StatusCode::UNPROCESSABLE_ENTITY, "execution", text),
            Self::NotFound(text) => (StatusCode::NOT_FOUND, "not_found", text),
            Self::MethodNotAllowed(text) => (StatusCode::METHOD_NOT_ALLOWED, "bad_data", text),
            Self::Timeout(text) => (StatusCode::SERVICE_UNAVAILABLE, "timeout", text),
            Self::Unavailable(text) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", text),
            Self::Internal(text) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", text),
            Self::NotImplemented(text) => (StatusCode::NOT_IMPLEMENTED, "execution", text),
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.parts().2)
    }
}

impl std::error::Error for ApiError {}

impl From<GatherFault> for ApiError {
    fn from(fault: GatherFault) -> Self {
        match fault {
            GatherFault::BadRegex(text) => {
                Self::BadData(format!("cannot compile a regular expression: {text}"))
            }
            GatherFault::TooManySeries { series_max } => Self::Execution(format!(
                "the query matches more than {series_max} series (query-series-max)"
            )),
            // Prometheus' words, for clients that know them.
            GatherFault::TooManySamples => Self::Execution(
                "query processing would load too many samples into memory in query execution \
                 (query-samples-max)"
                    .into(),
            ),
            GatherFault::Chunk(fault) => {
                Self::Internal(format!("cannot decode a chunk of the head: {fault:?}"))
            }
            GatherFault::Disk(text) => Self::Unavailable(format!("cannot read {text}")),
            GatherFault::Nobody(text) => Self::Unavailable(format!("nobody answers: {text}")),
            GatherFault::Incomplete(text) => Self::Unavailable(format!(
                "the answer is not complete, and the request allows no partial one: {text}"
            )),
            GatherFault::ShardGone => Self::Unavailable("a shard does not answer".into()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, error_type, text) = self.parts();
        let mut body = b"{\"status\":\"error\",\"errorType\":".to_vec();
        json::write_string(&mut body, error_type.as_bytes());
        body.extend_from_slice(b",\"error\":");
        json::write_string(&mut body, text.as_bytes());
        body.push(b'}');
        let mut response = (status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, json::CONTENT_TYPE);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}
