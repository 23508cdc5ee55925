//! Bit streams of a chunk's columns: least significant bit first, in little-endian words, no
//! padding but in the last byte. In and out: bytes. Cost: about 1 ns for a write or a read of up to
//! 64 bits.

/// Appends bits to a byte vector.
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    /// Always below 64.
    pending_bits: u32,
}

impl<'a> BitWriter<'a> {
    /// A writer that begins at the end of `out`, on a byte boundary.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, pending: 0, pending_bits: 0 }
    }

    /// Appends the low `bits` (0 to 64) bits of `value`, whose other bits are zero.
    #[inline]
    pub(super) fn write(&mut self, value: u64, bits: u32) {
        debug_assert!(bits <= 64 && value & !mask(bits) == 0);
        self.pending |= value << self.pending_bits;
        let total = self.pending_bits + bits;
        if total < 64 {
            self.pending_bits = total;
            return;
        }
        self.out.extend_from_slice(&self.pending.to_le_bytes());
        // What did not fit; nothing is left of a value that began on a word boundary.
        self.pending = value.checked_shr(64 - self.pending_bits).unwrap_or(0);
        self.pending_bits = total - 64;
    }

    /// Writes the last, partial word.
    pub(super) fn finish(self) {
        let len = self.pending_bits.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.pending.to_le_bytes()[..len]);
    }
}

/// Reads what a [`BitWriter`] wrote; never beyond the bytes it was given.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    position_bits: usize,
}

impl<'a> BitReader<'a> {
    /// A reader at the first bit of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position_bits: 0 }
    }

    /// The next `bits` (0 to 64) bits, or `None` if fewer are left.
    #[inline]
    pub(super) fn read(&mut self, bits: u32) -> Option<u64> {
        let end_bits = self.position_bits + bits as usize;
        if end_bits > self.bytes.len() * 8 {
            return None;
        }
        let at = self.position_bits / 8;
        let shift = self.position_bits % 8;
        let mut value = self.word(at) >> shift;
        if shift + bits as usize > 64 {
            value |= u64::from(self.bytes[at + 8]) << (64 - shift);
        }
        self.position_bits = end_bits;
        Some(value & mask(bits))
    }

    /// Whether nothing but the last byte's padding is left, and that is zero.
    pub(super) fn is_finished(&mut self) -> bool {
        let left_bits = self.bytes.len() * 8 - self.position_bits;
        left_bits < 8 && self.read(u32::try_from(left_bits).unwrap_or(0)) == Some(0)
    }

    /// The eight bytes at `at`, as if zeros followed the last.
    #[inline]
    fn word(&self, at: usize) -> u64 {
        if let Some(word) = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            return u64::from_le_bytes(*word);
        }
        let rest = self.bytes.get(at..).unwrap_or(&[]);
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        u64::from_le_bytes(word)
    }
}

/// The low `bits` bits set.
#[inline]
pub(super) fn mask(bits: u32) -> u64 {
    u64::MAX.checked_shr(64 - bits).unwrap_or(0)
}

/// How many bits `value` needs; 0 for 0.
#[inline]
pub(super) fn width_bits(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// Small magnitudes to small numbers: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4.
#[inline]
pub(super) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// The inverse of [`zigzag`].
#[inline]
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_of_every_width_at_every_offset() {
        for offset in 0..64 {
            for bits in 0..=64 {
                let value = mask(bits) & 0xa5c3_96e1_0ff0_7b2d;
                let mut bytes = Vec::new();
                let mut writer = BitWriter::new(&mut bytes);
                writer.write(0, offset);
                writer.write(value, bits);
                writer.write(1, 1);
                writer.finish();
                let mut reader = BitReader::new(&bytes);
                assert_eq!(reader.read(offset), Some(0));
                assert_eq!(reader.read(bits), Some(value), "offset={offset} bits={bits}");
                assert_eq!(reader.read(1), Some(1));
                assert!(reader.is_finished());
                assert_eq!(reader.read(8), None);
            }
        }
    }

    #[test]
    fn zigzag_is_its_own_inverse() {
        for value in [0, -1, 1, i64::MIN, i64::MAX, 12345, -98765] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        assert_eq!(zigzag(-1), 1);
        assert_eq!(zigzag(1), 2);
    }
}
