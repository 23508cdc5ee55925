//! Selects as frames. Each bears the number of its request in its header.
//! Questions, ends and faults are rare and read by copying; series and strings are read in place.

use rkyv::{Archive, Deserialize, Serialize};

use super::series::{PieceTooLong, encode_series};
use super::{SelectAnswer, SelectFault, SelectLayer, SelectRequest, SelectWant};
use crate::model::matcher::{MatchOperator, Matcher};
use crate::model::series::TenantId;
use crate::wire::frame::{
    FrameFault, FrameHeader, FrameKind, Memory, decode_control, encode_control, encode_numbered,
};
use crate::wire::hints::Lacking;

/// The version of the payloads of selects.
pub const SELECT_SCHEMA: u16 = 1;
/// Strings go into another frame when one holds so many bytes.
const STRINGS_BYTES: usize = 512 << 10;

#[derive(Archive, Serialize, Deserialize)]
struct SelectPayload {
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
    /// Where each string ends in `text`.
    ends: Vec<u32>,
    text: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize)]
struct EndPayload {
    ending: SelectEnding,
}

/// The last frame of an answer.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum SelectEnding {
    /// All has been said.
    End {
        /// Series that matched.
        series_count: u32,
        /// What the node knows to lack, whether series match or not.
        lacking: Lacking,
    },
    /// Nothing more will come.
    Fault(SelectFault),
}

impl SelectRequest {
    /// Its frame, without a number yet. Matchers longer than a frame have no place in a URL either,
    /// and are the caller's to refuse.
    pub fn encode_frame(&self) -> Memory {
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
            start_ms: self.start_ms,
            end_ms: self.end_ms,
            tenant: self.tenant.0,
            series_max: self.series_max,
            matchers: matchers.collect(),
            want: self.want.clone(),
        };
        encode_control(FrameKind::Select, SELECT_SCHEMA, &payload)
    }

    /// Reads a payload, which is 16-aligned.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, FrameFault> {
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
        Ok(Self {
            tenant: TenantId(payload.tenant),
            matchers: matchers.collect(),
            start_ms: payload.start_ms,
            end_ms: payload.end_ms,
            want: payload.want,
            series_max: payload.series_max,
        })
    }
}

/// The frames of a piece of the answer to the request of number `request`, from `layer`: one, or
/// some if it is long.
///
/// # Errors
/// A series that cannot be cut small enough to travel; the caller ends the select with a fault.
pub fn encode_answer(
    request: u64,
    layer: SelectLayer,
    answer: &SelectAnswer,
) -> Result<Vec<Memory>, PieceTooLong> {
    let end = |kind, ending| {
        vec![encode_numbered((kind, SELECT_SCHEMA), request, &EndPayload { ending })]
    };
    Ok(match answer {
        SelectAnswer::Series(series) => encode_series((request, layer), series)?,
        SelectAnswer::Strings(strings) => encode_strings(request, strings),
        SelectAnswer::End { series_count } => {
            vec![encode_end(request, *series_count, Lacking::default())]
        }
        SelectAnswer::Fault(fault) => {
            end(FrameKind::SelectFault, SelectEnding::Fault(fault.clone()))
        }
    })
}

/// The last frame of the answer of a node that knows what it lacks.
pub fn encode_end(request: u64, series_count: u32, lacking: Lacking) -> Memory {
    let ending = SelectEnding::End { series_count, lacking };
    encode_numbered((FrameKind::SelectEnd, SELECT_SCHEMA), request, &EndPayload { ending })
}

fn encode_strings(request: u64, strings: &[Box<str>]) -> Vec<Memory> {
    const KIND: (FrameKind, u16) = (FrameKind::Strings, SELECT_SCHEMA);
    let mut frames = Vec::new();
    let mut payload = StringsPayload::default();
    for string in strings {
        if payload.text.len() >= STRINGS_BYTES {
            frames.push(encode_numbered(KIND, request, &payload));
            payload.ends.clear();
            payload.text.clear();
        }
        payload.text.extend_from_slice(string.as_bytes());
        payload.ends.push(u32::try_from(payload.text.len()).expect("labels are below 1 MiB"));
    }
    frames.push(encode_numbered(KIND, request, &payload));
    frames
}

/// Label names or values, read in place.
#[derive(Clone, Copy, Debug)]
pub struct StringsView<'a> {
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
        is_whole.then_some(Self { ends, text }).ok_or(bad)
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
    /// Reads a payload, which is 16-aligned, of the kinds `SelectEnd` and `SelectFault`.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, FrameFault> {
        let EndPayload { ending } = decode_control(header, SELECT_SCHEMA, payload)?;
        let kind = match &ending {
            Self::End { .. } => FrameKind::SelectEnd,
            Self::Fault(_) => FrameKind::SelectFault,
        };
        (kind == header.kind).then_some(ending).ok_or(FrameFault::BadPayload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::golden::check_control_frame;

    const LAYER: SelectLayer = SelectLayer::Heads;

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
        let frame = request.encode_frame();
        check_control_frame("select", &frame, &request, SelectRequest::decode);
        let fault = SelectFault::Disk("block 7 is shorter than its header says".into());
        let lacking = Lacking { waiting_samples: 3, keepers: 1, ..Lacking::default() };
        let ending = SelectEnding::End { series_count: 12, lacking };
        let frame = encode_end(9, 12, lacking);
        check_control_frame("select_end", &frame, &ending, SelectEnding::decode);
        let answer = SelectAnswer::Fault(fault.clone());
        let frame = &encode_answer(9, LAYER, &answer).expect("short")[0];
        let ending = SelectEnding::Fault(fault);
        check_control_frame("select_fault", frame, &ending, SelectEnding::decode);
    }

    #[test]
    fn strings_round_trip_also_in_several_frames() {
        fn read(header: &FrameHeader, payload: &[u8]) -> Result<Vec<String>, FrameFault> {
            let view = StringsView::check(header, payload)?;
            assert_eq!(header.sequence, 9);
            Ok(view.strings().map(str::to_string).collect())
        }
        let strings = ["a", "", "größe"].map(Box::from).to_vec();
        let frame = &encode_answer(9, LAYER, &SelectAnswer::Strings(strings)).expect("short")[0];
        let want = ["a", "", "größe"].map(String::from).to_vec();
        check_control_frame("strings", frame, &want, read);
        let many: Vec<Box<str>> = (0..3000).map(|n| format!("{n:0999}").into()).collect();
        let frames = encode_answer(9, LAYER, &SelectAnswer::Strings(many.clone())).expect("short");
        assert!(frames.len() > 4);
        let mut all = Vec::new();
        for frame in &frames {
            let header = crate::wire::frame::check_frame(frame).expect("sealed");
            all.extend(read(&header, &frame[64..]).expect("encoded"));
        }
        assert!(all.iter().map(String::as_str).eq(many.iter().map(|string| &**string)));
    }
}
