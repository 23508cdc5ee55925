//! DRIVER: the port for reads of a node: gateways connect, prove themselves and ask; answers leave
//! at the pace of their sockets.
//!
//! A task a connection, which drives a `wire::link::Receiver` of its own, and a task a question
//! below it. What is bounded: strangers and connections, questions under way a connection, answer
//! frames that wait (then the question waits, and with it the shards' selects). A connection that
//! goes takes its questions along.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinSet};

use crate::base::chance::Chance;
use crate::base::time::{Instant, monotonic_now};
use crate::control::reads::answering::{AnswerSender, Answering, Meeting, QuestionFault};
use crate::control::timer::sleep_until;
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Memory};
use crate::wire::health::NodeState;
use crate::wire::link::{ConnectionId, Receiver, ReceiverConfig, ReceiverEvent};
use crate::wire::proof::LinkSecret;

/// Questions of one connection under way; more of them wait where they lie.
const QUESTIONS_MAX: usize = 64;
/// Frames of all questions of a connection that wait for the receiver to take them.
const ANSWERS_WAITING: usize = 4;
/// Bytes that are received at once: questions are small.
const RECEIVED_BYTES: usize = 16 << 10;
/// After a fault of the listener: too many files are open, most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A read port's settings.
#[derive(Clone, Debug)]
pub struct ReadServerConfig {
    /// As for the write links, with `shard` = `shard_count`. Each connection has its own receiver,
    /// and `strangers_max` is meant for all of them together.
    pub receiver: ReceiverConfig,
    /// Most connections of gateways.
    pub connections_max: u32,
}

/// How the node is; said in pongs and welcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStanding {
    /// It.
    pub state: NodeState,
    /// The newest placement that the node knows.
    pub placement_epoch: u64,
}

/// The port for reads of a node.
pub struct ReadServer {
    config: ReadServerConfig,
    secret: LinkSecret,
    answering: Answering,
    standing: watch::Receiver<NodeStanding>,
    chance: Mutex<Chance>,
    strangers: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// One gateway's connection.
struct Connection {
    stream: TcpStream,
    id: ConnectionId,
    receiver: Receiver,
    answering: Answering,
    standing: watch::Receiver<NodeStanding>,
    questions: JoinSet<Result<(), QuestionFault>>,
    /// Since the gateway has said here what it keeps for the node.
    meeting: Option<Meeting>,
    sender: mpsc::Sender<Memory>,
    answers: mpsc::Receiver<Memory>,
    /// An answer that the receiver had no room for.
    held: Option<Memory>,
    /// What is being sent, and how much of it was.
    out: Option<(Arc<Memory>, usize)>,
    /// Until then what is left may be sent.
    over_at: Option<Instant>,
    stranger: Option<OwnedSemaphorePermit>,
    received: Box<[u8]>,
}

/// The connection is done with.
struct Over;

/// What came first.
enum Wake {
    Received(io::Result<usize>),
    Sent(io::Result<usize>),
    Answer(Option<Memory>),
    Question(Option<Result<Result<(), QuestionFault>, JoinError>>),
    Standing,
    Timer,
}

impl ReadServer {
    /// A port whose questions `answering` answers; `standing` is told to gateways.
    ///
    /// # Errors
    /// The kernel's source of chance cannot be opened.
    pub fn new(
        config: ReadServerConfig,
        secret: LinkSecret,
        answering: Answering,
        standing: watch::Receiver<NodeStanding>,
    ) -> io::Result<Self> {
        assert!(config.receiver.shard == config.receiver.shard_count);
        Ok(Self {
            strangers: Arc::new(Semaphore::new(config.receiver.strangers_max as usize)),
            places: Arc::new(Semaphore::new(config.connections_max as usize)),
            chance: Mutex::new(Chance::open()?),
            config,
            secret,
            answering,
            standing,
        })
    }

    /// Accepts for as long as it is polled; dropping it closes every connection.
    pub async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => if let Some(connection) = self.open(stream) {
                        connections.spawn(connection);
                    },
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection for reads");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
    }

    /// `None`: there is no room for another stranger, or another gateway. Closed without a word.
    fn open(&self, stream: TcpStream) -> Option<impl Future<Output = ()> + Send + use<>> {
        let stranger = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        // Answers are written whole frames at a time; a socket that refuses this is as good.
        let _as_it_is = stream.set_nodelay(true);
        let mut receiver = Receiver::new(self.config.receiver.clone(), self.secret.clone());
        let nonce = self.chance.lock().unwrap_or_else(PoisonError::into_inner).draw();
        let standing = *self.standing.borrow();
        receiver.handle_state(standing.state);
        receiver.handle_placement(standing.placement_epoch);
        let id = receiver.handle_connected(monotonic_now(), nonce)?;
        let (sender, answers) = mpsc::channel(ANSWERS_WAITING);
        let mut connection = Connection {
            stream,
            id,
            receiver,
            answering: self.answering.clone(),
            standing: self.standing.clone(),
            questions: JoinSet::new(),
            meeting: None,
            sender,
            answers,
            held: None,
            out: None,
            over_at: None,
            stranger: Some(stranger),
            received: vec![0; RECEIVED_BYTES].into(),
        };
        Some(async move {
            let _place = place;
            while connection.turn().await.is_ok() {}
        })
    }
}

