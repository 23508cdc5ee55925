//! Tests of the hint logs without a disk: the bytes, and what one node's log decides. With a disk
//! that fails: `tests/sim/hints`.

mod bytes;
mod decisions;
mod many;

use std::sync::Arc;

use crate::base::random::Random;
use crate::gateway::part::Lateness;
use crate::gateway::request::{LabelSpan, RequestBytes, SeriesBatch};
use crate::model::labels::encode_label;
use crate::model::placement::NodeId;
use crate::model::series::{SeriesHash, TenantId};

use super::HintPart;

const NODE: NodeId = NodeId(0xfeed);

/// A sample, and whose it is.
type Sample = (SeriesHash, Vec<u8>, i64, u64);

fn labels_of(series: u64) -> Vec<u8> {
    let mut labels = Vec::new();
    encode_label(&mut labels, b"__name__", b"hints_total");
    encode_label(&mut labels, b"host", format!("host-{series}").as_bytes());
    labels
}

/// A part of `series`, each with `samples` samples from `timestamp_ms` on.
fn part(tenant: u32, series: &[u64], samples: u32, timestamp_ms: i64) -> HintPart {
    let mut bytes = RequestBytes::default();
    let mut batch = SeriesBatch::default();
    for one in series {
        let labels = labels_of(*one);
        let start = u32::try_from(bytes.labels.len()).expect("short");
        bytes.labels.extend_from_slice(&labels);
        for sample in 0..samples {
            batch.timestamp_ms.push(timestamp_ms + i64::from(sample));
            batch.value.push(f64::from_bits(*one << 32 | u64::from(sample)));
        }
        let span = LabelSpan::in_labels(start, u32::try_from(labels.len()).expect("short"));
        batch.push_series(SeriesHash::of(TenantId(tenant), &labels), span);
    }
    let (tenant, lateness) = (TenantId(tenant), Lateness::Backfill);
    HintPart { tenant, lateness, batch, bytes: Arc::new(bytes) }
}

/// A part of chance: series with no, one or several samples.
fn random_part(random: &mut Random) -> HintPart {
    let mut whole = HintPart { tenant: TenantId(7), ..HintPart::default() };
    let mut bytes = RequestBytes::default();
    for _ in 0..random.below(40) {
        let labels = labels_of(random.below(60));
        let start = u32::try_from(bytes.labels.len()).expect("short");
        bytes.labels.extend_from_slice(&labels);
        let count = if random.once_in(2) { 1 } else { random.below(5) };
        for _ in 0..count {
            whole.batch.timestamp_ms.push(random.next().cast_signed());
            whole.batch.value.push(f64::from_bits(random.next()));
        }
        let span = LabelSpan::in_labels(start, u32::try_from(labels.len()).expect("short"));
        whole.batch.push_series(SeriesHash::of(TenantId(7), &labels), span);
    }
    whole.bytes = Arc::new(bytes);
    whole
}

/// The samples of a part, in order.
fn samples(part: &HintPart) -> Vec<Sample> {
    let mut found = Vec::new();
    for index in 0..part.batch.len() {
        let labels = part.bytes.labels(part.batch.labels[index]);
        assert_eq!(SeriesHash::of(part.tenant, labels), part.batch.hash[index], "labels swapped");
        for sample in part.samples_of(index) {
            let value = part.batch.value[sample].to_bits();
            let timestamp_ms = part.batch.timestamp_ms[sample];
            found.push((part.batch.hash[index], labels.to_vec(), timestamp_ms, value));
        }
    }
    found
}
