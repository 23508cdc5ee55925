//! Each example is read whole, in every split in two, and byte by byte: the events must be the
//! same.

use super::*;
use crate::http::fault::HttpFault as Fault;

/// What came out, with body pieces joined, so that it does not depend on the splits.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Head(String),
    Body(Vec<u8>),
    End,
    Fault(Fault),
}

const LIMITS: HttpLimits = HttpLimits { head_bytes_max: 300, headers_max: 8, body_bytes_max: 40 };

/// Feeds `pieces` in turn and checks what every reader must hold.
fn read_pieces<'a>(limits: HttpLimits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Seen> {
    let mut reader = RequestReader::new(limits);
    let mut seen = Vec::new();
    for piece in pieces {
        let mut rest = piece;
        loop {
            let (taken, event) = reader.read(rest);
            rest = &rest[taken..];
            match event {
                ReadEvent::NeedMore => {
                    assert!(rest.is_empty(), "NeedMore leaves nothing");
                    break;
                }
                ReadEvent::Head => seen.push(Seen::Head(describe(&reader.head()))),
                ReadEvent::Body(bytes) => {
                    assert!(!bytes.is_empty() && bytes.len() <= taken);
                    match seen.last_mut() {
                        Some(Seen::Body(body)) => body.extend_from_slice(bytes),
                        _ => seen.push(Seen::Body(bytes.to_vec())),
                    }
                }
                ReadEvent::End => seen.push(Seen::End),
                ReadEvent::Fault(fault) => {
                    assert_eq!(reader.read(rest), (0, ReadEvent::Fault(fault)), "faults stay");
                    assert_eq!(reader.phase(), ReadPhase::Faulted);
                    seen.push(Seen::Fault(fault));
                    return seen;
                }
            }
        }
    }
    seen
}

/// Reads `input` in all the ways it can be cut in two and byte by byte.
#[track_caller]
fn read_all_splits(limits: HttpLimits, input: &[u8]) -> Vec<Seen> {
    let whole = read_pieces(limits, [input]);
    for at in 0..=input.len() {
        let (front, back) = input.split_at(at);
        assert_eq!(read_pieces(limits, [front, back]), whole, "split at {at}");
    }
    assert_eq!(read_pieces(limits, input.chunks(1)), whole, "byte by byte");
    whole
}

fn describe(head: &RequestHead<'_>) -> String {
    let version = match head.version {
        crate::http::head::HttpVersion::Http10 => "1.0",
        crate::http::head::HttpVersion::Http11 => "1.1",
    };
    let mut text = format!("{} {}", head.method, head.path);
    if let Some(query) = head.query {
        text.extend([" ?", query]);
    }
    text.extend([" ", version]);
    if let Some(length) = head.content_length {
        text.extend([" length=", &length.to_string()]);
    }
    for (flag, name) in [
        (head.chunked, " chunked"),
        (!head.keep_alive, " close"),
        (head.expects_continue, " expects"),
    ] {
        if flag {
            text.push_str(name);
        }
    }
    text
}

/// One request's head, body and end as a line each: `want` has `head`, then `body` in quotes, `.`
/// for the end, `!` for faults.
#[track_caller]
fn check(input: &str, want: &[&str]) {
    let seen: Vec<String> = read_all_splits(LIMITS, input.as_bytes())
        .into_iter()
        .map(|seen| match seen {
            Seen::Head(text) => text,
            Seen::Body(body) => format!("{:?}", String::from_utf8_lossy(&body)),
            Seen::End => ".".to_string(),
            Seen::Fault(fault) => format!("!{} {fault:?}", fault.status()),
        })
        .collect();
    assert_eq!(seen, want, "input={input:?}");
}

/// A request whose head holds `fields`, then `body`; `want` is the fault that ends it, before or
/// behind its head.
#[track_caller]
fn check_fault(fields: &str, body: &str, want: Fault) {
    let input = format!("POST /w HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}");
    let seen = read_all_splits(LIMITS, input.as_bytes());
    assert_eq!(seen.last(), Some(&Seen::Fault(want)), "input={input:?}");
}

