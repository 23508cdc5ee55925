//! The edges of HTTP: requests that two parsers could read in two ways, too large, of the wrong
//! kind, or too slow.

use crate::body::{REMOTE_WRITE_HEADERS, Series, compress, gzip, now_ms, remote_write};
use crate::http::Client;
use crate::process::wait_for;
use crate::server::Server;
use std::time::Duration;

/// The configured limit for a decompressed body, by default.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Above each timeout that a slow client may meet by default.
const SLOW_DEADLINE: Duration = Duration::from_secs(90);

#[test]
fn ambiguous_requests_one_shard() {
    refuse_ambiguous(1);
}

#[test]
fn ambiguous_requests_two_shards() {
    refuse_ambiguous(2);
}

/// 400, and the connection is closed, so that nothing behind it can be taken for a request.
fn refuse_ambiguous(shards: u32) {
    let server = Server::start(shards);
    let post = "POST /api/v1/import HTTP/1.1\r\nHost: a\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for rest in [
        format!("Content-Length: 3\r\n{chunked}\r\n0\r\n\r\n"),
        format!("{chunked}Content-Length: 3\r\n\r\n0\r\n\r\n"),
        "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc".into(),
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd".into(),
        "Content-Length: +3\r\n\r\nabc".into(),
        "Content-Length: -1\r\n\r\nabc".into(),
        "Content-Length: 0x3\r\n\r\nabc".into(),
        "Content-Length: 3, 3\r\n\r\nabc".into(),
        "Content-Length: 99999999999999999999\r\n\r\nabc".into(),
        "Content-Length : 3\r\n\r\nabc".into(),
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".into(),
        format!("{chunked}{chunked}\r\n0\r\n\r\n"),
        format!("{chunked}\r\n-1\r\n\r\n"),
        format!("{chunked}\r\nxyz\r\n\r\n"),
        format!("{chunked}\r\n3\r\nabcd\r\n0\r\n\r\n"),
        format!("{chunked}\r\nffffffffffffffffff\r\nabc\r\n"),
        format!("{chunked}\r\n 3\r\nabc\r\n0\r\n\r\n"),
        "X: a\r\n folded\r\nContent-Length: 0\r\n\r\n".into(),
        "X: a\0b\r\nContent-Length: 0\r\n\r\n".into(),
    ] {
        check_refused(&server, &format!("{post}{rest}"));
    }
    check_refused(&server, "GET  /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    check_refused(&server, "\u{1}\u{2}\u{3}\r\n\r\n");
    assert_eq!(server.get("/-/healthy").status, 200);
}

#[track_caller]
fn check_refused(server: &Server, request: &str) {
    let mut client = server.client();
    client.set_patience(Duration::from_secs(10));
    client.send_raw(request.as_bytes()).expect("sent");
    let response = client
        .read_response(false)
        .unwrap_or_else(|error| panic!("no answer: {error}\n{request:?}"));
    assert_eq!(response.status, 400, "{request:?}: {}", response.text());
    assert!(!response.body.is_empty(), "400 without a reason: {request:?}");
    assert!(client.is_closed_by_server(), "stays open: {request:?}");
}

#[test]
fn well_formed_oddities_are_served() {
    let server = Server::start(1);
    let mut client = server.client();
    let line = format!(
        "{{\"metric\":{{\"__name__\":\"odd\"}},\"values\":[1],\"timestamps\":[{}]}}\n",
        now_ms()
    );
    // Chunked, with an extension and a trailer; then two more behind it in the same packet.
    let chunked = format!(
        "POST /api/v1/import HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x};name=value\r\n{line}\r\n0\r\nTrailer: a\r\n\r\n",
        line.len()
    );
    let get = "GET /-/healthy HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send_raw(format!("{chunked}{get}{get}").as_bytes()).expect("sent");
    let statuses = [204, 200, 200];
    for want in statuses {
        assert_eq!(client.read_response(false).expect("an answer").status, want);
    }
    let head = client.request("HEAD", "/-/healthy", &[], b"").expect("an answer");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let options = client.request("OPTIONS", "/api/v1/write", &[], b"").expect("an answer");
    assert_eq!((options.status, options.header("allow")), (204, Some("POST, OPTIONS")));
    let options = client.request("OPTIONS", "/api/v1/query", &[], b"").expect("an answer");
    assert_eq!(options.status, 204);
    assert!(options.header("allow").is_some_and(|allow| allow.contains("GET")), "{options:?}");
    // HTTP/1.0 closes behind the answer.
    client.send_raw(b"GET /-/healthy HTTP/1.0\r\n\r\n").expect("sent");
    assert_eq!(client.read_response(false).expect("an answer").status, 200);
    assert!(client.is_closed_by_server());
}

