//! Bytes of a connection -> whole, checked frames that lie 16-aligned in one piece each.
//!
//! Received bytes are copied once, each frame to a place of its own, so that payloads are read
//! where they lie. Frames stay until they are taken, first come first. Bounded: a longer frame, or
//! more bytes than may wait, is a fault. Whose frames they are, and whether they come in order, is
//! not known here.

use std::collections::VecDeque;

use super::fault::LinkFault;
use crate::wire::frame::{
    FRAME_HEADER_BYTES, FrameFault, FrameHeader, Memory, PAYLOAD_ALIGN, check_frame, decode_header,
};

/// Memory beyond this is given back when the buffer is empty.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Frames of one connection, whole and partial.
#[derive(Debug)]
pub(super) struct FrameBuffer {
    /// Kept frames, each on a multiple of 16, and the one that is arriving.
    bytes: Memory,
    /// Start and length of frames that were kept and not taken.
    kept: VecDeque<(usize, usize)>,
    /// Where the frame that is arriving begins; it ends with `bytes`.
    open_start: usize,
    /// How long it is, once its header is there.
    open_len: Option<usize>,
    frame_bytes_max: usize,
    bytes_max: usize,
}

impl FrameBuffer {
    /// A buffer for frames of up to `frame_bytes_max`, and `bytes_max` of them in all.
    pub fn new(frame_bytes_max: usize, bytes_max: usize) -> Self {
        Self {
            bytes: Memory::new(),
            kept: VecDeque::new(),
            open_start: 0,
            open_len: None,
            frame_bytes_max,
            bytes_max,
        }
    }

    /// Other limits, for the bytes that come next.
    pub fn set_limits(&mut self, frame_bytes_max: usize, bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
        self.bytes_max = bytes_max;
    }

    /// Takes from the front of `input` until a frame is whole; `None`: all was taken, and none is.
    /// The frame is [`FrameBuffer::last`] until it is kept or dropped, one of which must follow.
    pub fn fill(&mut self, input: &mut &[u8]) -> Result<Option<FrameHeader>, LinkFault> {
        while !input.is_empty() {
            let have = self.bytes.len() - self.open_start;
            let need = self.open_len.unwrap_or(FRAME_HEADER_BYTES);
            let count = input.len().min(need - have);
            let (now, later) = input.split_at(count);
            self.make_room(count)?;
            self.bytes.extend_from_slice(now);
            *input = later;
            if have + count < need {
                break;
            }
            if self.open_len.is_none() {
                let header = decode_header(&self.bytes[self.open_start..])?;
                let len = FRAME_HEADER_BYTES + header.payload_len_bytes as usize;
                if len > self.frame_bytes_max {
                    return Err(FrameFault::TooLong { len_bytes: len as u64 }.into());
                }
                self.open_len = Some(len);
                if len > need {
                    continue;
                }
            }
            return check_frame(self.last()).map(Some).map_err(LinkFault::from);
        }
        Ok(None)
    }

    /// The frame that just became whole.
    pub fn last(&self) -> &[u8] {
        &self.bytes[self.open_start..]
    }

    /// Keeps it, to be taken later.
    pub fn keep_last(&mut self) {
        self.kept.push_back((self.open_start, self.bytes.len() - self.open_start));
        let padding = self.bytes.len().wrapping_neg() % PAYLOAD_ALIGN;
        self.bytes.extend_from_slice(&[0; PAYLOAD_ALIGN][..padding]);
        self.open_start = self.bytes.len();
        self.open_len = None;
    }

    /// Forgets it.
    pub fn drop_last(&mut self) {
        self.bytes.resize(self.open_start, 0);
        self.open_len = None;
        self.clear_if_empty();
    }

    /// The oldest frame that was kept.
    pub fn first(&self) -> Option<&[u8]> {
        self.kept.front().map(|&(start, len)| &self.bytes[start..start + len])
    }

    /// Forgets it.
    pub fn drop_first(&mut self) {
        self.kept.pop_front().expect("a frame was kept");
        self.clear_if_empty();
    }

