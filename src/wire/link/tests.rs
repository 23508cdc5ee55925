//! Scripts of events for both halves of a link: who is let in, what is refused, what is bounded.

use crate::base::time::{Duration, Instant, monotonic_now};
use crate::model::refusal::Refusal;
use crate::model::series::{SeriesHash, SeriesId, TenantId};
use crate::wire::ack::Ack;
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameFault, FrameKind, Memory, check_frame};
use crate::wire::health::{NodeState, Ping};
use crate::wire::hello::{Challenge, Hello, LinkPurpose, VERSIONS, Versions, id_space};
use crate::wire::link::{
    ConnectionId, Dialler, EpochFit, LinkFault, OutgoingFrame, Reader, ReaderEvent, Receiver,
    ReceiverConfig, ReceiverEvent, Sender, SenderConfig, SenderEvent, SilenceLimits, UnsentReason,
    WindowLimits,
};
use crate::wire::proof::LinkSecret;
use crate::wire::registry::{RegistryPage, RegistryRequest, RegistryView};
use crate::wire::write::{WriteAddress, WritePayload};

const NODE: u128 = 5;
const WINDOW: WindowLimits = WindowLimits { frames: 3, bytes: 2000 };
pub(super) const WINDOW_LARGE: WindowLimits = WindowLimits { frames: 64, bytes: 4 << 20 };

fn secret(text: &str) -> LinkSecret {
    LinkSecret::new(text.as_bytes()).expect("long enough")
}

fn dialler() -> Dialler {
    Dialler {
        gateway: 9,
        gateway_shard: 0,
        gateway_shard_count: 1,
        node_expected: NODE,
        node_shard: 0,
    }
}

fn new_sender(now: Instant, dialler: Dialler) -> Sender {
    let config = SenderConfig {
        dialler,
        link_incarnation: 1,
        kept_frames_max: 5,
        kept_bytes_max: 10_000,
        silence: SilenceLimits::default(),
    };
    Sender::new(now, config, secret("the fleet's secret"))
}

fn new_receiver(node: u128, incarnation: u64) -> Receiver {
    receiver_with_window(node, incarnation, WINDOW)
}

fn receiver_with_window(node: u128, incarnation: u64, window: WindowLimits) -> Receiver {
    let config = ReceiverConfig {
        node,
        incarnation,
        shard: 0,
        shard_count: 1,
        link_ports: vec![9001],
        window,
        links_max: 2,
        strangers_max: 2,
        answer_bytes_max: 1000,
        silence: SilenceLimits::default(),
    };
    let mut receiver = Receiver::new(config, secret("the fleet's secret"));
    receiver.handle_credit(window.bytes);
    receiver.handle_state(NodeState::Ready);
    receiver.handle_placement(4);
    receiver
}

/// A frame with one sample of a series; `new`: with its labels, else by the id.
fn frame(sender: &Sender, id: u32, new: bool) -> OutgoingFrame {
    let mut payload = WritePayload::default();
    let labels = [b'x'; 40];
    let entry = if new {
        payload.push_new_series(TenantId(0), SeriesHash(u128::from(id)), &labels)
    } else {
        id
    };
    payload.series.push(entry);
    payload.timestamp_ms.push(1);
    payload.value.push(0.5);
    let (sequence, id_space) = (sender.next_sequence(), sender.id_space());
    let address = WriteAddress { sequence, flags: 0, shard: 0, epoch: 3, id_space };
    let bytes = payload.encode_frame_for(&address, Memory::new());
    OutgoingFrame { bytes, new_series_count: u32::from(new), sample_count: 1 }
}

/// Both ends of one connection, without a network.
pub(super) struct Pair {
    pub now: Instant,
    pub sender: Sender,
    pub receiver: Receiver,
    pub id: ConnectionId,
    nonce: u8,
}

impl Pair {
    fn new() -> Self {
        Self::with_window(WINDOW)
    }

