//! Chunk entries -> chunks, with as few reads as their places allow: the columns of series in a row
//! lie in a row.

use std::ops::Range;

use super::format::BlockFault;
use super::reader::{BlockReader, BlockSource};
use super::series_page::ChunkEntry;
use crate::base::checksum::{crc32c, crc32c_append};
use crate::model::chunk::{Chunk, ChunkColumns};

/// Reads closer than this become one: a seek costs more than the bytes.
const GAP_BYTES: u64 = 32 << 10;
/// The longest single read.
const READ_BYTES_MAX: u64 = 2 << 20;

impl<S: BlockSource> BlockReader<'_, S> {
    /// Reads and checks the chunks of `entries`, in their order. Memory: their columns.
    pub async fn chunks(&self, entries: &[ChunkEntry]) -> Result<Vec<Chunk>, BlockFault> {
        let mut wanted: Vec<Range<u64>> = Vec::with_capacity(entries.len() * 2);
        for entry in entries {
            let times_end = entry.times_at + u64::from(entry.times_len);
            wanted.push(entry.times_at..times_end);
            wanted.push(entry.values_at..entry.values_at + u64::from(entry.values_len));
        }
        let mut columns = Vec::new();
        for range in plan(wanted) {
            let len = usize::try_from(range.end - range.start).expect("at most a column");
            let bytes = self.source.read(range.start, len).await?;
            columns.push((range.start, bytes));
            self.source.yield_if_needed().await;
        }
        let mut chunks = Vec::with_capacity(entries.len());
        for entry in entries {
            chunks.push(assemble(entry, &columns)?);
        }
        Ok(chunks)
    }
}

/// The reads that cover `wanted`, in order.
fn plan(mut wanted: Vec<Range<u64>>) -> Vec<Range<u64>> {
    wanted.retain(|range| !range.is_empty());
    wanted.sort_unstable_by_key(|range| range.start);
    let mut reads: Vec<Range<u64>> = Vec::new();
    for range in wanted {
        match reads.last_mut() {
            // What begins inside the read before must be whole in it or make it longer.
            Some(last)
                if range.start <= last.end + GAP_BYTES
                    && (range.end.max(last.end) - last.start <= READ_BYTES_MAX
                        || range.start < last.end) =>
            {
                last.end = last.end.max(range.end);
            }
            _ => reads.push(range),
        }
    }
    reads
}

fn assemble(entry: &ChunkEntry, columns: &[(u64, Vec<u8>)]) -> Result<Chunk, BlockFault> {
    let find = |at: u64, len: u32| -> &[u8] {
        if len == 0 {
            return &[];
        }
        let read = columns.partition_point(|(start, _)| *start <= at) - 1;
        let (start, bytes) = &columns[read];
        let from = usize::try_from(at - start).expect("inside a read");
        &bytes[from..from + len as usize]
    };
    let timestamps = find(entry.times_at, entry.times_len);
    let values = find(entry.values_at, entry.values_len);
    if crc32c_append(crc32c(timestamps), values) != entry.crc {
        return Err(BlockFault::Corrupt { offset: entry.values_at });
    }
    let columns = ChunkColumns {
        count: entry.count,
        min_ms: entry.min_ms,
        max_ms: entry.max_ms,
        timestamp_codec: entry.timestamp_codec,
        value_codec: entry.value_codec,
        timestamps,
        values,
    };
    let malformed = |_| BlockFault::Malformed { offset: entry.values_at };
    Chunk::from_columns(&columns).map_err(malformed)
}
