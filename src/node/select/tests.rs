//! Selects against a plain filter over random labels and matchers; slices; limits.

use std::collections::{BTreeMap, BTreeSet};

use regex_automata::meta::Regex;

use super::*;
use crate::base::random::Random;
use crate::model::matcher::{MatchOperator, Matcher};
use crate::model::series::{SeriesHash, TenantId};
use crate::node::head::{HeadLimits, Row};
use crate::node::tests::flush;

const LIMITS: HeadLimits = HeadLimits { out_of_order_window_ms: 1000, bytes_max: 1 << 30 };

type Labels = BTreeMap<String, String>;

fn canonical(labels: &Labels) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        let lens = [name.len() + value.len() + 4, name.len(), value.len()].map(|len| len as u8);
        out.extend_from_slice(&[0x0a, lens[0], 0x0a, lens[1]]);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&[0x12, lens[2]]);
        out.extend_from_slice(value.as_bytes());
    }
    out
}

/// A head and what is in it.
struct Fixture {
    head: Head,
    series: Vec<(TenantId, Labels, Vec<i64>)>,
}

const NAMES: [&str; 4] = ["__name__", "env", "instance", "job"];
const VALUES: [&str; 8] = ["a", "b", "ab", "abc", "b.c", "prod", "10.0.0.1:9100", "\n"];

impl Fixture {
    fn new() -> Self {
        Self { head: Head::new(LIMITS), series: Vec::new() }
    }

    /// Registers a series, if it is new, and writes samples at the times given.
    fn add(&mut self, tenant: TenantId, labels: Labels, timestamp_ms: &[i64]) {
        let bytes = canonical(&labels);
        let hash = SeriesHash::of(tenant, &bytes);
        if self.head.find(hash).is_some() {
            return;
        }
        let id = self.head.register(tenant, hash, &bytes).expect("there is room");
        let count = timestamp_ms.len();
        let mut refused = Vec::new();
        self.head.append(&vec![id.0; count], timestamp_ms, &vec![1.0; count], &mut refused);
        assert!(refused.is_empty());
        self.series.push((tenant, labels, timestamp_ms.to_vec()));
    }

    fn random(random: &mut Random) -> Self {
        let mut fixture = Self::new();
        for _ in 0..random.below(150) {
            let mut labels = Labels::new();
            for name in NAMES {
                if random.below(3) > 0 {
                    let value = match random.below(3) {
                        0 => random.below(40).to_string(),
                        _ => random.pick(&VALUES).into(),
                    };
                    labels.insert(name.into(), value);
                }
            }
            let tenant = TenantId(random.below(2) as u32);
            let start_ms = random.below(5000).cast_signed();
            let step_ms = 1 + random.below(50).cast_signed();
            let count = random.below(200).cast_signed();
            let times: Vec<i64> = (0..count).map(|at| start_ms + at * step_ms).collect();
            fixture.add(tenant, labels, &times);
        }
        fixture
    }

    fn wanted(&self, request: &SelectRequest) -> Vec<&Labels> {
        let matching = self.series.iter().filter(|(tenant, labels, times)| {
            *tenant == request.tenant
                && times.iter().any(|ms| request.start_ms <= *ms && *ms <= request.end_ms)
                && request.matchers.iter().all(|matcher| matches(matcher, labels))
        });
        matching.map(|(_, labels, _)| labels).collect()
    }
}

fn matches(matcher: &Matcher, labels: &Labels) -> bool {
    let value = labels.get(&matcher.name).map_or("", String::as_str);
    let regex = || {
        let anchored = format!("^(?s:{})$", matcher.value);
        Regex::new(&anchored).expect("a good pattern").is_match(value)
    };
    match matcher.operator {
        MatchOperator::Equal => value == matcher.value,
        MatchOperator::NotEqual => value != matcher.value,
        MatchOperator::Regex => regex(),
        MatchOperator::NotRegex => !regex(),
    }
}

