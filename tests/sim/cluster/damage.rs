//! Bits that flip on the disks of the simulated cluster, while the process is down: on one node, or
//! on the hints of gateways, never on both, so that another owner has what is damaged.
//!
//! What is damaged must be told: by replay, by the blocks, by the keeper of hints. A node that does
//! not start over what is damaged gets its files back as they were, as from a backup.

use std::path::{Path, PathBuf};

use tidegate::gateway::owner::AckPolicy;
use tidegate::model::placement::NodeId;

use super::World;
use super::keeper::FOLDER;
use super::plan::{Plan, index_of};
use crate::fake_disk::FakeDisk;
use crate::random::Random;

/// What may come to harm in a run for good; only one thing, or nobody could have what is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    Nothing,
    /// Gateways are lost with their hints.
    Gateways,
    /// Bits flip in hints.
    Hints,
    /// Bits flip in the files of this node.
    Node(usize),
}

/// A bit that flipped.
#[derive(Clone, Debug)]
pub struct Flip {
    path: PathBuf,
    offset: usize,
    bit: usize,
}

impl Harm {
    pub fn new((plan, ack): (&Plan, AckPolicy), random: &mut Random) -> Self {
        let node = random.below(plan.node_count());
        match random.below(6) {
            0 | 1 => Self::Gateways,
            2 => Self::Hints,
            3 | 4 if plan.replication() > 1 && ack == AckPolicy::All => Self::Node(node),
            _ => Self::Nothing,
        }
    }
}

impl Flip {
    /// Flips a bit of one of these files, where there is something.
    pub fn one(disk: &FakeDisk, files: &[PathBuf], random: &mut Random) -> Option<Self> {
        if files.is_empty() {
            return None;
        }
        let path = files[random.below(files.len())].clone();
        let bytes = disk.contents(&path).filter(|bytes| !bytes.is_empty())?;
        let mut offset = random.below(bytes.len());
        for _ in 0..40 {
            if bytes[offset] != 0 {
                break;
            }
            offset = random.below(bytes.len());
        }
        let flip = Self { path, offset, bit: random.below(8) };
        flip.apply(disk);
        Some(flip)
    }

    /// Flips it, or back.
    pub fn apply(&self, disk: &FakeDisk) {
        if disk.contents(&self.path).is_some_and(|bytes| bytes.len() > self.offset) {
            disk.tamper(&self.path, |bytes| bytes[self.offset] ^= 1 << self.bit);
        }
    }
}

impl World {
    /// Perhaps a bit flips on the disk of a node that is down.
    pub fn flip_in_node(&mut self, node: usize) {
        let one = &mut self.nodes[node];
        if self.harm != Harm::Node(node) || one.running.is_some() || self.random.once_in(2) {
            return;
        }
        let mut files = one.disk.files(Path::new("/data"));
        files.retain(|path| path.file_name().is_some_and(|name| name != "MANIFEST"));
        if let Some(flip) = Flip::one(&one.disk, &files, &mut self.random) {
            let text = format!("a bit flips at node {node}: {flip:?}");
            one.flips.push(flip);
            self.record.note_damage(node);
            self.trace(|| text);
        }
    }

    /// Perhaps a bit flips in the hints of a gateway that was stopped. Not in the last segment of a
    /// node: what is damaged there looks like a write that was torn.
    pub fn flip_in_hints(&mut self, gateway: usize) {
        if self.harm != Harm::Hints {
            return;
        }
        let place = &mut self.gateways[gateway];
        let files = place.hints.disk.files(Path::new(FOLDER));
        let is_older = |path: &PathBuf| {
            files.iter().any(|other| other.parent() == path.parent() && other > path)
        };
        let older: Vec<_> = files.iter().filter(|path| is_older(path)).cloned().collect();
        let Some(flip) = Flip::one(&place.hints.disk, &older, &mut self.random) else { return };
        let folder = flip.path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let node = folder.and_then(NodeId::parse).expect("a folder of ours");
        let held = place.hints.held.get(&node).cloned().unwrap_or_default();
        self.record.note_hints_damage(index_of(node), held);
        self.trace(|| format!("a bit flips in hints at gateway {gateway}: {flip:?}"));
    }
}
