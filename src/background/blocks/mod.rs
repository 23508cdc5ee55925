//! The node's blocks on its disk, generic over the disk: `store` knows which there are, `flush`
//! makes them of what leaves the heads, `merge` makes few of many, `plan` says which, `select`
//! answers queries.

pub mod block;
pub mod cache;
pub mod flush;
pub mod job;
pub mod list;
pub mod merge;
pub mod plan;
pub mod select;
pub mod snapshot;
pub mod store;
