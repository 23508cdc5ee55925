//! DRIVER: the ring itself: set-up, the turn with its one `io_uring_enter`, and the end.
//!
//! In: entries of `sockets` and `files`. Out: [`Event`]s. A turn costs one system call when
//! something is to be submitted or waited for, and none when a poll has nothing to do. Completions
//! that overflow the completion queue wait in the kernel; entries that overflow the submission
//! queue wait in a backlog; neither is ever lost.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use hashbrown::HashMap;
use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use super::buffers::{BufferLease, ProvidedBuffers};
use super::event::{Event, Idle, RingCounters, Token};
use super::limits::{RingSetupError, SetupStep};
use super::operations::{CANCEL_KEY, Operation, OperationKey, Operations};
use super::sockets::Endpoint;
use super::timers::TimerWheel;
use super::waker::RingWaker;
use crate::base::time::{Duration, Instant};

/// Sizes of a ring. The defaults suit a shard of some thousand connections.
#[derive(Clone, Copy, Debug)]
pub struct RingOptions {
    /// Submission queue, rounded up to a power of two; the completion queue is eight times as
    /// large.
    pub entries: u32,
    /// Provided receive buffers: a power of two up to 32768.
    pub receive_buffer_count: u16,
    /// Bytes of each; the most that one `Received` carries.
    pub receive_buffer_bytes: u32,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { entries: 1024, receive_buffer_count: 256, receive_buffer_bytes: 32 * 1024 }
    }
}

/// How often a ring that ends asks the kernel to let go of its memory, ten milliseconds each.
const END_ATTEMPTS: u32 = 100;

// io_uring_enter(2); the crate keeps its names for them to itself.
const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 8;

/// What a timer of the wheel stands for.
pub(super) enum RingTimer {
    Caller(Token),
    AcceptAgain(Token),
    ConnectDeadline(Token),
}

/// One io_uring and what is in flight on it. Belongs to the thread that made it (`SINGLE_ISSUER`),
/// so it is not `Send`.
pub struct Ring {
    uring: ManuallyDrop<IoUring>,
    pub(super) buffers: ManuallyDrop<ProvidedBuffers>,
    pub(super) operations: ManuallyDrop<Operations>,
    /// What is known of each token with something in flight.
    pub(super) endpoints: HashMap<Token, Endpoint>,
    pub(super) timers: TimerWheel<RingTimer>,
    /// The `now` of the turn under way.
    pub(super) now: Instant,
    /// Events of this turn, or of calls since the last.
    pub(super) ready: Vec<Event>,
    pub(super) counters: RingCounters,
    /// Entries, alone or with the one that is linked to them, for which the submission queue had no
    /// room.
    backlog: VecDeque<(Entry, Option<Entry>)>,
    waker: Arc<RingWaker>,
    is_woken: bool,
    is_ending: bool,
    /// Scratch, kept for its capacity.
    completions: Vec<cqueue::Entry>,
    due: Vec<RingTimer>,
    _not_send: PhantomData<*const ()>,
}

impl Ring {
    /// Makes the calling thread's ring, registers its buffers and arms its waker. `now` is the
    /// origin of its timers.
    pub fn new(options: RingOptions, now: Instant) -> Result<Self, RingSetupError> {
        let is_valid = (1..=32_768).contains(&options.entries)
            && options.receive_buffer_count.is_power_of_two()
            && options.receive_buffer_bytes > 0;
        if !is_valid {
            return Err(RingSetupError::Options);
        }
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(options.entries.next_power_of_two() * 8)
            .build(options.entries)
            .map_err(|error| RingSetupError::diagnose(SetupStep::Create, &error))?;
        let memory = |error: io::Error| RingSetupError::diagnose(SetupStep::Memory, &error);
        let mut buffers =
            ProvidedBuffers::map(options.receive_buffer_count, options.receive_buffer_bytes)
                .map_err(memory)?;
        buffers
            .register(&uring.submitter())
            .map_err(|error| RingSetupError::diagnose(SetupStep::Register, &error))?;
        let waker = RingWaker::new().map_err(|errno| memory(errno.into()))?;
        let mut ring = Self {
            uring: ManuallyDrop::new(uring),
            buffers: ManuallyDrop::new(buffers),
            operations: ManuallyDrop::new(Operations::default()),
            endpoints: HashMap::new(),
            timers: TimerWheel::new(now),
            now,
            ready: Vec::new(),
            counters: RingCounters::default(),
            backlog: VecDeque::new(),
            waker: Arc::new(waker),
            is_woken: false,
            is_ending: false,
            completions: Vec::new(),
            due: Vec::new(),
            _not_send: PhantomData,
        };
        ring.arm_wake();
        Ok(ring)
    }

    /// The handle by which other threads end this one's sleep.
    pub fn waker(&self) -> Arc<RingWaker> {
        Arc::clone(&self.waker)
    }

