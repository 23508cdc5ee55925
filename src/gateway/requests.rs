//! The shard that received a request: what it still waits for, and the outcome once every part has
//! answered.
//!
//! In: decoded requests and the answers of their parts. Out: an outcome per request, exactly once.
//! Keys carry a generation, so an answer can never reach a later request in the same place.

use crate::gateway::endpoint::Endpoint;
use crate::gateway::part::{PartAnswer, RequestKey};
use crate::gateway::reply::{self, FirstRefusal, Position, Reply};
use crate::gateway::request::{DecodedRequest, IgnoredCounts, RequestBytes, SeriesBatch};
use crate::model::refusal::{Refusal, RefusalCounts};
use std::sync::Arc;

/// Column sets and request buffers kept for later requests; more are freed.
const SPARES_MAX: usize = 16;
/// A larger spare buffer is freed rather than kept: one huge request must not pin its memory.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// The requests that one shard received and has not answered.
pub struct Requests {
    shard: u32,
    places: Vec<Place>,
    free: Vec<u32>,
    spare_batches: Vec<SeriesBatch>,
    spare_bytes: Vec<Arc<RequestBytes>>,
    held_bytes: u64,
}

#[derive(Default)]
struct Place {
    generation: u32,
    parts_left: u32,
    open: Option<OpenRequest>,
}

struct OpenRequest {
    connection: u64,
    outcome: Outcome,
    bytes: Arc<RequestBytes>,
    held_bytes: u64,
}

/// What became of a request's samples: the input of the answer's text.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// By which way it came.
    pub endpoint: Endpoint,
    /// Samples that are durable.
    pub written: u64,
    /// Samples that are not, by reason.
    pub refused: RefusalCounts,
    /// The first refusal, and where: a body offset or a line number, if the decoder refused it.
    pub first_refusal: Option<(Refusal, Option<u64>)>,
    /// Lines refused whole, and the first three of them.
    pub failed_lines: u64,
    /// Cut at 200 bytes each.
    pub failed_line_texts: Vec<String>,
    /// Understood, and not stored yet.
    pub ignored: IgnoredCounts,
}

impl Outcome {
    /// An outcome that holds what the decoder counted; the parts' answers follow.
    pub fn of_decoded(endpoint: Endpoint, decoded: &mut DecodedRequest) -> Self {
        Self {
            endpoint,
            written: decoded.samples,
            refused: decoded.refused,
            first_refusal: decoded.first_refusal.map(|(reason, at)| (reason, Some(at))),
            failed_lines: decoded.failed_lines,
            failed_line_texts: std::mem::take(&mut decoded.failed_line_texts),
            ignored: decoded.ignored,
        }
    }
}

impl Outcome {
    /// The answer that says so.
    pub fn reply(&self) -> Reply {
        let first_refusal = self.first_refusal.map(|(reason, position)| FirstRefusal {
            reason,
            position: position.map(|at| Position::decoded(self.endpoint, at)),
            series: None,
        });
        reply::reply_to(&reply::Outcome {
            endpoint: self.endpoint,
            written: self.written,
            refused: self.refused,
            first_refusal,
            failed_lines: self.failed_lines,
            failed_line_texts: &self.failed_line_texts,
            body_fault: None,
        })
    }
}

impl Requests {
    /// No requests yet, on `shard`.
    pub fn new(shard: u32) -> Self {
        Self {
            shard,
            places: Vec::new(),
            free: Vec::new(),
            spare_batches: Vec::new(),
            spare_bytes: Vec::new(),
            held_bytes: 0,
        }
    }

