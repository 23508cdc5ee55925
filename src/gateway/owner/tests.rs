//! The owner against a node that is played by the test: frames are decoded, acked, delayed and
//! refused at will.

use super::*;
use crate::gateway::part::{Lateness, RequestKey};
use crate::gateway::request::{RequestBytes, SeriesBatch};
use crate::model::labels::encode_label;
use crate::model::series::SeriesId;
use crate::model::series::TenantId;
use crate::wire::ack::RefusedSample;
use crate::wire::frame::FRAME_BYTES_MAX;
use crate::wire::frame::{FRAME_HEADER_BYTES, check_frame};
use crate::wire::write::{NEW_SERIES, WriteView};
use std::sync::Arc;

/// A part of `series`, each a metric name and its samples.
pub(super) fn part(slot: u32, series: &[(&str, &[(i64, f64)])]) -> Part {
    let mut bytes = RequestBytes::default();
    let mut batch = SeriesBatch::default();
    for (name, samples) in series {
        let start = bytes.labels.len();
        encode_label(&mut bytes.labels, b"__name__", name.as_bytes());
        let labels = &bytes.labels[start..];
        let hash = SeriesHash::of(TenantId(0), labels);
        let span = crate::gateway::request::LabelSpan::in_labels(
            u32::try_from(start).expect("small"),
            u32::try_from(labels.len()).expect("small"),
        );
        for (timestamp_ms, value) in *samples {
            batch.timestamp_ms.push(*timestamp_ms);
            batch.value.push(*value);
        }
        batch.push_series(hash, span);
    }
    let request = RequestKey { shard: 0, slot, generation: 0 };
    let lateness = Lateness::Window;
    Part { request, tenant: TenantId(0), lateness, batch, bytes: Arc::new(bytes) }
}

fn owner() -> Owner {
    Owner::single(0, LabelLimits::default())
}

pub(super) fn view(frame: &Frame) -> WriteView<'_> {
    check_frame(&frame.bytes).expect("sealed");
    WriteView::check(&frame.bytes[FRAME_HEADER_BYTES..]).expect("encoded")
}

/// Takes the next frame and acks it, giving new series the ids from `next_id` on.
fn take_and_ack(owner: &mut Owner, next_id: u32, refused: Vec<RefusedSample>) -> u64 {
    let frame = owner.poll_frame(0).expect("a frame waits");
    let sequence = check_frame(&frame.bytes).expect("sealed").sequence;
    let new = u32::try_from(view(&frame).new_series_count()).expect("few");
    owner.lane_mut(0).handle_frame_taken(frame);
    let assigned = (next_id..next_id + new).map(|id| Ok(SeriesId(id))).collect();
    owner.handle_ack(0, &Ack { sequence, assigned, refused });
    sequence
}

#[test]
fn a_series_travels_with_its_labels_until_it_has_an_id() {
    let mut owner = owner();
    owner.handle_part(part(1, &[("a", &[(1, 1.0)]), ("b", &[(1, 2.0)])]));
    owner.handle_part(part(2, &[("a", &[(2, 3.0)])]));
    let frame = owner.poll_frame(0).expect("a frame");
    let seen = view(&frame);
    assert_eq!(seen.new_series_count(), 2, "each new series travels once per frame");
    assert_eq!(seen.series, [NEW_SERIES, NEW_SERIES | 1, NEW_SERIES]);
    assert_eq!(seen.value, [1.0, 2.0, 3.0]);
    owner.lane_mut(0).handle_frame_taken(frame);
    assert!(owner.poll_answer().is_none(), "nothing is answered before its ack");
    let assigned = vec![Ok(SeriesId(7)), Ok(SeriesId(8))];
    owner.handle_ack(0, &Ack { sequence: 1, assigned, refused: Vec::new() });
    let slots: Vec<_> =
        std::iter::from_fn(|| owner.poll_answer()).map(|a| a.request.slot).collect();
    assert_eq!(slots, [1, 2]);
    owner.handle_part(part(3, &[("b", &[(5, 5.0)])]));
    let frame = owner.poll_frame(0).expect("a frame");
    assert_eq!((view(&frame).series, view(&frame).new_series_count()), (&[8][..], 0));
}

