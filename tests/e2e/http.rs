//! A small blocking HTTP/1.1 client over std: it can also send what no proper client would.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// One connection, kept alive.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The sum, over shards, of a metric of `/metrics`, by its name and one more label if given:
    /// `name{label="value"`.
    pub fn metric_sum(&self, metric: &str) -> Option<f64> {
        let (name, label) = metric.split_once('{').unwrap_or((metric, ""));
        let text = self.text();
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(label)
        });
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.reduce(|sum, value| sum + value)
    }

    /// Whether the server will close the connection.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl Client {
    /// Connects, and gives up reading after 30 seconds of silence.
    pub fn connect(port: u16) -> std::io::Result<Self> {
        Self::connect_to("127.0.0.1", port)
    }

    /// The same, elsewhere than on 127.0.0.1.
    pub fn connect_to(address: &str, port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect((address, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sets how long a read may be silent.
    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a socket takes a timeout");
    }

    /// Sends a request and reads its answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: tidegate\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
        // A server that refuses early may close before it took everything; its answer still counts.
        let sent = self.stream.write_all(&bytes);
        let answer = self.read_response(method == "HEAD");
        if answer.is_err() {
            sent?;
        }
        answer
    }

    pub fn get(&mut self, path: &str) -> std::io::Result<Response> {
        self.request("GET", path, &[], b"")
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent. A connection that is gone already is no fault.
    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// Whether the server closes the connection before the patience ends, whatever it still sends.
    pub fn is_closed_by_server(&mut self) -> bool {
        self.read_to_close().is_some()
    }

    /// Whether the server closes within the patience; what it sent until then, if it does.
    pub fn read_to_close(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.receive() {
                Ok(()) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return None,
                    _ => return Some(std::mem::take(&mut self.received)),
                },
            }
        }
    }

    /// Reads one head, an interim one too, and gives its status.
    pub fn read_status(&mut self) -> std::io::Result<u16> {
        let head = self.read_until(b"\r\n\r\n")?;
        Ok(parse_head(&head)?.0)
    }

    /// Reads one answer; `head_only` for the answer to a HEAD. Skips `100 Continue`.
    pub fn read_response(&mut self, head_only: bool) -> std::io::Result<Response> {
        loop {
            let head = self.read_until(b"\r\n\r\n")?;
            let (status, headers) = parse_head(&head)?;
            let mut response = Response { status, headers, body: Vec::new() };
            if status == 100 {
                continue;
            }
            let has_body = !head_only && status != 204 && status != 304;
            if has_body && response.header("transfer-encoding") == Some("chunked") {
                response.body = self.read_chunks()?;
            } else if has_body {
                let len = response.header("content-length").map(str::parse);
                response.body = match len {
                    Some(Ok(len)) => self.read_exactly(len)?,
                    _ => return Err(broken(&format!("no length: {response:?}"))),
                };
            }
            return Ok(response);
        }
    }

    fn read_chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until(b"\r\n")?;
            let digits = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
            let len = usize::from_str_radix(&digits, 16).map_err(|_| broken("a chunk's length"))?;
            let mut chunk = self.read_exactly(len + 2)?;
            chunk.truncate(len);
            body.extend_from_slice(&chunk);
            if len == 0 {
                return Ok(body);
            }
        }
    }

    fn read_until(&mut self, end: &[u8]) -> std::io::Result<Vec<u8>> {
        loop {
            let found = self.received.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return Ok(self.received.drain(..at + end.len()).collect());
            }
            self.receive()?;
        }
    }

    fn read_exactly(&mut self, len: usize) -> std::io::Result<Vec<u8>> {
        while self.received.len() < len {
            self.receive()?;
        }
        Ok(self.received.drain(..len).collect())
    }

    fn receive(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 16384];
        match self.stream.read(&mut buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            len => {
                self.received.extend_from_slice(&buffer[..len]);
                Ok(())
            }
        }
    }
}

fn parse_head(head: &[u8]) -> std::io::Result<(u16, Vec<(String, String)>)> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).map(str::parse);
    let Some(Ok(status)) = status else { return Err(broken(&text)) };
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok((status, headers.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect()))
}

fn broken(what: &str) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

/// Escapes everything but letters, digits and `-_.~` for a query string.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a string takes it");
        }
    }
    escaped
}
