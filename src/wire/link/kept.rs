//! Frames of a sender that are not acked yet: sent or not, in sequence, bounded.
//!
//! ```text
//!            acked          sent              last
//!   ...........|--- in flight --|-- waiting ----|
//!    (gone)      front of the queue         its back
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use crate::wire::ack::{Ack, FrameAnswer};
use crate::wire::frame::Memory;

/// A `Write` frame, and what an ack of it must fit.
#[derive(Debug)]
pub struct OutgoingFrame {
    /// Header and payload, sealed with the sender's [`super::Sender::next_sequence`] and
    /// [`super::Sender::id_space`].
    pub bytes: Memory,
    /// New series that it brings.
    pub new_series_count: u32,
    /// Samples in it.
    pub sample_count: u32,
}

#[derive(Debug)]
struct Kept {
    bytes: Arc<Memory>,
    new_series_count: u32,
    sample_count: u32,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct KeptFrames {
    frames: VecDeque<Kept>,
    kept_bytes: u64,
    /// The sequence in front of the queue's first.
    acked: u64,
    /// How many from the front are in flight on this connection, or known to be at the node.
    sent: usize,
    sent_bytes: u64,
    /// The newest that ever was sent.
    sent_sequence: u64,
}

/// What the receiver lets be in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub frames: u32,
    pub bytes: u64,
    pub credit_bytes: u64,
}

impl KeptFrames {
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Frames in flight, and their bytes.
    pub fn in_flight(&self) -> (usize, u64) {
        (self.sent, self.sent_bytes)
    }

    pub fn acked_sequence(&self) -> u64 {
        self.acked
    }

    pub fn last_sequence(&self) -> u64 {
        self.acked + self.frames.len() as u64
    }

    pub fn push(&mut self, frame: OutgoingFrame) {
        self.kept_bytes += frame.bytes.len() as u64;
        self.frames.push_back(Kept {
            bytes: Arc::new(frame.bytes),
            new_series_count: frame.new_series_count,
            sample_count: frame.sample_count,
        });
    }

    /// The next frame to send, if the window has room for it. One frame always may be in flight
    /// while there is any credit.
    pub fn poll_send(&mut self, window: &Window) -> Option<Arc<Memory>> {
        let frame = self.frames.get(self.sent)?;
        let len_bytes = frame.bytes.len() as u64;
        let room = window.bytes.min(window.credit_bytes);
        let is_alone = self.sent == 0 && room > 0;
        let fits = self.sent_bytes + len_bytes <= room && self.sent < window.frames as usize;
        if !fits && !is_alone {
            return None;
        }
        self.sent += 1;
        self.sent_bytes += len_bytes;
        self.sent_sequence = self.sent_sequence.max(self.acked + self.sent as u64);
        Some(Arc::clone(&frame.bytes))
    }

    /// A connection begins on which the node has everything up to `applied`, and nothing behind it.
    /// `false`: it cannot have.
    pub fn resume(&mut self, applied: u64) -> bool {
        if applied < self.acked || applied > self.sent_sequence.max(self.acked) {
            return false;
        }
        let sent = usize::try_from(applied - self.acked).unwrap_or(usize::MAX);
        if sent > self.frames.len() {
            return false;
        }
        self.sent = sent;
        let sent = self.frames.iter().take(sent);
        self.sent_bytes = sent.map(|frame| frame.bytes.len() as u64).sum();
        true
    }

    /// Takes the oldest frame out: the node said `answer` to it, or nothing but that it is durable.
    /// Its answer and memory; `None` if the answer does not fit it.
    pub fn settle(&mut self, answer: Option<FrameAnswer>) -> Option<(FrameAnswer, Arc<Memory>)> {
        let sequence = self.acked + 1;
        if self.sent == 0 {
            return None;
        }
        let frame = self.frames.front()?;
        let plain = || FrameAnswer::Durable(Ack { sequence, ..Ack::default() });
        let answer = answer.unwrap_or_else(plain);
        if !frame.takes(&answer, sequence) {
            return None;
        }
        let bytes = self.take_first();
        Some((answer, bytes))
    }

    /// Takes out all of them, oldest first; sequences begin at 1 again.
    pub fn take_all(&mut self) -> impl Iterator<Item = Arc<Memory>> + use<> {
        std::mem::take(self).frames.into_iter().map(|frame| frame.bytes)
    }

    fn take_first(&mut self) -> Arc<Memory> {
        let frame = self.frames.pop_front().expect("the caller looked at it");
        let len_bytes = frame.bytes.len() as u64;
        self.acked += 1;
        self.sent -= 1;
        self.sent_bytes -= len_bytes;
        self.kept_bytes -= len_bytes;
        frame.bytes
    }
}

impl Kept {
    /// Whether `answer` can be one to this frame.
    fn takes(&self, answer: &FrameAnswer, sequence: u64) -> bool {
        if answer.sequence() != sequence {
            return false;
        }
        let FrameAnswer::Durable(ack) = answer else { return true };
        ack.assigned.len() == self.new_series_count as usize
            && ack.refused.is_sorted_by(|before, after| before.index < after.index)
            && ack.refused.last().is_none_or(|sample| sample.index < self.sample_count)
    }
}