fn random_matcher(random: &mut Random) -> Matcher {
    const PATTERNS: [&str; 16] = [
        "",
        ".*",
        ".+",
        "a|b",
        "(a|ab|zzz)",
        "a.*",
        ".*c",
        "a?",
        "b\\.c|prod",
        "[0-9]+",
        "|a",
        "1.|2.",
        "x*",
        "10\\.0\\.0\\.1:9100",
        ".",
        "nothing",
    ];
    let name = match random.below(10) {
        0 => "absent",
        _ => random.pick(&NAMES),
    };
    let (operator, value) = match random.below(4) {
        0 => (MatchOperator::Equal, random.pick(&["", "a", "prod", "17", "none"])),
        1 => (MatchOperator::NotEqual, random.pick(&["", "a", "prod", "17", "none"])),
        2 => (MatchOperator::Regex, random.pick(&PATTERNS)),
        _ => (MatchOperator::NotRegex, random.pick(&PATTERNS)),
    };
    Matcher { name: name.into(), operator, value: value.into() }
}

#[derive(Default)]
struct Collected {
    series: Vec<SelectedSeries>,
    strings: Vec<String>,
    end: Option<Result<u32, SelectFault>>,
    polls_pending: u32,
}

fn collect(run: &mut SelectRun, mut each_poll: impl FnMut() -> u32, head: &Head) -> Collected {
    let mut collected = Collected::default();
    loop {
        match run.poll(head, SelectBudget { steps: each_poll() }) {
            SelectPoll::Done => return collected,
            SelectPoll::Pending => collected.polls_pending += 1,
            SelectPoll::Answer(answer) => {
                assert!(collected.end.is_none(), "nothing follows the end");
                match answer {
                    SelectAnswer::Series(series) => {
                        assert!(!series.is_empty() && series.len() <= ANSWER_SERIES_MAX);
                        collected.series.extend(series);
                    }
                    SelectAnswer::Strings(strings) => {
                        collected.strings.extend(strings.into_iter().map(String::from));
                    }
                    SelectAnswer::End { series_count } => collected.end = Some(Ok(series_count)),
                    SelectAnswer::Fault(fault) => collected.end = Some(Err(fault)),
                }
            }
        }
    }
}

fn select(fixture: &Fixture, request: &SelectRequest, steps: u32) -> Collected {
    let mut run = SelectRun::new(request.clone(), &fixture.head).expect("good patterns");
    collect(&mut run, || steps, &fixture.head)
}

fn sorted(mut strings: Vec<String>) -> Vec<String> {
    strings.sort();
    strings
}

fn check_against_filter(fixture: &Fixture, request: &SelectRequest, steps: u32) {
    let wanted = fixture.wanted(request);
    let got = select(fixture, request, steps);
    let context = format!("{request:?}");
    assert_eq!(got.end, Some(Ok(got.end_count())), "{context}");
    match &request.want {
        SelectWant::Samples | SelectWant::Labels => {
            let labels: BTreeSet<_> = got.series.iter().map(|each| each.labels.to_vec()).collect();
            let want: BTreeSet<_> = wanted.iter().map(|labels| canonical(labels)).collect();
            assert_eq!(labels, want, "{context}");
            assert_eq!(got.series.len(), want.len(), "{context}");
            assert_eq!(got.end_count() as usize, want.len(), "{context}");
        }
        SelectWant::LabelNames => {
            let want: BTreeSet<String> =
                wanted.iter().flat_map(|labels| labels.keys().cloned()).collect();
            assert!(sorted(got.strings).into_iter().eq(want), "{context}");
        }
        SelectWant::LabelValues(name) => {
            let want: BTreeSet<String> =
                wanted.iter().filter_map(|labels| labels.get(name).cloned()).collect();
            assert!(sorted(got.strings).into_iter().eq(want), "{context}");
        }
    }
}

impl Collected {
    fn end_count(&self) -> u32 {
        match self.end {
            Some(Ok(count)) => count,
            _ => u32::MAX,
        }
    }
}

