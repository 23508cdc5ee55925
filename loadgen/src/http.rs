//! DRIVER: a small HTTP/1.1 client on glommio's TCP stream: one connection, kept alive, requests in
//! order. In: whole requests as bytes. Out: answers, or the body of one answer piece by piece for
//! exports of any length. Not here: reconnecting and retrying, which the caller decides (`send`,
//! `verify`); how bodies are framed (`framing`).

pub mod framing;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use framing::Framing;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::TcpStream;

const READ_BYTES: usize = 64 * 1024;
/// A head that is longer is no server of ours.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;
/// Of an answer that is only read for its reason, as much as is kept.
const ANSWER_BYTES_MAX: usize = 4096;

/// Where the server is: `http://host:port`, with or without a path that every request's path is put
/// behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first address that the host name has.
    pub address: SocketAddr,
    /// For the `Host` header.
    pub authority: String,
    /// Without a slash at its end.
    pub base_path: String,
}

impl Target {
    /// Parses `url` and resolves its host.
    pub fn resolve(url: &str) -> io::Result<Self> {
        let bad = |why: &str| {
            let text = format!("cannot use URL {url:?}: {why}; it looks like http://host:port");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        };
        let rest = url.strip_prefix("http://").ok_or_else(|| bad("the scheme is not http"))?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let with_port =
            if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        let mut addresses = with_port.to_socket_addrs().map_err(|cause| bad(&cause.to_string()))?;
        let address = addresses.next().ok_or_else(|| bad("the host has no address"))?;
        let base_path = path.trim_end_matches('/').to_owned();
        Ok(Self { address, authority: authority.to_owned(), base_path })
    }
}

/// A status and the first `ANSWER_BYTES_MAX` bytes of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599; 1xx are skipped.
    pub status: u16,
    /// Why, where it is not 2xx.
    pub body: Vec<u8>,
}

impl Answer {
    /// 2xx, and nothing of the request left out. An import that took some lines and refused others
    /// is answered with 200 and `{"samples":...,"errors":1,...}`.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status) && !counts_errors(&self.body)
    }
}

/// Whether `body` says `"errors":` and a number other than 0. The body may be cut off.
fn counts_errors(body: &[u8]) -> bool {
    let key = b"\"errors\":";
    let at = body.windows(key.len()).position(|window| window == key);
    at.is_some_and(|at| matches!(body[at + key.len()..].trim_ascii_start(), [b'1'..=b'9', ..]))
}

/// One connection.
pub struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
    /// Bytes of `inbox` that are used up.
    used: usize,
    framing: Framing,
    /// The server said that it closes after this answer.
    closing: bool,
}

impl Connection {
    /// Connects; reads and writes then take `timeout` at most.
    pub async fn open(target: &Target, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(target.address, timeout).await?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream, inbox: Vec::new(), used: 0, framing: Framing::Done, closing: false })
    }

    /// Writes a whole request, or several.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next answer with the beginning of its body.
    pub async fn read_answer(&mut self) -> io::Result<Answer> {
        let status = self.read_head().await?;
        let mut body = Vec::new();
        while let Some(piece) = self.read_body().await? {
            let room = ANSWER_BYTES_MAX - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        Ok(Answer { status, body })
    }

    /// The next answer's status; its body follows from `read_body`, which must be called to its
    /// end.
    pub async fn read_head(&mut self) -> io::Result<u16> {
        assert!(self.framing == Framing::Done, "the body before was not read to its end");
        if self.closing {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        loop {
            if let Some(head) = framing::parse_head::<HEADERS_MAX>(&self.inbox[self.used..])? {
                self.used += head.len_bytes;
                if head.status >= 200 {
                    self.framing = head.framing;
                    self.closing = head.closing;
                    return Ok(head.status);
                }
                continue;
            }
            if self.inbox.len() - self.used > HEAD_BYTES_MAX {
                return Err(framing::invalid("the head of the answer has no end"));
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next piece of the body, never empty; None at its end.
    pub async fn read_body(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let step = self.framing.advance(&self.inbox[self.used..])?;
            let start = self.used + step.skip_bytes;
            self.used = start + step.data_bytes;
            if step.data_bytes > 0 {
                return Ok(Some(&self.inbox[start..self.used]));
            }
            if self.framing == Framing::Done {
                return Ok(None);
            }
            if step.skip_bytes == 0 && self.fill().await? == 0 {
                self.framing.handle_end()?;
            }
        }
    }

    /// Whether the server said that it closes the connection after the answer before.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.inbox.drain(..self.used);
        self.used = 0;
        let start = self.inbox.len();
        self.inbox.resize(start + READ_BYTES, 0);
        let result = self.stream.read(&mut self.inbox[start..]).await;
        self.inbox.truncate(start + result.as_ref().map_or(0, |len| *len));
        result
    }
}

/// Percent-encodes `text` for a query string.
pub fn encode_query(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes every write");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_of_everything() {
        #[track_caller]
        fn check(status: u16, body: &str, want: bool) {
            let answer = Answer { status, body: body.into() };
            assert_eq!(answer.is_success(), want, "{status} {body}");
        }
        check(204, "", true);
        check(200, "", true);
        check(200, "{\"samples\":5,\"errors\":0}", true);
        check(200, "{\"samples\":5,\"errors\":1,\"failed_lines\":[12,", false);
        check(200, "{\"samples\":5,\"errors\": 30}", false);
        check(400, "", false);
        check(503, "{\"errors\":0}", false);
    }
}
