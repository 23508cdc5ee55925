//! A gateway shard as its process would run the sender: samples to frames, acks to ids, what comes
//! back into new frames. A sample's number is its timestamp; its series follows from it.

use std::collections::{HashMap, VecDeque};

use super::node::{NODE, Node, SHARD, WINDOW};
use super::{SAMPLES, SILENCE, nonce, secret};
use crate::base::checksum::crc32c;
use crate::base::random::Random;
use crate::base::time::{Duration, Instant};
use crate::model::refusal::Refusal;
use crate::model::series::{SeriesHash, SeriesId, TenantId};
use crate::wire::ack::Ack;
use crate::wire::frame::Memory;
use crate::wire::link::{Dialler, LinkFault, OutgoingFrame, Sender, SenderConfig, SenderEvent};
use crate::wire::write::{WriteAddress, WritePayload};

const SERIES: u64 = 12;
const KEPT_FRAMES_MAX: u32 = 9;
const KEPT_BYTES_MAX: u64 = 5000;

pub struct Gateway {
    number: u64,
    sender: Sender,
    link_incarnation: u64,
    pub pipe: Option<u64>,
    pub dial_at: Instant,
    /// Samples that no frame holds.
    waiting: VecDeque<u64>,
    /// Of each frame without an answer: its sequence, samples, and new series.
    traces: VecDeque<(u64, Vec<u64>, Vec<SeriesHash>)>,
    table: HashMap<SeriesHash, SeriesId>,
    /// Of the node, as the last welcome said.
    incarnation: u64,
    wants_close: bool,
    is_healthy: bool,
    heard: Instant,
    /// Buffers that the kernel still holds.
    in_kernel: VecDeque<std::sync::Arc<Memory>>,
}

fn series_of(sample: u64) -> SeriesHash {
    SeriesHash(u128::from(sample % SERIES) + 1)
}

fn sender(now: Instant, number: u64, link_incarnation: u64) -> Sender {
    let dialler = Dialler {
        gateway: u128::from(number) + 100,
        gateway_shard: 0,
        gateway_shard_count: 1,
        node_expected: if number == 0 { NODE } else { 0 },
        node_shard: SHARD,
    };
    let config = SenderConfig {
        dialler,
        link_incarnation,
        kept_frames_max: KEPT_FRAMES_MAX,
        kept_bytes_max: KEPT_BYTES_MAX,
        silence: SILENCE,
    };
    Sender::new(now, config, secret())
}

impl Gateway {
    pub fn new(now: Instant, number: u64, random: &mut Random) -> Self {
        let link_incarnation = random.next();
        Self {
            number,
            sender: sender(now, number, link_incarnation),
            link_incarnation,
            pipe: None,
            dial_at: now,
            waiting: (0..SAMPLES).map(|sample| sample * 2 + number).collect(),
            traces: VecDeque::new(),
            table: HashMap::new(),
            incarnation: 0,
            wants_close: false,
            is_healthy: false,
            heard: now,
            in_kernel: VecDeque::new(),
        }
    }

