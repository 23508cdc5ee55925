//! DRIVER: the provided buffers: memory that the kernel receives into, and the ring that hands it
//! over.
//!
//! In: the ids of buffers that are free again. Out: leases of filled ones. A receive that waits
//! holds no buffer, so ten thousand idle connections need none; all that is received at once is
//! bounded by `count * buffer_bytes`.
//!
//! ```text
//! hand-over ring: count entries of 16 bytes, shared with the kernel
//!  | addr 8 | len 4 | id 2 | tail 2 (entry 0 only) |
//! ```

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The one group of provided buffers that a ring has.
pub(super) const GROUP: u16 = 0;

const _: () = assert!(size_of::<BufRingEntry>() == 16);

/// A filled buffer on loan to the caller, who gives it back by `Ring::recycle`. Dropping it instead
/// loses the buffer for good, which `Ring::free_buffers` shows.
#[derive(Debug)]
#[must_use = "a lease that is not recycled is a lost buffer"]
pub struct BufferLease {
    id: u16,
    len: u32,
}

impl BufferLease {
    /// Bytes received.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Never: the kernel hands over no empty buffer.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Buffers and hand-over ring. Must outlive the `io_uring` it is registered with (see `Ring`'s
/// drop).
pub(super) struct ProvidedBuffers {
    entries: Mapping,
    memory: Mapping,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
    leased: Vec<bool>,
    leased_count: u32,
}

impl ProvidedBuffers {
    /// Maps `count` (a power of two, at most 32768) buffers of `buffer_bytes`; pages are touched
    /// only as used.
    pub(super) fn map(count: u16, buffer_bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two() && buffer_bytes > 0);
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * buffer_bytes as usize)?;
        let leased = vec![false; usize::from(count)];
        Ok(Self { entries, memory, count, buffer_bytes, tail: 0, leased, leased_count: 0 })
    }

    /// Tells the kernel of the ring, then hands it every buffer.
    pub(super) fn register(&mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.entries.pointer.as_ptr().addr() as u64;
        // SAFETY: the mapping is page-aligned, holds `count` entries, and lives until after the
        // ring is closed.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, GROUP, 0)? };
        for id in 0..self.count {
            self.provide(id);
        }
        Ok(())
    }

    /// Notes that the kernel filled buffer `id` with `len` bytes.
    pub(super) fn lease(&mut self, id: u16, len: u32) -> BufferLease {
        let leased = &mut self.leased[usize::from(id)];
        assert!(!*leased && len <= self.buffer_bytes, "the kernel fills only what it was given");
        *leased = true;
        self.leased_count += 1;
        BufferLease { id, len }
    }

    /// The received bytes. Takes the lease, so nobody reads a buffer that the kernel may be
    /// filling.
    pub(super) fn bytes(&self, lease: &BufferLease) -> &[u8] {
        assert!(self.leased[usize::from(lease.id)], "a lease of another ring");
        let start = usize::from(lease.id) * self.buffer_bytes as usize;
        assert!(start + lease.len() <= self.memory.len);
        // SAFETY: inside the mapping; while leased, the kernel does not own the buffer, and nothing
        // else writes it.
        unsafe { std::slice::from_raw_parts(self.memory.pointer.as_ptr().add(start), lease.len()) }
    }

    /// Hands a leased buffer to the kernel again.
    #[expect(clippy::needless_pass_by_value, reason = "the lease ends here")]
    pub(super) fn recycle(&mut self, lease: BufferLease) {
        let leased = &mut self.leased[usize::from(lease.id)];
        assert!(*leased, "a lease of another ring");
        *leased = false;
        self.leased_count -= 1;
        self.provide(lease.id);
    }

    pub(super) fn free(&self) -> u32 {
        u32::from(self.count) - self.leased_count
    }

    fn provide(&mut self, id: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        let offset = usize::from(id) * self.buffer_bytes as usize;
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping is page-aligned")]
        let entries = self.entries.pointer.as_ptr().cast::<BufRingEntry>();
        let address = self.memory.pointer.as_ptr().addr() + offset;
        // SAFETY: `slot < count`, and the kernel reads no entry at or behind the tail, so it is
        // ours to write.
        let entry = unsafe { &mut *entries.add(slot) };
        entry.set_addr(address as u64);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the base of the registered ring, mapped and zeroed; its tail is an
        // aligned u16 that only this thread writes and the kernel reads. Release: the entry is
        // whole before it is seen.
        unsafe {
            let tail = BufRingEntry::tail(entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Anonymous, zeroed, page-aligned memory.
struct Mapping {
    pointer: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping aliases nothing.
        let pointer = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if pointer == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pointer = NonNull::new(pointer.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { pointer, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nobody holds a reference into it: those
        // borrow the owner.
        unsafe { libc::munmap(self.pointer.as_ptr().cast(), self.len) };
    }
}
