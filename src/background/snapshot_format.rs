//! A snapshot file: opaque pieces, each with its length and checksum, between a header and a
//! footer.
//!
//! ```text
//!  header block, 4096 bytes
//!  0        4        8         12      16      32            40        48         56      4096
//!  | magic  | crc32c | version | shard | node  | incarnation | segment | sequence | zeros |
//!  | u32    | u32    | u32     | u32   | u128  | u64         | u64     | u64      |       |
//!  pieces, one behind the other      footer                                    zeros to 4096
//!  | length | crc32c | bytes |  ...  | u32::MAX | crc32c | count | bytes | crc  |
//!  | u32    | u32    |       |       | u32      | u32    | u64   | u64   | u32  |
//! ```
//! All little-endian. The header's `crc32c` covers bytes 8..4096, a piece's its bytes, the footer's
//! the 20 bytes behind it. `segment` and `sequence` are the log position that the snapshot stands
//! for; the footer counts the pieces and their bytes and ends with the checksum over the pieces'
//! checksums. Without a right footer there is no snapshot.

use crate::base::checksum::{crc32c, crc32c_append};
use crate::node::log::{BLOCK_BYTES, LogIdentity, LogPosition};

use super::command::SNAPSHOT_PIECE_BYTES_MAX;

const MAGIC: u32 = u32::from_le_bytes(*b"tdgH");
const VERSION: u32 = 1;
/// In the place of a piece's length: the footer follows.
const FOOTER_MARK: u32 = u32::MAX;
/// Length and checksum of a piece, or the mark and checksum of the footer.
pub const PIECE_HEAD_BYTES: usize = 8;
/// What of the footer follows its head.
pub const FOOTER_TAIL_BYTES: usize = 20;

const NAME_PREFIX: &str = "snapshot-";
const NAME_SUFFIX: &str = ".snap";

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    pub identity: LogIdentity,
    pub position: LogPosition,
}

/// Why bytes are not a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotFault {
    /// The file ends early.
    Truncated,
    /// The header block is damaged.
    Header,
    /// Written by a version that this program does not know.
    UnknownVersion { version: u32 },
    /// Of another node, incarnation or shard.
    Foreign,
    /// This piece is damaged.
    Piece { index: u64 },
    /// The footer is damaged, or does not agree with the pieces.
    Footer,
}

impl SnapshotHeader {
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..4].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&self.identity.shard.to_le_bytes());
        block[16..32].copy_from_slice(&self.identity.node.to_le_bytes());
        block[32..40].copy_from_slice(&self.identity.incarnation.to_le_bytes());
        block[40..48].copy_from_slice(&self.position.segment.to_le_bytes());
        block[48..56].copy_from_slice(&self.position.sequence.to_le_bytes());
        let crc = crc32c(&block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        block
    }

    pub fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self, SnapshotFault> {
        if read_u32(block, 0) != MAGIC || read_u32(block, 4) != crc32c(&block[8..]) {
            return Err(SnapshotFault::Header);
        }
        let version = read_u32(block, 8);
        if version != VERSION {
            return Err(SnapshotFault::UnknownVersion { version });
        }
        Ok(Self {
            identity: LogIdentity {
                node: u128::from(read_u64(block, 16)) | u128::from(read_u64(block, 24)) << 64,
                incarnation: read_u64(block, 32),
                shard: read_u32(block, 12),
            },
            position: LogPosition { segment: read_u64(block, 40), sequence: read_u64(block, 48) },
        })
    }
}

/// Counts and sums up the pieces, for the footer: the same when writing and when reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PieceTally {
    pub count: u64,
    pub bytes: u64,
    crc: u32,
}

impl PieceTally {
    /// The head of `piece`, which is now counted.
    pub fn encode_head(&mut self, piece: &[u8]) -> [u8; PIECE_HEAD_BYTES] {
        assert!(piece.len() <= SNAPSHOT_PIECE_BYTES_MAX);
        let len = u32::try_from(piece.len()).expect("1 GiB at most");
        let crc = crc32c(piece);
        self.add(len, crc);
        let mut head = [0; PIECE_HEAD_BYTES];
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// Checks `piece` against its head's checksum, and counts it.
    pub fn check_piece(&mut self, piece: &[u8], crc: u32) -> Result<(), SnapshotFault> {
        let index = self.count;
        let len = u32::try_from(piece.len()).map_err(|_| SnapshotFault::Piece { index })?;
        self.add(len, crc);
        if crc32c(piece) == crc { Ok(()) } else { Err(SnapshotFault::Piece { index }) }
    }

    fn add(&mut self, len: u32, crc: u32) {
        self.count += 1;
        self.bytes += u64::from(len);
        self.crc = crc32c_append(self.crc, &crc.to_le_bytes());
    }

    /// The footer.
    pub fn encode_footer(&self) -> [u8; PIECE_HEAD_BYTES + FOOTER_TAIL_BYTES] {
        let mut footer = [0; PIECE_HEAD_BYTES + FOOTER_TAIL_BYTES];
        footer[..4].copy_from_slice(&FOOTER_MARK.to_le_bytes());
        footer[8..16].copy_from_slice(&self.count.to_le_bytes());
        footer[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        footer[24..28].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32c(&footer[8..]);
        footer[4..8].copy_from_slice(&crc.to_le_bytes());
        footer
    }

    /// Checks the footer's tail, whose head's checksum is `crc`, against what was read.
    pub fn check_footer(
        &self,
        tail: &[u8; FOOTER_TAIL_BYTES],
        crc: u32,
    ) -> Result<(), SnapshotFault> {
        let is_right = crc32c(tail) == crc && self.encode_footer()[PIECE_HEAD_BYTES..] == tail[..];
        if is_right { Ok(()) } else { Err(SnapshotFault::Footer) }
    }
}

/// What follows in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceHead {
    Piece { len: usize, crc: u32 },
    Footer { crc: u32 },
}

impl PieceHead {
    /// Reads the head of piece `index`.
    pub fn decode(head: [u8; PIECE_HEAD_BYTES], index: u64) -> Result<Self, SnapshotFault> {
        let crc = read_u32(&head, 4);
        match read_u32(&head, 0) {
            FOOTER_MARK => Ok(Self::Footer { crc }),
            len if len as usize > SNAPSHOT_PIECE_BYTES_MAX => Err(SnapshotFault::Piece { index }),
            len => Ok(Self::Piece { len: len as usize, crc }),
        }
    }
}

/// The file name of the snapshot that replay continues from at `segment`.
pub fn snapshot_file_name(segment: u64) -> String {
    format!("{NAME_PREFIX}{segment:020}{NAME_SUFFIX}")
}

/// The segment in the file name `name`.
pub fn parse_snapshot_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(NAME_PREFIX)?.strip_suffix(NAME_SUFFIX)?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read_u32(bytes, at)) | u64::from(read_u32(bytes, at + 4)) << 32
}
