//! Any bytes as the payload of a frame of any kind: read without a panic, in place and by copying.
//! The first byte chooses the kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::model::placement::agreement::{Answer, Ballot, Request};
use tidegate::model::series::{SeriesHash, SeriesId, TenantId};
use tidegate::wire::ack::{Ack, AckPayload, AckView, FrameAnswer, RefusedSample};
use tidegate::wire::delete::{DeleteOutcome, Deletion};
use tidegate::wire::frame::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, Memory, check_frame, decode_header,
};
use tidegate::wire::health::{NodeState, Ping, Pong};
use tidegate::wire::hello::{Challenge, Hello, Refused, VERSIONS, Welcome};
use tidegate::wire::hints::{HintsHeld, Lacking};
use tidegate::wire::proof::LinkSecret;
use tidegate::wire::registry::{RegistryPage, RegistryRequest, RegistryView};
use tidegate::wire::select::{
    SelectAnswer, SelectEnding, SelectLayer, SelectRequest, SelectWant, SelectedSeries,
    SeriesJoiner, SeriesView, StringsView, encode_answer,
};
use tidegate::wire::write::{WritePayload, WriteView};
use tidegate_fuzz::write_seeds;

fn seeds() -> Vec<Vec<u8>> {
    let mut write = WritePayload::default();
    let new = write.push_new_series(TenantId(0), SeriesHash(9), b"labels");
    write.series.extend([new, 3]);
    write.timestamp_ms.extend([1, 2]);
    write.value.extend([0.5, 1.5]);
    let mut ack = AckPayload::default();
    let refused = RefusedSample { index: 1, reason: tidegate::model::refusal::Refusal::TooOld };
    ack.push(&FrameAnswer::Durable(Ack {
        sequence: 3,
        assigned: vec![Ok(SeriesId(4))],
        refused: vec![refused],
    }));
    let mut page = RegistryPage::new(1, 0);
    page.push(SeriesHash(1), SeriesId(2));
    let chunk = tidegate::model::chunk::Chunk::encode(&[1, 2, 3], &[1.0, 2.0, 4.0]);
    let series =
        SelectedSeries { labels: (*b"l").into(), chunks: vec![chunk], samples: Vec::new() };
    let request = SelectRequest {
        tenant: TenantId(0),
        matchers: vec![tidegate::model::matcher::Matcher::equal("job", "x")],
        start_ms: 0,
        end_ms: 9,
        want: SelectWant::LabelValues("job".into()),
        series_max: 1,
    };
    let mut frames = vec![
        write.encode_frame((1, 0), 0, Memory::new()),
        ack.encode_frame(4, 1000),
        Challenge { versions: VERSIONS, nonce: [1; 32] }.encode_frame(),
        Refused::new("why".into()).encode_frame(),
        Ping { number: 1 }.encode_frame(),
        Pong { number: 1, placement_epoch: 2, state: NodeState::Ready }.encode_frame(),
        RegistryRequest { shard: 0, position: 0, entries_max: 9 }.encode_frame(),
        page.encode_frame(1, true),
        request.encode_frame(),
        Request::Prepare { epoch: 2, ballot: Ballot { round: 1, proposer: 9 } }.encode_frame(),
        Answer::Documents {
            newest_epoch: 0,
            documents: Vec::new(),
            zone: Some("z".into()),
            group: None,
        }
        .encode_frame(),
        Answer::Failed { text: "why".into() }.encode_frame(),
        HintsHeld { keeper: 1, waiting_samples: 2, lost_samples: 0 }.encode_frame(),
        Lacking { waiting_samples: 2, keepers: 1, ..Lacking::default() }.encode_frame(),
    ];
    for answer in [
        SelectAnswer::Series(vec![series]),
        SelectAnswer::Strings(vec!["a".into(), "b".into()]),
        SelectAnswer::End { series_count: 1 },
    ] {
        frames.extend(encode_answer(7, SelectLayer::Heads, &answer).expect("short"));
    }
    let seed = |frame: &Memory| {
        let kind = decode_header(frame).expect("sealed").kind as u8;
        [&[kind], &frame[FRAME_HEADER_BYTES..]].concat()
    };
    frames.iter().map(seed).collect()
}

