//! The control plane: what a process decides and answers besides taking in samples. Runs on tokio
//! threads, never on a shard.
//!
//! `config` is the configuration, `host` what the machine allows. `server` runs the threads and
//! passes requests from shards to `api`, the axum router; `shards` asks the shards, `gather` puts
//! their answers together, `reads` carries them from nodes to gateways; `source` is where the API
//! reads, this process or the fleet; `readiness` says whether clients should come; `report` is what
//! a shard tells about itself, and `metrics` prints it in the text format of `exposition`.
//!
//! `discovery` turns the names of nodes into addresses, and keeps them current; `fleet` follows and
//! changes who owns what.

pub mod config;
pub mod host;

pub mod server;

pub mod discovery;

pub mod api;
pub mod deletion;
pub mod gather;
pub mod readiness;
pub mod reads;
pub mod shards;
pub mod source;

mod timer;

pub mod fleet;

pub mod exposition;
pub mod metrics;
pub mod report;

#[cfg(test)]
mod fake_shards;
