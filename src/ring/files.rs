//! DRIVER: the ring's operation on files: a write that is durable when it is over.
//!
//! In: an aligned buffer, where it goes, how to sync. Out: the buffer and whether it is on stable
//! storage. `Fdatasync` costs two operations in one submission: the kernel starts the sync when the
//! write is whole, and cancels it when the write is short or fails; then the rest is written, and
//! synced, by another pair.

use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};

use super::event::{Errno, Event, SyncMethod, Token};
use super::operations::{Operation, OperationKey, WriteSync};
use super::reactor::Ring;
use crate::base::bytes::{AlignedBuffer, BUFFER_ALIGN_BYTES};

/// The most that one write operation carries; the kernel caps it near 2 GiB. A multiple of any
/// block.
const WRITE_BYTES_MAX: usize = 1 << 30;

/// Steps without progress that are forgiven (`EINTR`, `EAGAIN`, less than a block written).
const STALLS_MAX: u8 = 8;

impl Ring {
    /// Writes `buffer[..len]` to `fd` at `offset` and syncs it. [`Event::Written`] gives the buffer
    /// back, with `Ok` only if every byte was written and the sync behind it succeeded.
    ///
    /// With `O_DIRECT`, `offset` and `len` are the caller's to align. Writes that are in flight
    /// together have no order.
    pub fn write_sync(
        &mut self,
        token: Token,
        fd: RawFd,
        write: WriteRange,
        buffer: AlignedBuffer,
    ) {
        let WriteRange { offset, len, method } = write;
        assert!(len <= buffer.len(), "the buffer holds less than is to be written");
        let endpoint = self.endpoint(token, fd);
        if endpoint.is_closing() {
            let result = Err(Errno(libc::ECANCELED));
            return self.ready.push(Event::Written { token, buffer, result });
        }
        endpoint.writes += 1;
        let write = WriteSync {
            fd,
            buffer,
            len,
            offset,
            written: 0,
            method,
            pending: 0,
            write_result: 0,
            sync_result: None,
            is_torn: false,
            stalls: 0,
        };
        let key = self.start(token, Operation::WriteSync(write));
        self.submit_write(key);
    }

    /// Submits what is left to write, with its sync; or the sync alone if nothing is left.
    fn submit_write(&mut self, key: OperationKey) {
        let write = self.write_of(key);
        let fd = types::Fd(write.fd);
        let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
        let sync = sync.user_data(key.sync_user_data());
        write.write_result = 0;
        write.sync_result = None;
        if write.written == write.len {
            write.pending = 1;
            return self.enqueue(sync, None);
        }
        let rest = &write.buffer[write.written..write.len];
        let len = u32::try_from(rest.len().min(WRITE_BYTES_MAX)).expect("at most 2^30");
        let entry =
            opcode::Write::new(fd, rest.as_ptr(), len).offset(write.offset + write.written as u64);
        match write.method {
            SyncMethod::Dsync => {
                write.pending = 1;
                let entry = entry.rw_flags(libc::RWF_DSYNC).build();
                self.enqueue(entry.user_data(key.user_data()), None);
            }
            SyncMethod::Fdatasync => {
                write.pending = 2;
                let entry = entry.build().user_data(key.user_data());
                self.enqueue(entry.flags(squeue::Flags::IO_LINK), Some(sync));
            }
        }
    }

    /// The kernel took only some of the queued entries, so a link may be torn: its sync then did
    /// not wait for its write. Rare (the kernel is out of memory), so it is not asked which: every
    /// write under way is synced once more.
    pub(super) fn note_torn_links(&mut self) {
        for operation in self.operations.iter_mut() {
            if let Operation::WriteSync(write) = operation {
                write.is_torn = true;
            }
        }
    }

    pub(super) fn handle_write(
        &mut self,
        token: Token,
        key: OperationKey,
        is_sync: bool,
        result: i32,
    ) {
        let write = self.write_of(key);
        if is_sync {
            write.sync_result = Some(result);
        } else {
            write.write_result = result;
        }
        write.pending -= 1;
        if write.pending > 0 {
            return;
        }
        let result = match write.next_step() {
            WriteStep::Again => return self.submit_write(key),
            WriteStep::Done(result) => result,
        };
        if let Operation::WriteSync(WriteSync { buffer, .. }) = self.finish(key) {
            self.ready.push(Event::Written { token, buffer, result });
        }
        self.settle(token);
    }

    fn write_of(&mut self, key: OperationKey) -> &mut WriteSync {
        match self.operations.get_mut(key) {
            (_, Operation::WriteSync(write)) => write,
            _ => unreachable!("dispatched by its kind"),
        }
    }
}

