//! The shape `tsbs`: what the Time Series Benchmark Suite calls devops. Hosts with ten tags, a
//! hundred metrics each out of nine measurements; all hosts are read at the same moment.
//! <https://github.com/timescale/tsbs/tree/master/pkg/data/usecases/devops>
//!
//! Kinds take turns, so that a third of the series are of each: percentages with two decimals (a
//! walk with normal steps of 1.0, kept within 0 and 100), counters that grow by 0 to 100, floats
//! with three decimals (a walk with normal steps of 1.0). The walk's state is not rounded, only
//! what is sent. Not here: TSBS' own generator, whose random numbers are Go's.

use super::{Run, index, mix};

/// Metrics of a host.
pub(super) const METRICS_PER_HOST: u64 = 100;

const MEASUREMENTS: [(&str, &str); 9] = [
    (
        "cpu",
        "usage_user usage_system usage_idle usage_nice usage_iowait usage_irq usage_softirq \
         usage_steal usage_guest usage_guest_nice",
    ),
    ("diskio", "reads writes read_bytes write_bytes read_time write_time io_time"),
    ("disk", "total free used used_percent inodes_total inodes_free inodes_used"),
    (
        "kernel",
        "boot_time interrupts context_switches processes_forked disk_pages_in disk_pages_out",
    ),
    (
        "mem",
        "total available used free cached buffered used_percent available_percent buffered_percent",
    ),
    ("net", "bytes_sent bytes_recv packets_sent packets_recv err_in err_out drop_in drop_out"),
    ("nginx", "accepts active handled reading requests waiting writing"),
    (
        "postgresl",
        "numbackends xact_commit xact_rollback blks_read blks_hit tup_returned tup_fetched \
         tup_inserted tup_updated tup_deleted conflicts temp_files temp_bytes deadlocks \
         blk_read_time blk_write_time",
    ),
    (
        "redis",
        "total_connections_received expired_keys evicted_keys keyspace_hits keyspace_misses \
         instantaneous_ops_per_sec instantaneous_input_kbps instantaneous_output_kbps \
         connected_clients used_memory used_memory_rss used_memory_peak used_memory_lua \
         rdb_changes_since_last_save sync_full sync_partial_ok sync_partial_err pubsub_channels \
         pubsub_patterns latest_fork_usec connected_slaves master_repl_offset repl_backlog_active \
         repl_backlog_size repl_backlog_histlen mem_fragmentation_ratio used_cpu_sys \
         used_cpu_user used_cpu_sys_children used_cpu_user_children",
    ),
];

const REGIONS: [&str; 9] = [
    "us-east-1",
    "us-west-1",
    "us-west-2",
    "eu-west-1",
    "eu-central-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-northeast-1",
    "sa-east-1",
];
const SYSTEMS: [&str; 3] = ["Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10"];
const ARCHITECTURES: [&str; 2] = ["x64", "x86"];
const TEAMS: [&str; 4] = ["SF", "NYC", "LON", "CHI"];
const ENVIRONMENTS: [&str; 3] = ["production", "staging", "test"];

