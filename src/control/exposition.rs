//! Prometheus' text format: families with help and type once, samples with escaped labels. Pure.

use std::fmt::Write;

use crate::base::latency::LatencyBuckets;

/// What a family's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// Only rises, from the process' start.
    Counter,
    /// As of now.
    Gauge,
    /// `_bucket`, `_sum`, `_count`.
    Histogram,
}

/// A page being written. Call [`Exposition::family`], then its samples, then the next family.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    name: String,
}

impl Exposition {
    /// Begins a family; `help` is one line.
    pub fn family(&mut self, name: &str, kind: FamilyKind, help: &str) {
        let kind = match kind {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram => "histogram",
        };
        self.name = name.into();
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A sample of the current family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.sample_named("", labels, format_args!("{value}"));
    }

    /// A sample of the current family that is not a whole number.
    pub fn sample_f64(&mut self, labels: &[(&str, &str)], value: f64) {
        self.sample_named("", labels, format_args!("{value}"));
    }

    /// A histogram of the current family, bounds in seconds.
    pub fn histogram(&mut self, labels: &[(&str, &str)], latency: &LatencyBuckets) {
        let bucket = |page: &mut Self, bound: &str, count: u64| {
            let labels = [labels, &[("le", bound)]].concat();
            page.sample_named("_bucket", &labels, format_args!("{count}"));
        };
        for (bound, count) in latency.cumulative() {
            bucket(self, &bound.as_secs_f64().to_string(), count);
        }
        let count = latency.count();
        bucket(self, "+Inf", count);
        self.sample_named("_sum", labels, format_args!("{}", latency.sum().as_secs_f64()));
        self.sample_named("_count", labels, format_args!("{count}"));
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }

    fn sample_named(&mut self, suffix: &str, labels: &[(&str, &str)], value: std::fmt::Arguments) {
        self.text.push_str(&self.name);
        self.text.push_str(suffix);
        for (index, (name, label_value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, label_value);
            self.text.push('"');
        }
        self.text.push_str(if labels.is_empty() { " " } else { "} " });
        self.push(value);
        self.text.push('\n');
    }

    fn push(&mut self, arguments: std::fmt::Arguments) {
        self.text.write_fmt(arguments).expect("a String takes everything");
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::{HashMap, HashSet};
    use std::time::Duration;

    use super::*;

    /// Parses a page and checks its grammar: help and type once and before the samples, families in
    /// one piece, no sample twice. Returns `name{labels}` -> value.
    pub fn check_page(page: &str) -> HashMap<String, f64> {
        let mut families = HashSet::new();
        let mut current = (String::new(), String::new());
        let mut samples = HashMap::new();
        assert!(page.ends_with('\n'));
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("help has a text");
                assert!(!text.trim().is_empty(), "{line}");
                assert!(families.insert(name.to_owned()), "family twice: {line}");
                current = (name.to_owned(), String::new());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("type has a kind");
                assert_eq!(name, current.0);
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(current.1.is_empty(), "type twice: {line}");
                current.1 = kind.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let name = check_series(series);
                let suffix = name.strip_prefix(&current.0).expect("a sample of the family");
                match current.1.as_str() {
                    "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix)),
                    "counter" => assert!(suffix.is_empty() && name.ends_with("_total"), "{line}"),
                    _ => assert!(suffix.is_empty(), "{line}"),
                }
                let value = value.parse().expect("a number");
                assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        samples
    }

    fn check_series(series: &str) -> &str {
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{series}");
        let mut rest = labels.strip_suffix('}').expect("closed");
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"").expect("label");
            assert!(label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{series}");
            let mut end = None;
            let mut is_escaped = false;
            for (at, byte) in after.bytes().enumerate() {
                match byte {
                    _ if is_escaped => {
                        assert!(b"\\\"n".contains(&byte), "{series}");
                        is_escaped = false;
                    }
                    b'\\' => is_escaped = true,
                    b'"' => {
                        end = Some(at);
                        break;
                    }
                    _ => {}
                }
            }
            rest = &after[end.expect("closing quote") + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        name
    }

    #[test]
    fn page() {
        let mut page = Exposition::default();
        page.family("a_total", FamilyKind::Counter, "Things\nthat \\ happen");
        page.sample(&[("reason", "a\"b\\c\nd"), ("shard", "0")], 3);
        page.family("b", FamilyKind::Gauge, "Size");
        page.sample_f64(&[], 0.5);
        let text = page.into_text();
        let want = "# HELP a_total Things\\nthat \\\\ happen\n# TYPE a_total counter\n\
                    a_total{reason=\"a\\\"b\\\\c\\nd\",shard=\"0\"} 3\n\
                    # HELP b Size\n# TYPE b gauge\nb 0.5\n";
        assert_eq!(text, want);
        assert_eq!(check_page(&text).len(), 2);
    }

    #[test]
    fn histogram_is_cumulative() {
        let mut latency = LatencyBuckets::default();
        latency.observe(Duration::from_micros(20));
        latency.observe(Duration::from_millis(3));
        latency.observe(Duration::from_secs(60));
        let mut page = Exposition::default();
        page.family("sync_seconds", FamilyKind::Histogram, "Syncs");
        page.histogram(&[("shard", "1")], &latency);
        let samples = check_page(&page.into_text());
        let bucket = |le: &str| samples[&format!("sync_seconds_bucket{{shard=\"1\",le=\"{le}\"}}")];
        assert_eq!(bucket("0.000016").to_bits(), 0.0f64.to_bits());
        assert_eq!(bucket("0.000032").to_bits(), 1.0f64.to_bits());
        assert_eq!(bucket("0.004096").to_bits(), 2.0f64.to_bits());
        assert_eq!(bucket("+Inf").to_bits(), 3.0f64.to_bits());
        assert!((samples["sync_seconds_sum{shard=\"1\"}"] - 60.003_02).abs() < 1e-9);
    }
}
