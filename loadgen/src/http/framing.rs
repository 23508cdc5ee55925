//! How an answer's body is framed: a length, chunks, or until the connection ends. Sans-io: bytes
//! in, spans out.

use std::io;

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of it, the empty line counted.
    pub len_bytes: usize,
    /// 100 to 599.
    pub status: u16,
    /// What follows.
    pub framing: Framing,
    /// `Connection: close`.
    pub closing: bool,
}

/// What of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing.
    Done,
    /// So many bytes.
    Length(u64),
    /// The size line of a chunk.
    ChunkSize,
    /// So many bytes of a chunk, then CRLF.
    Chunk(u64),
    /// Trailer lines, then an empty one.
    Trailer,
    /// Everything until the connection ends.
    UntilEnd,
}

/// What `advance` found at the front of the bytes it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Framing, to be skipped.
    pub skip_bytes: usize,
    /// Then so many bytes of the body.
    pub data_bytes: usize,
}

impl Framing {
    /// Consumes what it can of `bytes` in one step; an empty step asks for more bytes.
    pub fn advance(&mut self, bytes: &[u8]) -> io::Result<Step> {
        match *self {
            Self::Done => Ok(Step::default()),
            Self::UntilEnd => Ok(Step { skip_bytes: 0, data_bytes: bytes.len() }),
            Self::Length(left) => {
                let data_bytes = at_most(bytes.len(), left);
                let left = left - data_bytes as u64;
                *self = if left == 0 { Self::Done } else { Self::Length(left) };
                Ok(Step { skip_bytes: 0, data_bytes })
            }
            Self::Chunk(0) => {
                if bytes.len() < 2 {
                    return Ok(Step::default());
                }
                if !bytes.starts_with(b"\r\n") {
                    return Err(invalid("a chunk of the answer does not end with CRLF"));
                }
                *self = Self::ChunkSize;
                Ok(Step { skip_bytes: 2, data_bytes: 0 })
            }
            Self::Chunk(left) => {
                let data_bytes = at_most(bytes.len(), left);
                *self = Self::Chunk(left - data_bytes as u64);
                Ok(Step { skip_bytes: 0, data_bytes })
            }
            Self::ChunkSize => match httparse::parse_chunk_size(bytes) {
                Ok(httparse::Status::Complete((skip_bytes, size))) => {
                    *self = if size == 0 { Self::Trailer } else { Self::Chunk(size) };
                    Ok(Step { skip_bytes, data_bytes: 0 })
                }
                Ok(httparse::Status::Partial) => Ok(Step::default()),
                Err(_) => Err(invalid("a chunk of the answer has no size")),
            },
            Self::Trailer => {
                let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
                    return Ok(Step::default());
                };
                if bytes[..end].trim_ascii().is_empty() {
                    *self = Self::Done;
                }
                Ok(Step { skip_bytes: end + 1, data_bytes: 0 })
            }
        }
    }

    /// The connection ended: fine only where that is how the body ends.
    pub fn handle_end(&mut self) -> io::Result<()> {
        if *self != Self::UntilEnd {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *self = Self::Done;
        Ok(())
    }
}

/// Parses the head at the front of `bytes`; None if it is not whole yet.
pub fn parse_head<const HEADERS_MAX: usize>(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let len_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len_bytes)) => len_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(cause) => return Err(invalid(&format!("the answer is not HTTP/1.1: {cause}"))),
    };
    let status = response.code.ok_or_else(|| invalid("the answer has no status"))?;
    let mut framing = Framing::UntilEnd;
    let mut closing = response.version == Some(0);
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") && framing != Framing::ChunkSize {
            let len = value.parse().map_err(|_| invalid("Content-Length is not a number"))?;
            framing = Framing::Length(len);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::ChunkSize;
        } else if header.name.eq_ignore_ascii_case("connection") {
            closing |= value.eq_ignore_ascii_case("close");
        }
    }
    if status < 200 || status == 204 || status == 304 || framing == Framing::Length(0) {
        framing = Framing::Done;
    }
    closing |= framing == Framing::UntilEnd;
    Ok(Some(Head { len_bytes, status, framing, closing }))
}

/// An answer that breaks the protocol.
pub fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn at_most(len: usize, left: u64) -> usize {
    usize::try_from(left).map_or(len, |left| len.min(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of `step` bytes; gives status and body.
    fn read(wire: &[u8], step: usize) -> io::Result<(u16, Vec<u8>)> {
        let (mut inbox, mut body, mut fed) = (Vec::new(), Vec::new(), 0);
        let mut head: Option<Head> = None;
        loop {
            if let Some(head) = &mut head {
                let step = head.framing.advance(&inbox)?;
                body.extend_from_slice(&inbox[step.skip_bytes..][..step.data_bytes]);
                inbox.drain(..step.skip_bytes + step.data_bytes);
                if head.framing == Framing::Done {
                    return Ok((head.status, body));
                }
                if step != Step::default() {
                    continue;
                }
            } else if let Some(found) = parse_head::<16>(&inbox)? {
                inbox.drain(..found.len_bytes);
                head = Some(found);
                continue;
            }
            let next = (fed + step).min(wire.len());
            if fed == next {
                head.as_mut().ok_or(io::ErrorKind::UnexpectedEof)?.framing.handle_end()?;
            }
            inbox.extend_from_slice(&wire[fed..next]);
            fed = next;
        }
    }

    #[test]
    fn bodies_in_pieces_of_every_size() {
        #[track_caller]
        fn check(wire: &str, want: (u16, &str)) {
            for step in 1..=wire.len() {
                let got = read(wire.as_bytes(), step).expect(wire);
                assert_eq!(got, (want.0, want.1.as_bytes().to_vec()), "{wire:?} by {step}");
            }
        }
        check("HTTP/1.1 204 No Content\r\n\r\n", (204, ""));
        check("HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad", (400, "bad"));
        check("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, ""));
        check("HTTP/1.1 200 OK\r\n\r\nuntil the end", (200, "until the end"));
        let chunks = "4\r\nline\r\nc;x=1\r\n and \r\n more\r\n0\r\nT: 1\r\n\r\n";
        let wire = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        check(&wire, (200, "line and \r\n more"));
    }

    #[test]
    fn a_cut_body_is_an_error() {
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc";
        assert!(read(cut, 7).is_err());
        let cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n";
        assert!(read(cut, 7).is_err());
    }
}
