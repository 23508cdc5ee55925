//! Conversations: bytes as a client sends them, cut anywhere; what is handed out, and what is sent
//! back.

use super::*;

const RULES: ConnectionRules = ConnectionRules {
    http: HttpLimits { head_bytes_max: 4096, headers_max: 32, body_bytes_max: 100 },
    body_bytes_max: 100,
    is_overloaded: false,
};

/// What a conversation came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Talk {
    /// Method or endpoint and body of each request handed out.
    requests: Vec<String>,
    output: String,
    is_closing: bool,
}

fn connection() -> Connection {
    Connection::new(RULES.http)
}

fn reply(body: &str) -> Reply {
    Reply { status: 400, body: body.to_owned(), ..Reply::NO_CONTENT }
}

/// Answers each request at once: ingest with its body, the control plane with a stream.
fn talk<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Talk {
    let mut connection = connection();
    let mut requests = Vec::new();
    for piece in pieces {
        let mut step = connection.handle_bytes(piece, &RULES);
        loop {
            match step {
                Step::NeedMore | Step::Close => break,
                Step::Ingest(endpoint, _) => {
                    let body = connection.take_body();
                    let text = String::from_utf8_lossy(&body).into_owned();
                    connection.keep_body(body);
                    connection.answer(&reply(&text));
                    requests.push(format!("{endpoint:?} {text}"));
                }
                Step::Control(request) => {
                    let body = String::from_utf8_lossy(request.body());
                    requests.push(format!("{} {} {body}", request.method(), request.uri()));
                    connection.begin_stream(200, &[]);
                    connection.stream(b"stre");
                    connection.stream(b"");
                    connection.stream(b"amed");
                    connection.end_stream();
                }
            }
            step = connection.handle_unread(&RULES);
        }
    }
    let output = connection.take_output(Vec::new());
    let output = String::from_utf8(output).expect("text");
    Talk { requests, output, is_closing: connection.is_closing() }
}

fn talk_once(input: &str) -> Talk {
    talk([input.as_bytes()])
}

fn import(body: &str) -> String {
    let len = body.len();
    format!("POST /api/v1/import HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n{body}")
}

#[test]
fn pipelined_requests_are_the_same_wherever_they_are_cut() {
    let chunked = "POST /api/v1/import HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nchu\r\n3\r\nnks\r\n0\r\n\r\n";
    let query = "GET /api/v1/query?query=up HTTP/1.1\r\nHost: h\r\n\r\n";
    let empty = import("");
    let input = [&import("one"), chunked, query, &empty, &import("last")].concat();
    let whole = talk_once(&input);
    let want =
        ["VmJson one", "VmJson chunks", "GET /api/v1/query?query=up ", "VmJson ", "VmJson last"];
    assert_eq!(whole.requests, want);
    // In the order of the requests.
    let places = ["one", "chunks", "4\r\nstre\r\n4\r\named\r\n0\r\n\r\n", "last"];
    let places = places.map(|part| whole.output.find(part).expect("answered"));
    assert!(places.is_sorted(), "{}", whole.output);
    for cut in 0..=input.len() {
        let (front, back) = input.as_bytes().split_at(cut);
        assert_eq!(talk([front, back]), whole, "cut at {cut}");
    }
    assert_eq!(talk(input.as_bytes().chunks(1)), whole);
}

#[test]
fn a_request_waits_for_the_answer_to_the_one_before() {
    let mut connection = connection();
    let input = [import("one"), import("two")].concat();
    let step = connection.handle_bytes(input.as_bytes(), &RULES);
    assert!(matches!(step, Step::Ingest(Endpoint::VmJson, Encoding::Identity)));
    assert_eq!(connection.take_body(), b"one");
    assert!(connection.is_waiting() && connection.output_len() == 0);
    assert_eq!(connection.phase(false), Phase::Working);
    // More may come, and is kept; nothing of it is handed out yet.
    let step = connection.handle_bytes(import("three").as_bytes(), &RULES);
    assert!(matches!(step, Step::NeedMore));
    assert_eq!(connection.held_bytes(), (import("two").len() + import("three").len()) as u64);
    for want in ["two", "three"] {
        connection.answer(&Reply::NO_CONTENT);
        assert!(matches!(connection.handle_unread(&RULES), Step::Ingest(..)));
        assert_eq!(connection.take_body(), want.as_bytes());
    }
    assert_eq!(connection.held_bytes(), 0);
}

