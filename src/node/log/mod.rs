//! The durable log of one node shard, as a state machine without I/O: what to write where, and what
//! a file says.
//!
//! `segment` is a file's name and header block, `record` is what lies in it, `writer` decides what
//! is written next and what is durable, `reader` finds the records again, `tally` says what replay
//! did not find.
//!
//! # A segment, from byte 0
//! ```text
//! | header block, 4096 | group | zeros to 4096 | group | zeros to 4096 | ... | zeros or old |
//!                        `-- record | record | ...  each 16-aligned, none spans two segments
//! ```
//! A *group* is everything that gathered while the write before was under way: one write and one
//! fdatasync make all its records durable (group commit). Groups start on 4096 bytes, as `O_DIRECT`
//! asks.
//!
//! # Invariants
//! - One write is in flight. A record is durable when its write and the sync after it came back;
//!   never before.
//! - A failed write or sync is never tried again: the kernel may have dropped the pages and would
//!   then report success for nothing. The log takes nothing more until a restart reads back what is
//!   really there.
//! - Record sequences are contiguous, so a gap in what replay finds is a loss, counted exactly.
//! - A record names its segment, so what a recycled file held before never counts. Its checksums
//!   are seeded with the identity of the log (node, incarnation, shard), so nothing that a client
//!   puts into a payload looks like a record.
//! - After a restart the log goes on in a new segment; nothing is ever appended behind a torn tail.
//!
//! # What replay does with damage
//! It never stops at it. Everything from the last acknowledged write on may be torn, in any order
//! of its sectors; a flipped bit in an acknowledged record may be anywhere. Both look alike at the
//! place itself, so replay looks on for the next whole record of the same segment, at every 16
//! bytes, and applies it. Stopping at the first bad record of the last segment would lose nothing
//! after a torn write, but everything behind one flipped bit; going on costs the reading of one
//! segment, and at worst applies records whose acknowledgement never left: samples that a client
//! was told nothing about and sends again, and the same sample twice is one sample. Records carry
//! ids that earlier records gave to series. When such a record is missing, its series are unknown
//! to the records that follow: the sink counts their samples as lost (`ReplaySink`), and never
//! panics. Which losses matter is known exactly but for the end: each record says up to which
//! sequence the log was durable when it was written, so a missing record that a later one calls
//! durable was acknowledged (`records_lost`: loud), and one that nobody calls durable was part of
//! the last, torn write (`records_torn`: normal after a power cut).

mod groups;
mod reader;
mod record;
mod segment;
mod tally;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::{READ_WINDOW_BYTES, ReaderStep, SegmentEnd, SegmentReader};
pub use record::{
    RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, Record, record_len_bytes, record_len_bytes_max,
};
pub use segment::{
    BLOCK_BYTES, LogIdentity, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN, SegmentFault,
    SegmentHeader, parse_segment_file_name, segment_file_name,
};
pub use tally::ReplayTally;
pub use writer::{
    Log, LogConfig, LogConfigFault, LogOperation, LogPosition, LogRefusal, LogState,
    ProvisionFault, SegmentRequest,
};
