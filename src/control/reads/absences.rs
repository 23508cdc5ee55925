//! What the answers to one query lack, and whom to blame. Pure.
//!
//! In: nodes that did not answer, nodes that lack samples (hints that wait), slots. Out: a text for
//! each reason, empty if the answer is complete.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::control::reads::fault::ReadFault;
use crate::control::reads::view::{ReadView, SlotsMissing};
use crate::model::placement::NodeId;
use crate::wire::hints::Lacking;

/// Nodes that a warning names.
const NODES_NAMED_MAX: usize = 3;

/// What is missing, as it becomes known.
#[derive(Debug, Default)]
pub(super) struct Absences {
    /// Nodes that did not answer, or not to the end.
    pub away: BTreeMap<NodeId, ReadFault>,
    /// Nodes that lack samples.
    pub lacking: BTreeMap<NodeId, Lacking>,
    /// The newest placement that a node which answered follows.
    pub newest_epoch: u64,
    slots: SlotsMissing,
}

impl Absences {
    /// A node lacks this, as it says itself, or as is known here. Of both the greater: what is kept
    /// here it may have heard of.
    pub fn add_lacking(&mut self, id: NodeId, lacking: Lacking) {
        if lacking.is_nothing() {
            return;
        }
        let known = self.lacking.entry(id).or_default();
        *known = Lacking {
            waiting_samples: known.waiting_samples.max(lacking.waiting_samples),
            lost_samples: known.lost_samples.max(lacking.lost_samples),
            keepers: known.keepers.max(lacking.keepers),
            lost_blocks: known.lost_blocks.max(lacking.lost_blocks),
            is_news_awaited: known.is_news_awaited || lacking.is_news_awaited,
        };
    }

    /// The nodes that did answer do not make up for others.
    pub fn add_slots(&mut self, missing: SlotsMissing) {
        self.slots.lost = self.slots.lost.saturating_add(missing.lost);
        self.slots.doubtful = self.slots.doubtful.saturating_add(missing.doubtful);
    }

    /// For people; empty if the answer is complete.
    pub fn describe(&self, view: &ReadView) -> Vec<String> {
        let SlotsMissing { lost, doubtful } = self.slots;
        let mut texts = Vec::new();
        if lost > 0 {
            texts.push(format!(
                "series are missing: {lost} of the slots that were asked for have no owner that \
                 answered: {}",
                self.names()
            ));
        }
        if doubtful > 0 {
            let lacking = list(&self.lacking, |text, lacking| describe_lacking(text, *lacking));
            let others = match self.names() {
                names if names.is_empty() => names,
                names => format!("; others did not answer: {names}"),
            };
            texts.push(format!(
                "samples may be missing: of {doubtful} of the slots that were asked for, the only \
                 owners that answered lack some: {lacking}{others}"
            ));
        }
        if let Some((first, last)) = view.history.missing().next() {
            texts.push(format!(
                "series may be missing: placement epochs {first} to {last} are not known here yet"
            ));
        }
        let known = view.history.newest().map_or(0, |newest| newest.document().epoch);
        if self.newest_epoch > known {
            texts.push(format!(
                "series may be missing: placement epoch {} is in force and not known here yet; ask \
                 again",
                self.newest_epoch
            ));
        }
        texts
    }

    /// The nodes that did not answer, and why.
    pub fn names(&self) -> String {
        list(&self.away, |text, fault| _ = write!(text, "{fault}"))
    }
}

fn describe_lacking(text: &mut String, lacking: Lacking) {
    let Lacking { waiting_samples, lost_samples, keepers, lost_blocks, is_news_awaited } = lacking;
    let mut separator = "";
    let gateways = if keepers == 1 { "a gateway" } else { "gateways" };
    if waiting_samples > 0 {
        let _ = write!(text, "it waits for {waiting_samples} samples that {gateways} kept for it");
        separator = ", ";
    }
    if lost_samples > 0 {
        let _ = write!(
            text,
            "{separator}it never gets {lost_samples} samples that {gateways} kept for it and lost"
        );
        separator = ", ";
    }
    if lost_blocks > 0 {
        let _ = write!(
            text,
            "{separator}{lost_blocks} of its blocks are damaged or missing: see its /-/ready"
        );
        separator = ", ";
    }
    if is_news_awaited {
        let _ = write!(
            text,
            "{separator}it was reached a moment ago, and not every gateway may have told it yet \
             what it missed; ask again"
        );
    }
}

fn list<T>(nodes: &BTreeMap<NodeId, T>, describe: impl Fn(&mut String, &T)) -> String {
    let mut text = String::new();
    for (id, value) in nodes.iter().take(NODES_NAMED_MAX) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        let _ = write!(text, "node {:032x}: ", id.0);
        describe(&mut text, value);
    }
    if nodes.len() > NODES_NAMED_MAX {
        let _ = write!(text, "; and {} more nodes", nodes.len() - NODES_NAMED_MAX);
    }
    text
}
