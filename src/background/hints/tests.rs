//! The thread on real files: restarts with another number of shards, and how fast it hands out.

use std::path::Path;
use std::sync::Arc;

use super::{HintCommand, HintEvent, HintSender, Hints, HintsConfig, StartedHints};
use crate::base::queue::{NoWake, QueueSender};
use crate::gateway::hint::HintPart;
use crate::gateway::hint::log::{HintLimits, HintTicket};
use crate::gateway::part::Lateness;
use crate::gateway::request::{LabelSpan, RequestBytes, SeriesBatch};
use crate::model::labels::encode_label;
use crate::model::placement::NodeId;
use crate::model::series::{SeriesHash, TenantId};

const NODE: NodeId = NodeId(0xd0e);
const QUEUE: usize = 64;

/// A running thread, and the queues of the shards.
struct Rig {
    started: StartedHints,
    events: Vec<flume::Receiver<HintEvent>>,
}

impl Rig {
    fn start(folder: &Path, shards: usize, segment_bytes: u64) -> Self {
        let limits = HintLimits {
            node_bytes_max: 8 << 30,
            bytes_max: 8 << 30,
            age_max_ms: i64::MAX,
            segment_bytes,
        };
        let config = HintsConfig { folder: folder.join("hints"), limits, keeper_if_new: 5 };
        let (senders, events) =
            (0..shards).map(|_| flume::bounded(QUEUE)).unzip::<_, _, Vec<_>, _>();
        let senders = senders.into_iter().map(|sender| QueueSender::new(sender, Arc::new(NoWake)));
        let started = Hints::start(&config, senders.collect()).expect("an empty folder will do");
        Self { started, events }
    }

    fn sender(&self) -> &HintSender {
        &self.started.sender
    }

    fn send(&self, command: HintCommand) {
        self.sender().try_send(command).expect("the channel has room for what a test sends");
    }

    fn append(&self, shard: u32, number: u64, part: HintPart) {
        let ticket = HintTicket { shard, number };
        self.send(HintCommand::Append { node: NODE, ticket, part });
        let event = self.events[shard as usize].recv().expect("the thread runs");
        let HintEvent::Appended { ticket, outcome, .. } = event else { panic!("{event:?}") };
        assert_eq!((ticket, outcome), (number, Ok(())));
    }

    /// Reads and delivers everything: the samples of each shard.
    fn drain(&self) -> Vec<u64> {
        let shards = 0..u32::try_from(self.events.len()).expect("few");
        shards.clone().for_each(|shard| self.send(HintCommand::Read { node: NODE, shard }));
        let mut samples = vec![0; self.events.len()];
        let mut left = samples.len();
        while left > 0 {
            for (shard, events) in shards.clone().zip(&self.events) {
                match events.try_recv() {
                    Ok(HintEvent::Record { node, record }) => {
                        let batch = &record.part.batch;
                        for hash in &batch.hash {
                            assert_eq!(hash.slot().shard(shards.end), shard, "not its own");
                        }
                        samples[shard as usize] += record.part.sample_count();
                        let number = record.number;
                        self.send(HintCommand::Delivered { node, shard, number });
                    }
                    Ok(HintEvent::Drained { .. }) => left -= 1,
                    Ok(event @ HintEvent::Appended { .. }) => panic!("{event:?}"),
                    Err(_) => std::thread::yield_now(),
                }
            }
        }
        samples
    }

    fn stop(self) {
        let StartedHints { hints, sender, .. } = self.started;
        drop((sender, self.events));
        assert!(hints.join(), "the thread panicked");
    }
}

/// One sample of each series `from..to`.
fn part(from: u32, to: u32, timestamp_ms: i64) -> HintPart {
    let mut bytes = RequestBytes::default();
    let mut batch = SeriesBatch::default();
    let mut labels = Vec::new();
    for series in from..to {
        labels.clear();
        encode_label(&mut labels, b"__name__", b"node_cpu_seconds_total");
        encode_label(&mut labels, b"cpu", format!("{}", series % 64).as_bytes());
        encode_label(&mut labels, b"instance", format!("10.0.0.1:{series}").as_bytes());
        encode_label(&mut labels, b"job", b"integrations/node_exporter");
        encode_label(&mut labels, b"mode", b"system");
        let start = u32::try_from(bytes.labels.len()).expect("short");
        bytes.labels.extend_from_slice(&labels);
        batch.timestamp_ms.push(timestamp_ms);
        batch.value.push(f64::from(series));
        let span = LabelSpan::in_labels(start, u32::try_from(labels.len()).expect("short"));
        batch.push_series(SeriesHash::of(TenantId(0), &labels), span);
    }
    let (tenant, lateness) = (TenantId(0), Lateness::Window);
    HintPart { tenant, lateness, batch, bytes: Arc::new(bytes) }
}

