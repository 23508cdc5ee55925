//! Tables of what Prometheus 3 answers for selectors: lookback boundaries, staleness, offset and
//! `@`.

use super::*;
use crate::model::sample::STALE_NAN_BITS;
use crate::query::expression::Expression;

const LOOKBACK_MS: i64 = 300_000;

fn stale() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

fn run(points: &[(i64, f64)]) -> Vec<Sample> {
    points.iter().map(|&(timestamp_ms, value)| Sample { timestamp_ms, value }).collect()
}

fn selector(text: &str) -> Selector {
    let expression = Expression::parse(text).expect("a query");
    expression.selector().expect("with a selector").clone()
}

#[track_caller]
fn check_points(points: &[Sample], want: &[(i64, f64)]) {
    let points: Vec<_> = points.iter().map(|point| (point.timestamp_ms, point.value)).collect();
    assert_eq!(points, want);
}

#[track_caller]
fn check_vector(text: &str, samples: &[(i64, f64)], instants: Instants, want: &[(i64, f64)]) {
    let selector = selector(text);
    // What is outside the window must not be needed.
    let window = selector.window(instants, LOOKBACK_MS);
    let mut samples = run(samples);
    samples.retain(|s| window.start_ms <= s.timestamp_ms && s.timestamp_ms <= window.end_ms);
    let mut points = Vec::new();
    selector.vector_points(&samples, instants, LOOKBACK_MS, &mut points);
    check_points(&points, want);
}

#[test]
fn lookback_is_open_on_the_left() {
    let samples = [(1_000, 1.0)];
    let check = |at_ms: i64, want: &[(i64, f64)]| {
        check_vector("up", &samples, Instants::one(at_ms), want);
    };
    check(999, &[]);
    check(1_000, &[(1_000, 1.0)]);
    check(300_999, &[(300_999, 1.0)]);
    // Exactly five minutes old: Prometheus 2 still saw it, 3 does not.
    check(301_000, &[]);
}

#[test]
fn newest_sample_wins_and_stale_hides_the_series() {
    let samples = [(1_000, 1.0), (2_000, 2.0), (3_000, stale()), (5_000, 5.0)];
    let check = |at_ms: i64, want: &[(i64, f64)]| {
        check_vector("up", &samples, Instants::one(at_ms), want);
    };
    check(1_999, &[(1_999, 1.0)]);
    check(2_999, &[(2_999, 2.0)]);
    check(3_000, &[]);
    check(4_999, &[]);
    check(5_000, &[(5_000, 5.0)]);
}

#[test]
fn a_plain_nan_is_a_value() {
    let selector = selector("up");
    let mut points = Vec::new();
    selector.vector_points(&run(&[(1, f64::NAN)]), Instants::one(1), LOOKBACK_MS, &mut points);
    assert!(points.len() == 1 && points[0].value.is_nan());
}

#[test]
fn range_query_walks_the_steps() {
    let samples = [(0, 0.0), (10_000, 1.0), (20_000, stale()), (40_000, 4.0)];
    let instants = Instants { start_ms: 0, end_ms: 59_000, step_ms: 10_000 };
    check_vector(
        "up",
        &samples,
        instants,
        &[(0, 0.0), (10_000, 1.0), (40_000, 4.0), (50_000, 4.0)],
    );
    // Not aligned to anything but the start.
    let instants = Instants { start_ms: 5_000, end_ms: 45_000, step_ms: 10_000 };
    check_vector("up", &samples, instants, &[(5_000, 0.0), (15_000, 1.0), (45_000, 4.0)]);
    // A gap of more than the lookback, then the series again.
    let instants = Instants { start_ms: 0, end_ms: 600_000, step_ms: 150_000 };
    check_vector(
        "up",
        &[(0, 1.0), (550_000, 2.0)],
        instants,
        &[(0, 1.0), (150_000, 1.0), (600_000, 2.0)],
    );
}

#[test]
fn offset_and_at_move_the_window() {
    let samples = [(10_000, 1.0), (20_000, 2.0), (30_000, 3.0)];
    let instants = Instants { start_ms: 20_000, end_ms: 40_000, step_ms: 10_000 };
    let check = |text: &str, want: &[(i64, f64)]| check_vector(text, &samples, instants, want);
    check("up offset 10s", &[(20_000, 1.0), (30_000, 2.0), (40_000, 3.0)]);
    check("up offset -10s", &[(20_000, 3.0), (30_000, 3.0), (40_000, 3.0)]);
    check("up @ 10", &[(20_000, 1.0), (30_000, 1.0), (40_000, 1.0)]);
    check("up @ start()", &[(20_000, 2.0), (30_000, 2.0), (40_000, 2.0)]);
    check("up @ end()", &[(20_000, 3.0), (30_000, 3.0), (40_000, 3.0)]);
    check("up @ end() offset 20s", &[(20_000, 2.0), (30_000, 2.0), (40_000, 2.0)]);
}

#[test]
fn matrix_is_open_on_the_left_and_drops_stale_markers() {
    let samples = run(&[(0, 0.0), (10_000, 1.0), (20_000, stale()), (30_000, 3.0), (40_000, 4.0)]);
    let check = |text: &str, at_ms: i64, want: &[(i64, f64)]| {
        let mut points = Vec::new();
        selector(text).matrix_points(&samples, at_ms, 30_000, &mut points);
        check_points(&points, want);
    };
    check("up[30s]", 30_000, &[(10_000, 1.0), (30_000, 3.0)]);
    check("up[30s]", 29_999, &[(0, 0.0), (10_000, 1.0)]);
    check("up[30s] offset 10s", 40_000, &[(10_000, 1.0), (30_000, 3.0)]);
    check("up[30s] @ 40", 0, &[(30_000, 3.0), (40_000, 4.0)]);
    check("up[30s]", 100_000, &[]);
}

#[test]
fn extreme_times_do_not_overflow() {
    let samples = run(&[(i64::MIN, 1.0), (i64::MAX, 2.0)]);
    for at_ms in [i64::MIN, i64::MAX] {
        for offset_ms in [i64::MIN, i64::MAX] {
            let selector = Selector { offset_ms, ..selector("up") };
            let instants = Instants { start_ms: at_ms, end_ms: at_ms, step_ms: i64::MAX };
            selector.vector_points(&samples, instants, i64::MAX, &mut Vec::new());
            let _window = selector.window(instants, i64::MAX);
        }
    }
}
