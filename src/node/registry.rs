//! Which ids a head has given, page by page: a gateway that starts learns them so, instead of
//! sending labels again. A walk up the ids in slices, as a select is.
//!
//! A page is given out once everything is durable that was in the log when it was made: an id whose
//! frame is lost in a power cut is given to another series afterwards, and whoever had learned it
//! would write into that one. Acks wait for the same.
//! Ids only rise, and each is given once. So a page that ends where the next id will be is the end
//! for now, and who asks on from there hears of what came since. O(ids), in use or not: an id that
//! left costs a look at its page.

use super::head::{Head, Row};
use super::select::SelectBudget;
use crate::model::series::{SeriesHash, SeriesId};

/// A walk that is under way.
pub struct RegistryRun {
    next_id: u32,
    entries_max: usize,
    entries: Vec<(SeriesHash, SeriesId)>,
    /// Found all; the log's frame that must be durable first, and whether this is the end.
    found: Option<(u64, bool)>,
}

/// How far a log has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogProgress {
    /// Its newest frame.
    pub appended: u64,
    /// Up to this frame all is durable.
    pub durable: u64,
}

/// What it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrySlice {
    /// Series that are in memory, by ascending id.
    pub entries: Vec<(SeriesHash, SeriesId)>,
    /// Where to go on.
    pub next_position: u64,
    /// Whether nothing is there yet.
    pub is_end: bool,
}

impl RegistryRun {
    /// A walk from `position` that finds at most `entries_max` series, and always one that is
    /// there.
    pub fn new(position: u64, entries_max: u32) -> Self {
        let next_id = u32::try_from(position).unwrap_or(u32::MAX);
        let entries_max = entries_max.max(1) as usize;
        Self { next_id, entries_max, entries: Vec::new(), found: None }
    }

    /// Whether it waits for the log, and nothing else.
    pub fn waits_for_log(&self) -> bool {
        self.found.is_some()
    }

    /// Goes on for a while; the answer, once it is there.
    pub fn poll(
        &mut self,
        (head, log): (&Head, LogProgress),
        budget: SelectBudget,
    ) -> Option<RegistrySlice> {
        if self.found.is_none() {
            self.walk((head, log), budget);
        }
        let (sequence, is_end) = self.found?;
        (sequence <= log.durable).then(|| RegistrySlice {
            entries: std::mem::take(&mut self.entries),
            next_position: u64::from(self.next_id),
            is_end,
        })
    }

    fn walk(&mut self, (head, log): (&Head, LogProgress), budget: SelectBudget) {
        let end = head.next_id();
        let stop = end.min(self.next_id.saturating_add(budget.steps.max(1)));
        while self.next_id < stop && self.entries.len() < self.entries_max {
            let id = SeriesId(self.next_id);
            if head.row_of(id) != Row::NONE {
                self.entries.push((head.identity(id).1, id));
            }
            self.next_id += 1;
        }
        let is_end = self.next_id >= end;
        if is_end || self.entries.len() >= self.entries_max {
            self.found = Some((log.appended, is_end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::series::TenantId;
    use crate::node::head::{HeadLimits, OUT_OF_ORDER_WINDOW_MS};

    const BUDGET: SelectBudget = SelectBudget { steps: 7 };
    const SYNCED: LogProgress = LogProgress { appended: 5, durable: 5 };

    fn labels(number: u32) -> Vec<u8> {
        let value = format!("{number:04}");
        let mut bytes = vec![0x0a, 9, 0x0a, 1, b'n', 0x12, 4];
        bytes.extend_from_slice(value.as_bytes());
        bytes
    }

    fn head_with(ids: impl Iterator<Item = u32>) -> Head {
        let limits =
            HeadLimits { out_of_order_window_ms: OUT_OF_ORDER_WINDOW_MS, bytes_max: 1 << 30 };
        let mut head = Head::new(limits);
        for id in ids {
            add(&mut head, id);
        }
        head
    }

    fn add(head: &mut Head, id: u32) {
        let labels = labels(id);
        let hash = SeriesHash::of(TenantId(0), &labels);
        let given = head.register_as(SeriesId(id), (TenantId(0), hash), &labels);
        assert_eq!(given, Ok(SeriesId(id)));
    }

    fn walk(head: &Head, position: u64, entries_max: u32) -> RegistrySlice {
        let mut run = RegistryRun::new(position, entries_max);
        for _ in 0..10_000 {
            if let Some(slice) = run.poll((head, SYNCED), BUDGET) {
                return slice;
            }
        }
        panic!("a walk ends");
    }

    #[test]
    fn pages_name_every_series_once_and_then_what_came_since() {
        // Red if a page skips the id at its end, names ids that left, or says the end too early.
        let ids: Vec<u32> = (0..100).filter(|id| id % 3 != 1).collect();
        let mut head = head_with(ids.iter().copied());
        let mut found = Vec::new();
        let mut position = 0;
        loop {
            let slice = walk(&head, position, 10);
            assert!(slice.entries.len() <= 10);
            assert!(slice.next_position > position);
            for (hash, id) in &slice.entries {
                assert_eq!(*hash, SeriesHash::of(TenantId(0), &labels(id.0)));
            }
            found.extend(slice.entries.iter().map(|(_, id)| id.0));
            position = slice.next_position;
            if slice.is_end {
                break;
            }
        }
        assert_eq!(found, ids);
        let none = walk(&head, position, 10);
        assert_eq!(none, RegistrySlice { entries: vec![], next_position: position, is_end: true });
        add(&mut head, 200);
        let since = walk(&head, position, 10);
        assert_eq!((since.entries[0].1, since.is_end), (SeriesId(200), true));
    }

    #[test]
    fn an_id_is_named_when_its_frame_is_durable() {
        // Red if a page does not wait for what was in the log when it was made, or waits for what
        // came later.
        let head = head_with(0..3);
        let mut run = RegistryRun::new(0, 10);
        let mut poll = |appended, durable| {
            run.poll((&head, LogProgress { appended, durable }), BUDGET).map(|it| it.entries.len())
        };
        assert_eq!(poll(5, 3), None);
        assert_eq!(poll(7, 4), None);
        assert_eq!(poll(9, 5), Some(3));
    }

    #[test]
    fn any_position_may_be_asked_for() {
        // Red if a position beyond all ids wraps around or is an index.
        let head = head_with(0..3);
        let end = RegistrySlice { next_position: u64::from(u32::MAX), ..RegistrySlice::default() };
        assert_eq!(walk(&head, u64::MAX, 0), RegistrySlice { is_end: true, ..end });
        assert_eq!(walk(&head, 0, 0).entries.len(), 1);
    }
}
