//! How good a draw a node has for a slot: weighted rendezvous hashing in integers. Frozen.
//!
//! A draw u is uniform in (0, 1]; the owner is the node with the least -log2(u) / pull, which
//! exponential variables with rate `pull` are, so a node wins in proportion to its pull
//! (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005; the form with a
//! logarithm is from the Internet draft "Weighted HRW", draft-ietf-bess-weighted-hrw).
//! In integers, since no two libraries agree on the last bit of a logarithm: -log2(u) in 2^-44,
//! from a table of 1024 steps with a straight line between them. It is off by less than 2e-7,
//! the same way for all nodes; that distorts weights by less than 1e-3 even with 1000 nodes.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::document::PlacedNode;
use crate::model::series::Slot;

/// Bits behind the point of a logarithm.
const FRACTION_BITS: u32 = 44;
const STEP_BITS: u32 = 10;
const STEPS: usize = 1 << STEP_BITS;
/// Bits of the way between two steps that count.
const WAY_BITS: u32 = 28;
/// How far logarithms are shifted before they are divided by the pull.
const KEY_SHIFT: u32 = 13;

// The largest logarithm is 64, and a step's product with the way stays in 64 bits as well.
const _: () = assert!(6 + FRACTION_BITS + KEY_SHIFT < 64);
const _: () = assert!(FRACTION_BITS - STEP_BITS + 1 + WAY_BITS < 64);

/// log2(1 + i / 1024) in 2^-44.
static LOG2_OF_STEP: [u64; STEPS + 1] = log2_of_steps();

/// The start of a node's row of draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draws {
    seed: u64,
}

impl Draws {
    /// The draws of a node with another salt.
    pub(super) fn with_salt(node: &PlacedNode, salt: u32) -> Self {
        Self { seed: xxh3_64_with_seed(&node.id.0.to_le_bytes(), salt.into()) }
    }

    /// The node's draws.
    pub(super) fn of(node: &PlacedNode) -> Self {
        Self::with_salt(node, node.salt)
    }

    /// -log2 of the draw for `slot`, in 2^-44: 1 to 64 << 44.
    #[inline]
    pub(super) fn exponent(self, slot: Slot) -> u64 {
        exponent_of(split_mix(self.seed, slot.0.into()))
    }
}

/// What is compared: the least key wins, with equal keys the lesser id. It is
/// `(exponent << KEY_SHIFT) / pull`, rounded down; a table takes one for each slot and node, and a
/// multiplication by the reciprocal takes a third of a division's time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Divisor {
    pull: u64,
    /// Of 2^64, rounded down: its product is too small by less than one.
    reciprocal: u64,
}

impl Divisor {
    /// Of a pull, which is not 0.
    pub(super) fn new(pull: u32) -> Self {
        let pull = u64::from(pull);
        Self { pull, reciprocal: u64::MAX / pull }
    }

    /// The key of a draw.
    #[inline]
    pub(super) fn key(self, exponent: u64) -> u64 {
        let shifted = exponent << KEY_SHIFT;
        let quotient = ((u128::from(shifted) * u128::from(self.reciprocal)) >> 64) as u64;
        quotient + u64::from(shifted - quotient * self.pull >= self.pull)
    }
}

/// The least pull that gets `exponent` below `key`, about.
#[inline]
pub(super) fn pull_for(exponent: u64, key: u64) -> f64 {
    (exponent << KEY_SHIFT) as f64 / key as f64
}

