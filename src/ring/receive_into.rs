//! DRIVER: the ring's operation that receives into a buffer of the caller: the frame's own.
//!
//! In: a buffer and how far it is to be filled. Out: `Event::ReceivedInto` with the buffer, filled
//! so far or the connection's end. The kernel copies straight to where the bytes stay, so a frame
//! of any length lies contiguous and 16-aligned without a copy of ours; the price against
//! `Ring::receive` is a buffer per waiting connection, which links can afford and clients cannot.
//! Not here: what a header says.

use std::os::fd::RawFd;

use io_uring::opcode;
use io_uring::types::Fd;

use super::event::{Errno, Event, ReceiveEnd, Token};
use super::operations::{Operation, OperationKey};
use super::reactor::Ring;
use super::send_buffer::FrameBuffer;

/// The most that one receive operation asks for; the kernel caps it near 2 GiB.
const RECEIVE_BYTES_MAX: usize = 1 << 30;

/// Up to where a buffer is filled, as lengths of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveRange {
    /// The operation is over when the buffer is at least so long.
    pub need: usize,
    /// What has arrived is taken up to this length; `need` or more. With a frame's length as
    /// `need` and the next frame's header behind it as `room`, a stream of frames costs about one
    /// operation each.
    pub room: usize,
}

impl ReceiveRange {
    /// Exactly so far.
    pub fn to(len: usize) -> Self {
        Self { need: len, room: len }
    }
}

/// A receive under way.
pub(super) struct ReceiveInto {
    buffer: FrameBuffer,
    range: ReceiveRange,
}

impl Ring {
    /// Receives behind what `buffer` holds until it is `range.need` long, without ever growing its
    /// memory. [`Event::ReceivedInto`] gives it back.
    ///
    /// A token receives one way at a time: this one, once per call, or [`Ring::receive`]; before
    /// one is changed for the other, the first has to be over. While the token is closing the
    /// buffer comes back as cancelled.
    pub fn receive_into(
        &mut self,
        token: Token,
        fd: RawFd,
        buffer: FrameBuffer,
        range: ReceiveRange,
    ) {
        let is_possible = buffer.len() < range.need
            && range.need <= range.room
            && range.room <= buffer.capacity();
        assert!(is_possible, "the buffer has no room for what it is to hold");
        let endpoint = self.endpoint(token, fd);
        if endpoint.is_closing() {
            let result = Err(ReceiveEnd::Cancelled);
            return self.ready.push(Event::ReceivedInto { token, buffer, result });
        }
        assert!(endpoint.receive.is_none(), "the token is receiving");
        let key = self.start(token, Operation::ReceiveInto(ReceiveInto { buffer, range }));
        self.endpoint_of(token).receive = Some(key);
        self.submit_receive_into(key, fd);
    }

    fn submit_receive_into(&mut self, key: OperationKey, fd: RawFd) {
        let ReceiveInto { buffer, range } = self.receive_into_of(key);
        let len = buffer.len();
        assert!(len < range.room && range.room <= buffer.capacity());
        let want = (range.room - len).min(RECEIVE_BYTES_MAX);
        // Waiting in the kernel for all of it saves a turn for each piece that arrives, but would
        // hold a whole frame back for the next one's header.
        let flags = if range.need == range.room { libc::MSG_WAITALL } else { 0 };
        let start = buffer.as_mut_ptr().wrapping_add(len);
        let entry = opcode::Recv::new(Fd(fd), start, u32::try_from(want).expect("at most 2^30"))
            .flags(flags)
            .build();
        self.enqueue(entry.user_data(key.user_data()), None);
    }

    pub(super) fn handle_receive_into(&mut self, token: Token, key: OperationKey, result: i32) {
        let endpoint = self.endpoint_of(token);
        let (fd, is_closing) = (endpoint.fd(), endpoint.is_closing());
        let receive = self.receive_into_of(key);
        receive.note_received(usize::try_from(result).unwrap_or(0));
        let is_enough = receive.buffer.len() >= receive.range.need;
        let is_going_on = result > 0 || result == -libc::EINTR;
        if !is_enough && is_going_on && !is_closing {
            return self.submit_receive_into(key, fd);
        }
        let result = match -result {
            _ if is_enough => Ok(()),
            ..0 | libc::ECANCELED | libc::EINTR => Err(ReceiveEnd::Cancelled),
            0 => Err(ReceiveEnd::PeerClosed),
            errno => Err(ReceiveEnd::Failed(Errno(errno))),
        };
        if let Operation::ReceiveInto(ReceiveInto { buffer, .. }) = self.finish(key) {
            self.ready.push(Event::ReceivedInto { token, buffer, result });
        }
        self.settle(token);
    }

    fn receive_into_of(&mut self, key: OperationKey) -> &mut ReceiveInto {
        match self.operations.get_mut(key) {
            (_, Operation::ReceiveInto(receive)) => receive,
            _ => unreachable!("dispatched by its kind"),
        }
    }
}

impl ReceiveInto {
    /// The kernel has written `count` bytes behind the buffer's contents.
    fn note_received(&mut self, count: usize) {
        let len = self.buffer.len() + count;
        assert!(len <= self.range.room, "the kernel received more than it was given room for");
        // SAFETY: `room` is at most the capacity, and the kernel has written every byte from the
        // old length to the new one.
        unsafe { self.buffer.set_len(len) };
    }
}