impl Connection {
    /// Does what can be done, then waits for something to happen.
    async fn turn(&mut self) -> Result<(), Over> {
        self.take_questions();
        if let Some(frame) = self.held.take() {
            self.held = self.receiver.handle_answer(self.id, frame).err();
        }
        self.take_events();
        if self.out.is_none() {
            self.out = self.receiver.poll_transmit(self.id).map(|frame| (frame, 0));
        }
        if self.out.is_none() && self.over_at.is_some() {
            return Err(Over);
        }
        match self.wait().await {
            Wake::Received(Ok(count)) if count > 0 => {
                let bytes = &self.received[..count];
                self.receiver.handle_bytes(monotonic_now(), self.id, bytes);
            }
            Wake::Received(_) | Wake::Sent(Err(_)) => return Err(Over),
            Wake::Sent(Ok(count)) => {
                if let Some((frame, sent)) = &mut self.out {
                    *sent += count;
                    if *sent == frame.len() {
                        self.out = None;
                    }
                }
            }
            Wake::Answer(frame) => self.held = frame,
            Wake::Question(Some(Ok(Ok(()))) | None) => {}
            Wake::Question(Some(Ok(Err(fault)))) => {
                tracing::warn!(?fault, "a gateway asked what cannot be answered: it is cut off");
                return Err(Over);
            }
            // A panic of a debug build; a release build is no more.
            Wake::Question(Some(Err(_panicked))) => return Err(Over),
            Wake::Standing => {
                let standing = *self.standing.borrow_and_update();
                self.receiver.handle_state(standing.state);
                self.receiver.handle_placement(standing.placement_epoch);
            }
            Wake::Timer => {
                let now = monotonic_now();
                self.receiver.handle_timer(now);
                if self.over_at.is_some_and(|at| at <= now) {
                    return Err(Over);
                }
            }
        }
        Ok(())
    }

    async fn wait(&mut self) -> Wake {
        let timeout = [self.receiver.poll_timeout(), self.over_at].into_iter().flatten().min();
        let (mut reading, mut writing) = self.stream.split();
        let rest = self.out.as_ref().map_or(&[][..], |(frame, sent)| &frame[*sent..]);
        tokio::select! {
            count = writing.write(rest), if !rest.is_empty() => Wake::Sent(count),
            count = reading.read(&mut self.received), if self.over_at.is_none() => {
                Wake::Received(count)
            }
            frame = self.answers.recv(), if self.held.is_none() => Wake::Answer(frame),
            done = self.questions.join_next(), if !self.questions.is_empty() => {
                Wake::Question(done)
            }
            Ok(()) = self.standing.changed() => Wake::Standing,
            () = sleep_until(timeout) => Wake::Timer,
        }
    }

    /// Lets questions work that have arrived, as many as may.
    fn take_questions(&mut self) {
        while self.questions.len() < QUESTIONS_MAX
            && let Some(question) = self.receiver.poll_frame()
        {
            let header = question.header;
            let mut frame = Memory::new();
            frame.extend_from_slice(question.bytes);
            self.receiver.handle_frame_taken();
            let answers = AnswerSender::new(header.sequence, self.sender.clone());
            if header.kind == FrameKind::HintsHeld {
                self.hear(&header, &frame, answers);
                continue;
            }
            let answering = self.answering.clone();
            self.questions.spawn(async move { answering.answer(header, frame, answers).await });
        }
    }

    /// In the order in which it is said.
    fn hear(&mut self, header: &FrameHeader, frame: &Memory, answers: AnswerSender) {
        let answering = &self.answering;
        let meeting = self.meeting.get_or_insert_with(|| answering.meet());
        let heard = answering.hear(meeting, header, &frame[FRAME_HEADER_BYTES..]);
        self.questions.spawn(async move {
            let _is_gone = answers.send(heard?).await;
            Ok(())
        });
    }

    fn take_events(&mut self) {
        while let Some(event) = self.receiver.poll_event() {
            match event {
                ReceiverEvent::Opened { hello, .. } => {
                    self.stranger = None;
                    tracing::debug!(gateway = %format_args!("{:032x}", hello.gateway), "it reads");
                }
                ReceiverEvent::Transmit(_) => {}
                ReceiverEvent::Close { fault, .. } => {
                    tracing::debug!(%fault, "a connection for reads is closed");
                    let patience = super::CLOSE_WITHIN;
                    self.over_at = Some(monotonic_now() + patience);
                    self.questions.abort_all();
                }
            }
        }
    }
}
