//! What everything stands on: bytes, varints, checksums, latencies, time, bounded queues. No I/O,
//! no domain noun.

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
