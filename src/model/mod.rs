//! The nouns that both halves share: labels, series identity, slots, samples, matchers, placement,
//! chunks, refusals. No I/O.

pub mod chunk;
pub mod labels;
pub mod matcher;
pub mod placement;
pub mod refusal;
pub mod sample;
pub mod series;
