//! What gateway and node say to each other, as bytes and as values. No I/O.
//!
//! A frame is a 64-byte header and a 16-aligned `rkyv` payload (`frame`); `write` is the payload
//! that carries samples, `ack` its answer; `select` is a query's question and answer, `registry`
//! how a gateway learns ids that it did not ask for, `placement` how both agree on who owns what,
//! `hints` how a node learns what it lacks;
//! `hello`, `proof` and `health` are how both ends of a link know and watch each other. `link` is
//! the conversation: both halves, side by side.

pub mod frame;

pub mod write;

pub mod ack;

pub mod delete;
pub mod hints;
pub mod placement;
pub mod registry;
pub mod select;

pub mod health;
pub mod hello;
pub mod proof;

pub mod link;

#[cfg(test)]
mod golden;
