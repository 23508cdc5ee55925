//! `/api/v1/query` and `/api/v1/query_range`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::control::api::ApiState;
use crate::control::api::body::{PIECE_BYTES, from_pieces};
use crate::control::api::error::ApiError;
use crate::control::api::json::{self, LabelNames};
use crate::control::api::parameters::Parameters;
use crate::control::gather::{GatherFault, SeriesRun};
use crate::control::source::{Found, PartialAnswers};
use crate::model::labels;
use crate::model::sample::Sample;
use crate::query::evaluate::Instants;
use crate::query::expression::{Expression, Selector};
use crate::query::instant::TIME_MS_MAX;

/// Most points per series of a range query; Prometheus' limit, enough for 60 s over a week or 1 h
/// over a year.
const STEPS_MAX: i64 = 11_000;
/// Series evaluated before other work of the thread gets its turn.
const SERIES_PER_TURN: usize = 64;

/// What an expression came to.
enum Answer {
    Scalar(Sample),
    Text(i64, String),
    Vector(Vec<SeriesRun>),
    Matrix(Vec<SeriesRun>),
}

/// What is evaluated, and when.
struct Plan {
    expression: Expression,
    instants: Instants,
    lookback_ms: i64,
    names: LabelNames,
    partial: PartialAnswers,
}

/// An instant query: parameters `query`, `time` (now), `timeout`, `lookback_delta`, `limit`,
/// `partial_response`.
pub async fn query(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let at_ms = parameters.time_ms("time", Some((state.clock)()))?;
    let plan = plan(&state, &parameters, Instants::one(at_ms))?;
    let timeout_ms = parameters.duration_ms("timeout")?;
    let limit = parameters.limit()?;
    let work = answer_instant(&state, &plan);
    let answer = state.admission.run(timeout_ms, work).await?;
    Ok(respond(&state, answer, (plan.names, limit)))
}

/// A range query: parameters `query`, `start`, `end`, `step`, `timeout`, `lookback_delta`, `limit`,
/// `partial_response`.
pub async fn query_range(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let instants = instants(&parameters)?;
    let plan = plan(&state, &parameters, instants)?;
    if let Some(name) = match plan.expression {
        Expression::Matrix(..) => Some("range vector"),
        Expression::Text(_) => Some("string"),
        Expression::Scalar(_) | Expression::Vector(_) | Expression::Negated(_) => None,
    } {
        let cause = format!(
            "invalid expression type {name:?} for range query, must be Scalar or instant Vector"
        );
        return Err(ApiError::parameter("query", cause));
    }
    let timeout_ms = parameters.duration_ms("timeout")?;
    let limit = parameters.limit()?;
    let work = answer_range(&state, &plan);
    let answer = state.admission.run(timeout_ms, work).await?;
    Ok(respond(&state, answer, (plan.names, limit)))
}

fn instants(parameters: &Parameters) -> Result<Instants, ApiError> {
    let start_ms = parameters.time_ms("start", None)?;
    let end_ms = parameters.time_ms("end", None)?;
    if end_ms < start_ms {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let Some(step_ms) = parameters.duration_ms("step")? else {
        return Err(ApiError::parameter("step", "cannot parse \"\" to a valid duration"));
    };
    if step_ms <= 0 {
        let cause = "zero or negative query resolution step widths are not accepted. \
                     Try a positive integer";
        return Err(ApiError::parameter("step", cause));
    }
    if (end_ms - start_ms) / step_ms > STEPS_MAX {
        return Err(ApiError::BadData(
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)"
                .into(),
        ));
    }
    Ok(Instants { start_ms, end_ms, step_ms })
}

fn plan(state: &ApiState, parameters: &Parameters, instants: Instants) -> Result<Plan, ApiError> {
    let text = parameters.get("query").unwrap_or_default();
    let expression =
        Expression::parse(text).map_err(|fault| ApiError::expression("query", fault))?;
    let lookback_ms = match parameters.duration_ms("lookback_delta")? {
        Some(lookback_ms) if lookback_ms > 0 => lookback_ms,
        _ => i64::try_from(state.limits.lookback.as_millis()).unwrap_or(TIME_MS_MAX),
    };
    let names = match expression {
        Expression::Negated(_) => LabelNames::WithoutMetric,
        _ => LabelNames::All,
    };
    let partial = parameters.partial_answers(PartialAnswers::Allowed)?;
    Ok(Plan { expression, instants, lookback_ms, names, partial })
}

