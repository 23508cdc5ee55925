//! What a node answers to `Write` frames, once they are durable.
//!
//! One `Ack` frame answers all frames up to a sequence; only those about which there is something
//! to say take room in it. Columns, checked once on arrival and read in place.

use rkyv::{Archive, Serialize};

use crate::model::refusal::Refusal;
use crate::model::series::SeriesId;
use crate::wire::frame::{FrameFault, FrameHeader, FrameKind, Memory, encode_control};

/// The version of the payload.
pub const ACK_SCHEMA: u16 = 1;
/// Set in an entry of the id column: the series was refused, and the rest is the reason.
const REFUSED: u32 = 1 << 31;
/// Stands for "this frame as a whole was not refused".
const NO_REFUSAL: u32 = u32::MAX;

/// All frames of the link up to `sequence` are durable. Events of one frame; acks come in sequence
/// order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// The frame's sequence.
    pub sequence: u64,
    /// The ids of the frame's new series, in its order; `Err` where the series was refused.
    pub assigned: Vec<Result<SeriesId, Refusal>>,
    /// Samples of the frame that were refused: their index, and why.
    pub refused: Vec<RefusedSample>,
}

/// A sample that did not make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedSample {
    /// Its index in the frame's columns.
    pub index: u32,
    /// Why.
    pub reason: Refusal,
}

/// What a node says to one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameAnswer {
    /// It is durable.
    Durable(Ack),
    /// Nothing of it was taken.
    Refused {
        /// The frame's sequence.
        sequence: u64,
        /// Why.
        reason: Refusal,
    },
}

impl FrameAnswer {
    /// Of the frame.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Durable(ack) => ack.sequence,
            Self::Refused { sequence, .. } => *sequence,
        }
    }

    /// Whether there is nothing to say but that it is durable.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Durable(ack) if ack.assigned.is_empty() && ack.refused.is_empty())
    }

    /// Bytes that it takes in an `Ack` frame, about.
    pub fn len_bytes(&self) -> usize {
        match self {
            Self::Durable(_) if self.is_plain() => 0,
            Self::Durable(ack) => {
                size_of::<AckFrame>()
                    + size_of::<u32>() * ack.assigned.len()
                    + size_of::<AckSample>() * ack.refused.len()
            }
            Self::Refused { .. } => size_of::<AckFrame>(),
        }
    }
}

/// The payload, as it is gathered. All columns but `frames` are one frame's after the other's.
#[derive(Archive, Serialize, Debug, Default)]
pub struct AckPayload {
    /// Frames up to this one are answered.
    answered_sequence: u64,
    /// Bytes of frames behind it that the node has room for.
    credit_bytes: u64,
    frames: Vec<AckFrame>,
    assigned: Vec<u32>,
    refused: Vec<AckSample>,
}

#[derive(Archive, Serialize, Clone, Copy, Debug)]
struct AckFrame {
    sequence: u64,
    /// Its entries of `assigned` and `refused` end here; they begin where the last frame's end.
    assigned_end: u32,
    refused_end: u32,
    /// [`NO_REFUSAL`], or why nothing of it was taken.
    refusal: u32,
    reserved: u32,
}

#[derive(Archive, Serialize, Clone, Copy, Debug)]
struct AckSample {
    index: u32,
    reason: u32,
}

impl AckPayload {
    /// Adds what is said to the next frame.
    pub fn push(&mut self, answer: &FrameAnswer) {
        self.answered_sequence = answer.sequence();
        let refusal =
            match answer {
                _ if answer.is_plain() => return,
                FrameAnswer::Durable(ack) => {
                    self.assigned.extend(ack.assigned.iter().map(|assigned| match assigned {
                        Ok(id) => id.0,
                        Err(reason) => REFUSED | *reason as u32,
                    }));
                    let samples = ack.refused.iter();
                    self.refused.extend(samples.map(|sample| AckSample {
                        index: sample.index,
                        reason: sample.reason as u32,
                    }));
                    NO_REFUSAL
                }
                FrameAnswer::Refused { reason, .. } => *reason as u32,
            };
        self.frames.push(AckFrame {
            sequence: answer.sequence(),
            assigned_end: column_end(self.assigned.len()),
            refused_end: column_end(self.refused.len()),
            refusal,
            reserved: 0,
        });
    }

    /// The frame: all frames up to `answered_sequence` are answered, here or before.
    pub fn encode_frame(&mut self, answered_sequence: u64, credit_bytes: u64) -> Memory {
        self.answered_sequence = answered_sequence;
        self.credit_bytes = credit_bytes;
        encode_control(FrameKind::Ack, ACK_SCHEMA, self)
    }
}

fn column_end(len: usize) -> u32 {
    u32::try_from(len).expect("a frame is below 4 MiB")
}

/// An `Ack` frame's payload, read in place.
#[derive(Clone, Copy)]
pub struct AckView<'a> {
    archived: &'a ArchivedAckPayload,
}

