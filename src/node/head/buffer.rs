//! The raw points of one series that are not sealed yet: an ordered run in a slot that grows up to
//! 64 points.

use super::points::{Points, SLOT_POINTS_MAX, SLOT_POINTS_MIN};
use crate::model::chunk::Chunk;
use crate::model::sample::Sample;
use crate::node::block::{BLOCK_RANGE_MS, range_start_ms};

/// A run of points in strictly ascending time order. The slot is there while `capacity` is not 0.
#[derive(Clone, Copy, Default)]
pub(super) struct Buffer {
    pub(super) line: u32,
    pub(super) len: u8,
    pub(super) capacity: u8,
}

/// What became of a sample put into its place in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Added,
    /// One with the same timestamp was there and is overwritten.
    Replaced,
    /// It would be the 65th. Nothing changed.
    Full,
}

impl Buffer {
    /// The points, oldest first.
    #[inline]
    pub(super) fn points(self, points: &Points) -> &[Sample] {
        if self.capacity == 0 { &[] } else { points.slot(self.line, self.len) }
    }

    /// Puts `sample` where its timestamp belongs.
    pub(super) fn put(&mut self, points: &mut Points, sample: Sample) -> Put {
        let own = self.points(points);
        let place = own.binary_search_by_key(&sample.timestamp_ms, |point| point.timestamp_ms);
        let index = match place {
            Ok(index) => {
                points.slot_mut(self.line, self.len)[index] = sample;
                return Put::Replaced;
            }
            Err(index) => index,
        };
        if self.len == SLOT_POINTS_MAX {
            return Put::Full;
        }
        if self.len == self.capacity {
            self.grow(points, self.len + 1);
        }
        self.len += 1;
        let own = points.slot_mut(self.line, self.len);
        own.copy_within(index..own.len() - 1, index + 1);
        own[index] = sample;
        Put::Added
    }

    /// Moves into a slot of at least `wanted` points (at most 64).
    pub(super) fn grow(&mut self, points: &mut Points, wanted: u8) {
        let capacity = wanted.max(SLOT_POINTS_MIN).next_power_of_two();
        assert!(capacity <= SLOT_POINTS_MAX);
        if capacity <= self.capacity {
            return;
        }
        let line = points.allocate(capacity);
        if self.capacity > 0 {
            // Through the stack: the two slots may lie in one page, and at most 32 points move.
            let mut moved = [Sample { timestamp_ms: 0, value: 0.0 }; SLOT_POINTS_MAX as usize];
            let moved = &mut moved[..self.len as usize];
            moved.copy_from_slice(points.slot(self.line, self.len));
            points.slot_mut(line, self.len).copy_from_slice(moved);
            points.release(self.line, self.capacity);
        }
        self.line = line;
        self.capacity = capacity;
    }

    /// Seals the first `count` points (at least one); the rest stays. One chunk for each aligned
    /// range that they lie in: nearly always one.
    pub(super) fn seal(&mut self, points: &mut Points, count: u8, mut out: impl FnMut(Chunk)) {
        let mut timestamp_ms = [0; SLOT_POINTS_MAX as usize];
        let mut value = [0.0; SLOT_POINTS_MAX as usize];
        let own = points.slot_mut(self.line, self.len);
        for (index, point) in own[..count as usize].iter().enumerate() {
            timestamp_ms[index] = point.timestamp_ms;
            value[index] = point.value;
        }
        own.copy_within(count as usize.., 0);
        self.len -= count;
        if self.len == 0 {
            self.release(points);
        }
        let (mut timestamp_ms, mut value) =
            (&timestamp_ms[..count as usize], &value[..count as usize]);
        while let Some(first_ms) = timestamp_ms.first() {
            let end_ms = range_start_ms(*first_ms).saturating_add(BLOCK_RANGE_MS);
            let is_whole = timestamp_ms[timestamp_ms.len() - 1] < end_ms;
            let len = if is_whole {
                timestamp_ms.len()
            } else {
                // At least the first: the last range has no end above it.
                timestamp_ms.partition_point(|ms| *ms < end_ms).max(1)
            };
            out(Chunk::encode(&timestamp_ms[..len], &value[..len]));
            (timestamp_ms, value) = (&timestamp_ms[len..], &value[len..]);
        }
    }

    /// Drops all points and gives the slot back.
    pub(super) fn release(&mut self, points: &mut Points) {
        if self.capacity > 0 {
            points.release(self.line, self.capacity);
        }
        *self = Self::default();
    }
}