/// The go-ahead comes before the body is sent, or the refusal does.
#[test]
fn expectations_are_met_or_refused_at_once() {
    let server = Server::start(1);
    let body = remote_write(&[Series::new(&[("__name__", "a")], &[(now_ms(), 1.0)])]);
    let head = |path: &str, more: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\n{more}\r\n"
        )
    };
    let good = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n";
    let mut client = server.client();
    client.send_raw(head("/api/v1/write", good).as_bytes()).expect("sent");
    assert_eq!(client.read_status().expect("a go-ahead"), 100);
    client.send_raw(&body).expect("sent");
    assert_eq!(client.read_status().expect("an answer"), 204);
    for (path, more, want) in [
        ("/api/v1/write", "Content-Type: text/plain\r\n", 415),
        ("/api/v1/import", "Content-Encoding: br\r\n", 415),
        ("/api/v1/import", "Expect: a-miracle\r\n", 417),
    ] {
        let mut client = server.client();
        client.send_raw(head(path, more).as_bytes()).expect("sent");
        assert_eq!(client.read_status().expect("an answer"), want, "{path} {more}");
        assert!(client.is_closed_by_server(), "the body would be taken for a request");
    }
}

#[test]
fn statuses_name_the_fault() {
    let server = Server::start(1);
    let body = remote_write(&[Series::new(&[("__name__", "a")], &[(now_ms(), 1.0)])]);
    let plain_type = [("Content-Type", "text/plain"), ("Content-Encoding", "snappy")];
    let gzipped = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")];
    let second = [
        ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("Content-Encoding", "snappy"),
    ];
    let long = "x".repeat(17 << 10);
    let check = |status: u16, word: &str, method: &str, path: &str, headers: Headers| {
        let response = server.client().request(method, path, headers, &body).expect("an answer");
        let text = response.text();
        let path: String = path.chars().take(80).collect();
        assert_eq!(response.status, status, "{method} {path}: {text}");
        assert!(text.contains(word), "{method} {path}: {word}: {text}");
        assert_eq!(response.header("allow").is_some(), status == 405, "{method} {path}");
    };
    check(415, "Content-Type must be application/x-protobuf", "POST", "/api/v1/write", &plain_type);
    check(415, "Content-Encoding must be snappy", "POST", "/api/v1/push", &gzipped);
    check(415, "prometheus.WriteRequest", "POST", "/api/v1/receive", &second);
    check(415, "must be gzip", "POST", "/api/v1/import", &[("Content-Encoding", "br")]);
    check(405, "POST", "GET", "/api/v1/write", &[]);
    check(405, "POST", "DELETE", "/api/v1/import", &[]);
    check(405, "DELETE", "DELETE", "/api/v1/query", &[]);
    check(405, "POST", "POST", "/metrics", &[]);
    check(404, "/no/such/path", "POST", "/no/such/path", &[]);
    check(404, "/no/such/path", "GET", "/no/such/path", &[]);
    check(404, "/api/v1/write/", "POST", "/api/v1/write/", &[]);
    check(414, "16384", "GET", &format!("/{long}"), &[]);
    check(417, "100-continue", "POST", "/api/v1/import", &[("Expect", "a-miracle")]);
    check(431, "16384", "GET", "/-/healthy", &[("X", &long)]);
    check(431, "64", "GET", "/-/healthy", &[("X", "x"); 65]);
    check(501, "CONNECT", "CONNECT", "a:1", &[]);
}

type Headers<'a> = &'a [(&'a str, &'a str)];

