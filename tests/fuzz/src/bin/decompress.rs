//! Any compressed body, the first byte choosing how: never a panic, never more than the limit.
#![no_main]

use libdeflater::{CompressionLvl, Compressor};
use libfuzzer_sys::fuzz_target;
use tidegate::gateway::decompress::Decompressor;
use tidegate_fuzz::{json_seeds, write_seeds};

const BYTES_MAX: usize = 1 << 16;

fn seeds() -> Vec<Vec<u8>> {
    let content = json_seeds().concat().repeat(3);
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut room = vec![0; content.len() + 1024];
    let len = compressor.gzip_compress(&content, &mut room).expect("room enough");
    let gzip = room[..len].to_vec();
    let len = compressor.zlib_compress(&content, &mut room).expect("room enough");
    let zlib = room[..len].to_vec();
    let snappy = snap::raw::Encoder::new().compress_vec(&content).expect("small");
    let packed = [snappy, gzip.clone(), zlib, [&gzip[..], &gzip].concat()];
    let choice = [0u8, 1, 2, 1];
    choice.iter().zip(packed).map(|(choice, packed)| [&[*choice][..], &packed].concat()).collect()
}

fuzz_target!(init: write_seeds(&seeds()), |data: &[u8]| {
    let Some((choice, input)) = data.split_first() else { return };
    let mut decompressor = Decompressor::default();
    let mut out = vec![0xee; 100];
    let result = match choice % 3 {
        0 => decompressor.snappy_block(input, &mut out, BYTES_MAX),
        1 => decompressor.gzip(input, &mut out, BYTES_MAX),
        _ => decompressor.zlib(input, &mut out, BYTES_MAX),
    };
    assert!(out.len() <= BYTES_MAX);
    assert!(result.is_ok() || out.is_empty());
});
