//! One client's connection: received bytes in, one whole request at a time out, answers back in
//! order. No I/O.
//!
//! A request is handed out when its body is complete; what a client pipelines behind it waits in
//! `unread` until the answer is given, and past [`UNREAD_BYTES_MAX`] the caller stops receiving.
//! Answers gather in `output`.
//! Not here: sockets (`shard`), what a body means (`ingest`), deadlines' lengths
//! (`http::deadline`).

use crate::gateway::endpoint::{self, Encoding, Endpoint, Route};
use crate::gateway::reply::{BodyFault, Reply, reply_to_body_fault};
use crate::http::deadline::Phase;
use crate::http::fault::HttpFault;
use crate::http::head::{HttpVersion, RequestHead};
use crate::http::reader::{HttpLimits, ReadEvent, ReadPhase, RequestReader};
use crate::http::response::{self, BodyLength, ResponseHead};
use crate::model::refusal::Refusal;
use bytes::Bytes;

/// Bytes behind a request that are kept while it is being answered; more stay in the socket.
pub const UNREAD_BYTES_MAX: usize = 256 << 10;
/// Answers that wait for a client to take them: beyond this nothing more is read from it.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Longest body of a request for the control plane (forms and small uploads).
const CONTROL_BODY_BYTES_MAX: u64 = 4 << 20;
/// A body buffer above this is freed after its request.
const SPARE_BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes of one send.
const SEND_BYTES_MAX: usize = 1 << 20;
/// A declared length reserves at most this much before its bytes arrive.
const RESERVE_BYTES_MAX: u64 = 1 << 20;

/// A connection's state between its socket and its requests.
pub struct Connection {
    reader: RequestReader,
    state: State,
    body: Vec<u8>,
    unread: Vec<u8>,
    output: Vec<u8>,
    keep_alive: bool,
    version: HttpVersion,
    is_head: bool,
    control_head: Option<http::Request<()>>,
    /// Answers that it gave by itself since they were last asked for.
    own_answers: OwnAnswers,
}

/// How many answers a connection gave before a request was whole, by what they were for.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnAnswers {
    /// To ingest paths: 405 and 415.
    pub refused_heads: u32,
    /// To ingest paths: 204 to `OPTIONS`.
    pub options: u32,
    /// To ingest paths: 503, the memory for requests is in use.
    pub overloaded: u32,
    /// To what could not be read.
    pub faults: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In or between heads.
    Head,
    /// In the body of a request for `Target`.
    Body(Target),
    /// A whole request was handed out and has no answer yet.
    Waiting,
    /// The control plane's answer is under way.
    Streaming { chunked: bool },
    /// Nothing more is read; the connection ends when the output is sent.
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Ingest(Endpoint, Encoding),
    Control,
}

/// What [`Connection::read`] came to.
#[derive(Debug)]
pub enum Step {
    /// All input is taken; there may be output.
    NeedMore,
    /// A whole ingest request: take its body by [`Connection::take_body`], answer by
    /// [`Connection::answer`].
    Ingest(Endpoint, Encoding),
    /// A whole request for the control plane.
    Control(Box<http::Request<Bytes>>),
    /// The connection ends when its output is sent.
    Close,
}

/// What the shard decides for all of its connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionRules {
    /// Limits of heads; the body limit is below.
    pub http: HttpLimits,
    /// Longest ingest body as received. What it unpacks to has the same limit.
    pub body_bytes_max: u64,
    /// Whether a new ingest request would go beyond the memory for requests: it is refused before
    /// its body.
    pub is_overloaded: bool,
}

impl Connection {
    /// A fresh connection.
    pub fn new(limits: HttpLimits) -> Self {
        Self {
            reader: RequestReader::new(limits),
            state: State::Head,
            body: Vec::new(),
            unread: Vec::new(),
            output: Vec::new(),
            keep_alive: true,
            version: HttpVersion::Http11,
            is_head: false,
            control_head: None,
            own_answers: OwnAnswers::default(),
        }
    }

    /// Takes received bytes; what cannot be read yet, because an answer is due first, is kept.
    pub fn handle_bytes(&mut self, input: &[u8], rules: &ConnectionRules) -> Step {
        if self.unread.is_empty() {
            let (taken, step) = self.read(input, rules);
            self.unread.extend_from_slice(&input[taken..]);
            return step;
        }
        self.unread.extend_from_slice(input);
        self.handle_unread(rules)
    }

    /// Goes on with what was kept, after an answer.
    pub fn handle_unread(&mut self, rules: &ConnectionRules) -> Step {
        let input = std::mem::take(&mut self.unread);
        let (taken, step) = self.read(&input, rules);
        self.unread = input;
        self.unread.drain(..taken);
        step
    }