    /// The gateway takes whatever node answers.
    fn of_any_node() -> Self {
        Self::connected(Dialler { node_expected: 0, ..dialler() }, WINDOW)
    }

    pub fn with_window(window: WindowLimits) -> Self {
        Self::connected(dialler(), window)
    }

    fn connected(dialler: Dialler, window: WindowLimits) -> Self {
        let now = monotonic_now();
        let (sender, receiver) = (new_sender(now, dialler), receiver_with_window(NODE, 1, window));
        let mut pair = Self { now, sender, receiver, id: ConnectionId(0), nonce: 0 };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        self.nonce += 1;
        self.id = self.receiver.handle_connected(self.now, [self.nonce; 32]).expect("room");
        self.sender.handle_connected(self.now, [self.nonce + 100; 32]);
        self.exchange();
    }

    fn reconnect(&mut self) {
        self.receiver.handle_closed(self.id);
        self.sender.handle_closed();
        self.connect();
    }

    /// Everything that is sent arrives.
    pub fn exchange(&mut self) {
        loop {
            if let Some(bytes) = self.receiver.poll_transmit(self.id) {
                self.sender.handle_bytes(self.now, &bytes);
            } else if let Some(bytes) = self.sender.poll_transmit() {
                self.receiver.handle_bytes(self.now, self.id, &bytes);
            } else {
                return;
            }
        }
    }

    pub fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(event) = self.sender.poll_event() {
            events.push(match event {
                SenderEvent::Welcomed(welcome) => format!("welcome {:?}", welcome.applied_sequence),
                SenderEvent::Acked { ack, .. } => format!("acked {}", ack.sequence),
                SenderEvent::FrameRefused { sequence, reason, .. } => {
                    format!("refused {sequence} {}", reason.as_str())
                }
                SenderEvent::Returned(_) => "returned".into(),
                SenderEvent::IdsForgotten => "ids forgotten".into(),
                SenderEvent::Healthy => "healthy".into(),
                SenderEvent::Unhealthy => "unhealthy".into(),
                SenderEvent::State { state, placement_epoch } => {
                    format!("state {state:?} {placement_epoch}")
                }
                SenderEvent::NodeRefused { text } => text,
                SenderEvent::Close(fault) => format!("close {fault:?}"),
            });
        }
        events
    }

    /// The memory of the frame that was acked just now.
    pub fn acked_memory(&mut self) -> Memory {
        match self.sender.poll_event() {
            Some(SenderEvent::Acked { memory: Some(memory), .. }) => memory,
            event => panic!("{event:?}"),
        }
    }

    fn faults(&mut self) -> Vec<LinkFault> {
        let mut faults = Vec::new();
        while let Some(event) = self.receiver.poll_event() {
            if let ReceiverEvent::Close { fault, .. } = event {
                faults.push(fault);
            }
        }
        faults
    }

    fn push(&mut self, id: u32, new: bool) {
        let frame = frame(&self.sender, id, new);
        self.sender.handle_frame(frame).expect("room");
        self.exchange();
    }

    /// The node takes all frames that arrived; their sequences.
    fn take(&mut self) -> Vec<u64> {
        let mut taken = Vec::new();
        while let Some(frame) = self.receiver.poll_frame() {
            taken.push(frame.header.sequence);
            assert_eq!(frame.epoch, EpochFit::Stale);
            self.receiver.handle_frame_taken();
        }
        taken
    }

    pub fn ack(&mut self, sequence: u64, ids: &[u32]) {
        let assigned = ids.iter().map(|id| Ok(SeriesId(*id))).collect();
        self.receiver.handle_ack(Ack { sequence, assigned, refused: Vec::new() });
    }
}

