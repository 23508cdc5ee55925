//! DRIVER: a node's answers about placement, and what its link ports are to know of it.
//!
//! In: questions that came over the port for reads. Out: answers, once they are true of the disk;
//! the epoch that is in force by the node's clock, which the shards compare frames with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::store::NodePlacement;
use crate::base::time::{Duration, unix_now_ms};
use crate::control::reads::answering::OtherQuestion;
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameKind};

/// How often it is looked whether an epoch has started.
const TICK: Duration = Duration::from_millis(50);

/// Answers until `questions` has no sender, and keeps `epoch_in_force` true meanwhile.
///
/// One question after the other: each may wait for the disk, and the order of promises is theirs.
pub async fn answer_placement(
    placement: Arc<NodePlacement>,
    questions: flume::Receiver<OtherQuestion>,
    epoch_in_force: Arc<AtomicU64>,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        epoch_in_force.store(placement.epoch_in_force(unix_now_ms()), Ordering::Relaxed);
        let question = tokio::select! {
            question = questions.recv_async() => question,
            _ = tick.tick() => continue,
        };
        let Ok(OtherQuestion { header, frame, reply }) = question else { return };
        if header.kind != FrameKind::PlacementRequest {
            // Dropped: the connection is closed, as the gateway speaks another language.
            continue;
        }
        let placement = Arc::clone(&placement);
        let work = tokio::task::spawn_blocking(move || {
            placement.handle_frame(&header, &frame[FRAME_HEADER_BYTES..])
        });
        if let Ok(Ok(answer)) = work.await {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
    }
}
