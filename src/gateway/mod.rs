//! The way of a request, one file a stage, in order. Pure: bytes and the time in, frames and
//! answers out.
//!
//! On the shard that received it: `endpoint` -> `decompress` -> `decode` -> `requests`, which waits
//! for its parts. On the shard that owns the series: `part` (the handoff) -> `owner`, with `table`
//! -> frame -> ack -> answer. Back where it came from: `reply`.

pub mod endpoint;

pub mod decompress;

pub mod decode;
pub mod request;

pub mod fleet;
pub mod part;
pub mod requests;

pub mod lane;
pub mod links;
pub mod owner;
pub mod parts;
pub mod route;
pub mod table;

pub mod hint;

pub mod reply;