#[test]
fn heads_and_targets() {
    check("GET / HTTP/1.1\r\nHost: h\r\n\r\n", &["GET / 1.1", "."]);
    check("\r\nGET / HTTP/1.1\r\nHost: h:80\r\n\r\n", &["GET / 1.1", "."]);
    check("GET /a//b/?x=1?&y HTTP/1.1\r\nHost:\r\n\r\n", &["GET /a//b/ ?x=1?&y 1.1", "."]);
    check("GET /a? HTTP/1.1\r\nhost:  [::1]:80  \r\n\r\n", &["GET /a ? 1.1", "."]);
    check("GET http://h/a?b HTTP/1.1\r\nHost: h\r\n\r\n", &["GET /a ?b 1.1", "."]);
    check("GET HTTPS://h HTTP/1.1\r\nHost: h\r\n\r\n", &["GET / 1.1", "."]);
    check("GET http://h:1?b/c HTTP/1.1\r\nHost: h\r\n\r\n", &["GET / ?b/c 1.1", "."]);
    check("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", &["OPTIONS * 1.1", "."]);
    check("DELETE /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n", &["DELETE /\u{e9} 1.1", "."]);
    check("", &[]);
    check("\r\n", &[]);
}

#[test]
fn bad_request_lines() {
    #[track_caller]
    fn check_line(line: &str, want: &str) {
        check(&format!("{line}\r\nHost: h\r\n\r\n"), &[want]);
    }
    check_line("GET /", "!400 BadRequestLine");
    check_line("\r\n\r\nGET / HTTP/1.1", "!400 BadRequestLine");
    check_line(" GET / HTTP/1.1", "!400 BadRequestLine");
    check_line("G@T / HTTP/1.1", "!400 BadRequestLine");
    check_line("GET  / HTTP/1.1", "!400 BadRequestLine");
    check_line("GET / HTTP/2.0", "!505 UnsupportedVersion");
    check_line("GET / HTTP/1.2", "!505 UnsupportedVersion");
    check_line("GET / http/1.1", "!505 UnsupportedVersion");
    check_line("GET a HTTP/1.1", "!400 BadTarget");
    check_line("GET * HTTP/1.1", "!400 BadTarget");
    check_line("GET /#a HTTP/1.1", "!400 BadTarget");
    check_line("GET ftp://h/ HTTP/1.1", "!400 BadTarget");
    check_line("GET http:///a HTTP/1.1", "!400 BadTarget");
    check_line("GET http://u@h/a HTTP/1.1", "!400 BadTarget");
    check_line("CONNECT h:80 HTTP/1.1", "!501 UnsupportedMethod");
    check_line("GET /\0 HTTP/1.1", "!400 ControlByte");
    check_line("GET / HTTP/1.1\nA: b", "!400 BareLineBreak");
    check_line("GET / HTTP/1.1\r\rA: b", "!400 BareLineBreak");
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["!505 UnsupportedVersion"]);
    check("\x16\x03\x01", &["!400 ControlByte"]);
}

