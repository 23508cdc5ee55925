//! Protobuf's base-128 varints: little-endian groups of seven bits, at most ten bytes for 64 bits.

/// Reads a varint at `bytes[*offset..]` and moves `offset` behind it.
///
/// `None` if it is cut off, longer than ten bytes or above `u64::MAX`; `offset` is then
/// unspecified.
#[inline]
pub fn read_varint(bytes: &[u8], offset: &mut usize) -> Option<u64> {
    // Lengths and tags are below 128 nearly always; the loop is for timestamps.
    let first = *bytes.get(*offset)?;
    *offset += 1;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    read_varint_rest(bytes, offset, u64::from(first & 0x7f))
}

#[inline]
fn read_varint_rest(bytes: &[u8], offset: &mut usize, first: u64) -> Option<u64> {
    let mut value = first;
    let mut shift = 7;
    loop {
        let byte = *bytes.get(*offset)?;
        *offset += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

/// Appends `value` in its shortest form.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// How many bytes [`write_varint`] appends for `value`.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_at_every_length() {
        for bits in 0..64 {
            for value in [1u64 << bits, (1u64 << bits) - 1, u64::MAX >> bits] {
                let mut bytes = Vec::new();
                write_varint(&mut bytes, value);
                assert_eq!(bytes.len(), varint_len(value), "value={value}");
                let mut offset = 0;
                assert_eq!(read_varint(&bytes, &mut offset), Some(value));
                assert_eq!(offset, bytes.len());
                assert_eq!(read_varint(&bytes[..bytes.len() - 1], &mut 0), None);
            }
        }
    }

    #[test]
    fn overlong_is_refused() {
        let mut eleven = vec![0x80; 10];
        eleven.push(1);
        assert_eq!(read_varint(&eleven, &mut 0), None);
        let mut above_max = vec![0xff; 9];
        above_max.push(2);
        assert_eq!(read_varint(&above_max, &mut 0), None);
    }
}
