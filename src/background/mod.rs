//! Slow file work, off the shards: one thread that makes log segments and writes snapshots, and
//! what runs before any shard does: the data folder and replay.
//!
//! `folder` is the layout on disk, `replay` reads a shard's part of it back, `executor` is the
//! thread, `segments` and `snapshots` its two long-lived jobs, `command` what they are told and
//! answer, `disk` what they stand on; `manifest` and `snapshot_format` are bytes only. `hints` is
//! a thread of gateways, by itself.

pub mod blocks;
pub mod command;
pub mod disk;
pub mod executor;
pub mod folder;
pub mod hints;
pub mod replay;
pub mod segments;
pub mod snapshot_format;
pub mod snapshots;

mod manifest;

#[cfg(test)]
mod tests;
