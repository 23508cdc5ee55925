//! Reads over the fleet: the port of a node where gateways ask, and a gateway's side of it.
//!
//! ```text
//!  gateway                                            node
//!   NodeClient --- Select, RegistryRequest, ... --->  ReadServer -> Answering -> shards, blocks
//!              <-- Series, Strings, SelectEnd ------
//! ```
//! `server` accepts and drives `wire::link::Receiver`, `answering` is where the kinds of questions
//! part; `client` is a node as a gateway knows it, `selecting` one select of it, both over
//! `conversation`, a connection that drives `wire::link::Reader`; `fault` says why there is no
//! answer. `own_hints` is what a gateway keeps for nodes, and tells them; `lacking` what a node so
//! knows to lack, and says with each answer.
//!
//! `fleet` asks all nodes that a query needs, `view` knows which those are, `absences` what their
//! answers lack, `deleting` deletes what all
//! of them hold, `warm` learns their ids
//! for the shards.
//!
//! What is big goes over connections of its own, one question at a time: back-pressure and giving
//! up are then TCP's, and a slow query holds nobody else up. What is small shares one connection,
//! which is always open and tells whether the node is there.

pub mod fault;

pub mod answering;
pub mod lacking;
pub mod server;

mod absences;
pub mod client;
mod conversation;
pub mod deleting;
pub mod fleet;
pub mod own_hints;
pub mod selecting;
pub mod view;
pub mod warm;

use std::time::Duration;

/// How long the last words of a connection may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