#[test]
fn acks_that_were_lost_come_over_the_next_connection() {
    // Red if the receiver forgets what it said, or the sender goes on in front of what was taken.
    let mut pair = Pair::new();
    assert_eq!(pair.events(), ["welcome None", "healthy"]);
    for id in 1..=3 {
        pair.push(id, true);
    }
    assert_eq!(pair.take(), [1, 2, 3]);
    pair.ack(1, &[10]);
    pair.ack(2, &[20]);
    assert!(pair.receiver.poll_transmit(pair.id).is_some(), "the ack that is lost");
    pair.reconnect();
    assert_eq!(pair.take(), [0u64; 0]);
    assert_eq!(pair.events(), ["welcome Some(3)", "acked 1", "acked 2"]);
    pair.ack(3, &[30]);
    pair.exchange();
    assert_eq!(pair.events(), ["acked 3"]);
    // A node that knows nothing of the link gets all again that has no answer.
    pair.push(4, true);
    pair.receiver = new_receiver(NODE, 1);
    pair.sender.handle_closed();
    pair.connect();
    assert_eq!(pair.events(), ["welcome None"]);
    assert_eq!(pair.take(), [4]);
}

#[test]
fn other_ids_bring_frames_back() {
    // Red if the sender compares incarnations only: a new node may begin with the same one.
    for (node, incarnation) in [(NODE, 2), (NODE + 1, 1)] {
        let mut pair = Pair::of_any_node();
        pair.events();
        pair.push(1, true);
        pair.take();
        pair.ack(1, &[0]);
        pair.exchange();
        pair.push(0, false);
        let of_before = frame(&pair.sender, 0, false);
        pair.events();
        pair.receiver = new_receiver(node, incarnation);
        pair.sender.handle_closed();
        pair.connect();
        // The caller has not heard of it yet: what it makes now names ids that are gone.
        assert_eq!(pair.sender.id_space(), id_space(NODE, 1, 0));
        let unsent = pair.sender.handle_frame(of_before).expect_err("ids of before");
        assert_eq!(unsent.reason, UnsentReason::ForeignIds);
        let events = ["welcome None", "ids forgotten", "returned", "close ForeignIds"];
        assert_eq!(pair.events(), events);
        assert_eq!((pair.sender.next_sequence(), pair.sender.kept()), (1, (0, 0)));
        pair.reconnect();
        pair.push(1, true);
        assert_eq!(pair.take(), [1]);
    }
}

#[test]
fn frames_that_are_refused_are_answered_in_their_place() {
    // Red if a refusal overtakes the ack of an earlier frame, or a failed log leaves frames
    // waiting.
    let mut pair = Pair::new();
    pair.events();
    pair.push(1, true);
    assert_eq!(pair.take(), [1]);
    pair.push(2, true);
    assert!(pair.receiver.poll_frame().is_some());
    pair.receiver.handle_frame_refused(Refusal::DiskFull);
    pair.exchange();
    assert_eq!(pair.events(), [""; 0]);
    pair.ack(1, &[7]);
    pair.exchange();
    assert_eq!(pair.events(), ["acked 1", "refused 2 disk_full"]);
    pair.push(3, true);
    pair.push(4, true);
    pair.take();
    pair.receiver.handle_log_failed(Refusal::LogFailed);
    pair.exchange();
    assert_eq!(pair.events(), ["refused 3 log_failed", "refused 4 log_failed"]);
}

#[test]
fn window_and_credit_hold_frames_back() {
    // Red if the sender ignores one of the limits, or credit that comes back is not told.
    let mut pair = Pair::new();
    for id in 1..=5 {
        pair.push(id, true);
    }
    let full = frame(&pair.sender, 6, true);
    let unsent = pair.sender.handle_frame(full).expect_err("five are kept");
    assert_eq!(unsent.reason, UnsentReason::Full);
    assert_eq!((pair.sender.in_flight().0, pair.take().len()), (3, 3));
    pair.receiver.handle_credit(0);
    pair.ack(1, &[1]);
    pair.exchange();
    assert_eq!((pair.sender.in_flight().0, pair.sender.credit_bytes()), (2, 0));
    pair.receiver.handle_credit(100_000);
    pair.exchange();
    assert_eq!((pair.sender.in_flight().0, pair.sender.credit_bytes()), (3, 2000));
    assert_eq!(pair.take(), [4]);
    pair.ack(2, &[1]);
    pair.exchange();
    assert_eq!((pair.sender.in_flight().0, pair.take()), (3, vec![5]));
}

