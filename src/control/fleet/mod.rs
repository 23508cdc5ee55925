//! The fleet as a whole: who belongs to it, who owns what, and how that changes.
//!
//! ```text
//!  gateway                                                  node
//!   api --> following --> dialogue --- PlacementRequest --> answering --> store
//!              |  ^                 <-- PlacementAnswer ---
//!              v  |
//!           follower (peers, change, report)
//! ```
//! On a node `store` keeps what the node promised, voted for and follows, on its disk (`envelope`
//! is what its files look like), and `answering` lets gateways ask. On a gateway `follower` decides
//! whom to dial, what to ask and what to propose, from what `peers` knows; `change` makes documents
//! of wishes, `report` answers of documents; `following` runs it, `dialogue` is its talk with one
//! node, and `api` lets people ask. How nodes agree is `model/placement/agreement`.

pub mod answering;
pub mod store;

pub mod change;
pub mod follower;
pub mod report;

pub mod api;
pub mod following;

mod dialogue;
mod envelope;
mod peers;

pub use peers::Met;
