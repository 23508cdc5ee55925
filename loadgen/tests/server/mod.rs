//! A server in threads: keeps what it is sent, exports it, and goes wrong as it is told.
//! Its decoders are written for the test, field by field, and know only what loadgen sends.

mod decode;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// What goes wrong; counts are of samples, or of requests where it is about requests.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    None,
    LoseEvery(u64),
    FlipBitEvery(u64),
    InventEvery(u64),
    DoubleEvery(u64),
    RefuseEvery(u64),
    CutBefore(u64),
    CutAfterKeeping(u64),
}

/// Of a series on a line of an export.
const WINDOW_SAMPLES: usize = 13;

type Labels = Vec<(String, String)>;

struct State {
    fault: Fault,
    requests: u64,
    samples: u64,
    kept: BTreeMap<Labels, Vec<(i64, f64)>>,
}

pub struct Server {
    address: SocketAddr,
}

impl Server {
    pub fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("bound");
        let state = State { fault, requests: 0, samples: 0, kept: BTreeMap::new() };
        let state = Arc::new(Mutex::new(state));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                thread::spawn(move || serve(&stream.expect("accepted"), &state));
            }
        });
        Self { address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let (mut line, mut length, mut gzip) = (String::new(), 0, false);
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let path = line.split(' ').nth(1).expect("a request line").to_owned();
        loop {
            line.clear();
            reader.read_line(&mut line).expect("headers");
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(text) = header.strip_prefix("content-length: ") {
                length = text.parse().expect("a length");
            }
            gzip |= header == "content-encoding: gzip";
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = if path.starts_with("/api/v1/write") {
            state.take(decode::remote_write(&body))
        } else if path.starts_with("/api/v1/import") {
            state.take(decode::json_lines(&body, gzip))
        } else if let Some(rest) = path.strip_prefix("/api/v1/label/") {
            let label = rest.split('/').next().unwrap_or("");
            Some(state.groups(label, &decode::query_matchers(&path)))
        } else {
            Some(state.export(&decode::query_matchers(&path)))
        };
        let Some(answer) = answer else { return };
        if writer.write_all(&answer).is_err() {
            return;
        }
    }
}

impl State {
    /// Keeps the samples and answers, or gives None to cut the connection.
    fn take(&mut self, series: Vec<(Labels, Vec<(i64, f64)>)>) -> Option<Vec<u8>> {
        self.requests += 1;
        let every = |count: u64| self.requests.is_multiple_of(count);
        match self.fault {
            Fault::RefuseEvery(count) if every(count) => {
                let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
                return Some(head.into());
            }
            Fault::CutBefore(count) if every(count) => return None,
            _ => {}
        }
        let cut = matches!(self.fault, Fault::CutAfterKeeping(count) if every(count));
        for (labels, samples) in series {
            for sample in samples {
                self.keep(&labels, sample);
            }
        }
        (!cut).then(|| b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
    }

    fn keep(&mut self, labels: &Labels, (timestamp_ms, value): (i64, f64)) {
        self.samples += 1;
        let due = |count: u64| self.samples.is_multiple_of(count);
        let flipped = f64::from_bits(value.to_bits() ^ 1);
        let value = match self.fault {
            Fault::LoseEvery(count) if due(count) => return,
            Fault::FlipBitEvery(count) if due(count) => flipped,
            _ => value,
        };
        let (invents, doubles) = match self.fault {
            Fault::InventEvery(count) => (due(count), false),
            Fault::DoubleEvery(count) => (false, due(count)),
            _ => (false, false),
        };
        let kept = self.kept.entry(labels.clone()).or_default();
        // A retried request is the same samples again: the last write wins.
        kept.retain(|(at, _)| *at != timestamp_ms);
        kept.push((timestamp_ms, value));
        if doubles {
            kept.push((timestamp_ms, value));
        }
        if invents {
            kept.push((timestamp_ms + 500_000_000 + self.samples.cast_signed(), value));
            let mut other = labels.clone();
            for (name, value) in &mut other {
                match name.as_str() {
                    "lg_series" => *value = format!("9{value}"),
                    "lg_series_group" => "77777".clone_into(value),
                    _ => {}
                }
            }
            self.kept.entry(other).or_default().push((timestamp_ms, value));
        }
    }

    fn matching(&self, matchers: &Labels) -> impl Iterator<Item = (&Labels, &Vec<(i64, f64)>)> {
        self.kept.iter().filter(|(labels, _)| matchers.iter().all(|pair| labels.contains(pair)))
    }

    fn groups(&self, label: &str, matchers: &Labels) -> Vec<u8> {
        let mut groups: Vec<&String> = self
            .matching(matchers)
            .flat_map(|(labels, _)| labels)
            .filter(|(name, _)| name == label)
            .map(|(_, value)| value)
            .collect();
        groups.sort();
        groups.dedup();
        let body = serde_json::json!({ "status": "success", "data": groups }).to_string();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
    }

    /// Chunked, in pieces that end anywhere; by windows of time, so that a series has several
    /// lines; `{:?}` is the shortest form that parses back.
    fn export(&self, matchers: &Labels) -> Vec<u8> {
        let mut body = Vec::new();
        let longest = self.matching(matchers).map(|(_, samples)| samples.len()).max();
        for window in (0..longest.unwrap_or(0)).step_by(WINDOW_SAMPLES) {
            for (labels, samples) in self.matching(matchers) {
                let rest = samples.get(window..).unwrap_or(&[]);
                let rows = &rest[..rest.len().min(WINDOW_SAMPLES)];
                if !rows.is_empty() {
                    write_line(&mut body, labels, rows);
                }
            }
        }
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in body.chunks(1009) {
            answer.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            answer.extend_from_slice(piece);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        answer
    }
}

fn write_line(body: &mut Vec<u8>, labels: &Labels, samples: &[(i64, f64)]) {
    let metric: BTreeMap<_, _> = labels.iter().cloned().collect();
    let metric = serde_json::to_string(&metric).expect("strings");
    let values: Vec<String> = samples.iter().map(|(_, v)| format!("{v:?}")).collect();
    let times: Vec<String> = samples.iter().map(|(at, _)| at.to_string()).collect();
    let (values, times) = (values.join(","), times.join(","));
    writeln!(body, "{{\"metric\":{metric},\"values\":[{values}],\"timestamps\":[{times}]}}")
        .expect("a Vec takes every write");
}
