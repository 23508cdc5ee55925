//! A received `Write` frame made ready for head and log: every series has a row, what is refused is
//! taken out.
//!
//! In: a checked view of the frame and the head. Out: columns of rows, and what to tell the sender.
//! A frame may name a series that has left the head, or one that never was: its samples are refused
//! as [`Refusal::UnknownSeries`], and the sender sends them again with the labels. The scratch
//! memory is used again; while no series ever left, a frame without new ones is not copied at all.

use crate::model::refusal::Refusal;
use crate::model::series::SeriesId;
use crate::node::head::{Head, Row};
use crate::wire::ack::RefusedSample;
use crate::wire::frame::FLAG_BACKFILL;
use crate::wire::write::{NEW_SERIES, WriteView};

/// Turns frames into columns of rows. One per node shard.
#[derive(Default)]
pub struct Receiver {
    /// Rows of the frame's new series, [`Row::NONE`] where refused.
    new_rows: Vec<u32>,
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
        if assigned.is_empty() && all_are_rows(frame.series, head) {
            append(head, frame.series, frame.timestamp_ms, frame.value, &mut self.refused);
        } else if self.resolve(frame, &assigned, head) {
            append(head, &self.series, frame.timestamp_ms, frame.value, &mut self.refused);
        } else {
            self.take_out(frame, &assigned);
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

    /// Looks up the row of every sample; whether all have one.
    fn resolve(
        &mut self,
        frame: &WriteView,
        assigned: &[Result<SeriesId, Refusal>],
        head: &Head,
    ) -> bool {
        self.new_rows.clear();
        let row_of = |id: &Result<SeriesId, Refusal>| id.map_or(Row::NONE, |id| head.row_of(id)).0;
        self.new_rows.extend(assigned.iter().map(row_of));
        self.series.clear();
        let mut greatest = 0;
        self.series.extend(frame.series.iter().map(|&entry| {
            let row = match entry & NEW_SERIES {
                0 => head.row_of(SeriesId(entry)).0,
                _ => self.new_rows[(entry & !NEW_SERIES) as usize],
            };
            greatest = greatest.max(row);
            row
        }));
        greatest != Row::NONE.0
    }

    /// The rare way: the head is full and some new series were refused, or a series is unknown, and
    /// their samples are refused with them.
    fn take_out(&mut self, frame: &WriteView, assigned: &[Result<SeriesId, Refusal>]) {
        self.timestamp_ms.clear();
        self.value.clear();
        self.frame_index.clear();
        for (index, &entry) in (0u32..).zip(frame.series) {
            let at = index as usize;
            if self.series[at] != Row::NONE.0 {
                self.series[self.frame_index.len()] = self.series[at];
                self.timestamp_ms.push(frame.timestamp_ms[at]);
                self.value.push(frame.value[at]);
                self.frame_index.push(index);
                continue;
            }
            let reason = match entry & NEW_SERIES {
                0 => Refusal::UnknownSeries,
                _ => {
                    assigned[(entry & !NEW_SERIES) as usize].err().unwrap_or(Refusal::UnknownSeries)
                }
            };
            self.refused.push(RefusedSample { index, reason });
        }
        self.series.truncate(self.frame_index.len());
    }
}

/// Whether all ids of a frame are rows of series that are there.
#[inline]
fn all_are_rows(series: &[u32], head: &Head) -> bool {
    // No branch in the loop: the compiler makes vectors of it.
    let greatest = series.iter().copied().max().unwrap_or(0);
    head.count_if_ids_are_rows().is_some_and(|count| greatest < count)
}

#[cfg(test)]
mod tests;