fuzz_target!(init: write_seeds(&seeds()), |data: &[u8]| {
    let _ = check_frame(data);
    let Some((kind, bytes)) = data.split_first() else { return };
    let mut payload = Memory::new();
    payload.extend_from_slice(bytes);
    let payload = &payload[..];
    let kind = FrameKind::ALL[usize::from(*kind).saturating_sub(1) % FrameKind::ALL.len()];
    let header = FrameHeader {
        kind,
        schema: 1,
        flags: 0,
        sequence: 1,
        epoch: 0,
        shard: 0,
        id_space: 0,
        payload_len_bytes: 0,
    };
    let secret = LinkSecret::new(b"a secret for fuzzing").expect("long");
    match kind {
        FrameKind::Write => {
            if let Ok(view) = WriteView::check(payload) {
                let labels: usize = view.new_series().map(|new| new.labels.len()).sum();
                assert!(labels <= view.new_series_count() * payload.len());
                let _ = view.names_ids();
            }
        }
        FrameKind::Delete => drop(Deletion::decode(payload)),
        FrameKind::Challenge => drop(Challenge::decode(&header, payload)),
        FrameKind::Hello => drop(Hello::decode(&header, payload, (&secret, b"said"))),
        FrameKind::Welcome => drop(Welcome::decode(&header, payload, (&secret, b"a", b"b"))),
        FrameKind::Refused => drop(Refused::decode(&header, payload)),
        FrameKind::Ping => drop(Ping::decode(&header, payload)),
        FrameKind::Pong => drop(Pong::decode(&header, payload)),
        FrameKind::RegistryRequest => drop(RegistryRequest::decode(&header, payload)),
        FrameKind::PlacementRequest => drop(Request::decode(&header, payload)),
        FrameKind::PlacementAnswer => drop(Answer::decode(&header, payload)),
        FrameKind::Deleted => drop(DeleteOutcome::decode(&header, payload)),
        FrameKind::HintsHeld => drop(HintsHeld::decode(&header, payload)),
        FrameKind::HintsHeard => drop(Lacking::decode(&header, payload)),
        FrameKind::Select => drop(SelectRequest::decode(&header, payload)),
        FrameKind::SelectEnd | FrameKind::SelectFault => {
            drop(SelectEnding::decode(&header, payload));
        }
        FrameKind::Ack => {
            let Ok(view) = AckView::check(&header, payload) else { return };
            let answers: Vec<_> = view.answers().collect();
            let sequences = answers.iter().map(FrameAnswer::sequence);
            assert!(sequences.is_sorted_by(|before, after| before < after));
            // The other encoder: what was read is written, and read again.
            let mut again = AckPayload::default();
            answers.iter().for_each(|answer| again.push(answer));
            let frame = again.encode_frame(view.answered_sequence(), view.credit_bytes());
            let header = check_frame(&frame).expect("sealed");
            let again = AckView::check(&header, &frame[FRAME_HEADER_BYTES..]).expect("encoded");
            let plain = |answer: &FrameAnswer| !answer.is_plain();
            assert!(again.answers().eq(answers.into_iter().filter(plain)));
        }
        FrameKind::RegistryPage => {
            if let Ok(view) = RegistryView::check(&header, payload) {
                assert!(view.is_end() || view.next_position() > view.position());
                assert!(view.entries().count() <= payload.len());
            }
        }
        FrameKind::Strings => {
            if let Ok(view) = StringsView::check(&header, payload) {
                assert!(view.strings().map(str::len).sum::<usize>() <= payload.len());
            }
        }
        FrameKind::Series => {
            if let Ok(view) = SeriesView::check(&header, payload) {
                let mut whole = Vec::new();
                let _ = SeriesJoiner::default().join(view, &mut whole);
            }
        }
    }
});