impl<'a> AckView<'a> {
    /// Reads `payload`, which is 16-aligned. Afterwards frames ascend, none is behind the answered
    /// one, and their entries are inside the columns. Whether they fit the frames that were sent is
    /// the sender's to check.
    pub fn check(header: &FrameHeader, payload: &'a [u8]) -> Result<Self, FrameFault> {
        header.check_schema(ACK_SCHEMA)?;
        let archived = rkyv::access::<ArchivedAckPayload, rkyv::rancor::Failure>(payload)
            .map_err(|_| FrameFault::BadPayload)?;
        let (mut sequence, mut assigned_end, mut refused_end) = (0u64, 0u32, 0u32);
        for frame in archived.frames.as_slice() {
            let is_next = sequence < frame.sequence.to_native()
                && assigned_end <= frame.assigned_end.to_native()
                && refused_end <= frame.refused_end.to_native();
            if !is_next {
                return Err(FrameFault::BadPayload);
            }
            sequence = frame.sequence.to_native();
            assigned_end = frame.assigned_end.to_native();
            refused_end = frame.refused_end.to_native();
        }
        let is_whole = sequence <= archived.answered_sequence.to_native()
            && assigned_end as usize == archived.assigned.len()
            && refused_end as usize == archived.refused.len();
        is_whole.then_some(Self { archived }).ok_or(FrameFault::BadPayload)
    }

    /// Frames up to this one are answered.
    pub fn answered_sequence(&self) -> u64 {
        self.archived.answered_sequence.to_native()
    }

    /// Bytes of frames behind it that the node has room for.
    pub fn credit_bytes(&self) -> u64 {
        self.archived.credit_bytes.to_native()
    }

    /// The frames that more is said to than that they are durable, ascending by sequence.
    pub fn answers(self) -> impl Iterator<Item = FrameAnswer> + 'a {
        let (mut assigned_start, mut refused_start) = (0, 0);
        self.archived.frames.as_slice().iter().map(move |frame| {
            let assigned_end = frame.assigned_end.to_native() as usize;
            let refused_end = frame.refused_end.to_native() as usize;
            let assigned = &self.archived.assigned.as_slice()[assigned_start..assigned_end];
            let refused = &self.archived.refused.as_slice()[refused_start..refused_end];
            (assigned_start, refused_start) = (assigned_end, refused_end);
            let sequence = frame.sequence.to_native();
            if frame.refusal != NO_REFUSAL {
                return FrameAnswer::Refused { sequence, reason: reason_of(frame.refusal.into()) };
            }
            let assigned = assigned.iter().map(|entry| match entry.to_native() {
                id if id & REFUSED == 0 => Ok(SeriesId(id)),
                refused => Err(reason_of(refused & !REFUSED)),
            });
            let refused = refused.iter().map(|sample| RefusedSample {
                index: sample.index.to_native(),
                reason: reason_of(sample.reason.into()),
            });
            FrameAnswer::Durable(Ack {
                sequence,
                assigned: assigned.collect(),
                refused: refused.collect(),
            })
        })
    }
}

/// A reason that only a newer node knows is told as one that a retry may mend.
fn reason_of(number: u32) -> Refusal {
    let known = Refusal::ALL.get(number as usize).copied();
    known.unwrap_or(Refusal::Overloaded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{FRAME_HEADER_BYTES, check_frame};
    use crate::wire::golden::check_control_frame;

    fn examples() -> Vec<FrameAnswer> {
        let refused = RefusedSample { index: 70_000, reason: Refusal::TooOld };
        vec![
            FrameAnswer::Durable(Ack {
                sequence: 4,
                assigned: vec![Ok(SeriesId(9)), Err(Refusal::HeadFull), Ok(SeriesId(0))],
                refused: vec![RefusedSample { index: 0, reason: Refusal::UnknownSeries }, refused],
            }),
            FrameAnswer::Refused { sequence: 6, reason: Refusal::OlderThanRetention },
            FrameAnswer::Durable(Ack { sequence: 7, assigned: vec![], refused: vec![refused] }),
        ]
    }

    fn read(header: &FrameHeader, payload: &[u8]) -> Result<Vec<FrameAnswer>, FrameFault> {
        AckView::check(header, payload).map(|view| view.answers().collect())
    }

    #[test]
    fn round_trip_and_frozen_bytes() {
        let mut payload = AckPayload::default();
        let plain = |sequence| FrameAnswer::Durable(Ack { sequence, ..Ack::default() });
        payload.push(&plain(3));
        for answer in &examples() {
            payload.push(answer);
        }
        payload.push(&plain(8));
        let frame = payload.encode_frame(8, 1 << 33);
        check_control_frame("ack", &frame, &examples(), read);
        let header = check_frame(&frame).expect("sealed");
        let view = AckView::check(&header, &frame[FRAME_HEADER_BYTES..]).expect("encoded");
        assert_eq!((view.answered_sequence(), view.credit_bytes()), (8, 1 << 33));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        // Red if one of the comparisons of `AckView::check` is left out.
        #[track_caller]
        fn check(change: fn(&mut AckPayload)) {
            let mut payload = AckPayload::default();
            for answer in &examples() {
                payload.push(answer);
            }
            change(&mut payload);
            let frame = encode_control(FrameKind::Ack, ACK_SCHEMA, &payload);
            let header = check_frame(&frame).expect("sealed");
            let read = read(&header, &frame[FRAME_HEADER_BYTES..]);
            assert_eq!(read, Err(FrameFault::BadPayload));
        }
        check(|payload| payload.answered_sequence = 6);
        check(|payload| payload.frames[1].sequence = 4);
        check(|payload| payload.frames[2].assigned_end = 4);
        check(|payload| payload.frames[2].refused_end = 2);
        check(|payload| payload.frames[0].refused_end = 4);
        check(|payload| payload.frames[0].assigned_end = 5);
    }
}
