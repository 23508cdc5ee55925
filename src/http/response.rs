//! Answers -> bytes. In: values. Out: appended to the connection's buffer; nothing is allocated but
//! its growth.
//!
//! This file alone decides about framing: `connection`, `content-length` and `transfer-encoding`
//! among the given headers are left out, so an answer of the control plane cannot contradict the
//! bytes that follow.

use super::fault::HttpFault;

/// Tells a client that waits for it to send the body.
pub const CONTINUE_RESPONSE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The content type of our own texts.
pub const TEXT_PLAIN: &str = "text/plain; charset=utf-8";

/// A header field of an answer.
pub type Header<'a> = (&'a str, &'a [u8]);

/// What an answer's head says about its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// No body and no length: 204 and 304.
    None,
    /// So many bytes follow; after `HEAD` they are only stated.
    Known(u64),
    /// Chunks follow. For HTTP/1.1 clients only.
    Chunked,
    /// What follows ends with the connection, which is not kept: a stream to an HTTP/1.0 client.
    UntilClose,
}

/// The first lines of an answer.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead {
    /// 200 to 599.
    pub status: u16,
    /// Whether the connection is kept.
    pub keep_alive: bool,
    /// How the body is delimited.
    pub body: BodyLength,
}

/// A whole answer.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// 200 to 599.
    pub status: u16,
    /// Left out if there is no body.
    pub content_type: &'a str,
    /// More header fields: `allow`, `retry-after`.
    pub headers: &'a [Header<'a>],
    /// All of it.
    pub body: &'a [u8],
    /// Whether the connection is kept.
    pub keep_alive: bool,
}

