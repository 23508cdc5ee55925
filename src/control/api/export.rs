//! DRIVER: `/api/v1/export`: raw samples as VictoriaMetrics' JSON lines, stretch of time by
//! stretch, so that a series may have several lines.
//!
//! `{"metric":{"__name__":"up"},"values":[1,0],"timestamps":[1435781451781,1435781466781]}`;
//! `/api/v1/import` reads them back to the bit, stale markers (`null`) and Prometheus' NaN
//! included, but not other NaN payloads (see `json::write_export_value`). What is in
//! memory is bounded: some pieces of 64 KiB, and the samples of one stretch, which is cut in two
//! while it has more than [`STRETCH_SAMPLES_MAX`].

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
use crate::control::gather::{GatherFault, GatherLimits, Question, SeriesRun};
use crate::control::source::PartialAnswers;
use crate::model::sample::Sample;
use crate::query::expression::parse_match;
use crate::query::instant::{TIME_MS_MAX, TIME_MS_MIN, parse_export_time_ms};
use crate::query::merge::Window;

/// Samples of a stretch: 64 MB.
const STRETCH_SAMPLES_MAX: u64 = 4 << 20;
/// Pieces made before the client took them.
const PIECES_AHEAD: usize = 4;

/// What VictoriaMetrics says its lines are.
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/stream+json");

/// A whole answer's end, or why it has none.
type PieceSender = mpsc::Sender<Result<Bytes, ApiError>>;

/// Parameters `match[]` (or `match`; several are a union), `start`, `end`, `max_rows_per_line`,
/// `timeout`, and `partial_response`: lines have no room for warnings, so that an export that lacks
/// something is a fault unless this is `true`.
pub async fn export(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let question = question(&state, &parameters)?;
    let rows_max = rows_per_line_max(&parameters)?;
    let partial = parameters.partial_answers(PartialAnswers::Denied)?;
    let timeout = state.admission.timeout(parameters.duration_ms("timeout")?);
    let place = state.admission.place().await;
    let place = place.inspect_err(|_| state.admission.count(false))?;
    let (sender, mut receiver) = mpsc::channel(PIECES_AHEAD);
    let task_state = state.clone();
    tokio::spawn(async move {
        let work = send_lines((&task_state, partial), &question, rows_max, &sender);
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

fn question(state: &ApiState, parameters: &Parameters) -> Result<Question, ApiError> {
    let now_ms = (state.clock)();
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
    let window = Window { start_ms, end_ms };
    Ok(state.question(groups, window))
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

/// Sends the lines of all series, one stretch of time after the other; ends early, and well, when
/// nobody takes them.
async fn send_lines(
    (state, partial): (&ApiState, PartialAnswers),
    question: &Question,
    rows_max: usize,
    sender: &PieceSender,
) -> Result<(), ApiError> {
    let limits = state.gather_limits();
    let limits =
        GatherLimits { samples_max: limits.samples_max.min(STRETCH_SAMPLES_MAX), ..limits };
    let mut piece = Vec::new();
    // The earliest last. Hardly anything is of the future, which has no end.
    let mut stretches = Vec::from(parts_at(question.window, (state.clock)()));
    while let Some(window) = stretches.pop() {
        if window.end_ms < window.start_ms {
            continue;
        }
        let stretch = Question { window, ..question.clone() };
        let found = state.source.samples(&stretch, limits).await;
        let series = match found.and_then(|found| found.check(partial)) {
            Ok(found) => found.value.0,
            Err(GatherFault::TooManySamples) if window.start_ms < window.end_ms => {
                let (earlier, later) = halves(window);
                stretches.extend([later, earlier]);
                continue;
            }
            Err(fault) => return Err(fault.into()),
        };
        for SeriesRun { labels, run } in &series {
            for rows in run.chunks(rows_max.min(run.len().max(1))) {
                write_line(&mut piece, labels, rows);
                if piece.len() >= PIECE_BYTES {
                    let full = Bytes::from(std::mem::take(&mut piece));
                    if sender.send(Ok(full)).await.is_err() {
                        return Ok(());
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

/// What is after `now_ms`, and what is not. One of them may be empty.
fn parts_at(window: Window, now_ms: i64) -> [Window; 2] {
    let Window { start_ms, end_ms } = window;
    [
        Window { start_ms: start_ms.max(now_ms.saturating_add(1)), end_ms },
        Window { start_ms, end_ms: end_ms.min(now_ms) },
    ]
}

/// Cuts a stretch of time in two.
fn halves(window: Window) -> (Window, Window) {
    let Window { start_ms, end_ms } = window;
    let middle_ms = start_ms.midpoint(end_ms);
    (Window { start_ms, end_ms: middle_ms }, Window { start_ms: middle_ms + 1, end_ms })
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
