//! What a gateway shard knows of the series it owns: `SeriesHash` -> id on the owner node's shard.
//!
//! In: hashes. Out: ids that a node gave. 20 bytes an entry and a byte of control, at most 7/8 of
//! them in use. Can be thrown away at any time: a miss costs the label bytes on the wire, never a
//! round trip. Series that leave the node leave here too.

use crate::model::series::{SeriesHash, SeriesId};
use hashbrown::HashTable;

/// A table with room for so many times its entries gives most of it back.
const SHRINK_FACTOR: usize = 8;
/// Smaller tables keep their room.
const SHRINK_CAPACITY_MIN: usize = 8192;

/// Ids of the known series.
///
/// A node in the same process tells which series leave it. One behind a link does not, so a table
/// of its ids is *aged*: what was not looked for since the last but one time is forgotten.
#[derive(Default)]
pub struct SeriesTable {
    entries: HashTable<Entry>,
    /// Entries that nobody looked for since [`SeriesTable::age`].
    aged: HashTable<Entry>,
}

/// Bytes instead of one u128: 20 instead of 32.
struct Entry {
    hash: [u8; 16],
    id: SeriesId,
}

impl Entry {
    fn is(&self, hash: SeriesHash) -> bool {
        self.hash() == hash
    }

    fn hash(&self) -> SeriesHash {
        SeriesHash(u128::from_le_bytes(self.hash))
    }
}

impl SeriesTable {
    /// The id of `hash`, if it is known. One cache miss on a table larger than the cache.
    #[inline]
    pub fn find(&mut self, hash: SeriesHash) -> Option<SeriesId> {
        match self.entries.find(hash.table_hash(), |entry| entry.is(hash)) {
            Some(entry) => Some(entry.id),
            None if self.aged.is_empty() => None,
            None => self.renew(hash),
        }
    }

    /// Forgets what was not looked for since this was called before.
    pub fn age(&mut self) {
        self.aged = std::mem::take(&mut self.entries);
    }

    fn renew(&mut self, hash: SeriesHash) -> Option<SeriesId> {
        let found = self.aged.find_entry(hash.table_hash(), |entry| entry.is(hash)).ok()?;
        let (Entry { id, .. }, _) = found.remove();
        self.insert(hash, id);
        Some(id)
    }

    /// Remembers what the node answered; a second answer for the same series replaces the first.
    pub fn insert(&mut self, hash: SeriesHash, id: SeriesId) {
        if let Some(entry) = self.entries.find_mut(hash.table_hash(), |entry| entry.is(hash)) {
            entry.id = id;
            return;
        }
        let entry = Entry { hash: hash.0.to_le_bytes(), id };
        self.entries.insert_unique(hash.table_hash(), entry, |entry| entry.hash().table_hash());
    }

    /// Forgets that `hash` has `id`, if it does.
    pub fn remove(&mut self, hash: SeriesHash, id: SeriesId) {
        for entries in [&mut self.entries, &mut self.aged] {
            let is_it = |entry: &Entry| entry.is(hash) && entry.id == id;
            if let Ok(entry) = entries.find_entry(hash.table_hash(), is_it) {
                entry.remove();
            }
        }
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        // As long a pause as growing to this size was.
        if capacity > SHRINK_CAPACITY_MIN && len < capacity / SHRINK_FACTOR {
            self.entries.shrink_to(2 * len, |entry| entry.hash().table_hash());
        }
    }

    /// Known series.
    pub fn len(&self) -> usize {
        self.entries.len() + self.aged.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.aged.is_empty()
    }

    /// Memory in use.
    #[cfg(test)]
    fn memory_bytes(&self) -> u64 {
        let capacity = self.entries.capacity() + self.aged.capacity();
        (capacity * (size_of::<Entry>() + 1)) as u64
    }
}

const _: () = assert!(size_of::<Entry>() == 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_decide() {
        let mut table = SeriesTable::default();
        let hash = SeriesHash(1 << 64 | 7);
        table.insert(hash, SeriesId(3));
        assert_eq!(table.find(hash), Some(SeriesId(3)));
        assert_eq!(table.find(SeriesHash(2 << 64 | 7)), None);
        assert_eq!(table.find(SeriesHash(1 << 64 | 8)), None);
        table.insert(hash, SeriesId(4));
        assert_eq!((table.find(hash), table.len()), (Some(SeriesId(4)), 1));
    }

    /// Red when what is in use is forgotten, or what is not is kept for ever.
    #[test]
    fn what_nobody_looks_for_is_forgotten() {
        let mut table = SeriesTable::default();
        let (used, idle) = (SeriesHash(7), SeriesHash(8));
        table.insert(used, SeriesId(1));
        table.insert(idle, SeriesId(2));
        for _ in 0..3 {
            table.age();
            assert_eq!(table.find(used), Some(SeriesId(1)));
        }
        assert_eq!((table.find(idle), table.len()), (None, 1));
        table.age();
        table.insert(used, SeriesId(3));
        assert_eq!(table.find(used), Some(SeriesId(3)), "the newer answer");
        table.age();
        table.remove(used, SeriesId(3));
        assert_eq!(table.find(used), None);
    }

    #[test]
    fn forgets_what_left_and_gives_memory_back() {
        let mut table = SeriesTable::default();
        let hash = |n: u32| SeriesHash(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (0..50_000).for_each(|n| table.insert(hash(n), SeriesId(n)));
        let full = table.memory_bytes();
        table.remove(hash(7), SeriesId(8));
        assert_eq!(table.find(hash(7)), Some(SeriesId(7)), "it has another id by now");
        (0..49_990).for_each(|n| table.remove(hash(n), SeriesId(n)));
        assert_eq!((table.len(), table.find(hash(49_995))), (10, Some(SeriesId(49_995))));
        assert_eq!(table.find(hash(7)), None);
        assert!(table.memory_bytes() < full / 4);
    }

    #[test]
    fn survives_growth() {
        let mut table = SeriesTable::default();
        for n in 0..10_000u32 {
            table
                .insert(SeriesHash(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15)), SeriesId(n));
        }
        for n in 0..10_000u32 {
            let hash = SeriesHash(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            assert_eq!(table.find(hash), Some(SeriesId(n)));
        }
    }
}
