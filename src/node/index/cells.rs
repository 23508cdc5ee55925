//! An arena of 32-bit words in cells of exact sizes: what is released is used again by the next one
//! of its size.
//!
//! Up to 64 words a cell is as long as what is in it, beyond that a multiple of 64. A released cell
//! holds the place of the next free one of its size. So a head whose series come and go takes no
//! more than it took at its fullest: labels of new series are as long as those of old ones. Cost:
//! two loads and two stores. Never moves anything, so there is nothing to pause for.

/// No cell.
pub(super) const NONE: u32 = u32::MAX;
/// Longer cells are multiples of it.
const EXACT_WORDS: usize = 64;

/// The arena.
#[derive(Default)]
pub(super) struct Cells {
    words: Vec<u32>,
    /// First free cell of each size; see `class_of`.
    free: Vec<u32>,
    free_words: usize,
}

/// Which list of free cells serves `len` words, and how long its cells are.
fn class_of(len: usize) -> (usize, usize) {
    if len <= EXACT_WORDS {
        return (len, len);
    }
    let steps = len.div_ceil(EXACT_WORDS);
    (EXACT_WORDS + steps, steps * EXACT_WORDS)
}

impl Cells {
    /// Whether so many more words fit, in cells of whatever sizes.
    pub(super) fn has_room(&self, words: usize) -> bool {
        self.words.len() + 2 * words + EXACT_WORDS < NONE as usize
    }

    /// Where `len` words (at least one) begin that nobody else uses. The caller asked for room.
    pub(super) fn allocate(&mut self, len: usize) -> u32 {
        let (class, size) = class_of(len);
        if let Some(first) = self.free.get_mut(class)
            && *first != NONE
        {
            let at = *first;
            *first = self.words[at as usize];
            self.free_words -= size;
            return at;
        }
        let at = u32::try_from(self.words.len()).expect("room was asked for");
        self.words.resize(self.words.len() + size, 0);
        at
    }

    /// Gives back the `len` words at `at`.
    pub(super) fn release(&mut self, at: u32, len: usize) {
        let (class, size) = class_of(len);
        if class >= self.free.len() {
            self.free.resize(class + 1, NONE);
        }
        self.words[at as usize] = std::mem::replace(&mut self.free[class], at);
        self.free_words += size;
    }

    /// All words from `at` on: the caller knows where its own end.
    #[inline]
    pub(super) fn from(&self, at: u32) -> &[u32] {
        &self.words[at as usize..]
    }

    /// The `len` words at `at`, to be written.
    pub(super) fn cell_mut(&mut self, at: u32, len: usize) -> &mut [u32] {
        &mut self.words[at as usize..][..len]
    }

    /// Bytes that the arena takes. What it grows into was not touched yet, and takes none.
    pub(super) fn bytes(&self) -> u64 {
        (4 * (self.words.len() + self.free.capacity())) as u64
    }

    /// Bytes of free cells.
    pub(super) fn bytes_free(&self) -> u64 {
        4 * self.free_words as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_never_overlap_and_are_used_again() {
        let mut cells = Cells::default();
        let mut held: Vec<(u32, usize)> = Vec::new();
        let mut random = 7_u64;
        let mut peak = 0;
        for round in 0..100_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
            let len = 1 + (random >> 40) as usize % 200;
            if held.len() < 100 {
                let at = cells.allocate(len);
                cells.cell_mut(at, len).fill(at);
                held.push((at, len));
            } else {
                let (at, len) = held.swap_remove((random >> 33) as usize % held.len());
                assert!(cells.from(at)[..len].iter().all(|word| *word == at));
                cells.release(at, len);
            }
            if round == 50_000 {
                peak = cells.words.len();
            }
        }
        let used: usize = held.iter().map(|(_, len)| class_of(*len).1).sum();
        assert_eq!(cells.bytes_free(), 4 * (cells.words.len() - used) as u64);
        assert!(cells.words.len() <= peak * 5 / 4, "{peak} -> {}", cells.words.len());
    }
}
