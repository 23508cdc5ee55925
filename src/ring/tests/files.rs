//! Writes that must be durable, with and without `O_DIRECT`, and the ways in which they fail.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::*;
use crate::base::bytes::AlignedBuffer;

const LOG: Token = Token(1);

fn open(path: &Path, flags: i32) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
    options.open(path).expect("open")
}

/// O_DIRECT where the file system has it (tmpfs of old kernels has not).
fn open_direct(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_DIRECT);
    options.open(path).unwrap_or_else(|_| open(path, 0))
}

fn filled(byte: u8, len: usize) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::with_capacity(len);
    buffer.extend_from_slice(&vec![byte; len]);
    buffer.pad_zero_to(4096);
    buffer
}

fn write_and_wait(
    ring: &mut Ring,
    file: &File,
    write: WriteRange,
    buffer: AlignedBuffer,
) -> (AlignedBuffer, Result<(), Errno>) {
    ring.write_sync(LOG, file.as_raw_fd(), write, buffer);
    let mut written = None;
    turn_until(ring, |_, event| {
        let Event::Written { token: LOG, buffer, result } = event else {
            panic!("unexpected {event:?}");
        };
        written = Some((buffer, result));
        true
    });
    written.expect("turn_until has seen it")
}

#[test]
fn direct_writes_by_both_methods_land_where_they_should() {
    // Beside the build, not in /tmp, which may be a tmpfs.
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("folder");
    let path = folder.path().join("log");
    let file = open_direct(&path);
    let mut ring = small_ring();
    let mut want = Vec::new();
    for (byte, method) in (1..).zip([SyncMethod::Fdatasync, SyncMethod::Dsync].repeat(8)) {
        let buffer = filled(byte, usize::from(byte) * 5000);
        let write = WriteRange { offset: want.len() as u64, len: buffer.len(), method };
        want.extend_from_slice(&buffer);
        let (buffer, result) = write_and_wait(&mut ring, &file, write, buffer);
        assert_eq!((result, buffer[0]), (Ok(()), byte), "{method:?}");
    }
    assert!(std::fs::read(&path).expect("read") == want, "bytes differ");
    // Two at once under one token, then a close that waits for both.
    for offset in [0, 4096] {
        let write = WriteRange { offset, len: 4096, method: SyncMethod::Fdatasync };
        ring.write_sync(LOG, file.as_raw_fd(), write, filled(99, 4096));
    }
    ring.close(LOG, file.into());
    let mut seen = Vec::new();
    turn_until(&mut ring, |_, event| {
        seen.push(match event {
            Event::Written { result: Ok(()), .. } => 'w',
            Event::Closed { token: LOG } => 'c',
            other => panic!("unexpected {other:?}"),
        });
        seen.len() == 3
    });
    assert_eq!(seen, ['w', 'w', 'c']);
    want[..8192].fill(99);
    assert!(std::fs::read(&path).expect("read") == want, "bytes differ");
}

#[test]
fn only_len_bytes_are_written_and_none_is_still_a_sync() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("log");
    let file = open(&path, 0);
    let mut ring = small_ring();
    for method in [SyncMethod::Fdatasync, SyncMethod::Dsync] {
        for (len, want_len) in [(0, 0), (100, 100)] {
            file.set_len(0).expect("truncate");
            let write = WriteRange { offset: 0, len, method };
            let (buffer, result) = write_and_wait(&mut ring, &file, write, filled(3, 4096));
            assert_eq!((result, buffer.len()), (Ok(()), 4096));
            assert_eq!(std::fs::read(&path).expect("read").len(), want_len);
        }
    }
}

#[test]
fn failures_are_reported_and_give_the_buffer_back() {
    #[track_caller]
    fn check(file: &File, method: SyncMethod, offset: u64, want: i32) {
        let mut ring = small_ring();
        let write = WriteRange { offset, len: 8192, method };
        let (buffer, result) = write_and_wait(&mut ring, file, write, filled(4, 8192));
        assert_eq!((result, buffer.len()), (Err(Errno(want)), 8192));
    }
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("folder");
    let path = folder.path().join("log");
    let direct = open_direct(&path);
    let read_only = File::open(&path).expect("open");
    let full = OpenOptions::new().write(true).open("/dev/full").expect("open");
    for method in [SyncMethod::Fdatasync, SyncMethod::Dsync] {
        check(&read_only, method, 0, libc::EBADF);
        check(&full, method, 0, libc::ENOSPC);
        check(&direct, method, 100, libc::EINVAL);
    }
    // The write succeeds, the sync behind it cannot: a pipe-like device has nothing to sync.
    let null = OpenOptions::new().write(true).open("/dev/null").expect("open");
    check(&null, SyncMethod::Fdatasync, 0, libc::EINVAL);
}
