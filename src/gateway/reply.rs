//! What became of an ingest request -> the answer that says so. Last stage (see `gateway/mod.rs`).
//!
//! In: counts, and the first of what went wrong. Out: status, text, Retry-After. Pure; the good
//! case allocates nothing. A 4xx says that a retry cannot help, a 503 that it can: writing the
//! valid samples again is harmless, since the last write of a series and timestamp wins. Senders
//! log the first bytes of an answer, so the reason comes first, then the counts, then the limits
//! that were passed, all within [`TELLING_BYTES_MAX`]; what was sent to us is quoted last.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::endpoint::{Endpoint, HeaderFault};
use crate::http::response::{self, Header, Response, TEXT_PLAIN};
use crate::model::refusal::{Blame, Refusal, RefusalCounts};

/// Reasons and counts stand in this many bytes of a text: what Prometheus' sender logs of a
/// refusal.
pub const TELLING_BYTES_MAX: usize = 1024;

const FAILED_LINES_MAX: usize = 3;
const QUOTE_BYTES_MAX: usize = 200;
const APPLICATION_JSON: &str = "application/json";

/// What became of an ingest request.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// Where it came in.
    pub endpoint: Endpoint,
    /// Samples that are durable.
    pub written: u64,
    /// Samples that are not, by reason. [`Refusal::BadLine`] is ignored: those are `failed_lines`.
    pub refused: RefusalCounts,
    /// The first sample that was refused.
    pub first_refusal: Option<FirstRefusal<'a>>,
    /// Lines refused whole (JSON lines).
    pub failed_lines: u64,
    /// The first of them.
    pub failed_line_texts: &'a [String],
    /// Set if nothing of the body was looked at, or all of it refused as one.
    pub body_fault: Option<BodyFault<'a>>,
}

/// The first sample that was refused, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstRefusal<'a> {
    /// Why.
    pub reason: Refusal,
    /// Where, if the decoder refused it; what a node refuses has no place in the body any more.
    pub position: Option<Position>,
    /// Its series, as text.
    pub series: Option<&'a str>,
}

/// Where in a request something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// An offset into the decompressed body.
    BodyBytes(u64),
    /// A line, from 1.
    Line(u64),
}

impl Position {
    /// The position that the decoder of `endpoint` gave (`DecodedRequest::first_refusal`).
    pub fn decoded(endpoint: Endpoint, position: u64) -> Self {
        match endpoint {
            Endpoint::RemoteWriteV1 => Self::BodyBytes(position),
            Endpoint::VmJson => Self::Line(position),
        }
    }
}

/// Why a whole body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFault<'a> {
    /// The reason that is counted.
    pub reason: Refusal,
    /// The decoder's or decompressor's words: "cannot <verb>: <cause>".
    pub text: &'a str,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Content type of `body`.
    pub content_type: &'static str,
    /// Empty with 204.
    pub body: String,
    /// With 503: when a retry is worth it.
    pub retry_after_seconds: Option<u32>,
    /// With 405 and the answer to `OPTIONS`: what is allowed.
    pub allow: Option<&'static str>,
}

impl Reply {
    /// Everything is durable.
    pub const NO_CONTENT: Self = Self {
        status: 204,
        content_type: TEXT_PLAIN,
        body: String::new(),
        retry_after_seconds: None,
        allow: None,
    };

    /// The answer to a request whose headers rule its body out.
    pub fn of_header_fault(endpoint: Endpoint, fault: HeaderFault) -> Self {
        Self { status: fault.status(), body: fault.text(endpoint).to_string(), ..Self::NO_CONTENT }
    }

    /// The answer to a method that an ingest path does not have.
    pub fn of_method_not_allowed(allow: &'static str) -> Self {
        let body = format!("cannot serve the method: this path takes {allow}\n");
        Self { status: 405, body, allow: Some(allow), ..Self::NO_CONTENT }
    }

