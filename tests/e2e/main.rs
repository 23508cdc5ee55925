//! End to end: the built programs as processes, real clients, real faults. Run by `scripts/test`.
//!
//! `TIDEGATE_BIN` and `LOADGEN_BIN` name the programs, else they are looked for where cargo puts
//! them.
//! `TIDEGATE_SEED` repeats the random choices of a run. Each test runs with one shard and with two.

// What the tests stand on.
mod admin;
mod body;
mod disk;
mod http;
mod loadgen;
mod process;
mod random;
mod server;

// What is tested.
mod backups;
mod blocks;
mod crash;
mod fleet;
mod full_disk;
mod lifecycle;
mod little_room;
mod offline;
mod prometheus;
mod read_back;
mod robustness;
mod smuggling;