#[test]
fn a_stranger_gets_nothing_and_costs_nothing() {
    // Red if a Hello without the right proof is answered, if more than a KiB is taken from somebody
    // unknown, or if he may stay.
    let now = monotonic_now();
    let mut receiver = new_receiver(NODE, 1);
    let hello = Hello {
        gateway: 9,
        node_expected: 0,
        link_incarnation: 1,
        oldest_sequence: 1,
        placement_epoch: 0,
        nonce: [3; 32],
        gateway_shard: 0,
        gateway_shard_count: 1,
        node_shard: 0,
        versions: VERSIONS,
        purpose: LinkPurpose::Write,
    };
    let challenge = |receiver: &mut Receiver, id| {
        let frame = receiver.poll_transmit(id).expect("a challenge");
        frame[FRAME_HEADER_BYTES..].to_vec()
    };
    let closed = |receiver: &mut Receiver, id: ConnectionId| {
        assert!(receiver.poll_transmit(id).is_none(), "not a byte");
        let mut faults = Vec::new();
        while let Some(event) = receiver.poll_event() {
            match event {
                ReceiverEvent::Close { fault, .. } => faults.push(fault),
                ReceiverEvent::Opened { .. } => panic!("opened"),
                ReceiverEvent::Transmit(_) => {}
            }
        }
        receiver.handle_closed(id);
        faults
    };
    // He knows another secret.
    let id = receiver.handle_connected(now, [1; 32]).expect("room");
    let said = challenge(&mut receiver, id);
    let wrong = hello.encode_frame(&secret("another fleet's secret"), &said);
    receiver.handle_bytes(now, id, &wrong);
    assert_eq!(closed(&mut receiver, id), [LinkFault::BadProof]);
    // He plays back what a gateway said to another challenge.
    let id = receiver.handle_connected(now, [2; 32]).expect("room");
    challenge(&mut receiver, id);
    let old = hello.encode_frame(&secret("the fleet's secret"), &said);
    receiver.handle_bytes(now, id, &old);
    assert_eq!(closed(&mut receiver, id), [LinkFault::BadProof]);
    // He sends what only a gateway may, or much.
    let id = receiver.handle_connected(now, [3; 32]).expect("room");
    challenge(&mut receiver, id);
    receiver.handle_bytes(now, id, &Ping { number: 1 }.encode_frame());
    assert_eq!(closed(&mut receiver, id), [LinkFault::Unexpected { kind: FrameKind::Ping }]);
    let id = receiver.handle_connected(now, [4; 32]).expect("room");
    challenge(&mut receiver, id);
    let mut payload = WritePayload::default();
    payload.labels.resize(2000, 0);
    let long = payload.encode_frame((1, 0), 0, Memory::new());
    receiver.handle_bytes(now, id, &long);
    let len_bytes = long.len() as u64;
    assert_eq!(closed(&mut receiver, id), [FrameFault::TooLong { len_bytes }.into()]);
    // He says nothing, with many connections.
    let ids: Vec<_> = (5..9).filter_map(|n| receiver.handle_connected(now, [n; 32])).collect();
    assert_eq!((ids.len(), receiver.poll_timeout()), (2, Some(now + Duration::from_secs(2))));
    receiver.handle_timer(now + Duration::from_millis(1999));
    assert_eq!(receiver.counts().0, 2);
    receiver.handle_timer(now + Duration::from_secs(2));
    let id = ids[0];
    assert_eq!(closed(&mut receiver, id), [LinkFault::HandshakeTimeout; 2]);
    assert!(receiver.memory_bytes() < 4096);
}