async fn answer_instant(state: &ApiState, plan: &Plan) -> Result<Found<Answer>, ApiError> {
    let at_ms = plan.instants.start_ms;
    match &plan.expression {
        Expression::Scalar(value) => {
            let point = Sample { timestamp_ms: at_ms, value: *value };
            Ok(Found::all(Answer::Scalar(point)))
        }
        Expression::Text(text) => Ok(Found::all(Answer::Text(at_ms, text.clone()))),
        Expression::Vector(selector) | Expression::Negated(selector) => {
            let found = evaluate(state, plan, selector, plan.lookback_ms).await?;
            Ok(found.map(Answer::Vector))
        }
        Expression::Matrix(selector, range_ms) => {
            let found = evaluate(state, plan, selector, *range_ms).await?;
            Ok(found.map(Answer::Matrix))
        }
    }
}

async fn answer_range(state: &ApiState, plan: &Plan) -> Result<Found<Answer>, ApiError> {
    match plan.expression.selector() {
        Some(selector) => {
            let found = evaluate(state, plan, selector, plan.lookback_ms).await?;
            Ok(found.map(Answer::Matrix))
        }
        None => Ok(Found::all(Answer::Matrix(scalar_matrix(plan)))),
    }
}

fn scalar_matrix(plan: &Plan) -> Vec<SeriesRun> {
    let Expression::Scalar(value) = plan.expression else {
        return Vec::new();
    };
    let run = plan.instants.iter().map(|timestamp_ms| Sample { timestamp_ms, value }).collect();
    vec![SeriesRun { labels: Box::default(), run }]
}

