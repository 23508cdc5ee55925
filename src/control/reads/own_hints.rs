//! DRIVER: what this gateway keeps for nodes (hints), for whom it concerns: its own reads and
//! deletions, and each node.
//!
//! What waits for a node that left the placement goes to whoever owns its series now. So it may be
//! any node's, and is told to each.

use std::sync::Arc;

use tokio::sync::watch;

use crate::base::time::unix_now_ms;
use crate::control::reads::view::ReadView;
use crate::gateway::hint::log::HintFigures;
use crate::gateway::owner::AckPolicy;
use crate::model::placement::NodeId;
use crate::wire::hints::{HintsHeld, Lacking};

/// Tells how the hints of each node are.
pub type HintFiguresSource = Arc<dyn Fn() -> Vec<(NodeId, HintFigures)> + Send + Sync>;

/// What this gateway keeps. Cheap to clone.
#[derive(Clone)]
pub struct OwnHints {
    /// Names the folder of hints, for as long as it is there.
    pub keeper: u128,
    /// When clients are answered.
    pub ack: AckPolicy,
    /// How the hints are, now.
    pub figures: HintFiguresSource,
    /// Told when they are otherwise.
    pub changes: watch::Receiver<()>,
    /// The fleet; `None`: nobody is known to have left it.
    pub view: Option<watch::Receiver<Arc<ReadView>>>,
}

impl OwnHints {
    /// What it keeps for `node`, and what waits for nodes that left.
    pub fn held_for(&self, node: NodeId) -> HintsHeld {
        let all = (self.figures)();
        let figures = all.iter().find(|(id, _)| *id == node).map(|(_, figures)| *figures);
        let mut figures = figures.unwrap_or_default();
        if let Some(view) = &self.view {
            let (view, now_ms) = (view.borrow(), unix_now_ms());
            let left = all.iter().filter(|(id, _)| *id != node && !view.is_in_all(*id, now_ms));
            let samples = left.map(|(_, figures)| figures.samples);
            figures.samples = samples.fold(figures.samples, u64::saturating_add);
        }
        held(self.keeper, self.ack, &figures)
    }

    /// The nodes for which samples wait, and how many.
    pub fn waiting(&self) -> Vec<(NodeId, u64)> {
        let mut all = (self.figures)();
        all.retain(|(_, figures)| figures.samples > 0);
        all.into_iter().map(|(id, figures)| (id, figures.samples)).collect()
    }

    /// Waits until it may be otherwise.
    pub async fn changed(&mut self) {
        let Self { changes, view, .. } = self;
        let viewed = async {
            match view {
                Some(view) => view.changed().await.is_ok(),
                None => false,
            }
        };
        tokio::select! {
            Ok(()) = changes.changed() => {}
            true = viewed => {}
            else => std::future::pending().await,
        }
    }

    /// From here on [`OwnHints::changed`] waits for what comes next.
    pub fn mark_unchanged(&mut self) {
        self.changes.mark_unchanged();
        if let Some(view) = &mut self.view {
            view.mark_unchanged();
        }
    }

    /// What `node` lacks by that, as if it had said so itself.
    pub fn lacking(&self, node: NodeId) -> Lacking {
        let HintsHeld { waiting_samples, lost_samples, .. } = self.held_for(node);
        let keepers = u32::from(waiting_samples > 0 || lost_samples > 0);
        Lacking { waiting_samples, lost_samples, keepers, ..Lacking::default() }
    }
}

fn held(keeper: u128, ack: AckPolicy, figures: &HintFigures) -> HintsHeld {
    let refused_samples = match ack {
        // The client heard 503: nothing was promised.
        AckPolicy::All => 0,
        // It heard 204, as one owner has them.
        AckPolicy::One => figures.refused_samples,
    };
    // Of a record that is gone it is not known how many samples it had: one at least.
    let lost = [figures.records_lost, figures.samples_lost];
    let lost_samples = lost.into_iter().fold(refused_samples, u64::saturating_add);
    HintsHeld { keeper, waiting_samples: figures.samples, lost_samples }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_lost_only_if_the_client_was_told_otherwise() {
        // Red if hints that a limit refused are said to be whole with `--ack one`, or to be lost
        // with `--ack all`; or if damaged ones are left out.
        #[track_caller]
        fn check(ack: AckPolicy, figures: HintFigures, want: (u64, u64)) {
            let held = held(7, ack, &figures);
            assert_eq!((held.waiting_samples, held.lost_samples), want);
        }
        let refused = HintFigures { samples: 5, refused_samples: 9, ..HintFigures::default() };
        check(AckPolicy::All, refused, (5, 0));
        check(AckPolicy::One, refused, (5, 9));
        let damaged = HintFigures { records_lost: 1, samples_lost: 2, ..HintFigures::default() };
        check(AckPolicy::All, damaged, (0, 3));
    }
}