/// The name and ten tags, sorted by name.
pub(super) fn labels(run: &Run, series: u64) -> Vec<(String, String)> {
    let host = series / METRICS_PER_HOST;
    let chance = mix(run.seed ^ mix(host));
    let pick = |names: &[&str], shift: u32| {
        names[index((chance >> shift) % names.len() as u64)].to_owned()
    };
    let region = pick(&REGIONS, 0);
    let zone = ["a", "b", "c"][index((chance >> 8) % 3)];
    let pairs = [
        ("__name__", metric_name(series % METRICS_PER_HOST)),
        ("arch", pick(&ARCHITECTURES, 16)),
        ("datacenter", format!("{region}{zone}")),
        ("hostname", host_label(run, host)),
        ("os", pick(&SYSTEMS, 24)),
        ("rack", ((chance >> 32) % 100).to_string()),
        ("region", region),
        ("service", ((chance >> 40) % 20).to_string()),
        ("service_environment", pick(&ENVIRONMENTS, 48)),
        ("service_version", ((chance >> 52) % 2).to_string()),
        ("team", pick(&TEAMS, 56)),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Says the run too, so that two runs have no series in common.
pub(super) fn host_label(run: &Run, host: u64) -> String {
    format!("host_{}_{host}", run.seed)
}

/// The inverse of `host_label`.
pub(super) fn host_of(run: &Run, label: &str) -> Option<u64> {
    let rest = label.strip_prefix("host_")?.strip_prefix(&run.seed.to_string())?;
    rest.strip_prefix('_')?.parse().ok()
}

/// Which of a host's metrics `name` is.
pub(super) fn metric_of(name: &str) -> Option<u64> {
    (0..METRICS_PER_HOST).find(|&metric| metric_name(metric) == name)
}

fn metric_name(metric: u64) -> String {
    let mut names = MEASUREMENTS
        .iter()
        .flat_map(|(measurement, fields)| fields.split(' ').map(move |field| (measurement, field)));
    let (measurement, field) = names.nth(index(metric)).expect("a metric of a host");
    format!("{measurement}_{field}")
}

/// Where a series has come to: a step is a function of (run, series, sample), a value is the sum
/// of all steps before it.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// The sample that `state` is of.
    sample: u64,
    state: f64,
}

impl Walk {
    /// Before the first step.
    pub(super) fn new(run: &Run, series: u64) -> Self {
        let noise = mix(mix(run.seed) ^ series);
        let state = match series % 3 {
            0 => uniform(noise) * 100.0,
            1 => ((noise >> 20) % 1_000_000) as f64,
            _ => uniform(noise) * 1000.0,
        };
        Self { sample: 0, state }
    }

    /// The value of `sample`. O(samples since the call before); a step back begins anew.
    pub(super) fn value(&mut self, run: &Run, series: u64, sample: u64) -> f64 {
        if sample < self.sample {
            *self = Self::new(run, series);
        }
        let key = mix(run.seed ^ mix(series));
        for step in self.sample..sample {
            let noise = mix(key ^ step);
            self.state = match series % 3 {
                0 => (self.state + normal(noise)).clamp(0.0, 100.0),
                1 => self.state + ((noise >> 20) % 101) as f64,
                _ => self.state + normal(noise),
            };
        }
        self.sample = sample;
        match series % 3 {
            0 => (self.state * 100.0).round() / 100.0,
            1 => self.state,
            _ => (self.state * 1000.0).round() / 1000.0,
        }
    }
}

/// 0 to 1.
fn uniform(noise: u64) -> f64 {
    (noise >> 11) as f64 / (1_u64 << 53) as f64
}

/// Mean 0, deviation 1: twelve uniform numbers of 16 bits, summed. No logarithm, so the same bits
/// on every machine.
fn normal(noise: u64) -> f64 {
    let mut sum = 0;
    let mut word = noise;
    for _ in 0..3 {
        sum += (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
        word = mix(word);
    }
    sum as f64 / 65_536.0 - 6.0 + 6.0 / 65_536.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Shape;

    const RUN: Run = Run {
        seed: 7,
        label_count: 11,
        start_timestamp_ms: 1_700_000_000_000,
        interval_ms: 10_000,
        shape: Shape::Tsbs,
    };

    fn column(series: u64, count: u64) -> Vec<f64> {
        let mut walk = Walk::new(&RUN, series);
        (0..count).map(|sample| walk.value(&RUN, series, sample)).collect()
    }

    #[test]
    fn a_hundred_metrics_with_names_of_their_own() {
        let mut names: Vec<String> = (0..METRICS_PER_HOST).map(metric_name).collect();
        assert!(
            (0..METRICS_PER_HOST).all(|metric| metric_of(&metric_name(metric)) == Some(metric))
        );
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 100);
        let labels = labels(&RUN, 1234);
        assert_eq!(labels.len(), 11);
        assert!(labels.is_sorted());
    }

    #[test]
    fn steps_are_normal() {
        let steps: Vec<f64> = (0..100_000).map(|noise| normal(mix(noise))).collect();
        let mean = steps.iter().sum::<f64>() / steps.len() as f64;
        let variance = steps.iter().map(|step| step * step).sum::<f64>() / steps.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn each_kind_is_what_it_says() {
        let has_decimals =
            |value: f64, scale: f64| ((value * scale).round() / scale).to_bits() == value.to_bits();
        let percent = column(0, 5000);
        assert!(percent.iter().all(|&v| (0.0..=100.0).contains(&v) && has_decimals(v, 100.0)));
        let counter = column(1, 5000);
        assert!(counter.windows(2).all(|pair| (0.0..=100.0).contains(&(pair[1] - pair[0]))));
        let float = column(2, 5000);
        assert!(float.iter().all(|&value| has_decimals(value, 1000.0)));
        for values in [percent, counter, float] {
            assert!(
                values.windows(2).filter(|pair| (pair[0] - pair[1]).abs() > 1e-9).count() > 4000
            );
        }
    }

    #[test]
    fn a_walk_comes_to_the_same_value_from_anywhere() {
        for series in 0..6 {
            let values = column(series, 300);
            let mut walk = Walk::new(&RUN, series);
            for sample in [299, 0, 150, 150, 7, 298] {
                let value = walk.value(&RUN, series, sample);
                assert_eq!(value.to_bits(), values[index(sample)].to_bits(), "{series} {sample}");
            }
        }
    }
}
