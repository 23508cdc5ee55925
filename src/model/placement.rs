//! Which nodes own a series: the placement document, its epochs, slot -> owners, series -> slot.
//!
//! ```text
//! series --router--> (group, slot) --table--> owners, 1 to 3 nodes     one table per group, epoch
//! document --change, fit--> next document --plan--> what it would move
//! documents --history--> which one writes follow, which ones a read has to ask
//! ```
//! Pure: every gateway and node computes the same from the same document, with integers only.
//! A table is made once per epoch, O(slots x nodes).
//! A fleet agrees on its next document by `agreement`.
//! Not here: storing a document, whether a node is up (which never changes it).
//!
//! # Why nodes have a `pull` and a `salt`
//! Owners are chosen by weighted rendezvous hashing: each node draws a number for each slot, and
//! the best draws win, so another node changes only what it wins. The draws are random, so with
//! 40 nodes a node's slots deviate by 1/sqrt(16384/40) = 4.9 %, the share that a new node takes
//! too, and with replication or zones the shares do not even aim at the weights. So whoever writes
//! a new document looks at the result first, and writes down two numbers per node that mend it:
//! `pull`, the weight that is drawn with, and `salt`, which other draws the node gets. Reading
//! a document stays one pure function, and a node's numbers change only when it is itself changed.
//! Figures, and what was rejected: ARCHITECTURE.md, "A node draws with numbers that were tried".

pub mod agreement;
mod change;
mod check;
mod document;
mod fault;
mod fit;
mod history;
mod plan;
mod reach;
mod rendezvous;
mod router;
mod share;
mod table;
#[cfg(test)]
mod tests;

pub use change::Regrouping;
pub use check::{
    GROUP_RULES_MAX, LABELS_SHARDED_BY_MAX, MATCHERS_PER_RULE_MAX, NODES_MAX, REPLICATION_MAX,
    SHARDS_MAX, TEXT_BYTES_MAX, WEIGHT_MAX,
};
pub use document::{
    DOCUMENT_BYTES_MAX, DOCUMENT_VERSION, NodeId, PULL_PER_WEIGHT, PlacedNode, PlacementDocument,
    SlotRule, Strategy, TagRule, WEIGHT_USUAL,
};
pub use fault::{Cause, DocumentFault, Field};
pub use history::{Accepted, EPOCHS_MAX, History, HistoryFault, SampleBounds};
pub use plan::{Evenness, GroupPlan, NodeChange, Plan, plan};
pub use reach::{Reach, SLOTS_PINNED_MAX, SlotReach};
pub use router::{GroupIndex, Place, Router};
pub use table::{Placement, SlotTable};