#[test]
fn keep_alive_follows_the_version() {
    #[track_caller]
    fn check_connection(version: &str, fields: &str, want: &str) {
        check(&format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n"), &[want, "."]);
    }
    check_connection("1.1", "", "GET / 1.1");
    check_connection("1.1", "Connection: Close\r\n", "GET / 1.1 close");
    check_connection("1.1", "connection: te, close\r\n", "GET / 1.1 close");
    check_connection("1.1", "connection: te\r\nconnection:close\r\n", "GET / 1.1 close");
    check_connection("1.1", "connection: closed\r\n", "GET / 1.1");
    check_connection("1.0", "", "GET / 1.0 close");
    check_connection("1.0", "connection: Keep-Alive\r\n", "GET / 1.0");
    check_connection("1.0", "connection: keep-alive, close\r\n", "GET / 1.0 close");
    check("GET / HTTP/1.0\r\n\r\n", &["GET / 1.0 close", "."]);
}

#[test]
fn bodies() {
    #[track_caller]
    fn check_body(fields: &str, body: &str, want: &[&str]) {
        check(&format!("PUT /w HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}"), want);
    }
    check_body("Content-Length: 5\r\n", "hello", &["PUT /w 1.1 length=5", "\"hello\"", "."]);
    check_body("content-length:\t05 \r\n", "hello", &["PUT /w 1.1 length=5", "\"hello\"", "."]);
    check_body("Content-Length: 0\r\n", "", &["PUT /w 1.1 length=0", "."]);
    check_body("Content-Length: 9\r\n", "hello", &["PUT /w 1.1 length=9", "\"hello\""]);
    let chunked = "Transfer-Encoding: Chunked\r\n";
    let head = "PUT /w 1.1 chunked";
    check_body(chunked, "0\r\n\r\n", &[head, "."]);
    check_body(chunked, "5\r\nhello\r\n0\r\n\r\n", &[head, "\"hello\"", "."]);
    check_body(chunked, "2\r\nhe\r\n0003\r\nllo\r\n000\r\n\r\n", &[head, "\"hello\"", "."]);
    check_body(chunked, "1;a=\"b;c\"\r\nh\r\n0;x\r\n\r\n", &[head, "\"h\"", "."]);
    check_body(chunked, "1\r\n\r\r\n0\r\nA: b\r\nC:\r\n\r\n", &[head, "\"\\r\"", "."]);
    check_body(chunked, "A\r\n0123456789\r\n", &[head, "\"0123456789\""]);
}

#[test]
fn pipelined_requests_are_read_one_after_another() {
    let input = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n\
        POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab\
        POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n\
        \r\nGET /4 HTTP/1.1\r\nHost: h\r\n\r\nrubbish\n";
    let want = [
        "GET /1 1.1",
        ".",
        "POST /2 1.1 length=2",
        "\"ab\"",
        ".",
        "POST /3 1.1 chunked",
        "\"c\"",
        ".",
        "GET /4 1.1",
        ".",
        "!400 BareLineBreak",
    ];
    check(input, &want);
}

#[test]
fn bytes_behind_the_end_stay_with_the_caller() {
    let mut reader = RequestReader::new(LIMITS);
    let input = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\naGET";
    let (taken, event) = reader.read(input);
    assert_eq!((taken, event), (input.len() - 4, ReadEvent::Head));
    assert_eq!((reader.phase(), reader.body_bytes_left()), (ReadPhase::Body, Some(1)));
    assert_eq!(reader.read(b"aGET"), (1, ReadEvent::Body(b"a")));
    assert_eq!(reader.read(b"GET"), (0, ReadEvent::End));
    assert_eq!(reader.phase(), ReadPhase::Idle);
    assert_eq!(reader.head().method, "POST", "the head stays until the next one begins");
    assert_eq!(reader.read(b"GET"), (3, ReadEvent::NeedMore));
    assert_eq!(reader.phase(), ReadPhase::Head);
}

#[test]
fn expectations() {
    #[track_caller]
    fn check_expect(version: &str, fields: &str, want: &[&str]) {
        check(&format!("PUT /w HTTP/{version}\r\nHost: h\r\n{fields}\r\n"), want);
    }
    let fields = "Expect: 100-Continue\r\nContent-Length: 3\r\n";
    check_expect("1.1", fields, &["PUT /w 1.1 length=3 expects"]);
    check_expect("1.0", fields, &["PUT /w 1.0 length=3 close"]);
    check_expect("1.1", "Expect: 100-continue\r\n", &["PUT /w 1.1", "."]);
    check_expect("1.1", "Expect: tea\r\n", &["!417 UnsupportedExpectation"]);
    let both = "Expect: tea\r\nExpect: 100-continue\r\n";
    check_expect("1.1", both, &["!417 UnsupportedExpectation"]);
    check_expect("1.0", "Expect: tea\r\n", &["PUT /w 1.0 close", "."]);
}

#[test]
fn smuggling_shapes_are_refused() {
    let length = "Content-Length: 3\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    check_fault(&format!("{length}{chunked}"), "", Fault::BothLengths);
    check_fault(&format!("{chunked}{length}"), "", Fault::BothLengths);
    check_fault(&format!("{length}{length}"), "", Fault::DuplicateContentLength);
    for value in ["+3", "-3", "3 3", "3,3", "3, 3", "0x3", "", "3;", "3.0", "99999999999999999999"]
    {
        check_fault(&format!("Content-Length: {value}\r\n"), "", Fault::BadContentLength);
    }
    check_fault(&format!("{chunked}{chunked}"), "", Fault::BadTransferEncoding);
    // "chunked, identity" once was a 501, as if another server could know where its body ends.
    for value in [
        "gzip",
        "identity",
        "chunked, identity",
        "chunked,",
        "chunked, chunked",
        "chunked, gzip, chunked",
        "xchunked",
        "\"chunked\"",
        "",
    ] {
        let field = format!("Transfer-Encoding: {value}\r\n");
        check_fault(&field, "", Fault::BadTransferEncoding);
    }
    for value in ["gzip, chunked", "gzip,Chunked", ", chunked"] {
        let field = format!("Transfer-Encoding: {value}\r\n");
        check_fault(&field, "", Fault::UnsupportedTransferEncoding);
    }
    check_fault("Transfer-Encoding: \x0bchunked\r\n", "", Fault::ControlByte);
    check_fault("Transfer-Encoding : chunked\r\n", "", Fault::BadHeader);
    check_fault("Transfer-Encoding\r\n", "", Fault::BadHeader);
    check_fault(": a\r\n", "", Fault::BadHeader);
    check_fault("A\u{e9}: b\r\n", "", Fault::BadHeader);
    check_fault("A: b\r\n c\r\n", "", Fault::FoldedHeader);
    check_fault("A: b\r\n\tc: d\r\n", "", Fault::FoldedHeader);
    check_fault("A: b\0\r\n", "", Fault::ControlByte);
    check_fault("A: b\nC: d\r\n", "", Fault::BareLineBreak);
    check_fault("A: b\rC: d\r\n", "", Fault::BareLineBreak);
    check_fault("Host: h\r\n", "", Fault::DuplicateHost);
    let http10 = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(http10, &["!400 BadTransferEncoding"]);
    check("GET / HTTP/1.1\r\nA: b\r\n\r\n", &["!400 MissingHost"]);
    check("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", &["!400 BadHost"]);
    check("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", &["!400 BadHost"]);
    check("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", &["!400 BadHost"]);
}

#[test]
fn bad_chunks_are_refused() {
    #[track_caller]
    fn check_chunks(body: &str, want: Fault) {
        check_fault("Transfer-Encoding: chunked\r\n", body, want);
    }
    for size in ["", ";a", "0x1", "+1", "-1", " 1", "1 ", "1 ;a", "g", "00000000000000001", "\t1"] {
        check_chunks(&format!("{size}\r\nh\r\n0\r\n\r\n"), Fault::BadChunkSize);
    }
    check_chunks("1\nh\r\n0\r\n\r\n", Fault::BadChunkSize);
    check_chunks("1\rh\r\n0\r\n\r\n", Fault::BareLineBreak);
    check_chunks("1;a\nh\r\n0\r\n\r\n", Fault::BareLineBreak);
    check_chunks("1;a\rb\r\nh\r\n0\r\n\r\n", Fault::BareLineBreak);
    check_chunks("1;\0\r\nh\r\n0\r\n\r\n", Fault::ControlByte);
    check_chunks("1\r\nhe\r\n0\r\n\r\n", Fault::BadChunkEnd);
    check_chunks("1\r\nh\n0\r\n\r\n", Fault::BadChunkEnd);
    check_chunks("1\r\nh\r0\r\n\r\n", Fault::BadChunkEnd);
    check_chunks("1\r\nh0\r\n\r\n", Fault::BadChunkEnd);
    check_chunks("0\r\n\n", Fault::BareLineBreak);
    check_chunks("0\r\n\rx", Fault::BareLineBreak);
    check_chunks("0\r\nA: b\n\r\n", Fault::BareLineBreak);
    check_chunks("0\r\nA: b\rc\r\n\r\n", Fault::BareLineBreak);
    check_chunks("0\r\nA : b\r\n\r\n", Fault::BadTrailer);
    check_chunks("0\r\nGET / HTTP/1.1\r\n\r\n", Fault::BadTrailer);
    check_chunks("0\r\nA\r\n\r\n", Fault::BareLineBreak);
    check_chunks("0\r\n: b\r\n\r\n", Fault::BadTrailer);
    check_chunks("0\r\n a: b\r\n\r\n", Fault::FoldedHeader);
    check_chunks("0\r\nA: \x7f\r\n\r\n", Fault::ControlByte);
}

#[test]
fn limits_hold_at_their_edges() {
    let head = |target_bytes: usize| {
        format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(target_bytes - 1))
    };
    let edge = LIMITS.head_bytes_max - head(1).len() + 1;
    assert_eq!(head(edge).len(), LIMITS.head_bytes_max);
    assert!(read_all_splits(LIMITS, head(edge).as_bytes()).ends_with(&[Seen::End]));
    let head_bytes_max = LIMITS.head_bytes_max;
    let target_only = format!("GET /{}", "a".repeat(head_bytes_max));
    check(&target_only, &[&format!("!414 {:?}", Fault::TargetTooLong { head_bytes_max })]);
    check(&head(edge + 1), &[&format!("!431 {:?}", Fault::HeadTooLarge { head_bytes_max })]);

    let fields = |count: usize| "A: b\r\n".repeat(count);
    let headers_max = LIMITS.headers_max;
    check_fault(&fields(headers_max), "", Fault::TooManyHeaders { headers_max });
    check(
        &format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", fields(headers_max - 1)),
        &["GET / 1.1", "."],
    );

    let body_bytes_max = LIMITS.body_bytes_max;
    let too_large = Fault::BodyTooLarge { body_bytes_max };
    check_fault("Content-Length: 41\r\n", "", too_large);
    check_fault("Content-Length: 9999999999999999999\r\n", "", too_large);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let chunk = |size: usize| format!("{size:x}\r\n{}\r\n", "a".repeat(size));
    check_fault(chunked, "29\r\n", too_large);
    check_fault(chunked, &format!("{}{}", chunk(40), chunk(1)), too_large);
    check_fault(chunked, "1\r\na\r\nffffffffffffffff\r\n", too_large);
    let input = format!("POST / HTTP/1.1\r\nHost: h\r\n{chunked}\r\n{}0\r\n\r\n", chunk(40));
    assert!(read_all_splits(LIMITS, input.as_bytes()).ends_with(&[Seen::End]));
}

