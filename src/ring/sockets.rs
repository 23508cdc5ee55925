//! DRIVER: the ring's operations on sockets: accept, receive, send, close; and the table of tokens
//! behind them.
//!
//! In: calls and completions. Out: entries for the ring, and events. Descriptors must not be
//! `O_NONBLOCK`: for those the kernel answers `EAGAIN` instead of waiting. They stay open until
//! `close` says `Closed`.

use std::collections::VecDeque;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode};

use super::buffers;
use super::event::{Errno, Event, ReceiveEnd, Token};
use super::operations::{Operation, OperationKey, Stop};
use super::reactor::{Ring, RingTimer};
use super::send_buffer::SendBuffer;
use super::timers::TimerId;
use crate::base::time::Duration;

/// How long accepting rests after the process or host ran out of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The most that one send operation carries; the kernel caps it near 2 GiB.
const SEND_BYTES_MAX: usize = 1 << 30;

/// A token with something in flight. Dropped from the table when nothing is.
pub(super) struct Endpoint {
    fd: RawFd,
    /// Operations in the slab under this token.
    in_flight: u32,
    /// Of those, writes: they are never cancelled.
    pub(super) writes: u32,
    /// The receive in the kernel, of either kind.
    pub(super) receive: Option<OperationKey>,
    pub(super) connect: Option<OperationKey>,
    is_sending: bool,
    /// Sends behind the one in the kernel: two at once could interleave.
    waiting: VecDeque<SendBuffer>,
    accept_rest: Option<TimerId>,
    closing: Closing,
}

enum Closing {
    No,
    /// The descriptor is closed as soon as nothing else is in flight.
    Waits(OwnedFd),
    Started,
}

