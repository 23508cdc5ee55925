//! The way of a request, one file a stage, in order. Pure: bytes and the time in, frames and answers out.
//!
//! endpoint -> decompress -> decode -> (handoff to the shard that owns the slot) -> admit -> place -> batch -> reply

pub mod decode;
pub mod decompress;
pub mod endpoint;
pub mod request;
