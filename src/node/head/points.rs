//! The memory of raw points: slots of 4, 8, 16, 32 or 64 points, cut out of blocks by a buddy
//! scheme. No `malloc` on growth.
//!
//! A line is 4 points, 64 bytes, aligned to a cache line; a block is 16 lines with a mask of the
//! free ones. A freed slot joins its free neighbours again, so that memory that held small slots
//! serves large ones: when a million series grow in step, nothing is stranded. A page without a
//! slot is given back, but for one. Cost: about 10 ns for an allocation or a release.

use crate::model::sample::Sample;

/// Points of the largest slot.
pub(super) const SLOT_POINTS_MAX: u8 = 64;
/// Points of the smallest slot.
pub(super) const SLOT_POINTS_MIN: u8 = 4;

const LINE_POINTS: usize = 4;
const LINE_BYTES: usize = 64;
const BLOCK_LINES: u32 = 16;
const PAGE_BLOCKS: u32 = 256;
const PAGE_LINES: u32 = PAGE_BLOCKS * BLOCK_LINES;
const PAGE_BYTES: u64 = PAGE_LINES as u64 * LINE_BYTES as u64;
const CLASS_COUNT: usize = 5;
const NONE: u32 = u32::MAX;
const IN_NO_LIST: u8 = 0;

const _: () = assert!(size_of::<Sample>() * LINE_POINTS == LINE_BYTES);
const _: () = assert!(SLOT_POINTS_MIN as usize == LINE_POINTS);
const _: () = assert!(SLOT_POINTS_MAX as usize == LINE_POINTS << (CLASS_COUNT - 1));

/// All slots of one head.
pub(super) struct Points {
    pages: Vec<Page>,
    blocks: Vec<Block>,
    /// First block whose largest free slot is of this class.
    free: [u32; CLASS_COUNT],
    lines_used: u64,
    /// Numbers of pages that were given back.
    gone: Vec<u32>,
    /// Pages that are there and have no slot.
    empty_pages: u32,
}

struct Page {
    /// Empty once it was given back.
    points: Box<[Sample]>,
    /// Points in front of the first cache line boundary.
    skip: usize,
    lines_used: u32,
}

#[derive(Clone, Copy)]
struct Block {
    /// One bit per free line.
    mask: u16,
    /// Which list it is in: the class of its largest free slot plus one, or [`IN_NO_LIST`].
    list: u8,
    previous: u32,
    next: u32,
}

/// The class of a slot of `points` points: 0 for 4, up to 4 for 64.
fn class_of(points: u8) -> usize {
    debug_assert!(points.is_power_of_two() && points >= SLOT_POINTS_MIN);
    points.trailing_zeros() as usize - 2
}

/// Bit `i` is set where an aligned slot of `class`, all free, begins at line `i`.
fn free_slots(mask: u16, class: usize) -> u16 {
    let pairs = mask & mask >> 1 & 0x5555;
    let fours = pairs & pairs >> 2 & 0x1111;
    let eights = fours & fours >> 4 & 0x0101;
    [mask, pairs, fours, eights, eights & eights >> 8 & 1][class]
}

/// The class of the largest free slot plus one, or [`IN_NO_LIST`].
#[inline]
fn list_of(mask: u16) -> u8 {
    let pairs = mask & mask >> 1 & 0x5555;
    let fours = pairs & pairs >> 2 & 0x1111;
    let eights = fours & fours >> 4 & 0x0101;
    // A larger slot is made of smaller ones, so that the classes with a free slot are the first
    // ones.
    let classes = [mask, pairs, fours, eights].map(|slots| u8::from(slots != 0));
    classes.iter().sum::<u8>() + u8::from(mask == u16::MAX)
}

/// The bits of the lines of a slot at `line_in_block`.
fn slot_mask(line_in_block: u32, class: usize) -> u16 {
    let lines = 1 << class;
    (u16::MAX >> (16 - lines)) << line_in_block
}

impl Points {
    pub(super) fn new() -> Self {
        Self {
            pages: Vec::new(),
            blocks: Vec::new(),
            free: [NONE; CLASS_COUNT],
            lines_used: 0,
            gone: Vec::new(),
            empty_pages: 0,
        }
    }

