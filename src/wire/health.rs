//! Whether the other end is there, and how it is. Pings go from gateway to node, only while nothing
//! else comes back.

use rkyv::{Archive, Deserialize, Serialize};

use crate::wire::frame::{
    FrameFault, FrameHeader, FrameKind, Memory, decode_control, encode_control,
};

/// The version of the payloads in this file.
pub const HEALTH_SCHEMA: u16 = 1;

/// How a node shard is. Append only.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// Takes samples and answers selects.
    Ready,
    /// Reads its log; takes nothing yet.
    Replaying,
    /// Low on room; takes no samples, answers selects.
    DiskFull,
    /// Its log failed; takes nothing until a restart.
    LogFailed,
    /// Shuts down.
    Draining,
}

/// Are you there?
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in the answer.
    pub number: u64,
}

/// Yes.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// Of the newest [`Ping`].
    pub number: u64,
    /// The newest placement that the node knows.
    pub placement_epoch: u64,
    /// How the node is.
    pub state: NodeState,
}

impl Ping {
    /// Its frame.
    pub fn encode_frame(&self) -> Memory {
        encode_control(FrameKind::Ping, HEALTH_SCHEMA, self)
    }

    /// Reads a payload, which is 16-aligned.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, FrameFault> {
        decode_control(header, HEALTH_SCHEMA, payload)
    }
}

impl Pong {
    /// Its frame.
    pub fn encode_frame(&self) -> Memory {
        encode_control(FrameKind::Pong, HEALTH_SCHEMA, self)
    }

    /// Reads a payload, which is 16-aligned.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, FrameFault> {
        decode_control(header, HEALTH_SCHEMA, payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::golden::check_control_frame;

    #[test]
    fn round_trips_and_frozen_bytes() {
        let asked = Ping { number: 7 };
        check_control_frame("ping", &asked.encode_frame(), &asked, Ping::decode);
        let pong = Pong { number: 7, placement_epoch: 3, state: NodeState::Draining };
        check_control_frame("pong", &pong.encode_frame(), &pong, Pong::decode);
    }
}
