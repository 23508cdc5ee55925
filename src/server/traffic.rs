//! DRIVER: what a shard does with its clients' sockets: accepts, receives, hands requests on, sends
//! answers, closes.

use crate::base::queue::QueueSender;
use crate::base::time::Duration;
use crate::control::server::{ControlRequest, ReplyPart};
use crate::gateway::endpoint::{Encoding, Endpoint};
use crate::gateway::part::{PartAnswer, ShardMessage};
use crate::gateway::reply::{BodyFault, Reply, reply_to_body_fault};
use crate::http::deadline::{ConnectionDeadlines, DeadlineRules, Overdue, Phase};
use crate::model::refusal::Refusal;
use crate::ring::{BufferLease, ReceiveEnd};
use crate::server::clients::{Client, ClientKey, Clients};
use crate::server::connection::{Connection, ConnectionRules, Step};
use crate::server::ingest::Body;
use crate::server::shard::{Shard, TokenKind};
use bytes::Bytes;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};

/// An answer of the control plane is taken in only while less than this waits to be sent.
const STREAM_OUTPUT_BYTES_MAX: usize = 256 << 10;
/// Pieces of an answer that the control plane may be ahead.
const STREAM_PIECES_AHEAD: usize = 4;
/// How long a connection that we ended is read away; most clients close at once.
const LINGER: Duration = Duration::from_secs(2);
/// How long an idle client keeps its buffer for the next body.
const SPARE_MEMORY_KEPT: Duration = Duration::from_secs(5);
/// An output buffer above this is freed after use.
const SPARE_OUTPUT_BYTES_MAX: usize = 1 << 20;

impl Shard {
    pub(super) fn handle_accepted(&mut self, socket: OwnedFd) {
        if self.is_draining || self.clients.len() >= self.connections_max {
            // Dropping the socket resets it: at the limit of connections that is the push-back.
            self.stats.network.closed.limit += 1;
            return;
        }
        self.stats.network.connections_accepted += 1;
        let socket = socket2::Socket::from(socket);
        // Without it an answer may wait 40 ms for the client's delayed ack. A socket that refuses
        // it works as well.
        let _ = socket.set_tcp_nodelay(true);
        let key = self.clients.insert(Client {
            connection: Connection::new(self.rules.http),
            socket: Some(socket.into()),
            is_sending: false,
            is_receiving: false,
            wants_receive: true,
            is_half_closed: false,
            spare_output: Vec::new(),
            stream: None,
            deadlines: ConnectionDeadlines::new(DeadlineRules::default(), self.now.monotonic),
            lingers_until: None,
            accounted_bytes: 0,
        });
        self.pump(key);
    }

    pub(super) fn handle_received(&mut self, key: ClientKey, lease: BufferLease) {
        let rules = self.rules();
        let Some(client) = self.clients.get_mut(key) else {
            self.ring.recycle(lease);
            return;
        };
        let bytes = self.ring.buffer(&lease);
        self.stats.network.received_bytes += bytes.len() as u64;
        // A client that sends on while it does not take its answers makes no progress.
        if client.deadlines.phase() != Phase::Answering {
            client.deadlines.handle_progress(bytes.len() as u64, self.now.monotonic);
        }
        let step = client.connection.handle_bytes(bytes, &rules);
        self.ring.recycle(lease);
        self.follow(key, step);
        self.break_off_if_overloaded(key);
    }

    /// Refuses a body that still grows while others hold all the memory for requests: heads are let
    /// in before anybody knows what will follow them. A lone body is bounded by its own limit.
    fn break_off_if_overloaded(&mut self, key: ClientKey) {
        let held_bytes = self.reading_bytes + self.ingest.held_bytes();
        let Some(client) = self.clients.get_mut(key) else { return };
        if held_bytes - client.accounted_bytes <= self.request_bytes_max
            || !client.connection.is_in_body()
        {
            return;
        }
        let (reason, text) = (Refusal::Overloaded, "cannot go on: request-bytes-max is in use");
        let reply = match client.connection.endpoint() {
            Some(endpoint) => self.ingest.refuse(endpoint, reason, text),
            None => reply_to_body_fault(BodyFault { reason, text }),
        };
        client.connection.break_off(&reply);
        self.account(key);
        self.pump(key);
    }