    /// Opens a request of `connection` that waits for `parts` answers (at least one).
    pub fn open(
        &mut self,
        connection: u64,
        outcome: Outcome,
        bytes: Arc<RequestBytes>,
        parts: u32,
    ) -> RequestKey {
        assert!(parts > 0);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("fewer requests than connections")
        });
        let place = &mut self.places[slot as usize];
        place.parts_left = parts;
        // Samples take 20 bytes in a frame besides the request's own; columns and log buffers are
        // as much again.
        let held_bytes = bytes.memory_bytes() as u64 + outcome.written * 48;
        self.held_bytes += held_bytes;
        place.open = Some(OpenRequest { connection, outcome, bytes, held_bytes });
        RequestKey { shard: self.shard, slot, generation: place.generation }
    }

    /// Takes in the answer of a part; the last one gives the connection and its outcome.
    pub fn handle_answer(&mut self, answer: PartAnswer) -> Option<(u64, Outcome)> {
        let PartAnswer { request, refused, first_refusal, batch } = answer;
        assert!(request.shard == self.shard);
        self.keep_batch(batch);
        let place = &mut self.places[request.slot as usize];
        assert!(place.generation == request.generation, "a request ends with its last part");
        let open = place.open.as_mut().expect("open until its last part");
        open.outcome.written -= refused.total();
        open.outcome.refused.merge(&refused);
        if let (None, Some(reason)) = (open.outcome.first_refusal, first_refusal) {
            open.outcome.first_refusal = Some((reason, None));
        }
        place.parts_left -= 1;
        if place.parts_left > 0 {
            return None;
        }
        place.generation = place.generation.wrapping_add(1);
        let open = place.open.take().expect("checked above");
        let OpenRequest { connection, outcome, bytes, held_bytes } = open;
        self.held_bytes -= held_bytes;
        self.free.push(request.slot);
        self.keep_bytes(bytes);
        Some((connection, outcome))
    }

    /// Requests without an answer.
    pub fn open_count(&self) -> u64 {
        (self.places.len() - self.free.len()) as u64
    }

    /// Memory of the requests without an answer, theirs in frames included.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// An empty set of columns, used before if there is one.
    pub fn take_batch(&mut self) -> SeriesBatch {
        self.spare_batches.pop().unwrap_or_default()
    }

    /// Empty buffers for a request, which nobody else holds.
    pub fn take_bytes(&mut self) -> Arc<RequestBytes> {
        self.spare_bytes.pop().unwrap_or_default()
    }

    /// Keeps columns for a later request.
    pub fn keep_batch(&mut self, mut batch: SeriesBatch) {
        if self.spare_batches.len() < SPARES_MAX && batch.memory_bytes() <= SPARE_BYTES_MAX {
            batch.clear();
            self.spare_batches.push(batch);
        }
    }

    /// Keeps a request's buffers for a later one, unless another shard still holds them.
    pub fn keep_bytes(&mut self, mut bytes: Arc<RequestBytes>) {
        if self.spare_bytes.len() >= SPARES_MAX {
            return;
        }
        if let Some(own) = Arc::get_mut(&mut bytes)
            && own.memory_bytes() <= SPARE_BYTES_MAX
        {
            own.labels.clear();
            self.spare_bytes.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(written: u64) -> Outcome {
        let mut decoded = DecodedRequest::new(1);
        decoded.samples = written;
        Outcome::of_decoded(Endpoint::RemoteWriteV1, &mut decoded)
    }

    fn answer(request: RequestKey, refused: u64) -> PartAnswer {
        let mut counts = RefusalCounts::default();
        counts.add(Refusal::TooOld, refused);
        let first_refusal = (refused > 0).then_some(Refusal::TooOld);
        PartAnswer { request, refused: counts, first_refusal, batch: SeriesBatch::default() }
    }

    #[test]
    fn the_last_part_answers() {
        let mut requests = Requests::new(0);
        let key = requests.open(77, outcome(10), Arc::default(), 2);
        assert!(requests.handle_answer(answer(key, 3)).is_none());
        let (connection, outcome) = requests.handle_answer(answer(key, 1)).expect("the last");
        assert_eq!((connection, outcome.written, outcome.refused.total()), (77, 6, 4));
        assert_eq!(outcome.first_refusal, Some((Refusal::TooOld, None)));
        assert_eq!(requests.open_count(), 0);
    }

    #[test]
    #[should_panic(expected = "a request ends with its last part")]
    fn a_late_answer_never_reaches_the_next_request() {
        let mut requests = Requests::new(0);
        let first = requests.open(1, outcome(1), Arc::default(), 1);
        requests.handle_answer(answer(first, 0)).expect("answered");
        requests.open(2, outcome(1), Arc::default(), 1);
        requests.handle_answer(answer(first, 0));
    }

    #[test]
    fn shared_buffers_are_not_reused() {
        let mut requests = Requests::new(0);
        let bytes = requests.take_bytes();
        let held = Arc::clone(&bytes);
        requests.keep_bytes(bytes);
        assert!(requests.spare_bytes.is_empty());
        requests.keep_bytes(held);
        assert_eq!(requests.spare_bytes.len(), 1);
    }
}
