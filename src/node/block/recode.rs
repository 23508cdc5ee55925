//! The chunks of one series from a head or from several blocks -> the chunks of a new block.
//!
//! In: chunks, in the order in which later ones win, and what is to be left out. Out: columns in
//! time order, at most [`BLOCK_CHUNK_SAMPLES_MAX`] samples each. Chunks that are long enough and
//! overlap nothing are passed on as they are.

use super::tombstone::HiddenRange;
use crate::model::chunk::{BLOCK_CHUNK_SAMPLES_MAX, BlockEncoder, Chunk, ChunkColumns, ChunkFault};
use crate::model::sample::{Sample, order_by_time};

/// A chunk of at least so many samples is not worth another encoding.
const PASSED_ON_SAMPLES_MIN: u32 = 240;

/// A chunk on its way into a block, and what of it is not wanted.
#[derive(Clone, Debug)]
pub struct RecodeInput {
    /// It.
    pub chunk: Chunk,
    /// Ranges whose samples are left out; nearly always none.
    pub hidden: Vec<HiddenRange>,
}

/// Encodes series for blocks; its memory is used again.
#[derive(Default)]
pub struct Recoder {
    encoder: BlockEncoder,
    samples: Vec<Sample>,
    timestamp_ms: Vec<i64>,
    value: Vec<f64>,
}

impl Recoder {
    /// Gives the chunks of one series, in time order, to `out`. A chunk that does not decode ends
    /// it.
    pub fn recode(
        &mut self,
        mut inputs: Vec<RecodeInput>,
        mut out: impl FnMut(&ChunkColumns<'_>),
    ) -> Result<(), ChunkFault> {
        if inputs.iter().any(|input| !input.hidden.is_empty()) || is_overlapping(&mut inputs) {
            self.samples.clear();
            for input in &inputs {
                self.decode(input)?;
            }
            order_by_time(&mut self.samples);
            self.flush(&mut out);
            return Ok(());
        }
        // In time order now, one behind the other.
        self.samples.clear();
        for input in &inputs {
            let count = input.chunk.count();
            if count >= PASSED_ON_SAMPLES_MIN && count as usize <= BLOCK_CHUNK_SAMPLES_MAX {
                self.flush(&mut out);
                out(&input.chunk.columns());
                continue;
            }
            self.decode(input)?;
            if self.samples.len() >= BLOCK_CHUNK_SAMPLES_MAX {
                self.flush(&mut out);
            }
        }
        self.flush(&mut out);
        Ok(())
    }

    /// As `recode`, with the chunks put together again.
    pub fn recode_all(&mut self, inputs: Vec<RecodeInput>) -> Result<Vec<Chunk>, ChunkFault> {
        let mut chunks = Vec::new();
        let mut fault = None;
        self.recode(inputs, |columns| match Chunk::from_columns(columns) {
            Ok(chunk) => chunks.push(chunk),
            Err(bad) => fault = Some(bad),
        })?;
        fault.map_or(Ok(chunks), Err)
    }

    fn decode(&mut self, input: &RecodeInput) -> Result<(), ChunkFault> {
        let start = self.samples.len();
        input.chunk.decode(&mut self.samples)?;
        if !input.hidden.is_empty() {
            let mut kept = start;
            for at in start..self.samples.len() {
                let sample = self.samples[at];
                if !input.hidden.iter().any(|range| range.holds(sample.timestamp_ms)) {
                    self.samples[kept] = sample;
                    kept += 1;
                }
            }
            self.samples.truncate(kept);
        }
        Ok(())
    }

    /// Encodes what was decoded, in parts of about the same length.
    fn flush(&mut self, out: &mut impl FnMut(&ChunkColumns<'_>)) {
        if self.samples.is_empty() {
            return;
        }
        let parts = self.samples.len().div_ceil(BLOCK_CHUNK_SAMPLES_MAX);
        let part_len = self.samples.len().div_ceil(parts);
        for part in self.samples.chunks(part_len) {
            self.timestamp_ms.clear();
            self.value.clear();
            self.timestamp_ms.extend(part.iter().map(|sample| sample.timestamp_ms));
            self.value.extend(part.iter().map(|sample| sample.value));
            out(&self.encoder.encode(&self.timestamp_ms, &self.value));
        }
        self.samples.clear();
    }
}

/// Whether two of them share a time; if not, they are in time order afterwards.
fn is_overlapping(inputs: &mut [RecodeInput]) -> bool {
    let is_in_order = |inputs: &[RecodeInput]| {
        inputs
            .is_sorted_by(|one, next| one.chunk.max_timestamp_ms() < next.chunk.min_timestamp_ms())
    };
    if is_in_order(inputs) {
        return false;
    }
    let mut sorted: Vec<_> = inputs.to_vec();
    sorted.sort_by_key(|input| input.chunk.min_timestamp_ms());
    if !is_in_order(&sorted) {
        return true;
    }
    inputs.clone_from_slice(&sorted);
    false
}

/// The aligned windows of `window_ms`, a multiple of the range, that the chunks lie in: ascending,
/// each once.
pub fn windows_of<'a>(chunks: impl IntoIterator<Item = &'a Chunk>, window_ms: i64) -> Vec<i64> {
    let start =
        |chunk: &Chunk| chunk.min_timestamp_ms().div_euclid(window_ms).saturating_mul(window_ms);
    let mut windows: Vec<_> = chunks.into_iter().map(start).collect();
    windows.sort_unstable();
    windows.dedup();
    windows
}

/// Whether a chunk lies in the aligned window that starts at `start_ms`.
pub fn is_in_window(chunk: &Chunk, start_ms: i64, window_ms: i64) -> bool {
    let min_ms = chunk.min_timestamp_ms();
    min_ms >= start_ms && min_ms.abs_diff(start_ms) < window_ms.unsigned_abs()
}