    /// Frames that were kept and not taken.
    pub fn kept_count(&self) -> usize {
        self.kept.len()
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Starts from the front again when nothing is in use.
    fn clear_if_empty(&mut self) {
        if self.kept.is_empty() && self.open_start == self.bytes.len() {
            self.open_start = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT_BYTES_MAX {
                self.bytes = Memory::new();
            }
        }
    }

    /// Moves what is in use to the front when there is no room behind it.
    fn make_room(&mut self, count: usize) -> Result<(), LinkFault> {
        let start = self.kept.front().map_or(self.open_start, |&(start, _)| start);
        if self.bytes.len() - start + count > self.bytes_max {
            return Err(LinkFault::WindowExceeded);
        }
        if start > 0 && self.bytes.len() + count > self.bytes.capacity() {
            self.bytes.copy_within(start.., 0);
            self.bytes.resize(self.bytes.len() - start, 0);
            self.open_start -= start;
            for (kept_start, _) in &mut self.kept {
                *kept_start -= start;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::health::Ping;
    use crate::wire::write::WritePayload;

    fn write_frame(sequence: u64, samples: u32) -> Memory {
        let mut payload = WritePayload::default();
        payload.series.extend(0..samples);
        payload.timestamp_ms.resize(samples as usize, 1);
        payload.value.resize(samples as usize, 0.5);
        // A byte of labels makes the frame's length no multiple of 16.
        payload.labels.extend(0..u8::try_from(sequence % 13).expect("small"));
        payload.encode_frame((sequence, 0), 0, Memory::new())
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        // Red if a frame's place is not aligned, if moving to the front forgets a start, or if a
        // piece is lost at a cut.
        let frames: Vec<_> = (1..40u32).map(|n| write_frame(n.into(), 1 + n * 37 % 300)).collect();
        let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.iter().copied()).collect();
        for piece in [1, 7, 64, 1000, 4096, 100_000] {
            for lag in [0, 1, 5] {
                let mut buffer = FrameBuffer::new(1 << 20, 1 << 20);
                let mut next = 0;
                let mut take = |buffer: &mut FrameBuffer| {
                    let frame = buffer.first().expect("kept");
                    assert!(frame.as_ptr().addr().is_multiple_of(PAYLOAD_ALIGN));
                    assert!(*frame == frames[next][..], "piece {piece} lag {lag} frame {next}");
                    next += 1;
                    buffer.drop_first();
                };
                for mut bytes in stream.chunks(piece) {
                    while buffer.fill(&mut bytes).expect("whole frames").is_some() {
                        buffer.keep_last();
                        while buffer.kept_count() > lag {
                            take(&mut buffer);
                        }
                    }
                }
                while buffer.kept_count() > 0 {
                    take(&mut buffer);
                }
                assert_eq!(next, frames.len());
                assert!(buffer.memory_bytes() <= 64 << 10, "{}", buffer.memory_bytes());
            }
        }
    }

    #[test]
    fn a_dropped_frame_leaves_the_kept_ones_alone() {
        let ping = Ping { number: 1 }.encode_frame();
        let mut buffer = FrameBuffer::new(1 << 20, 1 << 20);
        for number in 1..20 {
            assert!(buffer.fill(&mut &write_frame(number, 5)[..]).expect("whole").is_some());
            buffer.keep_last();
            assert!(buffer.fill(&mut &ping[..]).expect("whole").is_some());
            assert_eq!(buffer.last(), &ping[..]);
            buffer.drop_last();
        }
        for number in 1..20 {
            assert_eq!(buffer.first(), Some(&write_frame(number, 5)[..]));
            buffer.drop_first();
        }
    }

    #[test]
    fn limits_hold() {
        // Red if a limit is not looked at before the memory is taken.
        let frame = write_frame(1, 100);
        let mut buffer = FrameBuffer::new(1 << 10, 1 << 20);
        let len_bytes = frame.len() as u64;
        let fault = buffer.fill(&mut &frame[..]).expect_err("longer than 1 KiB");
        assert_eq!(fault, FrameFault::TooLong { len_bytes }.into());
        assert!(buffer.memory_bytes() < 1 << 10);
        let mut buffer = FrameBuffer::new(1 << 20, 3 * frame.len());
        for _ in 0..2 {
            assert!(buffer.fill(&mut &frame[..]).expect("room").is_some());
            buffer.keep_last();
        }
        let fault = buffer.fill(&mut &[&frame[..], &frame[..]].concat()[..]);
        assert_eq!(fault, Err(LinkFault::WindowExceeded));
    }
}
