//! Records on their way to the disk: one group that gathers, those that wait for their write, the
//! one in flight.
//!
//! In: room for a record, asked for before it is written. Out: whole groups in order, one at a
//! time. What gathers and waits is at most `bytes_max`, and so is what is in flight; memory is
//! grown as needed and used again. Not here: where a group goes (`writer`).

use std::collections::VecDeque;

use crate::base::bytes::AlignedBuffer;

use super::segment::BLOCK_BYTES;

/// The first memory of a buffer; doubled as needed.
const BUFFER_BYTES_MIN: usize = 64 << 10;
/// Buffers kept for the next groups: with the one that gathers and the one in flight, rotation uses
/// a third.
const BUFFERS_KEPT: usize = 2;

/// A group whose place is known: ready to be written.
#[derive(Debug)]
pub(super) struct SealedGroup {
    pub segment: u64,
    pub offset_bytes: u64,
    pub last_sequence: u64,
    pub buffer: AlignedBuffer,
}

/// What the log knows of the group in flight while the caller has its buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub segment: u64,
    pub last_sequence: u64,
    pub len_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Groups {
    bytes_max: usize,
    gathering: Option<AlignedBuffer>,
    sealed: VecDeque<SealedGroup>,
    sealed_bytes: usize,
    in_flight: Option<Flight>,
    free: Vec<AlignedBuffer>,
}

impl Groups {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            gathering: None,
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            in_flight: None,
            free: Vec::new(),
        }
    }

    /// Bytes of the group that gathers.
    pub fn gathering_bytes(&self) -> usize {
        self.gathering.as_ref().map_or(0, AlignedBuffer::len)
    }

    /// Bytes that gather or wait.
    pub fn waiting_bytes(&self) -> usize {
        self.sealed_bytes + self.gathering_bytes()
    }

    /// Bytes in flight.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |flight| flight.len_bytes)
    }

    /// Whether `len` bytes more stay within the limit, padding included, also if they begin a group
    /// of their own.
    pub fn has_room(&self, len: usize) -> bool {
        let gathered = self.gathering_bytes().next_multiple_of(BLOCK_BYTES);
        self.sealed_bytes + gathered + len.next_multiple_of(BLOCK_BYTES) <= self.bytes_max
    }

    /// The buffer that gathers, with room for `len` more bytes.
    pub fn gather(&mut self, len: usize) -> &mut AlignedBuffer {
        if self.gathering.is_none() {
            self.gathering = self.free.pop();
        }
        let fits = |buffer: &mut AlignedBuffer| buffer.remaining() >= len;
        if !self.gathering.as_mut().is_some_and(fits) {
            let bytes = (self.gathering_bytes() + len).next_power_of_two().max(BUFFER_BYTES_MIN);
            let mut grown = AlignedBuffer::with_capacity(bytes.min(self.bytes_max));
            if let Some(small) = self.gathering.take() {
                grown.extend_from_slice(&small);
            }
            self.gathering = Some(grown);
        }
        self.gathering.as_mut().expect("just made")
    }

    /// Closes the group that gathers, if it holds anything: it will be written to `offset_bytes` of
    /// `segment`. Returns its length, padded to whole blocks.
    pub fn seal(&mut self, segment: u64, offset_bytes: u64, last_sequence: u64) -> u64 {
        let Some(mut buffer) = self.gathering.take_if(|buffer| !buffer.is_empty()) else {
            return 0;
        };
        buffer.pad_zero_to(BLOCK_BYTES);
        let len = buffer.len();
        self.sealed_bytes += len;
        self.sealed.push_back(SealedGroup { segment, offset_bytes, last_sequence, buffer });
        len as u64
    }

    /// Takes the oldest sealed group to write it, if no other is in flight.
    pub fn take_off(&mut self) -> Option<SealedGroup> {
        assert!(self.in_flight.is_none());
        let group = self.sealed.pop_front()?;
        self.sealed_bytes -= group.buffer.len();
        self.in_flight = Some(Flight {
            segment: group.segment,
            last_sequence: group.last_sequence,
            len_bytes: group.buffer.len(),
        });
        Some(group)
    }

    pub fn is_flying(&self) -> bool {
        self.in_flight.is_some()
    }

    pub fn has_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// The group in flight came back with its buffer.
    pub fn land(&mut self, mut buffer: AlignedBuffer) -> Flight {
        let flight = self.in_flight.take().expect("a write came back that was never given out");
        if self.free.len() < BUFFERS_KEPT {
            buffer.clear();
            self.free.push(buffer);
        }
        flight
    }

    /// The oldest segment that a group still has to be written to; what gathers goes to `current`.
    pub fn oldest_segment(&self, current: u64) -> u64 {
        let sealed = self.sealed.front().map(|group| group.segment);
        self.in_flight.as_ref().map(|flight| flight.segment).or(sealed).unwrap_or(current)
    }

    /// Bytes of memory held, without those in flight.
    pub fn memory_bytes(&self) -> usize {
        let sealed = self.sealed.iter().map(|group| group.buffer.capacity()).sum::<usize>();
        let free = self.free.iter().map(AlignedBuffer::capacity).sum::<usize>();
        sealed + free + self.gathering.as_ref().map_or(0, AlignedBuffer::capacity)
    }

    /// Frees everything that will never be written.
    pub fn abandon(&mut self) {
        self.gathering = None;
        self.sealed.clear();
        self.sealed_bytes = 0;
        self.free.clear();
    }
}
