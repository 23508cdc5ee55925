//! DRIVER: a node's answers to the questions that come over its port for reads. The one place where
//! the kinds of questions part.
//!
//! In: a whole frame. Out: frames of the answer, which bear its number, no faster than they are
//! taken. Dropping the future ends the work on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use crate::base::time::monotonic_now;
use crate::control::deletion::Deleter;
use crate::control::gather::{Answers, GatherFault, ask_shards};
use crate::control::reads::lacking::{GONE_AFTER, HeldElsewhere, NewsWithin};
use crate::control::shards::{ShardRequest, Shards};
use crate::node::block::request::StoreHealth;
use crate::node::select::check_matchers;
use crate::wire::delete::{DELETE_SCHEMA, DeleteOutcome, Deletion};
use crate::wire::frame::{
    FRAME_HEADER_BYTES, FrameFault, FrameHeader, FrameKind, Memory, number_frame,
};
use crate::wire::hello::id_space;
use crate::wire::hints::{HintsHeld, Lacking};
use crate::wire::registry::{REGISTRY_PAGE_MAX, RegistryPage, RegistryRequest};
use crate::wire::select::{
    PieceTooLong, SelectAnswer, SelectFault, SelectLayer, SelectRequest, encode_answer, encode_end,
};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node.
    pub node: u128,
    /// Of its ids.
    pub incarnation: u64,
}

/// What bounds the work on questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweringLimits {
    /// Selects at a time, of all gateways together.
    pub selects_max: u32,
    /// How long one waits for its turn before it is told to come again.
    pub wait_max: Duration,
    /// How long gateways may take to come and say what they keep for the node.
    pub news_within: NewsWithin,
}

/// A question that neither a shard nor a block answers.
#[derive(Debug)]
pub struct OtherQuestion {
    /// Of the frame.
    pub header: FrameHeader,
    /// All of it, 16-aligned; the payload is not checked.
    pub frame: Memory,
    /// Has room for the one frame of the answer, which need not bear the number. Dropped without
    /// one: the connection is closed.
    pub reply: flume::Sender<Memory>,
}

/// Answers questions. Cheap to clone.
#[derive(Clone)]
pub struct Answering {
    shards: Shards,
    identity: NodeIdentity,
    limits: AnsweringLimits,
    places: Arc<Semaphore>,
    others: Option<flume::Sender<OtherQuestion>>,
    held: Arc<Mutex<HeldElsewhere>>,
    deleter: Option<Deleter>,
    store: Arc<StoreHealth>,
}

/// A gateway is there that says what it keeps, until this is dropped.
pub struct Meeting {
    held: Arc<Mutex<HeldElsewhere>>,
    /// As it named itself.
    keeper: Option<u128>,
}

impl Drop for Meeting {
    fn drop(&mut self) {
        lock(&self.held).handle_lost(monotonic_now(), self.keeper);
    }
}

/// Why the connection that a question came over is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionFault {
    /// It cannot be read.
    Frame(FrameFault),
    /// Nobody here answers this kind, or not now.
    Unanswered(FrameKind),
}

impl From<FrameFault> for QuestionFault {
    fn from(fault: FrameFault) -> Self {
        Self::Frame(fault)
    }
}

/// Where the frames of an answer go.
pub struct AnswerSender {
    number: u64,
    frames: mpsc::Sender<Memory>,
}

/// Nobody wants the rest of the answer, or there is none.
pub(super) struct Unwanted;

impl AnswerSender {
    /// Frames that answer the question of this number.
    pub fn new(number: u64, frames: mpsc::Sender<Memory>) -> Self {
        Self { number, frames }
    }

    /// Waits for room.
    pub(super) async fn send(&self, frame: Memory) -> Result<(), Unwanted> {
        self.frames.send(frame).await.map_err(|_| Unwanted)
    }
}

impl Answering {
    /// Answers from `shards` and the blocks below them.
    pub fn new(shards: Shards, identity: NodeIdentity, limits: AnsweringLimits) -> Self {
        let places = Arc::new(Semaphore::new(limits.selects_max as usize));
        let held = Arc::new(Mutex::new(HeldElsewhere::new(limits.news_within)));
        let store = Arc::default();
        Self { shards, identity, limits, places, others: None, held, deleter: None, store }
    }

    /// Says of the blocks below what `store` knows.
    pub fn with_store(self, store: Arc<StoreHealth>) -> Self {
        Self { store, ..self }
    }

    /// Questions of other kinds go to `others`, which is bounded: those about placement.
    pub fn with_others(self, others: flume::Sender<OtherQuestion>) -> Self {
        Self { others: Some(others), ..self }
    }

    /// Deletes what gateways ask to be deleted.
    pub fn with_deleter(self, deleter: Deleter) -> Self {
        Self { deleter: Some(deleter), ..self }
    }

