//! How the control plane asks the shards: one closed enum, bounded queues both ways.

use std::sync::Arc;

use crate::base::queue::QueueSender;
use crate::control::report::ShardReport;
use crate::wire::select::{SelectAnswer, SelectRequest};

/// What the control plane asks of a shard.
pub enum ShardRequest {
    /// Reads series.
    Select {
        /// What to look for.
        request: Arc<SelectRequest>,
        /// Bounded and shared by all shards that are asked: the shard does `try_send`, pauses the
        /// select when it is full, and goes on at its next wake-up. Disconnected: nobody wants the
        /// rest, and the select ends.
        reply: flume::Sender<SelectAnswer>,
    },
    /// Says how the shard is; answered at once.
    Report {
        /// Has room for it.
        reply: flume::Sender<Box<ShardReport>>,
    },
}

/// The way to one shard.
#[derive(Clone)]
pub struct ShardHandle {
    requests: QueueSender<ShardRequest>,
}

impl ShardHandle {
    /// A handle that pushes into the shard's mailbox.
    pub fn new(requests: QueueSender<ShardRequest>) -> Self {
        Self { requests }
    }

    /// Pushes `request`, waiting for room in the mailbox; hands it back if the shard is gone.
    pub async fn push(&self, request: ShardRequest) -> Result<(), ShardRequest> {
        self.requests.push(request).await
    }

    /// Lets a shard that paused on a full reply queue go on.
    pub fn wake(&self) {
        self.requests.wake();
    }
}

/// All shards of the process, in order.
#[derive(Clone)]
pub struct Shards {
    handles: Arc<[ShardHandle]>,
}

impl Shards {
    /// All of them.
    pub fn new(handles: Vec<ShardHandle>) -> Self {
        Self { handles: handles.into() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    /// The handles in shard order.
    pub fn iter(&self) -> impl Iterator<Item = &ShardHandle> {
        self.handles.iter()
    }

    /// Wakes each: one of them may have paused on a reply queue that now has room.
    pub fn wake_all(&self) {
        for handle in self.handles.iter() {
            handle.wake();
        }
    }
}