#[test]
fn what_waits_behind_a_request_is_bounded() {
    let mut connection = connection();
    assert!(matches!(connection.handle_bytes(import("a").as_bytes(), &RULES), Step::Ingest(..)));
    connection.handle_bytes(&vec![b'x'; UNREAD_BYTES_MAX - 1], &RULES);
    assert!(!connection.is_full());
    connection.handle_bytes(b"x", &RULES);
    assert!(connection.is_full());
}

#[test]
fn a_body_above_the_limit_is_refused_before_it_comes() {
    let declared = "POST /api/v1/import HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n";
    let talked = talk_once(declared);
    assert!(talked.output.starts_with("HTTP/1.1 413 "), "{}", talked.output);
    assert!(talked.output.contains("connection: close\r\n"), "{}", talked.output);
    assert!(talked.is_closing && talked.requests.is_empty());
    // What is sent all the same is not taken for a request.
    let smuggled = [declared, &import("smuggled")].concat();
    assert_eq!(talk_once(&smuggled), talked);
    // Nobody is told to go on with a body that is not wanted.
    let expecting = declared.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(talk_once(&expecting), talked);
    let chunked = "POST /api/v1/import HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   65\r\n";
    let talked = talk([chunked.as_bytes(), &[b'x'; 101][..]]);
    assert!(talked.output.starts_with("HTTP/1.1 413 "), "{}", talked.output);
    assert_eq!(talk_once(&import(&"x".repeat(100))).requests.len(), 1);
}

#[test]
fn who_asks_is_told_to_continue_once() {
    let head = "POST /api/v1/import HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\
                Content-Length: 4\r\n\r\n";
    let mut connection = connection();
    assert!(matches!(connection.handle_bytes(head.as_bytes(), &RULES), Step::NeedMore));
    assert_eq!(connection.take_output(Vec::new()), response::CONTINUE_RESPONSE);
    assert_eq!(connection.phase(false), Phase::Body);
    assert!(matches!(connection.handle_bytes(b"bo", &RULES), Step::NeedMore));
    assert!(matches!(connection.handle_bytes(b"dy", &RULES), Step::Ingest(..)));
    assert_eq!((connection.take_body(), connection.output_len()), (b"body".to_vec(), 0));
    // Without a body there is nothing to continue with.
    let talked = talk_once(&head.replace('4', "0"));
    assert!(talked.output.starts_with("HTTP/1.1 400 "), "{}", talked.output);
}

