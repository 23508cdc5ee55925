//! Any bytes to both halves of a link: from a stranger, and from somebody who proved himself and
//! then sends any frames with right checksums. No panic, bounded memory.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use tidegate::model::refusal::Refusal;
use tidegate::model::series::{SeriesHash, TenantId};
use tidegate::wire::ack::Ack;
use tidegate::wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Memory, seal_frame};
use tidegate::wire::health::Ping;
use tidegate::wire::hello::id_space;
use tidegate::wire::link::{
    ConnectionId, Dialler, OutgoingFrame, Receiver, ReceiverConfig, Sender, SenderConfig,
    SilenceLimits, WindowLimits,
};
use tidegate::wire::proof::LinkSecret;
use tidegate::wire::write::{WriteAddress, WritePayload, WriteView};
use tidegate_fuzz::write_seeds;

fn secret() -> LinkSecret {
    LinkSecret::new(b"a secret for fuzzing").expect("long")
}

fn halves(now: Instant) -> (Sender, Receiver, ConnectionId) {
    let dialler = Dialler {
        gateway: 1,
        gateway_shard: 0,
        gateway_shard_count: 1,
        node_expected: 0,
        node_shard: 0,
    };
    let silence = SilenceLimits::default();
    let config = SenderConfig {
        dialler,
        link_incarnation: 1,
        kept_frames_max: 9,
        kept_bytes_max: 1 << 16,
        silence,
    };
    let sender = Sender::new(now, config, secret());
    let mut receiver = Receiver::new(
        ReceiverConfig {
            node: 2,
            incarnation: 1,
            shard: 0,
            link_ports: vec![1],
            window: WindowLimits { frames: 4, bytes: 1 << 14 },
            links_max: 2,
            strangers_max: 4,
            answer_bytes_max: 1 << 16,
            silence,
        },
        secret(),
    );
    receiver.handle_credit(1 << 14);
    let id = receiver.handle_connected(now, [1; 32]).expect("room");
    (sender, receiver, id)
}

fn frame(kind: FrameKind, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    frame.extend_from_slice(payload);
    let header = FrameHeader {
        kind,
        schema: 1,
        flags: 0,
        sequence,
        epoch: 0,
        shard: 0,
        id_space: id_space(2, 1, 0),
        payload_len_bytes: u32::try_from(payload.len()).expect("short"),
    };
    seal_frame(&mut frame, &header);
    frame
}

fn write(sequence: u64, id_space: u64) -> Memory {
    let mut payload = WritePayload::default();
    let new = payload.push_new_series(TenantId(0), SeriesHash(9), b"labels");
    payload.series.push(new);
    payload.timestamp_ms.push(1);
    payload.value.push(0.5);
    let address = WriteAddress { sequence, flags: 0, shard: 0, epoch: 0, id_space };
    payload.encode_frame_for(&address, Memory::new())
}

fn seeds() -> Vec<Vec<u8>> {
    let payload = write(1, id_space(2, 1, 0))[FRAME_HEADER_BYTES..].to_vec();
    let ping = Ping { number: 1 }.encode_frame()[FRAME_HEADER_BYTES..].to_vec();
    let step = |kind: u8, sequence: u8, payload: &[u8]| {
        let len = u8::try_from(payload.len()).expect("short");
        [&[kind, sequence, len], payload].concat()
    };
    let steps = [step(1, 1, &payload), step(8, 0, &ping), step(1, 2, &payload)].concat();
    vec![[&[0], &steps[..]].concat(), [&[1], &steps[..]].concat(), [&[2], &payload[..]].concat()]
}

fuzz_target!(init: write_seeds(&seeds()), |data: &[u8]| {
    let Some((mode, mut rest)) = data.split_first() else { return };
    let start = Instant::now();
    let (mut sender, mut receiver, id) = halves(start);
    sender.handle_connected(start, [2; 32]);
    if mode % 3 == 2 {
        // A stranger, to either.
        for piece in rest.chunks(100) {
            sender.handle_bytes(start, piece);
            receiver.handle_bytes(start, id, piece);
        }
        assert!(receiver.memory_bytes() < 1 << 13 && !sender.is_open());
        return;
    }
    loop {
        if let Some(bytes) = receiver.poll_transmit(id) {
            sender.handle_bytes(start, &bytes);
        } else if let Some(bytes) = sender.poll_transmit() {
            receiver.handle_bytes(start, id, &bytes);
        } else {
            break;
        }
    }
    assert!(sender.is_open());
    while sender.poll_event().is_some() {}
    for _ in 0..3 {
        let bytes = write(sender.next_sequence(), sender.id_space());
        let frame = OutgoingFrame { bytes, new_series_count: 1, sample_count: 1 };
        sender.handle_frame(frame).expect("room");
        sender.poll_transmit();
    }
    let mut now = start;
    while let Some((&[kind, sequence, len], tail)) = rest.split_first_chunk::<3>() {
        let (payload, tail) = tail.split_at(tail.len().min(usize::from(len)));
        rest = tail;
        let kind = FrameKind::ALL[usize::from(kind).saturating_sub(1) % FrameKind::ALL.len()];
        let bytes = frame(kind, u64::from(sequence), payload);
        now += Duration::from_millis(u64::from(sequence));
        if mode % 3 == 0 {
            receiver.handle_bytes(now, id, &bytes);
        } else {
            sender.handle_bytes(now, &bytes);
        }
        receiver.handle_timer(now);
        sender.handle_timer(now);
        while let Some(arrived) = receiver.poll_frame() {
            let sequence = arrived.header.sequence;
            let view = WriteView::check(&arrived.bytes[FRAME_HEADER_BYTES..]).expect("checked");
            let count = view.new_series_count();
            if len % 5 == 0 {
                receiver.handle_frame_refused(Refusal::Overloaded);
                continue;
            }
            receiver.handle_frame_taken();
            let assigned = vec![Err(Refusal::HeadFull); count];
            receiver.handle_ack(Ack { sequence, assigned, refused: Vec::new() });
        }
        while receiver.poll_transmit(id).is_some() {}
        while sender.poll_transmit().is_some() {}
        while sender.poll_event().is_some() {}
        while receiver.poll_event().is_some() {}
        assert!(receiver.memory_bytes() < 1 << 18);
    }
});
