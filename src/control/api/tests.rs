//! The router against shards that answer from memory, on threads of their own, through bounded
//! queues as the real ones.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::base::queue::{NoWake, QueueSender};
use crate::control::exposition::tests::check_page;
use crate::control::fake_shards::{series, spawn_shard};
use crate::control::shards::ShardHandle;
use crate::model::sample::STALE_NAN_BITS;

const NOW_MS: i64 = 1_000_000;

fn limits() -> QueryLimits {
    QueryLimits {
        series_max: 100,
        samples_max: 10_000,
        concurrency_max: 2,
        wait_max: Duration::from_millis(20),
        timeout: Duration::from_secs(60),
        lookback: Duration::from_secs(300),
        retention: Duration::ZERO,
    }
}

fn state(shards: Vec<ShardHandle>, limits: QueryLimits) -> ApiState {
    let server = Arc::new(ServerState::new(shards.len()));
    server.set_ready();
    ApiState::new(Shards::new(shards), server, limits, || NOW_MS)
}

fn example_shards() -> Vec<ShardHandle> {
    let stale = f64::from_bits(STALE_NAN_BITS);
    let shard_0 = vec![
        series(
            &[("__name__", "up"), ("instance", "b"), ("job", "x")],
            &[(970_000, 1.0), (985_000, 0.0), (1_000_000, 1.0)],
        ),
        series(
            &[("__name__", "up"), ("instance", "gone"), ("job", "x")],
            &[(970_000, 1.0), (985_000, stale)],
        ),
        series(
            &[("__name__", "odd"), ("quote", "a\"\\\n")],
            &[
                (1_000, f64::NAN),
                (2_000, f64::INFINITY),
                (3_000, f64::NEG_INFINITY),
                (4_000, stale),
                (5_500, 1e21),
            ],
        ),
    ];
    let shard_1 = vec![
        series(&[("__name__", "up"), ("instance", "a"), ("job", "x")], &[(999_500, 3.5)]),
        series(&[("__name__", "down"), ("instance", "a"), ("job", "x")], &[(999_500, 4.0)]),
    ];
    vec![spawn_shard(shard_0), spawn_shard(shard_1)]
}

fn example() -> Router {
    router(state(example_shards(), limits()))
}

async fn send(router: &Router, request: Request<Body>) -> (StatusCode, String) {
    let response = router.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    (status, String::from_utf8(body.into()).expect("UTF-8"))
}

async fn get_text(router: &Router, target: &str) -> (StatusCode, String) {
    send(router, Request::get(target).body(Body::empty()).expect("a request")).await
}

#[track_caller]
fn parse(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|fault| panic!("{fault}: {body}"))
}

async fn check_data(router: &Router, target: &str, want: Value) {
    let (status, body) = get_text(router, target).await;
    assert_eq!(status, StatusCode::OK, "{target}: {body}");
    assert_eq!(parse(&body), json!({"status": "success", "data": want}), "{target}");
}

async fn check_error(router: &Router, target: &str, status: u16, error_type: &str, text: &str) {
    let (found, body) = get_text(router, target).await;
    assert_eq!(found.as_u16(), status, "{target}: {body}");
    let body = parse(&body);
    assert_eq!((&body["status"], &body["errorType"]), (&json!("error"), &json!(error_type)));
    let error = body["error"].as_str().expect("a text");
    assert!(error.contains(text), "{target}: {error}");
}

fn up(instance: &str) -> Value {
    json!({"__name__": "up", "instance": instance, "job": "x"})
}

#[tokio::test]
async fn instant_queries() {
    let router = example();
    check_data(
        &router,
        "/api/v1/query?query=up",
        json!({"resultType": "vector", "result": [
            {"metric": up("a"), "value": [1000, "3.5"]},
            {"metric": up("b"), "value": [1000, "1"]},
        ]}),
    )
    .await;
    check_data(
        &router,
        "/api/v1/query?query=up%7Binstance%3D%22b%22%7D[30s]&time=1000.5",
        json!({"resultType": "matrix", "result": [
            {"metric": up("b"), "values": [[985, "0"], [1000, "1"]]},
        ]}),
    )
    .await;
    check_data(
        &router,
        "/api/v1/query?query=-down&time=1001",
        json!({"resultType": "vector", "result": [
            {"metric": {"instance": "a", "job": "x"}, "value": [1001, "-4"]},
        ]}),
    )
    .await;
    check_data(
        &router,
        "/api/v1/query?query=1.5&time=1.25",
        json!({"resultType": "scalar", "result": [1.250, "1.5"]}),
    )
    .await;
    check_data(
        &router,
        "/api/v1/query?query=%22hi%22&time=1970-01-01T00:00:02Z",
        json!({"resultType": "string", "result": [2, "hi"]}),
    )
    .await;
    check_data(
        &router,
        "/api/v1/query?query=up&time=10&lookback_delta=1s",
        json!({"resultType": "vector", "result": []}),
    )
    .await;
    check_data(
        &router,
        "/api/v1/query?query=odd[10s]&time=6",
        json!({"resultType": "matrix", "result": [{
            "metric": {"__name__": "odd", "quote": "a\"\\\n"},
            "values": [[1, "NaN"], [2, "+Inf"], [3, "-Inf"], [5.5, "1e+21"]],
        }]}),
    )
    .await;
}

