//! Blocks: immutable files of series and chunks on a node's disk, below the heads of its shards.
//! Pure.
//!
//! head -> [`FlushSeries`] -> block of one aligned range -> merged blocks; `meta` says what a block
//! is and which of two overlapping ones wins, `tombstone` what was deleted from them.

pub mod check;
mod chunks;
mod directory;
pub mod format;
pub mod meta;
mod pair_page;
pub mod reader;
pub mod recode;
pub mod request;
mod select;
mod series_page;
pub mod survey;
pub mod tombstone;
pub mod writer;

#[cfg(test)]
mod tests;

use crate::model::chunk::Chunk;
use crate::model::series::TenantId;

pub use format::BlockFault;
pub use meta::BlockMeta;
pub use select::BlockSelectFault;
pub use tombstone::Tombstone;

/// The head is cut at multiples of this, Unix milliseconds: two hours. No chunk of a head spans two
/// ranges.
pub const BLOCK_RANGE_MS: i64 = 2 * 3600 * 1000;

/// The start of the range that `timestamp_ms` lies in.
#[inline]
pub fn range_start_ms(timestamp_ms: i64) -> i64 {
    timestamp_ms.div_euclid(BLOCK_RANGE_MS).saturating_mul(BLOCK_RANGE_MS)
}

/// A series and some of its chunks, on their way from a head to blocks. Chunks are in the order of
/// writing: at equal timestamps the later one wins. Each lies in one aligned range; the ranges of
/// different chunks may differ.
#[derive(Clone, Debug)]
pub struct FlushSeries {
    /// Whose.
    pub tenant: TenantId,
    /// Canonical label bytes.
    pub labels: Box<[u8]>,
    /// Shared with the head.
    pub chunks: Vec<Chunk>,
}
