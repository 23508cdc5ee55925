//! What is sent: seeded series. Labels, timestamp and value of sample k of series s are pure
//! functions of (run, s, k), so that a verifier needs no copy of the data. O(1) per sample, no
//! state.

use serde::{Deserialize, Serialize};

/// Series that share one value of `lg_series_group`, the unit in which they are read back: 256 x a
/// few thousand samples is some tens of megabytes of export.
pub const SERIES_PER_GROUP: u64 = 256;

/// Labels that a series cannot do without: the name, the run, the number and the group.
pub const LABEL_COUNT_MIN: u32 = 4;

/// More are of no use, and their names have two digits.
pub const LABEL_COUNT_MAX: u32 = 100;

/// The label that tells the runs (seeds) apart.
pub const LABEL_RUN: &str = "lg_run";
/// The label that numbers the series of a run.
pub const LABEL_SERIES: &str = "lg_series";
/// The label that says which group of `SERIES_PER_GROUP` a series is in.
pub const LABEL_GROUP: &str = "lg_series_group";

/// Series of one scrape target follow each other, as in what Prometheus sends.
const SERIES_PER_TARGET: u64 = 64;

/// Everything that the data of a run depends on. It heads the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Also the value of `lg_run`: runs with other seeds have other series.
    pub seed: u64,
    /// Labels of each series, the metric name counted.
    pub label_count: u32,
    /// Unix milliseconds of sample 0.
    pub start_timestamp_ms: i64,
    /// Between two samples of a series; at least 1.
    pub interval_ms: u32,
}

const METRIC_NAMES: [&str; 8] = [
    "loadgen_http_requests_total",
    "loadgen_http_request_bytes_total",
    "loadgen_cpu_seconds_total",
    "loadgen_memory_resident_bytes",
    "loadgen_grpc_handled_total",
    "loadgen_queue_length",
    "loadgen_disk_read_bytes_total",
    "loadgen_gc_duration_seconds",
];

/// Values at the edges of f64, once in `EXTREME_EVERY` samples. Neither NaN nor infinity: JSON has
/// no numbers for them.
const EXTREMES: [f64; 8] = [
    f64::MAX,
    f64::MIN,
    f64::MIN_POSITIVE,
    5e-324,
    -0.0,
    9_007_199_254_740_991.0,
    1.797_693_134_862_315_5e308,
    -1e-300,
];
const EXTREME_EVERY: u64 = 4096;

impl Run {
    /// The labels of series `series`, sorted by name. With 11 labels and one sample they make a
    /// remote-write `TimeSeries` of about 273 bytes.
    pub fn labels(&self, series: u64) -> Vec<(String, String)> {
        let target = series / SERIES_PER_TARGET;
        let host = target % 250;
        let subnet = target / 250;
        let pod = mix(self.seed ^ target.rotate_left(32));
        let name = METRIC_NAMES[index(series % METRIC_NAMES.len() as u64)];
        let mut labels = vec![
            ("__name__".to_owned(), name.to_owned()),
            (LABEL_RUN.to_owned(), self.seed.to_string()),
            (LABEL_SERIES.to_owned(), format!("{series:08}")),
            (LABEL_GROUP.to_owned(), group_label(series / SERIES_PER_GROUP)),
        ];
        let optional = [
            ("cluster", format!("eu-{}", subnet % 4)),
            ("container", format!("app-{}", target % 10)),
            ("instance", format!("10.{}.{host}.7:9100", subnet % 256)),
            ("job", "node-exporter".to_owned()),
            ("namespace", format!("team-{:02}", target % 40)),
            ("node", format!("node-{:04}", target / 8)),
            ("pod", format!("app-{}-{:08x}", target % 10, pod >> 32)),
        ];
        let wanted = index(u64::from(self.label_count.max(LABEL_COUNT_MIN) - LABEL_COUNT_MIN));
        for (name, value) in optional.into_iter().take(wanted) {
            labels.push((name.to_owned(), value));
        }
        for number in 7..wanted {
            labels.push((format!("tag_{number:02}"), format!("value-{:04}", target % 1000)));
        }
        labels.sort();
        labels
    }

    /// Unix milliseconds of sample `sample` of `series`. Targets have phases of their own within
    /// the interval.
    pub fn timestamp_ms(&self, series: u64, sample: u64) -> i64 {
        let since_start = sample * u64::from(self.interval_ms) + self.phase_ms(series);
        self.start_timestamp_ms.saturating_add_unsigned(since_start)
    }

