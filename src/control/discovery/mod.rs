//! What `--nodes` names -> socket addresses, kept current. An address is only a place to ask: which
//! node it is, the node says (`NodeId`).
//!
//! `entry` reads the list, `schedule` decides which name is asked when and what the answers say
//! together, `driver` asks name servers.

pub mod entry;

pub mod schedule;

pub mod driver;
