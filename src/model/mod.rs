//! The nouns that both halves share: labels, series identity, slots, samples, matchers, chunks,
//! refusals. No I/O.

pub mod chunk;
pub mod labels;
pub mod matcher;
pub mod refusal;
pub mod sample;
pub mod series;
