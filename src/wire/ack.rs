//! What a node answers to a `Write` frame, once it is durable.

use crate::model::refusal::Refusal;
use crate::model::series::SeriesId;

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
