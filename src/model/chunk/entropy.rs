//! Columns of numbers at about their entropy, by `pco` (its wrapped format, one chunk of one page):
//! for blocks only, as it costs ten times what the head can spend.
//!
//! ```text
//! | pco format version, chunk metadata, page |
//! ```
//! What it decodes is bounded by the count that the caller knows; it answers damage with an error.

use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};

/// Levels above gain less than a hundredth and cost twice as much.
const LEVEL: usize = 4;

/// The encoder's settings.
#[derive(Default)]
pub(super) struct Entropy {
    compressor: FileCompressor,
}

impl Entropy {
    /// Appends a column of integers.
    pub(super) fn encode_integers(&mut self, integers: &[i64], out: &mut Vec<u8>) {
        let config = ChunkConfig::default()
            .with_compression_level(LEVEL)
            .with_mode_spec(ModeSpec::Classic)
            .with_delta_spec(delta_spec(integers));
        self.encode(integers, &config, out);
    }

    /// Appends a column of floats.
    pub(super) fn encode_floats(&mut self, floats: &[f64], out: &mut Vec<u8>) {
        self.encode(floats, &ChunkConfig::default().with_compression_level(LEVEL), out);
    }

    fn encode<T: Number>(&mut self, numbers: &[T], config: &ChunkConfig, out: &mut Vec<u8>) {
        let paging = PagingSpec::Exact(vec![numbers.len()]);
        let config = config.clone().with_paging_spec(paging);
        let mut compressor =
            self.compressor.chunk_compressor(numbers, &config).expect("a configuration of ours");
        // A vector takes everything.
        self.compressor.write_header(&mut *out).expect("a vector");
        compressor.write_meta(&mut *out).expect("a vector");
        compressor.write_page(0, out).expect("a vector");
    }
}

/// How the integers are best differenced: as they are, or once. `pco` would find out by trying,
/// which costs more than the coding.
fn delta_spec(integers: &[i64]) -> DeltaSpec {
    let spread = |numbers: &mut dyn Iterator<Item = i64>| {
        // The sum of bit lengths is what a code of adaptive width would take.
        numbers.map(|number| u64::from(64 - number.unsigned_abs().leading_zeros())).sum::<u64>()
    };
    let mean = integers[integers.len() / 2];
    let plain = spread(&mut integers.iter().map(|integer| integer.wrapping_sub(mean)));
    let first = spread(&mut integers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])));
    if plain < first { DeltaSpec::NoOp } else { DeltaSpec::TryConsecutive(1) }
}

/// Fills `integers`; `None` if `column` does not hold exactly so many.
pub(super) fn decode_integers(column: &[u8], integers: &mut [i64]) -> Option<()> {
    decode(column, integers)
}

/// Fills `floats`; `None` if `column` does not hold exactly so many.
pub(super) fn decode_floats(column: &[u8], floats: &mut [f64]) -> Option<()> {
    decode(column, floats)
}

fn decode<T: Number>(column: &[u8], numbers: &mut [T]) -> Option<()> {
    let (decompressor, rest) = FileDecompressor::new(column).ok()?;
    let (mut chunk, rest) = decompressor.chunk_decompressor::<T, _>(rest).ok()?;
    let count = numbers.len();
    let mut page = chunk.page_decompressor(rest, count).ok()?;
    let progress = page.read(numbers).ok()?;
    (progress.n_processed == count && page.into_src().is_empty()).then_some(())
}
