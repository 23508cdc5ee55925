//! Why a connection is of no more use.

use crate::wire::frame::{FrameFault, FrameKind};

/// What is wrong with a connection. It is to be closed; what was not acked is sent again over the
/// next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// What came is not a frame, or damaged.
    Frame(FrameFault),
    /// A frame that has no place here.
    Unexpected {
        /// What it was.
        kind: FrameKind,
    },
    /// The other end does not know the secret.
    BadProof,
    /// It did not say who it is in time.
    HandshakeTimeout,
    /// No version that both ends speak.
    NoCommonVersion {
        /// The oldest that the other end speaks.
        min: u16,
        /// The newest.
        max: u16,
    },
    /// Another node than was expected.
    WrongNode,
    /// Another node shard than was expected.
    WrongShard {
        /// The one that was asked for.
        want: u32,
        /// The one that answered.
        got: u32,
    },
    /// Frames were skipped or repeated.
    OutOfSequence {
        /// The one that should have come.
        want: u64,
        /// The one that came.
        got: u64,
    },
    /// A frame names ids of another incarnation, or of another node.
    ForeignIds,
    /// More frames or bytes than the window allows.
    WindowExceeded,
    /// An ack that does not fit the frames that were sent.
    BadAck {
        /// What it says it is about.
        sequence: u64,
    },
    /// The node has taken frames that were never sent: two senders share one identity.
    UnknownFrames {
        /// The newest that it has.
        applied: u64,
    },
    /// Nothing was heard for too long.
    Silent,
    /// The same link came over a newer connection.
    Superseded,
    /// The node has as many links as it remembers.
    TooManyLinks {
        /// The limit.
        links_max: u32,
    },
    /// The node closed the link; its words come before this.
    Refused,
}

impl From<FrameFault> for LinkFault {
    fn from(fault: FrameFault) -> Self {
        Self::Frame(fault)
    }
}

impl std::fmt::Display for LinkFault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("cannot go on with this link: ")?;
        match self {
            Self::Frame(FrameFault::UnknownVersion { version }) => write!(
                formatter,
                "frames of version {version} came; run releases that are next to each other"
            ),
            Self::Frame(fault) => {
                write!(formatter, "what came is not a whole frame ({fault:?}); it is dialled again")
            }
            Self::Unexpected { kind } => {
                write!(formatter, "a {kind:?} frame came; check that both addresses are right")
            }
            Self::BadProof => formatter.write_str(
                "the other end does not know the link secret; give both ends the same one",
            ),
            Self::HandshakeTimeout => formatter.write_str(
                "the other end did not prove itself in time; check that the address is a link port",
            ),
            Self::NoCommonVersion { min, max } => write!(
                formatter,
                "the other end speaks versions {min} to {max} only; upgrade the older one"
            ),
            Self::WrongNode => formatter
                .write_str("another node has this address now; look the node's address up again"),
            Self::WrongShard { want, got } => write!(
                formatter,
                "shard {got} answered for shard {want}; take the ports that the node names"
            ),
            Self::OutOfSequence { want, got } => {
                write!(formatter, "frame {got} came in place of {want}; it is dialled again")
            }
            Self::ForeignIds => formatter
                .write_str("a frame names ids that are not this node's; its labels must be sent"),
            Self::WindowExceeded => {
                formatter.write_str("more came than the window allows; report this as a bug")
            }
            Self::BadAck { sequence } => write!(
                formatter,
                "the ack of frame {sequence} does not fit what was sent; report this as a bug"
            ),
            Self::UnknownFrames { applied } => write!(
                formatter,
                "the node has frame {applied}, which was not sent; give each gateway its own id"
            ),
            Self::Silent => {
                formatter.write_str("nothing was heard for too long; it is dialled again")
            }
            Self::Superseded => {
                formatter.write_str("the same gateway came over a newer connection")
            }
            Self::TooManyLinks { links_max } => {
                write!(formatter, "all {links_max} links of the shard are in use; raise the limit")
            }
            Self::Refused => formatter.write_str("the node refused it; it said why"),
        }
    }
}

impl std::error::Error for LinkFault {}
