//! A received `Write` frame made ready for head and log: every series has an id, refused ones are
//! taken out.
//!
//! In: a checked view of the frame and the head. Out: columns of known ids, and what to tell the
//! sender. The scratch memory is used again; a frame without new series is not copied at all.

use crate::model::refusal::Refusal;
use crate::model::series::SeriesId;
use crate::node::head::Head;
use crate::wire::ack::RefusedSample;
use crate::wire::frame::FLAG_BACKFILL;
use crate::wire::write::{NEW_SERIES, WriteView};

/// What the log stores in the place of an id when a new series was refused.
pub const REFUSED_SERIES: u32 = u32::MAX;

/// Turns frames into columns of ids. One per node shard.
#[derive(Default)]
pub struct Receiver {
    series: Vec<u32>,
    timestamp_ms: Vec<i64>,
    value: Vec<f64>,
    /// Index in the frame of each sample that is left, if some were taken out.
    frame_index: Vec<u32>,
    refused: Vec<RefusedSample>,
}

/// What a frame did to the head: the second half of a log record, and of the ack.
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    /// One per new series of the frame.
    pub assigned: Vec<Result<SeriesId, Refusal>>,
    /// Ascending by index in the frame.
    pub refused: Vec<RefusedSample>,
}

impl Receiver {
    /// Registers the new series of `frame` and appends its samples to `head`.
    /// `flags` are those of the frame's header.
    pub fn apply(&mut self, frame: &WriteView, flags: u16, head: &mut Head) -> Receipt {
        let append = if flags & FLAG_BACKFILL == 0 { Head::append } else { Head::backfill };
        let assigned: Vec<_> =
            frame.new_series().map(|new| head.register(new.tenant, new.hash, new.labels)).collect();
        self.refused.clear();
        if assigned.is_empty() {
            let known = head.series_count();
            assert!(frame.series.iter().all(|&id| id < known), "ids of this head");
            append(head, frame.series, frame.timestamp_ms, frame.value, &mut self.refused);
        } else if assigned.iter().all(Result::is_ok) {
            self.resolve_all(frame, &assigned);
            append(head, &self.series, frame.timestamp_ms, frame.value, &mut self.refused);
        } else {
            self.resolve_accepted(frame, &assigned);
            let (times, values) = (&self.timestamp_ms, &self.value);
            let mut refused = Vec::new();
            append(head, &self.series, times, values, &mut refused);
            for sample in &mut refused {
                sample.index = self.frame_index[sample.index as usize];
            }
            self.refused.append(&mut refused);
            self.refused.sort_unstable_by_key(|sample| sample.index);
        }
        Receipt { assigned, refused: self.refused.clone() }
    }

    fn resolve_all(&mut self, frame: &WriteView, assigned: &[Result<SeriesId, Refusal>]) {
        self.series.clear();
        self.series.extend(frame.series.iter().map(|&entry| {
            if entry & NEW_SERIES == 0 {
                return entry;
            }
            assigned[(entry & !NEW_SERIES) as usize].map_or(REFUSED_SERIES, |id| id.0)
        }));
    }

    /// The rare way: the head is full, some new series were refused, and their samples with them.
    fn resolve_accepted(&mut self, frame: &WriteView, assigned: &[Result<SeriesId, Refusal>]) {
        self.series.clear();
        self.timestamp_ms.clear();
        self.value.clear();
        self.frame_index.clear();
        for (index, &entry) in (0u32..).zip(frame.series) {
            let id = match entry & NEW_SERIES {
                0 => Ok(SeriesId(entry)),
                _ => assigned[(entry & !NEW_SERIES) as usize],
            };
            match id {
                Ok(id) => {
                    self.series.push(id.0);
                    self.timestamp_ms.push(frame.timestamp_ms[index as usize]);
                    self.value.push(frame.value[index as usize]);
                    self.frame_index.push(index);
                }
                Err(reason) => self.refused.push(RefusedSample { index, reason }),
            }
        }
    }
}

#[cfg(test)]
mod tests;