/// The points of every series that has some, reading `reach_ms` (lookback or range) back.
async fn evaluate(
    state: &ApiState,
    plan: &Plan,
    selector: &Selector,
    reach_ms: i64,
) -> Result<Found<Vec<SeriesRun>>, ApiError> {
    let window = selector.window(plan.instants, reach_ms);
    let question = state.question(selector.groups.clone(), window);
    let found = state.source.samples(&question, state.gather_limits()).await?;
    let Found { value: (mut series, budget), lacking } = found.check(plan.partial)?;
    for (index, series) in series.iter_mut().enumerate() {
        let mut points = Vec::new();
        match &plan.expression {
            Expression::Matrix(..) => {
                selector.matrix_points(&series.run, plan.instants.start_ms, reach_ms, &mut points);
            }
            _ => selector.vector_points(&series.run, plan.instants, reach_ms, &mut points),
        }
        if matches!(plan.expression, Expression::Negated(_)) {
            for point in &mut points {
                point.value = -point.value;
            }
        }
        budget.take(points.len() as u64).map_err(GatherFault::from)?;
        series.run = points;
        if index % SERIES_PER_TURN == SERIES_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    series.retain(|series| !series.run.is_empty());
    if plan.names == LabelNames::WithoutMetric {
        series.sort_by(|one, other| without_metric(one).cmp(without_metric(other)));
        check_distinct(&series)?;
    }
    Ok(Found { value: series, lacking })
}

/// Without their metric names two series, now neighbours, may have become one.
fn check_distinct(series: &[SeriesRun]) -> Result<(), ApiError> {
    let is_same = |pair: &[SeriesRun]| without_metric(&pair[0]).eq(without_metric(&pair[1]));
    if series.windows(2).any(is_same) {
        let text = "vector cannot contain metrics with the same labelset";
        return Err(ApiError::Execution(text.into()));
    }
    Ok(())
}

fn without_metric(series: &SeriesRun) -> impl Iterator<Item = (&[u8], &[u8])> {
    labels::iterate(&series.labels).filter(|(name, _)| *name != b"__name__")
}

fn respond(
    state: &ApiState,
    Found { value: mut answer, lacking }: Found<Answer>,
    (names, limit): (LabelNames, Option<usize>),
) -> Response {
    let mut is_cut = false;
    if let (Answer::Vector(series) | Answer::Matrix(series), Some(limit)) = (&mut answer, limit) {
        is_cut = series.len() > limit;
        series.truncate(limit);
    }
    let mut head = b"{\"status\":\"success\",\"data\":{\"resultType\":\"".to_vec();
    let mut foot = b"}".to_vec();
    foot.append(&mut state.warnings(&lacking, is_cut));
    foot.push(b'}');
    let (series, shape) = match answer {
        Answer::Vector(series) => (series, Shape::Vector),
        Answer::Matrix(series) => (series, Shape::Matrix),
        Answer::Scalar(point) => {
            head.extend_from_slice(b"scalar\",\"result\":");
            json::write_point(&mut head, point);
            head.extend_from_slice(&foot);
            return ([(header::CONTENT_TYPE, json::CONTENT_TYPE)], head).into_response();
        }
        Answer::Text(at_ms, text) => {
            head.extend_from_slice(b"string\",\"result\":[");
            json::write_seconds(&mut head, at_ms);
            head.push(b',');
            json::write_string(&mut head, text.as_bytes());
            head.push(b']');
            head.extend_from_slice(&foot);
            return ([(header::CONTENT_TYPE, json::CONTENT_TYPE)], head).into_response();
        }
    };
    let name: &[u8] = if shape == Shape::Vector { b"vector" } else { b"matrix" };
    head.extend_from_slice(name);
    head.extend_from_slice(b"\",\"result\":[");
    let pieces = Pieces {
        series: series.into_iter(),
        current: None,
        next: head,
        foot: Some(foot),
        is_first: true,
        names,
        shape,
    };
    ([(header::CONTENT_TYPE, json::CONTENT_TYPE)], from_pieces(pieces)).into_response()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Vector,
    Matrix,
}

/// Writes series as the client takes them: an answer of 50 million points is never in memory as
/// text.
struct Pieces {
    series: std::vec::IntoIter<SeriesRun>,
    /// A matrix' series, half written: its points, and the next of them.
    current: Option<(Vec<Sample>, usize)>,
    next: Vec<u8>,
    foot: Option<Vec<u8>>,
    is_first: bool,
    names: LabelNames,
    shape: Shape,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.next.len() < PIECE_BYTES {
            if let Some((run, mut index)) = self.current.take() {
                self.write_points(&run, &mut index);
                if index < run.len() {
                    self.current = Some((run, index));
                }
            } else if let Some(series) = self.series.next() {
                self.begin_series(series);
            } else {
                let Some(foot) = self.foot.take() else { break };
                self.next.push(b']');
                self.next.extend_from_slice(&foot);
            }
        }
        let piece = std::mem::take(&mut self.next);
        (!piece.is_empty()).then(|| Bytes::from(piece))
    }
}

impl Pieces {
    fn begin_series(&mut self, series: SeriesRun) {
        if !self.is_first {
            self.next.push(b',');
        }
        self.is_first = false;
        self.next.extend_from_slice(b"{\"metric\":");
        json::write_labels(&mut self.next, &series.labels, self.names);
        match self.shape {
            Shape::Vector => {
                self.next.extend_from_slice(b",\"value\":");
                json::write_point(&mut self.next, series.run[0]);
                self.next.push(b'}');
            }
            Shape::Matrix => {
                self.next.extend_from_slice(b",\"values\":[");
                self.current = Some((series.run, 0));
            }
        }
    }

    fn write_points(&mut self, run: &[Sample], index: &mut usize) {
        while *index < run.len() && self.next.len() < PIECE_BYTES {
            if *index > 0 {
                self.next.push(b',');
            }
            json::write_point(&mut self.next, run[*index]);
            *index += 1;
        }
        if *index == run.len() {
            self.next.extend_from_slice(b"]}");
        }
    }
}
