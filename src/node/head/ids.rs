//! From the id of a series, which is given once and never again, to its row in the columns of the
//! head, which other series use before and after it.
//!
//! ```text
//! pages: id / 4096 ->  Gone   no id of the page has a row
//!                      Run    ids one behind the other in rows one behind the other
//!                      Few    sorted ids, at most 512, and their rows
//!                      Map    a row or NONE for each of the 4096
//! ```
//! Series that come one after the other get rows one after the other, so that a head that loses
//! none has nothing but runs, and 16 bytes for 4096 series. A page whose ids leave becomes a map (4
//! bytes an id), then few (6 bytes for each that is left), then costs its 16 bytes. Looking an id
//! up is a load of the page and at most one behind it, but for a page of few: nine steps in a
//! kilobyte.

/// No row.
pub(super) const NO_ROW: u32 = u32::MAX;

const PAGE_BITS: u32 = 12;
const PAGE_IDS: usize = 1 << PAGE_BITS;
/// More ids than this are not few.
const FEW_MAX: usize = 512;
/// A map with so many ids left becomes few; far enough below that a page does not change for ever.
const FEW_AGAIN: u32 = 256;

/// The directory.
#[derive(Default)]
pub(super) struct Ids {
    pages: Vec<Page>,
    boxed_bytes: u64,
    /// Ids with a row.
    count: u32,
    /// Something was removed, or an id came that is not its row: ids may differ from rows.
    is_mixed: bool,
}

enum Page {
    Gone,
    Run { low: u16, len: u16, row: u32 },
    Few(Box<Few>),
    Map(Box<Map>),
}

const _: () = assert!(size_of::<Page>() == 16);

#[derive(Default)]
struct Few {
    /// Ascending.
    low: Vec<u16>,
    row: Vec<u32>,
}

struct Map {
    count: u32,
    row: [u32; PAGE_IDS],
}

/// The page of an id, and its place there.
#[expect(clippy::cast_possible_truncation, reason = "twelve bits")]
fn split(id: u32) -> (usize, u16) {
    ((id >> PAGE_BITS) as usize, (id & (PAGE_IDS as u32 - 1)) as u16)
}

impl Ids {
    /// The row of `id`; [`NO_ROW`] if it has none.
    #[inline]
    pub(super) fn row(&self, id: u32) -> u32 {
        let (page, low) = split(id);
        match self.pages.get(page) {
            Some(Page::Run { low: first, len, row }) => {
                let index = low.wrapping_sub(*first);
                if index < *len { row + u32::from(index) } else { NO_ROW }
            }
            Some(Page::Map(map)) => map.row[low as usize],
            Some(Page::Few(few)) => match few.low.binary_search(&low) {
                Ok(index) => few.row[index],
                Err(_) => NO_ROW,
            },
            Some(Page::Gone) | None => NO_ROW,
        }
    }

    /// While every id is its row: how many there are, all ids below it.
    #[inline]
    pub(super) fn count_if_rows(&self) -> Option<u32> {
        (!self.is_mixed).then_some(self.count)
    }

