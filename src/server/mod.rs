//! Puts a process together: threads, the shard loop, shutdown. The only user of `ring`.
//!
//! `start` builds everything and runs it; `shard` is the loop of one shard's thread, `traffic` its
//! clients' side and `node_side` its storage side; `halves` is how both meet; `link_side` is a
//! gateway's way to its nodes, `link_port` a node's end of that, `read_port` where it is asked.
//! `connection`, `clients`, `ingest` and `post` are its pure parts; `life` is what all threads see
//! of shutdown, `signals` what begins it; `recover` turns what is on disk into node shards;
//! `threads` starts the shards and connects them; `roles` makes what gateways and nodes need,
//! `rules` divides the configuration among all, `greeting` says how to use the process that just
//! started.

pub mod start;

mod clients;
mod connection;
mod fleet_control;
mod greeting;
mod halves;
mod ingest;
mod life;
mod link_port;
mod link_side;
mod node_side;
mod post;
mod read_port;
mod recover;
mod report;
mod roles;
mod rules;
mod shard;
mod signals;
mod threads;
mod traffic;