#[test]
fn large_bodies_are_refused() {
    let server = Server::start(1);
    // By the length it announces, before it is sent.
    let mut client = server.client();
    let head = format!(
        "POST /api/v1/import HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        BODY_BYTES_MAX + 1
    );
    client.send_raw(head.as_bytes()).expect("sent");
    assert_eq!(client.read_response(false).expect("an answer").status, 413);
    // By what it unpacks to: a small body, a large one inside.
    let zeros = vec![0; BODY_BYTES_MAX + 1];
    let mut client = server.client();
    let packed = compress(&zeros);
    let response = client.request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &packed);
    assert_eq!(response.expect("an answer").status, 413);
    let mut client = server.client();
    let packed = gzip(&zeros);
    let response =
        client.request("POST", "/api/v1/import", &[("Content-Encoding", "gzip")], &packed);
    assert_eq!(response.expect("an answer").status, 413);
    assert_eq!(server.get("/-/healthy").status, 200);
    // A limit of one's own, for announced and chunked bodies; the answer names the flag.
    let server = Server::start_with(1, None, &["--body-bytes-max", "1KiB"]);
    let head = "POST /api/v1/import HTTP/1.1\r\nHost: a\r\n";
    let spaces = " ".repeat(1024);
    for (rest, status) in [
        (format!("Content-Length: 1024\r\n\r\n{spaces}"), 204),
        ("Content-Length: 1025\r\n\r\n".into(), 413),
        (format!("Transfer-Encoding: chunked\r\n\r\n400\r\n{spaces}\r\n0\r\n\r\n"), 204),
        (format!("Transfer-Encoding: chunked\r\n\r\n400\r\n{spaces}\r\n1\r\n"), 413),
    ] {
        let mut client = server.client();
        client.send_raw(format!("{head}{rest}").as_bytes()).expect("sent");
        let response = client.read_response(false).expect("an answer");
        assert_eq!(response.status, status, "{}: {}", rest.trim(), response.text());
        let names_limit = response.text().contains("body-bytes-max (limit 1024)");
        assert_eq!(names_limit, status == 413, "{}", response.text());
    }
}

/// Who stops in the middle of a request, sends it in drops, or does not take answers.
#[test]
fn slow_clients_are_cut_off() {
    // Answers of some 20 KiB each, far more than sockets hold, of which none is read for now.
    const GETS: usize = 2000;
    let server = Server::start(1);
    let mut deaf = server.client();
    deaf.send_raw("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(GETS).as_bytes()).ok();
    let half_requests = [
        "POST /api/v1/import HT",
        "POST /api/v1/import HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
        "POST /api/v1/import HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ];
    let mut clients: Vec<Client> = half_requests.iter().map(|_| server.client()).collect();
    for (client, half) in clients.iter_mut().zip(half_requests) {
        client.set_patience(SLOW_DEADLINE);
        client.send_raw(half.as_bytes()).expect("sent");
    }
    let mut dripping = server.client();
    dripping.send_raw(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ").expect("sent");
    let dripped = wait_for(SLOW_DEADLINE, || dripping.send_raw(b"x").err());
    assert!(dripped.is_some(), "a head may take longer than {SLOW_DEADLINE:?}");
    for (client, half) in clients.iter_mut().zip(half_requests) {
        assert!(client.is_closed_by_server(), "still open after {SLOW_DEADLINE:?}: {half:?}");
    }
    // The connection that asks is the last one.
    let open = || server.metric_sum("tidegate_connections_open").filter(|open| *open < 2.0);
    assert!(wait_for(SLOW_DEADLINE, open).is_some(), "a client that does not read stays");
    let answers = deaf.read_to_close().expect("closed");
    let answers = String::from_utf8_lossy(&answers).matches("HTTP/1.1 200").count();
    assert!(answers < GETS, "all was answered to a client that did not read");
    let timeouts = server.metric_sum("tidegate_connections_closed_total{reason=\"timeout\"");
    assert_eq!(timeouts, Some(5.0), "cut off for their slowness");
}

#[test]
fn half_sent_requests_write_nothing() {
    let server = Server::start(1);
    let line = format!(
        "{{\"metric\":{{\"__name__\":\"half\"}},\"values\":[1],\"timestamps\":[{}]}}\n",
        now_ms()
    );
    let mut client = server.client();
    let head = format!(
        "POST /api/v1/import HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{line}",
        line.len() * 2
    );
    client.send_raw(head.as_bytes()).expect("sent");
    client.finish_sending();
    client.set_patience(Duration::from_secs(30));
    assert!(client.is_closed_by_server());
    assert_eq!(server.get("/api/v1/export?match[]=half").text(), "");
}
