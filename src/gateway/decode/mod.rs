//! Decoders: a decompressed body in, columns of (hash, label span, samples) per shard out, one file
//! a format.
//!
//! What all of them keep to: labels end up in canonical form (`model/labels.rs`), nothing is
//! allocated per sample, no input makes them panic, and what they refuse is counted. Not here:
//! label grammar and limits (`admit`, for new series only), decompression (`decompress`).

pub mod remote_write_v1;
pub mod vm_json;

#[cfg(test)]
pub mod mutation;

use std::fmt;

use crate::base::protobuf::ProtobufFault;
use crate::gateway::request::{DecodedRequest, SeriesBatch};
use crate::model::refusal::Refusal;
use crate::model::series::{SeriesHash, TenantId};

/// Longest body that may reach a decoder: spans have 31 bits, and labels written anew may be
/// somewhat longer than the text they came from. The endpoint's own limit is far below.
pub const BODY_BYTES_MAX: usize = 1 << 30;

/// What a decoder holds samples against.
#[derive(Clone, Copy, Debug)]
pub struct DecodeRules {
    /// Whose series these are.
    pub tenant: TenantId,
    /// Samples later than this are refused as [`Refusal::TooFarInFuture`].
    pub timestamp_ms_max: i64,
    /// More samples than this in one body are refused whole: two bytes of body can be a sample of
    /// sixteen.
    pub samples_max: u32,
}

impl DecodeRules {
    /// A body of 64 MiB holds about 3.5 million samples when they are timestamps and values of
    /// today.
    pub const SAMPLES_MAX_DEFAULT: u32 = 8 << 20;
}

/// Why a body could not be decoded; nothing of it was taken. Offsets are those of the decompressed
/// body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The body is not the message that it should be.
    Protobuf(ProtobufFault),
    /// More samples than one request may hold.
    TooManySamples {
        /// The limit.
        samples_max: u32,
    },
}

impl DecodeError {
    /// The reason to count and answer.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Protobuf(_) => Refusal::CorruptBody,
            Self::TooManySamples { .. } => Refusal::BodyTooLarge,
        }
    }
}

impl From<ProtobufFault> for DecodeError {
    fn from(fault: ProtobufFault) -> Self {
        Self::Protobuf(fault)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protobuf(ProtobufFault::Truncated { offset_bytes }) => {
                write!(f, "cannot decode body: field at byte {offset_bytes} reaches over the end")
            }
            Self::Protobuf(ProtobufFault::BadVarint { offset_bytes }) => {
                write!(f, "cannot decode body: bad varint in the field at byte {offset_bytes}")
            }
            Self::Protobuf(ProtobufFault::BadWireType { offset_bytes, wire_type }) => {
                let field = format_args!("the field at byte {offset_bytes}");
                write!(f, "cannot decode body: {field} cannot have wire type {wire_type}")
            }
            Self::TooManySamples { samples_max } => {
                write!(f, "cannot decode body: more than {samples_max} samples in one request")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// The batch of the shard that owns `hash`.
#[inline]
fn batch_of(request: &mut DecodedRequest, hash: SeriesHash) -> &mut SeriesBatch {
    // A division costs as much as walking two labels, and one shard is a common count.
    let shard = match u32::try_from(request.batches.len()) {
        Ok(shard_count @ 2..) => hash.slot().shard(shard_count) as usize,
        _ => 0,
    };
    &mut request.batches[shard]
}
