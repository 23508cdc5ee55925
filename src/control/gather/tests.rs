//! Shards that pause when the reply queue is full, as the real ones do, and go on only when woken.

use super::*;
use crate::base::queue::{QueueSender, Wake};
use crate::control::shards::ShardHandle;

const SOON: Duration = Duration::from_secs(10);

struct WakeChannel(flume::Sender<()>);

impl Wake for WakeChannel {
    fn wake(&self) {
        let _already_awake = self.0.try_send(());
    }
}

/// Answers each select with `pieces` pieces of one series, then its end; tells `ended` whether it
/// could say all.
fn spawn_shard(pieces: u32, ended: flume::Sender<bool>) -> ShardHandle {
    let (sender, requests) = flume::bounded::<ShardRequest>(8);
    let (wake, woken) = flume::bounded(1);
    std::thread::spawn(move || {
        while let Ok(request) = requests.recv() {
            let ShardRequest::Select { reply, .. } = request else { continue };
            let series = |_| SelectAnswer::Series(vec![]);
            let end = SelectAnswer::End { series_count: 0 };
            let mut answers = (0..pieces).map(series).chain([end]);
            let mut next = answers.next();
            while let Some(answer) = next.take() {
                match reply.try_send(answer) {
                    Ok(()) => next = answers.next(),
                    Err(flume::TrySendError::Full(answer)) => {
                        next = Some(answer);
                        let is_woken = woken.recv_timeout(SOON).is_ok();
                        assert!(is_woken, "nobody woke the shard");
                    }
                    Err(flume::TrySendError::Disconnected(answer)) => {
                        next = Some(answer);
                        break;
                    }
                }
            }
            let _nobody_listens = ended.send(next.is_none());
        }
    });
    ShardHandle::new(QueueSender::new(sender, Arc::new(WakeChannel(wake))))
}

fn question() -> Question {
    Question {
        tenant: TenantId::default(),
        groups: vec![vec![]],
        window: Window { start_ms: 0, end_ms: 1 },
    }
}

const LIMITS: GatherLimits = GatherLimits { series_max: 1, samples_max: 1 };

#[tokio::test]
async fn paused_shards_are_woken() {
    let (ended, ends) = flume::bounded(2);
    let shards = vec![spawn_shard(500, ended.clone()), spawn_shard(500, ended)];
    let shards = Shards::new(shards);
    let mut answers =
        ask(&shards, &question(), &[], SelectWant::Labels, LIMITS).await.expect("asked");
    let mut pieces = 0;
    while let Some(_answer) = answers.next().await.expect("an answer") {
        pieces += 1;
    }
    assert_eq!(pieces, 1_000);
    assert_eq!((ends.recv_timeout(SOON), ends.recv_timeout(SOON)), (Ok(true), Ok(true)));
}

#[tokio::test]
async fn a_dropped_question_ends_the_work() {
    let (ended, ends) = flume::bounded(1);
    let shards = Shards::new(vec![spawn_shard(500, ended)]);
    let mut answers =
        ask(&shards, &question(), &[], SelectWant::Labels, LIMITS).await.expect("asked");
    assert!(answers.next().await.expect("an answer").is_some());
    drop(answers);
    assert_eq!(ends.recv_timeout(SOON), Ok(false));
}
