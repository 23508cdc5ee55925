//! What remote write and JSON lines brought in, read back on every path: export, query, series,
//! labels, values.

use crate::body::{
    IMPORT_PATH, REMOTE_WRITE_HEADERS, REMOTE_WRITE_PATHS, Series, compress, gzip, json_lines,
    now_ms, remote_write,
};
use crate::http::escape;
use crate::server::Server;
use serde_json::{Value, json};

const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);
/// Go's NaN, which Prometheus stores for every other one.
const NORMAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

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
    let undefined =
        Series::new(&[("__name__", "undefined"), ("job", "a")], &[(time_ms, NORMAL_NAN)]);
    let body = remote_write(&[gone, undefined]);
    let response = client.request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &body);
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

    let gone = server.get("/api/v1/export?match[]=gone").json();
    assert_eq!(gone["values"], json!([7, null]), "a stale marker is null");

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
    // A stale marker ends a series at once.
    assert_eq!(instant("gone", time + 9)["result"][0]["value"], json!([time + 9, "7"]));
    assert_eq!(instant("gone", time + 10)["result"], json!([]));
    // Five minutes later a series is still seen at its sample's own age, and no longer behind.
    assert_eq!(instant("up{job=\"a\"}", time + 344)["result"][0]["value"][1], "1.5");
    assert_eq!(instant("up{job=\"a\"}", time + 346)["result"], json!([]));
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

    // In a range the marker ends the series, and the lookback does where none came.
    let range = |query: &str, start: i64, end: i64, step: i64| {
        let query = escape(query);
        let path = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}");
        server.get_json(&path)["data"]["result"].clone()
    };
    let points: Vec<Value> = [-5, 0, 5, 10].map(|at| json!([time + at, "7"]))[1..3].to_vec();
    assert_eq!(range("gone", time - 5, time + 60, 5)[0]["values"], json!(points));
    let points: Vec<Value> = [0, 100, 200, 300].map(|at| json!([time + at, "1.5"])).to_vec();
    assert_eq!(range("up{job=\"a\"}", time, time + 900, 100)[0]["values"], json!(points));
    assert_eq!(range("up", time + 400, time + 900, 100), json!([]));
    // A plain NaN is a value, and a gap is none.
    assert_eq!(instant("undefined", time)["result"][0]["value"], json!([time, "NaN"]));

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

/// An export, imported elsewhere, is exported the same: once a stale marker came back as a plain
/// NaN, and the series went on for the length of the lookback.
#[test]
fn an_export_reads_back_as_it_was() {
    let server = Server::start(2);
    let time_ms = now_ms() / 1000 * 1000 - 120_000;
    write(&server, time_ms);
    let everything = format!("/api/v1/export?match[]={}", escape("{__name__=~\".+\"}"));
    let sorted = |server: &Server| {
        let text = server.get(&everything).text();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let lines = sorted(&server);
    assert_eq!(lines.len(), 5, "{lines:#?}");
    let other = Server::start(1);
    let body = lines.join("\n");
    let answer = other.client().request("POST", IMPORT_PATH, &[], body.as_bytes());
    assert_eq!(answer.expect("an answer").status, 204);
    assert_eq!(sorted(&other), lines);
    check_all(&other, time_ms);
}

/// Late and repeated samples, times in seconds, and what is understood but not stored.
#[test]
fn samples_are_kept_by_the_rules() {
    let server = Server::start(1);
    let time = now_ms() / 1000 - 3600;
    let mut client = server.client();
    let mut write = |offsets: &[i64], value: f64| {
        let samples: Vec<_> = offsets.iter().map(|at| ((time + at) * 1000, value)).collect();
        let body = remote_write(&[Series::new(&[("__name__", "rules")], &samples)]);
        let answer = client.request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &body);
        let answer = answer.expect("an answer");
        (answer.status, answer.text())
    };
    assert_eq!(write(&[0, 3500], 1.0).0, 204);
    // In the window of an hour before the newest; the last one written of a time wins.
    assert_eq!(write(&[10, 0], 2.0).0, 204);
    let (status, reason) = write(&[-101, 20], 3.0);
    assert_eq!(status, 400, "{reason}");
    for word in ["too_old: 1 of 2 samples refused; 1 written", "out-of-order-window"] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    let seconds = format!(
        "{{\"metric\":{{\"__name__\":\"rules\"}},\"values\":[4],\"timestamps\":[{}]}}",
        time + 30
    );
    let answer = server.client().request("POST", IMPORT_PATH, &[], seconds.as_bytes());
    assert_eq!(answer.expect("an answer").status, 204);
    let exported = server.get("/api/v1/export?match[]=rules").json();
    let times = [0, 10, 20, 30, 3500].map(|at| (time + at) * 1000);
    assert_eq!(exported["timestamps"], json!(times));
    assert_eq!(exported["values"], json!([2, 2, 3, 4, 1]));
    assert_eq!(server.metric_sum("tidegate_duplicate_samples_total"), Some(1.0));

    // An exemplar (3) and a native histogram (4) of a series, and metadata (3) of the request.
    let mut series = b"\x0a\x10\x0a\x08__name__\x12\x04more".to_vec();
    series.extend_from_slice(b"\x1a\x09\x11\0\0\0\0\0\0\0\0\x22\x02\x08\x01");
    let length = u8::try_from(series.len()).expect("short");
    let body = [&[0x0a, length], &*series, b"\x1a\x06\x08\x01\x12\x02up"].concat();
    let answer =
        server.client().request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &compress(&body));
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 204, "{}", answer.text());
    for kind in ["exemplar", "histogram", "metadata"] {
        let ignored = server.metric_sum(&format!("tidegate_ignored_total{{kind=\"{kind}\""));
        assert_eq!(ignored, Some(1.0), "{kind}");
    }
}

