//! `/api/v1/series`, `/api/v1/labels` and `/api/v1/label/<name>/values`: what is there, without
//! samples.

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::control::api::ApiState;
use crate::control::api::error::ApiError;
use crate::control::api::json::{self, LabelNames};
use crate::control::api::parameters::Parameters;
use crate::control::gather::Question;
use crate::control::source::{Found, PartialAnswers};
use crate::wire::select::SelectWant;

/// The label sets of the series that match any `match[]` and have a sample from `start` to `end`.
pub async fn series(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let question = question(&state, &parameters)?;
    if question.groups.is_empty() {
        return Err(ApiError::BadData("no match[] parameter provided".into()));
    }
    let limit = parameters.limit()?;
    let partial = parameters.partial_answers(PartialAnswers::Allowed)?;
    let work = async {
        let found = state.source.labels(&question, state.gather_limits()).await?;
        Ok(found.check(partial)?)
    };
    let found = state.admission.run(parameters.duration_ms("timeout")?, work).await?;
    let write = |out: &mut Vec<u8>, labels: &[u8]| {
        json::write_labels(out, labels, LabelNames::All);
    };
    Ok(respond(&state, &found, limit, write))
}

/// The label names of these series; of all of them if there is no `match[]`.
pub async fn labels(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    strings(&state, &parameters, SelectWant::LabelNames).await
}

/// The values that a label has on these series.
pub async fn label_values(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    // What Prometheus' clients send for names that are not in the old grammar.
    let name = match name.strip_prefix("U__") {
        Some(escaped) => unescape_name(escaped)
            .ok_or_else(|| ApiError::BadData(format!("invalid label name: {name:?}")))?,
        None => name,
    };
    strings(&state, &parameters, SelectWant::LabelValues(name)).await
}

async fn strings(
    state: &ApiState,
    parameters: &Parameters,
    want: SelectWant,
) -> Result<Response, ApiError> {
    let mut question = question(state, parameters)?;
    if question.groups.is_empty() {
        // One group without a matcher: every series.
        question.groups.push(Vec::new());
    }
    let limit = parameters.limit()?;
    let partial = parameters.partial_answers(PartialAnswers::Allowed)?;
    let work = async {
        let found = state.source.strings(&question, &want, state.gather_limits()).await?;
        Ok(found.check(partial)?)
    };
    let found = state.admission.run(parameters.duration_ms("timeout")?, work).await?;
    let found = found.map(|strings| strings.into_iter().collect::<Vec<_>>());
    let write = |out: &mut Vec<u8>, text: &str| json::write_string(out, text.as_bytes());
    Ok(respond(state, &found, limit, write))
}

fn question(state: &ApiState, parameters: &Parameters) -> Result<Question, ApiError> {
    Ok(state.question(parameters.groups()?, parameters.window()?))
}

/// `U__http_2e_status` -> `http.status`: `_hex_` is a character, `__` an underscore
/// (<https://github.com/prometheus/proposals/blob/main/proposals/0028-utf8.md>).
fn unescape_name(escaped: &str) -> Option<String> {
    let mut name = String::new();
    let mut rest = escaped;
    while let Some((plain, after)) = rest.split_once('_') {
        name.push_str(plain);
        if let Some(after) = after.strip_prefix('_') {
            name.push('_');
            rest = after;
            continue;
        }
        let (hex, after) = after.split_once('_')?;
        name.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
        rest = after;
    }
    name.push_str(rest);
    Some(name)
}

fn respond<T: ?Sized>(
    state: &ApiState,
    Found { value: found, lacking }: &Found<Vec<Box<T>>>,
    limit: Option<usize>,
    write: fn(&mut Vec<u8>, &T),
) -> Response {
    let shown = &found[..found.len().min(limit.unwrap_or(usize::MAX))];
    let mut body = b"{\"status\":\"success\",\"data\":[".to_vec();
    for (index, item) in shown.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write(&mut body, item);
    }
    body.push(b']');
    body.append(&mut state.warnings(lacking, shown.len() < found.len()));
    body.push(b'}');
    ([(header::CONTENT_TYPE, json::CONTENT_TYPE)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names() {
        #[track_caller]
        fn check(escaped: &str, want: Option<&str>) {
            assert_eq!(unescape_name(escaped).as_deref(), want, "{escaped}");
        }
        check("http_2e_status", Some("http.status"));
        check("a__b", Some("a_b"));
        check("plain", Some("plain"));
        check("a_", None);
        check("a_zz_", None);
        check("a_110000_", None);
    }
}
