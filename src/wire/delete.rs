//! The payload of a `Delete` frame: samples of some series in a range of time are gone, of all that
//! were written before it. Rare, so it is read by copying.

use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::model::matcher::{MatchOperator, Matcher};
use crate::model::series::TenantId;
use crate::wire::frame::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameFault, FrameHeader, FrameKind, PAYLOAD_ALIGN,
    decode_body, decode_control, encode_body, encode_control, seal_frame,
};

/// The version of the payload; a changed struct gets a new number and a struct of its own.
pub const DELETE_SCHEMA: u16 = 1;
/// Longest text of all matchers together.
pub const DELETE_TEXT_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(2 * DELETE_TEXT_BYTES_MAX < FRAME_BYTES_MAX);

/// What is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Node-wide, rising.
    pub id: u64,
    /// Whose series.
    pub tenant: TenantId,
    /// A series that satisfies all of them; never empty.
    pub matchers: Vec<Matcher>,
    /// Oldest sample that is deleted, Unix milliseconds.
    pub start_ms: i64,
    /// Newest sample that is deleted.
    pub end_ms: i64,
}

#[derive(Archive, Serialize, Deserialize)]
struct DeletePayload {
    id: u64,
    start_ms: i64,
    end_ms: i64,
    tenant: u32,
    matchers: Vec<DeleteMatcher>,
}

#[derive(Archive, Serialize, Deserialize)]
struct DeleteMatcher {
    name: String,
    value: String,
    operator: u8,
}

/// What became of a deletion that a gateway asked a node for.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// It is durable in the list of blocks and in every shard's log.
    Done,
    /// It is not, or not everywhere; asking again mends it.
    Refused {
        /// Why, for people.
        text: String,
    },
}

impl DeleteOutcome {
    /// Its frame, without a number yet.
    pub fn encode_frame(&self) -> AlignedVec<PAYLOAD_ALIGN> {
        encode_control(FrameKind::Deleted, DELETE_SCHEMA, self)
    }

    /// Reads a payload, which is 16-aligned.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, FrameFault> {
        decode_control(header, DELETE_SCHEMA, payload)
    }
}

const OPERATORS: [MatchOperator; 4] =
    [MatchOperator::Equal, MatchOperator::NotEqual, MatchOperator::Regex, MatchOperator::NotRegex];

impl Deletion {
    /// Its frame.
    pub fn encode_frame(&self, shard: u32) -> AlignedVec<PAYLOAD_ALIGN> {
        let operator = |matcher: &Matcher| {
            let at = OPERATORS.iter().position(|operator| *operator == matcher.operator);
            u8::try_from(at.expect("all of them are listed")).expect("four")
        };
        let matchers = self.matchers.iter().map(|matcher| DeleteMatcher {
            name: matcher.name.clone(),
            value: matcher.value.clone(),
            operator: operator(matcher),
        });
        let payload = DeletePayload {
            id: self.id,
            start_ms: self.start_ms,
            end_ms: self.end_ms,
            tenant: self.tenant.0,
            matchers: matchers.collect(),
        };
        let mut frame = encode_body(&payload);
        let payload_len_bytes = u32::try_from(frame.len() - FRAME_HEADER_BYTES);
        let header = FrameHeader {
            kind: FrameKind::Delete,
            schema: DELETE_SCHEMA,
            flags: 0,
            sequence: 0,
            epoch: 0,
            shard,
            id_space: 0,
            payload_len_bytes: payload_len_bytes.expect("matchers are shorter than a frame"),
        };
        seal_frame(&mut frame, &header);
        frame
    }

    /// Reads the payload of a frame, which is 16-aligned.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameFault> {
        let bad = FrameFault::BadPayload;
        let payload: DeletePayload = decode_body(payload)?;
        let mut matchers = Vec::new();
        for DeleteMatcher { name, value, operator } in payload.matchers {
            let operator = *OPERATORS.get(usize::from(operator)).ok_or(bad)?;
            matchers.push(Matcher { name, operator, value });
        }
        if matchers.is_empty() {
            return Err(bad);
        }
        Ok(Self {
            id: payload.id,
            tenant: TenantId(payload.tenant),
            matchers,
            start_ms: payload.start_ms,
            end_ms: payload.end_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::check_frame;
    use crate::wire::golden::check_control_frame;

    fn example() -> Deletion {
        let operator = MatchOperator::NotRegex;
        let matchers = vec![
            Matcher::equal("__name__", "up"),
            Matcher { name: "job".into(), operator, value: "a|b".into() },
        ];
        Deletion { id: 9, tenant: TenantId(2), matchers, start_ms: i64::MIN, end_ms: 77 }
    }

    #[test]
    fn round_trip_and_mutations() {
        let frame = example().encode_frame(1);
        assert_eq!(check_frame(&frame).map(|header| header.kind), Ok(FrameKind::Delete));
        assert_eq!(Deletion::decode(&frame[FRAME_HEADER_BYTES..]), Ok(example()));
        for bit in FRAME_HEADER_BYTES * 8..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let _ = Deletion::decode(&bad[FRAME_HEADER_BYTES..]);
        }
    }

    #[test]
    fn outcomes_round_trip_in_frozen_bytes() {
        for (name, outcome) in [
            ("deleted", DeleteOutcome::Done),
            ("delete_refused", DeleteOutcome::Refused { text: "a log failed".into() }),
        ] {
            check_control_frame(name, &outcome.encode_frame(), &outcome, DeleteOutcome::decode);
        }
    }

    #[test]
    fn frame_bytes_are_frozen() {
        // Logs hold these bytes: a change needs a new DELETE_SCHEMA.
        let path = "tests/golden/delete_frame_v1.bin";
        let frame = example().encode_frame(1);
        if std::env::var_os("TIDEGATE_WRITE_GOLDEN").is_some() {
            std::fs::write(path, &frame).expect("a file");
        }
        assert!(frame[..] == std::fs::read(path).expect("the golden file")[..]);
    }
}
