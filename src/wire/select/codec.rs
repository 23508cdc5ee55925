//! Selects as frames. Each bears the number of its request, so that several may share a link.
//! Questions, ends and faults are rare and read by copying; series and strings are read in place.

use rkyv::{Archive, Deserialize, Serialize};

use super::series::{PieceTooLong, encode_series};
use super::{SelectAnswer, SelectFault, SelectRequest, SelectWant};
use crate::model::matcher::{MatchOperator, Matcher};
use crate::model::series::TenantId;
use crate::wire::frame::{
    FrameFault, FrameHeader, FrameKind, Memory, decode_control, encode_control,
};

/// The version of the payloads of selects.
pub const SELECT_SCHEMA: u16 = 1;
/// Strings go into another frame when one holds so many bytes.
const STRINGS_BYTES: usize = 512 << 10;

#[derive(Archive, Serialize, Deserialize)]
struct SelectPayload {
    request: u64,
    start_ms: i64,
    end_ms: i64,
    tenant: u32,
    series_max: u32,
    matchers: Vec<SelectMatcher>,
    want: SelectWant,
}

#[derive(Archive, Serialize, Deserialize)]
struct SelectMatcher {
    name: String,
    value: String,
    operator: SelectOperator,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy)]
enum SelectOperator {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

#[derive(Archive, Serialize, Default)]
struct StringsPayload {
    request: u64,
    /// Where each string ends in `text`.
    ends: Vec<u32>,
    text: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize)]
struct EndPayload {
    request: u64,
    ending: SelectEnding,
}

/// The last frame of an answer.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum SelectEnding {
    /// All has been said.
    End {
        /// Series that matched.
        series_count: u32,
    },
    /// Nothing more will come.
    Fault(SelectFault),
}

impl SelectRequest {
    /// Its frame, under the number `request`. Matchers longer than a frame have no place in a URL
    /// either, and are the caller's to refuse.
    pub fn encode_frame(&self, request: u64) -> Memory {
        let matchers = self.matchers.iter().map(|matcher| SelectMatcher {
            name: matcher.name.clone(),
            value: matcher.value.clone(),
            operator: match matcher.operator {
                MatchOperator::Equal => SelectOperator::Equal,
                MatchOperator::NotEqual => SelectOperator::NotEqual,
                MatchOperator::Regex => SelectOperator::Regex,
                MatchOperator::NotRegex => SelectOperator::NotRegex,
            },
        });
        let payload = SelectPayload {
            request,
            start_ms: self.start_ms,
            end_ms: self.end_ms,
            tenant: self.tenant.0,
            series_max: self.series_max,
            matchers: matchers.collect(),
            want: self.want.clone(),
        };
        encode_control(FrameKind::Select, SELECT_SCHEMA, &payload)
    }

    /// Reads a payload, which is 16-aligned: the request's number, and the request.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<(u64, Self), FrameFault> {
        let payload: SelectPayload = decode_control(header, SELECT_SCHEMA, payload)?;
        let matchers = payload.matchers.into_iter().map(|matcher| Matcher {
            name: matcher.name,
            value: matcher.value,
            operator: match matcher.operator {
                SelectOperator::Equal => MatchOperator::Equal,
                SelectOperator::NotEqual => MatchOperator::NotEqual,
                SelectOperator::Regex => MatchOperator::Regex,
                SelectOperator::NotRegex => MatchOperator::NotRegex,
            },
        });
        let request = Self {
            tenant: TenantId(payload.tenant),
            matchers: matchers.collect(),
            start_ms: payload.start_ms,
            end_ms: payload.end_ms,
            want: payload.want,
            series_max: payload.series_max,
        };
        Ok((payload.request, request))
    }
}

/// The frames of a piece of the answer to the request of this number: one, or some if it is long.
///
/// # Errors
/// A series that cannot be cut small enough to travel; the caller ends the select with a fault.
pub fn encode_answer(request: u64, answer: &SelectAnswer) -> Result<Vec<Memory>, PieceTooLong> {
    let end =
        |kind, ending| vec![encode_control(kind, SELECT_SCHEMA, &EndPayload { request, ending })];
    Ok(match answer {
        SelectAnswer::Series(series) => encode_series(request, series)?,
        SelectAnswer::Strings(strings) => encode_strings(request, strings),
        SelectAnswer::End { series_count } => {
            let series_count = *series_count;
            end(FrameKind::SelectEnd, SelectEnding::End { series_count })
        }
        SelectAnswer::Fault(fault) => {
            end(FrameKind::SelectFault, SelectEnding::Fault(fault.clone()))
        }
    })
}