#[test]
fn selects_equal_a_plain_filter() {
    for seed in 0..150 {
        let mut random = Random(seed);
        let fixture = Fixture::random(&mut random);
        for _ in 0..40 {
            let matchers = (0..random.below(4)).map(|_| random_matcher(&mut random)).collect();
            let start_ms = random.below(6000).cast_signed();
            let (start_ms, end_ms) = match random.below(3) {
                0 => (i64::MIN, i64::MAX),
                1 => (start_ms, start_ms + random.below(10).cast_signed()),
                _ => (start_ms, start_ms + random.below(6000).cast_signed()),
            };
            let want = match random.below(5) {
                0 => SelectWant::Samples,
                1 => SelectWant::LabelNames,
                2 => SelectWant::LabelValues(random.pick(&NAMES).into()),
                _ => SelectWant::Labels,
            };
            let tenant = TenantId(random.below(3) as u32);
            let series_max = u32::MAX;
            let request = SelectRequest { tenant, matchers, start_ms, end_ms, want, series_max };
            let steps = [1, 7, 10_000][random.below(3) as usize];
            check_against_filter(&fixture, &request, steps);
        }
    }
}

fn everything(want: SelectWant) -> SelectRequest {
    let (start_ms, end_ms) = (i64::MIN, i64::MAX);
    let tenant = TenantId(0);
    SelectRequest { tenant, matchers: Vec::new(), start_ms, end_ms, want, series_max: u32::MAX }
}

fn many_series(count: u32) -> Fixture {
    let mut fixture = Fixture::new();
    for number in 0..count {
        let labels = [("__name__", format!("m{}", number % 3)), ("instance", number.to_string())];
        let labels = labels.map(|(name, value)| (name.to_string(), value));
        fixture.add(TenantId(0), labels.into(), &[1000, 2000, 3000]);
    }
    fixture
}

#[test]
fn more_series_than_allowed_is_a_fault() {
    let fixture = many_series(100);
    let mut request = everything(SelectWant::Labels);
    request.series_max = 100;
    assert_eq!(select(&fixture, &request, 10_000).end, Some(Ok(100)));
    request.series_max = 99;
    let fault = SelectFault::TooManySeries { series_max: 99 };
    assert_eq!(select(&fixture, &request, 10_000).end, Some(Err(fault)));
}

#[test]
fn bad_patterns_are_refused_at_once() {
    let head = Head::new(LIMITS);
    let mut request = everything(SelectWant::Labels);
    request.matchers = vec![Matcher { operator: MatchOperator::Regex, ..Matcher::equal("a", "(") }];
    assert!(matches!(SelectRun::new(request, &head), Err(SelectFault::BadRegex(_))));
}

#[test]
fn work_is_cut_into_slices() {
    let fixture = many_series(5_000);
    let mut request = everything(SelectWant::Samples);
    let operator = MatchOperator::Regex;
    request.matchers = vec![Matcher { operator, ..Matcher::equal("instance", ".*7.*") }];
    let got = select(&fixture, &request, 100);
    let want = (0..5_000).filter(|number: &u32| number.to_string().contains('7')).count();
    assert_eq!(got.end_count() as usize, want);
    // 5,000 values and 1,400 series at three steps each.
    assert!(got.polls_pending >= 70, "{}", got.polls_pending);
    assert!(got.series.iter().all(|series| series.samples.len() == 3));
}

#[test]
fn the_head_may_change_while_a_select_runs() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let mut fixture = many_series(300);
        let mut request = everything(SelectWant::Samples);
        let operator = if seed % 2 == 0 { MatchOperator::Regex } else { MatchOperator::NotRegex };
        request.matchers = vec![
            Matcher { operator, ..Matcher::equal("instance", "[0-9]*[13579]") },
            Matcher { operator: MatchOperator::NotEqual, ..Matcher::equal("__name__", "m1") },
        ];
        let known = fixture.wanted(&request).len();
        let mut run = SelectRun::new(request.clone(), &fixture.head).expect("a good pattern");
        let mut seen = BTreeSet::new();
        let mut number = 300;
        loop {
            match run.poll(&fixture.head, SelectBudget { steps: 1 + random.below(20) as u32 }) {
                SelectPoll::Done => break,
                SelectPoll::Answer(SelectAnswer::Series(series)) => {
                    seen.extend(series.into_iter().map(|series| series.labels.to_vec()));
                }
                _ => {}
            }
            for _ in 0..random.below(3) {
                let labels =
                    [("__name__", format!("m{}", number % 3)), ("instance", number.to_string())];
                let labels = labels.map(|(name, value)| (name.to_string(), value));
                fixture.add(TenantId(0), labels.into(), &[1000]);
                number += 1;
            }
        }
        let allowed: BTreeSet<_> = fixture.wanted(&request).into_iter().map(canonical).collect();
        assert!(seen.len() >= known, "seed={seed}: all that was known before is seen");
        assert!(seen.is_subset(&allowed), "seed={seed}: only what matches is seen");
    }
}

