//! The shape `mixed`: up to a hundred labels of Kubernetes' kind, and values of every kind, so that
//! nothing about them can be guessed: counters, integers, decimals, the edges of f64. Sample k
//! costs the same whichever samples came before.

use super::{LABEL_COUNT_MIN, LABEL_GROUP, LABEL_RUN, LABEL_SERIES, Run, index, mix};

/// Series that share one value of `lg_series_group`: 256 x a few thousand samples is some tens of
/// megabytes of export.
pub(super) const SERIES_PER_GROUP: u64 = 256;

/// Series of one scrape target follow each other, as in what Prometheus sends.
pub(super) const SERIES_PER_TARGET: u64 = 64;

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
pub(super) const EXTREMES: [f64; 8] = [
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

/// The labels of series `series`, sorted by name. With 11 labels and one sample they make a
/// remote-write `TimeSeries` of about 273 bytes.
pub(super) fn labels(run: &Run, series: u64) -> Vec<(String, String)> {
    let target = series / SERIES_PER_TARGET;
    let host = target % 250;
    let subnet = target / 250;
    let pod = mix(run.seed ^ target.rotate_left(32));
    let name = METRIC_NAMES[index(series % METRIC_NAMES.len() as u64)];
    let mut labels = vec![
        ("__name__".to_owned(), name.to_owned()),
        (LABEL_RUN.to_owned(), run.seed.to_string()),
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
    let wanted = index(u64::from(run.label_count.max(LABEL_COUNT_MIN) - LABEL_COUNT_MIN));
    for (name, value) in optional.into_iter().take(wanted) {
        labels.push((name.to_owned(), value));
    }
    for number in 7..wanted {
        labels.push((format!("tag_{number:02}"), format!("value-{:04}", target % 1000)));
    }
    labels.sort();
    labels
}

/// The value of sample `sample` of `series`: counters, integers and decimals with 2 or 3 digits,
/// some extremes.
pub(super) fn value(run: &Run, series: u64, sample: u64) -> f64 {
    let kind = mix(run.seed ^ mix(series));
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

/// The value of `lg_series_group` for a group's number.
pub(super) fn group_label(group: u64) -> String {
    format!("{group:03}")
}
