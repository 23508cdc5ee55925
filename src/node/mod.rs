//! The storage half: what a node shard does with frames, its log, its series, and the questions of
//! queries. Pure.
//!
//! frame -> `receiver` -> `head` and `log` -> ack (`shard`); `snapshot` bounds the log; `select`
//! answers queries from `head` by way of `index`, `cardinality` what there is most of; `flush` lets
//! samples go to blocks (`block`). `links` is how gateways reach it, `registry` how they learn its
//! ids, `replay` what makes a head of a log.

pub mod block;
pub mod cardinality;
pub mod flush;
pub mod head;
pub mod index;
pub mod links;
pub mod log;
pub mod receiver;
pub mod registry;
pub mod replay;
pub mod select;
pub mod shard;
pub mod snapshot;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers from a seeded generator")]
mod churn_tests;
#[cfg(test)]
mod tests;
