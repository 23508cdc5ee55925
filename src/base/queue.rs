//! Bounded queues between threads: a `flume` channel of whole batches, and a wake-up for a receiver
//! that sleeps.
//!
//! A full queue is back-pressure: `try_push` hands the item back and the caller decides. Nothing
//! grows.

use std::sync::Arc;

/// Wakes the thread that owns a queue's receiving end, if it sleeps. Cheap when it does not.
pub trait Wake: Send + Sync {
    /// Makes the owner look at its queues soon; may be called from any thread.
    fn wake(&self);
}

/// Of a reader that waits on the channel itself.
#[cfg(test)]
pub(crate) struct NoWake;

#[cfg(test)]
impl Wake for NoWake {
    fn wake(&self) {}
}

/// The sending end: push, then wake.
pub struct QueueSender<T> {
    sender: flume::Sender<T>,
    wake: Arc<dyn Wake>,
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), wake: Arc::clone(&self.wake) }
    }
}

impl<T> QueueSender<T> {
    /// A sender into `sender`'s channel that wakes its reader by `wake`.
    pub fn new(sender: flume::Sender<T>, wake: Arc<dyn Wake>) -> Self {
        Self { sender, wake }
    }

    /// Pushes `item`, or hands it back when the queue is full or its reader gone.
    pub fn try_push(&self, item: T) -> Result<(), T> {
        match self.sender.try_send(item) {
            Ok(()) => {
                self.wake.wake();
                Ok(())
            }
            Err(flume::TrySendError::Full(item) | flume::TrySendError::Disconnected(item)) => {
                Err(item)
            }
        }
    }

    /// Pushes `item`, waiting for room; hands it back if the reader is gone. For control and
    /// background threads.
    pub async fn push(&self, item: T) -> Result<(), T> {
        let sent = self.sender.send_async(item).await;
        self.wake.wake();
        sent.map_err(flume::SendError::into_inner)
    }

    /// As [`QueueSender::push`], blocking the thread. Never on a shard.
    pub fn push_blocking(&self, item: T) -> Result<(), T> {
        let sent = self.sender.send(item);
        self.wake.wake();
        sent.map_err(flume::SendError::into_inner)
    }

    /// Wakes the reader without pushing: for a reader that waits for something other than this
    /// queue.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Whether the receiving end is gone.
    pub fn is_disconnected(&self) -> bool {
        self.sender.is_disconnected()
    }
}
