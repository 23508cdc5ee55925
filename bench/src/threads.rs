//! DRIVER: the CPU time of a server's threads by what they are for, from /proc. Looked at often,
//! because the kernel's io workers come and go and take their counters with them.

use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use loadgen::cpu::threads;

const LOOK_EVERY: Duration = Duration::from_millis(100);
const IO_WORKER: &str = "iou-wrk-";

/// CPU time of threads, their io workers in it, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "units stand last")]
pub struct CpuByRole {
    /// `shard-*`.
    pub shards_ns: u64,
    /// `background*` and `reads*`: flush, merge, snapshots, retention, reads of blocks.
    pub background_ns: u64,
    /// The rest.
    pub others_ns: u64,
}

/// One thread as it was seen first and last.
struct Seen {
    name: String,
    first_ns: u64,
    last_ns: u64,
}

/// Watches until it is asked what it saw.
pub struct ThreadWatch {
    stop: mpsc::Sender<()>,
    watcher: JoinHandle<HashMap<u32, Seen>>,
}

impl ThreadWatch {
    /// Begins to count.
    pub fn start(pid: u32) -> Self {
        let (stop, stopped) = mpsc::channel();
        let mut seen = HashMap::new();
        look(pid, &mut seen, Origin::Existing);
        let watcher = thread::spawn(move || {
            // The sender's end, or its word, is the end.
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                look(pid, &mut seen, Origin::New);
            }
            look(pid, &mut seen, Origin::New);
            seen
        });
        Self { stop, watcher }
    }

    /// What was used since the start.
    pub fn finish(self) -> CpuByRole {
        drop(self.stop);
        sum(&self.watcher.join().unwrap_or_default())
    }
}

/// An io worker counts for the thread whose ring it works for.
fn sum(seen: &HashMap<u32, Seen>) -> CpuByRole {
    let mut cpu = CpuByRole::default();
    for thread in seen.values() {
        let owner = thread.name.strip_prefix(IO_WORKER);
        let owner = owner.and_then(|id| seen.get(&id.parse::<u32>().ok()?));
        let name = owner.map_or(thread.name.as_str(), |owner| owner.name.as_str());
        *role(&mut cpu, name) += thread.last_ns.saturating_sub(thread.first_ns);
    }
    cpu
}

/// Where a thread's counter began.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Before we looked first.
    Existing,
    /// Since then, so from 0.
    New,
}

fn look(pid: u32, seen: &mut HashMap<u32, Seen>, origin: Origin) {
    for thread in threads(pid) {
        let first_ns = if origin == Origin::Existing { thread.cpu_ns } else { 0 };
        let entry =
            seen.entry(thread.id).or_insert(Seen { name: String::new(), first_ns, last_ns: 0 });
        // A thread names itself after it began.
        entry.name = thread.name;
        entry.last_ns = thread.cpu_ns;
    }
}

fn role<'a>(cpu: &'a mut CpuByRole, name: &str) -> &'a mut u64 {
    if name.starts_with("shard-") {
        &mut cpu.shards_ns
    } else if name.starts_with("background") || name.starts_with("reads") {
        &mut cpu.background_ns
    } else {
        &mut cpu.others_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_workers_count_for_their_thread() {
        let seen = |name: &str, last_ns| Seen { name: name.into(), first_ns: 10, last_ns };
        let threads = HashMap::from([
            (7, seen("shard-0", 110)),
            (8, seen("background-1", 30)),
            (9, seen("iou-wrk-7", 15)),
            (10, seen("iou-wrk-8", 17)),
            (11, seen("iou-wrk-99", 11)),
            (12, seen("tidegate", 12)),
        ]);
        let want = CpuByRole { shards_ns: 105, background_ns: 27, others_ns: 3 };
        assert_eq!(sum(&threads), want);
    }

    #[test]
    fn work_counts_for_the_thread_that_does_it() {
        let (go, started) = mpsc::channel::<()>();
        let (done, finished) = mpsc::channel::<()>();
        let (end, ended) = mpsc::channel::<()>();
        let worker = thread::Builder::new().name("background-7".into()).spawn(move || {
            started.recv().ok();
            let mut value = 1_u64;
            for _ in 0..60_000_000_u32 {
                value = std::hint::black_box(value.wrapping_mul(3));
            }
            done.send(()).ok();
            // It must still be there when it is looked at.
            ended.recv().ok();
        });
        let watch = ThreadWatch::start(std::process::id());
        go.send(()).expect("it waits");
        finished.recv().expect("it works");
        let cpu = watch.finish();
        drop(end);
        worker.expect("a thread").join().expect("it ends");
        assert!(cpu.background_ns > 5_000_000, "{cpu:?}");
        assert_eq!(cpu.shards_ns, 0);
    }
}