    /// Gives `id`, which has none, a row.
    pub(super) fn insert(&mut self, id: u32, row: u32) {
        debug_assert!(self.row(id) == NO_ROW);
        self.is_mixed |= id != row || id != self.count;
        self.count += 1;
        let (page, low) = split(id);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || Page::Gone);
        }
        match &mut self.pages[page] {
            place @ Page::Gone => *place = Page::Run { low, len: 1, row },
            Page::Run { low: first, len, row: first_row }
                if low == *first + *len && row == *first_row + u32::from(*len) =>
            {
                *len += 1;
            }
            Page::Map(map) => {
                map.row[low as usize] = row;
                map.count += 1;
            }
            Page::Few(few) if few.low.len() < FEW_MAX => {
                let index = few.low.partition_point(|each| *each < low);
                few.low.insert(index, low);
                few.row.insert(index, row);
                self.boxed_bytes += FEW_ID_BYTES;
            }
            Page::Run { .. } | Page::Few(_) => {
                self.unpack(page);
                self.count -= 1;
                self.insert(id, row);
            }
        }
    }

    /// Takes the row of `id` away, if it has one.
    pub(super) fn remove(&mut self, id: u32) {
        if self.row(id) == NO_ROW {
            return;
        }
        self.is_mixed = true;
        let (page, low) = split(id);
        match &mut self.pages[page] {
            Page::Run { low: first, len, row } => {
                if low == *first {
                    (*first, *len, *row) = (*first + 1, *len - 1, *row + 1);
                } else if low == *first + *len - 1 {
                    *len -= 1;
                } else {
                    self.unpack(page);
                    return self.remove(id);
                }
                if *len == 0 {
                    self.pages[page] = Page::Gone;
                }
            }
            Page::Few(few) => {
                if let Ok(index) = few.low.binary_search(&low) {
                    few.low.remove(index);
                    few.row.remove(index);
                    self.boxed_bytes -= FEW_ID_BYTES;
                }
                if few.low.is_empty() {
                    self.pages[page] = Page::Gone;
                    self.boxed_bytes -= size_of::<Few>() as u64;
                } else if few.low.len() < few.low.capacity() / 2 {
                    few.low.shrink_to_fit();
                    few.row.shrink_to_fit();
                }
            }
            Page::Map(map) => {
                map.row[low as usize] = NO_ROW;
                map.count -= 1;
                if map.count <= FEW_AGAIN {
                    let entries = (0..).zip(map.row).filter(|(_, row)| *row != NO_ROW);
                    let (low, row) = entries.unzip();
                    self.boxed_bytes -= size_of::<Map>() as u64;
                    self.set_few(page, Few { low, row });
                }
            }
            Page::Gone => {}
        }
        self.count -= 1;
    }

    /// Makes a run to what lets ids come and go anywhere, and few to a map.
    fn unpack(&mut self, page: usize) {
        let (lows, rows): (Vec<u16>, Vec<u32>) = match &self.pages[page] {
            Page::Run { low, len, row } => {
                (0..*len).map(|index| (low + index, row + u32::from(index))).unzip()
            }
            Page::Few(few) => (few.low.clone(), few.row.clone()),
            Page::Gone | Page::Map(_) => return,
        };
        if let Page::Few(few) = &self.pages[page] {
            self.boxed_bytes -= few.low.len() as u64 * FEW_ID_BYTES + size_of::<Few>() as u64;
        } else if lows.len() < FEW_MAX {
            self.set_few(page, Few { low: lows, row: rows });
            return;
        }
        let mut map = Box::new(Map { count: 0, row: [NO_ROW; PAGE_IDS] });
        for (low, row) in lows.into_iter().zip(rows) {
            map.row[low as usize] = row;
            map.count += 1;
        }
        self.boxed_bytes += size_of::<Map>() as u64;
        self.pages[page] = Page::Map(map);
    }

    fn set_few(&mut self, page: usize, few: Few) {
        self.boxed_bytes += few.low.len() as u64 * FEW_ID_BYTES + size_of::<Few>() as u64;
        self.pages[page] = Page::Few(Box::new(few));
    }

    /// Bytes that the directory takes.
    pub(super) fn bytes(&self) -> u64 {
        (self.pages.capacity() * size_of::<Page>()) as u64 + self.boxed_bytes
    }
}

const FEW_ID_BYTES: u64 = 2 + 4;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers from a seeded generator")]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::base::random::Random;

    fn check(ids: &Ids, model: &HashMap<u32, u32>, id_max: u32) {
        for id in 0..id_max {
            assert_eq!(ids.row(id), model.get(&id).copied().unwrap_or(NO_ROW), "id={id}");
        }
        assert_eq!(ids.count as usize, model.len());
    }

    /// Red when a run forgets where it begins, a map which ids it has, or few their order.
    #[test]
    fn every_page_is_a_map_of_its_ids() {
        for seed in 0..20 {
            let mut random = Random(seed);
            let mut ids = Ids::default();
            let mut model = HashMap::new();
            let mut next = 0;
            for _ in 0..40 {
                let start = next;
                for _ in 0..random.below(900) {
                    // Now a run, now rows from anywhere.
                    let row = if seed % 2 == 0 { next } else { random.below(1 << 20) as u32 };
                    ids.insert(next, row);
                    model.insert(next, row);
                    next += 1 + u32::from(random.below(50) == 0);
                }
                let keep = random.below(3);
                for id in start..next {
                    if random.below(3) > keep {
                        ids.remove(id);
                        model.remove(&id);
                    }
                }
                if random.below(4) == 0 {
                    // As replay does: an id that left comes back.
                    let id = random.below(u64::from(next).max(1)) as u32;
                    model.entry(id).or_insert_with(|| {
                        ids.insert(id, 5);
                        5
                    });
                }
            }
            check(&ids, &model, next + 5000);
            let left: Vec<u32> = model.keys().copied().collect();
            for id in left {
                ids.remove(id);
            }
            assert!(ids.pages.iter().all(|page| matches!(page, Page::Gone)), "seed={seed}");
            assert_eq!(ids.boxed_bytes, 0, "seed={seed}");
        }
    }

    #[test]
    fn series_that_stay_cost_next_to_nothing() {
        let mut ids = Ids::default();
        (0..1_000_000).for_each(|id| ids.insert(id, id));
        assert_eq!(ids.count_if_rows(), Some(1_000_000));
        assert!(ids.bytes() < 10_000, "{}", ids.bytes());
        ids.remove(70);
        assert_eq!((ids.count_if_rows(), ids.row(70), ids.row(71)), (None, NO_ROW, 71));
    }

    #[test]
    fn one_id_left_of_each_page_costs_little() {
        let mut ids = Ids::default();
        (0..1 << 20).for_each(|id| ids.insert(id, id));
        (0..1 << 20).filter(|id| id % 4096 != 17).for_each(|id| ids.remove(id));
        assert!(ids.bytes() < 256 * 150, "{}", ids.bytes());
        assert!((0..256).all(|page| ids.row(page * 4096 + 17) == page * 4096 + 17));
    }
}
