//! Runs what is `async` on a fake disk: everything is ready at once, but what waits for a disk
//! whose power is cut.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::fake_disk::FakeDisk;

/// What `future` comes to; `None`: the power was cut meanwhile.
pub fn drive<T>(disk: &FakeDisk, future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => {
            assert!(disk.is_cut(), "something waits, and not for the disk");
            None
        }
    }
}
