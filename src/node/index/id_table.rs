//! From a hash to a dense id, where the id's owner knows the full key. 8 bytes an entry, plus 1 of
//! control.
//!
//! 32 bits of the hash lie beside the id, so that growing the table never goes back to the keys,
//! and a look-up of an absent key nearly never does.

use hashbrown::HashTable;

/// A table with room for so many times its entries gives most of it back.
const SHRINK_FACTOR: usize = 8;
/// Smaller tables keep their room.
const SHRINK_CAPACITY_MIN: usize = 8192;

/// Maps hashes to ids; several ids may have the same hash.
#[derive(Default)]
pub(in crate::node) struct IdTable {
    entries: HashTable<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    id: u32,
}

impl IdTable {
    /// The id with `hash` for which `is_it` holds.
    #[inline]
    pub(in crate::node) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = fold(hash);
        let found = self.entries.find(spread(hash), |entry| entry.hash == hash && is_it(entry.id));
        found.map(|entry| entry.id)
    }

    /// Adds `id`, which is not in the table.
    pub(in crate::node) fn insert(&mut self, hash: u64, id: u32) {
        let hash = fold(hash);
        let respread = |entry: &Entry| spread(entry.hash);
        self.entries.insert_unique(spread(hash), Entry { hash, id }, respread);
    }

    /// Takes out `id`, which is in the table with `hash`.
    pub(in crate::node) fn remove(&mut self, hash: u64, id: u32) {
        let hash = fold(hash);
        if let Ok(entry) = self.entries.find_entry(spread(hash), |entry| entry.id == id) {
            entry.remove();
        }
        // As long a pause as growing to this size was.
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        if capacity > SHRINK_CAPACITY_MIN && len < capacity / SHRINK_FACTOR {
            self.entries.shrink_to(2 * len, |entry| spread(entry.hash));
        }
    }

    /// Bytes that the table takes.
    pub(in crate::node) fn bytes(&self) -> u64 {
        self.entries.allocation_size() as u64
    }
}

/// The half of the hash that is kept.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half is asked for")]
fn fold(hash: u64) -> u32 {
    hash as u32
}

/// The table wants good low bits (the place) and good top bits (the tag); 2^64 / golden ratio gives
/// both.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