    /// Reads until a request is whole, nothing is left or the connection ends; returns how many
    /// bytes it took.
    fn read(&mut self, input: &[u8], rules: &ConnectionRules) -> (usize, Step) {
        let mut taken = 0;
        loop {
            match self.state {
                State::Waiting | State::Streaming { .. } => return (taken, Step::NeedMore),
                State::Closing => return (input.len(), Step::Close),
                // The next request waits in `unread` until the client has taken its answers.
                State::Head if self.is_output_full() && self.reader.phase() == ReadPhase::Idle => {
                    return (taken, Step::NeedMore);
                }
                State::Head | State::Body(_) => {}
            }
            let (len, event) = self.reader.read(&input[taken..]);
            taken += len;
            match event {
                ReadEvent::NeedMore => return (taken, Step::NeedMore),
                ReadEvent::Head => self.handle_head(rules),
                ReadEvent::Body(piece) => self.body.extend_from_slice(piece),
                ReadEvent::End => {
                    if let Some(step) = self.handle_end() {
                        return (taken, step);
                    }
                }
                ReadEvent::Fault(fault) => {
                    self.refuse(fault);
                    return (input.len(), Step::Close);
                }
            }
        }
    }

    fn handle_head(&mut self, rules: &ConnectionRules) {
        let head = self.reader.head();
        self.keep_alive = head.keep_alive;
        self.version = head.version;
        self.is_head = head.method == "HEAD";
        let (target, body_bytes_max) = match endpoint::route(head.method, head.path) {
            Route::Control => {
                self.control_head = Some(control_head(&head));
                (Ok(Target::Control), CONTROL_BODY_BYTES_MAX)
            }
            Route::MethodNotAllowed { allow } => (Err(Reply::of_method_not_allowed(allow)), 0),
            Route::Options { allow } => (Err(Reply::of_options(allow)), 0),
            Route::Ingest(endpoint) => (check_ingest(endpoint, &head, rules), rules.body_bytes_max),
        };
        let expects_continue = head.expects_continue;
        match target {
            Ok(target) => {
                self.state = State::Body(target);
                if let Err(fault) = self.reader.limit_body(body_bytes_max) {
                    self.refuse(fault);
                    return;
                }
                let len_bytes = self.reader.body_bytes_left().unwrap_or(0).min(RESERVE_BYTES_MAX);
                self.body.reserve(usize::try_from(len_bytes).unwrap_or(0));
                if expects_continue && self.reader.body_bytes_left() != Some(0) {
                    self.output.extend_from_slice(response::CONTINUE_RESPONSE);
                }
            }
            Err(reply) => {
                // An unwanted body is not read: the connection ends instead, unless there is none.
                self.keep_alive &= self.reader.body_bytes_left() == Some(0);
                match reply.status {
                    204 => self.own_answers.options += 1,
                    503 => self.own_answers.overloaded += 1,
                    _ => self.own_answers.refused_heads += 1,
                }
                self.answer(&reply);
            }
        }
    }

    /// A request is complete. None: it was answered at its head.
    fn handle_end(&mut self) -> Option<Step> {
        let State::Body(target) = self.state else { return None };
        self.state = State::Waiting;
        Some(match target {
            Target::Ingest(endpoint, encoding) => Step::Ingest(endpoint, encoding),
            Target::Control => {
                let body = Bytes::from(std::mem::take(&mut self.body));
                let head = self.control_head.take().expect("kept at the head");
                Step::Control(Box::new(head.map(|()| body)))
            }
        })
    }

