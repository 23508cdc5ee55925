//! The way of a request, one file a stage, in order. Pure: bytes and the time in, frames and
//! answers out.
//!
//! On the shard that received it: `endpoint` -> `decompress` -> `decode` -> `requests`, which waits
//! for its parts. On the shard that owns the series: `part` (the handoff) -> `owner`, which keeps
//! it in `parts` -> `route` -> a `lane`, with `table`, for each node shard -> frame -> ack ->
//! answer. Back where it came from: `reply`.
//!
//! `links` carry frames to nodes of a `fleet`; `hint` keeps what nodes that are down lack.

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
