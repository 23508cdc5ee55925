//! What a send owns while the kernel reads it: one contiguous run of bytes that stays where it is.
//!
//! In: answers (`Vec`), frames (16-aligned), frames that several links send at once (`Arc`). Out:
//! the same value, handed back in `Event::Sent` for its memory to be used again. Nothing is copied.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use rkyv::util::AlignedVec;

/// A contiguous buffer on a 16-byte boundary: a frame with its header. It grows only by its
/// owner's hand, never while an operation has it.
pub type FrameBuffer = AlignedVec<16>;

/// The bytes of one send. Their address does not change when the value moves, which is what lets
/// an operation own it while the kernel reads.
pub enum SendBuffer {
    /// Plain bytes, as of an HTTP answer.
    Bytes(Vec<u8>),
    /// A frame of one link.
    Frame(FrameBuffer),
    /// A frame that the links to several replicas send from the same memory.
    Shared(Arc<FrameBuffer>),
}

impl Deref for SendBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Frame(frame) => frame,
            Self::Shared(frame) => frame,
        }
    }
}

impl From<Vec<u8>> for SendBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<FrameBuffer> for SendBuffer {
    fn from(frame: FrameBuffer) -> Self {
        Self::Frame(frame)
    }
}

impl From<Arc<FrameBuffer>> for SendBuffer {
    fn from(frame: Arc<FrameBuffer>) -> Self {
        Self::Shared(frame)
    }
}

impl fmt::Debug for SendBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Bytes(_) => "Bytes",
            Self::Frame(_) => "Frame",
            Self::Shared(_) => "Shared",
        };
        write!(formatter, "{kind}({} bytes)", self.len())
    }
}
