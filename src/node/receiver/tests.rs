//! Frames into a head: which id each sample goes to, and which samples are refused.

use super::*;
use crate::node::tests::{Named, WINDOW_MS, frame, full_head, hash_of, head, points};
use crate::wire::frame::FRAME_HEADER_BYTES;

fn apply(head: &mut Head, samples: &[(Named, i64, f64)]) -> Receipt {
    let frame = frame(1, samples);
    let view = WriteView::check(&frame[FRAME_HEADER_BYTES..]).expect("encoded");
    Receiver::default().apply(&view, 0, head)
}

fn indices(receipt: &Receipt, reason: Refusal) -> Vec<u32> {
    let refused = receipt.refused.iter().filter(|sample| sample.reason == reason);
    refused.map(|sample| sample.index).collect()
}

#[test]
fn samples_go_to_the_series_that_the_frame_names() {
    let mut head = head();
    let new = [(Named::New(10), 1, 0.1), (Named::New(11), 1, 1.1), (Named::New(10), 2, 0.2)];
    let receipt = apply(&mut head, &new);
    // The same series twice is the same id twice.
    let ids = [Ok(SeriesId(0)), Ok(SeriesId(1)), Ok(SeriesId(0))];
    assert_eq!((receipt.assigned, receipt.refused.len()), (ids.to_vec(), 0));
    let mixed = [(Named::Id(1), 2, 1.2), (Named::New(12), 2, 2.2), (Named::Id(0), 3, 0.3)];
    assert_eq!(apply(&mut head, &mixed).assigned, [Ok(SeriesId(2))]);
    let known = apply(&mut head, &[(Named::Id(2), 3, 2.3)]);
    assert!(known.assigned.is_empty() && known.refused.is_empty());
    assert_eq!(points(&head, 0), [(1, 0.1), (2, 0.2), (3, 0.3)]);
    assert_eq!(points(&head, 1), [(1, 1.1), (2, 1.2)]);
    assert_eq!(points(&head, 2), [(2, 2.2), (3, 2.3)]);
    assert_eq!(head.find(hash_of(12)), Some(SeriesId(2)));
}

#[test]
fn a_full_head_refuses_new_series_with_all_samples() {
    let mut head = full_head();
    let receipt = apply(&mut head, &[(Named::New(10), 1, 0.1), (Named::New(11), 1, 1.1)]);
    assert_eq!(receipt.assigned, [Err(Refusal::HeadFull); 2]);
    assert_eq!(indices(&receipt, Refusal::HeadFull), [0, 1]);
    assert_eq!(head.series_count(), 0);
}

#[test]
fn refused_samples_are_named_by_their_place_in_the_frame() {
    let mut head = head();
    apply(&mut head, &[(Named::New(10), 10 * WINDOW_MS, 0.0)]);
    // A series of its own is refused in front of, between and behind samples that are not.
    let receipt = apply(
        &mut head,
        &[
            (Named::Malformed, 1, 9.0),
            (Named::Id(0), 10 * WINDOW_MS + 1, 0.1),
            (Named::Malformed, 2, 9.0),
            (Named::Id(0), 1, 9.0),
            (Named::New(11), 1, 1.1),
            (Named::Malformed, 3, 9.0),
        ],
    );
    let corrupt = Err(Refusal::CorruptBody);
    assert_eq!(receipt.assigned, [corrupt, corrupt, Ok(SeriesId(1)), corrupt]);
    assert_eq!(indices(&receipt, Refusal::CorruptBody), [0, 2, 5]);
    assert_eq!(indices(&receipt, Refusal::TooOld), [3]);
    assert!(receipt.refused.is_sorted_by_key(|sample| sample.index));
    assert_eq!(points(&head, 0), [(10 * WINDOW_MS, 0.0), (10 * WINDOW_MS + 1, 0.1)]);
    assert_eq!(points(&head, 1), [(1, 1.1)]);
}

#[test]
fn nothing_is_left_of_the_frame_before() {
    let (mut head, mut receiver) = (head(), Receiver::default());
    let mut apply = |samples: &[(Named, i64, f64)]| {
        let frame = frame(1, samples);
        let view = WriteView::check(&frame[FRAME_HEADER_BYTES..]).expect("encoded");
        receiver.apply(&view, 0, &mut head).refused.len()
    };
    assert_eq!(apply(&[(Named::New(10), 10 * WINDOW_MS, 0.0), (Named::Malformed, 1, 9.0)]), 1);
    assert_eq!(apply(&[(Named::Id(0), 1, 9.0), (Named::Id(0), 2, 9.0)]), 2);
    assert_eq!(apply(&[(Named::New(11), 1, 1.1)]), 0);
    assert_eq!(points(&head, 1), [(1, 1.1)]);
}
