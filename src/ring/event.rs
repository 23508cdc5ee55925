//! What the ring and its one user, the shard loop, say to each other: tokens, events, and how to
//! idle.

use std::fmt;
use std::os::fd::OwnedFd;

use super::buffers::BufferLease;
use super::send_buffer::{FrameBuffer, SendBuffer};
use crate::base::bytes::AlignedBuffer;
use crate::base::time::Instant;

/// The caller's name for a connection, listener, file or timer. All 64 bits are the caller's: the
/// ring keeps tokens in a table of its own operations and never in the kernel's `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What happened. Events of one socket come in the order in which the kernel did them.
#[derive(Debug)]
#[must_use = "an event may own a descriptor or a lease"]
pub enum Event {
    /// A client connected. The socket blocks (no `O_NONBLOCK`), as the ring needs it, and is closed
    /// on exec.
    Accepted { listener: Token, socket: OwnedFd },
    /// Accepting failed: `EMFILE` and its like are tried again by the ring after 100 ms; a listener
    /// that is unusable (`EBADF`, `EINVAL`) is not.
    AcceptFailed { listener: Token, errno: Errno },
    /// One `Ring::connect` is over. The socket is as an accepted one; without one, nothing of the
    /// token is in flight.
    Connected { token: Token, result: Result<OwnedFd, Errno> },
    /// Bytes arrived: read them by `Ring::buffer`, then hand the lease to `Ring::recycle`.
    Received { token: Token, lease: BufferLease },
    /// No more `Received` for this token until `Ring::receive` is called again.
    ReceiveEnded { token: Token, reason: ReceiveEnd },
    /// One `Ring::receive_into` is over: the buffer is as long as was needed, or holds what came
    /// before the end.
    ReceivedInto { token: Token, buffer: FrameBuffer, result: Result<(), ReceiveEnd> },
    /// One `Ring::send` is over: all of it is in the socket's buffer, or the connection failed. The
    /// buffer comes back, as what it was handed in.
    Sent { token: Token, buffer: SendBuffer, result: Result<(), Errno> },
    /// One `Ring::write_sync` is over: `Ok` only if all bytes were written and then synced.
    Written { token: Token, buffer: AlignedBuffer, result: Result<(), Errno> },
    /// The descriptor is closed and nothing of the token is in flight: the token may be used anew.
    Closed { token: Token },
    /// A timer's deadline passed, up to one tick ago.
    Timer { token: Token },
    /// Another thread called `RingWaker::wake` while this one slept, or was about to. At most one
    /// per turn.
    Woken,
}

/// Why a receive ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer sent its FIN.
    PeerClosed,
    /// All provided buffers are leased. Recycle some, then call `Ring::receive` again; the bytes
    /// wait in the socket. Never of a `Ring::receive_into`.
    NoBuffers,
    /// `Ring::stop_receive` took effect, or, for a `Ring::receive_into`, `Ring::close`.
    Cancelled,
    /// The connection is broken, most often `ECONNRESET`.
    Failed(Errno),
}

/// An error number of the kernel. Displays as the system's text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(formatter)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        nix::errno::Errno::from_raw(self.0).fmt(formatter)
    }
}

/// How `Ring::write_sync` makes its bytes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMethod {
    /// A write, and an `fdatasync` linked behind it: two operations, one submission.
    Fdatasync,
    /// One write with `RWF_DSYNC`: the device writes through (FUA) where it can.
    Dsync,
}

/// What a turn does when nothing has completed.
#[derive(Clone, Copy)]
pub enum Idle<'a> {
    /// Return at once.
    Poll,
    /// Sleep until a completion, a timer, a wake-up or `until`.
    ///
    /// `is_idle` must say whether the thread's mailboxes are all empty. The ring calls it after it
    /// has announced its sleep, and sleeps only if it says yes. So a caller cannot forget the
    /// second look that makes wake-ups reliable.
    Wait { until: Option<Instant>, is_idle: &'a dyn Fn() -> bool },
}

/// Totals since the ring was made, for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls of `Ring::turn`.
    pub turns: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Operations handed to the kernel.
    pub submitted: u64,
    /// Completions taken from the kernel.
    pub completions: u64,
    /// Receives that ended because every buffer was leased.
    pub no_buffers: u64,
    /// Turns that found the completion queue overflown (nothing is lost, but it is slow).
    pub overflows: u64,
    /// Turns that really slept.
    pub sleeps: u64,
    /// Wake-ups by other threads that arrived.
    pub woken: u64,
}
