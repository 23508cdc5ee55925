//! What gateways keep for a node that could not take it (hints), as they tell the node; and what a
//! node so knows to lack, as it tells those who read it. Rare, so it is read by copying.
//!
//! A gateway says it over each connection for reads that stays: first, and whenever it changes.

use rkyv::{Archive, Deserialize, Serialize};

use crate::wire::frame::{
    FrameFault, FrameHeader, FrameKind, Memory, decode_control, encode_control,
};

/// The version of the payloads in this file.
pub const HINTS_SCHEMA: u16 = 1;

/// What one gateway keeps for the node that it says this to; replaces what it said before.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintsHeld {
    /// Names the gateway's folder of hints: the same after a restart, as the hints are.
    pub keeper: u128,
    /// Samples that are to be delivered yet.
    pub waiting_samples: u64,
    /// Samples that were acknowledged and never will be delivered: damaged, dropped at a limit.
    /// At least so many.
    pub lost_samples: u64,
}

/// What a node knows to lack of what was acknowledged. All of it is at another owner, but for what
/// was in its blocks: that may have been there alone.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Samples that gateways have yet to deliver.
    pub waiting_samples: u64,
    /// Samples that gateways never will deliver; at least so many.
    pub lost_samples: u64,
    /// How many gateways that are.
    pub keepers: u32,
    /// Whether the node has met its gateways a moment ago, after a start or after none was there:
    /// others may have something too, and have not said it.
    pub is_news_awaited: bool,
    /// Blocks of its own that are damaged or missing. Lies where there were zeros before.
    pub lost_blocks: u16,
}

impl HintsHeld {
    /// Its frame, without a number yet.
    pub fn encode_frame(&self) -> Memory {
        encode_control(FrameKind::HintsHeld, HINTS_SCHEMA, self)
    }

    /// Reads a payload, which is 16-aligned.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, FrameFault> {
        decode_control(header, HINTS_SCHEMA, payload)
    }
}

impl Lacking {
    /// Whether it lacks nothing that it knows of, and would know.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The frame that answers [`HintsHeld`], without a number yet.
    pub fn encode_frame(&self) -> Memory {
        encode_control(FrameKind::HintsHeard, HINTS_SCHEMA, self)
    }

    /// Reads a payload, which is 16-aligned.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, FrameFault> {
        decode_control(header, HINTS_SCHEMA, payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{FRAME_HEADER_BYTES, check_frame};
    use crate::wire::golden::check_control_frame;

    #[test]
    fn round_trips_and_frozen_bytes() {
        let held = HintsHeld { keeper: 7 << 70, waiting_samples: 500, lost_samples: 3 };
        check_control_frame("hints_held", &held.encode_frame(), &held, HintsHeld::decode);
        let lacking = Lacking {
            waiting_samples: 500,
            lost_samples: 3,
            keepers: 2,
            is_news_awaited: true,
            lost_blocks: 0,
        };
        check_control_frame("hints_heard", &lacking.encode_frame(), &lacking, Lacking::decode);
        assert!(!lacking.is_nothing() && Lacking::default().is_nothing());
        let damaged = Lacking { lost_blocks: 513, ..lacking };
        let frame = damaged.encode_frame();
        let header = check_frame(&frame).expect("sealed");
        assert_eq!(Lacking::decode(&header, &frame[FRAME_HEADER_BYTES..]), Ok(damaged));
    }
}