    /// The answer to `OPTIONS` on an ingest path.
    pub fn of_options(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::NO_CONTENT }
    }

    /// Appends it as HTTP; after `HEAD`, without the body.
    pub fn encode(&self, out: &mut Vec<u8>, method: &str, keep_alive: bool) {
        let mut digits = itoa::Buffer::new();
        let mut headers: [Header<'_>; 2] = [("", b""); 2];
        if let Some(allow) = self.allow {
            headers[0] = ("allow", allow.as_bytes());
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers[1] = ("retry-after", digits.format(seconds).as_bytes());
        }
        let response = Response {
            status: self.status,
            content_type: self.content_type,
            headers: &headers,
            body: self.body.as_bytes(),
            keep_alive,
        };
        if method == "HEAD" {
            response::encode_response_to_head(out, &response);
        } else {
            response::encode_response(out, &response);
        }
    }
}

/// The answer to an ingest request of which `outcome` became.
pub fn reply_to(outcome: &Outcome<'_>) -> Reply {
    if let Some(fault) = outcome.body_fault {
        return reply_to_body_fault(fault);
    }
    if let Some(reason) = most_frequent(&outcome.refused, Blame::Server) {
        return unavailable(&outcome.refused, refusal_text(outcome, reason));
    }
    match outcome.endpoint {
        Endpoint::RemoteWriteV1 => match most_frequent(&outcome.refused, Blame::Client) {
            Some(reason) => {
                let body = refusal_text(outcome, reason);
                Reply { status: 400, body, ..Reply::NO_CONTENT }
            }
            None => Reply::NO_CONTENT,
        },
        Endpoint::VmJson => reply_to_lines(outcome),
    }
}

/// The flag that sets the limit behind `reason`, if there is one.
pub fn limit_flag(reason: Refusal) -> Option<&'static str> {
    match reason {
        Refusal::BodyTooLarge => Some("body-bytes-max"),
        Refusal::TooManyLabels => Some("labels-max"),
        Refusal::LabelNameTooLong => Some("label-name-bytes-max"),
        Refusal::LabelValueTooLong => Some("label-value-bytes-max"),
        Refusal::LabelsTooLong => Some("labels-bytes-max"),
        Refusal::TooOld => Some("out-of-order-window"),
        Refusal::HeadFull => Some("head-bytes-max"),
        Refusal::DiskFull => Some("disk-free-min"),
        Refusal::OlderThanRetention => Some("retention"),
        Refusal::HintsFull => Some("hint-bytes-max, hint-age-max"),
        _ => None,
    }
}

/// The answer to a body that was refused as one, or not looked at.
pub fn reply_to_body_fault(fault: BodyFault<'_>) -> Reply {
    let mut body = format!("{}: {}", fault.reason.as_str(), fault.text.trim_end());
    if let Some(flag) = limit_flag(fault.reason)
        && !fault.text.contains(flag)
    {
        write!(body, "; limit: {flag}").expect("a String takes all");
    }
    body.push('\n');
    match (fault.reason.blame(), fault.reason) {
        (Blame::Server, reason) => {
            let mut refused = RefusalCounts::default();
            refused.add(reason, 1);
            unavailable(&refused, body)
        }
        (Blame::Client, Refusal::BodyTooLarge) => Reply { status: 413, body, ..Reply::NO_CONTENT },
        (Blame::Client, Refusal::NotAGateway) => Reply { status: 421, body, ..Reply::NO_CONTENT },
        (Blame::Client, _) => Reply { status: 400, body, ..Reply::NO_CONTENT },
    }
}

fn unavailable(refused: &RefusalCounts, body: String) -> Reply {
    let retry_after_seconds = refused.iter().filter_map(|(reason, _)| retry_seconds(reason)).max();
    Reply { status: 503, body, retry_after_seconds, ..Reply::NO_CONTENT }
}

/// How long until a retry may find another state: the queues turn over in milliseconds, an operator
/// does not.
fn retry_seconds(reason: Refusal) -> Option<u32> {
    match reason {
        Refusal::Overloaded | Refusal::NodeDown | Refusal::StaleEpoch | Refusal::NoPlacement => {
            Some(1)
        }
        Refusal::Replaying | Refusal::Draining => Some(5),
        Refusal::HeadFull | Refusal::DiskFull | Refusal::LogFailed | Refusal::HintsFull => Some(30),
        _ => None,
    }
}