/// Red when `handle_left` leaves the table as it is, or an ack is believed that was on its way.
#[test]
fn a_series_that_left_travels_with_its_labels_again() {
    let mut owner = owner();
    let one = |owner: &mut Owner, slot| owner.handle_part(part(slot, &[("a", &[(1, 1.0)])]));
    let hash = {
        let mut labels = Vec::new();
        encode_label(&mut labels, b"__name__", b"a");
        SeriesHash::of(TenantId(0), &labels)
    };
    one(&mut owner, 1);
    take_and_ack(&mut owner, 7, Vec::new());
    // Another id of the same series left long before.
    owner.handle_left(0, hash, SeriesId(3));
    assert_eq!(owner.lane(0).series_count(), 1);
    owner.handle_left(0, hash, SeriesId(7));
    assert_eq!(owner.lane(0).series_count(), 0);
    // It comes again, and leaves before its ack has come.
    one(&mut owner, 2);
    let frame = owner.poll_frame(0).expect("a frame");
    assert_eq!(view(&frame).new_series_count(), 1);
    owner.lane_mut(0).handle_frame_taken(frame);
    owner.handle_left(0, hash, SeriesId(8));
    let ack = |sequence, id| Ack { sequence, assigned: vec![Ok(id)], refused: Vec::new() };
    owner.handle_ack(0, &ack(2, SeriesId(8)));
    assert_eq!(owner.lane(0).series_count(), 0);
    one(&mut owner, 3);
    let frame = owner.poll_frame(0).expect("a frame");
    assert_eq!(view(&frame).new_series_count(), 1);
    owner.lane_mut(0).handle_frame_taken(frame);
    owner.handle_ack(0, &ack(3, SeriesId(9)));
    assert_eq!(owner.lane(0).series_count(), 1);
}

