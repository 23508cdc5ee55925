//! Hints: what a gateway keeps on its disk for owners that are down, and hands out again, in order,
//! once they are up.
//!
//! `record` and `segment` are the bytes, `log` decides for one node what is appended, written,
//! refused, handed out and removed, `replay` what of a segment was delivered; `logs` is all nodes.
//! `side` is a gateway shard's end of it, `command` what both say to each other.
//! In: parts and the time. Out: writes, loads and removals for a driver (`background/hints`), and
//! answers. Not here: files, threads, when a node is down or up (`owner`).
//!
//! # Invariants
//! - A hint is acknowledged when its write and the sync after it came back; never before.
//! - Nothing that was acknowledged goes but by being delivered to every gateway shard that owns
//!   some of it, or by an order to forget the node. At a limit new hints are refused.
//! - A segment needs no other one to be read: each label set is in it once.
//! - After a restart a log goes on in a new segment; nothing is appended behind a torn tail. A
//!   failed write or sync is not tried again: its segment takes nothing more.
//! - The next segment is read when the one before is delivered and gone. So a restart hands out one
//!   segment again at most, one segment per node is in memory, and the order holds.

pub mod command;
pub mod side;

pub mod log;
pub mod logs;
pub mod record;
pub mod replay;
pub mod segment;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use crate::gateway::part::Lateness;
use crate::gateway::request::{RequestBytes, SeriesBatch};
use crate::model::series::TenantId;

use record::Progress;

/// Samples for a node that is down: some series of a part. The same comes back when they are handed
/// out.
#[derive(Debug, Default)]
pub struct HintPart {
    /// Whose series.
    pub tenant: TenantId,
    /// Whether its samples are taken however late they are.
    pub lateness: Lateness,
    /// The columns.
    pub batch: SeriesBatch,
    /// What the label spans point into.
    pub bytes: Arc<RequestBytes>,
}

impl HintPart {
    /// Samples of `batch`, by their series and their places in its columns. No label is copied.
    pub fn of_samples(
        (tenant, lateness): (TenantId, Lateness),
        (batch, bytes): (&SeriesBatch, &Arc<RequestBytes>),
        pieces: &[(u32, Range<u32>)],
    ) -> Self {
        let mut chosen = SeriesBatch::default();
        for (index, samples) in pieces {
            let (index, samples) = (*index as usize, samples.start as usize..samples.end as usize);
            chosen.timestamp_ms.extend_from_slice(&batch.timestamp_ms[samples.clone()]);
            chosen.value.extend_from_slice(&batch.value[samples]);
            chosen.push_series(batch.hash[index], batch.labels[index]);
        }
        Self { tenant, lateness, batch: chosen, bytes: Arc::clone(bytes) }
    }

    /// Samples in it.
    pub fn sample_count(&self) -> u64 {
        self.batch.value.len() as u64
    }

    /// The samples of the series at `index`.
    pub fn samples_of(&self, index: usize) -> Range<usize> {
        let samples = self.batch.samples_of(index);
        samples.start as usize..samples.end as usize
    }

    /// Samples from `from` on, before `to`.
    fn samples_between(&self, from: Progress, to: Progress) -> u64 {
        (to.sample_index(&self.batch) - from.sample_index(&self.batch)) as u64
    }

    /// Bytes of its columns and labels, as records would have them if all series were new.
    fn encoded_bytes_max(&self) -> u64 {
        let labels = self.batch.labels.iter().map(|span| self.bytes.labels(*span).len() as u64);
        let columns = self.batch.len() * record::SERIES_BYTES_MAX
            + self.batch.value.len() * record::SAMPLE_BYTES;
        columns as u64 + labels.sum::<u64>()
    }

    /// The longest label set in it.
    fn labels_bytes_max(&self) -> usize {
        let labels = self.batch.labels.iter().map(|span| self.bytes.labels(*span).len());
        labels.max().unwrap_or(0)
    }
}