    /// All of its memory is gone; whoever sent the samples sends those again that were not
    /// answered.
    pub fn restart(&mut self, now: Instant, random: &mut Random) {
        self.take_back();
        self.link_incarnation = random.next();
        self.sender = sender(now, self.number, self.link_incarnation);
        self.pipe = None;
        self.table.clear();
        self.wants_close = false;
        self.is_healthy = false;
        self.heard = now;
        self.in_kernel.clear();
    }

    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.traces.is_empty()
    }

    pub fn is_healthy(&self) -> bool {
        self.is_healthy
    }

    pub fn describe(&self) -> String {
        format!(
            "waiting {} traces {} kept {:?} in flight {:?} credit {} open {} healthy {}",
            self.waiting.len(),
            self.traces.len(),
            self.sender.kept(),
            self.sender.in_flight(),
            self.sender.credit_bytes(),
            self.sender.is_open(),
            self.is_healthy,
        )
    }

    pub fn connect(&mut self, now: Instant, random: &mut Random) {
        self.sender.handle_connected(now, nonce(random));
    }

    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.heard = now;
        self.sender.handle_bytes(now, bytes);
    }

    pub fn handle_closed(&mut self, now: Instant) {
        self.sender.handle_closed();
        self.pipe = None;
        self.wants_close = false;
        self.dial_at = now + Duration::from_millis(30);
    }

    /// The connection that it wants closed.
    pub fn take_closing(&mut self, now: Instant) -> Option<u64> {
        if !std::mem::take(&mut self.wants_close) {
            return None;
        }
        self.sender.handle_closed();
        self.dial_at = now + Duration::from_millis(30);
        self.pipe.take()
    }

    pub fn poll_transmit(&mut self) -> Option<std::sync::Arc<Memory>> {
        let bytes = self.sender.poll_transmit()?;
        self.in_kernel.push_back(bytes.clone());
        if self.in_kernel.len() > 3 {
            self.in_kernel.pop_front();
        }
        Some(bytes)
    }

    /// How many samples were acked.
    pub fn step(&mut self, now: Instant, random: &mut Random, node: &mut Node) -> u64 {
        if self.sender.poll_timeout().is_some_and(|at| at <= now) {
            self.sender.handle_timer(now);
        }
        let acked = self.take_events(node);
        let has_room = self.waiting.front().is_some() && random.once_in(8);
        if has_room {
            self.seal(random, node);
        }
        let (frames, bytes) = self.sender.kept();
        assert!(frames <= KEPT_FRAMES_MAX as usize && bytes <= KEPT_BYTES_MAX, "kept");
        let (frames, bytes) = self.sender.in_flight();
        assert!(frames <= WINDOW.frames as usize, "in flight");
        assert!(bytes <= WINDOW.bytes || frames == 1, "in flight");
        let silence = now.saturating_duration_since(self.heard);
        let is_silent = silence >= SILENCE.unhealthy_after + Duration::from_millis(20);
        assert!(!(is_silent && self.is_healthy), "silent for {silence:?} and healthy");
        assert_eq!(self.is_healthy, self.sender.is_healthy());
        acked
    }

    fn take_events(&mut self, node: &Node) -> u64 {
        let mut acked = 0;
        while let Some(event) = self.sender.poll_event() {
            match event {
                SenderEvent::Welcomed(welcome) => {
                    self.incarnation = welcome.incarnation;
                    assert_eq!((welcome.node, welcome.link_ports.len()), (NODE, 2));
                }
                SenderEvent::IdsForgotten => {
                    self.table.clear();
                    self.link_incarnation = self.link_incarnation.wrapping_add(1);
                    self.take_back();
                }
                SenderEvent::Acked { ack, .. } => acked += self.handle_ack(&ack, node),
                SenderEvent::FrameRefused { sequence, reason, .. } => {
                    assert_eq!(reason, Refusal::Overloaded);
                    let (expected, samples, _) = self.traces.pop_front().expect("a frame");
                    assert_eq!(expected, sequence, "answers come in order");
                    self.waiting.extend(samples);
                }
                SenderEvent::Healthy => {
                    assert!(!std::mem::replace(&mut self.is_healthy, true), "healthy twice");
                }
                SenderEvent::Unhealthy => {
                    assert!(std::mem::replace(&mut self.is_healthy, false), "unhealthy twice");
                }
                SenderEvent::Close(fault) => {
                    let is_expected = matches!(
                        fault,
                        LinkFault::Frame(_)
                            | LinkFault::Silent
                            | LinkFault::HandshakeTimeout
                            | LinkFault::ForeignIds
                            | LinkFault::Refused
                    );
                    assert!(is_expected, "the sender: {fault}");
                    self.wants_close = true;
                }
                SenderEvent::Returned(_)
                | SenderEvent::State { .. }
                | SenderEvent::NodeRefused { .. } => {}
            }
        }
        acked
    }

    fn handle_ack(&mut self, ack: &Ack, node: &Node) -> u64 {
        let (sequence, samples, new_series) = self.traces.pop_front().expect("a frame");
        assert_eq!(sequence, ack.sequence, "answers come in order");
        assert_eq!(new_series.len(), ack.assigned.len());
        for (series, id) in new_series.iter().zip(&ack.assigned) {
            let id = id.expect("no series is refused here");
            let known = node.series_of(self.incarnation, id);
            assert!(known.is_none_or(|known| known == *series), "id {id:?} of {known:?}");
            self.table.insert(*series, id);
        }
        let mut refused = ack.refused.iter().peekable();
        for (index, sample) in (0u32..).zip(samples) {
            match refused.next_if(|refused| refused.index == index) {
                None => {
                    let durable = node.durable.get(&sample);
                    assert_eq!(durable, Some(&series_of(sample)), "sample {sample} is acked");
                }
                Some(refused) => {
                    // Ids of samples are right, or the frame does not name them.
                    assert_eq!(refused.reason, Refusal::TooOld, "sample {sample}");
                    assert!(node.refused.contains(&sample));
                }
            }
        }
        u64::try_from(ack.refused.len()).expect("few") + 1
    }

    /// Samples of frames without an answer wait again, in their order.
    fn take_back(&mut self) {
        while let Some((_, samples, _)) = self.traces.pop_back() {
            for sample in samples.into_iter().rev() {
                self.waiting.push_front(sample);
            }
        }
    }

    fn seal(&mut self, random: &mut Random, node: &mut Node) {
        let mut payload = WritePayload::default();
        let mut new_series = Vec::new();
        let count = self.waiting.len().min(1 + random.index(12));
        let samples: Vec<u64> = self.waiting.iter().take(count).copied().collect();
        for &sample in &samples {
            let series = series_of(sample);
            let entry = if let Some(id) = self.table.get(&series) {
                id.0
            } else {
                let labels = vec![b'l'; 10 + random.index(90)];
                new_series.push(series);
                payload.push_new_series(TenantId(0), series, &labels)
            };
            payload.series.push(entry);
            payload.timestamp_ms.push(sample.cast_signed());
            payload.value.push(0.5);
        }
        let sequence = self.sender.next_sequence();
        // A frame that brings all series itself may be sealed before a node was ever heard.
        let id_space = self.sender.id_space();
        let address = WriteAddress { sequence, flags: 0, shard: SHARD, epoch: 3, id_space };
        let bytes = payload.encode_frame_for(&address, Memory::new());
        if !self.sender.has_room(bytes.len()) {
            return;
        }
        let name = (u128::from(self.number) + 100, self.link_incarnation, sequence);
        let before = node.sealed.insert(name, crc32c(&bytes));
        assert_eq!(before, None, "two frames of one name: {name:?}");
        let new_series_count = u32::try_from(new_series.len()).expect("few");
        let sample_count = u32::try_from(samples.len()).expect("few");
        let frame = OutgoingFrame { bytes, new_series_count, sample_count };
        self.sender.handle_frame(frame).expect("there was room");
        self.waiting.drain(..count);
        self.traces.push_back((sequence, samples, new_series));
    }
}
