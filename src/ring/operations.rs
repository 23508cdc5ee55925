//! The operations in flight: who asked, what memory the kernel is using for it, and how far it is.
//! Pure.
//!
//! An operation's slot is freed only after its last completion; until then it owns the operation's
//! memory. The kernel names a slot by `user_data`:
//!
//! ```text
//! | generation 31 | part 1 | index 32 |      part 1 is the linked fdatasync of a write
//! ```

use std::os::fd::RawFd;

use super::connect::Connect;
use super::event::{SyncMethod, Token};
use super::receive_into::ReceiveInto;
use super::send_buffer::SendBuffer;
use crate::base::bytes::AlignedBuffer;

/// `user_data` of cancellations: their own outcome does not matter, that of their target does.
pub(super) const CANCEL_KEY: u64 = u64::MAX;

const PART_BIT: u64 = 1 << 32;
const GENERATION_SHIFT: u32 = 33;
// One less than all ones, so that no key equals CANCEL_KEY.
const GENERATIONS: u32 = (1 << 31) - 1;

/// Names an operation, in the ring's tables and in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OperationKey {
    index: u32,
    generation: u32,
}

impl OperationKey {
    pub(super) fn user_data(self) -> u64 {
        u64::from(self.generation) << GENERATION_SHIFT | u64::from(self.index)
    }

    /// `user_data` of the fdatasync that is linked to this operation's write.
    pub(super) fn sync_user_data(self) -> u64 {
        self.user_data() | PART_BIT
    }

    /// The key, and whether the completion is of the linked fdatasync.
    pub(super) fn from_user_data(user_data: u64) -> (Self, bool) {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the layout above")]
        let key =
            Self { index: user_data as u32, generation: (user_data >> GENERATION_SHIFT) as u32 };
        (key, user_data & PART_BIT != 0)
    }
}

pub(super) enum Operation {
    /// The multishot poll of the waker's eventfd.
    Wake,
    Accept,
    Connect(Connect),
    Receive {
        stop: Stop,
    },
    ReceiveInto(ReceiveInto),
    Send {
        buffer: SendBuffer,
        sent: usize,
    },
    WriteSync(WriteSync),
    Close,
}

/// Where a multishot receive stands between `receive` and `stop_receive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// A cancellation is under way.
    Asked,
    /// A cancellation is under way, and since then the caller wants to receive again.
    ThenRestart,
    /// The token is being closed: nothing of it is told any more.
    Closing,
}

/// A write that must be durable when it is over.
pub(super) struct WriteSync {
    pub(super) fd: RawFd,
    pub(super) buffer: AlignedBuffer,
    /// Bytes to write in all, from the buffer's start to `offset` in the file.
    pub(super) len: usize,
    pub(super) offset: u64,
    pub(super) written: usize,
    pub(super) method: SyncMethod,
    /// Completions to come before the next step.
    pub(super) pending: u8,
    /// What the write of this step gave, once it is known.
    pub(super) write_result: i32,
    pub(super) sync_result: Option<i32>,
    /// The link was torn in submission, so the sync may have run before the write: sync once more.
    pub(super) is_torn: bool,
    /// Steps that did not get further; a few are forgiven.
    pub(super) stalls: u8,
}

struct Slot {
    generation: u32,
    content: Option<(Token, Operation)>,
}

/// The slab. O(1) throughout; grows to the most that was ever in flight.
#[derive(Default)]
pub(super) struct Operations {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Operations {
    pub(super) fn insert(&mut self, token: Token, operation: Operation) -> OperationKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, content: None });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 operations in flight")
        });
        let slot = &mut self.slots[index as usize];
        slot.content = Some((token, operation));
        OperationKey { index, generation: slot.generation }
    }

    /// The operation of `key`. A completion for anything else means that memory is no longer what
    /// we think it is.
    pub(super) fn get_mut(&mut self, key: OperationKey) -> &mut (Token, Operation) {
        let slot = &mut self.slots[key.index as usize];
        assert!(slot.generation == key.generation, "a completion of a finished operation");
        slot.content.as_mut().expect("a completion of a finished operation")
    }

    pub(super) fn remove(&mut self, key: OperationKey) -> (Token, Operation) {
        self.get_mut(key);
        let slot = &mut self.slots[key.index as usize];
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(key.index);
        slot.content.take().expect("get_mut has seen it")
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Operation> {
        self.slots.iter_mut().filter_map(|slot| Some(&mut slot.content.as_mut()?.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_names_slot_generation_and_part() {
        for (index, generation) in [(0, 0), (7, 1), (u32::MAX, GENERATIONS - 1)] {
            let key = OperationKey { index, generation };
            assert_eq!(OperationKey::from_user_data(key.user_data()), (key, false));
            assert_eq!(OperationKey::from_user_data(key.sync_user_data()), (key, true));
            assert_ne!(key.sync_user_data(), CANCEL_KEY);
        }
    }

    #[test]
    fn a_reused_slot_has_another_key() {
        let mut operations = Operations::default();
        let first = operations.insert(Token(1), Operation::Accept);
        operations.remove(first);
        let second = operations.insert(Token(2), Operation::Accept);
        assert_ne!(first.user_data(), second.user_data());
        assert_eq!((operations.in_flight(), operations.get_mut(second).0), (1, Token(2)));
    }
}