    /// A connection says for the first time what its gateway keeps for the node.
    pub fn meet(&self) -> Meeting {
        lock(&self.held).handle_met(monotonic_now());
        Meeting { held: Arc::clone(&self.held), keeper: None }
    }

    /// Takes in what the gateway that was met keeps for the node. At once, as what it says next
    /// replaces this. The answer.
    ///
    /// # Errors
    /// As [`Answering::answer`]; also if it goes by another name than before.
    pub fn hear(
        &self,
        meeting: &mut Meeting,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Memory, QuestionFault> {
        let held = HintsHeld::decode(header, payload)?;
        let before = meeting.keeper.replace(held.keeper);
        let mut elsewhere = lock(&self.held);
        if before.is_none() {
            elsewhere.handle_named(held.keeper);
        } else if before != Some(held.keeper) {
            meeting.keeper = before;
            return Err(QuestionFault::Unanswered(header.kind));
        }
        elsewhere.handle_held(monotonic_now(), &held);
        drop(elsewhere);
        let mut frame = self.lacking().encode_frame();
        number_frame(&mut frame, header.sequence);
        Ok(frame)
    }

    /// What the node lacks, as far as it was told.
    fn lacking(&self) -> Lacking {
        let lost_blocks = u16::try_from(self.store.blocks_lost()).unwrap_or(u16::MAX);
        Lacking { lost_blocks, ..lock(&self.held).lacking(monotonic_now()) }
    }

    /// Answers `frame`, which is whole and has this header.
    ///
    /// # Errors
    /// The connection is to be closed, as the gateway speaks another language.
    pub async fn answer(
        &self,
        header: FrameHeader,
        frame: Memory,
        answers: AnswerSender,
    ) -> Result<(), QuestionFault> {
        let payload = &frame[FRAME_HEADER_BYTES..];
        match header.kind {
            FrameKind::Select => {
                let request = SelectRequest::decode(&header, payload)?;
                // An error says that the gateway has gone: nothing is left to do.
                let _is_gone = self.answer_select(request, &answers).await;
                Ok(())
            }
            FrameKind::RegistryRequest => {
                let request = RegistryRequest::decode(&header, payload)?;
                self.answer_registry(request, &answers).await
            }
            FrameKind::Delete => {
                header.check_schema(DELETE_SCHEMA)?;
                self.answer_delete(Deletion::decode(payload)?, &answers).await
            }
            _ => self.answer_other(header, frame, &answers).await,
        }
    }

    async fn answer_select(
        &self,
        request: SelectRequest,
        answers: &AnswerSender,
    ) -> Result<(), Unwanted> {
        let place = tokio::time::timeout(self.limits.wait_max, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            let text = "cannot answer: the node has as many selects as it takes; ask again";
            return answers.fault(SelectFault::Unavailable(text.into())).await;
        };
        // What arrives from now on may be too late for this answer.
        let before = self.lacking();
        let mut found = match ask_shards(&self.shards, request.into()).await {
            Ok(found) => found,
            Err(fault) => return answers.fault(select_fault(fault)).await,
        };
        loop {
            match found.next().await {
                Ok(Some(answer)) => answers.pass_on(&found, &answer).await?,
                Ok(None) => break,
                Err(fault) => return answers.fault(select_fault(fault)).await,
            }
        }
        let after = self.lacking();
        let lost_blocks = after.lost_blocks;
        let lacking = if before.is_nothing() { after } else { Lacking { lost_blocks, ..before } };
        answers.send(encode_end(answers.number, found.series_count(), lacking)).await
    }

    async fn answer_registry(
        &self,
        request: RegistryRequest,
        answers: &AnswerSender,
    ) -> Result<(), QuestionFault> {
        let unanswered = QuestionFault::Unanswered(FrameKind::RegistryRequest);
        let shard = self.shards.get(request.shard).ok_or(unanswered)?;
        let (reply, pages) = flume::bounded(1);
        let entries_max = request.entries_max.min(PAGE_MAX);
        let asked = ShardRequest::Registry { position: request.position, entries_max, reply };
        shard.push(asked).await.map_err(|_| unanswered)?;
        let slice = pages.recv_async().await.map_err(|_| unanswered)?;
        let NodeIdentity { node, incarnation } = self.identity;
        let space = id_space(node, incarnation, request.shard);
        let mut page = RegistryPage::new(space, request.position);
        for (hash, id) in slice.entries {
            page.push(hash, id);
        }
        let mut frame = page.encode_frame(slice.next_position, slice.is_end);
        number_frame(&mut frame, answers.number);
        let _is_gone = answers.send(frame).await;
        Ok(())
    }

    /// Samples that gateways keep for the node would come back behind a deletion.
    async fn answer_delete(
        &self,
        deletion: Deletion,
        answers: &AnswerSender,
    ) -> Result<(), QuestionFault> {
        let unanswered = QuestionFault::Unanswered(FrameKind::Delete);
        let deleter = self.deleter.as_ref().ok_or(unanswered)?;
        let outcome = match self.refuse_to_delete(&deletion) {
            Some(text) => DeleteOutcome::Refused { text },
            None => match deleter.delete(vec![deletion]).await {
                Ok(()) => DeleteOutcome::Done,
                Err(fault) => DeleteOutcome::Refused { text: fault.to_string() },
            },
        };
        let mut frame = outcome.encode_frame();
        number_frame(&mut frame, answers.number);
        let _is_gone = answers.send(frame).await;
        Ok(())
    }

    fn refuse_to_delete(&self, deletion: &Deletion) -> Option<String> {
        if let Err(fault) = check_matchers(&deletion.matchers) {
            return Some(format!("cannot compile a regular expression: {fault}"));
        }
        let now = monotonic_now();
        let held = lock(&self.held);
        let Lacking { waiting_samples, is_news_awaited, .. } = held.lacking(now);
        if waiting_samples > 0 {
            let named = held.waiting_keepers(now).take(KEEPERS_NAMED_MAX);
            let named: Vec<String> = named.map(|keeper| format!("keeper-{keeper:032x}")).collect();
            return Some(format!(
                "cannot delete while {waiting_samples} samples wait for it at gateways ({}), which \
                 would come back; ask again when they are delivered. What a gateway keeps that \
                 never comes back is forgotten after {} hours",
                named.join(", "),
                GONE_AFTER.as_secs() / 3600
            ));
        }
        is_news_awaited.then(|| {
            "cannot delete yet: it was reached a moment ago, and gateways may keep samples for it, \
             which would come back; ask again in a few seconds"
                .into()
        })
    }

    async fn answer_other(
        &self,
        header: FrameHeader,
        frame: Memory,
        answers: &AnswerSender,
    ) -> Result<(), QuestionFault> {
        let unanswered = QuestionFault::Unanswered(header.kind);
        let others = self.others.as_ref().ok_or(unanswered)?;
        let (reply, replies) = flume::bounded(1);
        let question = OtherQuestion { header, frame, reply };
        others.send_async(question).await.map_err(|_| unanswered)?;
        let mut answer = replies.recv_async().await.map_err(|_| unanswered)?;
        number_frame(&mut answer, answers.number);
        let _is_gone = answers.send(answer).await;
        Ok(())
    }
}

/// Gateways that a refusal names, by the file in their folder of hints.
const KEEPERS_NAMED_MAX: usize = 3;

#[expect(clippy::cast_possible_truncation, reason = "65536")]
const PAGE_MAX: u32 = REGISTRY_PAGE_MAX as u32;

impl AnswerSender {
    async fn pass_on(&self, found: &Answers, answer: &SelectAnswer) -> Result<(), Unwanted> {
        self.piece(found.layer(), answer).await
    }

