//! The first three frames of a link, which make both ends sure of each other, and the last one.
//!
//! ```text
//!  gateway                                  node
//!     | <------- Challenge (nonce) ---------- |   tells a stranger nothing but versions
//!     | --- Hello (nonce, who, proof) ------> |   checked before anything of it is believed
//!     | <-- Welcome (who, limits, proof) ---- |   or Refused (why)
//! ```
//! A proof is 32 bytes behind the `rkyv` body, over the exact bytes of everything said so far
//! (`wire/proof.rs`), versions included: what somebody in between changes is found out. After the
//! handshake frames carry a checksum, no proof, and nothing is encrypted: the network between the
//! hosts is trusted not to change what it carries.
//! Payloads are rare and small, so they are read by copying. Not here: when what is said (`link`).

use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::wire::frame::{
    FRAME_HEADER_BYTES, FrameFault, FrameHeader, FrameKind, Memory, decode_body, decode_control,
    encode_body, encode_control, seal_control,
};
use crate::wire::health::NodeState;
use crate::wire::proof::{LinkSecret, NONCE_BYTES, PROOF_BYTES, Role};

/// Oldest protocol that this program speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// Newest protocol that this program speaks.
pub const PROTOCOL_VERSION_MAX: u16 = 1;
/// The version of the payloads in this file.
pub const HELLO_SCHEMA: u16 = 1;
/// Longest frame, and most bytes in all, that a node takes from a gateway that has not proved
/// itself.
pub const STRANGER_BYTES_MAX: usize = 1 << 10;
/// Longest frame that a gateway takes from a node that has not proved itself: a Welcome with the
/// [`LINK_PORTS_MAX`] ports.
pub const WELCOME_BYTES_MAX: usize = 4 << 10;
/// Most ports of a node: one a shard, and one for reads.
pub const LINK_PORTS_MAX: usize = 1024;
/// Longest text of a [`Refused`]; the rest is cut.
pub const REFUSED_TEXT_BYTES_MAX: usize = 512;

const _: () = assert!(WELCOME_BYTES_MAX >= 2 * LINK_PORTS_MAX + 1024);

/// Protocol versions, both ends inclusive.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

/// What this program speaks.
pub const VERSIONS: Versions = Versions { min: PROTOCOL_VERSION_MIN, max: PROTOCOL_VERSION_MAX };

impl Versions {
    /// The newest that both speak.
    pub fn agree(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// A node's first words.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What the node speaks.
    pub versions: Versions,
    /// Never used before, not to be guessed.
    pub nonce: [u8; NONCE_BYTES],
}

/// What a link is for.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkPurpose {
    /// `Write` frames and their acks.
    Write,
    /// Selects and registry pages.
    Read,
}

/// A gateway's answer to a [`Challenge`].
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The gateway.
    pub gateway: u128,
    /// The node that it means to talk to; 0 if it does not know.
    pub node_expected: u128,
    /// Of this sequence of frames: drawn anew when the gateway starts.
    pub link_incarnation: u64,
    /// The oldest frame that is not acked yet; the next one to come if all are.
    pub oldest_sequence: u64,
    /// The newest placement that the gateway knows.
    pub placement_epoch: u64,
    /// Never used before, not to be guessed.
    pub nonce: [u8; NONCE_BYTES],
    /// The gateway shard.
    pub gateway_shard: u32,
    /// Of how many.
    pub gateway_shard_count: u32,
    /// The node shard that it means to talk to; the count of them for the port for reads.
    pub node_shard: u32,
    /// What the gateway speaks.
    pub versions: Versions,
    /// What the link is for.
    pub purpose: LinkPurpose,
}

/// A node's answer to a [`Hello`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The node.
    pub node: u128,
    /// Of the ids that it gives: another one, and they mean other series.
    pub incarnation: u64,
    /// The newest placement that the node knows.
    pub placement_epoch: u64,
    /// Most bytes of frames without an ack.
    pub window_bytes: u64,
    /// How many of them there is room for now.
    pub credit_bytes: u64,
    /// Most frames without an ack.
    pub window_frames: u32,
    /// Longest frame, header included.
    pub frame_bytes_max: u32,
    /// The newest frame of this link that the node has taken, and whose ack will come. `None`: it
    /// does not know the link (any more), so everything without an ack is to be sent again.
    pub applied_sequence: Option<u64>,
    /// The node shard; `shard_count` on the port for reads.
    pub shard: u32,
    /// Of how many.
    pub shard_count: u32,
    /// The port of each shard, then, if the node has one, the port for reads; at most
    /// [`LINK_PORTS_MAX`].
    pub link_ports: Vec<u16>,
    /// The version that is spoken from here on.
    pub version: u16,
    /// How the node is.
    pub state: NodeState,
}

/// The last words of a link.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For people; at most [`REFUSED_TEXT_BYTES_MAX`].
    pub text: String,
}

