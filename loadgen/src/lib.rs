//! Load generator and verifier for anything that takes metrics in. Nothing here is shared with the
//! server: encoders, the HTTP client and the reading back are written a second time, so that one
//! mistake cannot hide behind itself.
//!
//! `send` makes requests of seeded series and keeps a ledger of what was acknowledged; `verify`
//! reads everything back and compares it with the ledger, sample for sample. No copy of the data is
//! kept: labels, timestamps and values are pure functions of (seed, series, sample index), see
//! `series`.

pub mod cpu;
pub mod encode;
mod executor;
pub mod http;
pub mod ledger;
pub mod options;
pub mod report;
pub mod send;
pub mod series;
pub mod verify;