    /// A slot of `points` points; returns its first line. What it holds is unspecified.
    pub(super) fn allocate(&mut self, points: u8) -> u32 {
        let class = class_of(points);
        let Some(found) = (class..CLASS_COUNT).find(|each| self.free[*each] != NONE) else {
            self.add_page();
            return self.allocate(points);
        };
        let block = self.free[found];
        let mask = self.blocks[block as usize].mask;
        let line = free_slots(mask, class).trailing_zeros();
        self.set_mask(block, mask & !slot_mask(line, class));
        self.lines_used += 1 << class;
        let page = &mut self.pages[(block / PAGE_BLOCKS) as usize];
        self.empty_pages -= u32::from(page.lines_used == 0);
        page.lines_used += 1 << class;
        block * BLOCK_LINES + line
    }

    /// Gives back a slot of `points` points at `line`.
    pub(super) fn release(&mut self, line: u32, points: u8) {
        let class = class_of(points);
        let block = line / BLOCK_LINES;
        let mask = self.blocks[block as usize].mask;
        let freed = slot_mask(line % BLOCK_LINES, class);
        assert!(mask & freed == 0, "released twice");
        self.set_mask(block, mask | freed);
        self.lines_used -= 1 << class;
        let page = &mut self.pages[(block / PAGE_BLOCKS) as usize];
        page.lines_used -= 1 << class;
        if page.lines_used > 0 {
            return;
        }
        if self.empty_pages == 0 {
            // Kept, or a slot that comes and goes alone would make a page each time.
            self.empty_pages = 1;
        } else {
            self.give_back(block / PAGE_BLOCKS);
        }
    }

    /// Takes all blocks of a page without a slot out of their lists, and frees its memory.
    fn give_back(&mut self, page: u32) {
        for block in page * PAGE_BLOCKS..(page + 1) * PAGE_BLOCKS {
            self.set_mask(block, 0);
        }
        self.pages[page as usize].points = Box::default();
        self.gone.push(page);
    }

    /// The `count` points of the slot that begins at `line`.
    #[inline]
    pub(super) fn slot(&self, line: u32, count: u8) -> &[Sample] {
        let page = &self.pages[(line / PAGE_LINES) as usize];
        let start = page.skip + (line % PAGE_LINES) as usize * LINE_POINTS;
        &page.points[start..start + count as usize]
    }

    /// As [`Points::slot`], to be written.
    #[inline]
    pub(super) fn slot_mut(&mut self, line: u32, count: u8) -> &mut [Sample] {
        let page = &mut self.pages[(line / PAGE_LINES) as usize];
        let start = page.skip + (line % PAGE_LINES) as usize * LINE_POINTS;
        &mut page.points[start..start + count as usize]
    }

    /// One point, for reading ahead.
    #[inline]
    pub(super) fn point(&self, line: u32, index: u8) -> Sample {
        let page = &self.pages[(line / PAGE_LINES) as usize];
        page.points[page.skip + (line % PAGE_LINES) as usize * LINE_POINTS + index as usize]
    }

    /// Bytes taken from the system.
    pub(super) fn bytes(&self) -> u64 {
        let pages = (self.pages.len() - self.gone.len()) as u64;
        pages * PAGE_BYTES + (self.blocks.capacity() * size_of::<Block>()) as u64
    }

    /// Bytes in slots.
    pub(super) fn bytes_used(&self) -> u64 {
        self.lines_used * LINE_BYTES as u64
    }

    /// Bytes of free slots.
    pub(super) fn bytes_free(&self) -> u64 {
        (self.pages.len() - self.gone.len()) as u64 * PAGE_BYTES - self.bytes_used()
    }

