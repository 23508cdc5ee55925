//! Decompression: what comes out, limits, lies about lengths, members, damage.

use libdeflater::{CompressionLvl, Compressor};

use super::*;
use crate::base::random::Random;
use crate::gateway::decode::mutation::mutate;

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Snappy,
    Gzip,
    Zlib,
}

fn pack(encoding: Encoding, content: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut out = vec![0; content.len() + 1024];
    let len = match encoding {
        Encoding::Snappy => {
            return snap::raw::Encoder::new().compress_vec(content).expect("small");
        }
        Encoding::Gzip => compressor.gzip_compress(content, &mut out),
        Encoding::Zlib => compressor.zlib_compress(content, &mut out),
    };
    out.truncate(len.expect("room enough"));
    out
}

fn unpack(
    encoding: Encoding,
    input: &[u8],
    out: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), DecompressError> {
    let mut decompressor = Decompressor::default();
    match encoding {
        Encoding::Snappy => decompressor.snappy_block(input, out, bytes_max),
        Encoding::Gzip => decompressor.gzip(input, out, bytes_max),
        Encoding::Zlib => decompressor.zlib(input, out, bytes_max),
    }
}

const ALL: [Encoding; 3] = [Encoding::Snappy, Encoding::Gzip, Encoding::Zlib];

fn contents() -> Vec<Vec<u8>> {
    let mut random = Random(1);
    let noise = (0..70_000).map(|_| random.next().to_le_bytes()[0]).collect();
    vec![vec![], b"x".to_vec(), b"abcabcabc".repeat(5000), vec![0; 1 << 20], noise]
}

#[test]
fn round_trip_at_the_limit_and_one_below() {
    for encoding in ALL {
        // One Vec for all: what it held before must not matter.
        let mut out = vec![0xee; 3000];
        for content in contents() {
            let packed = pack(encoding, &content);
            let exact = content.len();
            assert_eq!(unpack(encoding, &packed, &mut out, exact), Ok(()), "{encoding:?} {exact}");
            assert!(out == content, "{encoding:?} {exact}");
            if exact > 0 {
                let bytes_max = exact - 1;
                let want = Err(DecompressError::TooLarge { bytes_max });
                assert_eq!(unpack(encoding, &packed, &mut out, bytes_max), want, "{encoding:?}");
                assert!(out.is_empty());
            }
        }
    }
}

#[test]
fn every_truncation_is_corrupt() {
    for encoding in ALL {
        let packed = pack(encoding, &b"some text, some text".repeat(20));
        for len in 0..packed.len() {
            let result = unpack(encoding, &packed[..len], &mut Vec::new(), 1 << 20);
            let is_corrupt = matches!(result, Err(DecompressError::Corrupt { .. }));
            assert!(is_corrupt, "{encoding:?} len {len}: {result:?}");
        }
    }
}

#[test]
fn a_lie_about_the_length_allocates_nothing() {
    // 2^32 - 1 declared by nine bytes.
    let mut out = Vec::new();
    let huge = b"\xff\xff\xff\xff\x0f\x00\x00\x00\x00";
    let want = Err(DecompressError::TooLarge { bytes_max: 1 << 20 });
    assert_eq!(unpack(Encoding::Snappy, huge, &mut out, 1 << 20), want);
    let result = unpack(Encoding::Snappy, huge, &mut out, usize::MAX);
    assert!(matches!(result, Err(DecompressError::Corrupt { .. })));
    // A gzip trailer that says 4 GiB.
    let mut packed = pack(Encoding::Gzip, b"text");
    let len = packed.len();
    packed[len - 4..].fill(0xff);
    assert!(unpack(Encoding::Gzip, &packed, &mut out, usize::MAX).is_err());
    assert!(out.capacity() < 100_000, "{}", out.capacity());
}

#[test]
fn gzip_of_several_members() {
    #[track_caller]
    fn check(parts: &[&[u8]], tail: &[u8], want: bool) {
        let mut packed: Vec<u8> =
            parts.iter().flat_map(|part| pack(Encoding::Gzip, part)).collect();
        packed.extend_from_slice(tail);
        let content = parts.concat();
        let mut out = Vec::new();
        let result = unpack(Encoding::Gzip, &packed, &mut out, content.len());
        assert_eq!(result.is_ok(), want, "{result:?}");
        assert!(!want || out == content);
    }
    let long = b"0123456789".repeat(10_000);
    check(&[b"one", b"two"], b"", true);
    check(&[b"same", b"same", b"same"], b"", true);
    check(&[b"", b"", b"x", b""], b"", true);
    check(&[&long, b"short", &long], b"", true);
    check(&[b"one"], b"\0", false); // Padding is not gzip.
    check(&[b"one"], b"\x1f\x8b", false); // A member cut off.
}

#[test]
fn damaged_bodies_never_panic() {
    for encoding in ALL {
        let packed = pack(encoding, &b"{\"metric\":{\"__name__\":\"up\"}}\n".repeat(30));
        let mut out = Vec::new();
        let mut refused = 0;
        for seed in 0..10_000 {
            let mut bad = packed.clone();
            mutate(&mut Random(seed), &mut bad);
            refused += u32::from(unpack(encoding, &bad, &mut out, 1 << 16).is_err());
            assert!(out.len() <= 1 << 16, "seed {seed}");
        }
        assert!(refused > 3000, "{encoding:?}: {refused}");
    }
}