#[tokio::test]
async fn times_are_written_as_prometheus_does() {
    let (_, body) = get_text(&example(), "/api/v1/query?query=1&time=1.5").await;
    let want = r#"{"status":"success","data":{"resultType":"scalar","result":[1.500,"1"]}}"#;
    assert_eq!(body, want);
}

#[tokio::test]
async fn range_queries() {
    let router = example();
    check_data(
        &router,
        "/api/v1/query_range?query=up{instance=%22b%22}&start=970&end=1000&step=15",
        json!({"resultType": "matrix", "result": [
            {"metric": up("b"), "values": [[970, "1"], [985, "0"], [1000, "1"]]},
        ]}),
    )
    .await;
    check_data(
        &router,
        "/api/v1/query_range?query=2&start=1&end=3&step=1s",
        json!({"resultType": "matrix", "result": [
            {"metric": {}, "values": [[1, "2"], [2, "2"], [3, "2"]]},
        ]}),
    )
    .await;
    let range = "/api/v1/query_range?query=up";
    let bad = "bad_data";
    check_error(&router, &format!("{range}&start=0&end=11001&step=1"), 400, bad, "11,000").await;
    let (status, _) = get_text(&router, &format!("{range}&start=0&end=11000&step=1")).await;
    assert_eq!(status, StatusCode::OK);
    check_error(&router, &format!("{range}&start=2&end=1&step=1"), 400, bad, "before").await;
    check_error(&router, &format!("{range}&start=1&end=2&step=0"), 400, bad, "zero or").await;
    check_error(&router, &format!("{range}&start=1&end=2"), 400, bad, "\"step\"").await;
    check_error(&router, &format!("{range}&end=2&step=1"), 400, bad, "\"start\"").await;
    let matrix = "/api/v1/query_range?query=up[5m]&start=1&end=2&step=1";
    check_error(&router, matrix, 400, bad, "range vector").await;
}

#[tokio::test]
async fn forms_are_read_too() {
    let request = Request::post("/api/v1/query?time=1")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from("query=1%2E5&time=2"))
        .expect("a request");
    let (status, body) = send(&example(), request).await;
    assert_eq!(status, StatusCode::OK);
    // The body comes before the query string.
    assert_eq!(parse(&body)["data"]["result"], json!([2, "1.5"]));
}

