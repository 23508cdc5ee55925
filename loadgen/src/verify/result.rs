//! What `loadgen verify` found: counts, and the first examples of each fault.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::grouped;

/// How a sample can be at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Acknowledged but absent.
    Missing,
    /// There with another value.
    Wrong,
    /// Never sent: the labels, or the time.
    Extra,
    /// Read more than once.
    Repeated,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Which.
    pub fault: Fault,
    /// `{name="value",...}`
    pub series: String,
    /// Unix milliseconds.
    pub timestamp_ms: i64,
    /// As read.
    pub value: Option<f64>,
    /// As sent.
    pub want: Option<f64>,
}

impl Example {
    /// Writes the labels out.
    pub fn new(
        fault: Fault,
        labels: &[(String, String)],
        timestamp_ms: i64,
        value: Option<f64>,
        want: Option<f64>,
    ) -> Self {
        let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
        let series = format!("{{{}}}", pairs.join(","));
        Self { fault, series, timestamp_ms, value, want }
    }
}

/// The result of `loadgen verify`, in samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyResult {
    /// Came back, in all.
    pub samples_read: u64,
    /// Acknowledged and there, with whatever value.
    pub acked_present: u64,
    /// Acknowledged but absent.
    pub missing: u64,
    /// There with another value.
    pub wrong: u64,
    /// Never sent.
    pub extra: u64,
    /// Read more than once.
    pub repeated: u64,
    /// Of refused or unanswered requests, and there: allowed.
    pub uncertain_present: u64,
    /// Of refused or unanswered requests, and absent: allowed.
    pub uncertain_absent: u64,
    /// Groups of series that were read.
    pub groups: u64,
    /// The first of each fault.
    pub examples: Vec<Example>,
    /// So many of each.
    #[serde(skip)]
    pub examples_max: usize,
}

impl VerifyResult {
    /// Nothing missing, wrong, extra or repeated.
    pub fn is_clean(&self) -> bool {
        self.missing + self.wrong + self.extra + self.repeated == 0
    }

    /// Whether there is room for another example of `fault`.
    pub fn wants_example(&self, fault: Fault) -> bool {
        let count = self.examples.iter().filter(|example| example.fault == fault).count();
        count < self.examples_max
    }

    /// Keeps `example` if there is room.
    pub fn example(&mut self, example: Example) {
        if self.wants_example(example.fault) {
            self.examples.push(example);
        }
    }
}

impl fmt::Display for VerifyResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "read {} samples in {} groups of series",
            grouped(self.samples_read),
            grouped(self.groups)
        )?;
        writeln!(f, "acknowledged: {} present", grouped(self.acked_present))?;
        writeln!(
            f,
            "uncertain:    {} present, {} absent (refused or unanswered: both are fine)",
            grouped(self.uncertain_present),
            grouped(self.uncertain_absent)
        )?;
        let counts = [
            ("missing", self.missing),
            ("wrong", self.wrong),
            ("extra", self.extra),
            ("repeated", self.repeated),
        ];
        for (name, count) in counts {
            writeln!(f, "{name}: {}", grouped(count))?;
        }
        for example in &self.examples {
            write!(f, "  {:?} {} at {}", example.fault, example.series, example.timestamp_ms)?;
            match (example.value, example.want) {
                (Some(value), Some(want)) => writeln!(f, ": {value:?} instead of {want:?}")?,
                (Some(value), None) => writeln!(f, ": {value:?}")?,
                (None, Some(want)) => writeln!(f, ": was {want:?}")?,
                (None, None) => writeln!(f)?,
            }
        }
        write!(f, "{}", if self.is_clean() { "verified" } else { "NOT what was sent" })
    }
}
