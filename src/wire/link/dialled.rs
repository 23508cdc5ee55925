//! A gateway's end of one connection: handshake, pings, whole frames. What frames mean is for who
//! owns it (`sender`, `reader`).
//!
//! In: bytes and time. Out: [`Heard`]. Nothing that comes before the node's proof is believed, and
//! its frames are limited to [`WELCOME_BYTES_MAX`].

use std::collections::VecDeque;
use std::sync::Arc;

use super::buffer::FrameBuffer;
use super::fault::LinkFault;
use super::silence::SilenceLimits;
use crate::base::time::{Duration, Instant};
use crate::wire::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Memory};
use crate::wire::health::{Ping, Pong};
use crate::wire::hello::{Challenge, Hello, Refused, VERSIONS, WELCOME_BYTES_MAX, Welcome};
use crate::wire::proof::LinkSecret;

/// The connection.
#[derive(Debug)]
pub(super) struct Dialled {
    stage: Stage,
    hello: Hello,
    buffer: FrameBuffer,
    out: VecDeque<Arc<Memory>>,
    began: Instant,
    /// When a whole frame came last.
    heard: Instant,
    pinged: Instant,
    ping_number: u64,
    is_ping_due: bool,
    /// Whether a frame was handed out and not dropped.
    is_held: bool,
}

#[derive(Debug)]
enum Stage {
    Challenge,
    /// The version that must come of it, and the payloads that its proof must hold for.
    Welcome {
        version: u16,
        challenge: Box<[u8]>,
        hello: Box<[u8]>,
    },
    Open,
}

/// What came.
pub(super) enum Heard {
    /// Something that is done with.
    Nothing,
    /// The node proved itself.
    Welcome(Welcome),
    /// It is there.
    Pong(Pong),
    /// It closes the link.
    Refused(Refused),
    /// [`Dialled::last`]; [`Dialled::drop_last`] must follow.
    Frame(FrameHeader),
}

impl Dialled {
    /// A connection that was just opened; `hello` with a fresh nonce.
    pub fn new(now: Instant, hello: Hello) -> Self {
        Self {
            stage: Stage::Challenge,
            hello,
            buffer: FrameBuffer::new(WELCOME_BYTES_MAX, WELCOME_BYTES_MAX),
            out: VecDeque::new(),
            began: now,
            heard: now,
            pinged: now,
            ping_number: 0,
            is_ping_due: false,
            is_held: false,
        }
    }

    /// Whether the node proved itself.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Takes `bytes` until something came; `None`: nothing more is in them.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        bytes: &mut &[u8],
        secret: &LinkSecret,
    ) -> Result<Option<Heard>, LinkFault> {
        let Some(header) = self.buffer.fill(bytes)? else { return Ok(None) };
        let payload = &self.buffer.last()[FRAME_HEADER_BYTES..];
        let heard = match (&self.stage, header.kind) {
            (Stage::Open, FrameKind::Pong) => Heard::Pong(Pong::decode(&header, payload)?),
            (_, FrameKind::Refused) => Heard::Refused(Refused::decode(&header, payload)?),
            (Stage::Open, _) => {
                self.heard = now;
                self.is_held = true;
                return Ok(Some(Heard::Frame(header)));
            }
            (Stage::Challenge, FrameKind::Challenge) => {
                self.answer_challenge(&header, secret)?;
                Heard::Nothing
            }
            (Stage::Welcome { .. }, FrameKind::Welcome) => {
                Heard::Welcome(self.check_welcome(&header, secret)?)
            }
            (_, kind) => return Err(LinkFault::Unexpected { kind }),
        };
        self.heard = now;
        self.buffer.drop_last();
        if matches!(heard, Heard::Welcome(_)) {
            self.stage = Stage::Open;
            self.buffer.set_limits(FRAME_BYTES_MAX, FRAME_BYTES_MAX);
        }
        Ok(Some(heard))
    }

    /// The frame that came.
    pub fn last(&self) -> &[u8] {
        self.buffer.last()
    }

    /// Whether it is not done with.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// It is done with.
    pub fn drop_last(&mut self) {
        self.is_held = false;
        self.buffer.drop_last();
    }

    /// Puts a frame behind what waits to be sent.
    pub fn push(&mut self, frame: Memory) {
        self.out.push_back(Arc::new(frame));
    }

    /// Frames that wait to be sent, but pings.
    pub fn waiting(&self) -> usize {
        self.out.len()
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Arc<Memory>> {
        if std::mem::take(&mut self.is_ping_due) {
            return Some(Arc::new(Ping { number: self.ping_number }.encode_frame()));
        }
        self.out.pop_front()
    }

    pub fn handle_timer(&mut self, now: Instant, limits: &SilenceLimits) -> Result<(), LinkFault> {
        if !self.is_open() {
            let is_over = now >= self.began + limits.handshake_within;
            return if is_over { Err(LinkFault::HandshakeTimeout) } else { Ok(()) };
        }
        if now >= self.heard + limits.close_after {
            return Err(LinkFault::Silent);
        }
        if now >= self.heard.max(self.pinged) + limits.ping_after {
            // One that was not even sent yet is enough.
            if !self.is_ping_due {
                self.ping_number += 1;
            }
            self.is_ping_due = true;
            self.pinged = now;
        }
        Ok(())
    }

    /// We did not run for `late`: that silence was ours.
    pub fn handle_late(&mut self, late: Duration) {
        self.began += late;
        self.heard += late;
    }

    pub fn poll_timeout(&self, limits: &SilenceLimits) -> Instant {
        if !self.is_open() {
            return self.began + limits.handshake_within;
        }
        let ping = self.heard.max(self.pinged) + limits.ping_after;
        ping.min(self.heard + limits.close_after)
    }

    fn answer_challenge(
        &mut self,
        header: &FrameHeader,
        secret: &LinkSecret,
    ) -> Result<(), LinkFault> {
        let payload = &self.buffer.last()[FRAME_HEADER_BYTES..];
        let challenge = Challenge::decode(header, payload)?;
        let theirs = challenge.versions;
        let version = VERSIONS
            .agree(theirs)
            .ok_or(LinkFault::NoCommonVersion { min: theirs.min, max: theirs.max })?;
        let frame = self.hello.encode_frame(secret, payload);
        let hello = frame[FRAME_HEADER_BYTES..].into();
        self.stage = Stage::Welcome { version, challenge: payload.into(), hello };
        self.push(frame);
        Ok(())
    }

    fn check_welcome(
        &self,
        header: &FrameHeader,
        secret: &LinkSecret,
    ) -> Result<Welcome, LinkFault> {
        let Stage::Welcome { version, challenge, hello } = &self.stage else {
            return Err(LinkFault::Unexpected { kind: header.kind });
        };
        let payload = &self.buffer.last()[FRAME_HEADER_BYTES..];
        let welcome = Welcome::decode(header, payload, (secret, challenge, hello))?;
        let welcome = welcome.ok_or(LinkFault::BadProof)?;
        if welcome.version != *version {
            let (min, max) = (welcome.version, welcome.version);
            return Err(LinkFault::NoCommonVersion { min, max });
        }
        if self.hello.node_expected != 0 && self.hello.node_expected != welcome.node {
            return Err(LinkFault::WrongNode);
        }
        if welcome.shard != self.hello.node_shard {
            let (want, got) = (self.hello.node_shard, welcome.shard);
            return Err(LinkFault::WrongShard { want, got });
        }
        Ok(welcome)
    }
}
