//! DRIVER: one connection of a gateway to a node's port for reads: it drives a `wire::link::Reader`
//! over a socket.
//!
//! In: questions. Out: answer frames, read where they lie. Nothing runs behind it: bytes move while
//! somebody waits in [`Conversation::next`], which may be given up at any time and called again.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::base::time::{Duration, monotonic_now};
use crate::control::reads::fault::ReadFault;
use crate::control::timer::sleep_until;
use crate::wire::frame::{FrameHeader, Memory};
use crate::wire::hello::Welcome;
use crate::wire::link::{Dialler, Reader, ReaderEvent, SilenceLimits};
use crate::wire::proof::{LinkSecret, NONCE_BYTES};

/// While nobody answers it is dialled once more: what the network lost the kernel sends again only
/// after one second, then two, and so on.
const DIAL_EVERY: Duration = Duration::from_millis(250);
/// Bytes that are received at once.
const RECEIVED_BYTES: usize = 128 << 10;

/// Whom to dial, and how.
#[derive(Clone)]
pub(super) struct Dialling {
    pub address: SocketAddr,
    pub dialler: Dialler,
    pub silence: SilenceLimits,
    pub secret: LinkSecret,
}

/// A connection, of use until its first fault.
pub(super) struct Conversation {
    stream: TcpStream,
    reader: Reader,
    welcome: Option<Box<Welcome>>,
    /// What is being sent, and how much of it was.
    out: Option<(Arc<Memory>, usize)>,
    received: Box<[u8]>,
    /// Of `received`, what is not read yet.
    unread: std::ops::Range<usize>,
    /// The node's last words.
    refused: Option<String>,
}

impl Conversation {
    /// Connects, and waits until the node has proved itself.
    pub async fn open(dialling: &Dialling, nonce: [u8; NONCE_BYTES]) -> Result<Self, ReadFault> {
        let stream = connect(dialling.address, dialling.silence.unhealthy_after).await?;
        // Questions are small, and each is sent in one piece.
        let _as_it_is = stream.set_nodelay(true);
        let now = monotonic_now();
        let secret = dialling.secret.clone();
        let mut reader = Reader::new(now, dialling.dialler, dialling.silence, secret);
        reader.handle_connected(now, nonce);
        let mut this = Self {
            stream,
            reader,
            welcome: None,
            out: None,
            received: vec![0; RECEIVED_BYTES].into(),
            unread: 0..0,
            refused: None,
        };
        while this.welcome.is_none() {
            // Nothing comes before the welcome: the reader refuses it.
            let _nothing = this.read(&mut |_, _| ());
            this.take_events()?;
            if this.welcome.is_none() {
                this.wait().await?;
            }
        }
        Ok(this)
    }

    /// What the node said of itself.
    pub fn welcome(&self) -> &Welcome {
        self.welcome.as_ref().expect("an open conversation has one")
    }

    /// Puts a question behind those that wait to be sent; given back if too many do.
    pub fn ask(&mut self, frame: Memory) -> Result<(), Memory> {
        self.reader.handle_request(frame)
    }

    /// The next answer frame, as `read` reads it. On a fault the conversation is over.
    pub async fn next<T>(
        &mut self,
        mut read: impl FnMut(&FrameHeader, &[u8]) -> T,
    ) -> Result<T, ReadFault> {
        loop {
            if let Some(answer) = self.read(&mut read) {
                return Ok(answer);
            }
            self.take_events()?;
            self.wait().await?;
        }
    }

    fn read<T>(&mut self, read: &mut impl FnMut(&FrameHeader, &[u8]) -> T) -> Option<T> {
        let mut bytes = &self.received[self.unread.clone()];
        let answer = self.reader.handle_bytes(monotonic_now(), &mut bytes);
        let answer = answer.map(|(header, frame)| read(&header, frame));
        self.unread.start = self.unread.end - bytes.len();
        answer
    }

    fn take_events(&mut self) -> Result<(), ReadFault> {
        while let Some(event) = self.reader.poll_event() {
            match event {
                ReaderEvent::Welcomed(welcome) => self.welcome = Some(welcome),
                ReaderEvent::Healthy => {}
                ReaderEvent::Unhealthy => return Err(ReadFault::Silent),
                ReaderEvent::NodeRefused { text } => self.refused = Some(text),
                ReaderEvent::Close(fault) => {
                    return Err(match self.refused.take() {
                        Some(text) => ReadFault::Refused(text),
                        None => ReadFault::Link(fault),
                    });
                }
            }
        }
        Ok(())
    }

    /// Moves bytes, or time.
    async fn wait(&mut self) -> Result<(), ReadFault> {
        if self.out.is_none() {
            self.out = self.reader.poll_transmit().map(|frame| (frame, 0));
        }
        let broken = |error: std::io::Error| ReadFault::Broken(error.to_string());
        let timeout = self.reader.poll_timeout();
        let (mut reading, mut writing) = self.stream.split();
        let rest = self.out.as_ref().map_or(&[][..], |(frame, sent)| &frame[*sent..]);
        tokio::select! {
            count = reading.read(&mut self.received) => match count.map_err(broken)? {
                0 => return Err(ReadFault::Broken("the node closed it".into())),
                count => self.unread = 0..count,
            },
            count = writing.write(rest), if !rest.is_empty() => {
                let count = count.map_err(broken)?;
                if let Some((frame, sent)) = &mut self.out {
                    *sent += count;
                    if *sent == frame.len() {
                        self.out = None;
                    }
                }
            }
            () = sleep_until(timeout) => self.reader.handle_timer(monotonic_now()),
        }
        Ok(())
    }
}

/// Connects; the first of several tries that is answered counts, the others are given up.
async fn connect(address: SocketAddr, within: Duration) -> Result<TcpStream, ReadFault> {
    let mut tries = JoinSet::new();
    let dial = async {
        loop {
            tries.spawn(TcpStream::connect(address));
            tokio::select! {
                Some(Ok(outcome)) = tries.join_next() => return outcome,
                () = tokio::time::sleep(DIAL_EVERY) => {}
            }
        }
    };
    let outcome = tokio::time::timeout(within, dial).await.map_err(|_| ReadFault::Silent)?;
    outcome.map_err(|error| ReadFault::Unreachable(error.to_string()))
}