/// The reason of `blame` with the most samples; of equals the first in counter order.
fn most_frequent(refused: &RefusalCounts, blame: Blame) -> Option<Refusal> {
    let mut most = None;
    for (reason, samples) in sample_refusals(refused) {
        if reason.blame() == blame && most.is_none_or(|(_, most_samples)| samples > most_samples) {
            most = Some((reason, samples));
        }
    }
    most.map(|(reason, _)| reason)
}

fn sample_refusals(refused: &RefusalCounts) -> impl Iterator<Item = (Refusal, u64)> + '_ {
    refused.iter().filter(|(reason, _)| *reason != Refusal::BadLine)
}

/// `reason: 3 of 5000 samples refused; 4997 written (reason 3); limit: flag; first: ...`
fn refusal_text(outcome: &Outcome<'_>, reason: Refusal) -> String {
    let mut text = String::with_capacity(256);
    write_refusals(&mut text, outcome, reason).expect("a String takes all");
    text
}

fn write_refusals(
    text: &mut String,
    outcome: &Outcome<'_>,
    reason: Refusal,
) -> Result<(), std::fmt::Error> {
    let refused = sample_refusals(&outcome.refused).map(|(_, samples)| samples).sum::<u64>();
    let (written, samples) = (outcome.written, outcome.written + refused);
    let reason = reason.as_str();
    write!(text, "{reason}: {refused} of {samples} samples refused; {written} written (")?;
    for (index, (reason, samples)) in sample_refusals(&outcome.refused).enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(text, "{separator}{} {samples}", reason.as_str())?;
    }
    text.push(')');
    if outcome.failed_lines > 0 {
        write!(text, "; {} lines failed", outcome.failed_lines)?;
    }
    let flags = sample_refusals(&outcome.refused).filter_map(|(reason, _)| limit_flag(reason));
    for (index, flag) in flags.enumerate() {
        text.push_str(if index == 0 { "; limit: " } else { ", " });
        text.push_str(flag);
    }
    if let Some(first) = outcome.first_refusal {
        write!(text, "; first: {}", first.reason.as_str())?;
        match first.position {
            Some(Position::BodyBytes(offset)) => write!(text, " at byte {offset} of the body")?,
            Some(Position::Line(line)) => write!(text, " in line {line}")?,
            None => {}
        }
        if let Some(series) = first.series {
            write!(text, " of {}", quoted(series))?;
        }
    }
    text.push('\n');
    Ok(())
}

/// The answer of `/api/v1/import` to a body of which some lines or samples are bad.
#[derive(serde::Serialize)]
struct LinesReport<'a> {
    samples: u64,
    errors: u64,
    failed_lines: Vec<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    refused: BTreeMap<&'static str, u64>,
    /// The flags of the limits that were passed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<&'static str>,
}

fn reply_to_lines(outcome: &Outcome<'_>) -> Reply {
    let refused: BTreeMap<_, _> = sample_refusals(&outcome.refused)
        .map(|(reason, samples)| (reason.as_str(), samples))
        .collect();
    let errors = outcome.failed_lines + refused.values().sum::<u64>();
    if errors == 0 {
        return Reply::NO_CONTENT;
    }
    let lines = outcome.failed_line_texts.iter().take(FAILED_LINES_MAX);
    let report = LinesReport {
        samples: outcome.written,
        errors,
        failed_lines: lines.map(|line| cut(line)).collect(),
        refused,
        limits: sample_refusals(&outcome.refused)
            .filter_map(|(reason, _)| limit_flag(reason))
            .collect(),
    };
    let body = serde_json::to_string(&report).expect("numbers and strings are JSON");
    Reply { status: 200, content_type: APPLICATION_JSON, body, ..Reply::NO_CONTENT }
}

/// The start of `text`, at most [`QUOTE_BYTES_MAX`] bytes of whole characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(QUOTE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What was sent to us, cut, and without what would begin another line in somebody's log.
fn quoted(text: &str) -> Cow<'_, str> {
    let start = cut(text);
    if start.contains(char::is_control) {
        Cow::Owned(start.replace(char::is_control, "\u{fffd}"))
    } else {
        Cow::Borrowed(start)
    }
}

#[cfg(test)]
mod tests;
