//! A whole request head -> what it asks for, and how its body is framed. Stage between `scan` and
//! the body.
//!
//! In: the bytes that `scan` delimited. Out: spans into them, so that a head is kept in one buffer
//! that is used again. Refused is whatever a proxy in front could read differently: RFC 9112, 6.3
//! and 11.2, in the strictest reading.

use std::mem::MaybeUninit;

use super::fault::HttpFault;

/// Header fields that can be parsed at all; [`super::reader::HttpLimits`] may ask for fewer.
pub const HEADERS_MAX: usize = 64;

/// 19 digits are always a `u64`.
const LENGTH_DIGITS_MAX: usize = 19;

/// The protocol's version as the request states it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0: closes unless asked to keep the connection, knows no chunks.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// What a request asks for. Borrows the reader's buffer.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// As sent: methods are case-sensitive.
    pub method: &'a str,
    /// The target up to `?`, not decoded and not normalised. `*` for `OPTIONS *`; the path only, of
    /// a whole URL.
    pub path: &'a str,
    /// The target behind `?`.
    pub query: Option<&'a str>,
    /// The protocol's version.
    pub version: HttpVersion,
    /// The declared length of the body. `None` with `chunked`, or if there is no body.
    pub content_length: Option<u64>,
    /// Whether the body comes in chunks.
    pub chunked: bool,
    /// Whether the client means to send another request after this.
    pub keep_alive: bool,
    /// Whether the client waits for [`super::response::CONTINUE_RESPONSE`] before it sends the
    /// body.
    pub expects_continue: bool,
    parsed: &'a ParsedHead,
}

impl<'a> RequestHead<'a> {
    /// All header fields in the order sent.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let parsed = self.parsed;
        parsed.fields.iter().map(|field| (parsed.text(field.name), parsed.slice(field.value)))
    }
}

/// A head as spans into its own bytes. Used again, request after request.
#[derive(Debug, Default)]
pub struct ParsedHead {
    bytes: Vec<u8>,
    is_parsed: bool,
    fields: Vec<FieldSpan>,
    method: Span,
    path: Span,
    query: Option<Span>,
    version: HttpVersion,
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
}

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    #[default]
    NoBody,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// Positions in [`ParsedHead::bytes`].
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
struct FieldSpan {
    name: Span,
    value: Span,
}

impl ParsedHead {
    /// Forgets the head and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.is_parsed = false;
    }

    /// Appends bytes that belong to the head.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Parses what was pushed, a head that `scan` found to be whole.
    pub fn parse(&mut self, headers_max: usize) -> Result<(), HttpFault> {
        self.fields.clear();
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let headers = &mut headers[..headers_max.min(HEADERS_MAX)];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(&self.bytes, headers) {
            Ok(httparse::Status::Complete(len)) if len == self.bytes.len() => {}
            // `scan` saw another end than httparse: nobody may act on such a head.
            Ok(_) => return Err(HttpFault::BadHeader),
            Err(error) => return Err(fault_of(error, headers_max)),
        }
        let (Some(method), Some(target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(HttpFault::BadRequestLine);
        };
        let mut seen = SeenFields::default();
        for header in request.headers.iter() {
            seen.take(header.name, header.value)?;
            self.fields.push(FieldSpan {
                name: Span::of(&self.bytes, header.name.as_bytes()),
                value: Span::of(&self.bytes, header.value),
            });
        }
        self.version = if minor == 0 { HttpVersion::Http10 } else { HttpVersion::Http11 };
        self.framing = seen.framing(self.version)?;
        seen.check_host(self.version)?;
        self.keep_alive = !seen.close && (self.version == HttpVersion::Http11 || seen.keep_alive);
        self.expects_continue = seen.expects_continue(self.version, self.framing)?;
        let (path, query) = split_target(method, target)?;
        self.method = Span::of(&self.bytes, method.as_bytes());
        self.query = query.map(|query| Span::of(&self.bytes, query.as_bytes()));
        // "http://host" asks for "/", of which the target has none, but the scheme has.
        let slash = target.find('/').map_or("", |at| &target[at..=at]);
        let path = if path.is_empty() { slash } else { path };
        self.path = Span::of(&self.bytes, path.as_bytes());
        self.is_parsed = true;
        Ok(())
    }

    /// The head as values.
    pub fn request_head(&self) -> RequestHead<'_> {
        assert!(self.is_parsed, "no whole head has been read");
        RequestHead {
            method: self.text(self.method),
            path: self.text(self.path),
            query: self.query.map(|query| self.text(query)),
            version: self.version,
            content_length: match self.framing {
                Framing::Length(length) => Some(length),
                Framing::NoBody | Framing::Chunked => None,
            },
            chunked: self.framing == Framing::Chunked,
            keep_alive: self.keep_alive,
            expects_continue: self.expects_continue,
            parsed: self,
        }
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.end]
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.slice(span)).expect("httparse gave it as a str")
    }
}

impl Span {
    /// Where `part` lies in `whole`, of which it is a slice.
    fn of(whole: &[u8], part: &[u8]) -> Self {
        if part.is_empty() {
            return Self::default();
        }
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        assert!(start + part.len() <= whole.len());
        Self { start, end: start + part.len() }
    }
}

