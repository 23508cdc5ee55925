//! The bytes that a connection receives -> requests. One reader per connection, used request after
//! request.
//!
//! In: pieces as they arrive. Out: events, body pieces borrowed from the input. A head is copied
//! once into a buffer of at most `head_bytes_max` that is used again; the body is never copied. No
//! allocation per request once the buffers have grown to the connection's usual head. What is
//! behind a request is not taken before its `End` has been seen. Not here: time (`deadline`),
//! answers (`response`).

use super::chunked::{ChunkEvent, ChunkedBody};
use super::fault::HttpFault;
use super::head::{Framing, HEADERS_MAX, ParsedHead, RequestHead};
use super::scan::{HeadScan, Scanned};

#[cfg(test)]
mod tests;

/// Limits of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Longest head, its request line and last empty line included.
    pub head_bytes_max: usize,
    /// Most header fields, at most [`HEADERS_MAX`].
    pub headers_max: usize,
    /// Longest body of a request for which [`RequestReader::limit_body`] is not called.
    pub body_bytes_max: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { head_bytes_max: 16 << 10, headers_max: HEADERS_MAX, body_bytes_max: 64 << 20 }
    }
}

/// What [`RequestReader::read`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEvent<'a> {
    /// All of the input is taken; call again when more has arrived.
    NeedMore,
    /// A head is complete: [`RequestReader::head`] has it until the next request begins.
    Head,
    /// A piece of the body without its framing, never empty, borrowed from the input.
    Body(&'a [u8]),
    /// The request is complete. The next `read` begins another one.
    End,
    /// Nothing more is read from this connection; it is said again on each call.
    Fault(HttpFault),
}

/// What a connection waits for, for its deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPhase {
    /// Between requests.
    Idle,
    /// In a head.
    Head,
    /// Behind a head, or in a body.
    Body,
    /// Refused.
    Faulted,
}

/// Reads requests off one connection.
#[derive(Debug)]
pub struct RequestReader {
    limits: HttpLimits,
    state: State,
    head: ParsedHead,
    body_bytes_max: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In front of or in a head.
    Head(HeadScan),
    /// Behind a head; the body's limit may still be set.
    HeadDone,
    /// In a body of declared length.
    Sized { left: u64 },
    /// In a chunked body.
    Chunked(ChunkedBody),
    /// Over.
    Faulted(HttpFault),
}

impl RequestReader {
    /// For a new connection.
    pub fn new(limits: HttpLimits) -> Self {
        assert!(limits.headers_max <= HEADERS_MAX);
        Self {
            limits,
            state: State::Head(HeadScan::START),
            head: ParsedHead::default(),
            body_bytes_max: limits.body_bytes_max,
        }
    }

    /// Takes bytes from `input`; returns how many it took and what it saw. Call again with the
    /// rest.
    ///
    /// Between [`ReadEvent::Head`] and [`ReadEvent::End`] there may be an event without any input:
    /// so call it until it says [`ReadEvent::NeedMore`], which never leaves a byte untaken.
    pub fn read<'a>(&mut self, input: &'a [u8]) -> (usize, ReadEvent<'a>) {
        if let State::HeadDone = self.state {
            self.begin_body();
        }
        match &mut self.state {
            State::Head(_) => self.read_head(input),
            State::Sized { left: 0 } => {
                self.state = State::Head(HeadScan::START);
                (0, ReadEvent::End)
            }
            State::Sized { .. } | State::Chunked(_) if input.is_empty() => (0, ReadEvent::NeedMore),
            State::Sized { left } => {
                let taken =
                    usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= taken as u64;
                (taken, ReadEvent::Body(&input[..taken]))
            }
            State::Chunked(body) => match body.read(input) {
                Ok(ChunkEvent::NeedMore) => (input.len(), ReadEvent::NeedMore),
                Ok(ChunkEvent::Data(range)) => (range.end, ReadEvent::Body(&input[range])),
                Ok(ChunkEvent::End { len_bytes }) => {
                    self.state = State::Head(HeadScan::START);
                    (len_bytes, ReadEvent::End)
                }
                Err(fault) => self.refuse(fault),
            },
            State::HeadDone => unreachable!("the body has begun"),
            State::Faulted(fault) => (0, ReadEvent::Fault(*fault)),
        }
    }

    /// The head of the request that is being read or was read last. After [`ReadEvent::Head`] only.
    pub fn head(&self) -> RequestHead<'_> {
        self.head.request_head()
    }

    /// Sets the limit of this request's body, between [`ReadEvent::Head`] and the next
    /// [`RequestReader::read`].
    ///
    /// A declared length above it is a fault at once, before any of the body is read.
    pub fn limit_body(&mut self, body_bytes_max: u64) -> Result<(), HttpFault> {
        assert!(matches!(self.state, State::HeadDone), "the limit comes behind the head");
        self.body_bytes_max = body_bytes_max;
        match self.head.framing() {
            Framing::Length(length) if length > body_bytes_max => {
                let fault = HttpFault::BodyTooLarge { body_bytes_max };
                self.state = State::Faulted(fault);
                Err(fault)
            }
            _ => Ok(()),
        }
    }

    /// Body bytes still to come, to decide whether an unwanted body is worth skipping; `None` if
    /// nobody knows.
    pub fn body_bytes_left(&self) -> Option<u64> {
        match self.state {
            State::HeadDone => match self.head.framing() {
                Framing::NoBody => Some(0),
                Framing::Length(length) => Some(length),
                Framing::Chunked => None,
            },
            State::Sized { left } => Some(left),
            State::Chunked(_) => None,
            State::Head(_) | State::Faulted(_) => Some(0),
        }
    }

    /// What the connection waits for.
    pub fn phase(&self) -> ReadPhase {
        match &self.state {
            State::Head(scan) if scan.is_idle() => ReadPhase::Idle,
            State::Head(_) => ReadPhase::Head,
            State::Faulted(_) => ReadPhase::Faulted,
            _ => ReadPhase::Body,
        }
    }

    fn read_head<'a>(&mut self, input: &'a [u8]) -> (usize, ReadEvent<'a>) {
        let State::Head(scan) = &mut self.state else { unreachable!("in a head") };
        if scan.is_fresh() && !input.is_empty() {
            self.head.clear();
        }
        let taken = match scan.scan(input, self.limits.head_bytes_max) {
            Ok(Scanned::Partial) => {
                self.head.push(input);
                return (input.len(), ReadEvent::NeedMore);
            }
            Ok(Scanned::Complete { len_bytes }) => len_bytes,
            Err(fault) => return self.refuse(fault),
        };
        self.head.push(&input[..taken]);
        match self.head.parse(self.limits.headers_max) {
            Ok(()) => {
                self.body_bytes_max = self.limits.body_bytes_max;
                self.state = State::HeadDone;
                (taken, ReadEvent::Head)
            }
            Err(fault) => self.refuse(fault),
        }
    }

    fn begin_body(&mut self) {
        let body_bytes_max = self.body_bytes_max;
        self.state = match self.head.framing() {
            Framing::NoBody => State::Sized { left: 0 },
            Framing::Length(length) if length > body_bytes_max => {
                State::Faulted(HttpFault::BodyTooLarge { body_bytes_max })
            }
            Framing::Length(left) => State::Sized { left },
            Framing::Chunked => State::Chunked(ChunkedBody::new(body_bytes_max)),
        };
    }

    fn refuse<'a>(&mut self, fault: HttpFault) -> (usize, ReadEvent<'a>) {
        self.state = State::Faulted(fault);
        (0, ReadEvent::Fault(fault))
    }
}