/// What one process kept, the next hands out, to as many shards as it has; then it is gone. Red
/// when a start does not find a segment, or shards are counted as they were.
#[test]
fn hints_outlive_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 2, 64 << 10);
    assert_eq!(rig.started.found, []);
    for round in 0..30 {
        rig.append(u32::from(round % 2 == 0), round, part(0, 500, 1));
    }
    rig.stop();

    let rig = Rig::start(folder.path(), 3, 64 << 10);
    let [found] = rig.started.found.as_slice() else { panic!("one node") };
    assert_eq!((found.node, found.figures.samples), (NODE, 15_000));
    assert_eq!(rig.started.board.read(), [(NODE, found.figures)]);
    assert!(found.segments > 3 && found.damaged.is_empty());
    rig.append(0, 1, part(500, 600, 1));
    let samples = rig.drain();
    assert_eq!(samples.iter().sum::<u64>(), 15_100);
    assert!(samples.iter().all(|samples| *samples > 3_000), "every shard has its share");
    rig.stop();

    let rig = Rig::start(folder.path(), 1, 64 << 10);
    assert_eq!(rig.started.found.iter().map(|found| found.segments).sum::<u64>(), 0);
    assert_eq!(rig.drain(), [0]);
    rig.stop();
}

/// A second thread would not see what the first one holds; the folder's lock is the caller's.
/// What is no segment and no node's folder is left alone.
#[test]
fn strangers_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let hints = folder.path().join("hints");
    let node = hints.join(NODE.to_string());
    std::fs::create_dir_all(&node).expect("it can be made");
    std::fs::create_dir_all(hints.join("lost+found")).expect("it can be made");
    std::fs::write(node.join("notes.txt"), "keep").expect("it can be written");
    let rig = Rig::start(folder.path(), 1, 64 << 10);
    assert_eq!(rig.started.found.len(), 1);
    rig.append(0, 1, part(0, 10, 1));
    assert_eq!(rig.drain(), [10]);
    rig.stop();
    assert!(node.join("notes.txt").exists() && hints.join("lost+found").exists());
}

/// How fast hints are kept and handed out: 10 million samples of 20,000 series, one each per part
/// of 5,000. `cargo nextest run --release --lib --run-ignored only -E 'test(hints_speed)'
/// --no-capture`
#[test]
#[ignore = "a measurement"]
fn hints_speed() {
    use crate::base::time::monotonic_now;
    let folder = tempfile::tempdir_in(std::env::var("TIDEGATE_BENCH_DIR").unwrap_or(".".into()));
    let folder = folder.expect("a folder");
    let rig = Rig::start(folder.path(), 1, 64 << 20);
    let parts = 2_000;
    let begin = monotonic_now();
    let events = &rig.events[0];
    let (mut sent, mut answered) = (0u32, 0);
    while answered < parts {
        if sent < parts && sent - answered < 32 {
            let from = sent % 4 * 5_000;
            let part = part(from, from + 5_000, i64::from(sent));
            let ticket = HintTicket { shard: 0, number: u64::from(sent) };
            rig.send(HintCommand::Append { node: NODE, ticket, part });
            sent += 1;
        } else {
            let event = events.recv().expect("the thread runs");
            assert!(matches!(event, HintEvent::Appended { outcome: Ok(()), .. }));
            answered += 1;
        }
    }
    let kept = monotonic_now() - begin;
    let bytes = rig.started.board.read()[0].1.bytes;
    rig.stop();
    let begin = monotonic_now();
    let rig = Rig::start(folder.path(), 1, 64 << 20);
    let opened = monotonic_now() - begin;
    let begin = monotonic_now();
    let samples = rig.drain()[0];
    let drained = monotonic_now() - begin;
    let rate = samples as f64 / drained.as_secs_f64() / 1e6;
    eprintln!("kept {samples} samples, {bytes} bytes, in {kept:?} (with making the parts)");
    eprintln!("opened in {opened:?}, handed out in {drained:?}: {rate:.1} million a second");
    assert_eq!(samples, 10_000_000);
}
