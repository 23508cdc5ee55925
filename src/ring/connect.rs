//! DRIVER: the ring's operation that opens connections.
//!
//! In: an address, options, a deadline. Out: one `Event::Connected` with the socket or the errno,
//! whatever happens. The ring owns socket and address until then. The deadline is a timer of the
//! wheel that cancels the connect: the wheel is there anyway, and a linked timeout would be a
//! second operation with memory and completion of its own, for a precision of which a connect has
//! no need. Not here: names (discovery resolves them), and when to try again.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::opcode;
use io_uring::types::{CancelBuilder, Fd};
use socket2::SockAddr;

use super::event::{Errno, Event, Token};
use super::operations::{Operation, OperationKey};
use super::reactor::{Ring, RingTimer};
use super::socket_options::{SocketOptions, is_connected_to_itself};
use super::timers::TimerId;
use crate::base::time::Instant;

/// How long a connect may take, and the options of its socket.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// When it fails with `ETIMEDOUT` at the latest, but for a tick ([`super::TICK_MS`]). The
    /// kernel by itself gives up only after two minutes.
    pub deadline: Instant,
    /// Set before the first packet, as the window's scale is agreed on with it.
    pub socket: SocketOptions,
}

/// A connect under way.
pub(super) struct Connect {
    socket: OwnedFd,
    /// Boxed, as the kernel is given its place and the operation moves within the slab.
    address: Box<SockAddr>,
    deadline: TimerId,
    stop: ConnectStop,
}

/// Why a connect is being cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectStop {
    No,
    Deadline,
    /// The caller does not want it any more, also if it succeeds.
    Caller,
}

impl Ring {
    /// Connects to `address`; one [`Event::Connected`] under `token` gives the socket, which is
    /// then received from, sent to and closed as an accepted one, also under this token.
    ///
    /// Fails with what `connect(2)` fails with: `ECONNREFUSED` (also for the rare connection of a
    /// port of this host to itself), `EHOSTUNREACH`, and so on; with `ETIMEDOUT` at the deadline,
    /// `ECANCELED` after [`Ring::cancel_connect`], `EMFILE` and its like if there can be no socket.
    pub fn connect(&mut self, token: Token, address: SocketAddr, options: &ConnectOptions) {
        assert!(!self.endpoints.contains_key(&token), "the token is in use");
        let socket = match options.socket.open(address) {
            Ok(socket) => socket,
            Err(errno) => {
                return self.ready.push(Event::Connected { token, result: Err(errno) });
            }
        };
        self.endpoint(token, socket.as_raw_fd());
        let address = Box::new(SockAddr::from(address));
        let deadline = self.timers.set(options.deadline, RingTimer::ConnectDeadline(token));
        let connect = Connect { socket, address, deadline, stop: ConnectStop::No };
        let key = self.start(token, Operation::Connect(connect));
        self.endpoint_of(token).connect = Some(key);
        self.submit_connect(key);
    }

    /// Gives a connect up. [`Event::Connected`] still comes, and always with an error: a connection
    /// that was made meanwhile is closed. No effect if the token is not connecting.
    pub fn cancel_connect(&mut self, token: Token) {
        self.stop_connect(token, ConnectStop::Caller);
    }

    /// The deadline of a connect has come.
    pub(super) fn handle_connect_deadline(&mut self, token: Token) {
        self.stop_connect(token, ConnectStop::Deadline);
    }

    fn stop_connect(&mut self, token: Token, why: ConnectStop) {
        let Some(key) = self.endpoints.get(&token).and_then(|endpoint| endpoint.connect) else {
            return;
        };
        let connect = self.connect_of(key);
        let is_first = connect.stop == ConnectStop::No;
        if connect.stop != ConnectStop::Caller {
            connect.stop = why;
        }
        if is_first {
            self.enqueue_cancel(CancelBuilder::user_data(key.user_data()));
        }
    }

    fn submit_connect(&mut self, key: OperationKey) {
        let connect = self.connect_of(key);
        let (fd, address) = (Fd(connect.socket.as_raw_fd()), &connect.address);
        let entry = opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build();
        self.enqueue(entry.user_data(key.user_data()), None);
    }

    pub(super) fn handle_connect(&mut self, token: Token, key: OperationKey, result: i32) {
        if result == -libc::EINTR && self.connect_of(key).stop == ConnectStop::No {
            return self.submit_connect(key);
        }
        let Operation::Connect(connect) = self.finish(key) else {
            unreachable!("dispatched by its kind");
        };
        self.timers.cancel(connect.deadline);
        self.ready.push(Event::Connected { token, result: connect.into_outcome(result) });
        self.settle(token);
    }

    fn connect_of(&mut self, key: OperationKey) -> &mut Connect {
        match self.operations.get_mut(key) {
            (_, Operation::Connect(connect)) => connect,
            _ => unreachable!("dispatched by its kind"),
        }
    }
}

impl Connect {
    /// The socket, or why there is none; then it is closed here.
    fn into_outcome(self, result: i32) -> Result<OwnedFd, Errno> {
        match (-result, self.stop) {
            (_, ConnectStop::Caller) => Err(Errno(libc::ECANCELED)),
            (libc::ECANCELED | libc::EINTR, ConnectStop::Deadline) => Err(Errno(libc::ETIMEDOUT)),
            (..=0, _) if is_connected_to_itself(&self.socket) => Err(Errno(libc::ECONNREFUSED)),
            (..=0, _) => Ok(self.socket),
            (errno, _) => Err(Errno(errno)),
        }
    }
}
