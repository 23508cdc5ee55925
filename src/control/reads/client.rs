//! DRIVER: a node as a gateway knows it: asked over its port for reads, and watched.
//!
//! A task keeps one connection open, dials again when it is lost, and tells how the node is; small
//! questions share it. A select takes a connection of its own for as long as it runs, one that an
//! earlier select left if there is one. While the node is known to be away, questions fail at once:
//! nobody waits the health timeout twice.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::base::chance::Chance;
use crate::base::time::{Duration, Instant, monotonic_now};
use crate::control::reads::conversation::{Conversation, Dialling};
use crate::control::reads::fault::ReadFault;
use crate::control::reads::own_hints::OwnHints;
use crate::control::reads::selecting::SelectStream;
use crate::model::placement::NodeId;
use crate::wire::frame::{FrameHeader, FrameKind, Memory, number_frame};
use crate::wire::hello::Welcome;
use crate::wire::hints::HintsHeld;
use crate::wire::link::{Dialler, SilenceLimits};
use crate::wire::proof::{LinkSecret, NONCE_BYTES};
use crate::wire::select::SelectRequest;

/// Small questions to a node that are under way; the next one is refused.
const QUESTIONS_MAX: u32 = 128;
/// Connections that are kept for the next selects.
const IDLE_MAX: usize = 4;
/// For so long: shorter than the silence after which a node closes them.
const IDLE_FOR: Duration = Duration::from_secs(4);
/// Between dialling and dialling again: at first, and at most. What a user waits for a node that is
/// back; a try costs either end next to nothing.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
const AGAIN_AFTER_MAX: Duration = Duration::from_millis(250);
/// A connection that lasted so long is dialled again at once.
const LIVED_FOR: Duration = Duration::from_secs(1);

/// How a node is.
#[derive(Clone, Debug)]
pub enum NodeStatus {
    /// It was not reached yet.
    Dialling,
    /// It proved itself, and is heard.
    Up(Arc<Welcome>),
    /// It is not there, and why.
    Down(ReadFault),
}

/// A node as a gateway knows it. Cheap to clone; the last one dropped closes the connections.
#[derive(Clone)]
pub struct NodeClient {
    node: Arc<Node>,
}

struct Node {
    dialling: Dialling,
    chance: Mutex<Chance>,
    questions: mpsc::Sender<Question>,
    status: watch::Receiver<NodeStatus>,
    idle: Mutex<Vec<(Conversation, Instant)>>,
}

struct Question {
    frame: Memory,
    reply: oneshot::Sender<Result<(FrameHeader, Memory), ReadFault>>,
}

impl NodeClient {
    /// Dials `address`, the port for reads, now and whenever the connection is lost. To be called
    /// on a thread of a tokio runtime with time and I/O.
    ///
    /// `dialler.node_shard` is the node's shard count; `silence.unhealthy_after` is the health
    /// timeout.
    ///
    /// # Errors
    /// The kernel's source of chance cannot be opened.
    pub fn start(
        address: std::net::SocketAddr,
        dialler: Dialler,
        silence: SilenceLimits,
        secret: LinkSecret,
    ) -> io::Result<Self> {
        Self::begin(Dialling { address, dialler, silence, secret }, None)
    }

    /// The same, which tells the node what `hints` hold for it: first, so that a node that is up
    /// has heard it, and whenever it changes.
    ///
    /// # Errors
    /// As [`NodeClient::start`].
    pub fn start_telling(
        hints: OwnHints,
        (address, dialler): (std::net::SocketAddr, Dialler),
        silence: SilenceLimits,
        secret: LinkSecret,
    ) -> io::Result<Self> {
        Self::begin(Dialling { address, dialler, silence, secret }, Some(hints))
    }