    /// One turn: fires timers that are due at `now`, submits what was started since the last turn,
    /// waits as `idle` says, and puts everything that happened into `events`, which must come in
    /// empty so that nothing is overlooked.
    ///
    /// Sleeps only if there is no event to give. Returns early and without events on a signal, or
    /// when `until` has come.
    /// # Errors
    /// Only what leaves the ring unusable.
    pub fn turn(&mut self, now: Instant, idle: Idle, events: &mut Vec<Event>) -> io::Result<()> {
        assert!(events.is_empty(), "events of the last turn were not handled");
        self.counters.turns += 1;
        self.now = now;
        self.fire_timers();
        self.flush_backlog();
        match idle {
            Idle::Wait { until, is_idle } if self.ready.is_empty() => {
                self.waker.announce_sleep();
                let slept = if is_idle() { self.sleep(until) } else { self.poll() };
                self.waker.announce_awake();
                slept?;
            }
            Idle::Wait { .. } | Idle::Poll => self.poll()?,
        }
        self.take_completions();
        events.append(&mut self.ready);
        Ok(())
    }

    /// Sets a timer that comes as [`Event::Timer`]: never early, up to a tick ([`super::TICK_MS`])
    /// late.
    pub fn set_timer(&mut self, deadline: Instant, token: Token) {
        self.timers.set(deadline, RingTimer::Caller(token));
    }

    /// The bytes of a received buffer.
    pub fn buffer(&self, lease: &BufferLease) -> &[u8] {
        self.buffers.bytes(lease)
    }

    /// Gives a buffer back to the kernel. No system call.
    pub fn recycle(&mut self, lease: BufferLease) {
        self.buffers.recycle(lease);
    }

    /// Buffers that are not leased. After [`super::ReceiveEnd::NoBuffers`], receive again once some
    /// are free.
    pub fn free_buffers(&self) -> u32 {
        self.buffers.free()
    }

    /// Operations in flight, the waker's included.
    pub fn in_flight(&self) -> usize {
        self.operations.in_flight()
    }

    /// Totals for metrics.
    pub fn counters(&self) -> RingCounters {
        self.counters
    }

    /// Queues an entry, and one that is linked behind it, for the next `io_uring_enter`.
    ///
    /// All memory that they point to must be owned by an operation of `operations` (or by this
    /// struct), which lives until the last completion: that is what makes the one `unsafe` push in
    /// `push_chain` sound.
    pub(super) fn enqueue(&mut self, entry: Entry, linked: Option<Entry>) {
        if self.backlog.is_empty() {
            if !self.has_room(linked.is_some()) {
                // What the kernel cannot take now stays in the queue; the turn will report a real
                // failure.
                let _ = self.enter(0, None, 0);
            }
            if self.has_room(linked.is_some()) {
                return self.push_chain(&entry, linked.as_ref());
            }
        }
        self.backlog.push_back((entry, linked));
    }

    /// Queues a cancellation, whose own outcome does not matter.
    pub(super) fn enqueue_cancel(&mut self, target: CancelBuilder) {
        let entry = opcode::AsyncCancel2::new(target).build().user_data(CANCEL_KEY);
        self.enqueue(entry, None);
    }

    fn arm_wake(&mut self) {
        // Multishot and edge-triggered: each write to the eventfd completes it once more, and
        // nobody reads the count.
        let events = libc::POLLIN.cast_unsigned().into();
        let key = self.operations.insert(Token(u64::MAX), Operation::Wake);
        let poll = opcode::PollAdd::new(Fd(self.waker.event_fd()), events).multi(true);
        self.enqueue(poll.build().user_data(key.user_data()), None);
    }

