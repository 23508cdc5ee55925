//! DRIVER: deletions on a node: in the list of its blocks, then in every shard's head and log. One
//! at a time, whoever asks, as shards must see them in the order of their ids.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::control::gather::{Unanswered, ask_each};
use crate::control::shards::{ShardRequest, Shards};
use crate::node::block::request::StoreRequest;
use crate::wire::delete::Deletion;

/// Deletes on one node. Cheap to clone; clones share the turn.
#[derive(Clone)]
pub struct Deleter {
    shards: Shards,
    turn: Arc<Mutex<()>>,
}

/// Why something is not deleted everywhere. Deleting it again mends that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteFault {
    /// The blocks' answer: nothing was deleted.
    Blocks(String),
    /// Blocks hide it; some shard's log has not got it.
    Log,
    /// The process ends.
    Ended,
}

impl fmt::Display for DeleteFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks(text) => out.write_str(text),
            Self::Log => out.write_str(
                "cannot delete everywhere: a shard's log failed; delete again after a restart",
            ),
            Self::Ended => out.write_str("cannot delete: the process ends; delete again"),
        }
    }
}

impl std::error::Error for DeleteFault {}

impl Deleter {
    /// Deletes in `shards` and the blocks below them.
    pub fn new(shards: Shards) -> Self {
        Self { shards, turn: Arc::default() }
    }

    /// Deletes one after the other; their ids do not count. Answers when all is durable. The work
    /// goes on when the answer is not waited for: a deletion that the blocks have seen and a shard
    /// has not would hide samples that are still to come.
    ///
    /// # Errors
    /// The first fault; what came before it is deleted.
    pub async fn delete(&self, deletions: Vec<Deletion>) -> Result<(), DeleteFault> {
        let this = self.clone();
        let work = async move {
            let _turn = this.turn.lock().await;
            for deletion in deletions {
                this.delete_one(deletion).await?;
            }
            Ok(())
        };
        tokio::spawn(work).await.map_err(|_| DeleteFault::Ended)?
    }

    async fn delete_one(&self, deletion: Deletion) -> Result<(), DeleteFault> {
        let gone = || {
            let text = "the blocks do not answer; the program's log says why";
            DeleteFault::Blocks(text.into())
        };
        let blocks = self.shards.blocks().ok_or_else(gone)?;
        let (reply, answers) = flume::bounded(1);
        let asked = StoreRequest::Delete { tombstone: deletion, reply };
        blocks.requests.send_async(asked).await.map_err(|_| gone())?;
        let written = answers.recv_async().await.map_err(|_| gone())?;
        let written = written.map_err(|refusal| DeleteFault::Blocks(refusal.to_string()))?;
        let (id, tombstone) = (written.id, Arc::new(written));
        let request = |reply| ShardRequest::Delete { tombstone: Arc::clone(&tombstone), reply };
        ask_each(&self.shards, request).await.map_err(|Unanswered| DeleteFault::Log)?;
        let sent = blocks.requests.send_async(StoreRequest::Deleted { tombstone: id }).await;
        sent.map_err(|_| gone())
    }
}
