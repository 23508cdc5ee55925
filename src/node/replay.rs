//! A node shard's head, rebuilt: snapshot pieces and log records in, a head out, and what did not
//! fit into it.
//!
//! Records name series by the ids that the process gave which wrote them: the snapshot says those
//! of its series, a record those of its new ones, and the head takes them over. So ids mean the
//! same from one process to the next, and none is given again. What names a series whose
//! registration is lost is counted, never guessed. Pure; reading files is `background::replay`.
//!
//! That a series left is not in the log. A series that had left when the snapshot's position was
//! taken is named by no record behind it. One that left later is still here after replay, and
//! leaves again; what it holds is in blocks too, and the same. If it came back in between, a record
//! registers its labels under a new id: from there on that is its id. Rejected: a record of what
//! left, which replay would believe even if the block that held its samples was lost since.

use crate::model::series::SeriesId;
use crate::node::head::{Head, Row};
use crate::node::log::Record;
use crate::wire::delete::Deletion;
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameKind, check_frame};
use crate::wire::write::{NEW_SERIES, WriteView};
use hashbrown::HashMap;

/// Stands for an id that no record or piece gave to a series.
const UNKNOWN: u32 = Row::NONE.0;

/// A head under reconstruction.
pub struct HeadReplay {
    head: Head,
    /// Id in the log -> id in the head, where they differ: nowhere, unless a log says two things.
    moved: HashMap<u32, SeriesId>,
    series: Vec<u32>,
    skip: Vec<u32>,
    loss: ReplayLoss,
}

/// What replay could not apply. All zero after a clean stop, and after a crash that lost nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayLoss {
    /// Pieces of the snapshot that the head refused.
    pub pieces: u64,
    /// Records whose frame is not a frame; their checksum held, so our own mistake wrote them.
    pub frames: u64,
    /// Samples of series whose registration is missing.
    pub samples_of_unknown_series: u64,
    /// Series that have another id than before: the log must not be continued under the old ones.
    pub moved_ids: u64,
}

impl ReplayLoss {
    /// Whether a later replay could read the log differently, so that it must be replaced by a
    /// snapshot now.
    pub fn must_rebuild(&self) -> bool {
        *self != Self::default()
    }
}

impl HeadReplay {
    /// Replays into `head`, which is empty.
    pub fn new(head: Head) -> Self {
        Self {
            head,
            moved: HashMap::new(),
            series: Vec::new(),
            skip: Vec::new(),
            loss: ReplayLoss::default(),
        }
    }

    /// A piece of the snapshot; pieces come in order and before all records.
    pub fn handle_piece(&mut self, piece: &[u8]) {
        if self.head.load_piece(piece).is_err() {
            self.loss.pieces += 1;
        }
    }

    /// A record of the log, in order.
    pub fn handle_record(&mut self, record: &Record<'_>) {
        let frame = record.frame();
        let header = check_frame(frame);
        if header.is_ok_and(|header| header.kind == FrameKind::Delete) {
            match Deletion::decode(&frame[FRAME_HEADER_BYTES..]) {
                Ok(deletion) => self.head.delete(&deletion),
                Err(_) => self.loss.frames += 1,
            }
            return;
        }
        let view = match header.and_then(|_| WriteView::check(&frame[FRAME_HEADER_BYTES..])) {
            Ok(view) if view.new_series_count() == record.assigned().len() => view,
            _ => {
                self.loss.frames += 1;
                return;
            }
        };
        let new_rows = self.register(&view, record);
        self.skip.clear();
        self.skip.extend(record.refused());
        self.skip.sort_unstable();
        self.series.clear();
        let mut unknown = 0;
        for (index, &entry) in (0u32..).zip(view.series) {
            let row = match entry & NEW_SERIES {
                0 => self.row_of(entry),
                _ => new_rows[(entry & !NEW_SERIES) as usize],
            };
            if row == UNKNOWN && self.skip.binary_search(&index).is_err() {
                unknown += 1;
            }
            self.series.push(row);
        }
        self.loss.samples_of_unknown_series += unknown;
        if self.series.contains(&UNKNOWN) {
            self.replay_known(&view);
        } else {
            self.head.replay(&self.series, view.timestamp_ms, view.value, &self.skip);
        }
    }

    /// The head, and what is missing from it.
    pub fn finish(self) -> (Head, ReplayLoss) {
        (self.head, self.loss)
    }

    fn row_of(&self, log_id: u32) -> u32 {
        let id = if self.moved.is_empty() { None } else { self.moved.get(&log_id) };
        self.head.row_of(id.copied().unwrap_or(SeriesId(log_id))).0
    }

    /// Registers the record's new series again; returns their rows in the head.
    fn register(&mut self, view: &WriteView<'_>, record: &Record<'_>) -> Vec<u32> {
        let assigned = view.new_series().zip(record.assigned());
        assigned
            .map(|(new, log_id)| {
                let Some(log_id) = log_id else { return UNKNOWN };
                let identity = (new.tenant, new.hash);
                let Ok(id) = self.head.register_as(log_id, identity, new.labels) else {
                    return UNKNOWN;
                };
                if id == log_id {
                    self.moved.remove(&log_id.0);
                } else {
                    self.loss.moved_ids += 1;
                    self.moved.insert(log_id.0, id);
                }
                self.head.row_of(id).0
            })
            .collect()
    }

    /// The rare way: some samples are of series that the head does not know, or were refused with
    /// their series.
    fn replay_known(&mut self, view: &WriteView<'_>) {
        for (index, &row) in (0u32..).zip(&self.series) {
            if row != UNKNOWN && self.skip.binary_search(&index).is_err() {
                let at = index as usize;
                self.head.replay(&[row], &view.timestamp_ms[at..=at], &view.value[at..=at], &[]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
