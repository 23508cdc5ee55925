//! DRIVER: a blocking HTTP/1.1 client: one connection, kept alive, one request at a time, answers
//! read whole. For the admin API, for queries whose time is measured, and for scrapes.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use loadgen::http::framing::{Framing, Head, parse_head};

/// A merge of everything takes minutes.
const SILENCE_MAX: Duration = Duration::from_secs(900);
const READ_BYTES: usize = 256 * 1024;
const HEADERS_MAX: usize = 64;

/// A 2xx answer, read whole.
pub struct Answer {
    /// Without framing.
    pub body: Vec<u8>,
    /// From the first byte of the request to the last one of the answer.
    pub took: Duration,
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    address: SocketAddr,
    inbox: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Self { stream, address, inbox: Vec::new() })
    }

    /// A GET.
    /// # Errors
    /// Also for any status but 2xx.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.request("GET", path, "", b"")
    }

    /// A POST; `headers` are whole lines with their CRLF.
    /// # Errors
    /// Also for any status but 2xx.
    pub fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> io::Result<Answer> {
        self.request("POST", path, headers, body)
    }

    fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        let started = Instant::now();
        self.stream.write_all(&bytes)?;
        let head = self.read_head()?;
        let body = self.read_body(head.framing)?;
        let took = started.elapsed();
        if !(200..300).contains(&head.status) {
            let cut = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
            let text = format!("{method} {path} was answered with {} {cut}", head.status);
            return Err(io::Error::other(text));
        }
        Ok(Answer { body, took })
    }

    fn read_head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(head) = parse_head::<HEADERS_MAX>(&self.inbox)? {
                self.inbox.drain(..head.len_bytes);
                if head.status >= 200 {
                    return Ok(head);
                }
            } else if self.receive()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read_body(&mut self, mut framing: Framing) -> io::Result<Vec<u8>> {
        let (mut body, mut used) = (Vec::new(), 0);
        while framing != Framing::Done {
            let step = framing.advance(&self.inbox[used..])?;
            used += step.skip_bytes;
            body.extend_from_slice(&self.inbox[used..used + step.data_bytes]);
            used += step.data_bytes;
            if step.skip_bytes + step.data_bytes == 0 {
                self.inbox.drain(..used);
                used = 0;
                if self.receive()? == 0 {
                    framing.handle_end()?;
                }
            }
        }
        self.inbox.drain(..used);
        Ok(body)
    }

    fn receive(&mut self) -> io::Result<usize> {
        let start = self.inbox.len();
        self.inbox.resize(start + READ_BYTES, 0);
        let result = self.stream.read(&mut self.inbox[start..]);
        self.inbox.truncate(start + result.as_ref().map_or(0, |len| *len));
        result
    }
}
