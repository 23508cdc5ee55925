//! A node's end of one connection: its bytes, what waits to be sent, and who is at the other end.
//! What is done about it is in `receiver`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::buffer::FrameBuffer;
use super::memory::LinkNumber;
use crate::base::time::{Duration, Instant};
use crate::wire::frame::Memory;
use crate::wire::hello::STRANGER_BYTES_MAX;

/// The connection.
#[derive(Debug)]
pub(super) struct Accepted {
    pub stage: Stage,
    pub buffer: FrameBuffer,
    /// Frames that wait to be sent, before pongs and acks.
    pub out: VecDeque<Arc<Memory>>,
    pub out_bytes: usize,
    /// Of the newest ping that was not answered.
    pub pong_due: Option<u64>,
    /// What the sender was told last.
    pub credit_said: u64,
    /// Whether the caller was told that there is something to send.
    pub is_listed: bool,
    /// Whether it is in the queue of those that have frames.
    pub is_ready: bool,
    began: Instant,
    heard: Instant,
}

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nobody yet. The payload of the challenge that was sent.
    Stranger { challenge: Box<[u8]> },
    /// A gateway shard that sends frames.
    Writer {
        link: LinkNumber,
        /// Of the frame that is to arrive next.
        next_sequence: u64,
        /// Bytes of the frames that arrived and were not taken.
        waiting_bytes: u64,
    },
    /// A gateway that asks.
    Reader,
    /// To be closed once `out` is sent.
    Over,
}

impl Accepted {
    pub fn new(now: Instant, challenge: Box<[u8]>) -> Self {
        Self {
            stage: Stage::Stranger { challenge },
            buffer: FrameBuffer::new(STRANGER_BYTES_MAX, STRANGER_BYTES_MAX),
            out: VecDeque::new(),
            out_bytes: 0,
            pong_due: None,
            credit_said: 0,
            is_listed: false,
            is_ready: false,
            began: now,
            heard: now,
        }
    }

    pub fn is_stranger(&self) -> bool {
        matches!(self.stage, Stage::Stranger { .. })
    }

    pub fn push(&mut self, frame: Memory) {
        self.out_bytes += frame.len();
        self.out.push_back(Arc::new(frame));
    }

    pub fn pop(&mut self) -> Option<Arc<Memory>> {
        let frame = self.out.pop_front()?;
        self.out_bytes -= frame.len();
        Some(frame)
    }

    /// Bytes came. Not only whole frames count: a long one may take its time.
    pub fn handle_heard(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
    }

    pub fn handle_late(&mut self, late: Duration) {
        self.began += late;
        self.heard += late;
    }

    /// When it is to be given up: a stranger from when it came, others from when they were heard.
    pub fn poll_timeout(&self, limits: &super::SilenceLimits) -> Option<Instant> {
        match self.stage {
            Stage::Stranger { .. } => Some(self.began + limits.handshake_within),
            Stage::Writer { .. } | Stage::Reader => Some(self.heard + limits.close_after),
            Stage::Over => None,
        }
    }
}
