//! What is measured: a table of scenarios. Each starts servers of its own, brings them into the
//! state that it measures, and gives figures.

mod background;
mod bytes;
mod fleet;
mod ingest;
mod memory;
mod restart;
mod selects;

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::outcome::Figure;
use crate::server::SetUp;

const CPU_PER_SAMPLE: &str = "server CPU per sample, ns";
const POINTS_PER_SECOND: &str = "samples acknowledged per second";
const MILLION: u64 = 1_000_000;
const HOUR_MS: i64 = 3_600_000;
/// Samples begin an hour ago: a millisecond apart they do not catch up with the clock.
const START_BEFORE_NOW_MS: i64 = HOUR_MS;
/// Blocks begin at multiples of this.
const BLOCK_RANGE_MS: i64 = 2 * HOUR_MS;

/// A scenario.
pub struct Scenario {
    /// On the command line.
    pub name: &'static str,
    /// A line for `bench list`.
    pub about: &'static str,
    measure: fn(&Round<'_>) -> io::Result<Vec<Figure>>,
}

/// One round of a scenario.
pub struct Round<'a> {
    /// The programs and folders.
    pub set_up: &'a SetUp,
    /// Length of a measured window.
    pub seconds: u64,
    /// Length of a recording that must be made.
    pub record_seconds: u64,
}

/// All, in the order they run.
pub const ALL: [Scenario; 20] = [
    Scenario {
        name: "remote-write-standalone",
        about: "20,000 series of 11 labels, a sample each, 5,000 a request, on CPU 0",
        measure: ingest::remote_write,
    },
    Scenario {
        name: "vm-json-standalone",
        about: "JSON lines of 100 samples, 5,000 a request, on CPU 0",
        measure: ingest::vm_json,
    },
    Scenario {
        name: "two-shards",
        about: "remote write as above, two shards, both CPUs shared with the load",
        measure: ingest::two_shards,
    },
    Scenario {
        name: "fleet-remote-write",
        about: "remote write as above over a gateway and two nodes, all on CPU 0",
        measure: fleet::remote_write,
    },
    Scenario {
        name: "fleet-remote-write-2",
        about: "the same, each sample on both nodes",
        measure: fleet::remote_write_2,
    },
    Scenario {
        name: "fleet-vm-json",
        about: "JSON lines of 100 samples over a gateway and two nodes, all on CPU 0",
        measure: fleet::vm_json,
    },
    Scenario {
        name: "fleet-hints",
        about: "how fast a node gets what it missed while it was down, all CPUs",
        measure: fleet::hints,
    },
    Scenario {
        name: "fleet-failover",
        about: "one node of two is killed under load: how long clients see errors",
        measure: fleet::failover,
    },
    Scenario {
        name: "fleet-warm",
        about: "a new gateway in front of nodes that know 5 million series: ready, and warm",
        measure: fleet::warm,
    },
    Scenario {
        name: "million-series",
        about: "a million new series: rate, memory; ingest then, and at 20,000 series",
        measure: memory::million_series,
    },
    Scenario {
        name: "head-memory",
        about: "memory for each sample in the head",
        measure: memory::head_memory,
    },
    Scenario {
        name: "restart-replay",
        about: "kill -9 under load, then how fast the log replays; the same behind a flush",
        measure: restart::restart_replay,
    },
    Scenario {
        name: "backfill",
        about: "an hour a year ago of 20,000 series that are live, by JSON lines",
        measure: ingest::backfill,
    },
    Scenario {
        name: "bytes-tsbs",
        about: "disk per sample: TSBS devops, 20,000 series, 2 h at 10 s, flushed and merged",
        measure: bytes::tsbs,
    },
    Scenario {
        name: "bytes-tsbs-day",
        about: "the same for 24 h at 60 s, which merges into larger blocks",
        measure: bytes::tsbs_day,
    },
    Scenario {
        name: "bytes-node-exporter",
        about: "disk per sample beyond the index: scrapes of a real node_exporter, once a second",
        measure: bytes::node_exporter,
    },
    Scenario {
        name: "background-cost",
        about: "CPU of flush, merge and snapshots per sample; the shards' with and without them",
        measure: background::cost,
    },
    Scenario {
        name: "ack-with-background",
        about: "request latency while flush and merge run and while they do not, in turn",
        measure: background::acks,
    },
    Scenario {
        name: "select-one",
        about: "one series over 24 h: of a million at 30 min, of 10,000 at 1 min, warm",
        measure: selects::one,
    },
    Scenario {
        name: "select-many",
        about: "10,000 series at 1 min over 1 h, of a million others, warm",
        measure: selects::many,
    },
];

impl Scenario {
    /// Those that `names` name; `all` is all.
    pub fn named(names: &[String]) -> io::Result<Vec<&'static Self>> {
        if names.iter().any(|name| name == "all") {
            return Ok(ALL.iter().collect());
        }
        let find = |name: &String| {
            ALL.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
                io::Error::other(format!("there is no scenario {name:?}: see `bench list`"))
            })
        };
        names.iter().map(find).collect()
    }

    /// One round.
    pub fn measure(&self, round: &Round<'_>) -> io::Result<Vec<Figure>> {
        (self.measure)(round)
    }
}

fn start_ms() -> i64 {
    now_ms() - START_BEFORE_NOW_MS
}

/// The begin of a block's range, so many ranges before the one that is going on.
fn range_start_ms(ranges_ago: i64) -> i64 {
    (now_ms().div_euclid(BLOCK_RANGE_MS) - ranges_ago) * BLOCK_RANGE_MS
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}
