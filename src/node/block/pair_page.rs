//! A pair page's bytes -> its values, and where the series of each are written.
//!
//! Values share their beginning with the one before, but for every [`RESTART_PAIRS`]th, whose place
//! stands at the end of the page: one value is found without reading all those before it. The
//! layout stands in `format`.

use super::format::{PageRef, Walk};

/// Pairs from one that is written whole to the next.
pub(super) const RESTART_PAIRS: u32 = 16;
/// What the page says of each of those: where it lies, and where its postings do.
const RESTART_BYTES: usize = 8;

/// The series of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PairPostings {
    One(u32),
    Stored(PageRef),
}

/// A label pair of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PagePair<'a> {
    pub value: &'a [u8],
    /// Series that carry it.
    pub series: u32,
    pub postings: PairPostings,
}

/// The page's bytes contradict themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The bytes of a page of `count` pairs whose postings begin at `postings_at`.
#[derive(Clone, Copy)]
pub(super) struct PairPageView<'a> {
    entries: &'a [u8],
    restarts: &'a [u8],
    count: u32,
    postings_at: u64,
}

impl<'a> PairPageView<'a> {
    pub(super) fn new(bytes: &'a [u8], count: u32, postings_at: u64) -> Result<Self, Malformed> {
        let restarts_len = count.div_ceil(RESTART_PAIRS) as usize * RESTART_BYTES;
        let entries_len = bytes.len().checked_sub(restarts_len).ok_or(Malformed)?;
        let (entries, restarts) = bytes.split_at(entries_len);
        Ok(Self { entries, restarts, count, postings_at })
    }

    /// All pairs, in order.
    pub(super) fn walk(&self) -> PairWalk<'a> {
        PairWalk {
            walk: Walk::new(self.entries),
            value: Vec::new(),
            postings_at: self.postings_at,
            left: self.count,
        }
    }

    /// The pairs from the restart with this number on.
    pub(super) fn walk_from(&self, restart: u32) -> Result<PairWalk<'a>, Malformed> {
        let mut walk = Walk::new(self.restarts);
        let skipped = restart as usize * RESTART_BYTES;
        walk.bytes(skipped).ok_or(Malformed)?;
        let (at, postings) = walk.u32().zip(walk.u32()).ok_or(Malformed)?;
        let entries = self.entries.get(at as usize..).ok_or(Malformed)?;
        let postings_at = self.postings_at.checked_add(u64::from(postings)).ok_or(Malformed)?;
        let left = self.count - restart * RESTART_PAIRS;
        Ok(PairWalk { walk: Walk::new(entries), value: Vec::new(), postings_at, left })
    }

    /// Appends the value of the pair with this number; returns how many series have it.
    pub(super) fn copy_value(&self, index: u32, out: &mut Vec<u8>) -> Result<u32, Malformed> {
        if self.count <= index {
            return Err(Malformed);
        }
        let mut walk = self.walk_from(index / RESTART_PAIRS)?;
        for _ in 0..index % RESTART_PAIRS {
            walk.next()?;
        }
        let pair = walk.next()?.ok_or(Malformed)?;
        out.extend_from_slice(pair.value);
        Ok(pair.series)
    }

    /// The series of the pair with this value, if it is in the page.
    pub(super) fn find(&self, value: &[u8]) -> Result<Option<PairPostings>, Malformed> {
        let (mut low, mut high) = (0, self.count.div_ceil(RESTART_PAIRS));
        while high - low > 1 {
            let middle = low.midpoint(high);
            let mut walk = self.walk_from(middle)?;
            let first = walk.next()?.ok_or(Malformed)?;
            if first.value <= value { low = middle } else { high = middle }
        }
        if high == 0 {
            return Ok(None);
        }
        let mut walk = self.walk_from(low)?;
        for _ in 0..RESTART_PAIRS {
            let Some(pair) = walk.next()? else { break };
            if pair.value == value {
                return Ok(Some(pair.postings));
            }
        }
        Ok(None)
    }
}

/// Goes from pair to pair; what it gave out lasts until the next.
pub(super) struct PairWalk<'a> {
    walk: Walk<'a>,
    value: Vec<u8>,
    postings_at: u64,
    left: u32,
}

impl PairWalk<'_> {
    /// The next pair; `None` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<PagePair<'_>>, Malformed> {
        if self.left == 0 {
            return if self.walk.is_done() { Ok(None) } else { Err(Malformed) };
        }
        self.left -= 1;
        let (series, postings) = self.read().ok_or(Malformed)?;
        Ok(Some(PagePair { value: &self.value, series, postings }))
    }

    fn read(&mut self) -> Option<(u32, PairPostings)> {
        let walk = &mut self.walk;
        let shared = walk.len()?;
        if self.value.len() < shared {
            return None;
        }
        self.value.truncate(shared);
        self.value.extend_from_slice(walk.text()?);
        let series = walk.varint_u32()?;
        if series == 1 {
            return Some((series, PairPostings::One(walk.varint_u32()?)));
        }
        let len = walk.varint_u32()?;
        let page = PageRef { offset: self.postings_at, len, crc: walk.u32()? };
        self.postings_at = self.postings_at.checked_add(u64::from(len))?;
        Some((series, PairPostings::Stored(page)))
    }
}