#[test]
fn versions_cannot_be_talked_down() {
    // Red if versions are not part of the proof: somebody in between could choose an old protocol.
    let mut pair = Pair::new();
    pair.receiver.handle_closed(pair.id);
    pair.events();
    pair.faults();
    pair.id = pair.receiver.handle_connected(pair.now, [50; 32]).expect("room");
    let frame = pair.receiver.poll_transmit(pair.id).expect("a challenge");
    let header = check_frame(&frame).expect("sealed");
    let challenge = Challenge::decode(&header, &frame[FRAME_HEADER_BYTES..]).expect("a challenge");
    let other = Challenge { versions: Versions { min: 0, max: 1 }, ..challenge };
    pair.sender.handle_connected(pair.now, [51; 32]);
    pair.sender.handle_bytes(pair.now, &other.encode_frame());
    pair.exchange();
    assert_eq!(pair.faults(), [LinkFault::BadProof]);
    let none = Challenge { versions: Versions { min: 2, max: 9 }, ..challenge };
    pair.sender.handle_connected(pair.now, [52; 32]);
    pair.sender.handle_bytes(pair.now, &none.encode_frame());
    assert_eq!(pair.events(), ["close NoCommonVersion { min: 2, max: 9 }"]);
}

#[test]
fn an_impostor_of_a_node_is_not_believed() {
    // Red if the sender takes a Welcome without the node's proof, or another node's.
    let mut pair = Pair::new();
    pair.events();
    let config_of = |node, text: &str| {
        let mut receiver = new_receiver(node, 1);
        receiver.handle_credit(0);
        (receiver, secret(text))
    };
    let (receiver, _) = config_of(NODE + 1, "the fleet's secret");
    pair.receiver = receiver;
    pair.sender.handle_closed();
    pair.connect();
    let events = pair.events();
    assert!(events[0].contains("another node has this address"), "{events:?}");
    assert_eq!(events[1], "close Refused");
    // Without the secret he could send a Welcome with any proof, or nothing: both end in time.
    pair.sender.handle_connected(pair.now, [60; 32]);
    let said = Challenge { versions: VERSIONS, nonce: [61; 32] }.encode_frame();
    pair.sender.handle_bytes(pair.now, &said);
    let hello = pair.sender.poll_transmit().expect("a hello");
    let (_, other) = config_of(NODE, "another fleet's secret");
    let welcome = crate::wire::hello::Welcome {
        node: NODE,
        incarnation: 1,
        placement_epoch: 0,
        window_bytes: 1,
        credit_bytes: 1,
        window_frames: 1,
        frame_bytes_max: 1,
        applied_sequence: None,
        shard: 0,
        shard_count: 1,
        link_ports: vec![1],
        version: 1,
        state: NodeState::Ready,
    };
    let (said, hello) = (&said[FRAME_HEADER_BYTES..], &hello[FRAME_HEADER_BYTES..]);
    pair.sender.handle_bytes(pair.now, &welcome.encode_frame(&other, said, hello));
    assert_eq!(pair.events(), ["close BadProof"]);
    assert!(!pair.sender.is_open());
}

#[test]
fn a_silent_node_is_unhealthy_within_two_seconds() {
    // Red if pings are not sent, count as heard, or a timeout is not looked at.
    let mut pair = Pair::new();
    pair.events();
    let start = pair.now;
    let at = |millis| start + Duration::from_millis(millis);
    assert_eq!(pair.sender.poll_timeout(), Some(at(500)));
    pair.now = at(500);
    pair.sender.handle_timer(pair.now);
    pair.receiver.handle_state(NodeState::DiskFull);
    pair.exchange();
    assert_eq!(pair.events(), ["state DiskFull 4"]);
    // Silence from here on: pings at 1000, 1500, 2000; 2500 is two seconds after the last word.
    for millis in [1000, 1500, 2000, 2499] {
        pair.sender.handle_timer(at(millis));
        let pinged = pair.sender.poll_transmit().is_some();
        assert_eq!(pinged, millis != 2499);
        assert!(pair.sender.is_healthy());
    }
    pair.sender.handle_timer(at(2500));
    assert_eq!(pair.events(), ["unhealthy"]);
    // One word, and it is healthy again.
    pair.now = at(2600);
    pair.exchange();
    assert_eq!(pair.events(), ["healthy"]);
    for millis in (3000..12_600).step_by(100) {
        pair.sender.handle_timer(at(millis));
    }
    assert_eq!(pair.events(), ["unhealthy"]);
    pair.sender.handle_timer(at(12_600));
    assert_eq!(pair.events(), ["close Silent"]);
}