    fn fire_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.advance(self.now, |timer| due.push(timer));
        for timer in due.drain(..) {
            match timer {
                RingTimer::Caller(token) => self.ready.push(Event::Timer { token }),
                RingTimer::AcceptAgain(listener) => self.accept_again(listener),
                RingTimer::ConnectDeadline(token) => self.handle_connect_deadline(token),
            }
        }
        self.due = due;
    }

    fn flush_backlog(&mut self) {
        while let Some((entry, linked)) = self.backlog.pop_front() {
            if !self.has_room(linked.is_some()) {
                let _ = self.enter(0, None, 0);
            }
            if !self.has_room(linked.is_some()) {
                return self.backlog.push_front((entry, linked));
            }
            self.push_chain(&entry, linked.as_ref());
        }
    }

    fn has_room(&mut self, is_linked: bool) -> bool {
        let queue = self.uring.submission();
        queue.capacity() - queue.len() > usize::from(is_linked)
    }

    fn push_chain(&mut self, entry: &Entry, linked: Option<&Entry>) {
        let mut queue = self.uring.submission();
        for entry in std::iter::once(entry).chain(linked) {
            // SAFETY: the memory is owned by an operation until its completion, see `enqueue`.
            let pushed = unsafe { queue.push(entry) };
            assert!(pushed.is_ok(), "has_room was asked");
        }
    }

    /// Submits, and runs what the kernel has deferred; no system call if there is neither.
    fn poll(&mut self) -> io::Result<()> {
        let queue = self.uring.submission();
        let is_needless = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if is_needless {
            return Ok(());
        }
        self.enter(0, None, ENTER_GETEVENTS)
    }

    fn sleep(&mut self, until: Option<Instant>) -> io::Result<()> {
        let deadline = until.into_iter().chain(self.timers.next_deadline()).min();
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(self.now));
        if timeout == Some(Duration::ZERO) {
            return self.poll();
        }
        self.counters.sleeps += 1;
        self.enter(1, timeout, ENTER_GETEVENTS)
    }

    fn enter(&mut self, want: u32, timeout: Option<Duration>, flags: u32) -> io::Result<()> {
        self.counters.enters += 1;
        let queued = u32::try_from(self.uring.submission().len()).expect("at most 32768 entries");
        let submitter = self.uring.submitter();
        let entered = if let Some(timeout) = timeout {
            let timespec = Timespec::from(timeout);
            let arguments = SubmitArgs::new().timespec(&timespec);
            // SAFETY: `queued` entries were pushed; `arguments` is what EXT_ARG takes and outlives
            // the call.
            unsafe { submitter.enter(queued, want, flags | ENTER_EXT_ARG, Some(&arguments)) }
        } else {
            // SAFETY: `queued` entries were pushed; no argument.
            unsafe { submitter.enter::<libc::sigset_t>(queued, want, flags, None) }
        };
        match entered {
            Ok(taken) => {
                self.counters.submitted += taken as u64;
                if taken < queued as usize {
                    self.note_torn_links();
                }
                Ok(())
            }
            // A timeout or signal, or the kernel asks to take completions first: then the entries
            // stay queued.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn take_completions(&mut self) {
        if self.uring.submission().cq_overflow() {
            self.counters.overflows += 1;
        }
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.uring.completion());
        self.counters.completions += completions.len() as u64;
        for completion in completions.drain(..) {
            self.handle_completion(&completion);
        }
        self.completions = completions;
        if std::mem::take(&mut self.is_woken) {
            self.counters.woken += 1;
            self.ready.push(Event::Woken);
        }
    }

    fn handle_completion(&mut self, completion: &cqueue::Entry) {
        if completion.user_data() == CANCEL_KEY {
            return;
        }
        let (key, is_sync) = OperationKey::from_user_data(completion.user_data());
        let (token, operation) = self.operations.get_mut(key);
        let token = *token;
        match operation {
            Operation::Wake => {
                self.is_woken = true;
                if !cqueue::more(completion.flags()) {
                    self.operations.remove(key);
                    if !self.is_ending {
                        self.arm_wake();
                    }
                }
            }
            Operation::Accept => self.handle_accept(token, key, completion),
            Operation::Connect(_) => self.handle_connect(token, key, completion.result()),
            Operation::ReceiveInto(_) => {
                self.handle_receive_into(token, key, completion.result());
            }
            Operation::Receive { .. } => self.handle_receive(token, key, completion),
            Operation::Send { .. } => self.handle_send(token, key, completion.result()),
            Operation::WriteSync(_) => self.handle_write(token, key, is_sync, completion.result()),
            Operation::Close => {
                self.operations.remove(key);
                self.endpoints.remove(&token);
                self.ready.push(Event::Closed { token });
            }
        }
    }

    /// Cancels what is in flight and waits `attempts` times ten milliseconds for the kernel to be
    /// done with our memory. What it still holds then is leaked, because a write into freed memory
    /// is worse.
    /// # Safety
    /// Called once. Nothing of the ring is used afterwards; it may be forgotten, not dropped.
    pub(super) unsafe fn end(&mut self, attempts: u32) {
        self.is_ending = true;
        for _ in 0..attempts {
            self.flush_backlog();
            if self.operations.in_flight() == 0 && self.backlog.is_empty() {
                break;
            }
            self.enqueue_cancel(CancelBuilder::any());
            let waited = self.enter(1, Some(Duration::from_millis(10)), ENTER_GETEVENTS);
            if waited.is_err() {
                break;
            }
            self.take_completions();
        }
        let is_quiet = self.operations.in_flight() == 0;
        // SAFETY: each is dropped once, here, and not used after, which the caller says. The ring
        // goes first: it uses the others' memory.
        unsafe {
            ManuallyDrop::drop(&mut self.uring);
            if is_quiet {
                ManuallyDrop::drop(&mut self.buffers);
                ManuallyDrop::drop(&mut self.operations);
            }
        }
    }
}

impl Drop for Ring {
    /// Waits up to a second for the kernel to let go, see `end`.
    fn drop(&mut self) {
        // SAFETY: nothing can be called on what is being dropped.
        unsafe { self.end(END_ATTEMPTS) };
    }
}
