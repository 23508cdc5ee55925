//! A byte buffer whose memory starts on a 4096-byte boundary, as `O_DIRECT` writes ask for.
//!
//! In: bytes, appended. Out: one aligned slice. The memory is a plain `Vec` with up to a page of
//! slack in front, so there is no `unsafe` here. It never grows: its address stays the same for its
//! whole life, also when it is moved. Not here: how it is written (`ring`), what is in it
//! (`node/log`).

use std::ops::{Deref, DerefMut};

/// Where an [`AlignedBuffer`] starts; no disk we know asks for more than its 4096-byte blocks.
pub const BUFFER_ALIGN_BYTES: usize = 4096;

/// A fixed-capacity buffer, aligned to [`BUFFER_ALIGN_BYTES`]. Memory is touched only as it is
/// filled.
pub struct AlignedBuffer {
    /// `start` bytes of slack, then the contents. Never reallocated, so `start` stays right.
    bytes: Vec<u8>,
    start: usize,
    capacity: usize,
}

impl AlignedBuffer {
    /// An empty buffer that takes `capacity` bytes, rounded up to whole blocks so that padding
    /// always fits.
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(BUFFER_ALIGN_BYTES);
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity + BUFFER_ALIGN_BYTES);
        let start = bytes.as_ptr().addr().wrapping_neg() % BUFFER_ALIGN_BYTES;
        bytes.resize(start, 0);
        Self { bytes, start, capacity }
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it can hold; a multiple of [`BUFFER_ALIGN_BYTES`].
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.capacity - self.len()
    }

    /// Appends `bytes`. The caller has asked [`AlignedBuffer::remaining`]: more than fits is our
    /// mistake and panics.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.remaining(), "an aligned buffer never grows");
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends zeros until the length is a multiple of `multiple`, which divides
    /// [`BUFFER_ALIGN_BYTES`] (as block sizes do), so that the padding fits even a full buffer.
    pub fn pad_zero_to(&mut self, multiple: usize) {
        assert!(multiple != 0 && BUFFER_ALIGN_BYTES.is_multiple_of(multiple));
        let padded = self.len().next_multiple_of(multiple);
        assert!(padded <= self.capacity);
        self.bytes.resize(self.start + padded, 0);
    }

    /// Forgets the contents, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// The contents; starts on a [`BUFFER_ALIGN_BYTES`] boundary.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The contents, to patch a length or checksum into.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "AlignedBuffer({} of {} bytes)", self.len(), self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_aligned(buffer: &AlignedBuffer) -> bool {
        buffer.as_slice().as_ptr().addr().is_multiple_of(BUFFER_ALIGN_BYTES)
    }

    #[test]
    fn stays_aligned_and_in_place_while_it_fills_and_moves() {
        for capacity in [1, 4096, 4097, 1 << 20] {
            let mut buffer = AlignedBuffer::with_capacity(capacity);
            assert!(is_aligned(&buffer) && buffer.is_empty() && buffer.capacity() >= capacity);
            let address = buffer.as_slice().as_ptr().addr();
            while buffer.remaining() > 0 {
                let piece = [7; 1000];
                buffer.extend_from_slice(&piece[..buffer.remaining().min(1000)]);
            }
            let buffer = Box::new(buffer);
            assert_eq!(buffer.as_slice().as_ptr().addr(), address);
            assert_eq!(buffer.len(), buffer.capacity());
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn padding_is_zero_also_over_old_contents() {
        let mut buffer = AlignedBuffer::with_capacity(8192);
        buffer.extend_from_slice(&[0xff; 8192]);
        buffer.clear();
        buffer.extend_from_slice(b"abc");
        buffer.pad_zero_to(512);
        assert_eq!(buffer.len(), 512);
        assert_eq!(&buffer[..4], b"abc\0");
        assert!(buffer[3..].iter().all(|byte| *byte == 0));
        buffer.pad_zero_to(512);
        assert_eq!(buffer.len(), 512);
        buffer.extend_from_slice(b"d");
        buffer.pad_zero_to(4096);
        assert_eq!((buffer.len(), buffer[512]), (4096, b'd'));
    }

    #[test]
    #[should_panic(expected = "never grows")]
    fn more_than_fits_is_a_mistake() {
        let mut buffer = AlignedBuffer::with_capacity(4096);
        buffer.extend_from_slice(&[0; 4097]);
    }
}
