//! What is sent: seeded series of one shape. Labels, timestamp and value of sample k of series s
//! are pure functions of (run, s, k), so that a verifier needs no copy of the data. A `Cursor`
//! makes the next value of a walk O(1).

mod mixed;
mod tsbs;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Labels that a `mixed` series cannot do without: the name, the run, the number and the group.
pub const LABEL_COUNT_MIN: u32 = 4;

/// More are of no use, and their names have two digits.
pub const LABEL_COUNT_MAX: u32 = 100;

/// The label that tells the runs (seeds) apart.
pub const LABEL_RUN: &str = "lg_run";
/// The label that numbers the series of a run.
pub const LABEL_SERIES: &str = "lg_series";
/// The label that says which group a series is in, the unit in which series are read back.
pub const LABEL_GROUP: &str = "lg_series_group";

/// What series look like.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// As many labels as asked for, values of every kind
    #[default]
    Mixed,
    /// Hosts of 100 metrics with 10 tags: percentages, counters and floats, a third each
    Tsbs,
}

/// Everything that the data of a run depends on. It heads the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Runs with other seeds have other series: the value of `lg_run`, or a part of the host.
    pub seed: u64,
    /// Labels of each series, the metric name counted; `tsbs` has 11 whatever this says.
    pub label_count: u32,
    /// Unix milliseconds of sample 0.
    pub start_timestamp_ms: i64,
    /// Between two samples of a series; at least 1.
    pub interval_ms: u32,
    /// What the series look like.
    #[serde(default)]
    pub shape: Shape,
}

/// Where a series has come to, so that its next value need not be summed up from its first.
#[derive(Clone, Copy, Debug)]
pub enum Cursor {
    /// Each value stands for itself.
    Free,
    /// A value depends on those before.
    Walk(tsbs::Walk),
}

impl Run {
    /// The labels of series `series`, sorted by name.
    pub fn labels(&self, series: u64) -> Vec<(String, String)> {
        match self.shape {
            Shape::Mixed => mixed::labels(self, series),
            Shape::Tsbs => tsbs::labels(self, series),
        }
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

    /// At the first sample of `series`.
    pub fn cursor(&self, series: u64) -> Cursor {
        match self.shape {
            Shape::Mixed => Cursor::Free,
            Shape::Tsbs => Cursor::Walk(tsbs::Walk::new(self, series)),
        }
    }

    /// The value of sample `sample` of `series`, whose cursor moves there. O(1) for the sample
    /// behind the one before.
    pub fn value(&self, cursor: &mut Cursor, series: u64, sample: u64) -> f64 {
        match cursor {
            Cursor::Free => mixed::value(self, series, sample),
            Cursor::Walk(walk) => walk.value(self, series, sample),
        }
    }

    /// Timestamp and value.
    pub fn sample(&self, cursor: &mut Cursor, series: u64, sample: u64) -> (i64, f64) {
        (self.timestamp_ms(series, sample), self.value(cursor, series, sample))
    }

    /// Consecutive series that are read back together.
    pub fn series_per_group(&self) -> u64 {
        match self.shape {
            Shape::Mixed => mixed::SERIES_PER_GROUP,
            Shape::Tsbs => tsbs::METRICS_PER_HOST,
        }
    }

    /// The label whose values are this run's groups, and a selector of all its series.
    pub fn groups(&self) -> (&'static str, String) {
        let seed = self.seed;
        match self.shape {
            Shape::Mixed => {
                (LABEL_GROUP, format!("{{__name__=~\"loadgen_.*\",{LABEL_RUN}=\"{seed}\"}}"))
            }
            Shape::Tsbs => ("hostname", format!("{{hostname=~\"host_{seed}_.*\"}}")),
        }
    }

    /// The number of the group that the label of `groups` calls `label`.
    pub fn group_of_label(&self, label: &str) -> Option<u64> {
        match self.shape {
            Shape::Mixed => label.parse().ok(),
            Shape::Tsbs => tsbs::host_of(self, label),
        }
    }

    /// A selector of the series of `group`.
    pub fn group_selector(&self, group: u64) -> String {
        match self.shape {
            Shape::Mixed => format!(
                "{{__name__=~\"loadgen_.*\",{LABEL_RUN}=\"{}\",{LABEL_GROUP}=\"{}\"}}",
                self.seed,
                mixed::group_label(group)
            ),
            Shape::Tsbs => format!("{{hostname=\"{}\"}}", tsbs::host_label(self, group)),
        }
    }

    /// The number that `labels` say; whether they are all of that series' labels is not checked.
    pub fn series_of(&self, labels: &[(String, String)]) -> Option<u64> {
        let label = |name| labels.iter().find(|(label, _)| label == name).map(|(_, v)| v);
        match self.shape {
            Shape::Mixed => label(LABEL_SERIES)?.parse().ok(),
            Shape::Tsbs => {
                let host = tsbs::host_of(self, label("hostname")?)?;
                let metric = tsbs::metric_of(label("__name__")?)?;
                host.checked_mul(tsbs::METRICS_PER_HOST)?.checked_add(metric)
            }
        }
    }

    fn phase_ms(&self, series: u64) -> u64 {
        if self.interval_ms == 1 || self.shape == Shape::Tsbs {
            return 0;
        }
        mix(self.seed.wrapping_add(series / mixed::SERIES_PER_TARGET)) % u64::from(self.interval_ms)
    }
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

    const RUN: Run = Run {
        seed: 1,
        label_count: 11,
        start_timestamp_ms: 1_700_000_000_000,
        interval_ms: 1,
        shape: Shape::Mixed,
    };

    #[test]
    fn a_series_weighs_what_the_benchmark_says() {
        let mut body = Vec::new();
        for series in 0..5000 {
            let span = remote_write::encode_labels(&RUN.labels(series));
            remote_write::encode_series(
                &mut body,
                &span,
                std::iter::once(RUN.sample(&mut Cursor::Free, series, 7)),
            );
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
        let values: Vec<f64> = (0..200_000)
            .map(|number| RUN.value(&mut Cursor::Free, number % 500, number / 500))
            .collect();
        assert!(values.iter().all(|value| value.is_finite()));
        for extreme in mixed::EXTREMES {
            assert!(values.iter().any(|value| value.to_bits() == extreme.to_bits()), "{extreme}");
        }
        assert!(values.iter().filter(|value| value.fract() != 0.0).count() > 50_000);
    }

    #[test]
    fn labels_say_which_series_it_is() {
        for shape in [Shape::Mixed, Shape::Tsbs] {
            let run = Run { shape, ..RUN };
            let (label, _) = run.groups();
            for series in [0, 99, 100, 255, 256, 123_456] {
                let labels = run.labels(series);
                assert_eq!(run.series_of(&labels), Some(series));
                let group = labels.iter().find(|(name, _)| name == label).map(|(_, v)| v.as_str());
                let number = group.and_then(|group| run.group_of_label(group));
                assert_eq!(number, Some(series / run.series_per_group()));
                let quoted = format!("{label}=\"{}\"", group.unwrap_or_default());
                assert!(run.group_selector(series / run.series_per_group()).contains(&quoted));
            }
        }
    }
}