    fn begin(dialling: Dialling, hints: Option<OwnHints>) -> io::Result<Self> {
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX as usize);
        let (teller, status) = watch::channel(NodeStatus::Dialling);
        let (idle, chance) = (Mutex::default(), Mutex::new(Chance::open()?));
        let hints = hints.map(|own| OwnWords {
            node: NodeId(dialling.dialler.node_expected),
            own,
            said: HintsHeld::default(),
        });
        let (dialled, drawn) = (dialling.clone(), Chance::open()?);
        let keeper = Keeper { dialling: dialled, chance: drawn, teller, asked, hints };
        tokio::spawn(keeper.run());
        Ok(Self { node: Arc::new(Node { dialling, chance, questions, status, idle }) })
    }

    /// How the node is, now and from now on. Its [`Welcome`] says who it is, its incarnation,
    /// shards and ports.
    pub fn status(&self) -> watch::Receiver<NodeStatus> {
        self.node.status.clone()
    }

    /// Waits until the node was reached, or was not for the health timeout.
    ///
    /// # Errors
    /// Why it is not there.
    pub async fn welcome(&self) -> Result<Arc<Welcome>, ReadFault> {
        let mut status = self.status();
        let known = status.wait_for(|status| !matches!(status, NodeStatus::Dialling));
        let known = tokio::time::timeout(self.health_timeout(), known).await;
        match known {
            Err(_late) => Err(ReadFault::Silent),
            Ok(Err(_stopped)) => Err(ReadFault::Stopped),
            Ok(Ok(status)) => match &*status {
                NodeStatus::Up(welcome) => Ok(Arc::clone(welcome)),
                NodeStatus::Down(fault) => Err(fault.clone()),
                NodeStatus::Dialling => Err(ReadFault::Silent),
            },
        }
    }

    /// Asks what is answered in one frame: registry pages, placement. The frame's number is given
    /// here, so that it does not matter what it was.
    ///
    /// Nothing limits how long the node takes while it is heard: the caller may give up at any
    /// time.
    ///
    /// # Errors
    /// The node is away, or went away meanwhile.
    pub async fn request(&self, frame: Memory) -> Result<(FrameHeader, Memory), ReadFault> {
        self.welcome().await?;
        let (reply, answer) = oneshot::channel();
        let asked = self.node.questions.try_send(Question { frame, reply });
        asked.map_err(|fault| match fault {
            mpsc::error::TrySendError::Full(_) => {
                ReadFault::TooMany { questions_max: QUESTIONS_MAX }
            }
            mpsc::error::TrySendError::Closed(_) => ReadFault::Stopped,
        })?;
        answer.await.map_err(|_| ReadFault::Stopped)?
    }

    /// Asks for series. The answer comes as fast as it is taken; dropping it ends the work on it.
    ///
    /// # Errors
    /// The node is away.
    pub async fn select(&self, request: &SelectRequest) -> Result<SelectStream, ReadFault> {
        self.welcome().await?;
        let frame = request.encode_frame();
        if let Some(conversation) = self.take_idle() {
            return SelectStream::begin(self.clone(), conversation, (frame, true));
        }
        let conversation = self.open().await?;
        SelectStream::begin(self.clone(), conversation, (frame, false))
    }

    /// The placement that the node follows now; the one of its [`Welcome`] is older than that.
    ///
    /// # Errors
    /// The node is away.
    pub async fn placement_epoch(&self) -> Result<u64, ReadFault> {
        self.welcome().await?;
        let conversation = self.open().await?;
        let epoch = conversation.welcome().placement_epoch;
        self.give_back(conversation);
        Ok(epoch)
    }

    /// A connection that nobody used before.
    pub(super) async fn open(&self) -> Result<Conversation, ReadFault> {
        let nonce = self.node.chance.lock().unwrap_or_else(PoisonError::into_inner).draw();
        Conversation::open(&self.node.dialling, nonce).await
    }

    /// A connection whose select is over, for the next one.
    pub(super) fn give_back(&self, conversation: Conversation) {
        let mut idle = self.node.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push((conversation, monotonic_now()));
        }
    }

    fn take_idle(&self) -> Option<Conversation> {
        let mut idle = self.node.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = monotonic_now().checked_sub(IDLE_FOR)?;
        idle.retain(|(_, since)| *since > oldest);
        idle.pop().map(|(conversation, _)| conversation)
    }

    fn health_timeout(&self) -> Duration {
        self.node.dialling.silence.unhealthy_after
    }
}

/// Keeps the connection that is always there.
struct Keeper {
    dialling: Dialling,
    chance: Chance,
    teller: watch::Sender<NodeStatus>,
    asked: mpsc::Receiver<Question>,
    hints: Option<OwnWords>,
}

/// What the node is told of hints.
struct OwnWords {
    node: NodeId,
    own: OwnHints,
    /// Over this connection.
    said: HintsHeld,
}

/// Every client is gone.
struct Unused;

