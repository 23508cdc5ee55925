//! tidegate as a library: the map. Data moves down this list, and so do the imports' rights.
//!
//! `base` <- `model` <- `http`, `wire` <- `gateway` | `node` | `query` <- `control` | `background`
//! <- `server` | `offline`. `ring` knows only `base`, and only `server` uses it. `gateway` and
//! `node` never import each other: what crosses between them is a frame of `wire`. The rules are
//! enforced by `tests/tidy.rs`.

#[cfg(not(target_endian = "little"))]
compile_error!("tidegate stores and sends little-endian columns as they lie in memory");

pub mod base;
pub mod model;
pub mod ring;

pub mod http;
pub mod wire;

pub mod gateway;
pub mod node;
pub mod query;

pub mod background;
pub mod control;

pub mod offline;
pub mod server;
