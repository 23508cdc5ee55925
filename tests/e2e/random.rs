//! Random choices of a test from one seed, which is printed so that a failure can be repeated.

#[path = "../random/split_mix.rs"]
mod split_mix;

use std::time::{SystemTime, UNIX_EPOCH};

pub use split_mix::Random;

impl Random {
    /// Takes the seed of `TIDEGATE_SEED`, else a new one, and prints it.
    pub fn from_environment() -> Self {
        let given = std::env::var("TIDEGATE_SEED").ok();
        let seed = given.map_or_else(new_seed, |text| text.parse().expect("a number as seed"));
        eprintln!("repeat this run with TIDEGATE_SEED={seed}");
        Self(seed)
    }

    /// A number from `start` to `end`, without `end`.
    pub fn between(&mut self, start: usize, end: usize) -> usize {
        start + self.below(end - start)
    }

    /// Random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// One to four changes: a bit flipped, bytes cut out, repeated, or replaced.
    pub fn mutate(&mut self, body: &[u8]) -> Vec<u8> {
        let mut bytes = body.to_vec();
        for _ in 0..self.between(1, 5) {
            if bytes.is_empty() {
                return self.bytes(16);
            }
            let at = self.below(bytes.len());
            let end = bytes.len().min(at + self.between(1, 17));
            match self.below(6) {
                0 | 1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
                _ => {
                    let other = self.bytes(end - at);
                    bytes[at..end].copy_from_slice(&other);
                }
            }
        }
        bytes
    }
}

fn new_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_secs() ^ u64::from(since.subsec_nanos()) << 20
}
