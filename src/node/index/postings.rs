//! The rows of the series that carry one label pair. Most pairs are on one series, some on nearly
//! all.
//!
//! 16 bytes for one row, 64 more for up to 15, a roaring bitmap beyond: about 2 bytes a row, or 1
//! bit where it is dense.

use roaring::RoaringBitmap;

/// Rows, never none while the pair is in the index.
pub(in crate::node) enum Postings {
    One(u32),
    Few(Box<Few>),
    Many(Box<RoaringBitmap>),
}

const FEW: usize = 15;
/// With so many left a bitmap becomes few again: far enough below that it does not change for ever.
const FEW_AGAIN: usize = 8;

/// Up to 15 rows, in no order, in one cache line.
pub(in crate::node) struct Few {
    len: u32,
    rows: [u32; FEW],
}

const _: () = assert!(size_of::<Few>() == 64);
const _: () = assert!(size_of::<Postings>() == 16);

/// Of a bitmap: its own struct, and the first container.
const BITMAP_BYTES: u64 = 128;
/// Sparse containers hold u16s; dense ones less than that each.
const BITMAP_ROW_BYTES: u64 = 2;
const FEW_BYTES: u64 = size_of::<Few>() as u64;

/// What is left after a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Left {
    Some,
    Nothing,
}

impl Few {
    fn rows(&self) -> &[u32] {
        &self.rows[..self.len as usize]
    }
}

impl Postings {
    /// Adds `row`, which is not in it. Returns how many bytes of heap that took, about.
    pub(in crate::node) fn insert(&mut self, row: u32) -> u64 {
        match self {
            Self::One(first) => {
                let mut rows = [0; FEW];
                rows[0] = *first;
                rows[1] = row;
                *self = Self::Few(Box::new(Few { len: 2, rows }));
                FEW_BYTES
            }
            Self::Few(few) if (few.len as usize) < FEW => {
                few.rows[few.len as usize] = row;
                few.len += 1;
                0
            }
            Self::Few(few) => {
                let mut bitmap: RoaringBitmap = few.rows.into_iter().collect();
                bitmap.insert(row);
                *self = Self::Many(Box::new(bitmap));
                BITMAP_BYTES + BITMAP_ROW_BYTES * (FEW as u64 + 1) - FEW_BYTES
            }
            Self::Many(bitmap) => {
                insert_row(bitmap, row);
                BITMAP_ROW_BYTES
            }
        }
    }

    /// Takes `row` out, if it is in it. The last one stays in `self`, which is of no use then.
    pub(in crate::node) fn remove(&mut self, row: u32) -> Left {
        match self {
            Self::One(only) if *only == row => return Left::Nothing,
            Self::One(_) => {}
            Self::Few(few) => {
                let Some(at) = few.rows().iter().position(|each| *each == row) else {
                    return Left::Some;
                };
                few.len -= 1;
                few.rows[at] = few.rows[few.len as usize];
                if few.len == 1 {
                    *self = Self::One(few.rows[0]);
                }
            }
            Self::Many(bitmap) => {
                bitmap.remove(row);
                if bitmap.len() <= FEW_AGAIN as u64 {
                    let mut rows = [0; FEW];
                    let mut len = 0;
                    for (place, row) in rows.iter_mut().zip(bitmap.iter()) {
                        *place = row;
                        len += 1;
                    }
                    *self = Self::Few(Box::new(Few { len, rows }));
                }
            }
        }
        Left::Some
    }

    /// Bytes of heap that it takes, as [`Postings::insert`] counts them. O(rows / 65536).
    pub(in crate::node) fn heap_bytes(&self) -> u64 {
        match self {
            Self::One(_) => 0,
            Self::Few(_) => FEW_BYTES,
            Self::Many(bitmap) => BITMAP_BYTES + BITMAP_ROW_BYTES * bitmap.len(),
        }
    }

    /// How many rows.
    pub(in crate::node) fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Few(few) => u64::from(few.len),
            Self::Many(bitmap) => bitmap.len(),
        }
    }

    /// Adds all rows to `set`.
    pub(in crate::node) fn union_into(&self, set: &mut RoaringBitmap) {
        match self {
            Self::One(row) => {
                set.insert(*row);
            }
            Self::Few(few) => set.extend(few.rows()),
            Self::Many(bitmap) => *set |= &**bitmap,
        }
    }
}

/// Adds `row`; false if it was there. New series mostly get the highest row.
#[inline]
pub(in crate::node) fn insert_row(set: &mut RoaringBitmap, row: u32) -> bool {
    set.try_push(row).is_ok() || set.insert(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when a removal forgets a row that it moved, or a bitmap that became few one of its own.
    #[test]
    fn every_size_holds_its_rows() {
        for count in [1, 2, 15, 16, 17, 5000] {
            let mut postings = Postings::One(3);
            for index in 1..count {
                postings.insert(3 + index * 7);
            }
            let rows = |postings: &Postings| {
                let mut set = RoaringBitmap::new();
                postings.union_into(&mut set);
                assert_eq!(set.len(), postings.len());
                set
            };
            assert!(rows(&postings).iter().eq((0..count).map(|index| 3 + index * 7)));
            for index in 1..count {
                assert_eq!(postings.remove(3 + (index - 1) * 7), Left::Some);
                assert_eq!(postings.remove(1), Left::Some, "not in it");
                assert!(rows(&postings).iter().eq((index..count).map(|index| 3 + index * 7)));
            }
            assert_eq!(postings.remove(3 + (count - 1) * 7), Left::Nothing, "count={count}");
        }
    }
}