#[test]
fn an_answer_to_head_has_no_body() {
    let next = import("next");
    // An ingest path refuses HEAD at its head; the control plane's answer streams to nobody.
    for path in ["/api/v1/import", "/api/v1/query"] {
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        let talked = talk_once(&[&head, next.as_str()].concat());
        assert_eq!(talked.requests.last().map(String::as_str), Some("VmJson next"));
        let (_, behind) = talked.output.split_once("\r\n\r\n").expect("a head");
        assert!(behind.starts_with("HTTP/1.1 400 "), "{}", talked.output);
    }
    let talked = talk_once("HEAD /api/v1/import HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(talked.output.starts_with("HTTP/1.1 405 "), "{}", talked.output);
}

#[test]
fn http_1_0_gets_no_chunks_and_the_end() {
    let talked = talk_once("GET /api/v1/query HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n");
    assert_eq!((talked.requests.len(), talked.is_closing), (1, true));
    assert!(talked.output.ends_with("\r\n\r\nstreamed"), "{}", talked.output);
    assert!(!talked.output.contains("chunked"), "{}", talked.output);
    // A known length lets the connection live on, if the client asks for it.
    let keep =
        "POST /api/v1/import HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n";
    let talked = talk_once(&[keep, "a", keep, "b"].concat());
    assert_eq!((talked.requests.len(), talked.is_closing), (2, false));
}

#[test]
fn connection_close_is_the_last_request() {
    let last = import("one").replace("Host: h", "Host: h\r\nConnection: close");
    let talked = talk_once(&[&last, import("two").as_str()].concat());
    assert_eq!(talked.requests, ["VmJson one"]);
    assert!(talked.is_closing && talked.output.contains("connection: close\r\n"));
}

#[test]
fn a_refused_header_closes_unless_there_is_no_body() {
    #[track_caller]
    fn check(head: &str, status: u16, is_closing: bool) {
        let talked = talk_once(&[head, &import("next")].concat());
        assert!(talked.output.starts_with(&format!("HTTP/1.1 {status} ")), "{}", talked.output);
        let want: &[&str] = if is_closing { &[] } else { &["VmJson next"] };
        assert_eq!(talked.requests, want);
        assert_eq!(talked.is_closing, is_closing);
        // An unwanted body is not read as requests, nor skipped to find the next one.
        let answers = talked.output.matches("HTTP/1.1 ").count();
        assert_eq!(answers, 1 + want.len());
    }
    let typed = "POST /api/v1/write HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n";
    check(&format!("{typed}Content-Length: 9\r\n\r\n"), 415, true);
    check(&format!("{typed}Transfer-Encoding: chunked\r\n\r\n"), 415, true);
    check(&format!("{typed}Content-Length: 0\r\n\r\n"), 415, false);
    check("GET /api/v1/write HTTP/1.1\r\nHost: h\r\n\r\n", 405, false);
    check("OPTIONS /api/v1/write HTTP/1.1\r\nHost: h\r\n\r\n", 204, false);
    check("PUT /api/v1/write HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n", 405, true);
    // What is not HTTP has no next request.
    check("POST /api/v1/import HTTP/1.1\r\n\r\n", 400, true);
    check("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, true);
}

#[test]
fn an_overloaded_shard_refuses_at_the_head() {
    let mut connection = connection();
    let rules = ConnectionRules { is_overloaded: true, ..RULES };
    assert!(matches!(connection.handle_bytes(import("one").as_bytes(), &rules), Step::Close));
    let output = String::from_utf8(connection.take_output(Vec::new())).expect("text");
    assert!(output.starts_with("HTTP/1.1 503 ") && output.contains("retry-after: "), "{output}");
    assert!(connection.is_closing());
}

#[test]
fn draining_ends_idle_connections_at_once_and_others_behind_their_answer() {
    let mut idle = connection();
    idle.drain();
    assert!(idle.is_closing());
    let mut busy = connection();
    assert!(matches!(busy.handle_bytes(import("one").as_bytes(), &RULES), Step::Ingest(..)));
    busy.drain();
    assert!(!busy.is_closing());
    busy.answer(&Reply::NO_CONTENT);
    assert!(busy.is_closing() && busy.output_len() > 0);
}

#[test]
fn a_stream_that_breaks_off_does_not_look_whole() {
    let mut connection = connection();
    let get = b"GET /api/v1/export HTTP/1.1\r\nHost: h\r\n\r\n";
    assert!(matches!(connection.handle_bytes(get, &RULES), Step::Control(_)));
    connection.begin_stream(200, &[]);
    connection.stream(b"half");
    connection.abort();
    let output = String::from_utf8(connection.take_output(Vec::new())).expect("text");
    assert!(output.ends_with("4\r\nhalf\r\n") && connection.is_closing(), "{output}");
}