fn fault_of(error: httparse::Error, headers_max: usize) -> HttpFault {
    match error {
        httparse::Error::Token => HttpFault::BadRequestLine,
        httparse::Error::Version => HttpFault::UnsupportedVersion,
        httparse::Error::TooManyHeaders => HttpFault::TooManyHeaders { headers_max },
        _ => HttpFault::BadHeader,
    }
}

/// The header fields that decide about framing and the connection.
#[derive(Default)]
struct SeenFields {
    content_length: Option<u64>,
    transfer_encoding: Option<TransferEncoding>,
    has_host: bool,
    close: bool,
    keep_alive: bool,
    expectation: Option<Expectation>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TransferEncoding {
    Chunked,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expectation {
    Continue,
    Other,
}

impl SeenFields {
    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), HttpFault> {
        // By length first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => self.take_host(value),
            6 if name.eq_ignore_ascii_case("expect") => {
                let is_continue = value.eq_ignore_ascii_case(b"100-continue");
                let is_other = !is_continue || self.expectation == Some(Expectation::Other);
                self.expectation =
                    Some(if is_other { Expectation::Other } else { Expectation::Continue });
                Ok(())
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
                Ok(())
            }
            14 if name.eq_ignore_ascii_case("content-length") => self.take_length(value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => self.take_encoding(value),
            _ => Ok(()),
        }
    }

    fn take_host(&mut self, value: &[u8]) -> Result<(), HttpFault> {
        if self.has_host {
            return Err(HttpFault::DuplicateHost);
        }
        self.has_host = true;
        if value.iter().copied().all(is_host_byte) { Ok(()) } else { Err(HttpFault::BadHost) }
    }

    fn take_length(&mut self, value: &[u8]) -> Result<(), HttpFault> {
        if self.content_length.is_some() {
            return Err(HttpFault::DuplicateContentLength);
        }
        if value.is_empty()
            || value.len() > LENGTH_DIGITS_MAX
            || !value.iter().all(u8::is_ascii_digit)
        {
            return Err(HttpFault::BadContentLength);
        }
        let length = value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        self.content_length = Some(length);
        Ok(())
    }

    fn take_encoding(&mut self, value: &[u8]) -> Result<(), HttpFault> {
        if self.transfer_encoding.is_some() {
            return Err(HttpFault::BadTransferEncoding);
        }
        let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
        // RFC 9112, 6.1 and 6.3: chunked comes last and once, or nobody can tell where the body
        // ends.
        let mut codings = value.rsplit(|&byte| byte == b',');
        if !codings.next().is_some_and(is_chunked) || codings.any(is_chunked) {
            return Err(HttpFault::BadTransferEncoding);
        }
        let is_only = value.eq_ignore_ascii_case(b"chunked");
        self.transfer_encoding =
            Some(if is_only { TransferEncoding::Chunked } else { TransferEncoding::Other });
        Ok(())
    }

    fn framing(&self, version: HttpVersion) -> Result<Framing, HttpFault> {
        match (self.content_length, self.transfer_encoding) {
            (None, None) => Ok(Framing::NoBody),
            (Some(length), None) => Ok(Framing::Length(length)),
            (Some(_), Some(_)) => Err(HttpFault::BothLengths),
            (None, Some(_)) if version == HttpVersion::Http10 => {
                Err(HttpFault::BadTransferEncoding)
            }
            (None, Some(TransferEncoding::Other)) => Err(HttpFault::UnsupportedTransferEncoding),
            (None, Some(TransferEncoding::Chunked)) => Ok(Framing::Chunked),
        }
    }

    fn check_host(&self, version: HttpVersion) -> Result<(), HttpFault> {
        if self.has_host || version == HttpVersion::Http10 {
            Ok(())
        } else {
            Err(HttpFault::MissingHost)
        }
    }

    /// RFC 9110, 10.1.1: of no meaning in HTTP/1.0, nor without a body.
    fn expects_continue(&self, version: HttpVersion, framing: Framing) -> Result<bool, HttpFault> {
        match self.expectation {
            None => Ok(false),
            Some(_) if version == HttpVersion::Http10 => Ok(false),
            Some(Expectation::Other) => Err(HttpFault::UnsupportedExpectation),
            Some(Expectation::Continue) => {
                Ok(!matches!(framing, Framing::NoBody | Framing::Length(0)))
            }
        }
    }
}

/// `uri-host [ ":" port ]` of RFC 3986, by its bytes.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// The path and query of a target; the path is empty for a URL that has none.
fn split_target<'a>(
    method: &str,
    target: &'a str,
) -> Result<(&'a str, Option<&'a str>), HttpFault> {
    if method == "CONNECT" {
        return Err(HttpFault::UnsupportedMethod);
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok((target, None)) } else { Err(HttpFault::BadTarget) };
    }
    // A fragment is never sent; who sends one wants two readers to see two paths.
    if target.contains('#') {
        return Err(HttpFault::BadTarget);
    }
    let path_and_query = match target.as_bytes().first() {
        Some(b'/') => target,
        _ => behind_authority(target).ok_or(HttpFault::BadTarget)?,
    };
    match path_and_query.split_once('?') {
        Some((path, query)) => Ok((path, Some(query))),
        None => Ok((path_and_query, None)),
    }
}

/// What follows the host of an http URL.
fn behind_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(end);
    let is_host = !authority.is_empty() && authority.bytes().all(is_host_byte);
    is_host.then_some(path_and_query)
}
