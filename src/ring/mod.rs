//! The reactor of a shard: one io_uring, used by the one thread that made it. All `unsafe` of the
//! project is here.
//!
//! In: operations on sockets, files and timers, each under a [`Token`] of the caller. Out:
//! [`Event`]s, a batch a turn. The shard loop is `ring.turn(now, idle, &mut events)`, then handling
//! `events`, which starts new operations; those go to the kernel with the next turn's one
//! `io_uring_enter`. Nothing else here blocks.
//!
//! - `reactor`: set-up, the turn, submission, the end. Its operations: `connect`, `sockets`
//!   (accept, receive, send, close), `receive_into`, `files`. `socket_options`: of connections.
//! - `send_buffer`: what a send owns.
//! - `operations`: what is in flight and the memory it uses. `buffers`: what the kernel receives
//!   into.
//! - `timers`: the wheel. `waker`: how other threads end a sleep. `event`: the words above.
//! - `limits`, `topology`: asked once, at start.
//!
//! Invariants: memory that the kernel may touch is owned by the ring until the operation's last
//! completion. A token has at most one receive and one send in the kernel. `Closed` comes after
//! everything else of its token. Not here: HTTP, frames, the log, or any other meaning of a byte;
//! names of hosts.

mod event;
mod send_buffer;
mod socket_options;

mod buffers;
mod operations;
mod timers;
mod waker;

mod connect;
mod files;
mod reactor;
mod receive_into;
mod sockets;

pub mod limits;
pub mod topology;

#[cfg(test)]
mod tests;

pub use buffers::BufferLease;
pub use connect::ConnectOptions;
pub use event::{Errno, Event, Idle, ReceiveEnd, RingCounters, SyncMethod, Token};
pub use files::WriteRange;
pub use limits::RingSetupError;
pub use reactor::{Ring, RingOptions};
pub use receive_into::ReceiveRange;
pub use send_buffer::{FrameBuffer, SendBuffer};
pub use socket_options::{Keepalive, SocketOptions};
pub use timers::TICK_MS;
pub use waker::RingWaker;