    /// The sample of `series` at `timestamp_ms`, if the run has one there: the inverse of
    /// `timestamp_ms`.
    pub fn sample_at(&self, series: u64, timestamp_ms: i64) -> Option<u64> {
        let since_start = timestamp_ms.checked_sub(self.start_timestamp_ms)?;
        let since_phase = u64::try_from(since_start).ok()?.checked_sub(self.phase_ms(series))?;
        let interval_ms = u64::from(self.interval_ms);
        (since_phase % interval_ms == 0).then_some(since_phase / interval_ms)
    }

    /// The value of sample `sample` of `series`: counters, integers and decimals with 2 or 3
    /// digits, some extremes.
    pub fn value(&self, series: u64, sample: u64) -> f64 {
        let kind = mix(self.seed ^ mix(series));
        let noise = mix(kind ^ sample);
        if noise.is_multiple_of(EXTREME_EVERY) {
            return EXTREMES[index((noise >> 32) % EXTREMES.len() as u64)];
        }
        let noise = noise >> 12;
        match kind % 8 {
            0..3 => ((kind >> 40) % 1_000_000 + sample * (1 + (kind >> 8) % 50)) as f64,
            3 => (noise % 100) as f64,
            4..6 => (noise % 100_000) as f64 / 100.0,
            6 => (noise % 1_000_000) as f64 / 1000.0,
            _ => -((noise % 10_000) as f64) / 100.0,
        }
    }

    /// Both.
    pub fn sample(&self, series: u64, sample: u64) -> (i64, f64) {
        (self.timestamp_ms(series, sample), self.value(series, sample))
    }

    fn phase_ms(&self, series: u64) -> u64 {
        if self.interval_ms == 1 {
            return 0;
        }
        mix(self.seed.wrapping_add(series / SERIES_PER_TARGET)) % u64::from(self.interval_ms)
    }
}

/// The value of `lg_series_group` for a group's number.
pub fn group_label(group: u64) -> String {
    format!("{group:03}")
}

/// SplitMix64's finisher: each bit of the result depends on each of `value`.
/// <https://prng.di.unimi.it/splitmix64.c>
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("a remainder fits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::remote_write;

    const RUN: Run =
        Run { seed: 1, label_count: 11, start_timestamp_ms: 1_700_000_000_000, interval_ms: 1 };

    #[test]
    fn a_series_weighs_what_the_benchmark_says() {
        let mut body = Vec::new();
        for series in 0..5000 {
            let span = remote_write::encode_labels(&RUN.labels(series));
            remote_write::encode_series(&mut body, &span, std::iter::once(RUN.sample(series, 7)));
        }
        let mut scratch = Vec::new();
        let mut encoder = snap::raw::Encoder::new();
        let packed = remote_write::compress(&mut encoder, &body, &mut scratch);
        let (raw, wire) = (body.len() as f64 / 5000.0, packed.len() as f64 / 5000.0);
        assert!((268.0..278.0).contains(&raw), "{raw} bytes raw");
        assert!((24.0..34.0).contains(&wire), "{wire} bytes on the wire");
    }

    #[test]
    fn labels_are_sorted_and_counted() {
        for label_count in LABEL_COUNT_MIN..40 {
            let labels = Run { label_count, ..RUN }.labels(123_456);
            assert_eq!(labels.len(), label_count as usize);
            assert!(labels.is_sorted() && labels.windows(2).all(|pair| pair[0].0 != pair[1].0));
        }
    }

    #[test]
    fn sample_at_inverts_timestamp() {
        for interval_ms in [1, 10, 15_000] {
            let run = Run { interval_ms, ..RUN };
            for series in [0, 63, 64, 1_000_000] {
                for sample in [0, 1, 99_999] {
                    let timestamp_ms = run.timestamp_ms(series, sample);
                    assert_eq!(run.sample_at(series, timestamp_ms), Some(sample));
                    assert!(interval_ms == 1 || run.sample_at(series, timestamp_ms + 1).is_none());
                }
            }
            assert_eq!(run.sample_at(0, run.start_timestamp_ms - 1), None);
        }
    }

    #[test]
    fn values_are_finite_and_of_every_kind() {
        let values: Vec<f64> =
            (0..200_000).map(|number| RUN.value(number % 500, number / 500)).collect();
        assert!(values.iter().all(|value| value.is_finite()));
        for extreme in EXTREMES {
            assert!(values.iter().any(|value| value.to_bits() == extreme.to_bits()), "{extreme}");
        }
        assert!(values.iter().filter(|value| value.fract() != 0.0).count() > 50_000);
    }
}