impl Endpoint {
    fn new(fd: RawFd) -> Self {
        Self {
            fd,
            in_flight: 0,
            writes: 0,
            receive: None,
            connect: None,
            is_sending: false,
            waiting: VecDeque::new(),
            accept_rest: None,
            closing: Closing::No,
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    pub(super) fn is_closing(&self) -> bool {
        !matches!(self.closing, Closing::No)
    }
}

impl Ring {
    /// Accepts connections from `listener` until it is closed. Each comes as [`Event::Accepted`].
    pub fn accept(&mut self, listener: Token, fd: RawFd) {
        let endpoint = self.endpoint(listener, fd);
        assert!(
            endpoint.in_flight == 0 && !endpoint.is_closing(),
            "the listener's token is in use"
        );
        self.arm_accept(listener, fd);
    }

    /// Receives from `fd` into provided buffers until the stream ends, buffers run out or
    /// [`Ring::stop_receive`].
    ///
    /// No effect while the token is receiving, either way, or closing. If a stop is under way, it
    /// is followed by a new start, and no [`Event::ReceiveEnded`] comes for it.
    pub fn receive(&mut self, token: Token, fd: RawFd) {
        let endpoint = self.endpoint(token, fd);
        if endpoint.is_closing() {
            return;
        }
        let Some(key) = endpoint.receive else {
            return self.arm_receive(token, fd);
        };
        if let (_, Operation::Receive { stop: stop @ Stop::Asked }) = self.operations.get_mut(key) {
            *stop = Stop::ThenRestart;
        }
    }

    /// Stops receiving, as back-pressure. `Received` may still come until [`Event::ReceiveEnded`].
    /// No effect if the token is not receiving so; a [`Ring::receive_into`] ends by itself.
    pub fn stop_receive(&mut self, token: Token) {
        let Some(key) = self.endpoints.get(&token).and_then(|endpoint| endpoint.receive) else {
            return;
        };
        let (_, Operation::Receive { stop }) = self.operations.get_mut(key) else {
            return;
        };
        match *stop {
            Stop::Asked | Stop::Closing => {}
            Stop::ThenRestart => *stop = Stop::Asked,
            Stop::No => {
                *stop = Stop::Asked;
                self.enqueue_cancel(CancelBuilder::user_data(key.user_data()));
            }
        }
    }

    /// Sends all of `buffer`, behind what the token was told to send before. The buffer comes back
    /// in [`Event::Sent`]. When one send fails, those behind it fail with the same error. How many
    /// may wait is the caller's to bound.
    pub fn send(&mut self, token: Token, fd: RawFd, buffer: impl Into<SendBuffer>) {
        let buffer = buffer.into();
        let endpoint = self.endpoint(token, fd);
        if endpoint.is_closing() {
            let result = Err(Errno(libc::ECANCELED));
            self.ready.push(Event::Sent { token, buffer, result });
        } else if endpoint.is_sending {
            endpoint.waiting.push_back(buffer);
        } else {
            endpoint.is_sending = true;
            let key = self.start(token, Operation::Send { buffer, sent: 0 });
            self.submit_send(key, fd);
        }
    }

    /// Cancels what the token has in flight, except writes, which are waited for; then closes `fd`.
    /// From now on there is no `Received` or `ReceiveEnded` of it. Sends and `receive_into` come
    /// back as failed. [`Event::Closed`] is the last.
    pub fn close(&mut self, token: Token, fd: OwnedFd) {
        let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
        let endpoint = self.endpoint(token, raw);
        assert!(!endpoint.is_closing(), "a descriptor has one owner");
        endpoint.closing = Closing::Waits(fd);
        let waiting = std::mem::take(&mut endpoint.waiting);
        let (receive, accept_rest) = (endpoint.receive, endpoint.accept_rest.take());
        let needs_cancel = endpoint.in_flight > endpoint.writes;
        let has_writes = endpoint.writes > 0;
        for buffer in waiting {
            let result = Err(Errno(libc::ECANCELED));
            self.ready.push(Event::Sent { token, buffer, result });
        }
        if let Some(id) = accept_rest {
            self.timers.cancel(id);
        }
        if let Some(key) = receive
            && let (_, Operation::Receive { stop }) = self.operations.get_mut(key)
        {
            *stop = Stop::Closing;
        }
        assert!(!(needs_cancel && has_writes), "a token is a socket or a file, not both");
        if needs_cancel {
            self.enqueue_cancel(CancelBuilder::fd(Fd(raw)).all());
        }
        self.settle(token);
    }

    pub(super) fn endpoint(&mut self, token: Token, fd: RawFd) -> &mut Endpoint {
        let endpoint = self.endpoints.entry(token).or_insert_with(|| Endpoint::new(fd));
        assert!(endpoint.fd == fd, "a token names one descriptor until it is closed");
        endpoint
    }

    /// The entry of a token that is in the table.
    pub(super) fn endpoint_of(&mut self, token: Token) -> &mut Endpoint {
        self.endpoints.get_mut(&token).expect("lives while it has operations")
    }

    /// Puts an operation of a token that is in the table into the slab.
    pub(super) fn start(&mut self, token: Token, operation: Operation) -> OperationKey {
        self.endpoint_of(token).in_flight += 1;
        self.operations.insert(token, operation)
    }

    /// Takes a finished operation out of the slab, and its token out of the table if it was the
    /// last.
    pub(super) fn finish(&mut self, key: OperationKey) -> Operation {
        let (token, operation) = self.operations.remove(key);
        let endpoint = self.endpoint_of(token);
        endpoint.in_flight -= 1;
        match operation {
            Operation::WriteSync(_) => endpoint.writes -= 1,
            Operation::Receive { .. } | Operation::ReceiveInto(_) => endpoint.receive = None,
            Operation::Connect(_) => endpoint.connect = None,
            Operation::Send { .. } => endpoint.is_sending = false,
            Operation::Wake | Operation::Accept | Operation::Close => {}
        }
        operation
    }

    /// When nothing of the token is in flight: closes its descriptor if that waits, else forgets
    /// the token.
    pub(super) fn settle(&mut self, token: Token) {
        let Some(endpoint) = self.endpoints.get_mut(&token) else {
            return;
        };
        if endpoint.in_flight > 0 || endpoint.accept_rest.is_some() {
            return;
        }
        match std::mem::replace(&mut endpoint.closing, Closing::Started) {
            Closing::Waits(fd) => {
                let key = self.start(token, Operation::Close);
                // The kernel owns the descriptor from here: nothing else of ours knows its number.
                let close = opcode::Close::new(Fd(fd.into_raw_fd())).build();
                self.enqueue(close.user_data(key.user_data()), None);
            }
            Closing::No | Closing::Started => {
                self.endpoints.remove(&token);
            }
        }
    }

    fn is_closing(&self, token: Token) -> bool {
        self.endpoints.get(&token).is_some_and(Endpoint::is_closing)
    }

    fn arm_accept(&mut self, listener: Token, fd: RawFd) {
        let key = self.start(listener, Operation::Accept);
        let accept = opcode::AcceptMulti::new(Fd(fd)).flags(libc::SOCK_CLOEXEC).build();
        self.enqueue(accept.user_data(key.user_data()), None);
    }

    /// The rest after a failed accept is over.
    pub(super) fn accept_again(&mut self, listener: Token) {
        let Some(endpoint) = self.endpoints.get_mut(&listener) else {
            return;
        };
        endpoint.accept_rest = None;
        let fd = endpoint.fd;
        self.arm_accept(listener, fd);
    }

    pub(super) fn handle_accept(
        &mut self,
        listener: Token,
        key: OperationKey,
        completion: &cqueue::Entry,
    ) {
        let result = completion.result();
        if result >= 0 {
            // SAFETY: the kernel made this descriptor for us, and nobody else knows of it.
            let socket = unsafe { OwnedFd::from_raw_fd(result) };
            self.ready.push(Event::Accepted { listener, socket });
        }
        if cqueue::more(completion.flags()) {
            return;
        }
        self.finish(key);
        if self.is_closing(listener) {
            return self.settle(listener);
        }
        match -result {
            // A connection that was reset before we took it is not the listener's fault.
            ..=0 | libc::ECONNABORTED | libc::EPROTO | libc::EINTR => {
                let fd = self.endpoints[&listener].fd;
                return self.arm_accept(listener, fd);
            }
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
                let timer = RingTimer::AcceptAgain(listener);
                let id = self.timers.set(self.now + ACCEPT_REST, timer);
                if let Some(endpoint) = self.endpoints.get_mut(&listener) {
                    endpoint.accept_rest = Some(id);
                }
            }
            _ => self.settle(listener),
        }
        self.ready.push(Event::AcceptFailed { listener, errno: Errno(-result) });
    }

    fn arm_receive(&mut self, token: Token, fd: RawFd) {
        let key = self.start(token, Operation::Receive { stop: Stop::No });
        if let Some(endpoint) = self.endpoints.get_mut(&token) {
            endpoint.receive = Some(key);
        }
        let receive = opcode::RecvMulti::new(Fd(fd), buffers::GROUP).build();
        self.enqueue(receive.user_data(key.user_data()), None);
    }

    pub(super) fn handle_receive(
        &mut self,
        token: Token,
        key: OperationKey,
        completion: &cqueue::Entry,
    ) {
        let (_, Operation::Receive { stop }) = self.operations.get_mut(key) else {
            unreachable!("dispatched by its kind");
        };
        let stop = *stop;
        let result = completion.result();
        if let Some(id) = cqueue::buffer_select(completion.flags()) {
            let len = u32::try_from(result).unwrap_or(0);
            let lease = self.buffers.lease(id, len);
            // At the end of the stream a buffer may come back empty.
            if len == 0 || stop == Stop::Closing {
                self.buffers.recycle(lease);
            } else {
                self.ready.push(Event::Received { token, lease });
            }
        }
        if cqueue::more(completion.flags()) {
            return;
        }
        self.finish(key);
        let reason = match (-result, stop) {
            (_, Stop::Closing) => return self.settle(token),
            // The kernel ended it without a reason of ours, as it does when its completion queue is
            // full.
            (..0, Stop::No | Stop::ThenRestart) | (libc::ECANCELED, Stop::ThenRestart) => {
                let fd = self.endpoints[&token].fd;
                return self.arm_receive(token, fd);
            }
            (..0 | libc::ECANCELED, _) => ReceiveEnd::Cancelled,
            (0, _) => ReceiveEnd::PeerClosed,
            (libc::ENOBUFS, _) => {
                self.counters.no_buffers += 1;
                ReceiveEnd::NoBuffers
            }
            (errno, _) => ReceiveEnd::Failed(Errno(errno)),
        };
        self.ready.push(Event::ReceiveEnded { token, reason });
        self.settle(token);
    }

    /// Submits what is left of a send.
    fn submit_send(&mut self, key: OperationKey, fd: RawFd) {
        let (_, Operation::Send { buffer, sent }) = self.operations.get_mut(key) else {
            unreachable!("only called for sends");
        };
        let rest = &buffer[*sent..];
        let len = u32::try_from(rest.len().min(SEND_BYTES_MAX)).expect("at most 2^30");
        let send = opcode::Send::new(Fd(fd), rest.as_ptr(), len)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.enqueue(send.user_data(key.user_data()), None);
    }

    pub(super) fn handle_send(&mut self, token: Token, key: OperationKey, result: i32) {
        let endpoint = &self.endpoints[&token];
        let (fd, is_closing) = (endpoint.fd, endpoint.is_closing());
        let (_, Operation::Send { buffer, sent }) = self.operations.get_mut(key) else {
            unreachable!("dispatched by its kind");
        };
        *sent += usize::try_from(result).unwrap_or(0);
        let is_whole = *sent == buffer.len();
        let is_going_on = result > 0 || result == -libc::EINTR;
        if !is_whole && is_going_on && !is_closing {
            return self.submit_send(key, fd);
        }
        let result = match result {
            _ if is_whole => Ok(()),
            0 => Err(Errno(libc::EPIPE)),
            1.. => Err(Errno(libc::ECANCELED)),
            errno => Err(Errno(-errno)),
        };
        self.finish_send(token, key, result);
    }

    fn finish_send(&mut self, token: Token, key: OperationKey, result: Result<(), Errno>) {
        if let Operation::Send { buffer, .. } = self.finish(key) {
            self.ready.push(Event::Sent { token, buffer, result });
        }
        let endpoint = self.endpoints.get_mut(&token).expect("settle has not been called");
        let fd = endpoint.fd;
        if result.is_err() {
            let waiting = std::mem::take(&mut endpoint.waiting);
            let failed = waiting.into_iter().map(|buffer| Event::Sent { token, buffer, result });
            self.ready.extend(failed);
        } else if let Some(buffer) = endpoint.waiting.pop_front() {
            endpoint.is_sending = true;
            let key = self.start(token, Operation::Send { buffer, sent: 0 });
            return self.submit_send(key, fd);
        }
        self.settle(token);
    }
}