    fn add_page(&mut self) {
        let point = Sample { timestamp_ms: 0, value: 0.0 };
        let count = PAGE_LINES as usize * LINE_POINTS + LINE_POINTS;
        let points = vec![point; count].into_boxed_slice();
        let past = points.as_ptr().addr() % LINE_BYTES;
        let skip = (LINE_BYTES - past) % LINE_BYTES / size_of::<Sample>();
        let page = Page { points, skip, lines_used: 0 };
        let first = if let Some(number) = self.gone.pop() {
            self.pages[number as usize] = page;
            number * PAGE_BLOCKS
        } else {
            let first = u32::try_from(self.blocks.len()).expect("2^32 blocks are 4 TiB");
            let block = Block { mask: 0, list: IN_NO_LIST, previous: NONE, next: NONE };
            self.pages.push(page);
            self.blocks.resize(self.blocks.len() + PAGE_BLOCKS as usize, block);
            first
        };
        self.empty_pages += 1;
        for block in first..first + PAGE_BLOCKS {
            self.set_mask(block, u16::MAX);
        }
    }

    /// Changes a block's mask and moves it to the list of its largest free class.
    #[inline]
    fn set_mask(&mut self, block: u32, mask: u16) {
        let Block { list, previous, next, .. } = self.blocks[block as usize];
        let new_list = list_of(mask);
        self.blocks[block as usize].mask = mask;
        if list == new_list {
            return;
        }
        if list != IN_NO_LIST {
            match previous {
                NONE => self.free[list as usize - 1] = next,
                previous => self.blocks[previous as usize].next = next,
            }
            if next != NONE {
                self.blocks[next as usize].previous = previous;
            }
        }
        let mut next = NONE;
        if new_list != IN_NO_LIST {
            next = std::mem::replace(&mut self.free[new_list as usize - 1], block);
            if next != NONE {
                self.blocks[next as usize].previous = block;
            }
        }
        self.blocks[block as usize] = Block { mask, list: new_list, previous: NONE, next };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_never_overlap_and_join_again() {
        let mut points = Points::new();
        let mut held: Vec<(u32, u8)> = Vec::new();
        let mut random = 12345_u64;
        for round in 0..200_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
            let size = SLOT_POINTS_MIN << ((random >> 40) % 5);
            if (random >> 20) % 1000 < 505 || held.is_empty() {
                let line = points.allocate(size);
                let mark = Sample { timestamp_ms: i64::from(line), value: 0.0 };
                points.slot_mut(line, size).fill(mark);
                held.push((line, size));
            } else {
                let (line, size) = held.swap_remove((random >> 33) as usize % held.len());
                // Had another slot overlapped this one, its mark would be here.
                assert!(points.slot(line, size).iter().all(|p| p.timestamp_ms == i64::from(line)));
                points.release(line, size);
            }
        }
        for (line, size) in held {
            points.release(line, size);
        }
        assert_eq!(points.bytes_used(), 0);
        assert_eq!((points.empty_pages, points.gone.len() + 1), (1, points.pages.len()));
        let whole = points.blocks.iter().filter(|block| block.mask == u16::MAX);
        assert_eq!(whole.count(), PAGE_BLOCKS as usize, "the page that is left");
        let blocks = points.blocks.len();
        for _ in 0..blocks {
            points.allocate(SLOT_POINTS_MAX);
        }
        assert_eq!(points.blocks.len(), blocks, "all of it serves large slots");
        assert_eq!((points.bytes_free(), points.empty_pages, points.gone.len()), (0, 0, 0));
    }

    /// One slot that comes and goes must not cost a page each time, nor many pages stay for
    /// nothing.
    #[test]
    fn pages_without_slots_are_given_back() {
        let mut points = Points::new();
        let many = 10 * PAGE_BLOCKS;
        let lines: Vec<_> = (0..many).map(|_| points.allocate(SLOT_POINTS_MAX)).collect();
        assert_eq!((points.bytes_used(), points.bytes_free()), (10 * PAGE_BYTES, 0));
        for line in lines {
            points.release(line, SLOT_POINTS_MAX);
        }
        assert_eq!((points.bytes_used(), points.bytes_free()), (0, PAGE_BYTES));
        for _ in 0..10 {
            let line = points.allocate(SLOT_POINTS_MIN);
            assert_eq!(points.gone.len(), 9, "the one that was kept serves");
            points.release(line, SLOT_POINTS_MIN);
        }
    }
}
