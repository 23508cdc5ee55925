//! Pages of blocks in memory, bounded in bytes. Two generations: what is asked for moves to the
//! young one; when that is full the old one goes.

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;

/// Block and offset.
type Key = (u64, u64);
type Generation = HashMap<Key, Arc<[u8]>>;

/// What a page costs beside its bytes.
const PAGE_OVERHEAD_BYTES: u64 = 96;

/// See the module's description.
pub struct PageCache {
    bytes_max: u64,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    young: Generation,
    young_bytes: u64,
    old: Generation,
    old_bytes: u64,
    hits: u64,
    misses: u64,
}

/// What a cache did and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// Pages found.
    pub hits: u64,
    /// Pages read from the disk.
    pub misses: u64,
    /// Bytes held.
    pub bytes: u64,
}

impl PageCache {
    /// A cache of at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, state: RefCell::default() }
    }

    /// The page, if it is here.
    pub fn get(&self, block: u64, offset: u64) -> Option<Arc<[u8]>> {
        let state = &mut *self.state.borrow_mut();
        let key = (block, offset);
        if let Some(page) = state.young.get(&key) {
            state.hits += 1;
            return Some(Arc::clone(page));
        }
        let Some(page) = state.old.remove(&key) else {
            state.misses += 1;
            return None;
        };
        state.hits += 1;
        state.old_bytes -= cost(&page);
        state.put(key, Arc::clone(&page), self.bytes_max);
        Some(page)
    }

    /// Keeps a page for the next who asks.
    pub fn put(&self, block: u64, offset: u64, page: Arc<[u8]>) {
        self.state.borrow_mut().put((block, offset), page, self.bytes_max);
    }

    /// Drops the pages of a block that is no more.
    pub fn forget(&self, block: u64) {
        let State { young, young_bytes, old, old_bytes, .. } = &mut *self.state.borrow_mut();
        for (generation, bytes) in [(young, young_bytes), (old, old_bytes)] {
            generation.retain(|(of, _), page| {
                let is_kept = *of != block;
                *bytes -= if is_kept { 0 } else { cost(page) };
                is_kept
            });
        }
    }

    /// What it did and holds.
    pub fn report(&self) -> CacheReport {
        let state = self.state.borrow();
        let bytes = state.young_bytes + state.old_bytes;
        CacheReport { hits: state.hits, misses: state.misses, bytes }
    }
}

fn cost(page: &[u8]) -> u64 {
    page.len() as u64 + PAGE_OVERHEAD_BYTES
}

impl State {
    fn put(&mut self, key: Key, page: Arc<[u8]>, bytes_max: u64) {
        let bytes = cost(&page);
        if bytes > bytes_max / 2 {
            return;
        }
        if self.young_bytes + bytes > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.young_bytes);
        }
        if let Some(before) = self.young.insert(key, page) {
            self.young_bytes -= cost(&before);
        }
        self.young_bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bytes_and_keeps_what_is_asked_for() {
        let cache = PageCache::new(100_000);
        for offset in 0..1_000 {
            cache.put(1, offset, vec![0; 1_000].into());
            assert!(offset == 0 || cache.get(1, 0).is_some(), "asked for each time: {offset}");
            assert!(cache.report().bytes <= 100_000);
        }
        assert!(cache.get(1, 1).is_none(), "never asked for");
        cache.put(2, 0, vec![0; 60_000].into());
        assert!(cache.get(2, 0).is_none(), "larger than half");
        cache.put(2, 0, vec![0; 1_000].into());
        cache.forget(1);
        assert_eq!(cache.report().bytes, 1_000 + PAGE_OVERHEAD_BYTES, "of block 2");
        cache.forget(2);
        assert_eq!((cache.report().bytes, cache.get(2, 0)), (0, None));
    }
}
