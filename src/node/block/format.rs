//! The layout of a block's file, version 1, and its small parts.
//!
//! ```text
//! | header, 64 | columns | series pages | pair pages | postings | order pages |
//! | directory | meta | zeros | trailer, 64 |                    length: whole 4096s
//!
//! header:   | "tdgB" u32 | version u32 | id u64 | node u128 | zeros 28 | crc32c u32 |
//! columns:  value and timestamp columns of chunks; a timestamp column that was written before is
//!           referred to again (what is scraped together has the same times)
//! series page (16 KiB, one tenant, ids ascending, by labels as Prometheus sorts them), each:
//!   | shared v | rest v | `rest` pair refs v | chunks v | chunks |
//!   `shared`: leading pairs that are those of the series before in the page
//! chunk:    | min z | span z | count z | codecs u8 | times len v | times at z | values len v |
//!           | gap v | crc32c u32 |
//!   min, span (max - min), count: differences from the chunk before in the page, from 0
//!   codecs: timestamps in the low half, values in the high; times at: from the one before, only
//!   if the length is not 0; gap: from the end of the values before
//! pair page (one name, values ascending), each:
//!   | shared v | rest v | bytes of the value | series v | if 1: id v, else: length v, crc32c u32 |
//!   then of every 16th pair, which shares nothing: | its place in the page u32 |
//!   | that of its postings, from those of the page u32 |
//! postings: kind u8, then 0: runs | gap v | len - 1 v |, 1: a roaring bitmap
//! order:    u32 each: pair ref (order of first appearance) -> rank (order of tenant, name, value)
//! ```
//! v: varint; z: zigzag varint; numbers little-endian. Pages, columns (one checksum over both of a
//! chunk), postings, directory, meta, header and trailer each have a CRC32C in what refers to them,
//! the zeros are checked to be zeros: no byte of a block can change unseen.

use crate::base::checksum::crc32c;
use crate::base::varint::{read_varint, write_varint};

/// Length of header and trailer.
pub const BLOCK_EDGE_BYTES: usize = 64;
/// Blocks are whole multiples of this.
pub const BLOCK_ALIGN_BYTES: usize = 4096;
/// A page is closed once it has so many bytes.
pub(super) const PAGE_BYTES: usize = 16 << 10;
/// Entries of an order page.
pub(super) const ORDER_ENTRIES: u32 = 4096;
/// Longest part that a reader takes at once; bounds what damage can make it allocate.
pub(super) const PART_BYTES_MAX: u32 = 256 << 20;

pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"tdgB");
pub(super) const TRAILER_MAGIC: u32 = u32::from_le_bytes(*b"tdgE");

/// Why a block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockFault {
    /// The disk did not give the bytes (errno).
    Io { errno: i32 },
    /// The file ends before `offset`.
    Truncated { offset: u64 },
    /// It is not a block.
    NotABlock,
    /// A version that this program does not know.
    UnknownVersion { version: u32 },
    /// The bytes at `offset` are not those that were written.
    Corrupt { offset: u64 },
    /// The checksum at `offset` holds and the bytes contradict themselves: our own mistake.
    Malformed { offset: u64 },
}

impl BlockFault {
    /// Where in the file, if it is known.
    pub fn offset(self) -> Option<u64> {
        match self {
            Self::Truncated { offset } | Self::Corrupt { offset } | Self::Malformed { offset } => {
                Some(offset)
            }
            Self::Io { .. } | Self::NotABlock | Self::UnknownVersion { .. } => None,
        }
    }

    /// Whether the file is bad, and not just the attempt to read it.
    pub fn is_damage(self) -> bool {
        !matches!(self, Self::Io { .. })
    }
}

impl std::fmt::Display for BlockFault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { errno } => {
                write!(out, "cannot read: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Self::Truncated { offset } => write!(out, "ends before byte {offset}"),
            Self::NotABlock => write!(out, "is not a block"),
            Self::UnknownVersion { version } => write!(out, "has the unknown version {version}"),
            Self::Corrupt { offset } => write!(out, "is corrupt at byte {offset}"),
            Self::Malformed { offset } => write!(out, "contradicts itself at byte {offset}"),
        }
    }
}

/// Where a checksummed part of a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRef {
    /// From the start of the file.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// Of these bytes.
    pub crc: u32,
}

impl PageRef {
    pub(super) fn of(offset: u64, bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("parts are shorter than 4 GiB");
        Self { offset, len, crc: crc32c(bytes) }
    }

    /// Checks bytes that were read from there.
    pub fn check(&self, bytes: &[u8]) -> Result<(), BlockFault> {
        if bytes.len() < self.len as usize {
            return Err(BlockFault::Truncated { offset: self.offset + u64::from(self.len) });
        }
        if crc32c(bytes) != self.crc {
            return Err(BlockFault::Corrupt { offset: self.offset });
        }
        Ok(())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
    }
}

pub(super) fn write_zigzag(out: &mut Vec<u8>, value: i64) {
    write_varint(out, (value << 1 ^ value >> 63).cast_unsigned());
}

/// Walks bytes; every method is `None` where they end too early.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.u64().map(u64::cast_signed)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.bytes(16)?.try_into().ok().map(u128::from_le_bytes)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        read_varint(self.bytes, &mut self.at)
    }

    pub(super) fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    pub(super) fn len(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    pub(super) fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.len()?;
        self.bytes(len)
    }

    pub(super) fn page_ref(&mut self) -> Option<PageRef> {
        Some(PageRef { offset: self.u64()?, len: self.u32()?, crc: self.u32()? })
    }
}

pub(super) fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Bytes that `one` and `other` begin with alike.
pub(super) fn shared_len(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
