//! What remote write and JSON lines brought in, read back on every path: export, query, series,
//! labels, values.

use crate::body::{
    IMPORT_PATH, REMOTE_WRITE_HEADERS, REMOTE_WRITE_PATHS, Series, gzip, json_lines, now_ms,
    remote_write,
};
use crate::http::escape;
use crate::server::Server;
use serde_json::{Value, json};

const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

#[test]
fn one_shard() {
    run(1);
}

#[test]
fn two_shards() {
    run(2);
}

fn run(shards: u32) {
    let mut server = Server::start(shards);
    // A whole second, so that times are short in JSON.
    let time_ms = now_ms() / 1000 * 1000 - 120_000;
    write(&server, time_ms);
    check_all(&server, time_ms);
    // The same after a crash, from the log; after a drain, from whatever it left; with other
    // shards.
    server.kill9();
    server.restart(shards);
    check_all(&server, time_ms);
    server.terminate();
    server.restart(3 - shards);
    check_all(&server, time_ms);
}

fn check_all(server: &Server, time_ms: i64) {
    check_export(server, time_ms);
    check_names(server, time_ms);
    check_queries(server, time_ms);
}

/// `up{job=a|b}` by remote write, one on each path; `import{job=c}` by JSON lines, plain and
/// packed.
fn write(server: &Server, time_ms: i64) {
    let mut client = server.client();
    for (index, path) in REMOTE_WRITE_PATHS.iter().enumerate() {
        let sample = (time_ms + 15_000 * i64::try_from(index).expect("four"), 1.5);
        let series = [
            Series::new(&[("__name__", "up"), ("job", "a")], &[sample]),
            // Out of order: names are sorted on arrival.
            Series::new(&[("job", "b"), ("__name__", "up")], &[(sample.0, -0.25)]),
        ];
        let body = remote_write(&series);
        let response = client.request("POST", path, &REMOTE_WRITE_HEADERS, &body);
        assert_eq!(response.expect("an answer").status, 204, "{path}");
    }
    let labels = [("__name__", "import"), ("job", "c"), ("quote", "\"\\\n")];
    let values = [f64::INFINITY, f64::NEG_INFINITY, 1e-7, 0.1];
    for (index, value) in values.into_iter().enumerate() {
        let sample = (time_ms + 1000 * i64::try_from(index).expect("four"), value);
        let lines = json_lines(&[Series::new(&labels, &[sample])]);
        let response = match index % 2 {
            0 => client.request("POST", IMPORT_PATH, &[], &lines),
            _ => {
                client.request("POST", IMPORT_PATH, &[("Content-Encoding", "gzip")], &gzip(&lines))
            }
        };
        assert_eq!(response.expect("an answer").status, 204, "{value}");
    }
    let gone = Series::new(
        &[("__name__", "gone"), ("job", "a")],
        &[(time_ms, 7.0), (time_ms + 10_000, STALE_NAN)],
    );
    let response =
        client.request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &remote_write(&[gone]));
    assert_eq!(response.expect("an answer").status, 204);
}

fn check_export(server: &Server, time_ms: i64) {
    let path = format!("/api/v1/export?match[]={}", escape("{__name__=~\"up|import\"}"));
    let text = server.get(&path).text();
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    lines.sort_by_key(|line| line["metric"].to_string());
    let times = |step: i64| (0..4).map(|i| time_ms + step * i).collect::<Vec<_>>();
    let up = |job: &str, value: f64| {
        json!({
            "metric": {"__name__": "up", "job": job},
            "values": [value, value, value, value], "timestamps": times(15_000),
        })
    };
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0]["metric"], json!({"__name__": "import", "job": "c", "quote": "\"\\\n"}));
    assert_eq!(lines[0]["timestamps"], json!(times(1000)));
    assert_eq!(lines[0]["values"], json!(["Infinity", "-Infinity", 1e-7, 0.1]));
    assert_eq!(lines[1..], [up("a", 1.5), up("b", -0.25)]);

    // Both ends of a range are inclusive; start and end are seconds.
    let (start, end) = ((time_ms + 15_000) / 1000, (time_ms + 30_000) / 1000);
    let selector = escape("up{job=\"a\"}");
    let text = server.get(&format!("/api/v1/export?match[]={selector}&start={start}&end={end}"));
    assert_eq!(text.json()["timestamps"], json!([time_ms + 15_000, time_ms + 30_000]));
}