#[test]
fn limits_of_chunk_framing_hold_for_the_whole_body() {
    #[track_caller]
    fn check_sent(body: &str, want: &Seen) {
        let input =
            format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let seen = read_pieces(LIMITS, [input.as_bytes()]);
        assert_eq!(seen.last(), Some(want));
        assert_eq!(read_pieces(LIMITS, input.as_bytes().chunks(7)), seen);
    }
    // Extensions count with their CR, trailers with all line ends but the body's last LF.
    let chunk = |extension: usize| format!("1;{}\r\na\r\n", "x".repeat(extension - 1));
    let extension_bytes_max = crate::http::chunked::EXTENSION_BYTES_MAX;
    let fault = Seen::Fault(Fault::ChunkExtensionsTooLong { extension_bytes_max });
    check_sent(&format!("{}{}0\r\n\r\n", chunk(2048), chunk(2048)), &Seen::End);
    check_sent(&format!("{}{}0\r\n\r\n", chunk(2048), chunk(2049)), &fault);
    let trailer = |bytes: usize| format!("0\r\na: {}\r\n\r\n", "x".repeat(bytes - 6));
    let trailer_bytes_max = crate::http::chunked::TRAILER_BYTES_MAX;
    let fault = Seen::Fault(Fault::TrailersTooLarge { trailer_bytes_max });
    check_sent(&trailer(4096), &Seen::End);
    check_sent(&trailer(4097), &fault);
}

