//! What everything stands on: bytes, varints, checksums, latencies, bounded queues, and the only
//! clock and the only chance, which are its only I/O. No domain noun.

pub mod bytes;
pub mod chance;
pub mod checksum;
pub mod latency;
pub mod protobuf;
pub mod queue;
#[cfg(test)]
pub(crate) mod random;
pub mod ready;
pub mod time;
pub mod varint;