fn check_names(server: &Server, time_ms: i64) {
    let range = format!("start={}&end={}", time_ms / 1000, time_ms / 1000 + 60);
    let labels = server.get_json(&format!("/api/v1/labels?{range}"));
    assert_eq!(labels, json!({"status": "success", "data": ["__name__", "job", "quote"]}));
    let jobs = server.get_json(&format!("/api/v1/label/job/values?{range}"));
    assert_eq!(jobs, json!({"status": "success", "data": ["a", "b", "c"]}));
    let only = escape("up{job!=\"a\"}");
    let jobs = server.get_json(&format!("/api/v1/label/job/values?{range}&match[]={only}"));
    assert_eq!(jobs["data"], json!(["b"]));
    let series =
        server.get_json(&format!("/api/v1/series?{range}&match[]={}", escape("{job=~\"b|c\"}")));
    let mut found = series["data"].as_array().expect("a list").clone();
    found.sort_by_key(Value::to_string);
    let want = [
        json!({"__name__": "import", "job": "c", "quote": "\"\\\n"}),
        json!({"__name__": "up", "job": "b"}),
    ];
    assert_eq!(found, want);
}

fn check_queries(server: &Server, time_ms: i64) {
    let time = time_ms / 1000;
    let instant = |query: &str, time: i64| {
        server.get_json(&format!("/api/v1/query?query={}&time={time}", escape(query)))["data"]
            .clone()
    };
    let up = instant("up{job=\"a\"}", time + 20);
    assert_eq!(up["resultType"], "vector");
    assert_eq!(
        up["result"],
        json!([{"metric": {"__name__": "up", "job": "a"}, "value": [time + 20, "1.5"]}])
    );
    // Lookback is five minutes, its old end exclusive or not; six minutes are too long for sure.
    assert_eq!(instant("up", time + 45 + 360)["result"], json!([]));
    // A stale marker ends a series at once.
    assert_eq!(instant("gone", time + 9)["result"][0]["value"], json!([time + 9, "7"]));
    assert_eq!(instant("gone", time + 10)["result"], json!([]));
    let matrix = instant("import[4s]", time + 3);
    assert_eq!(matrix["resultType"], "matrix");
    let values =
        json!([[time, "+Inf"], [time + 1, "-Inf"], [time + 2, "1e-07"], [time + 3, "0.1"],]);
    assert_eq!(matrix["result"][0]["values"], values);

    let path = format!(
        "/api/v1/query_range?query={}&start={time}&end={}&step=15",
        escape("up{job=\"b\"}"),
        time + 45
    );
    let range = server.get_json(&path);
    let points: Vec<Value> = (0..4).map(|i| json!([time + 15 * i, "-0.25"])).collect();
    assert_eq!(range["data"]["resultType"], "matrix");
    assert_eq!(range["data"]["result"][0]["values"], json!(points));

    check_error(server, &format!("/api/v1/query?query={}", escape("up{")), 400);
    check_error(server, &format!("/api/v1/query?query={}", escape("sum(rate(up[5m]))")), 422);
    check_error(server, "/api/v1/series", 400);
}

#[track_caller]
fn check_error(server: &Server, path: &str, status: u16) {
    let response = server.get(path);
    assert_eq!(response.status, status, "{path}: {}", response.text());
    let json = response.json();
    assert_eq!(json["status"], "error", "{path}");
    assert!(json["error"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {json}");
}

#[test]
fn parts_of_a_request_are_refused_with_a_reason() {
    let server = Server::start(1);
    let time_ms = now_ms();
    let mut client = server.client();
    let series = [
        Series::new(&[("__name__", "fine")], &[(time_ms, 1.0)]),
        Series::new(&[("job", "nameless")], &[(time_ms, 1.0)]),
        Series::new(&[("__name__", "future")], &[(time_ms + 3_600_000, 1.0)]),
    ];
    let body = remote_write(&series);
    let response =
        client.request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &body).expect("an answer");
    assert_eq!(response.status, 400);
    let reason = response.text();
    let front: String = reason.chars().take(1024).collect();
    for word in ["missing_metric_name", "too_far_in_future"] {
        assert!(front.contains(word), "{word}: {reason}");
    }
    let line = String::from_utf8(json_lines(&series[..1])).expect("JSON");
    let lines = format!("{line}not json\n");
    let response = client.request("POST", IMPORT_PATH, &[], lines.as_bytes()).expect("an answer");
    assert_eq!(response.status, 200);
    let report = response.json();
    assert_eq!((&report["samples"], &report["errors"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(report["failed_lines"].as_array().map(Vec::len), Some(1), "{report}");

    let names = server.get_json("/api/v1/label/__name__/values");
    assert_eq!(names["data"], json!(["fine"]));
    let metrics = server.get("/metrics").text();
    let counted = metrics.lines().any(|line| {
        line.starts_with("tidegate_refused_samples_total{")
            && line.contains("missing_metric_name")
            && line.ends_with(" 1")
    });
    assert!(counted, "the refusal is not counted:\n{metrics}");
}