    pub(super) fn handle_receive_ended(&mut self, key: ClientKey, reason: ReceiveEnd) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.is_receiving = false;
        match reason {
            ReceiveEnd::NoBuffers => {
                client.wants_receive = true;
                self.parked.push(key);
            }
            // There may be room again since it was asked to stop.
            ReceiveEnd::Cancelled => self.pump(key),
            ReceiveEnd::PeerClosed => {
                client.is_half_closed = true;
                if !client.connection.is_waiting() && !client.connection.has_unread() {
                    client.connection.abort();
                }
                self.pump(key);
            }
            ReceiveEnd::Failed(_) => {
                client.connection.abort();
                self.close(key);
            }
        }
    }

    pub(super) fn handle_sent(&mut self, key: ClientKey, buffer: Vec<u8>, is_ok: bool) {
        let Some(client) = self.clients.get_mut(key) else { return };
        self.stats.network.sent_bytes += buffer.len() as u64;
        client.is_sending = false;
        client.deadlines.handle_progress(buffer.len() as u64, self.now.monotonic);
        if buffer.capacity() <= SPARE_OUTPUT_BYTES_MAX {
            client.spare_output = buffer;
        }
        if is_ok && client.connection.has_unread() && !client.connection.is_waiting() {
            // What waited for the client to take its answers.
            let rules = self.rules();
            let step = self.after_answer(key, &rules);
            self.follow(key, step);
        } else if is_ok {
            self.pump(key);
        } else {
            client.connection.abort();
            self.close(key);
        }
    }

    /// A part of a request is done; with the last one the request is answered.
    pub(super) fn handle_part_answer(&mut self, answer: PartAnswer) {
        let Some((connection, reply)) = self.ingest.handle_answer(answer) else { return };
        self.answer(ClientKey::from_bits(connection), &reply);
    }

    /// Gives a waiting client its answer and goes on with what it sent meanwhile.
    fn answer(&mut self, key: ClientKey, reply: &Reply) {
        let rules = self.rules();
        // A client that left before its answer: its samples are durable all the same.
        let Some(client) = self.clients.get_mut(key) else { return };
        if !client.connection.is_waiting() {
            return;
        }
        client.connection.answer(reply);
        let step = self.after_answer(key, &rules);
        self.follow(key, step);
    }

    fn after_answer(&mut self, key: ClientKey, rules: &ConnectionRules) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        if self.is_draining {
            client.connection.drain();
        }
        let step = client.connection.handle_unread(rules);
        let is_answered = !client.connection.is_waiting() && !client.connection.has_unread();
        if client.is_half_closed && is_answered {
            client.connection.abort();
        }
        step
    }

    /// Does what the connection came to, until it needs more bytes or waits for an answer.
    fn follow(&mut self, key: ClientKey, step: Step) {
        let mut step = step;
        loop {
            let answer = match step {
                Step::NeedMore | Step::Close => break,
                Step::Ingest(endpoint, encoding) => self.begin_ingest(key, endpoint, encoding),
                Step::Control(request) => self.begin_control(key, *request),
            };
            let Some(answer) = answer else { break };
            let rules = self.rules();
            let Some(client) = self.clients.get_mut(key) else { return };
            client.connection.answer(&answer);
            step = self.after_answer(key, &rules);
        }
        if let Some(client) = self.clients.get_mut(key) {
            self.ingest.count_own_answers(client.connection.take_own_answers());
        }
        self.account(key);
        self.pump(key);
    }

    fn begin_ingest(
        &mut self,
        key: ClientKey,
        endpoint: Endpoint,
        encoding: Encoding,
    ) -> Option<Reply> {
        let refusal = self.refusal();
        let client = self.clients.get_mut(key)?;
        let mut bytes = client.connection.take_body();
        let (index, owner, post) = (self.index, &mut self.owner, &mut self.post);
        let reply = if let Some(reason) = refusal {
            Some(self.ingest.refuse(endpoint, reason, unavailable_text(reason)))
        } else {
            let connection = key.to_bits();
            let body = Body { connection, endpoint, encoding, bytes: &mut bytes };
            self.ingest.begin(self.now, body, |shard, part| {
                if shard == index {
                    owner.handle_part(part);
                } else {
                    post.push(shard, ShardMessage::Part(part));
                }
            })
        };
        client.connection.keep_body(bytes);
        self.move_full_frames();
        reply
    }

    fn begin_control(&mut self, key: ClientKey, request: http::Request<Bytes>) -> Option<Reply> {
        let client = self.clients.get_mut(key)?;
        let (sender, receiver) = flume::bounded(STREAM_PIECES_AHEAD);
        let reply = QueueSender::new(sender, self.ring.waker());
        if self.control.try_send(ControlRequest { request, reply }).is_err() {
            let (reason, text) =
                (Refusal::Overloaded, "cannot ask the control plane: its queue is full");
            return Some(reply_to_body_fault(BodyFault { reason, text }));
        }
        client.stream = Some(receiver);
        self.streaming.push(key);
        None
    }

    /// Takes in what the control plane has answered, as far as clients keep up.
    pub(super) fn pump_streams(&mut self) {
        let mut index = 0;
        while index < self.streaming.len() {
            let key = self.streaming[index];
            if self.pump_stream(key) {
                self.streaming.swap_remove(index);
                let rules = self.rules();
                let step = self.after_answer(key, &rules);
                self.follow(key, step);
            } else {
                self.pump(key);
                index += 1;
            }
        }
    }

    /// Whether the answer is complete, or the client gone.
    fn pump_stream(&mut self, key: ClientKey) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return true };
        let Some(parts) = &client.stream else { return true };
        while client.connection.output_len() < STREAM_OUTPUT_BYTES_MAX {
            match parts.try_recv() {
                Ok(ReplyPart::Head { status, headers }) => {
                    self.ingest.count_control(status);
                    client.connection.begin_stream(status, &headers);
                }
                Ok(ReplyPart::Body(piece)) => client.connection.stream(&piece),
                Ok(ReplyPart::End) => {
                    client.connection.end_stream();
                    client.stream = None;
                    return true;
                }
                Ok(ReplyPart::Failed) | Err(flume::TryRecvError::Disconnected) => {
                    client.connection.abort();
                    client.stream = None;
                    return true;
                }
                Err(flume::TryRecvError::Empty) => return false,
            }
        }
        false
    }

    /// Sends what is to be sent, receives if there is room, closes what is over.
    pub(super) fn pump(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(socket) = &client.socket else { return };
        let token = TokenKind::Client.token(key.to_bits());
        if !client.is_sending && client.connection.output_len() > 0 {
            let memory = std::mem::take(&mut client.spare_output);
            let output = client.connection.take_output(memory);
            self.ring.send(token, socket.as_raw_fd(), output);
            client.is_sending = true;
        }
        if client.connection.is_closing() && !client.is_sending {
            if client.is_half_closed {
                self.close(key);
                return;
            }
            if client.lingers_until.is_none() {
                client.lingers_until = Some(self.now.monotonic + LINGER);
                // It fails only if the peer is gone already, which the receive will tell.
                let _ = socket2::SockRef::from(socket).shutdown(Shutdown::Write);
            }
        }
        let phase = client.connection.phase(client.is_sending);
        client.deadlines.enter(phase, self.now.monotonic);
        if client.connection.is_full() {
            if client.is_receiving {
                self.ring.stop_receive(token);
            }
            client.wants_receive = true;
        } else if client.wants_receive && !client.is_receiving && !client.is_half_closed {
            if self.ring.free_buffers() == 0 {
                client.deadlines.handle_pause(self.now.monotonic);
                self.parked.push(key);
                return;
            }
            client.deadlines.handle_resume(self.now.monotonic);
            self.ring.receive(token, socket.as_raw_fd());
            client.is_receiving = true;
            client.wants_receive = false;
        }
    }

    /// Receives again where buffers were missing.
    pub(super) fn unpark(&mut self) {
        if self.parked.is_empty() || self.ring.free_buffers() == 0 {
            return;
        }
        for key in std::mem::take(&mut self.parked) {
            self.pump(key);
        }
    }

    fn close(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.stream = None;
        self.reading_bytes -= std::mem::take(&mut client.accounted_bytes);
        if let Some(socket) = client.socket.take() {
            self.ring.close(TokenKind::Client.token(key.to_bits()), socket);
        }
    }

    /// Keeps the sum of what connections hold of requests that are not whole yet.
    fn account(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.socket.is_none() {
            return;
        }
        let held_bytes = client.connection.held_bytes();
        self.reading_bytes += held_bytes;
        self.reading_bytes -= std::mem::replace(&mut client.accounted_bytes, held_bytes);
    }

    fn rules(&self) -> ConnectionRules {
        let held_bytes = self.reading_bytes + self.ingest.held_bytes();
        ConnectionRules { is_overloaded: held_bytes > self.request_bytes_max, ..self.rules }
    }

    /// Ends connections that take longer than the deadlines allow.
    pub(super) fn cut_off_slow_clients(&mut self) {
        let now = self.now.monotonic;
        for key in self.clients.keys() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if client.lingers_until.is_some_and(|until| until <= now) {
                self.close(key);
                continue;
            }
            if client.deadlines.is_idle_for(SPARE_MEMORY_KEPT, now) {
                client.connection.free_spare_memory();
            }
            let Some(overdue) = client.deadlines.check(now) else { continue };
            self.stats.network.closed.timeout += 1;
            match overdue {
                Overdue::Refuse(fault) => {
                    client.connection.refuse(fault);
                    self.pump(key);
                }
                Overdue::Close => {
                    client.connection.abort();
                    self.close(key);
                }
            }
        }
    }
}

/// Whether the control plane has said something to one of `streaming` that the client has room for.
pub fn has_stream_to_pump(clients: &Clients, streaming: &[ClientKey]) -> bool {
    streaming.iter().any(|key| {
        let Some(client) = clients.get(*key) else { return true };
        let has_room = client.connection.output_len() < STREAM_OUTPUT_BYTES_MAX;
        let has_news =
            |parts: &flume::Receiver<ReplyPart>| !parts.is_empty() || parts.is_disconnected();
        has_room && client.stream.as_ref().is_none_or(has_news)
    })
}

fn unavailable_text(reason: Refusal) -> &'static str {
    match reason {
        Refusal::Replaying => "cannot take samples yet: the log is being replayed (see /-/ready)",
        Refusal::DiskFull => {
            "cannot take samples: the disk has less room than disk-free-min; make room, or lower it"
        }
        Refusal::NoPlacement => {
            "cannot take samples yet: no node has said yet which nodes there are; see /-/ready"
        }
        Refusal::NotAGateway => {
            "cannot take samples from clients: this is a node; send them to a gateway of its fleet"
        }
        Refusal::LogFailed => "cannot take samples: the log failed; check the disk, then restart",
        _ => "cannot take samples now",
    }
}
