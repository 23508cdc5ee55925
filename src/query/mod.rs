//! The meaning of a query: text -> expression -> windows to select -> samples -> points. Pure: no
//! I/O, no clock, no shard.
//!
//! `duration` and `instant` read what people write for times; `expression` parses PromQL and keeps
//! what is evaluated; `merge` makes one sorted run of samples of what shards selected; `evaluate`
//! turns runs into points as Prometheus 3 does.

pub mod duration;
pub mod evaluate;
pub mod expression;
pub mod instant;
pub mod merge;
