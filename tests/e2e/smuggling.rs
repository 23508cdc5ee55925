//! The edges of HTTP: requests that two parsers could read in two ways, too large, of the wrong
//! kind, or too slow.

use crate::body::{REMOTE_WRITE_HEADERS, Series, compress, gzip, now_ms, remote_write};
use crate::http::Client;
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
    // Expect: 100-continue waits for the go-ahead.
    let head = format!(
        "POST /api/v1/import HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        line.len()
    );
    client.send_raw(head.as_bytes()).expect("sent");
    client.send_raw(line.as_bytes()).expect("sent");
    assert_eq!(client.read_response(false).expect("an answer").status, 204);
    let head = client.request("HEAD", "/-/healthy", &[], b"").expect("an answer");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn statuses_name_the_fault() {
    let server = Server::start(1);
    let body = remote_write(&[Series::new(&[("__name__", "a")], &[(now_ms(), 1.0)])]);
    let plain_type = [("Content-Type", "text/plain"), ("Content-Encoding", "snappy")];
    let gzipped = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")];
    assert_eq!(check(&server, "POST", "/api/v1/write", &plain_type, &body), 415);
    assert_eq!(check(&server, "POST", "/api/v1/write", &gzipped, &body), 415);
    assert_eq!(check(&server, "POST", "/api/v1/import", &[("Content-Encoding", "br")], b"{}"), 415);
    assert_eq!(check(&server, "GET", "/api/v1/write", &[], b""), 405);
    assert_eq!(check(&server, "DELETE", "/api/v1/import", &[], b""), 405);
    assert_eq!(check(&server, "POST", "/no/such/path", &[], b""), 404);
    assert_eq!(check(&server, "GET", "/no/such/path", &[], b""), 404);
    assert_eq!(check(&server, "GET", "/-/healthy", &[("X", &"x".repeat(17 << 10))], b""), 431);
    let many = vec![("X", "x"); 65];
    assert_eq!(check(&server, "GET", "/-/healthy", &many, b""), 431);
}

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Sends, and gives the status of the answer, which must say why if it is not a good one.
#[track_caller]
fn check(server: &Server, method: &str, path: &str, headers: Headers, body: &[u8]) -> u16 {
    let response = server.client().request(method, path, headers, body).expect("an answer");
    let status = response.status;
    assert!(status < 400 || !response.body.is_empty(), "{method} {path}: {status}, no reason");
    let has_allow = response.header("allow").is_some();
    assert!(status != 405 || has_allow, "{method} {path}: 405 without Allow");
    status
}

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
}

#[test]
fn slow_clients_are_cut_off() {
    let server = Server::start(1);
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
    for (client, half) in clients.iter_mut().zip(half_requests) {
        assert!(client.is_closed_by_server(), "still open after {SLOW_DEADLINE:?}: {half:?}");
    }
    assert_eq!(server.get("/-/healthy").status, 200);
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