#[tokio::test]
async fn limits_and_faults() {
    let router = example();
    check_error(&router, "/api/v1/query", 400, "bad_data", "no expression").await;
    check_error(&router, "/api/v1/query?query=up%7B", 400, "bad_data", "parse error").await;
    check_error(&router, "/api/v1/query?query=up&time=x", 400, "bad_data", "\"time\"").await;
    check_error(&router, "/api/v1/query?query=rate(up[5m])", 422, "execution", "rate").await;
    let bad_regex = "/api/v1/query?query=up{job=%22bad%20regex%22}";
    check_error(&router, bad_regex, 400, "bad_data", "why").await;
    check_error(&router, "/nothing", 404, "not_found", "/nothing").await;
    let few_samples = QueryLimits { samples_max: 4, ..limits() };
    let few = super::router(state(example_shards(), few_samples));
    check_error(&few, "/api/v1/query?query=up", 422, "execution", "too many samples").await;
    let few_series = QueryLimits { series_max: 2, ..limits() };
    let few = super::router(state(example_shards(), few_series));
    check_error(&few, "/api/v1/series?match[]=up", 422, "execution", "more than 2 series").await;
    let (status, body) = get_text(&router, "/api/v1/query?query=up&limit=1").await;
    assert_eq!(status, StatusCode::OK);
    let body = parse(&body);
    assert_eq!(body["warnings"], json!(["results truncated due to limit"]));
    assert_eq!(body["data"]["result"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_full_house_and_a_slow_shard() {
    // A shard that takes requests and never answers.
    let (sender, requests) = flume::bounded(8);
    let shard = ShardHandle::new(QueueSender::new(sender, Arc::new(NoWake)));
    let state = state(vec![shard], QueryLimits { concurrency_max: 1, ..limits() });
    let router = super::router(state.clone());
    check_error(&router, "/api/v1/query?query=up&timeout=20ms", 503, "timeout", "timed out").await;
    let place = state.admission.place().await.expect("the only place is free again");
    check_error(&router, "/api/v1/query?query=up", 503, "unavailable", "concurrency").await;
    drop(place);
    drop(requests);
    check_error(&router, "/api/v1/query?query=up", 503, "unavailable", "shard").await;
}

#[tokio::test]
async fn what_is_there() {
    let router = example();
    let down = json!({"__name__": "down", "instance": "a", "job": "x"});
    check_data(
        &router,
        "/api/v1/series?match[]=up{instance=%22a%22}&match[]={instance=%22a%22}",
        json!([down, up("a")]),
    )
    .await;
    check_error(&router, "/api/v1/series", 400, "bad_data", "no match[]").await;
    check_data(&router, "/api/v1/labels", json!(["__name__", "instance", "job", "quote"])).await;
    check_data(
        &router,
        "/api/v1/labels?match[]=up&start=1&end=2000000",
        json!(["__name__", "instance", "job"]),
    )
    .await;
    check_data(&router, "/api/v1/label/instance/values", json!(["a", "b", "gone"])).await;
    check_data(&router, "/api/v1/label/instance/values?match[]=down", json!(["a"])).await;
    check_data(&router, "/api/v1/label/none/values", json!([])).await;
    check_data(&router, "/api/v1/metadata", json!({})).await;
    let (status, body) = get_text(&router, "/api/v1/label/instance/values?limit=1").await;
    assert_eq!((status, &parse(&body)["data"]), (StatusCode::OK, &json!(["a"])));
    assert_eq!(parse(&body)["warnings"], json!(["results truncated due to limit"]));
}

#[tokio::test]
async fn export_lines() {
    let router = example();
    let (status, body) = get_text(&router, "/api/v1/export?match[]=odd").await;
    assert_eq!(status, StatusCode::OK);
    let want = concat!(
        r#"{"metric":{"__name__":"odd","quote":"a\"\\\n"},"#,
        r#""values":["NaN","Infinity","-Infinity",null,1e+21],"#,
        r#""timestamps":[1000,2000,3000,4000,5500]}"#,
        "\n"
    );
    assert_eq!(body, want);
    let cut = "/api/v1/export?match=odd&start=2&end=4&max_rows_per_line=2";
    let (_, body) = get_text(&router, cut).await;
    let timestamps: Vec<_> = body.lines().map(|line| parse(line)["timestamps"].clone()).collect();
    assert_eq!(timestamps, [json!([2000, 3000]), json!([4000])]);
    let twice = "/api/v1/export?match[]=up&match[]={job=%22x%22}";
    let (_, body) = get_text(&router, twice).await;
    let mut metrics: Vec<_> = body.lines().map(|line| parse(line)["metric"].to_string()).collect();
    let len = metrics.len();
    metrics.sort();
    metrics.dedup();
    assert_eq!((len, metrics.len()), (4, 4));
    check_error(&router, "/api/v1/export", 400, "bad_data", "no match[]").await;
    check_error(&router, "/api/v1/export?match[]=up&start=x", 400, "bad_data", "start").await;
    let bad_regex = "/api/v1/export?match[]={job=%22bad%20regex%22}";
    check_error(&router, bad_regex, 400, "bad_data", "why").await;
}

#[tokio::test]
async fn large_answers_come_whole() {
    let points: Vec<_> = (0..6_000i64).map(|i| (i * 100, 1.0)).collect();
    let shards = || vec![spawn_shard(vec![series(&[("__name__", "big")], &points)])];
    let router = super::router(state(shards(), QueryLimits { samples_max: 12_000, ..limits() }));
    let (_, body) = get_text(&router, "/api/v1/query?query=big[1h]&time=600").await;
    let body = parse(&body);
    let values = body["data"]["result"][0]["values"].as_array().expect("values");
    assert_eq!((values.len(), &values[5_999]), (6_000, &json!([599.9, "1"])));
    let (_, body) = get_text(&router, "/api/v1/export?match[]=big&max_rows_per_line=7").await;
    let rows = body.lines().map(|line| parse(line)["values"].as_array().map_or(0, Vec::len));
    assert_eq!(rows.sum::<usize>(), 6_000);
}

#[tokio::test]
async fn methods() {
    let router = example();
    let request = |method: Method, target: &str| {
        Request::builder().method(method).uri(target).body(Body::empty()).expect("a request")
    };
    let delete = request(Method::DELETE, "/api/v1/query");
    let response = router.clone().oneshot(delete).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let allow = response.headers()["allow"].to_str().expect("ASCII").to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    // A 405 of the read API once said nothing but its number, and OPTIONS was one too.
    let delete = request(Method::DELETE, "/api/v1/query");
    let (_, body) = send(&router, delete).await;
    assert!(body.contains("does not take DELETE"), "{body}");
    for target in ["/api/v1/query", "/metrics", "*"] {
        let options = request(Method::OPTIONS, target);
        let response = router.clone().oneshot(options).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{target}");
        let allow = response.headers()["allow"].to_str().expect("ASCII");
        assert!(allow.contains("GET"), "{target}: {allow}");
    }
    let (status, _) = send(&router, request(Method::OPTIONS, "/nope")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let head = request(Method::HEAD, "/-/healthy");
    let (status, body) = send(&router, head).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn health_and_readiness() {
    let state = state(example_shards(), limits());
    let router = super::router(state.clone());
    for (path, want) in [("/-/healthy", "tidegate is healthy.\n"), ("/health", "OK")] {
        assert_eq!(get_text(&router, path).await, (StatusCode::OK, want.into()));
    }
    assert_eq!(get_text(&router, "/-/ready").await, (StatusCode::OK, "ready\n".into()));
    state.server.set_log_failed(1);
    let (status, body) = get_text(&router, "/-/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("shard 1"), "{body}");
    state.server.set_draining();
    let (status, body) = get_text(&router, "/-/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("shutting down"), "{body}");
    assert!(get_text(&router, "/").await.1.contains("/api/v1/write"));
    let (_, body) = get_text(&router, "/api/v1/status/buildinfo").await;
    assert_eq!(parse(&body)["data"]["version"], json!(env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn replay_hides_data_and_nothing_else() {
    let server = Arc::new(ServerState::new(2));
    let shards = Shards::new(example_shards());
    let router = super::router(ApiState::new(shards, server, limits(), || NOW_MS));
    check_error(&router, "/api/v1/query?query=up", 503, "unavailable", "replaying").await;
    check_error(&router, "/api/v1/export?match[]=up", 503, "unavailable", "replaying").await;
    for path in ["/metrics", "/-/healthy", "/api/v1/status/buildinfo"] {
        assert_eq!(get_text(&router, path).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(get_text(&router, "/-/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn negated_vectors_lose_their_names() {
    let router = example();
    check_data(
        &router,
        "/api/v1/query?query=-{instance=%22a%22,__name__=%22up%22}",
        json!({"resultType": "vector", "result": [
            {"metric": {"instance": "a", "job": "x"}, "value": [1000, "-3.5"]},
        ]}),
    )
    .await;
    let collision = "/api/v1/query?query=-{instance=%22a%22}";
    check_error(&router, collision, 422, "execution", "same labelset").await;
}

#[tokio::test]
async fn a_stuck_shard_hides_no_other_on_the_metrics_page() {
    let (sender, _stuck) = flume::bounded(8);
    let stuck = ShardHandle::new(QueueSender::new(sender, Arc::new(NoWake)));
    let shards = Shards::new(vec![stuck, spawn_shard(vec![])]);
    let patience = Duration::from_millis(50);
    let reports = crate::control::gather::gather_reports(&shards, patience).await;
    assert!(reports[0].is_none() && reports[1].is_some());
}

#[tokio::test]
async fn metrics_page() {
    let router = example();
    get_text(&router, "/api/v1/query?query=up").await;
    get_text(&router, "/api/v1/query?query=up&limit=1").await;
    let (status, page) = get_text(&router, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let samples = check_page(&page);
    let number = |series: &str| samples[series].to_string();
    assert_eq!(number("tidegate_head_series{shard=\"0\"}"), "3");
    assert_eq!(number("tidegate_head_series{shard=\"1\"}"), "2");
    assert_eq!(number("tidegate_queries_total{result=\"success\"}"), "2");
    assert_eq!(number("tidegate_queries_running"), "0");
}
