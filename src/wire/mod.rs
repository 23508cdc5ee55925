//! What gateway and node say to each other, as bytes and as values. No I/O.
//!
//! A frame is a 64-byte header and a 16-aligned `rkyv` payload (`frame`); `write` is the payload
//! that carries samples, `ack` its answer; `select` is a query's question and answer.

pub mod ack;
pub mod delete;
pub mod frame;
pub mod select;
pub mod write;
