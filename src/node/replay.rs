//! A node shard's head, rebuilt: snapshot pieces and log records in, a head out, and what did not
//! fit into it.
//!
//! Records name series by the ids of the process that wrote them. These come out the same again,
//! because registration is repeated in the same order, unless a record is missing; so each id is
//! looked up in what the records themselves say. What names a series whose registration is lost is
//! counted, never guessed. Pure; reading files is `background::replay`.

use crate::model::series::SeriesId;
use crate::node::head::Head;
use crate::node::log::Record;
use crate::wire::delete::Deletion;
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameKind, check_frame};
use crate::wire::write::{NEW_SERIES, WriteView};

/// Stands for an id that no record or piece gave to a series.
const UNKNOWN: u32 = u32::MAX;

/// A head under reconstruction.
pub struct HeadReplay {
    head: Head,
    /// Id in the log -> id in the head.
    ids: Vec<u32>,
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
            ids: Vec::new(),
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
        // In a snapshot the ids are dense and in order, so the log's are the head's.
        self.ids
            .extend(u32::try_from(self.ids.len()).expect("ids are u32")..self.head.series_count());
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
        let new_ids = self.register(&view, record);
        self.skip.clear();
        self.skip.extend(record.refused());
        self.skip.sort_unstable();
        self.series.clear();
        let mut unknown = 0;
        for (index, &entry) in (0u32..).zip(view.series) {
            let id = match entry & NEW_SERIES {
                0 => self.ids.get(entry as usize).copied().unwrap_or(UNKNOWN),
                _ => new_ids[(entry & !NEW_SERIES) as usize],
            };
            let is_refused = self.skip.binary_search(&index).is_ok();
            if id == UNKNOWN && !is_refused {
                unknown += 1;
            }
            self.series.push(id);
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

    /// Registers the record's new series again; returns their ids in the head.
    fn register(&mut self, view: &WriteView<'_>, record: &Record<'_>) -> Vec<u32> {
        let assigned = view.new_series().zip(record.assigned());
        assigned
            .map(|(new, log_id)| {
                let Some(SeriesId(log_id)) = log_id else { return UNKNOWN };
                match self.head.register_again(new.tenant, new.hash, new.labels) {
                    Ok(SeriesId(id)) => {
                        self.loss.moved_ids += u64::from(id != log_id);
                        remember(&mut self.ids, log_id, id);
                        id
                    }
                    Err(_) => UNKNOWN,
                }
            })
            .collect()
    }

    /// The rare way: some samples are of series that the head does not know, or were refused with
    /// their series.
    fn replay_known(&mut self, view: &WriteView<'_>) {
        for (index, &id) in (0u32..).zip(&self.series) {
            if id != UNKNOWN && self.skip.binary_search(&index).is_err() {
                let at = index as usize;
                self.head.replay(&[id], &view.timestamp_ms[at..=at], &view.value[at..=at], &[]);
            }
        }
    }
}

fn remember(ids: &mut Vec<u32>, log_id: u32, id: u32) {
    let at = log_id as usize;
    if at >= ids.len() {
        ids.resize(at + 1, UNKNOWN);
    }
    ids[at] = id;
}

#[cfg(test)]
mod tests;
