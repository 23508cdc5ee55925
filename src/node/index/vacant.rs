//! Numbers of a column that nobody uses: the lowest is used again first, and the column ends behind
//! the last one in use.

use roaring::RoaringBitmap;

/// The free places of one column.
#[derive(Default)]
pub(in crate::node) struct Vacant {
    places: RoaringBitmap,
}

/// A column shrinks when it has room for so many times what is in it.
const SHRINK_FACTOR: usize = 4;
/// Smaller columns keep their room.
const SHRINK_LEN_MIN: usize = 1024;

impl Vacant {
    /// The lowest free place, which stays free.
    #[inline]
    pub(in crate::node) fn lowest(&self) -> Option<u32> {
        self.places.min()
    }

    /// `place` is used from now on.
    pub(in crate::node) fn take(&mut self, place: u32) {
        self.places.remove(place);
    }

    /// `place` is free from now on.
    pub(in crate::node) fn give(&mut self, place: u32) {
        self.places.insert(place);
    }

    /// Whether the last place of a column of `len` is free.
    pub(in crate::node) fn has_last(&self, len: usize) -> bool {
        let last = self.places.max().map(|last| last as usize + 1);
        last == Some(len)
    }

    /// How long a column of `len` may be made, cutting off at most `steps` free places at its end.
    /// Those are no longer free then: they are not there.
    pub(in crate::node) fn cut_off(&mut self, len: usize, steps: usize) -> usize {
        let mut end = len;
        while end > 0 && len - end < steps {
            let Ok(last) = u32::try_from(end - 1) else { break };
            if self.places.max() != Some(last) {
                break;
            }
            self.places.remove(last);
            end -= 1;
        }
        end
    }

    /// Bytes that it takes, about: at most a bit or two bytes for each place.
    pub(in crate::node) fn bytes(&self) -> u64 {
        self.places.len() / 4
    }
}

/// Cuts `column` to `len` and gives memory back once most of it is unused.
pub(in crate::node) fn cut_column<T>(column: &mut Vec<T>, len: usize) {
    column.truncate(len);
    if column.capacity() > SHRINK_LEN_MIN.max(SHRINK_FACTOR * len) {
        column.shrink_to(2 * len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_used_first_and_the_end_is_cut_off() {
        let mut vacant = Vacant::default();
        for place in [3, 9, 7, 8, 5] {
            vacant.give(place);
        }
        assert_eq!(vacant.lowest(), Some(3));
        vacant.take(3);
        assert_eq!(vacant.lowest(), Some(5));
        assert_eq!(vacant.cut_off(10, 2), 8);
        assert_eq!(vacant.cut_off(8, 9), 7);
        assert_eq!((vacant.cut_off(7, 9), vacant.lowest()), (7, Some(5)));
        assert_eq!(vacant.cut_off(6, 9), 5);
    }

    #[test]
    fn a_column_gives_memory_back() {
        let mut column: Vec<u32> = vec![0; 100_000];
        cut_column(&mut column, 50_000);
        assert!(column.capacity() >= 100_000);
        cut_column(&mut column, 10_000);
        assert!(column.capacity() < 50_000);
    }
}
