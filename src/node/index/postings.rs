//! The ids of the series that carry one label pair, ascending. Most pairs are on one series, some
//! on nearly all.
//!
//! 16 bytes for one id, 64 more for up to 15, a roaring bitmap beyond: about 2 bytes an id, or 1
//! bit where it is dense.

use roaring::RoaringBitmap;

/// Ids in ascending order, never empty.
pub(in crate::node) enum Postings {
    One(u32),
    Few(Box<Few>),
    Many(Box<RoaringBitmap>),
}

const FEW: usize = 15;

/// Up to 15 ids in one cache line.
pub(in crate::node) struct Few {
    len: u32,
    ids: [u32; FEW],
}

const _: () = assert!(size_of::<Few>() == 64);
const _: () = assert!(size_of::<Postings>() == 16);

/// Of a bitmap: its own struct, and the first container.
const BITMAP_BYTES: u64 = 128;
/// Sparse containers hold u16s; dense ones less than that each.
const BITMAP_ID_BYTES: u64 = 2;

impl Postings {
    /// Adds `id`, which is above all others. Returns how many bytes of heap that took.
    pub(in crate::node) fn push(&mut self, id: u32) -> u64 {
        match self {
            Self::One(first) => {
                let mut ids = [0; FEW];
                ids[0] = *first;
                ids[1] = id;
                *self = Self::Few(Box::new(Few { len: 2, ids }));
                size_of::<Few>() as u64
            }
            Self::Few(few) if (few.len as usize) < FEW => {
                few.ids[few.len as usize] = id;
                few.len += 1;
                0
            }
            Self::Few(few) => {
                let mut bitmap = RoaringBitmap::from_sorted_iter(few.ids).expect("ids ascend");
                bitmap.try_push(id).expect("ids ascend");
                *self = Self::Many(Box::new(bitmap));
                BITMAP_BYTES + BITMAP_ID_BYTES * FEW as u64 - size_of::<Few>() as u64
            }
            Self::Many(bitmap) => {
                bitmap.try_push(id).expect("ids ascend");
                BITMAP_ID_BYTES
            }
        }
    }

    /// How many ids.
    pub(in crate::node) fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Few(few) => u64::from(few.len),
            Self::Many(bitmap) => bitmap.len(),
        }
    }

    /// Adds all ids to `set`.
    pub(in crate::node) fn union_into(&self, set: &mut RoaringBitmap) {
        match self {
            Self::One(id) => {
                set.insert(*id);
            }
            Self::Few(few) => set.extend(&few.ids[..few.len as usize]),
            Self::Many(bitmap) => *set |= &**bitmap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_holds_its_ids() {
        for count in [1, 2, 15, 16, 17, 5000] {
            let mut postings = Postings::One(3);
            for index in 1..count {
                postings.push(3 + index * 7);
            }
            let mut set = RoaringBitmap::new();
            postings.union_into(&mut set);
            assert!(set.iter().eq((0..count).map(|index| 3 + index * 7)), "count={count}");
            assert_eq!(postings.len(), u64::from(count));
        }
    }
}
