//! What crosses between a gateway shard and the keeper of hints.

use super::HintPart;
use super::log::{HintRefusal, HintTicket};
use super::replay::{HintNumber, HintRecord};
use crate::model::placement::NodeId;

/// What a gateway shard asks for.
#[derive(Debug)]
pub enum HintCommand {
    /// Keep `part` for `node`; answered by `HintEvent::Appended`.
    Append { node: NodeId, ticket: HintTicket, part: HintPart },
    /// The shard's link to `node` is up: hand out what waits, and what comes.
    Read { node: NodeId, shard: u32 },
    /// It is not any more: what was not delivered is handed out again, later.
    Pause { node: NodeId, shard: u32 },
    /// Every sample of the record that the shard was handed is durable at the node, or was refused
    /// by it for good.
    Delivered { node: NodeId, shard: u32, number: HintNumber },
}

/// What a shard hears.
#[derive(Debug)]
pub enum HintEvent {
    /// The hint with this ticket is durable, or refused: then nothing of it is promised.
    Appended { node: NodeId, ticket: u64, outcome: Result<(), HintRefusal> },
    /// To be delivered to `node`, behind what was handed out before it.
    Record { node: NodeId, record: HintRecord },
    /// Nothing is left for `node`; said once, until more hints came and went.
    Drained { node: NodeId },
}