#[test]
fn the_caller_sets_the_limit_of_each_body() {
    #[track_caller]
    fn check_limit(body_bytes_max: u64, want: Result<(), Fault>) {
        let mut reader = RequestReader::new(LIMITS);
        let input = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 41\r\n\r\n";
        assert_eq!(reader.read(input), (input.len(), ReadEvent::Head));
        assert_eq!(reader.limit_body(body_bytes_max), want);
        let event = reader.read(b"a").1;
        assert_eq!(event, want.map_or_else(ReadEvent::Fault, |()| ReadEvent::Body(b"a")));
    }
    check_limit(41, Ok(()));
    check_limit(40, Err(Fault::BodyTooLarge { body_bytes_max: 40 }));
    check_limit(0, Err(Fault::BodyTooLarge { body_bytes_max: 0 }));
}

#[test]
fn header_fields_in_the_order_sent() {
    // Red when spaces around a value stay, or a name twice is there once.
    let mut reader = RequestReader::new(LIMITS);
    let input =
        b"GET / HTTP/1.1\r\nHost: h\r\nX-A:  one \r\nx-a: two\r\nEmpty:\r\nhigh: \xff\r\n\r\n";
    assert_eq!(reader.read(input), (input.len(), ReadEvent::Head));
    let head = reader.head();
    let fields: Vec<_> = head.headers().collect();
    let want: [(&str, &[u8]); 5] =
        [("Host", b"h"), ("X-A", b"one"), ("x-a", b"two"), ("Empty", b""), ("high", b"\xff")];
    assert_eq!(fields, want);
}

mod random;
