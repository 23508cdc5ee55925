//! Chance of a simulation, from its seed: each has one generator, and nothing else decides anything
//! by chance.

#[path = "../random/split_mix.rs"]
mod split_mix;

pub use split_mix::Random;

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)
    }

    /// True once in `times` on average.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}
