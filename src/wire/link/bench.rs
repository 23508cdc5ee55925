//! What a sample costs on a link, both halves and no network.
//! `cargo test --release --lib wire::link::bench -- --ignored --nocapture`

#![cfg(test)]

use super::tests::{Pair, WINDOW_LARGE};
use crate::base::time::monotonic_now;
use crate::wire::frame::Memory;
use crate::wire::link::OutgoingFrame;
use crate::wire::write::{WriteAddress, WritePayload};

const SAMPLES: u32 = 8192;
/// Bytes that a ring hands over at once.
const RECEIVED_BYTES: usize = 16 << 10;

#[test]
#[ignore = "a measurement"]
fn samples_over_a_link() {
    let mut pair = Pair::with_window(WINDOW_LARGE);
    pair.events();
    let mut payload = WritePayload::default();
    payload.series.extend(0..SAMPLES);
    payload.timestamp_ms.resize(SAMPLES as usize, 1_700_000_000_000);
    payload.value.resize(SAMPLES as usize, 0.5);
    let mut memory = Memory::new();
    let (mut best_ns, mut best_both_ns, mut frame_bytes) = (f64::INFINITY, f64::INFINITY, 0);
    for _ in 0..2000 {
        let begin = monotonic_now();
        let (sequence, id_space) = (pair.sender.next_sequence(), pair.sender.id_space());
        let address = WriteAddress { sequence, flags: 0, shard: 0, epoch: 4, id_space };
        let bytes = payload.encode_frame_for(&address, memory);
        frame_bytes = bytes.len();
        let sealed = monotonic_now();
        let frame = OutgoingFrame { bytes, new_series_count: 0, sample_count: SAMPLES };
        pair.sender.handle_frame(frame).expect("room");
        let bytes = pair.sender.poll_transmit().expect("a window");
        for piece in bytes.chunks(RECEIVED_BYTES) {
            pair.receiver.handle_bytes(pair.now, pair.id, piece);
        }
        drop(bytes);
        assert!(pair.receiver.poll_frame().is_some());
        pair.receiver.handle_frame_taken();
        pair.ack(sequence, &[]);
        pair.exchange();
        memory = pair.acked_memory();
        let end = monotonic_now();
        let per_sample = |nanos: u128| nanos as f64 / f64::from(SAMPLES);
        best_ns = best_ns.min(per_sample((end - sealed).as_nanos()));
        best_both_ns = best_both_ns.min(per_sample((end - begin).as_nanos()));
    }
    println!(
        "link: {best_ns:.2} ns a sample, with sealing {best_both_ns:.2}, {:.2} bytes a sample",
        frame_bytes as f64 / f64::from(SAMPLES)
    );
}
