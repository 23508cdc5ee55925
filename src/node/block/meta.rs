//! What a block is, as its footer says and as the node remembers it.

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
