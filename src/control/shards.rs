//! How the control plane asks the shards: one closed enum, bounded queues both ways.

use std::sync::Arc;

use crate::base::queue::QueueSender;
use crate::control::report::ShardReport;
use crate::model::series::TenantId;
use crate::node::block::Tombstone;
use crate::node::block::request::{BlockSelect, StoreRequest};
use crate::node::cardinality::Cardinality;
use crate::node::registry::RegistrySlice;
use crate::wire::select::{SelectAnswer, SelectRequest};

/// What was asked for is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done;

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
    /// Puts everything that is in memory into blocks.
    Flush {
        /// Has room for the answer; disconnected without one if the shard cannot.
        reply: flume::Sender<Done>,
    },
    /// Deletes samples, of all that were written before.
    Delete {
        /// Which.
        tombstone: Arc<Tombstone>,
        /// As with `Flush`; answered when the deletion is durable.
        reply: flume::Sender<Done>,
    },
    /// Counts what the series in memory are made of.
    Cardinality {
        /// Whose.
        tenant: TenantId,
        /// Of each list, so many.
        limit: usize,
        /// As with `Flush`.
        reply: flume::Sender<Box<Cardinality>>,
    },
    /// Names the ids that it gave.
    Registry {
        /// From where on (`wire/registry.rs`).
        position: u64,
        /// Most of them.
        entries_max: u32,
        /// As with `Flush`.
        reply: flume::Sender<Box<RegistrySlice>>,
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

/// The way to the node's blocks.
#[derive(Clone)]
pub struct BlocksHandle {
    /// Questions of queries.
    pub selects: flume::Sender<BlockSelect>,
    /// Everything else.
    pub requests: flume::Sender<StoreRequest>,
}

/// All shards of the process, in order, and the blocks below them.
#[derive(Clone)]
pub struct Shards {
    handles: Arc<[ShardHandle]>,
    blocks: Option<BlocksHandle>,
}

impl Shards {
    /// All of them.
    pub fn new(handles: Vec<ShardHandle>) -> Self {
        Self { handles: handles.into(), blocks: None }
    }

    /// These shards, above blocks.
    pub fn with_blocks(self, blocks: BlocksHandle) -> Self {
        Self { blocks: Some(blocks), ..self }
    }

    /// The way to the blocks, if there are any.
    pub fn blocks(&self) -> Option<&BlocksHandle> {
        self.blocks.as_ref()
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

    /// The handle of a shard, if there are so many.
    pub fn get(&self, shard: u32) -> Option<&ShardHandle> {
        self.handles.get(shard as usize)
    }

    /// Wakes each: one of them may have paused on a reply queue that now has room.
    pub fn wake_all(&self) {
        for handle in self.handles.iter() {
            handle.wake();
        }
    }
}