#[test]
fn what_we_slept_is_not_the_nodes_silence() {
    // Red if a process that was stopped for a while calls all of its nodes dead.
    let mut pair = Pair::new();
    pair.events();
    let later = pair.now + Duration::from_secs(60);
    pair.sender.handle_timer(later);
    pair.receiver.handle_timer(later);
    assert_eq!(pair.events(), [""; 0]);
    pair.now = later;
    pair.exchange();
    assert!(pair.sender.is_healthy() && pair.faults().is_empty());
}

#[test]
fn a_newer_connection_of_a_link_ends_the_older() {
    // Red if both may bring frames: a late one of the old connection would pass for a new one.
    let mut pair = Pair::new();
    pair.push(1, true);
    let older = pair.id;
    pair.sender.handle_closed();
    pair.connect();
    assert_eq!(pair.faults(), [LinkFault::Superseded]);
    assert!(pair.receiver.poll_transmit(older).is_some(), "it is told why");
    // The frame that only the old connection brought came again.
    assert_eq!(pair.take(), [1]);
    pair.receiver.handle_closed(older);
    pair.ack(1, &[1]);
    pair.exchange();
    assert!(pair.events().contains(&"acked 1".to_string()));
}

#[test]
fn what_breaks_the_rules_is_refused() {
    // Red if sequence, shard, ids or the window are not looked at on arrival.
    #[track_caller]
    fn check(address: WriteAddress, named: bool, want: LinkFault) {
        let mut pair = Pair::new();
        let mut payload = WritePayload::default();
        let new = payload.push_new_series(TenantId(0), SeriesHash(1), b"x");
        payload.series.push(if named { 0 } else { new });
        payload.timestamp_ms.push(1);
        payload.value.push(1.0);
        let frame = payload.encode_frame_for(&address, Memory::new());
        pair.receiver.handle_bytes(pair.now, pair.id, &frame);
        assert_eq!(pair.faults(), [want]);
        pair.exchange();
        assert!(pair.events().contains(&want.to_string()), "the gateway is told");
    }
    let right =
        WriteAddress { sequence: 1, flags: 0, shard: 0, epoch: 0, id_space: id_space(NODE, 1, 0) };
    let skipped = WriteAddress { sequence: 2, ..right };
    check(skipped, true, LinkFault::OutOfSequence { want: 1, got: 2 });
    let strayed = WriteAddress { shard: 3, ..right };
    check(strayed, true, LinkFault::WrongShard { want: 3, got: 0 });
    check(WriteAddress { id_space: id_space(NODE, 2, 0), ..right }, true, LinkFault::ForeignIds);
    check(WriteAddress { id_space: 0, ..right }, true, LinkFault::ForeignIds);
    let mut pair = Pair::new();
    for sequence in 1..=4 {
        let mut payload = WritePayload::default();
        payload.labels.push(1);
        let address = WriteAddress { sequence, ..right };
        let frame = payload.encode_frame_for(&address, Memory::new());
        pair.receiver.handle_bytes(pair.now, pair.id, &frame);
    }
    assert_eq!(pair.faults(), [LinkFault::WindowExceeded]);
}

