//! The conversation of a gateway shard and a node shard: both halves, over bytes and time.
//!
//! ```text
//!  gateway shard                                             node shard
//!   Sender:   frames -> kept until answered  --- Write --->  Receiver: frames, in place
//!             acked, refused, returned <---------- Ack ----            answers of a window
//!   Reader:   questions                 --- Select, ... -->            the same
//!             answers                   <-- Series, End --
//! ```
//! What holds, whatever connections, processes and hosts do meanwhile:
//! - A frame is `Acked` only after the node said that it is durable; answers come in sequence.
//! - Frames of a link are handed to the node in sequence, none skipped. A frame may come twice when
//!   the node restarted, or forgot the link; not when only a connection was lost.
//! - An answer reaches the sender, also over a later connection, or the frame is sent again.
//! - Ids never pass for those of another node or incarnation: frames bear the id space.
//! - Memory is bounded: the sender's by what it may keep, the receiver's by window and links.
//!
//! The caller owns sockets, clocks and chance: nonces are handed in. It closes a connection when a
//! `Close` event says so, and dials again when it likes.
//! Not here: which series go over which link, hints, encryption.

mod accepted;
mod buffer;
mod dialled;
mod fault;
mod kept;
mod memory;
mod reader;
mod receiver;
mod sender;
mod silence;

use crate::wire::frame::FrameHeader;

pub use fault::LinkFault;
pub use kept::OutgoingFrame;
pub use memory::WindowLimits;
pub use reader::{Reader, ReaderEvent};
pub use receiver::{Receiver, ReceiverConfig, ReceiverEvent};
pub use sender::{Dialler, Sender, SenderConfig, SenderEvent, Unsent, UnsentReason};
pub use silence::SilenceLimits;

/// A connection of a node shard's [`Receiver`]; never used again within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A frame that arrived: whole, undamaged, in sequence, for this shard.
#[derive(Clone, Copy, Debug)]
pub struct ArrivedFrame<'a> {
    /// Where.
    pub connection: ConnectionId,
    /// `Write`; from readers `Select`, `RegistryRequest` or `PlacementRequest`.
    pub header: FrameHeader,
    /// How the placement that the gateway followed compares to the node's.
    pub epoch: EpochFit,
    /// Header and payload, 16-aligned. A `Write` payload was checked and is well-formed; other
    /// payloads may not be.
    pub bytes: &'a [u8],
}

/// How a frame's placement epoch compares to the node's. What follows from it is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochFit {
    /// The same.
    Current,
    /// The gateway followed an older one.
    Stale,
    /// The gateway knows a newer one.
    Ahead,
}

impl EpochFit {
    fn of(theirs: u64, ours: u64) -> Self {
        match theirs.cmp(&ours) {
            std::cmp::Ordering::Less => Self::Stale,
            std::cmp::Ordering::Equal => Self::Current,
            std::cmp::Ordering::Greater => Self::Ahead,
        }
    }
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