/// The `index`th number of the generator SplitMix64 (Steele, Lea, Flood, 2014).
fn split_mix(seed: u64, index: u64) -> u64 {
    let z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64 - log2(draw), of a draw of 64 bits; 0 counts as 1.
#[inline]
fn exponent_of(draw: u64) -> u64 {
    let draw = draw | 1;
    let shift = draw.leading_zeros();
    // The leading one away, ten bits of step, then the way to the next one.
    let rest = (draw << shift) << 1;
    let step = (rest >> (64 - STEP_BITS)) as usize;
    let way = (rest << STEP_BITS) >> (64 - WAY_BITS);
    let (low, high) = (LOG2_OF_STEP[step], LOG2_OF_STEP[step + 1]);
    let fraction = low + (((high - low) * way) >> WAY_BITS);
    let log2 = (u64::from(63 - shift) << FRACTION_BITS) + fraction;
    (64 << FRACTION_BITS) - log2
}

const fn log2_of_steps() -> [u64; STEPS + 1] {
    let mut table = [0; STEPS + 1];
    let mut step = 0;
    while step < STEPS {
        table[step] = log2_bits((STEPS + step) as u128);
        step += 1;
    }
    table[STEPS] = 1 << FRACTION_BITS;
    table
}

/// log2(`value` / 1024) in 2^-44, for values from 1024 on and below 2048, rounded down: a squaring
/// doubles the logarithm, and its next bit is whether the square is 2 or more.
const fn log2_bits(value: u128) -> u64 {
    const ONE: u128 = 1 << 62;
    let mut square = value << (62 - STEP_BITS);
    let mut bits = 0;
    let mut place = 0;
    while place < FRACTION_BITS {
        square = (square * square) >> 62;
        bits <<= 1;
        if square >= 2 * ONE {
            square >>= 1;
            bits |= 1;
        }
        place += 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when the table, a shift or the interpolation is off: against the C library's logarithm.
    #[test]
    fn exponents_are_logarithms() {
        let mut draw = 1_u64;
        for index in 0..100_000 {
            let want = 64.0 - ((draw | 1) as f64).log2();
            let got = exponent_of(draw) as f64 / 2_f64.powi(44);
            assert!((got - want).abs() < 3e-7, "draw={draw} got={got} want={want}");
            draw = split_mix(draw, index) >> (index % 64);
        }
        assert_eq!(exponent_of(0), 64 << 44);
        assert!(exponent_of(u64::MAX) >= 1);
    }

    /// A better draw is never worse: where steps meet, and where the number of bits changes.
    #[test]
    fn exponents_fall_as_draws_rise() {
        for start in [1_u64 << 20, 3 << 40, (1 << 63) - 5000, u64::MAX - 10_000_000] {
            let mut last = exponent_of(start);
            for step in 1..5000 {
                let next = exponent_of(start + step * 999);
                assert!(next <= last, "start={start} step={step}");
                last = next;
            }
        }
    }

    /// Frozen: a change here moves data of running fleets.
    #[test]
    fn draws_are_frozen() {
        let node =
            PlacedNode::new(crate::model::placement::NodeId(0x0123_4567_89ab_cdef), "a:1", 1);
        let draws = |salt| Draws::with_salt(&node, salt);
        assert_eq!(draws(0).exponent(Slot(0)), EXPONENT_0_0);
        assert_eq!(draws(0).exponent(Slot(16383)), EXPONENT_0_LAST);
        assert_eq!(draws(7).exponent(Slot(0)), EXPONENT_7_0);
        assert_eq!(Divisor::new(6_553_600).key(1 << 44), (1 << 57) / 6_553_600);
    }

    /// Red when the quotient is not corrected, or the reciprocal is rounded up.
    #[test]
    fn keys_are_quotients() {
        let mut draw = 1_u64;
        for index in 0..200_000 {
            draw = split_mix(draw, index);
            let exponent = exponent_of(draw >> (index % 64));
            let small = u32::try_from(draw >> 32).expect("32 bits") >> (index % 32);
            for pull in [small.max(1), 1, 2, 3, 6_553_600, u32::MAX] {
                let want = (exponent << KEY_SHIFT) / u64::from(pull);
                assert_eq!(Divisor::new(pull).key(exponent), want, "{exponent} / {pull}");
            }
        }
        // Where a quotient is exact.
        for pull in [1, 3, 6_553_600, 6_553_601, u32::MAX] {
            let exponent = u64::from(pull) << 10;
            assert_eq!(Divisor::new(pull).key(exponent), 1 << (10 + KEY_SHIFT));
        }
    }

    const EXPONENT_0_0: u64 = 6_726_036_457_673;
    const EXPONENT_0_LAST: u64 = 13_078_163_814_221;
    const EXPONENT_7_0: u64 = 2_215_779_974_776;
}