    async fn fault(&self, fault: SelectFault) -> Result<(), Unwanted> {
        self.piece(SelectLayer::Heads, &SelectAnswer::Fault(fault)).await
    }

    async fn piece(&self, layer: SelectLayer, answer: &SelectAnswer) -> Result<(), Unwanted> {
        let (frames, is_cut) = match encode_answer(self.number, layer, answer) {
            Ok(frames) => (frames, false),
            Err(PieceTooLong { len_bytes, len_bytes_max }) => {
                let text = format!(
                    "cannot send a chunk with labels of {len_bytes} bytes: {len_bytes_max} fit"
                );
                let fault = SelectAnswer::Fault(SelectFault::Unavailable(text));
                let frames = encode_answer(self.number, layer, &fault);
                (frames.expect("a fault is short"), true)
            }
        };
        for frame in frames {
            self.send(frame).await?;
        }
        if is_cut { Err(Unwanted) } else { Ok(()) }
    }
}

fn lock(held: &Mutex<HeldElsewhere>) -> MutexGuard<'_, HeldElsewhere> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn select_fault(fault: GatherFault) -> SelectFault {
    match fault {
        GatherFault::BadRegex(text) => SelectFault::BadRegex(text),
        GatherFault::TooManySeries { series_max } => SelectFault::TooManySeries { series_max },
        GatherFault::Disk(text) => SelectFault::Disk(text),
        GatherFault::ShardGone => SelectFault::Unavailable(
            "cannot answer: a shard of the node is replaying its log, or has ended".into(),
        ),
        GatherFault::TooManySamples
        | GatherFault::Chunk(_)
        | GatherFault::Nobody(_)
        | GatherFault::Incomplete(_) => {
            SelectFault::Unavailable(format!("cannot answer: {fault:?}"))
        }
    }
}