    /// The body of the request that was handed out. Give it back by [`Connection::keep_body`] to
    /// use its memory again.
    pub fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body)
    }

    /// Keeps a body's memory for the next request.
    pub fn keep_body(&mut self, mut body: Vec<u8>) {
        if body.capacity() <= SPARE_BODY_BYTES_MAX {
            body.clear();
            self.body = body;
        }
    }

    /// Answers the request; afterwards go on by [`Connection::handle_unread`].
    pub fn answer(&mut self, reply: &Reply) {
        let method = if self.is_head { "HEAD" } else { "GET" };
        reply.encode(&mut self.output, method, self.keep_alive);
        self.state = if self.keep_alive { State::Head } else { State::Closing };
    }

    /// Refuses what the connection says, and ends it.
    pub fn refuse(&mut self, fault: HttpFault) {
        self.keep_alive = false;
        self.own_answers.faults += 1;
        response::encode_fault(&mut self.output, fault);
        self.state = State::Closing;
    }

    /// Begins an answer of the control plane, with the length that its headers declare, if they do.
    pub fn begin_stream(&mut self, status: u16, headers: &[(Bytes, Bytes)]) {
        let len_bytes = headers
            .iter()
            .find(|(name, _)| name.as_ref() == b"content-length")
            .and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok());
        let headers = headers
            .iter()
            .filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value.as_ref())));
        let body = match len_bytes {
            _ if status == 204 || status == 304 => BodyLength::None,
            Some(len_bytes) => BodyLength::Known(len_bytes),
            None if self.version == HttpVersion::Http11 => BodyLength::Chunked,
            None => {
                self.keep_alive = false;
                BodyLength::UntilClose
            }
        };
        let head = ResponseHead { status, keep_alive: self.keep_alive, body };
        response::encode_head(&mut self.output, &head, headers);
        self.state = State::Streaming { chunked: body == BodyLength::Chunked };
    }

    /// Appends a piece of the answer.
    pub fn stream(&mut self, piece: &[u8]) {
        let State::Streaming { chunked } = self.state else { return };
        if self.is_head || piece.is_empty() {
            return;
        }
        if chunked {
            response::encode_chunk(&mut self.output, piece);
        } else {
            self.output.extend_from_slice(piece);
        }
    }

    /// The answer is whole. Afterwards go on by [`Connection::handle_unread`].
    pub fn end_stream(&mut self) {
        if let State::Streaming { chunked: true } = self.state
            && !self.is_head
        {
            response::encode_last_chunk(&mut self.output);
        }
        self.state = if self.keep_alive { State::Head } else { State::Closing };
    }

    /// The answer broke off: the client must see that it is not whole, so the connection ends here.
    pub fn abort(&mut self) {
        self.keep_alive = false;
        self.state = State::Closing;
    }

    /// No further request is taken on this connection.
    pub fn drain(&mut self) {
        self.keep_alive = false;
        if self.state == State::Head
            && self.reader.phase() == ReadPhase::Idle
            && self.unread.is_empty()
        {
            self.state = State::Closing;
        }
    }

    /// Bytes to send.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Takes bytes to send, at most [`SEND_BYTES_MAX`] at a time so that a slow client's progress
    /// is
    /// seen; `memory` becomes the next output buffer.
    pub fn take_output(&mut self, mut memory: Vec<u8>) -> Vec<u8> {
        memory.clear();
        if self.output.len() > SEND_BYTES_MAX {
            memory.extend_from_slice(&self.output[SEND_BYTES_MAX..]);
            self.output.truncate(SEND_BYTES_MAX);
        }
        std::mem::replace(&mut self.output, memory)
    }

    /// Whether the caller should stop receiving until the answer is out.
    pub fn is_full(&self) -> bool {
        self.unread.len() >= UNREAD_BYTES_MAX || self.is_output_full()
    }

    fn is_output_full(&self) -> bool {
        self.output.len() >= OUTPUT_BYTES_MAX
    }

    /// Whether bytes wait behind an answer: one that is due, or those that the client is to take.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Whether a request's body is being read.
    pub fn is_in_body(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    /// Ends the request whose body is being read with `reply`, frees what there is of it, and ends
    /// the connection.
    pub fn break_off(&mut self, reply: &Reply) {
        self.keep_alive = false;
        self.body = Vec::new();
        self.unread = Vec::new();
        self.answer(reply);
    }

    /// The answers that it gave by itself since the last call.
    pub fn take_own_answers(&mut self) -> OwnAnswers {
        std::mem::take(&mut self.own_answers)
    }

    /// Frees the memory that waits for another request: thousands of idle clients must not hold it.
    pub fn free_spare_memory(&mut self) {
        if self.state == State::Head && self.unread.is_empty() {
            self.body = Vec::new();
        }
    }

    /// The ingest endpoint whose body is being read.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self.state {
            State::Body(Target::Ingest(endpoint, _)) => Some(endpoint),
            _ => None,
        }
    }

    /// Whether the connection ends as soon as its output is sent.
    pub fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    /// Whether a request waits for its answer.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting | State::Streaming { .. })
    }

    /// What the connection is doing, for its deadlines. `is_sending`: output is on its way.
    pub fn phase(&self, is_sending: bool) -> Phase {
        let has_output = is_sending || !self.output.is_empty();
        match self.state {
            State::Streaming { .. } | State::Closing if has_output => Phase::Answering,
            State::Waiting | State::Streaming { .. } => Phase::Working,
            State::Closing => Phase::Idle,
            State::Body(_) => Phase::Body,
            State::Head => match self.reader.phase() {
                ReadPhase::Idle if has_output => Phase::Answering,
                ReadPhase::Idle | ReadPhase::Faulted => Phase::Idle,
                ReadPhase::Head => Phase::Head,
                ReadPhase::Body => Phase::Body,
            },
        }
    }

    /// Bytes of request bodies that it holds.
    pub fn held_bytes(&self) -> u64 {
        (self.body.len() + self.unread.len()) as u64
    }
}

