//! Values that are integers, or decimals of few places: scaled to integers, then packed at the
//! width of the widest.
//!
//! ```text
//! | places u8 | mode u8 | width u8 | base i64 | packed, `width` bits each |
//! mode 0, deltas:  base = the first, then count - 1 zigzag deltas
//! mode 1, offsets: base = the least, then count offsets from it
//! ```
//! A value is `integer as f64 / 10^places`; the encoder checks that this gives back the same bits.
//! Cost: encode about 4 ns, decode about 2 ns a point.

use super::bits::{BitReader, BitWriter, unzigzag, width_bits, zigzag};
use crate::model::sample::Sample;

/// Longer decimals are rarely met, and XOR takes them.
pub(super) const PLACES_MAX: u8 = 5;
const POWERS: [f64; PLACES_MAX as usize + 1] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5];
/// Above this f64 does not hold every integer.
const INTEGER_MAX: i64 = 1 << 53;
/// Wider columns are left to XOR, which is then about as short.
const WIDTH_MAX: u32 = 40;

const DELTAS: u8 = 0;
const OFFSETS: u8 = 1;

/// Appends the column if `values` can be had exactly and in few bits; else changes nothing and
/// returns false.
pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) -> bool {
    let Some((places, integers)) = scale_all(values) else { return false };
    let mut delta_bits = 0;
    for pair in integers.windows(2) {
        delta_bits |= zigzag(pair[1] - pair[0]);
    }
    let min = integers.iter().copied().min().unwrap_or(0);
    let max = integers.iter().copied().max().unwrap_or(0);
    let delta_width = width_bits(delta_bits);
    let offset_width = width_bits((max - min).cast_unsigned());
    if delta_width.min(offset_width) > WIDTH_MAX {
        return false;
    }
    let (mode, width, base) = if delta_width <= offset_width {
        (DELTAS, delta_width, integers[0])
    } else {
        (OFFSETS, offset_width, min)
    };
    out.extend_from_slice(&[places, mode, width.to_le_bytes()[0]]);
    out.extend_from_slice(&base.to_le_bytes());
    let mut writer = BitWriter::new(out);
    if mode == DELTAS {
        for pair in integers.windows(2) {
            writer.write(zigzag(pair[1] - pair[0]), width);
        }
    } else {
        for integer in integers {
            writer.write((integer - min).cast_unsigned(), width);
        }
    }
    writer.finish();
    true
}

/// The fewest decimal places that hold all of `values` exactly, and the values scaled by them.
fn scale_all(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let mut places = 0;
    let mut integers = Vec::new();
    loop {
        integers.clear();
        integers.reserve(values.len());
        // Plain integers are by far the most, and need no division.
        let stopped_at = if places == 0 {
            push_while(values, &mut integers, whole)
        } else {
            push_while(values, &mut integers, |value| scale(value, places))
        };
        let Some(stopped_at) = stopped_at else { return Some((places, integers)) };
        // This value decides how many places to try next; most floats that are no decimals end here
        // at once.
        places = (places + 1..=PLACES_MAX).find(|more| scale(stopped_at, *more).is_some())?;
    }
}

/// Pushes what `convert` makes of the values; returns the first of which it makes nothing.
#[inline]
fn push_while(
    values: &[f64],
    integers: &mut Vec<i64>,
    convert: impl Fn(f64) -> Option<i64>,
) -> Option<f64> {
    for value in values {
        match convert(*value) {
            Some(integer) => integers.push(integer),
            None => return Some(*value),
        }
    }
    None
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "checked by converting back")]
fn whole(value: f64) -> Option<i64> {
    let integer = value as i64;
    let fits = integer.unsigned_abs() < INTEGER_MAX.unsigned_abs();
    (fits && (integer as f64).to_bits() == value.to_bits()).then_some(integer)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "checked by converting back")]
pub(super) fn scale(value: f64, places: u8) -> Option<i64> {
    let power = POWERS[places as usize];
    let integer = (value * power + 0.5_f64.copysign(value)) as i64;
    let fits = integer.unsigned_abs() < INTEGER_MAX.unsigned_abs();
    (fits && unscale_by(integer, power).to_bits() == value.to_bits()).then_some(integer)
}

#[inline]
fn unscale_by(integer: i64, power: f64) -> f64 {
    integer as f64 / power
}

/// The value that was scaled by `places`, at most [`PLACES_MAX`].
#[inline]
pub(super) fn unscale(integer: i64, places: u8) -> f64 {
    unscale_by(integer, POWERS[places as usize])
}

/// Sets the values of `samples`; `None` if `column` is not what [`encode`] writes for so many.
pub(super) fn decode(column: &[u8], samples: &mut [Sample]) -> Option<()> {
    let (&[places, mode, width], rest) = column.split_first_chunk::<3>()?;
    let (base, packed) = rest.split_first_chunk::<8>()?;
    let mut base = i64::from_le_bytes(*base);
    let power = *POWERS.get(places as usize)?;
    let width = u32::from(width);
    if width > WIDTH_MAX || mode > OFFSETS {
        return None;
    }
    let mut reader = BitReader::new(packed);
    if mode == DELTAS {
        let (first, others) = samples.split_first_mut()?;
        first.value = unscale_by(base, power);
        for sample in others {
            base = base.wrapping_add(unzigzag(reader.read(width)?));
            sample.value = unscale_by(base, power);
        }
    } else {
        for sample in samples {
            let integer = base.wrapping_add(reader.read(width)?.cast_signed());
            sample.value = unscale_by(integer, power);
        }
    }
    reader.is_finished().then_some(())
}
