//! Chance for tests, repeatable from its seed.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a simulation came to for each seed: those of the environment's `variable` (`first..last`),
/// else the `usual`. One that fails says how `test` is run with it alone.
pub fn run_seeds<T>(
    (variable, test): (&str, &str),
    usual: Range<u64>,
    run: impl Fn(u64) -> T,
) -> impl Iterator<Item = T> {
    let seeds = std::env::var(variable).map_or(usual, |text| {
        let (first, last) = text.split_once("..").expect("seeds as first..last");
        let number = |text: &str| text.parse().expect("a number");
        number(first)..number(last)
    });
    seeds.map(move |seed| {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
        outcome.unwrap_or_else(|_| {
            let next = seed + 1;
            panic!("seed {seed} failed; again: {variable}={seed}..{next} cargo test --lib {test}")
        })
    })
}

/// SplitMix64: the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// As `below`, for what has `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// One of `choices`.
    pub fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.index(choices.len())]
    }

    /// True once in `times` on average.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
