//! What crosses between gateway shards: the part of a request that another shard owns, and its
//! answer.
//!
//! One message a request and target shard, by reference: label bytes stay in the request's own
//! buffer.

use crate::gateway::request::{RequestBytes, SeriesBatch};
use crate::model::refusal::{Refusal, RefusalCounts};
use crate::model::series::TenantId;
use std::sync::Arc;

/// Names a request on the shard that received it; stale keys are recognised by their generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The gateway shard that received the request and answers it.
    pub shard: u32,
    /// Its place there.
    pub slot: u32,
    /// How often the place was used before.
    pub generation: u32,
}

/// How late samples may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lateness {
    /// Within the out-of-order window of their series.
    #[default]
    Window,
    /// Whatever is kept at all: history that is being loaded.
    Backfill,
}

/// The series of one request that one shard owns.
#[derive(Debug)]
pub struct Part {
    /// Whose answer waits for this.
    pub request: RequestKey,
    /// Whose series.
    pub tenant: TenantId,
    /// Whether its samples are taken however late they are.
    pub lateness: Lateness,
    /// The columns; they travel back with the answer to be used again.
    pub batch: SeriesBatch,
    /// What the label spans point into; dropped as soon as every series has an id or has left with
    /// its labels.
    pub bytes: Arc<RequestBytes>,
}

/// What became of a [`Part`]: sent once all of its samples are durable or refused.
#[derive(Debug)]
pub struct PartAnswer {
    /// Whose answer waits for this.
    pub request: RequestKey,
    /// Samples that did not make it.
    pub refused: RefusalCounts,
    /// Why the first of them did not.
    pub first_refusal: Option<Refusal>,
    /// The part's columns, for the next request.
    pub batch: SeriesBatch,
}

/// Everything that one gateway shard says to another.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a copy per request is less than an allocation")]
pub enum ShardMessage {
    /// Series that the target owns.
    Part(Part),
    /// They are durable, or refused.
    Answer(PartAnswer),
}