fn check_ingest(
    endpoint: Endpoint,
    head: &RequestHead<'_>,
    rules: &ConnectionRules,
) -> Result<Target, Reply> {
    if rules.is_overloaded {
        let text = "cannot take the request: request-bytes-max is in use";
        return Err(reply_to_body_fault(BodyFault { reason: Refusal::Overloaded, text }));
    }
    match endpoint::check_headers(endpoint, head.headers()) {
        Ok(encoding) => Ok(Target::Ingest(endpoint, encoding)),
        Err(fault) => Err(Reply::of_header_fault(endpoint, fault)),
    }
}

fn control_head(head: &RequestHead<'_>) -> http::Request<()> {
    let mut request = http::Request::new(());
    if let Ok(method) = head.method.parse() {
        *request.method_mut() = method;
    }
    let target = match head.query {
        Some(query) => format!("{}?{query}", head.path),
        None => head.path.to_owned(),
    };
    // What the reader takes and `http::Uri` does not, no route knows either.
    *request.uri_mut() = target.parse().unwrap_or_else(|_| http::Uri::from_static("/-/bad-target"));
    for (name, value) in head.headers() {
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::try_from(name), http::HeaderValue::from_bytes(value))
        {
            request.headers_mut().append(name, value);
        }
    }
    request
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod regressions {
    use super::*;

    const RULES: ConnectionRules = ConnectionRules {
        http: HttpLimits { head_bytes_max: 16 << 10, headers_max: 64, body_bytes_max: 1 << 20 },
        body_bytes_max: 1 << 20,
        is_overloaded: false,
    };

    #[test]
    fn answers_that_nobody_takes_stop_the_reading() {
        // A client that pipelined `OPTIONS` and read no answer made the process hold all of them:
        // two gigabytes in eight seconds, by one connection that no deadline ended.
        const REQUEST: &[u8] = b"OPTIONS /api/v1/write HTTP/1.1\r\nhost: a\r\n\r\n";
        const PIECES: usize = 100;
        let piece = REQUEST.repeat(500);
        let mut connection = Connection::new(RULES.http);
        for _ in 0..PIECES {
            connection.handle_bytes(&piece, &RULES);
            assert!(connection.output_len() < OUTPUT_BYTES_MAX + 4096);
        }
        assert!(connection.is_full() && connection.has_unread());
        let mut sent = Vec::new();
        while connection.output_len() > 0 {
            sent.extend(connection.take_output(Vec::new()));
            connection.handle_unread(&RULES);
        }
        let answers = String::from_utf8_lossy(&sent).matches("HTTP/1.1 ").count();
        assert_eq!(answers, PIECES * 500);
        assert!(!connection.is_full() && !connection.has_unread());
    }

    #[test]
    fn a_body_that_is_broken_off_is_freed() {
        let mut connection = Connection::new(RULES.http);
        let head = b"POST /api/v1/import HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n";
        connection.handle_bytes(head, &RULES);
        connection.handle_bytes(&[b'x'; 3000], &RULES);
        assert!(connection.is_in_body() && connection.endpoint().is_some());
        assert_eq!(connection.held_bytes(), 3000);
        let (reason, text) = (Refusal::Overloaded, "cannot go on");
        connection.break_off(&reply_to_body_fault(BodyFault { reason, text }));
        assert!(connection.is_closing() && connection.held_bytes() == 0);
        let output = connection.take_output(Vec::new());
        assert!(output.starts_with(b"HTTP/1.1 503 "));
        // What the client still sends is read away.
        assert!(matches!(connection.handle_bytes(&[b'x'; 2000], &RULES), Step::Close));
        assert_eq!(connection.held_bytes(), 0);
    }

    #[test]
    fn answers_by_the_head_alone_are_counted() {
        // A sender with a wrong content type was refused for days, and no counter rose.
        let mut connection = Connection::new(RULES.http);
        let options = b"OPTIONS /api/v1/write HTTP/1.1\r\nhost: a\r\n\r\n";
        connection.handle_bytes(options, &RULES);
        let head = b"POST /api/v1/write HTTP/1.1\r\nhost: a\r\ncontent-type: text/html\r\n\r\n";
        connection.handle_bytes(head, &RULES);
        connection.handle_bytes(b"rubbish\r\n\r\n", &RULES);
        let OwnAnswers { refused_heads, options, overloaded, faults } =
            connection.take_own_answers();
        assert_eq!((refused_heads, options, overloaded, faults), (1, 1, 0, 1));
        assert_eq!(connection.take_own_answers().faults, 0);
    }
}