impl Keeper {
    async fn run(mut self) {
        let mut again_after = AGAIN_AFTER;
        loop {
            let nonce = self.chance.draw();
            let fault = match self.open(nonce).await {
                Ok(conversation) => {
                    again_after = AGAIN_AFTER;
                    let lived_at = monotonic_now() + LIVED_FOR;
                    let welcome = Arc::new(conversation.welcome().clone());
                    self.teller.send_replace(NodeStatus::Up(welcome));
                    match self.converse(conversation).await {
                        // It worked until now: that nobody is there is known when dialling fails.
                        Ok(fault) if fault != ReadFault::Silent && lived_at < monotonic_now() => {
                            continue;
                        }
                        Ok(fault) => fault,
                        Err(Unused) => return,
                    }
                }
                Err(fault) => fault,
            };
            tracing::debug!(address = %self.dialling.address, %fault, "a node cannot be read");
            self.teller.send_replace(NodeStatus::Down(fault.clone()));
            if let Err(Unused) = self.rest(again_after, &fault).await {
                return;
            }
            again_after = (2 * again_after).min(AGAIN_AFTER_MAX);
        }
    }

    /// Dials; the node is told of hints first.
    async fn open(&mut self, nonce: [u8; NONCE_BYTES]) -> Result<Conversation, ReadFault> {
        let mut conversation = Conversation::open(&self.dialling, nonce).await?;
        if let Some(words) = &mut self.hints {
            let _waits = conversation.ask(words.news());
            while !conversation.next(|header, _| header.kind == FrameKind::HintsHeard).await? {}
        }
        Ok(conversation)
    }

    /// Asks what is asked, until the connection is of no more use.
    async fn converse(&mut self, mut conversation: Conversation) -> Result<ReadFault, Unused> {
        let mut under_way = HashMap::new();
        let mut next_number = 1;
        let mut telling = None;
        let fault = loop {
            let read = |header: &FrameHeader, bytes: &[u8]| {
                let mut frame = Memory::new();
                frame.extend_from_slice(bytes);
                (*header, frame)
            };
            let room = under_way.len() < QUESTIONS_MAX as usize;
            let question = tokio::select! {
                answer = conversation.next(read) => match answer {
                    Ok((header, frame)) => {
                        telling.take_if(|number| *number == header.sequence);
                        let reply: Option<Reply> = under_way.remove(&header.sequence);
                        // An asker that has left needs no answer.
                        let _ = reply.map(|reply| reply.send(Ok((header, frame))));
                        continue;
                    }
                    Err(fault) => break fault,
                },
                question = self.asked.recv(), if room => Some(question.ok_or(Unused)?),
                () = changed(&mut self.hints), if telling.is_none() => None,
            };
            let Some(Question { mut frame, reply }) = question else {
                let Some(words) = self.hints.as_mut().filter(|words| words.is_news()) else {
                    continue;
                };
                let mut frame = words.news();
                number_frame(&mut frame, next_number);
                if conversation.ask(frame).is_err() {
                    // The next connection begins with it.
                    break ReadFault::TooMany { questions_max: QUESTIONS_MAX };
                }
                telling = Some(next_number);
                next_number += 1;
                continue;
            };
            number_frame(&mut frame, next_number);
            if conversation.ask(frame).is_ok() {
                under_way.insert(next_number, reply);
            } else {
                let fault = ReadFault::TooMany { questions_max: QUESTIONS_MAX };
                let _ = reply.send(Err(fault));
            }
            next_number += 1;
        };
        for (_, reply) in under_way {
            let _ = reply.send(Err(fault.clone()));
        }
        Ok(fault)
    }

    /// Waits; who asks meanwhile is told why there is nobody.
    async fn rest(&mut self, wait: Duration, fault: &ReadFault) -> Result<(), Unused> {
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                question = self.asked.recv() => {
                    let _ = question.ok_or(Unused)?.reply.send(Err(fault.clone()));
                }
            }
        }
    }
}

impl OwnWords {
    /// Whether something else is to be said than was.
    fn is_news(&self) -> bool {
        self.own.held_for(self.node) != self.said
    }

    /// What is to be said now.
    fn news(&mut self) -> Memory {
        self.own.mark_unchanged();
        self.said = self.own.held_for(self.node);
        self.said.encode_frame()
    }
}

/// Waits until hints may be otherwise.
async fn changed(hints: &mut Option<OwnWords>) {
    match hints {
        Some(words) => words.own.changed().await,
        None => std::future::pending().await,
    }
}

type Reply = oneshot::Sender<Result<(FrameHeader, Memory), ReadFault>>;