/// Appends an answer's head, its last empty line included.
pub fn encode_head<'a>(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    headers: impl IntoIterator<Item = Header<'a>>,
) {
    assert!((200..600).contains(&head.status));
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(digits.format(head.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(head.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        encode_header(out, name, value);
    }
    match head.body {
        BodyLength::None | BodyLength::UntilClose => {}
        BodyLength::Known(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(digits.format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        BodyLength::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    // Said even where HTTP/1.1 implies it: an HTTP/1.0 client that asked to keep the connection
    // waits for the word.
    let keep_alive = head.keep_alive && head.body != BodyLength::UntilClose;
    out.extend_from_slice(if keep_alive {
        b"connection: keep-alive\r\n\r\n"
    } else {
        b"connection: close\r\n\r\n"
    });
}

/// Appends a whole answer.
pub fn encode_response(out: &mut Vec<u8>, response: &Response<'_>) {
    encode_response_to_head(out, response);
    if !is_bodiless(response.status) {
        out.extend_from_slice(response.body);
    }
}

/// Appends the answer to a `HEAD`: that of `GET`, its length too, without the body.
pub fn encode_response_to_head(out: &mut Vec<u8>, response: &Response<'_>) {
    let has_content = !is_bodiless(response.status) && !response.body.is_empty();
    let content_type =
        has_content.then_some(("content-type", response.content_type.as_bytes())).into_iter();
    let body = if is_bodiless(response.status) {
        BodyLength::None
    } else {
        BodyLength::Known(response.body.len() as u64)
    };
    let head = ResponseHead { status: response.status, keep_alive: response.keep_alive, body };
    encode_head(out, &head, content_type.chain(response.headers.iter().copied()));
}

/// Appends the answer to a request that cannot be read. The connection is to be closed behind it.
pub fn encode_fault(out: &mut Vec<u8>, fault: HttpFault) {
    let text = fault.to_string();
    encode_response(
        out,
        &Response {
            status: fault.status(),
            content_type: TEXT_PLAIN,
            headers: &[],
            body: text.as_bytes(),
            keep_alive: false,
        },
    );
}

/// Appends a chunk. Nothing at all for no bytes: an empty chunk would end the body.
pub fn encode_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    encode_chunk_head(out, bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(CHUNK_END);
}

/// What follows the bytes of each chunk, for a caller that sends them from where they lie.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Appends the line before a chunk of `len_bytes`, which is not zero.
pub fn encode_chunk_head(out: &mut Vec<u8>, len_bytes: usize) {
    assert!(len_bytes > 0);
    let digits = (usize::BITS - len_bytes.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(len_bytes >> (place * 4)) & 0xf]);
    }
    out.extend_from_slice(CHUNK_END);
}

/// Appends the end of a chunked body.
pub fn encode_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// Whether an answer of this status never has a body.
pub fn is_bodiless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

/// The words behind a status, empty for one that we do not use.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

fn encode_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let is_framing = ["connection", "content-length", "transfer-encoding", "keep-alive"]
        .iter()
        .any(|framing| name.eq_ignore_ascii_case(framing));
    // A line break in a value would let whoever chose it write the rest of the answer.
    let is_broken = name.bytes().chain(value.iter().copied()).any(|b| matches!(b, 0 | 10 | 13));
    if is_framing || is_broken || name.is_empty() {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_answers() {
        #[track_caller]
        fn check(status: u16, body: &str, keep_alive: bool, want: &str) {
            let headers: &[Header<'_>] = &[("retry-after", b"5")];
            let body = body.as_bytes();
            let response = Response { status, content_type: TEXT_PLAIN, headers, body, keep_alive };
            let mut out = Vec::new();
            encode_response(&mut out, &response);
            assert_eq!(String::from_utf8_lossy(&out), want);
        }
        check(
            204,
            "",
            true,
            "HTTP/1.1 204 No Content\r\nretry-after: 5\r\nconnection: keep-alive\r\n\r\n",
        );
        check(
            204,
            "never sent",
            false,
            "HTTP/1.1 204 No Content\r\nretry-after: 5\r\nconnection: close\r\n\r\n",
        );
        check(
            400,
            "bad",
            false,
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
             retry-after: 5\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad",
        );
        check(
            200,
            "",
            true,
            "HTTP/1.1 200 OK\r\nretry-after: 5\r\ncontent-length: 0\r\n\
             connection: keep-alive\r\n\r\n",
        );
    }

    #[test]
    fn answer_to_head_states_the_length_only() {
        let response = Response {
            status: 200,
            content_type: "text/html",
            headers: &[],
            body: b"12345",
            keep_alive: true,
        };
        let mut out = Vec::new();
        encode_response_to_head(&mut out, &response);
        let want = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\
            connection: keep-alive\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), want);
    }

    #[test]
    fn framing_is_decided_here() {
        #[track_caller]
        fn check(body: BodyLength, want: &str) {
            let head = ResponseHead { status: 200, keep_alive: true, body };
            let headers: [Header<'_>; 6] = [
                ("Content-Length", b"99"),
                ("transfer-encoding", b"gzip"),
                ("Connection", b"upgrade"),
                ("x-split", b"a\r\nset-cookie: b"),
                ("x-\nname", b"a"),
                ("x-kept", b"caf\xe9"),
            ];
            let mut out = Vec::new();
            encode_head(&mut out, &head, headers);
            let want = format!("HTTP/1.1 200 OK\r\nx-kept: caf\u{fffd}\r\n{want}\r\n\r\n");
            assert_eq!(String::from_utf8_lossy(&out), want);
        }
        check(BodyLength::Known(7), "content-length: 7\r\nconnection: keep-alive");
        check(BodyLength::None, "connection: keep-alive");
        check(BodyLength::Chunked, "transfer-encoding: chunked\r\nconnection: keep-alive");
        check(BodyLength::UntilClose, "connection: close");
    }

    #[test]
    fn chunks() {
        #[track_caller]
        fn check(len_bytes: usize, want: &str) {
            let mut out = Vec::new();
            encode_chunk(&mut out, &vec![b'x'; len_bytes]);
            let want = match len_bytes {
                0 => String::new(),
                _ => format!("{want}\r\n{}\r\n", "x".repeat(len_bytes)),
            };
            assert_eq!(String::from_utf8_lossy(&out), want);
        }
        check(0, "");
        check(1, "1");
        check(15, "f");
        check(16, "10");
        check(4095, "fff");
        check(4096, "1000");
    }
}
