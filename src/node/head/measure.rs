//! What the head costs. `cargo test --release --lib node::head::measure -- --ignored --nocapture
//! --test-threads 1`

#![cfg(test)]

use super::tests::push_label;
use super::*;
use crate::base::random::Random;
use crate::base::time::monotonic_now;

const LIMITS: HeadLimits =
    HeadLimits { out_of_order_window_ms: OUT_OF_ORDER_WINDOW_MS, bytes_max: u64::MAX };

/// Eleven labels, 273 bytes or so, as a node exporter behind Kubernetes discovery has them: 2,000
/// series a target.
fn labels_of(number: u32, labels: &mut Vec<u8>) {
    let (target, metric) = (number / 2000, number % 2000);
    labels.clear();
    push_label("__name__", &format!("node_metric_number_{:04}_total", metric / 8), labels);
    push_label("cluster", "eu-central-1-production", labels);
    push_label("cpu", &(metric % 8).to_string(), labels);
    push_label("datacenter", &format!("dc-{}", target % 4), labels);
    push_label("environment", "production", labels);
    push_label("instance", &format!("10.{}.{}.7:9100", target / 250, target % 250), labels);
    push_label("job", "node-exporter", labels);
    push_label("mode", ["idle", "user", "system", "iowait"][metric as usize % 4], labels);
    push_label("namespace", "monitoring", labels);
    push_label("pod", &format!("node-exporter-{target:05}"), labels);
    push_label("team", &format!("platform-{}", target % 10), labels);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("Linux") * 4096
}

fn registered(count: u32) -> Head {
    let mut head = Head::new(LIMITS);
    let mut labels = Vec::new();
    let mut label_bytes = 0;
    let before = resident_bytes();
    let mut elapsed_ns = 0;
    for number in 0..count {
        labels_of(number, &mut labels);
        label_bytes += labels.len();
        let hash = SeriesHash::of(TenantId(0), &labels);
        let start = monotonic_now();
        head.register(TenantId(0), hash, &labels).expect("there is room");
        elapsed_ns += start.elapsed().as_nanos();
    }
    let resident = (resident_bytes() - before) as f64 / f64::from(count);
    let report = head.report();
    println!(
        "{count} series, {:.0} B of labels each: register {:.0} ns, resident {resident:.0} B, \
         accounted {:.0} B (labels {:.0}, index {:.0}), {} pairs",
        label_bytes as f64 / f64::from(count),
        elapsed_ns as f64 / f64::from(count),
        report.bytes as f64 / f64::from(count),
        report.label_bytes as f64 / f64::from(count),
        report.index_bytes as f64 / f64::from(count),
        report.label_pairs,
    );
    head
}

/// Appends `rounds` scrapes of all series in `order`, in batches of 5,000.
fn scrape(head: &mut Head, order: &[u32], rounds: u32) -> f64 {
    let mut elapsed_ns = 0;
    let mut refused = Vec::new();
    for round in 0..rounds {
        let time_ms = 1_700_000_000_000 + i64::from(round) * 15_000;
        for batch in order.chunks(5_000) {
            let times: Vec<i64> = batch.iter().map(|id| time_ms + i64::from(*id % 3)).collect();
            let values: Vec<f64> = batch.iter().map(|id| f64::from(*id * 7 + round)).collect();
            let start = monotonic_now();
            head.append(batch, &times, &values, &mut refused);
            elapsed_ns += start.elapsed().as_nanos();
        }
    }
    assert!(refused.is_empty());
    elapsed_ns as f64 / (f64::from(rounds) * order.len() as f64)
}

fn shuffled(count: u32) -> Vec<u32> {
    let mut random = Random(1);
    let mut order: Vec<u32> = (0..count).collect();
    for index in (1..order.len()).rev() {
        order.swap(index, random.below(index as u64 + 1) as usize);
    }
    order
}

fn measure(count: u32, rounds: u32) {
    let before = resident_bytes();
    let mut head = registered(count);
    let in_order: Vec<u32> = (0..count).collect();
    println!("  append, ids ascending: {:.1} ns a sample", scrape(&mut head, &in_order, rounds));
    report(&head, before);
    drop(head);
    let mut head = registered(count);
    let order = shuffled(count);
    println!("  append, ids shuffled: {:.1} ns a sample", scrape(&mut head, &order, rounds));
    report(&head, before);
}

fn report(head: &Head, before: u64) {
    let report = head.report();
    let series = f64::from(report.series);
    println!(
        "  {:.1} samples a series: resident {:.0} B a series, accounted {:.0} \
         (open {:.0}, sealed {:.0}, {:.2} B a sealed sample)",
        report.samples as f64 / series,
        (resident_bytes() - before) as f64 / series,
        report.bytes as f64 / series,
        report.open_bytes as f64 / series,
        report.sealed_bytes as f64 / series,
        report.sealed_bytes as f64 / (report.chunks * 64).max(1) as f64,
    );
}

#[test]
#[ignore = "a measurement; meaningful in release only"]
fn measure_20_thousand_series() {
    measure(20_000, 400);
}

#[test]
#[ignore = "a measurement; meaningful in release only"]
fn measure_1_million_series() {
    measure(1_000_000, 100);
}

#[test]
#[ignore = "a measurement; meaningful in release only"]
#[expect(clippy::cast_possible_wrap, reason = "small numbers")]
fn measure_runs_of_100() {
    let mut head = registered(20_000);
    let mut refused = Vec::new();
    let mut elapsed_ns = 0;
    let rounds = 20;
    for round in 0..rounds {
        for first in (0..20_000).step_by(50) {
            let series: Vec<u32> = (first..first + 50).flat_map(|id| [id; 100]).collect();
            let time = |at: usize| 1_700_000_000_000 + (round * 100 + (at % 100) as i64) * 1000;
            let times: Vec<i64> = (0..series.len()).map(time).collect();
            let values: Vec<f64> = (0..series.len()).map(|at| (at % 100) as f64).collect();
            let start = monotonic_now();
            head.append(&series, &times, &values, &mut refused);
            elapsed_ns += start.elapsed().as_nanos();
        }
    }
    assert!(refused.is_empty());
    let samples = 20_000.0 * 100.0 * rounds as f64;
    println!("  append, runs of 100: {:.1} ns a sample", elapsed_ns as f64 / samples);
}
