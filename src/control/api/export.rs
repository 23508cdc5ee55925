//! DRIVER: `/api/v1/export`: raw samples as VictoriaMetrics' JSON lines, streamed series by series,
//! in no order of series.
//!
//! `{"metric":{"__name__":"up"},"values":[1,0],"timestamps":[1435781451781,1435781466781]}`;
//! `/api/v1/import` reads them back to the bit, stale markers (`null`) and Prometheus' NaN
//! included, but not other NaN payloads (see `json::write_export_value`). What has not been sent
//! yet is bounded: some pieces of 64 KiB, and the samples of the series being written.

use std::collections::HashSet;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::control::api::ApiState;
use crate::control::api::body::{PIECE_BYTES, from_channel};
use crate::control::api::error::ApiError;
use crate::control::api::json::{self, LabelNames};
use crate::control::api::parameters::Parameters;
use crate::control::gather::{GatherFault, Question, ask, into_series};
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::series::{SeriesHash, TenantId};
use crate::query::expression::parse_match;
use crate::query::instant::{TIME_MS_MAX, TIME_MS_MIN, parse_export_time_ms};
use crate::query::merge::{Merger, Window};
use crate::wire::select::SelectWant;

/// Pieces made before the client took them.
const PIECES_AHEAD: usize = 4;

/// What VictoriaMetrics says its lines are.
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/stream+json");

/// A whole answer's end, or why it has none.
type PieceSender = mpsc::Sender<Result<Bytes, ApiError>>;

/// Parameters `match[]` (or `match`; several are a union), `start`, `end`, `max_rows_per_line`,
/// `timeout`.
pub async fn export(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let question = question(&parameters, (state.clock)())?;
    let rows_max = rows_per_line_max(&parameters)?;
    let timeout = state.admission.timeout(parameters.duration_ms("timeout")?);
    let place = state.admission.place().await;
    let place = place.inspect_err(|_| state.admission.count(false))?;
    let (sender, mut receiver) = mpsc::channel(PIECES_AHEAD);
    let task_state = state.clone();
    tokio::spawn(async move {
        let work = send_lines(&task_state, &question, rows_max, &sender);
        let result = tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
            Err(ApiError::Timeout("the export took longer than its timeout".into()))
        });
        task_state.admission.count(result.is_ok());
        if let Err(error) = result {
            let _nobody_listens = sender.send(Err(error)).await;
        }
        drop(place);
    });
    // A fault before the first line is an answer of its own; later ones can only end the
    // connection.
    let first = receiver.recv().await.transpose()?;
    let body = from_channel(first, receiver);
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response())
}

fn question(parameters: &Parameters, now_ms: i64) -> Result<Question, ApiError> {
    let mut groups = Vec::new();
    for name in ["match[]", "match"] {
        for text in parameters.get_all(name) {
            let parsed = parse_match(text).map_err(|fault| ApiError::expression(name, fault));
            groups.extend(parsed?);
        }
    }
    if groups.is_empty() {
        return Err(ApiError::BadData("no match[] parameter provided".into()));
    }
    let time_ms = |name: &str, default: i64| match parameters.get(name) {
        None => Ok(default),
        Some(text) => parse_export_time_ms(text, now_ms).ok_or_else(|| {
            ApiError::parameter(name, format_args!("cannot parse {text:?} to a valid timestamp"))
        }),
    };
    let start_ms = time_ms("start", TIME_MS_MIN)?;
    let end_ms = time_ms("end", TIME_MS_MAX)?;
    if end_ms < start_ms {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    Ok(Question { tenant: TenantId::default(), groups, window: Window { start_ms, end_ms } })
}

fn rows_per_line_max(parameters: &Parameters) -> Result<usize, ApiError> {
    let Some(text) = parameters.get("max_rows_per_line") else {
        return Ok(usize::MAX);
    };
    let rows: usize = text.parse().map_err(|_| {
        ApiError::parameter("max_rows_per_line", format_args!("{text:?} is not a number"))
    })?;
    Ok(if rows == 0 { usize::MAX } else { rows })
}

/// Sends the lines of all series; ends early, and well, when nobody takes them.
async fn send_lines(
    state: &ApiState,
    question: &Question,
    rows_max: usize,
    sender: &PieceSender,
) -> Result<(), ApiError> {
    let limits = state.gather_limits();
    let mut sent = Sent::new(&question.groups);
    let mut piece = Vec::new();
    let mut run = Vec::new();
    for group in &question.groups {
        let mut answers = ask(&state.shards, question, group, SelectWant::Samples, limits).await?;
        while let Some(answer) = answers.next().await? {
            for series in into_series(answer) {
                if !sent.is_first_time(&series.labels) {
                    continue;
                }
                run.clear();
                // The limit is on what is in memory: here, one series.
                let mut merger = Merger::new(limits.samples_max);
                merger.merge(&series, question.window, &mut run).map_err(GatherFault::from)?;
                for rows in run.chunks(rows_max.min(run.len().max(1))) {
                    write_line(&mut piece, &series.labels, rows);
                    if piece.len() >= PIECE_BYTES {
                        let full = Bytes::from(std::mem::take(&mut piece));
                        if sender.send(Ok(full)).await.is_err() {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
    if !piece.is_empty() {
        let _nobody_listens = sender.send(Ok(Bytes::from(piece))).await;
    }
    Ok(())
}

/// The series that went out, so that two matching groups do not send one twice. One group needs no
/// memory.
struct Sent {
    seen: Option<HashSet<SeriesHash>>,
}

impl Sent {
    fn new(groups: &[Vec<Matcher>]) -> Self {
        Self { seen: (groups.len() > 1).then(HashSet::new) }
    }

    fn is_first_time(&mut self, labels: &[u8]) -> bool {
        let hash = || SeriesHash::of(TenantId::default(), labels);
        self.seen.as_mut().is_none_or(|seen| seen.insert(hash()))
    }
}

fn write_line(out: &mut Vec<u8>, labels: &[u8], rows: &[Sample]) {
    out.extend_from_slice(b"{\"metric\":");
    json::write_labels(out, labels, LabelNames::All);
    out.extend_from_slice(b",\"values\":[");
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_export_value(out, row.value);
    }
    out.extend_from_slice(b"],\"timestamps\":[");
    let mut digits = itoa::Buffer::new();
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(digits.format(row.timestamp_ms).as_bytes());
    }
    out.extend_from_slice(b"]}\n");
}