#[test]
fn links_are_remembered_up_to_a_limit() {
    // Red if a link that is in use is forgotten for another, or memory has no limit.
    let mut pair = Pair::new();
    let mut others = Vec::new();
    for gateway in [20, 21, 22] {
        let now = pair.now;
        let config = SenderConfig {
            dialler: Dialler { gateway, ..dialler() },
            link_incarnation: 1,
            kept_frames_max: 1,
            kept_bytes_max: 1000,
            silence: SilenceLimits::default(),
        };
        let mut sender = Sender::new(now, config, secret("the fleet's secret"));
        let nonce = [200 + u8::try_from(gateway).expect("small"); 32];
        let id = pair.receiver.handle_connected(now, nonce).expect("room");
        sender.handle_connected(now, [1; 32]);
        while let Some(bytes) = pair.receiver.poll_transmit(id).or_else(|| {
            let bytes = sender.poll_transmit()?;
            pair.receiver.handle_bytes(now, id, &bytes);
            pair.receiver.poll_transmit(id)
        }) {
            sender.handle_bytes(now, &bytes);
        }
        if gateway == 20 {
            assert!(sender.is_open());
            pair.receiver.handle_closed(id);
        }
        others.push((sender.is_open(), pair.receiver.counts().1));
    }
    // 20 was forgotten for 21; 22 found no room, as the other two are in use.
    assert_eq!(others, [(true, 2), (true, 2), (false, 2)]);
    assert_eq!(pair.faults(), [LinkFault::TooManyLinks { links_max: 2 }]);
    assert!(pair.sender.is_open());
}

#[test]
fn a_reader_asks_and_is_answered() {
    let now = monotonic_now();
    let mut receiver = new_receiver(NODE, 1);
    let limits = SilenceLimits::default();
    let mut reader = Reader::new(now, dialler(), limits, secret("the fleet's secret"));
    let request = RegistryRequest { shard: 0, position: 0, entries_max: 10 };
    assert!(reader.handle_request(request.encode_frame()).is_err(), "nobody is there");
    let id = receiver.handle_connected(now, [1; 32]).expect("room");
    reader.handle_connected(now, [2; 32]);
    let challenge = receiver.poll_transmit(id).expect("a challenge");
    assert!(reader.handle_bytes(now, &mut &challenge[..]).is_none());
    let hello = reader.poll_transmit().expect("a hello");
    receiver.handle_bytes(now, id, &hello);
    let welcome = receiver.poll_transmit(id).expect("a welcome");
    assert!(reader.handle_bytes(now, &mut &welcome[..]).is_none());
    assert!(matches!(reader.poll_event(), Some(ReaderEvent::Welcomed(_))));
    assert!(matches!(reader.poll_event(), Some(ReaderEvent::Healthy)));
    reader.handle_request(request.encode_frame()).expect("open");
    let asked = reader.poll_transmit().expect("a request");
    receiver.handle_bytes(now, id, &asked);
    let arrived = receiver.poll_frame().expect("a request");
    assert_eq!((arrived.header.kind, arrived.connection), (FrameKind::RegistryRequest, id));
    let payload = &arrived.bytes[FRAME_HEADER_BYTES..];
    assert_eq!(RegistryRequest::decode(&arrived.header, payload), Ok(request));
    receiver.handle_frame_taken();
    // Answers wait up to a limit.
    let mut stream = Vec::new();
    let mut refused = 0;
    for position in 0..9 {
        let mut page = RegistryPage::new(1, position);
        page.push(SeriesHash(7), SeriesId(8));
        let mut frame = page.encode_frame(position + 1, false);
        while let Err(back) = receiver.handle_answer(id, frame) {
            refused += 1;
            frame = back;
            stream.extend_from_slice(&receiver.poll_transmit(id).expect("it waits"));
        }
    }
    assert!(refused > 0 && receiver.memory_bytes() < 4096);
    while let Some(bytes) = receiver.poll_transmit(id) {
        stream.extend_from_slice(&bytes);
    }
    let mut bytes = &stream[..];
    let mut positions = Vec::new();
    while let Some((header, frame)) = reader.handle_bytes(now, &mut bytes) {
        let view = RegistryView::check(&header, &frame[FRAME_HEADER_BYTES..]).expect("a page");
        positions.push(view.position());
    }
    assert_eq!(positions, (0..9).collect::<Vec<_>>());
}
