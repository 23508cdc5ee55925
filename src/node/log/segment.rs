//! A segment's file name, and its first 4096 bytes, which say whose it is.
//!
//! ```text
//!  0       4        8         12      16     32            40        48              56      4096
//!  | magic | crc32c | version | shard | node | incarnation | segment | segment_bytes | zeros |
//!  | u32   | u32    | u32     | u32   | u128 | u64         | u64     | u64           |       |
//! ```
//! All little-endian. `crc32c` covers bytes 8..4096.

use crate::base::checksum::crc32c;

/// The unit of every write to a segment, and the bytes of its header.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a segment file unless configured otherwise.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// The smallest segment that can be configured, for tests; frames must be limited accordingly.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"tdgS");
const VERSION: u32 = 1;
const NAME_PREFIX: &str = "segment-";
const NAME_SUFFIX: &str = ".log";
const NAME_DIGITS: usize = 20;

/// Whose log it is. Two logs never share one, so a file that strays into another folder is found
/// out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The node, made at its first start.
    pub node: u128,
    /// Rises when the node's shards are cut anew.
    pub incarnation: u64,
    /// The shard within the incarnation.
    pub shard: u32,
}

impl LogIdentity {
    /// What every record's checksum starts from. Bits of it are secret to clients (the node's id is
    /// random).
    pub(super) fn checksum_seed(&self) -> u32 {
        let mut bytes = [0; 28];
        bytes[..16].copy_from_slice(&self.node.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[24..].copy_from_slice(&self.shard.to_le_bytes());
        crc32c(&bytes)
    }
}

/// What a segment's header block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log it belongs to.
    pub identity: LogIdentity,
    /// Its place in the log; rises by one per segment, also over restarts.
    pub segment: u64,
    /// Bytes of the file.
    pub segment_bytes: u64,
}

/// Why a block is not the header that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFault {
    /// Fewer than [`BLOCK_BYTES`].
    Truncated { len_bytes: u64 },
    /// The magic number or the checksum is wrong.
    Damaged,
    /// Written by a version of this program that this one does not know.
    UnknownVersion { version: u32 },
}

impl std::fmt::Display for SegmentFault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated { len_bytes } => {
                write!(out, "cannot read the segment header: the file has {len_bytes} bytes")
            }
            Self::Damaged => write!(out, "cannot read the segment header: checksum mismatch"),
            Self::UnknownVersion { version } => {
                write!(out, "cannot read the segment: format version {version}, known {VERSION}")
            }
        }
    }
}

impl SegmentHeader {
    /// The header block.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..4].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&self.identity.shard.to_le_bytes());
        block[16..32].copy_from_slice(&self.identity.node.to_le_bytes());
        block[32..40].copy_from_slice(&self.identity.incarnation.to_le_bytes());
        block[40..48].copy_from_slice(&self.segment.to_le_bytes());
        block[48..56].copy_from_slice(&self.segment_bytes.to_le_bytes());
        let crc = crc32c(&block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads the first block of a segment file.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentFault> {
        let Some(block) = bytes.first_chunk::<BLOCK_BYTES>() else {
            return Err(SegmentFault::Truncated { len_bytes: bytes.len() as u64 });
        };
        if read_u32(block, 0) != MAGIC || read_u32(block, 4) != crc32c(&block[8..]) {
            return Err(SegmentFault::Damaged);
        }
        let version = read_u32(block, 8);
        if version != VERSION {
            return Err(SegmentFault::UnknownVersion { version });
        }
        Ok(Self {
            identity: LogIdentity {
                node: u128::from(read_u64(block, 16)) | u128::from(read_u64(block, 24)) << 64,
                incarnation: read_u64(block, 32),
                shard: read_u32(block, 12),
            },
            segment: read_u64(block, 40),
            segment_bytes: read_u64(block, 48),
        })
    }
}

/// The file name of segment `segment`: sorted by name is sorted by age.
pub fn segment_file_name(segment: u64) -> String {
    format!("{NAME_PREFIX}{segment:020}{NAME_SUFFIX}")
}

/// The segment that `name` is the file name of.
pub fn parse_segment_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(NAME_PREFIX)?.strip_suffix(NAME_SUFFIX)?;
    if digits.len() != NAME_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read_u32(bytes, at)) | u64::from(read_u32(bytes, at + 4)) << 32
}