/// Where a [`Ring::write_sync`] goes, and how it becomes durable.
#[derive(Clone, Copy, Debug)]
pub struct WriteRange {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes of the buffer to write, from its start.
    pub len: usize,
    pub method: SyncMethod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteStep {
    Again,
    Done(Result<(), Errno>),
}

impl WriteSync {
    /// What to do now that all completions of a step are in. Pure but for the progress it notes.
    fn next_step(&mut self) -> WriteStep {
        let failed_sync = self.sync_result.filter(|sync| *sync < 0 && *sync != -libc::ECANCELED);
        if let Some(errno) = failed_sync {
            return WriteStep::Done(Err(Errno(-errno)));
        }
        if let libc::EINTR | libc::EAGAIN = -self.write_result {
            return self.stall(-self.write_result);
        }
        let Ok(wrote) = usize::try_from(self.write_result) else {
            return WriteStep::Done(Err(Errno(-self.write_result)));
        };
        let reached = self.written + wrote;
        assert!(reached <= self.len, "the kernel wrote more than it was given");
        if reached < self.len {
            // O_DIRECT wants to go on at a block's start; writing some bytes twice does no harm.
            let reached = reached / BUFFER_ALIGN_BYTES * BUFFER_ALIGN_BYTES;
            if reached <= self.written {
                return self.stall(libc::EIO);
            }
            self.written = reached;
            return WriteStep::Again;
        }
        self.written = reached;
        match self.sync_result {
            // The sync was cancelled behind a whole write: it has not run.
            Some(sync) if sync == -libc::ECANCELED => self.stall(libc::ECANCELED),
            Some(_) if std::mem::take(&mut self.is_torn) => WriteStep::Again,
            Some(_) | None => WriteStep::Done(Ok(())),
        }
    }

    fn stall(&mut self, errno: i32) -> WriteStep {
        self.stalls += 1;
        if self.stalls > STALLS_MAX {
            return WriteStep::Done(Err(Errno(errno)));
        }
        WriteStep::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_of_a_step() {
        const ECANCELED: i32 = -libc::ECANCELED;
        #[track_caller]
        fn check(write_result: i32, sync: Option<i32>, is_torn: bool, want: (WriteStep, usize)) {
            let mut write = WriteSync {
                fd: 0,
                buffer: AlignedBuffer::with_capacity(0),
                len: 3 * BUFFER_ALIGN_BYTES,
                offset: 0,
                written: BUFFER_ALIGN_BYTES,
                method: SyncMethod::Fdatasync,
                pending: 0,
                write_result,
                sync_result: sync,
                is_torn,
                stalls: 0,
            };
            assert_eq!((write.next_step(), write.written), want);
        }
        let failed = |errno| WriteStep::Done(Err(Errno(errno)));
        // Whole, and synced; or written through.
        check(8192, Some(0), false, (WriteStep::Done(Ok(())), 12288));
        check(8192, None, false, (WriteStep::Done(Ok(())), 12288));
        // Whole, but the sync may have run too early, or not at all.
        check(8192, Some(0), true, (WriteStep::Again, 12288));
        check(8192, Some(ECANCELED), false, (WriteStep::Again, 12288));
        // Whole, but not durable.
        check(8192, Some(-libc::EIO), false, (failed(libc::EIO), 4096));
        // Short: from the last whole block on.
        check(5000, Some(ECANCELED), false, (WriteStep::Again, 8192));
        check(100, Some(ECANCELED), false, (WriteStep::Again, 4096));
        // A torn link's sync says nothing about a short write.
        check(5000, Some(0), true, (WriteStep::Again, 8192));
        check(-libc::ENOSPC, Some(ECANCELED), false, (failed(libc::ENOSPC), 4096));
        check(-libc::ENOSPC, None, false, (failed(libc::ENOSPC), 4096));
        check(-libc::EINTR, Some(ECANCELED), false, (WriteStep::Again, 4096));
    }

    #[test]
    fn no_progress_ends() {
        let mut write = WriteSync {
            fd: 0,
            buffer: AlignedBuffer::with_capacity(0),
            len: BUFFER_ALIGN_BYTES,
            offset: 0,
            written: 0,
            method: SyncMethod::Dsync,
            pending: 0,
            write_result: 0,
            sync_result: None,
            is_torn: false,
            stalls: 0,
        };
        for _ in 0..STALLS_MAX {
            assert_eq!(write.next_step(), WriteStep::Again);
        }
        assert_eq!(write.next_step(), WriteStep::Done(Err(Errno(libc::EIO))));
    }
}
