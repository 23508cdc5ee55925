//! DRIVER: shards that answer from memory, on threads of their own, through bounded queues as the
//! real ones: for tests of what asks them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::queue::{NoWake, QueueSender};
use crate::base::varint::write_varint;
use crate::control::report::ShardReport;
use crate::control::shards::{Done, ShardHandle, ShardRequest};
use crate::model::chunk::Chunk;
use crate::model::labels::iterate;
use crate::model::matcher::{MatchOperator, Matcher};
use crate::model::sample::Sample;
use crate::model::series::{SeriesHash, SeriesId};
use crate::node::registry::RegistrySlice;
use crate::wire::select::{SelectAnswer, SelectFault, SelectRequest, SelectWant, SelectedSeries};

pub(super) fn canonical(labels: &[(&str, &str)]) -> Box<[u8]> {
    let mut bytes = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        for (tag, text) in [(0x0a, name), (0x12, value)] {
            label.push(tag);
            write_varint(&mut label, text.len() as u64);
            label.extend_from_slice(text.as_bytes());
        }
        bytes.push(0x0a);
        write_varint(&mut bytes, label.len() as u64);
        bytes.extend_from_slice(&label);
    }
    bytes.into()
}

/// The first half of the samples is sealed, the rest is not.
pub(super) fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> SelectedSeries {
    let (sealed, open) = samples.split_at(samples.len() / 2);
    let (times, values): (Vec<_>, Vec<_>) = sealed.iter().copied().unzip();
    let chunks = if sealed.is_empty() { vec![] } else { vec![Chunk::encode(&times, &values)] };
    let open = open.iter().map(|&(timestamp_ms, value)| Sample { timestamp_ms, value });
    SelectedSeries { labels: canonical(labels), chunks, samples: open.collect() }
}

fn value_of<'a>(labels: &'a [u8], name: &str) -> &'a str {
    let found = iterate(labels).find(|(key, _)| *key == name.as_bytes());
    found.map_or("", |(_, value)| std::str::from_utf8(value).expect("UTF-8"))
}

fn matches(labels: &[u8], matcher: &Matcher) -> bool {
    let value = value_of(labels, &matcher.name);
    match matcher.operator {
        MatchOperator::Equal => value == matcher.value,
        MatchOperator::NotEqual => value != matcher.value,
        // Prefixes are all that these tests need.
        MatchOperator::Regex => value.starts_with(matcher.value.trim_end_matches(".*")),
        MatchOperator::NotRegex => !value.starts_with(matcher.value.trim_end_matches(".*")),
    }
}

fn select(all: &[SelectedSeries], request: &SelectRequest, reply: &flume::Sender<SelectAnswer>) {
    if request.matchers.iter().any(|matcher| matcher.value == "bad regex") {
        let _gone = reply.send(SelectAnswer::Fault(SelectFault::BadRegex("why".into())));
        return;
    }
    let found: Vec<_> = all
        .iter()
        .filter(|series| request.matchers.iter().all(|matcher| matches(&series.labels, matcher)))
        .cloned()
        .collect();
    if found.len() > request.series_max as usize {
        let fault = SelectFault::TooManySeries { series_max: request.series_max };
        let _gone = reply.send(SelectAnswer::Fault(fault));
        return;
    }
    let series_count = u32::try_from(found.len()).expect("few");
    let strings: BTreeSet<Box<str>> = found
        .iter()
        .flat_map(|series| iterate(&series.labels))
        .filter_map(|(name, value)| {
            let text = match &request.want {
                SelectWant::LabelNames => name,
                SelectWant::LabelValues(wanted) if wanted.as_bytes() == name => value,
                _ => return None,
            };
            Some(String::from_utf8_lossy(text).into())
        })
        .collect();
    let mut answers = match request.want {
        // One series an answer, so that the queue is full at times.
        SelectWant::Samples | SelectWant::Labels => {
            found.into_iter().map(|series| SelectAnswer::Series(vec![series])).collect()
        }
        _ => vec![SelectAnswer::Strings(strings.into_iter().collect())],
    };
    answers.push(SelectAnswer::End { series_count });
    for answer in answers {
        if reply.send(answer).is_err() {
            return;
        }
    }
}

pub(super) fn spawn_shard(all: Vec<SelectedSeries>) -> ShardHandle {
    let (sender, requests) = flume::bounded::<ShardRequest>(8);
    std::thread::spawn(move || {
        for request in requests {
            match request {
                ShardRequest::Select { request, reply } => select(&all, &request, &reply),
                ShardRequest::Report { reply } => {
                    let mut report = Box::<ShardReport>::default();
                    report.head.series = all.len() as u64;
                    let _gone = reply.send(report);
                }
                ShardRequest::Cardinality { reply, .. } => {
                    let _gone = reply.send(Box::default());
                }
                ShardRequest::Registry { position, entries_max, reply } => {
                    let _gone = reply.send(Box::new(registry(position, entries_max)));
                }
                ShardRequest::Flush { reply } | ShardRequest::Delete { reply, .. } => {
                    let _gone = reply.send(Done);
                }
            }
        }
    });
    ShardHandle::new(QueueSender::new(sender, Arc::new(NoWake)))
}

/// Ten series: their hashes are their ids and a hundred.
fn registry(position: u64, entries_max: u32) -> RegistrySlice {
    let next_position = 10.min(position + u64::from(entries_max));
    let id = |position| SeriesId(u32::try_from(position).expect("ten"));
    let entries = (position..next_position).map(|at| (SeriesHash(u128::from(at) + 100), id(at)));
    let is_end = next_position == 10;
    RegistrySlice { entries: entries.collect(), next_position, is_end }
}