/// Red when an unknown id refuses the sample, when what was gathered before the refusal overtakes
/// it, or when frames leave while answers of others are still to come.
#[test]
fn what_the_node_does_not_know_is_sent_with_labels_in_order() {
    let mut owner = owner();
    owner.handle_part(part(1, &[("a", &[(1, 1.0)]), ("b", &[(1, 1.0)])]));
    take_and_ack(&mut owner, 7, Vec::new());
    assert_eq!(owner.poll_answer().map(|answer| answer.request.slot), Some(1));
    let mut sent = Vec::new();
    for slot in 2..4 {
        owner.handle_part(part(slot, &[("a", &[(slot.into(), 1.0)]), ("b", &[(2, 1.0)])]));
        let frame = owner.poll_frame(0).expect("a frame");
        sent.push(check_frame(&frame.bytes).expect("sealed").sequence);
        owner.lane_mut(0).handle_frame_taken(frame);
    }
    // Gathered under the id that is about to be unknown.
    owner.handle_part(part(4, &[("a", &[(4, 1.0)])]));
    let refused = vec![RefusedSample { index: 0, reason: Refusal::UnknownSeries }];
    owner.handle_ack(0, &Ack { sequence: sent[0], assigned: vec![], refused: refused.clone() });
    assert!(owner.poll_frame(0).is_none(), "the second answer may tell of older samples");
    assert!(owner.poll_answer().is_none());
    owner.handle_ack(0, &Ack { sequence: sent[1], assigned: vec![], refused });
    let frame = owner.poll_frame(0).expect("a frame");
    let seen = view(&frame);
    assert_eq!((seen.new_series_count(), seen.timestamp_ms), (1, &[2, 3, 4][..]));
    assert_eq!(check_frame(&frame.bytes).expect("sealed").sequence, sent[1] + 1);
    owner.lane_mut(0).handle_frame_taken(frame);
    let assigned = vec![Ok(SeriesId(9))];
    owner.handle_ack(0, &Ack { sequence: sent[1] + 1, assigned, refused: Vec::new() });
    let answers: Vec<_> = std::iter::from_fn(|| owner.poll_answer()).collect();
    assert!(answers.iter().all(|answer| answer.refused.total() == 0));
    assert_eq!(answers.iter().map(|answer| answer.request.slot).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(owner.is_idle());
}

#[test]
fn refusals_reach_the_part_whose_sample_it_was() {
    let mut owner = owner();
    owner.handle_part(part(1, &[("a", &[(1, 1.0), (2, 2.0)])]));
    owner.handle_part(part(2, &[("b", &[(1, 1.0), (2, 2.0), (3, 3.0)])]));
    let refused = |index| RefusedSample { index, reason: Refusal::TooOld };
    take_and_ack(&mut owner, 0, vec![refused(1), refused(2), refused(4)]);
    let counts: Vec<_> = std::iter::from_fn(|| owner.poll_answer())
        .map(|answer| (answer.request.slot, answer.refused.get(Refusal::TooOld)))
        .collect();
    assert_eq!(counts, [(1, 1), (2, 2)]);
}

#[test]
fn a_label_fault_refuses_its_series_alone() {
    let mut owner = owner();
    let mut bad = part(1, &[("a", &[(1, 1.0)]), ("b", &[(2, 2.0)]), ("c", &[(3, 3.0)])]);
    let bytes = Arc::get_mut(&mut bad.bytes).expect("nobody else has it");
    let at = bytes.labels.iter().position(|byte| *byte == b'b').expect("the value of b");
    bytes.labels[at] = 0xff;
    owner.handle_part(bad);
    let frame = owner.poll_frame(0).expect("a frame");
    assert_eq!(view(&frame).timestamp_ms, [1, 3]);
    assert_eq!(view(&frame).value, [1.0, 3.0]);
    owner.handle_frame_refused(0, frame, Refusal::DiskFull);
    let answer = owner.poll_answer().expect("answered");
    assert_eq!(answer.refused.get(Refusal::InvalidUtf8), 1);
    assert_eq!(answer.refused.get(Refusal::DiskFull), 2);
    assert_eq!(answer.first_refusal, Some(Refusal::InvalidUtf8));
    assert!(owner.is_idle());
}

#[test]
fn a_part_longer_than_a_frame_is_answered_by_its_last_frame() {
    let mut owner = owner();
    let long: Vec<_> = (0..500_000).map(|n| (n, 0.5)).collect();
    owner.handle_part(part(1, &[("a", &[(1, 1.0)]), ("long", &long), ("z", &[(9, 9.0)])]));
    let mut samples = Vec::new();
    let mut frames = 0;
    while let Some(frame) = owner.poll_frame(0) {
        assert!(frame.bytes.len() <= FRAME_BYTES_MAX);
        assert!(owner.poll_answer().is_none());
        frames += 1;
        let seen = view(&frame);
        samples.extend_from_slice(seen.timestamp_ms);
        let new = u32::try_from(seen.new_series_count()).expect("few");
        let sequence = frames;
        owner.lane_mut(0).handle_frame_taken(frame);
        let assigned = (0..new).map(|n| Ok(SeriesId(n))).collect();
        owner.handle_ack(0, &Ack { sequence, assigned, refused: Vec::new() });
    }
    assert!(frames > 2, "10 MB of samples in frames of 4 MiB");
    let want: Vec<i64> = [1].into_iter().chain(0..500_000).chain([9]).collect();
    assert_eq!(samples, want);
    let answer = owner.poll_answer().expect("answered by the last frame");
    assert_eq!(answer.refused.total(), 0);
    assert!(owner.is_idle());
}

#[test]
fn a_delayed_frame_comes_first_again_and_a_failed_node_refuses_what_it_took() {
    let mut owner = owner();
    owner.handle_part(part(1, &[("a", &[(1, 1.0)])]));
    let frame = owner.poll_frame(0).expect("a frame");
    owner.lane_mut(0).handle_frame_delayed(frame);
    owner.handle_part(part(2, &[("b", &[(1, 1.0)])]));
    let frame = owner.poll_frame(0).expect("the same frame");
    assert_eq!(check_frame(&frame.bytes).expect("sealed").sequence, 1);
    owner.lane_mut(0).handle_frame_taken(frame);
    owner.handle_node_failed(0, Refusal::LogFailed);
    let answer = owner.poll_answer().expect("answered");
    assert_eq!((answer.request.slot, answer.refused.get(Refusal::LogFailed)), (1, 1));
    assert!(!owner.is_idle(), "part 2 still waits");
}
