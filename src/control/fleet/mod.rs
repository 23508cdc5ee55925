//! The fleet as a whole: who belongs to it, who owns what, and how that changes.
//!
//! On a node: `store` keeps what the node promised, voted for and follows, on its disk.

pub mod store;

mod envelope;