/// A number for the ids that a node shard gives in one incarnation; never 0.
///
/// XXH3-64 of node, incarnation and shard, little-endian, one after the other. It stands in the
/// header of each `Write` frame, so that an id never names a series of another node.
pub fn id_space(node: u128, incarnation: u64, shard: u32) -> u64 {
    let mut bytes = [0; 28];
    bytes[..16].copy_from_slice(&node.to_le_bytes());
    bytes[16..24].copy_from_slice(&incarnation.to_le_bytes());
    bytes[24..].copy_from_slice(&shard.to_le_bytes());
    xxh3_64(&bytes).max(1)
}

impl Challenge {
    /// Its frame.
    pub fn encode_frame(&self) -> Memory {
        encode_control(FrameKind::Challenge, HELLO_SCHEMA, self)
    }

    /// Reads a payload, which is 16-aligned.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, FrameFault> {
        decode_control(header, HELLO_SCHEMA, payload)
    }
}

impl Hello {
    /// Its frame, with the gateway's proof. `challenge` is the payload that it answers.
    pub fn encode_frame(&self, secret: &LinkSecret, challenge: &[u8]) -> Memory {
        let mut frame = encode_body(self);
        let proof = secret.prove(Role::Gateway, &[challenge, &frame[FRAME_HEADER_BYTES..]]);
        frame.extend_from_slice(&proof);
        seal_control(&mut frame, FrameKind::Hello, HELLO_SCHEMA);
        frame
    }

    /// Reads a payload if its proof holds for `challenge`; `Ok(None)` if it does not.
    pub fn decode(
        header: &FrameHeader,
        payload: &[u8],
        (secret, challenge): (&LinkSecret, &[u8]),
    ) -> Result<Option<Self>, FrameFault> {
        header.check_schema(HELLO_SCHEMA)?;
        let (body, proof) = payload.split_last_chunk().ok_or(FrameFault::BadPayload)?;
        if !secret.check(Role::Gateway, &[challenge, body], proof) {
            return Ok(None);
        }
        decode_body(body).map(Some)
    }
}

impl Welcome {
    /// Its frame, with the node's proof. `challenge` and `hello` are the payloads that came before.
    pub fn encode_frame(&self, secret: &LinkSecret, challenge: &[u8], hello: &[u8]) -> Memory {
        assert!(self.link_ports.len() <= LINK_PORTS_MAX);
        let mut frame = encode_body(self);
        let proof = secret.prove(Role::Node, &[challenge, hello, &frame[FRAME_HEADER_BYTES..]]);
        frame.extend_from_slice(&proof);
        seal_control(&mut frame, FrameKind::Welcome, HELLO_SCHEMA);
        frame
    }

    /// Reads a payload if its proof holds for what was said before; `Ok(None)` if it does not.
    pub fn decode(
        header: &FrameHeader,
        payload: &[u8],
        (secret, challenge, hello): (&LinkSecret, &[u8], &[u8]),
    ) -> Result<Option<Self>, FrameFault> {
        header.check_schema(HELLO_SCHEMA)?;
        let split = payload.split_last_chunk::<PROOF_BYTES>();
        let (body, proof) = split.ok_or(FrameFault::BadPayload)?;
        if !secret.check(Role::Node, &[challenge, hello, body], proof) {
            return Ok(None);
        }
        let welcome: Self = decode_body(body)?;
        let ports = welcome.link_ports.len();
        let shards = welcome.shard_count as usize;
        let is_sane = ports <= LINK_PORTS_MAX
            && (ports == shards || ports == shards + 1)
            && (welcome.shard as usize) < ports
            && welcome.window_frames > 0
            && welcome.window_bytes > 0;
        is_sane.then_some(Some(welcome)).ok_or(FrameFault::BadPayload)
    }

    /// The port for reads, if the node has one.
    pub fn read_port(&self) -> Option<u16> {
        self.link_ports.get(self.shard_count as usize).copied()
    }

    /// Whose ids the node will give on this link.
    pub fn id_space(&self) -> u64 {
        id_space(self.node, self.incarnation, self.shard)
    }
}

impl Refused {
    /// As `text`, cut to what fits.
    pub fn new(mut text: String) -> Self {
        while text.len() > REFUSED_TEXT_BYTES_MAX {
            text.pop();
        }
        Self { text }
    }

    /// Its frame. It bears no proof: whoever could forge it could cut the connection too.
    pub fn encode_frame(&self) -> Memory {
        encode_control(FrameKind::Refused, HELLO_SCHEMA, self)
    }

    /// Reads a payload, which is 16-aligned.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, FrameFault> {
        let Self { text } = decode_control(header, HELLO_SCHEMA, payload)?;
        Ok(Self::new(text))
    }
}

#[cfg(test)]
mod tests;
