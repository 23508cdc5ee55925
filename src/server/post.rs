//! What a shard sends to other shards: one channel push a message, and a waiting line per target
//! while its queue is full.
//!
//! The lines are bounded by what the shard admitted: a message exists only for a request that
//! counts against its memory.

use crate::gateway::part::ShardMessage;
use crate::server::shard::Neighbours;
use std::collections::VecDeque;

/// The outgoing messages of one shard.
pub struct Post {
    neighbours: Neighbours,
    lines: Vec<VecDeque<ShardMessage>>,
    waiting: usize,
    parts_sent: u64,
}

impl Post {
    /// Sends by `neighbours`.
    pub fn new(neighbours: Neighbours) -> Self {
        let lines = neighbours.iter().map(|_| VecDeque::new()).collect();
        Self { neighbours, lines, waiting: 0, parts_sent: 0 }
    }

    /// Puts `message` behind those that wait for `shard`; the next [`Post::flush`] sends it.
    pub fn push(&mut self, shard: u32, message: ShardMessage) {
        assert!(self.neighbours[shard as usize].is_some(), "a shard does not write to itself");
        self.lines[shard as usize].push_back(message);
        self.waiting += 1;
    }

    /// Sends whatever the targets have room for, in order.
    pub fn flush(&mut self) {
        if self.waiting == 0 {
            return;
        }
        for (line, neighbour) in self.lines.iter_mut().zip(&self.neighbours) {
            let Some(neighbour) = neighbour else { continue };
            while let Some(message) = line.pop_front() {
                let is_part = matches!(message, ShardMessage::Part(_));
                if let Err(message) = neighbour.try_push(message) {
                    line.push_front(message);
                    break;
                }
                self.waiting -= 1;
                self.parts_sent += u64::from(is_part);
            }
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Parts of requests sent, and messages of any kind waiting.
    pub fn counts(&self) -> (u64, u64) {
        (self.parts_sent, self.waiting as u64)
    }
}
