//! Values as the XOR with their predecessor, after Gorilla (Pelkonen et al., VLDB 2015, section
//! 4.1.2).
//!
//! ```text
//! first value: 64 bits; then for each
//!   0                                          the same bits as before
//!   1 0 | bits of the window                   the XOR fits into the window of the one before
//!   1 1 | leading, 5 | length - 1, 6 | bits    a new window: `leading` zeros, then `length` bits
//! ```
//! Control bits come first in the stream. Cost: about 3 ns a point each way.

use super::bits::{BitReader, BitWriter};
use crate::model::sample::Sample;

const LEADING_MAX: u32 = 31;

/// Appends the column of `values`, which is not empty.
pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) {
    let mut writer = BitWriter::new(out);
    let mut before = values[0].to_bits();
    writer.write(before, 64);
    let mut window: Option<(u32, u32)> = None;
    for value in &values[1..] {
        let bits = value.to_bits();
        let xor = bits ^ before;
        before = bits;
        if xor == 0 {
            writer.write(0, 1);
            continue;
        }
        let leading = xor.leading_zeros().min(LEADING_MAX);
        let trailing = xor.trailing_zeros();
        if let Some((window_leading, window_trailing)) = window
            && leading >= window_leading
            && trailing >= window_trailing
        {
            writer.write(0b01, 2);
            writer.write(xor >> window_trailing, 64 - window_leading - window_trailing);
            continue;
        }
        let length = 64 - leading - trailing;
        writer.write(0b11 | u64::from(leading) << 2 | u64::from(length - 1) << 7, 13);
        writer.write(xor >> trailing, length);
        window = Some((leading, trailing));
    }
    writer.finish();
}

/// Sets the values of `samples`; `None` if `column` is not what [`encode`] writes for so many.
pub(super) fn decode(column: &[u8], samples: &mut [Sample]) -> Option<()> {
    let mut reader = BitReader::new(column);
    let (first, others) = samples.split_first_mut()?;
    let mut bits = reader.read(64)?;
    first.value = f64::from_bits(bits);
    let mut window: Option<(u32, u32)> = None;
    for sample in others {
        if reader.read(1)? == 1 {
            if reader.read(1)? == 1 {
                let leading = u32::try_from(reader.read(5)?).ok()?;
                let length = u32::try_from(reader.read(6)?).ok()? + 1;
                window = Some((length, 64_u32.checked_sub(leading + length)?));
            }
            let (length, trailing) = window?;
            bits ^= reader.read(length)? << trailing;
        }
        sample.value = f64::from_bits(bits);
    }
    reader.is_finished().then_some(())
}
