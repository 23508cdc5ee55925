//! A coarse, hierarchical timer wheel: six levels of 64 slots, 10 ms a tick, O(1) to set and to
//! cancel. Pure.
//!
//! In: deadlines and the time. Out: what fell due, in order of ticks. Never early; late by at most
//! one tick.
//!
//! ```text
//! level 0: 64 slots of 1 tick
//! level 1: 64 slots of 64 ticks
//! ...
//! level 5: 64 slots of 2^30 ticks
//! ```
//! A timer lies on the level of the highest 6-bit group in which its tick differs from the current
//! one, so a slot never wraps, and every slot in use lies ahead. When its time comes, a slot of a
//! level above 0 is dealt out again to the levels below. All of it spans 2^36 ticks: 21 years.

use crate::base::time::{Duration, Instant};

/// The wheel's resolution.
pub const TICK_MS: u64 = 10;

const LEVELS: usize = 6;
const SLOT_BITS: usize = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const TICK_MAX: u64 = (1 << (LEVELS * SLOT_BITS)) - 1;
const NONE: u32 = u32::MAX;

/// A timer that was set. Stale ids (fired, cancelled) are harmless: a generation tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

struct Entry<T> {
    tick: u64,
    generation: u32,
    previous: u32,
    next: u32,
    /// `level * SLOTS + slot`, to unlink without a search.
    list: usize,
    /// `None` while the entry is on the free list, which `next` links.
    payload: Option<T>,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

/// The wheel. `T` is what a timer stands for.
pub struct TimerWheel<T> {
    origin: Instant,
    /// Every tick up to and with this one has been fired.
    current: u64,
    entries: Vec<Entry<T>>,
    free: u32,
    lists: [List; LEVELS * SLOTS],
    /// One bit a slot: whether its list holds anything.
    occupied: [u64; LEVELS],
}

impl<T> TimerWheel<T> {
    /// An empty wheel whose first tick begins at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            current: 0,
            entries: Vec::new(),
            free: NONE,
            lists: [List { head: NONE, tail: NONE }; LEVELS * SLOTS],
            occupied: [0; LEVELS],
        }
    }

    /// Sets a timer; it fires at the first tick at or after `deadline`, and not before the next
    /// tick.
    pub fn set(&mut self, deadline: Instant, payload: T) -> TimerId {
        let nanos = deadline.saturating_duration_since(self.origin).as_nanos();
        let tick = u64::try_from(nanos.div_ceil(u128::from(TICK_MS) * 1_000_000));
        let tick = tick.unwrap_or(TICK_MAX).clamp(self.current + 1, TICK_MAX);
        let index = self.take_entry(tick, payload);
        self.link(index);
        TimerId { index, generation: self.entries[index as usize].generation }
    }

    /// Cancels a timer; gives back what it stood for, or `None` if it has fired or been cancelled
    /// before.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let entry = self.entries.get(id.index as usize)?;
        if entry.generation != id.generation || entry.payload.is_none() {
            return None;
        }
        self.unlink(id.index);
        self.release(id.index)
    }

    /// When [`TimerWheel::advance`] has something to do next: a timer, or only a slot to deal out.
    /// `None` if empty.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (_, tick) = self.next_slot()?;
        Some(self.origin + Duration::from_millis(tick * TICK_MS))
    }

    /// Hands every timer that fell due by `now` to `fire`, in order of ticks.
    pub fn advance(&mut self, now: Instant, mut fire: impl FnMut(T)) {
        let millis = now.saturating_duration_since(self.origin).as_millis();
        let target = u64::try_from(millis).unwrap_or(u64::MAX) / TICK_MS;
        while let Some((list, tick)) = self.next_slot() {
            if tick > target {
                break;
            }
            self.current = tick;
            let mut index = self.lists[list].head;
            self.lists[list] = List { head: NONE, tail: NONE };
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            while index != NONE {
                let entry = &self.entries[index as usize];
                let next = entry.next;
                if entry.tick <= self.current {
                    if let Some(payload) = self.release(index) {
                        fire(payload);
                    }
                } else {
                    self.link(index);
                }
                index = next;
            }
        }
        self.current = self.current.max(target.min(TICK_MAX - 1));
    }

    /// The first list in use and the tick at which its time comes. Lower levels lie wholly before
    /// higher ones.
    fn next_slot(&self) -> Option<(usize, u64)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = level * SLOT_BITS;
        let prefix = self.current >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        Some((level * SLOTS + slot, prefix | (slot as u64) << shift))
    }

    fn take_entry(&mut self, tick: u64, payload: T) -> u32 {
        if self.free == NONE {
            let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 timers");
            let entry = Entry {
                tick,
                generation: 0,
                previous: NONE,
                next: NONE,
                list: 0,
                payload: Some(payload),
            };
            self.entries.push(entry);
            return index;
        }
        let index = self.free;
        let entry = &mut self.entries[index as usize];
        self.free = entry.next;
        entry.tick = tick;
        entry.payload = Some(payload);
        index
    }

    /// Puts an unlinked entry on the free list; its id is stale from now on.
    fn release(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = self.free;
        self.free = index;
        entry.payload.take()
    }

    fn link(&mut self, index: u32) {
        let tick = self.entries[index as usize].tick;
        assert!(tick > self.current, "a timer in the past would wait for the wheel to wrap");
        let level = (63 - (tick ^ self.current).leading_zeros() as usize) / SLOT_BITS;
        #[expect(clippy::cast_possible_truncation, reason = "six bits")]
        let slot = (tick >> (level * SLOT_BITS) & (SLOTS as u64 - 1)) as usize;
        let list = level * SLOTS + slot;
        let tail = self.lists[list].tail;
        let entry = &mut self.entries[index as usize];
        entry.list = list;
        entry.previous = tail;
        entry.next = NONE;
        if tail == NONE {
            self.lists[list].head = index;
        } else {
            self.entries[tail as usize].next = index;
        }
        self.lists[list].tail = index;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { previous, next, list, .. } = self.entries[index as usize];
        if previous == NONE {
            self.lists[list].head = next;
        } else {
            self.entries[previous as usize].next = next;
        }
        if next == NONE {
            self.lists[list].tail = previous;
        } else {
            self.entries[next as usize].previous = previous;
        }
        if self.lists[list].head == NONE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut TimerWheel<u64>, now: Instant) -> Vec<u64> {
        let mut fired = Vec::new();
        wheel.advance(now, |payload| fired.push(payload));
        fired
    }

    #[test]
    fn never_early_and_at_most_a_tick_late_at_every_distance() {
        let origin = crate::base::time::monotonic_now();
        for distance_ms in (0..100u64).chain((0..35).map(|bit| (1 << bit) + 7)) {
            for lead_ms in [0, 5, 639, 640, 40_961, 1 << 33] {
                let mut wheel = TimerWheel::new(origin);
                let start = origin + Duration::from_millis(lead_ms);
                wheel.advance(start, |()| {});
                let deadline = start + Duration::from_millis(distance_ms);
                wheel.set(deadline, ());
                let mut now = start;
                let mut count = 0;
                while count == 0 {
                    now = wheel.next_deadline().expect("it has not fired");
                    wheel.advance(now, |()| count += 1);
                }
                assert!(now >= deadline, "early: {distance_ms} after {lead_ms}");
                let late = now - deadline;
                assert!(late <= Duration::from_millis(TICK_MS), "{late:?} late: {distance_ms}");
                assert!(wheel.next_deadline().is_none());
            }
        }
    }

    #[test]
    fn agrees_with_a_sorted_list_under_random_use() {
        let origin = crate::base::time::monotonic_now();
        let mut wheel = TimerWheel::new(origin);
        let mut model: Vec<(u64, u64, TimerId)> = Vec::new(); // (tick, payload, id)
        let mut seed = 7u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut now_tick = 0;
        let mut over: Vec<TimerId> = Vec::new();
        for payload in 0..20_000 {
            let spread = [3, 70, 5_000, 300_000][usize::try_from(random(4)).expect("small")];
            let tick = now_tick + 1 + random(spread);
            let id = wheel.set(origin + Duration::from_millis(tick * TICK_MS), payload);
            model.push((tick, payload, id));
            // Red when an id that fired cancels the timer in its place.
            assert!(over.drain(..).all(|id| wheel.cancel(id).is_none()));
            if random(3) == 0 {
                let victim = usize::try_from(random(model.len() as u64)).expect("small");
                let (_, payload, id) = model.swap_remove(victim);
                assert_eq!(wheel.cancel(id), Some(payload));
                assert_eq!(wheel.cancel(id), None);
            }
            if random(4) == 0 {
                now_tick += random(40);
                let got = fired(&mut wheel, origin + Duration::from_millis(now_tick * TICK_MS));
                let mut want: Vec<_> = model.extract_if(.., |timer| timer.0 <= now_tick).collect();
                want.sort_unstable_by_key(|timer| (timer.0, timer.1));
                let ticks: Vec<u64> = got
                    .iter()
                    .map(|payload| {
                        want.iter().find(|timer| timer.1 == *payload).expect("not due").0
                    })
                    .collect();
                assert_eq!(got.len(), want.len());
                assert!(ticks.is_sorted());
                over.extend(want.iter().map(|timer| timer.2));
            }
            let is_any_set = wheel.next_deadline().is_some();
            assert_eq!(is_any_set, !model.is_empty());
        }
    }
}
