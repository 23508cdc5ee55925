//! A gateway's half of a link that asks: selects, registry pages, placement. Nothing is kept over a
//! reconnect: who asked asks again.
//!
//! In: request frames, bytes, time. Out: bytes to send, answer frames, events. Several requests may
//! be under way; each payload bears its number. Not here: what answers mean.

use std::collections::VecDeque;
use std::sync::Arc;

use super::dialled::{Dialled, Heard};
use super::fault::LinkFault;
use super::sender::Dialler;
use super::silence::{Silence, SilenceLimits};
use crate::base::time::Instant;
use crate::wire::frame::{FrameHeader, FrameKind, Memory};
use crate::wire::hello::{LinkPurpose, Welcome};
use crate::wire::proof::{LinkSecret, NONCE_BYTES};

/// Most requests that wait to be sent.
const REQUESTS_MAX: usize = 256;

/// What happened to a reader.
#[derive(Debug)]
pub enum ReaderEvent {
    /// The node proved itself; requests flow.
    Welcomed(Box<Welcome>),
    /// The node is heard.
    Healthy,
    /// The node was not heard for the health timeout.
    Unhealthy,
    /// The node's last words, for people. `Close` follows.
    NodeRefused {
        /// Why.
        text: String,
    },
    /// The connection is of no more use: close it. What was asked over it gets no answer.
    Close(LinkFault),
}

/// A gateway's half of a link that asks.
#[derive(Debug)]
pub struct Reader {
    dialler: Dialler,
    secret: LinkSecret,
    connection: Option<Dialled>,
    silence: Silence,
    events: VecDeque<ReaderEvent>,
}

impl Reader {
    /// A reader without a connection.
    pub fn new(now: Instant, dialler: Dialler, silence: SilenceLimits, secret: LinkSecret) -> Self {
        let (connection, events) = (None, VecDeque::new());
        Self { dialler, secret, connection, silence: Silence::new(now, silence), events }
    }

    /// A connection was opened. `nonce` was never used before and cannot be guessed.
    pub fn handle_connected(&mut self, now: Instant, nonce: [u8; NONCE_BYTES]) {
        let hello = self.dialler.hello(nonce, LinkPurpose::Read);
        self.connection = Some(Dialled::new(now, hello));
    }

    /// Asks. Given back if no node has proved itself, or too many requests wait to be sent.
    pub fn handle_request(&mut self, frame: Memory) -> Result<(), Memory> {
        match &mut self.connection {
            Some(open) if open.is_open() && open.waiting() < REQUESTS_MAX => {
                open.push(frame);
                Ok(())
            }
            _ => Err(frame),
        }
    }

    /// Takes from the front of `bytes` until an answer is whole: its header, and the frame, where
    /// it lies. `None`: all was taken. Call it until then.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        bytes: &mut &[u8],
    ) -> Option<(FrameHeader, &[u8])> {
        loop {
            let connection = self.connection.as_mut()?;
            if connection.is_held() {
                connection.drop_last();
            }
            let heard = match connection.handle_bytes(now, bytes, &self.secret) {
                Ok(heard) => heard?,
                Err(fault) => {
                    self.give_up(fault);
                    return None;
                }
            };
            if let Some(header) = self.handle_heard(now, heard) {
                return self.connection.as_ref().map(|connection| (header, connection.last()));
            }
        }
    }

    /// As [`super::Sender::handle_timer`].
    pub fn handle_timer(&mut self, now: Instant) {
        let (is_unhealthy, timed) = self.silence.handle_timer(now, self.connection.as_mut());
        if is_unhealthy {
            self.events.push_back(ReaderEvent::Unhealthy);
        }
        if let Err(fault) = timed {
            self.give_up(fault);
        }
    }

    /// When to call [`Reader::handle_timer`]; bytes that come may put it off.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.silence.poll_timeout(self.connection.as_ref())
    }

    /// The next bytes to send, whole and in this order.
    pub fn poll_transmit(&mut self) -> Option<Arc<Memory>> {
        self.connection.as_mut()?.poll_transmit()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<ReaderEvent> {
        self.events.pop_front()
    }

    /// The header of an answer that is to be handed out.
    fn handle_heard(&mut self, now: Instant, heard: Heard) -> Option<FrameHeader> {
        let mut answer = None;
        match heard {
            Heard::Nothing => return None,
            Heard::Refused(refused) => {
                self.events.push_back(ReaderEvent::NodeRefused { text: refused.text });
                self.give_up(LinkFault::Refused);
                return None;
            }
            Heard::Welcome(welcome) => {
                self.events.push_back(ReaderEvent::Welcomed(Box::new(welcome)));
            }
            Heard::Pong(_) => {}
            Heard::Frame(header) => match header.kind {
                FrameKind::RegistryPage
                | FrameKind::Series
                | FrameKind::Strings
                | FrameKind::SelectEnd
                | FrameKind::SelectFault
                | FrameKind::PlacementAnswer
                | FrameKind::HintsHeard
                | FrameKind::Deleted => answer = Some(header),
                kind => {
                    self.give_up(LinkFault::Unexpected { kind });
                    return None;
                }
            },
        }
        if self.silence.handle_heard(now) {
            self.events.push_back(ReaderEvent::Healthy);
        }
        answer
    }

    fn give_up(&mut self, fault: LinkFault) {
        self.connection = None;
        self.events.push_back(ReaderEvent::Close(fault));
    }
}