/// Sealing and retention between two turns of one long series neither lose nor repeat what is kept.
#[test]
fn a_long_series_is_copied_in_turns() {
    let mut fixture = Fixture::new();
    let labels: Labels = [("__name__".to_string(), "long".to_string())].into();
    let count = 64 * 3000;
    let times: Vec<i64> = (0..count).collect();
    fixture.add(TenantId(0), labels, &times);
    for drop_at_turn in [None, Some(2)] {
        let request = everything(SelectWant::Samples);
        let mut run = SelectRun::new(request, &fixture.head).expect("no pattern");
        let mut turns = 0;
        let series = loop {
            turns += 1;
            match run.poll(&fixture.head, SelectBudget { steps: 1 }) {
                SelectPoll::Answer(SelectAnswer::Series(series)) => break series,
                SelectPoll::Pending => {}
                other => panic!("{other:?}"),
            }
            let next_ms = count + 100 * turns + if drop_at_turn.is_some() { 100_000 } else { 0 };
            let batch: Vec<i64> = (next_ms..next_ms + 100).collect();
            fixture.head.append(&[0; 100], &batch, &[1.0; 100], &mut Vec::new());
            if drop_at_turn == Some(turns) {
                flush(&mut fixture.head, 64 * 100 - 1);
            }
        };
        assert!(turns >= 3);
        let mut samples = Vec::new();
        series[0].chunks.iter().for_each(|chunk| chunk.decode(&mut samples).expect("ours"));
        samples.extend_from_slice(&series[0].samples);
        assert!(samples.is_sorted_by(|a, b| a.timestamp_ms < b.timestamp_ms), "no repeats");
        let oldest_ms = if drop_at_turn.is_some() { 64 * 100 } else { 0 };
        let kept =
            samples.iter().filter(|sample| (oldest_ms..count).contains(&sample.timestamp_ms));
        assert_eq!(kept.count(), usize::try_from(count - oldest_ms).expect("few"));
    }
}

/// The series that a select is at goes to a block and leaves, whenever that is. Red when the select
/// goes on with the row, which has no labels then.
#[test]
fn a_series_that_leaves_in_the_middle_answers_as_itself_or_not_at_all() {
    let mut answers = BTreeSet::new();
    for polls in 0..12 {
        let mut fixture = Fixture::new();
        for number in 0..3 {
            let labels: Labels = [("__name__".into(), format!("metric_{number}"))].into();
            fixture.add(TenantId(0), labels, &(0..100).collect::<Vec<_>>());
        }
        let request = everything(SelectWant::Samples);
        let mut run = SelectRun::new(request, &fixture.head).expect("no pattern");
        let mut seen = Vec::new();
        for poll in 0..100 {
            if poll == polls {
                flush(&mut fixture.head, i64::MAX);
                fixture.head.retire_from(Row(0), i64::MAX, &mut Vec::new());
                assert_eq!(fixture.head.series_count(), 0);
            }
            if let SelectPoll::Answer(SelectAnswer::Series(series)) =
                run.poll(&fixture.head, SelectBudget { steps: 1 })
            {
                seen.extend(series);
            }
        }
        assert!(seen.iter().all(|series| !series.labels.is_empty()), "polls={polls}");
        answers.insert(seen.len());
    }
    assert!(answers.contains(&0) && answers.contains(&3), "{answers:?}");
}
