//! A disk that keeps its promises and no more: what was synced stays, what was not may be there in
//! any part.
//!
//! Faults: sectors of 512 bytes of an unsynced write arrive in any subset (torn, lost, reordered),
//! or with flipped bits; writes and syncs fail with EIO after doing some of their work; there may
//! be no room for another segment.

use std::collections::BTreeMap;

use tidegate::base::bytes::AlignedBuffer;
use tidegate::node::log::{BLOCK_BYTES, LogIdentity, RECORD_HEADER_BYTES, SegmentHeader};

use crate::random::Random;

const SECTOR_BYTES: usize = 512;
const RECYCLED_MAX: usize = 3;

/// A write that was not synced yet.
struct Unsynced {
    segment: u64,
    offset: usize,
    bytes: Vec<u8>,
}

pub struct Disk {
    identity: LogIdentity,
    files: BTreeMap<u64, Vec<u8>>,
    retired: Vec<Vec<u8>>,
    unsynced: Option<Unsynced>,
    pub is_full: bool,
}

impl Disk {
    pub fn new(identity: LogIdentity) -> Self {
        let (files, retired) = (BTreeMap::new(), Vec::new());
        Self { identity, files, retired, unsynced: None, is_full: false }
    }

    /// Makes a segment file of a retired one, whose old records stay in it, or of zeros.
    pub fn prepare(&mut self, segment: u64, bytes: u64, random: &mut Random) -> Result<(), i32> {
        if self.is_full {
            return Err([libc::ENOSPC, libc::EDQUOT, libc::EROFS][random.below(3)]);
        }
        let len = usize::try_from(bytes).expect("small");
        let mut file = self.retired.pop().unwrap_or_else(|| vec![0; len]);
        let header = SegmentHeader { identity: self.identity, segment, segment_bytes: bytes };
        file[..BLOCK_BYTES].copy_from_slice(&header.encode());
        assert!(self.files.insert(segment, file).is_none(), "segment {segment} is made twice");
        Ok(())
    }

    pub fn retire(&mut self, below_segment: u64) {
        let kept = self.files.split_off(&below_segment);
        let below = std::mem::replace(&mut self.files, kept);
        self.retired.extend(below.into_values());
        self.retired.truncate(RECYCLED_MAX);
    }

    /// A write begins: any part of it may be on the disk from now on.
    pub fn begin_write(&mut self, segment: u64, offset: u64, buffer: &AlignedBuffer) {
        let file = self.files.get(&segment).expect("a write to a segment that is not there");
        let offset = usize::try_from(offset).expect("small");
        assert!(offset >= BLOCK_BYTES && offset.is_multiple_of(BLOCK_BYTES));
        assert!(buffer.len().is_multiple_of(BLOCK_BYTES) && !buffer.is_empty());
        assert!(offset + buffer.len() <= file.len(), "a write behind the end of a segment");
        assert!(self.unsynced.is_none(), "two writes in flight");
        self.unsynced = Some(Unsynced { segment, offset, bytes: buffer.to_vec() });
    }

    /// The write and its sync succeed.
    pub fn finish_write(&mut self) {
        let Unsynced { segment, offset, bytes } = self.unsynced.take().expect("a write");
        let file = self.files.get_mut(&segment).expect("checked when it began");
        file[offset..offset + bytes.len()].copy_from_slice(&bytes);
    }

    /// The write or its sync fails, or the power does: each of its sectors is old, new or damaged.
    pub fn tear_write(&mut self, random: &mut Random) {
        let Some(Unsynced { segment, offset, bytes }) = self.unsynced.take() else { return };
        let file = self.files.get_mut(&segment).expect("checked when it began");
        let kept_of_eight = random.below(9);
        let flips = random.once_in(4);
        for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let at = offset + index * SECTOR_BYTES;
            if random.below(8) < kept_of_eight {
                file[at..at + SECTOR_BYTES].copy_from_slice(sector);
                if flips && random.once_in(4) {
                    // Half of them in what may be a record's header.
                    let limit = [RECORD_HEADER_BYTES, SECTOR_BYTES][random.below(2)];
                    file[at + random.below(limit)] ^= 1 << random.below(8);
                }
            }
        }
    }

    /// The segments from `from` on, in order.
    pub fn segments(&self, from: u64) -> impl Iterator<Item = (u64, &[u8])> {
        self.files.range(from..).map(|(segment, file)| (*segment, &file[..]))
    }

    /// Flips a bit of what is durable.
    pub fn rot(&mut self, segment: u64, offset: usize, bit: usize) {
        self.files.get_mut(&segment).expect("a segment")[offset] ^= 1 << bit;
    }
}