/// What crosses between shards is one batch a request and target shard, however many samples it
/// has. The count of batches sent once had their answers in it, and was twice that of those taken.
#[test]
fn a_request_crosses_to_another_shard_once() {
    const REQUESTS: u16 = 100;
    let server = Server::start(2);
    let names: Vec<String> = (0..200).map(|index| index.to_string()).collect();
    let mut client = server.client();
    for round in 0..REQUESTS {
        let sample = (now_ms() - 10_000 + i64::from(round), f64::from(round));
        let series = names.iter().map(|name| {
            Series::new(&[("__name__", "crossing"), ("series", name)], &[sample, sample])
        });
        let body = remote_write(&series.collect::<Vec<_>>());
        let answer = client.request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &body);
        assert_eq!(answer.expect("an answer").status, 204);
    }
    for metric in ["tidegate_handoffs_sent_total", "tidegate_handoffs_received_total"] {
        assert_eq!(server.metric_sum(metric), Some(f64::from(REQUESTS)), "{metric}");
    }
    let text = server.get("/api/v1/export?match[]=crossing").text();
    assert_eq!(text.lines().count(), names.len());
}

#[test]
fn parts_of_a_request_are_refused_with_a_reason() {
    let server = Server::start(1);
    let time_ms = now_ms();
    let mut client = server.client();
    let names: Vec<String> = (0..64).map(|index| format!("l{index}")).collect();
    let mut many = vec![("__name__", "many")];
    many.extend(names.iter().map(|name| (&**name, "x")));
    let (long, longer) = ("n".repeat((1 << 10) + 1), "v".repeat((4 << 10) + 1));
    let series = [
        Series::new(&[("__name__", "fine")], &[(time_ms, 1.0)]),
        Series::new(&[("job", "nameless")], &[(time_ms, 1.0)]),
        Series::new(&[("__name__", "future")], &[(time_ms + 3_600_000, 1.0)]),
        Series::new(&[("__name__", "twice"), ("a", "b"), ("a", "b")], &[(time_ms, 1.0)]),
        Series::new(&[("__name__", "empty"), ("", "b")], &[(time_ms, 1.0)]),
        Series::new(&many, &[(time_ms, 1.0)]),
        Series::new(&[("__name__", "name"), (&long, "x")], &[(time_ms, 1.0)]),
        Series::new(&[("__name__", "value"), ("x", &longer)], &[(time_ms, 1.0)]),
    ];
    let body = remote_write(&series);
    let response =
        client.request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &body).expect("an answer");
    assert_eq!(response.status, 400);
    let reason = response.text();
    let front: String = reason.chars().take(1024).collect();
    for word in [
        "7 of 8 samples refused; 1 written",
        "missing_metric_name 1",
        "too_far_in_future 1",
        "duplicate_label 1",
        "empty_label_name 1",
        "too_many_labels 1",
        "label_name_too_long 1",
        "label_value_too_long 1",
        "labels-max",
        "label-name-bytes-max",
        "label-value-bytes-max",
    ] {
        assert!(front.contains(word), "{word}: {reason}");
    }
    let line = String::from_utf8(json_lines(&series[..1])).expect("JSON");
    let lines = format!("{line}not json\n1\n[]\n{}\n", "x".repeat(300));
    let response = client.request("POST", IMPORT_PATH, &[], lines.as_bytes()).expect("an answer");
    assert_eq!(response.status, 200);
    let report = response.json();
    assert_eq!((&report["samples"], &report["errors"]), (&json!(1), &json!(4)), "{report}");
    assert_eq!(report["failed_lines"], json!(["not json", "1", "[]"]), "{report}");

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
