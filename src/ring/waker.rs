//! DRIVER: wakes a ring's thread from another thread by an eventfd, and only if it sleeps.
//!
//! The protocol, and why no wake-up is lost. Sender: (1) push into the mailbox, (2) full fence, (3)
//! look at `sleeping`.
//! Ring: (a) set `sleeping`, (b) full fence, (c) look into the mailboxes, (d) sleep only if they
//! are empty. Two full fences order totally. If the sender's comes first, (c) sees the push, and
//! the ring does not sleep. If the ring's comes first, (3) sees `sleeping`, and the eventfd is
//! written; its count stays above zero and its poll is armed before the sleep begins, so (d) ends
//! at once. `Ring::turn` does (a) to (d); the loop only answers (c). Of many senders one clears
//! `sleeping` and pays for the write; a busy target costs a fence and a load.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::base::queue::Wake;

/// Wakes the thread of the ring it was taken from. Share it by `Arc`; any thread may call it.
pub struct RingWaker {
    sleeping: AtomicBool,
    event: EventFd,
}

impl RingWaker {
    pub(super) fn new() -> nix::Result<Self> {
        // Not O_NONBLOCK, by which io_uring would answer EAGAIN instead of waiting. A write blocks
        // only at 2^64 - 2.
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { sleeping: AtomicBool::new(false), event })
    }

    pub(super) fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Steps (a) and (b): from here on senders write the eventfd.
    pub(super) fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Awake again: senders need not write.
    pub(super) fn announce_awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}

impl Wake for RingWaker {
    fn wake(&self) {
        fence(Ordering::SeqCst);
        // The load keeps a busy target's cache line shared; the swap lets one of many senders
        // write.
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            let written = self.event.write(1);
            assert!(written.is_ok(), "an eventfd takes a write as long as it is open");
        }
    }
}