fn encode_strings(request: u64, strings: &[Box<str>]) -> Vec<Memory> {
    let mut frames = Vec::new();
    let mut payload = StringsPayload { request, ..StringsPayload::default() };
    for string in strings {
        if payload.text.len() >= STRINGS_BYTES {
            frames.push(encode_control(FrameKind::Strings, SELECT_SCHEMA, &payload));
            payload.ends.clear();
            payload.text.clear();
        }
        payload.text.extend_from_slice(string.as_bytes());
        payload.ends.push(u32::try_from(payload.text.len()).expect("labels are below 1 MiB"));
    }
    frames.push(encode_control(FrameKind::Strings, SELECT_SCHEMA, &payload));
    frames
}

/// Label names or values, read in place.
#[derive(Clone, Copy, Debug)]
pub struct StringsView<'a> {
    request: u64,
    ends: &'a [u32],
    text: &'a str,
}

impl<'a> StringsView<'a> {
    /// Reads `payload`, which is 16-aligned. Afterwards each string is UTF-8.
    pub fn check(header: &FrameHeader, payload: &'a [u8]) -> Result<Self, FrameFault> {
        header.check_schema(SELECT_SCHEMA)?;
        let bad = FrameFault::BadPayload;
        let archived = rkyv::access::<ArchivedStringsPayload, rkyv::rancor::Failure>(payload)
            .map_err(|_| bad)?;
        let text = std::str::from_utf8(archived.text.as_slice()).map_err(|_| bad)?;
        let ends: &[u32] = bytemuck::cast_slice(archived.ends.as_slice());
        let is_whole = ends.is_sorted()
            && ends.last().copied().unwrap_or(0) as usize == text.len()
            && ends.iter().all(|end| text.is_char_boundary(*end as usize));
        let view = Self { request: archived.request.to_native(), ends, text };
        is_whole.then_some(view).ok_or(bad)
    }

    /// The number of the request that this answers.
    pub fn request(&self) -> u64 {
        self.request
    }

    /// The strings.
    pub fn strings(self) -> impl Iterator<Item = &'a str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let string = &self.text[start..*end as usize];
            start = *end as usize;
            string
        })
    }
}

impl SelectEnding {
    /// Reads a payload, which is 16-aligned, of the kinds `SelectEnd` and `SelectFault`: the
    /// request's number, and how it ended.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<(u64, Self), FrameFault> {
        let EndPayload { request, ending } = decode_control(header, SELECT_SCHEMA, payload)?;
        let kind = match &ending {
            Self::End { .. } => FrameKind::SelectEnd,
            Self::Fault(_) => FrameKind::SelectFault,
        };
        (kind == header.kind).then_some((request, ending)).ok_or(FrameFault::BadPayload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::golden::check_control_frame;

    #[test]
    fn questions_and_ends_round_trip() {
        let request = SelectRequest {
            tenant: TenantId(3),
            matchers: vec![
                Matcher::equal("__name__", "up"),
                Matcher {
                    name: "job".into(),
                    operator: MatchOperator::NotRegex,
                    value: "a.*|ü".into(),
                },
            ],
            start_ms: i64::MIN,
            end_ms: 1_700_000_000_000,
            want: SelectWant::LabelValues("instance".into()),
            series_max: 5,
        };
        let frame = request.encode_frame(9);
        check_control_frame("select", &frame, &(9, request), SelectRequest::decode);
        let fault = SelectFault::Disk("block 7 is shorter than its header says".into());
        for (name, answer, ending) in [
            (
                "select_end",
                SelectAnswer::End { series_count: 12 },
                SelectEnding::End { series_count: 12 },
            ),
            ("select_fault", SelectAnswer::Fault(fault.clone()), SelectEnding::Fault(fault)),
        ] {
            let frame = &encode_answer(9, &answer).expect("short")[0];
            check_control_frame(name, frame, &(9, ending), SelectEnding::decode);
        }
    }

    #[test]
    fn strings_round_trip_also_in_several_frames() {
        fn read(header: &FrameHeader, payload: &[u8]) -> Result<Vec<String>, FrameFault> {
            let view = StringsView::check(header, payload)?;
            assert!(view.request() == 9 || header.sequence == 0);
            Ok(view.strings().map(str::to_string).collect())
        }
        let strings = ["a", "", "größe"].map(Box::from).to_vec();
        let frame = &encode_answer(9, &SelectAnswer::Strings(strings)).expect("short")[0];
        let want = ["a", "", "größe"].map(String::from).to_vec();
        check_control_frame("strings", frame, &want, read);
        let many: Vec<Box<str>> = (0..3000).map(|n| format!("{n:0999}").into()).collect();
        let frames = encode_answer(9, &SelectAnswer::Strings(many.clone())).expect("short");
        assert!(frames.len() > 4);
        let mut all = Vec::new();
        for frame in &frames {
            let header = crate::wire::frame::check_frame(frame).expect("sealed");
            all.extend(read(&header, &frame[64..]).expect("encoded"));
        }
        assert!(all.iter().map(String::as_str).eq(many.iter().map(|string| &**string)));
    }
}
