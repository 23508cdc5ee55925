//! A span of samples -> the bytes of a request, head and body in one piece. The labels of the
//! active series are kept encoded, so a sample costs a copy of its labels, its value and the
//! compression.

use std::collections::VecDeque;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::encode::{remote_write, vm_json};
use crate::http::Target;
use crate::ledger::Span;
use crate::options::{Protocol, SendOptions};
use crate::series::{Cursor, Run};

/// The head is written in front of the body once its length is known.
const HEAD_ROOM_BYTES: usize = 1024;

/// A request that is ready to be sent, as often as needed.
#[derive(Debug)]
pub struct RequestBytes {
    buffer: Vec<u8>,
    start: usize,
    /// The body before compression.
    pub raw_len_bytes: u64,
}

impl RequestBytes {
    /// Head and body.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

/// Makes the requests of one connection.
pub struct BodyMaker {
    run: Run,
    protocol: Protocol,
    gzip: bool,
    head: String,
    /// Encoded labels of the series from `labels_first` on, and where each has come to.
    labels: VecDeque<(Box<[u8]>, Cursor)>,
    labels_first: u64,
    samples: Vec<(i64, f64)>,
    raw: Vec<u8>,
    scratch: Vec<u8>,
    snappy: snap::raw::Encoder,
    spare: Vec<Vec<u8>>,
}

impl BodyMaker {
    /// For requests to `target`.
    /// # Errors
    /// A path or host too long for the head.
    pub fn new(options: &SendOptions, run: Run, target: &Target) -> Result<Self, String> {
        let path = options.path.as_deref().unwrap_or(options.protocol.default_path());
        let describing = match (options.protocol, options.gzip) {
            (Protocol::RemoteWrite, _) => {
                "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
                 X-Prometheus-Remote-Write-Version: 0.1.0\r\n"
            }
            (Protocol::VmJson, false) => "Content-Type: application/json\r\n",
            (Protocol::VmJson, true) => {
                "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
            }
        };
        let head = format!(
            "POST {}{path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: loadgen\r\n{describing}\
             Content-Length: ",
            target.base_path, target.authority
        );
        if head.len() + 32 > HEAD_ROOM_BYTES {
            return Err("the URL and the path are too long".into());
        }
        Ok(Self {
            run,
            protocol: options.protocol,
            gzip: options.gzip,
            head,
            labels: VecDeque::new(),
            labels_first: 0,
            samples: Vec::new(),
            raw: Vec::new(),
            scratch: Vec::new(),
            snappy: snap::raw::Encoder::new(),
            spare: Vec::new(),
        })
    }

    /// The request for `span`. Series below `window_first` will not come again.
    pub fn make(&mut self, span: &Span, window_first: u64) -> RequestBytes {
        self.move_labels(window_first, span.first_series + u64::from(span.series));
        self.encode(span);
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.resize(HEAD_ROOM_BYTES, 0);
        match (self.protocol, self.gzip) {
            (Protocol::RemoteWrite, _) => {
                let packed = remote_write::compress(&mut self.snappy, &self.raw, &mut self.scratch);
                buffer.extend_from_slice(packed);
            }
            (Protocol::VmJson, false) => buffer.extend_from_slice(&self.raw),
            (Protocol::VmJson, true) => {
                let mut encoder = GzEncoder::new(buffer, Compression::fast());
                encoder.write_all(&self.raw).expect("a Vec takes every write");
                buffer = encoder.finish().expect("a Vec takes every write");
            }
        }
        let length = format!("{}\r\n\r\n", buffer.len() - HEAD_ROOM_BYTES);
        let head_start = HEAD_ROOM_BYTES - self.head.len() - length.len();
        buffer[head_start..][..self.head.len()].copy_from_slice(self.head.as_bytes());
        buffer[HEAD_ROOM_BYTES - length.len()..HEAD_ROOM_BYTES].copy_from_slice(length.as_bytes());
        RequestBytes { buffer, start: head_start, raw_len_bytes: self.raw.len() as u64 }
    }

    /// Takes a settled request's buffer back.
    pub fn recycle(&mut self, request: RequestBytes) {
        if self.spare.is_empty() {
            self.spare.push(request.buffer);
        }
    }

    fn encode(&mut self, span: &Span) {
        let Self { run, raw, samples, .. } = self;
        raw.clear();
        let first = usize::try_from(span.first_series - self.labels_first).expect("in the window");
        for (series, (labels, cursor)) in (span.first_series..).zip(self.labels.range_mut(first..))
        {
            if series == span.first_series + u64::from(span.series) {
                break;
            }
            let indexes = span.first_sample..span.first_sample + u64::from(span.points);
            samples.clear();
            samples.extend(indexes.map(|sample| run.sample(cursor, series, sample)));
            let samples = samples.iter().copied();
            match self.protocol {
                Protocol::RemoteWrite => remote_write::encode_series(raw, labels, samples),
                Protocol::VmJson => vm_json::encode_line(raw, labels, samples),
            }
        }
    }

    fn move_labels(&mut self, window_first: u64, end: u64) {
        while self.labels_first < window_first && self.labels.pop_front().is_some() {
            self.labels_first += 1;
        }
        if self.labels.is_empty() {
            self.labels_first = window_first;
        }
        for series in self.labels_first + self.labels.len() as u64..end {
            let labels = self.run.labels(series);
            let encoded = match self.protocol {
                Protocol::RemoteWrite => remote_write::encode_labels(&labels),
                Protocol::VmJson => vm_json::encode_labels(&labels),
            };
            self.labels.push_back((encoded.into_boxed_slice(), self.run.cursor(series)));
        }
    }
}
