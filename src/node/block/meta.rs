//! What a block is, as its file says and as the node remembers it.
//!
//! ```text
//! | id u64 | node u128 | min i64 | max i64 | level u32 | oldest flush u64 | newest flush u64
//! | tombstones applied u64 | series u64 | chunks u64 | samples u64 | sources v | u64 each |
//! ```

use super::format::Walk;
use crate::base::varint::write_varint;

/// A block, without its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// Node-wide, rising, never used again: the file's name.
    pub id: u64,
    /// The node that made it; a file of another node is foreign.
    pub node: u128,
    /// The oldest sample, Unix milliseconds.
    pub min_ms: i64,
    /// The newest sample.
    pub max_ms: i64,
    /// 0: flushed from a head. Else one more than the highest of those that it was merged from.
    pub level: u32,
    /// The ids of the oldest and the newest flushed block whose samples are in it: of two blocks
    /// that overlap in time, the one with the higher `newest_flush` wins at equal timestamps. A
    /// merge takes no block whose flushes lie between those of another that it leaves out and that
    /// overlaps in time, so the order is never ambiguous.
    pub oldest_flush: u64,
    /// See `oldest_flush`.
    pub newest_flush: u64,
    /// Tombstones up to this id have been applied: no sample that they delete is in the block,
    /// unless it was written after them.
    pub tombstones_applied: u64,
    /// Series in it.
    pub series: u64,
    /// Chunks in it.
    pub chunks: u64,
    /// Samples in it.
    pub samples: u64,
    /// The blocks that it replaces: they are deleted once it is listed.
    pub sources: Vec<u64>,
}

impl BlockMeta {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.node.to_le_bytes());
        out.extend_from_slice(&self.min_ms.to_le_bytes());
        out.extend_from_slice(&self.max_ms.to_le_bytes());
        out.extend_from_slice(&self.level.to_le_bytes());
        for number in [
            self.oldest_flush,
            self.newest_flush,
            self.tombstones_applied,
            self.series,
            self.chunks,
            self.samples,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        write_varint(&mut out, self.sources.len() as u64);
        for source in &self.sources {
            out.extend_from_slice(&source.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut walk = Walk::new(bytes);
        let mut meta = Self {
            id: walk.u64()?,
            node: walk.u128()?,
            min_ms: walk.i64()?,
            max_ms: walk.i64()?,
            level: walk.u32()?,
            oldest_flush: walk.u64()?,
            newest_flush: walk.u64()?,
            tombstones_applied: walk.u64()?,
            series: walk.u64()?,
            chunks: walk.u64()?,
            samples: walk.u64()?,
            sources: Vec::new(),
        };
        for _ in 0..walk.varint()? {
            meta.sources.push(walk.u64()?);
        }
        (walk.is_done() && meta.min_ms <= meta.max_ms).then_some(meta)
    }

    /// Whether a sample of it may lie in the range, both ends inclusive.
    pub fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.min_ms <= end_ms && start_ms <= self.max_ms
    }
}
