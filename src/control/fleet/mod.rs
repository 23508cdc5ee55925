//! The fleet as a whole: who belongs to it, who owns what, and how that changes.
//!
//! On a node `store` keeps what the node promised, voted for and follows, on its disk (`envelope`
//! is what its files look like). On a gateway `follower` decides whom to dial, what to ask and what
//! to propose, from what `peers` knows; `change` makes documents of wishes, `report` answers of
//! documents.

pub mod store;

pub mod change;
pub mod follower;
pub mod report;

mod envelope;
mod peers;

pub use peers::Met;
