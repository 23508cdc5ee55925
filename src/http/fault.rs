//! Why a connection's bytes are refused: the closed list, each with its status and text. Every
//! fault ends the connection, because after it nobody can say where the next request begins.

use std::fmt;

/// A request that is not read on. Answer with [`HttpFault::status`] and the fault's text, then
/// close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFault {
    /// The request line is not `method SP target SP version`.
    BadRequestLine,
    /// The version is not HTTP/1.0 or HTTP/1.1; the preface of HTTP/2 ends here too.
    UnsupportedVersion,
    /// The target is in none of the forms of RFC 9112, 3.2.
    BadTarget,
    /// `CONNECT`: this is no proxy.
    UnsupportedMethod,
    /// The request line does not fit into the head's limit.
    TargetTooLong { head_bytes_max: usize },
    /// The head does not fit into its limit.
    HeadTooLarge { head_bytes_max: usize },
    /// More header fields than the limit.
    TooManyHeaders { headers_max: usize },
    /// A header field is malformed: its name, its value, or a space before the colon.
    BadHeader,
    /// A header field goes on in a second line.
    FoldedHeader,
    /// A carriage return or line feed on its own.
    BareLineBreak,
    /// A control byte, NUL for one, in a head or a trailer.
    ControlByte,
    /// HTTP/1.1 without `Host`.
    MissingHost,
    /// More than one `Host`.
    DuplicateHost,
    /// `Host` is not a host and an optional port.
    BadHost,
    /// `Content-Length` is not digits only, or above 19 of them.
    BadContentLength,
    /// More than one `Content-Length`, even if equal.
    DuplicateContentLength,
    /// Both `Content-Length` and `Transfer-Encoding`.
    BothLengths,
    /// More than one `Transfer-Encoding`, one that does not end in `chunked`, or one in HTTP/1.0.
    BadTransferEncoding,
    /// A coding under `chunked`: `gzip, chunked`.
    UnsupportedTransferEncoding,
    /// An `Expect` other than `100-continue`.
    UnsupportedExpectation,
    /// A declared or received body beyond the caller's limit.
    BodyTooLarge { body_bytes_max: u64 },
    /// A chunk size that is not 1 to 16 hex digits.
    BadChunkSize,
    /// A chunk that does not end where its size says.
    BadChunkEnd,
    /// Chunk extensions beyond the limit for a request.
    ChunkExtensionsTooLong { extension_bytes_max: u32 },
    /// A trailer line without a field name and colon.
    BadTrailer,
    /// Trailers beyond the limit.
    TrailersTooLarge { trailer_bytes_max: u32 },
    /// The client took too long to send its request.
    Timeout,
}

impl HttpFault {
    /// The status to answer with, before closing.
    pub fn status(self) -> u16 {
        match self {
            Self::Timeout => 408,
            Self::BodyTooLarge { .. } => 413,
            Self::TargetTooLong { .. } => 414,
            Self::UnsupportedExpectation => 417,
            Self::HeadTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::TrailersTooLarge { .. } => 431,
            Self::UnsupportedMethod | Self::UnsupportedTransferEncoding => 501,
            Self::UnsupportedVersion => 505,
            _ => 400,
        }
    }

    /// What is wrong, without the limit's number; `Display` adds that.
    pub fn text(self) -> &'static str {
        match self {
            Self::BadRequestLine => "cannot read the request: bad request line",
            Self::UnsupportedVersion => "cannot read the request: not HTTP/1.0 or HTTP/1.1",
            Self::BadTarget => "cannot read the request: bad target",
            Self::UnsupportedMethod => "cannot serve the request: CONNECT is not supported",
            Self::TargetTooLong { .. } => "cannot read the request: its target is too long",
            Self::HeadTooLarge { .. } => "cannot read the request: its head is too large",
            Self::TooManyHeaders { .. } => "cannot read the request: too many header fields",
            Self::BadHeader => "cannot read the request: malformed header field",
            Self::FoldedHeader => "cannot read the request: header field over two lines",
            Self::BareLineBreak => "cannot read the request: CR or LF on its own",
            Self::ControlByte => "cannot read the request: control byte in a header field",
            Self::MissingHost => "cannot read the request: no Host",
            Self::DuplicateHost => "cannot read the request: more than one Host",
            Self::BadHost => "cannot read the request: malformed Host",
            Self::BadContentLength => "cannot read the body: malformed Content-Length",
            Self::DuplicateContentLength => "cannot read the body: more than one Content-Length",
            Self::BothLengths => "cannot read the body: Content-Length and Transfer-Encoding",
            Self::BadTransferEncoding => "cannot read the body: bad Transfer-Encoding",
            Self::UnsupportedTransferEncoding => {
                "cannot read the body: the only Transfer-Encoding supported is chunked"
            }
            Self::UnsupportedExpectation => {
                "cannot meet the expectation: only 100-continue is supported"
            }
            Self::BodyTooLarge { .. } => "cannot take the body: larger than body-bytes-max",
            Self::BadChunkSize => "cannot read the body: malformed chunk size",
            Self::BadChunkEnd => "cannot read the body: no line end behind a chunk",
            Self::ChunkExtensionsTooLong { .. } => {
                "cannot read the body: chunk extensions are too long"
            }
            Self::BadTrailer => "cannot read the body: malformed trailer",
            Self::TrailersTooLarge { .. } => "cannot read the body: trailers are too large",
            Self::Timeout => "cannot wait longer: the request arrives too slowly",
        }
    }

    /// The limit that was passed, if one was.
    fn limit(self) -> Option<u64> {
        match self {
            Self::TargetTooLong { head_bytes_max } | Self::HeadTooLarge { head_bytes_max } => {
                Some(head_bytes_max as u64)
            }
            Self::TooManyHeaders { headers_max } => Some(headers_max as u64),
            Self::BodyTooLarge { body_bytes_max } => Some(body_bytes_max),
            Self::ChunkExtensionsTooLong { extension_bytes_max } => {
                Some(u64::from(extension_bytes_max))
            }
            Self::TrailersTooLarge { trailer_bytes_max } => Some(u64::from(trailer_bytes_max)),
            _ => None,
        }
    }
}

impl fmt::Display for HttpFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.text())?;
        match self.limit() {
            Some(limit) => write!(out, " (limit {limit})"),
            None => Ok(()),
        }
    }
}
