//! Values that are nearly all integers or decimals of few places, for blocks: scaled to integers,
//! these by `pco`, and the few others word for word.
//!
//! ```text
//! | places u8 | exceptions varint | each: gap varint, bits u64 | pco of `count` i64 |
//! ```
//! An exception (a stale marker, NaN, an infinity, -0.0, a decimal of more places) stands in the
//! integers as a repeat of the one before. `gap` counts the values since the exception before. The
//! rest is as in `integers`, which has no exceptions and no entropy coding, but costs a fifth.

use super::entropy::Entropy;
use super::integers::{PLACES_MAX, scale, unscale};
use crate::base::varint::{read_varint, write_varint};
use crate::model::sample::Sample;

/// More exceptions than one in so many values: left to the codecs of floats.
const VALUES_PER_EXCEPTION: usize = 12;

/// The scaled form of a column, reused from chunk to chunk.
#[derive(Default)]
pub(super) struct Scaled {
    places: u8,
    integers: Vec<i64>,
    /// Positions, ascending.
    exceptions: Vec<u32>,
}

impl Scaled {
    /// Scales `values`; false if too many of them are no decimals.
    pub(super) fn scale(&mut self, values: &[f64]) -> bool {
        self.places = 0;
        while !self.scale_at(values) {
            if self.places > PLACES_MAX {
                return false;
            }
        }
        true
    }

    /// Scales by `places`. False: `places` was raised, try again; above the limit there is no use.
    fn scale_at(&mut self, values: &[f64]) -> bool {
        self.integers.clear();
        self.exceptions.clear();
        let exceptions_max = values.len() / VALUES_PER_EXCEPTION + 1;
        for (index, value) in (0u32..).zip(values) {
            if let Some(integer) = scale(*value, self.places) {
                self.integers.push(integer);
                continue;
            }
            let more = (self.places + 1..=PLACES_MAX).find(|more| scale(*value, *more).is_some());
            if let Some(more) = more {
                self.places = more;
                return false;
            }
            self.exceptions.push(index);
            if self.exceptions.len() > exceptions_max {
                self.places = PLACES_MAX + 1;
                return false;
            }
            self.integers.push(self.integers.last().copied().unwrap_or(0));
        }
        true
    }

    /// Appends the column of `values`, which were scaled last.
    pub(super) fn encode(&self, values: &[f64], entropy: &mut Entropy, out: &mut Vec<u8>) {
        out.push(self.places);
        write_varint(out, self.exceptions.len() as u64);
        let mut before = 0;
        for index in &self.exceptions {
            write_varint(out, u64::from(index - before));
            before = *index;
            out.extend_from_slice(&values[*index as usize].to_bits().to_le_bytes());
        }
        entropy.encode_integers(&self.integers, out);
    }
}

/// Sets the values of `samples`; `None` if `column` is not what [`Scaled::encode`] writes for so
/// many.
pub(super) fn decode(column: &[u8], samples: &mut [Sample]) -> Option<()> {
    let (&places, _) = column.split_first()?;
    if places > PLACES_MAX {
        return None;
    }
    let mut offset = 1;
    let exception_count = usize::try_from(read_varint(column, &mut offset)?).ok()?;
    if exception_count > samples.len() {
        return None;
    }
    let exceptions_at = offset;
    for _ in 0..exception_count {
        take_exception(column, &mut offset)?;
    }
    let mut integers = vec![0; samples.len()];
    super::entropy::decode_integers(&column[offset..], &mut integers)?;
    for (sample, integer) in samples.iter_mut().zip(integers) {
        sample.value = unscale(integer, places);
    }
    let mut offset = exceptions_at;
    let mut index = 0_usize;
    for _ in 0..exception_count {
        let (gap, bits) = take_exception(column, &mut offset)?;
        index = index.checked_add(usize::try_from(gap).ok()?)?;
        samples.get_mut(index)?.value = f64::from_bits(bits);
    }
    Some(())
}

fn take_exception(column: &[u8], offset: &mut usize) -> Option<(u64, u64)> {
    let gap = read_varint(column, offset)?;
    let bits = *column.get(*offset..)?.first_chunk::<8>()?;
    *offset += 8;
    Some((gap, u64::from_le_bytes(bits)))
}
