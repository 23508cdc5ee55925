//! A whole ingest body -> parts for the shards that own its series, or an answer at once. No I/O.
//!
//! Decompress, decode, split by owner: all on the shard that received the request, into memory that
//! is used again.
//! Not here: what owners do with parts (`gateway::owner`), the answer's text (`gateway::reply`).

use crate::base::time::Now;
use crate::control::report::{RequestCounts, RequestKind, SampleCounts};
use crate::gateway::decode::remote_write_v1::RemoteWriteDecoder;
use crate::gateway::decode::vm_json::VmJsonDecoder;
use crate::gateway::decode::{DecodeError, DecodeRules};
use crate::gateway::decompress::{DecompressError, Decompressor};
use crate::gateway::endpoint::{Encoding, Endpoint};
use crate::gateway::part::{Lateness, Part, PartAnswer};
use crate::gateway::reply::{BodyFault, Reply, reply_to_body_fault};
use crate::gateway::request::{DecodedRequest, IgnoredCounts, RequestBytes};
use crate::gateway::requests::{Outcome, Requests};
use crate::model::refusal::{Refusal, RefusalCounts};
use crate::model::series::TenantId;
use crate::server::connection::OwnAnswers;
use crate::server::rules::IngestLimits;
use std::sync::Arc;

/// The ingest of one shard: decoders, their memory, and the requests under way.
pub struct Ingest {
    limits: IngestLimits,
    requests: Requests,
    decoded: DecodedRequest,
    decompressor: Decompressor,
    remote_write: RemoteWriteDecoder,
    vm_json: VmJsonDecoder,
    stats: IngestStats,
}

/// What came in and what became of it, since the start.
#[derive(Clone, Debug, Default)]
pub struct IngestStats {
    /// Requests answered.
    pub requests: RequestCounts,
    /// Samples of each endpoint.
    pub samples: [SampleCounts; 2],
    /// Samples that did not make it.
    pub refused: RefusalCounts,
    /// Understood and not stored.
    pub ignored: IgnoredCounts,
}

/// Why a body came to nothing.
#[derive(Clone, Copy, Debug)]
enum UnpackFault {
    Compression(DecompressError),
    Decode(DecodeError),
}

/// A whole request body and where it came from.
pub struct Body<'a> {
    /// Who is answered.
    pub connection: u64,
    /// By which way it came.
    pub endpoint: Endpoint,
    /// What it is packed with.
    pub encoding: Encoding,
    /// As received. Left empty or with memory to use again.
    pub bytes: &'a mut Vec<u8>,
}

impl Ingest {
    /// The ingest of `shard` among `shard_count`.
    pub fn new(shard: u32, shard_count: u32, limits: IngestLimits) -> Self {
        Self {
            limits,
            requests: Requests::new(shard),
            decoded: DecodedRequest::new(shard_count),
            decompressor: Decompressor::default(),
            remote_write: RemoteWriteDecoder::default(),
            vm_json: VmJsonDecoder::default(),
            stats: IngestStats::default(),
        }
    }

    /// Takes in a body: either it is answered at once, or its parts go to `send`, one per shard
    /// that owns some of it.
    pub fn begin(
        &mut self,
        now: Now,
        body: Body<'_>,
        mut send: impl FnMut(u32, Part),
    ) -> Option<Reply> {
        let Body { connection, endpoint, encoding, bytes: received } = body;
        let mut bytes = self.requests.take_bytes();
        let own = Arc::get_mut(&mut bytes).expect("spare buffers belong to nobody else");
        if let Err(fault) = self.unpack(now, endpoint, (encoding, received), own) {
            self.requests.keep_bytes(bytes);
            return Some(self.refuse_body(endpoint, fault));
        }
        let received = self.decoded.samples + self.decoded.refused.total();
        self.stats.samples[endpoint as usize].received += received;
        let parts = self.decoded.batches.iter().filter(|batch| !batch.is_empty()).count();
        let outcome = Outcome::of_decoded(endpoint, &mut self.decoded);
        if parts == 0 {
            self.requests.keep_bytes(bytes);
            return Some(self.finish(&outcome));
        }
        let parts = u32::try_from(parts).expect("one per shard at most");
        let lateness = match endpoint {
            Endpoint::VmJson if self.limits.allow_backfill => Lateness::Backfill,
            Endpoint::VmJson | Endpoint::RemoteWriteV1 => Lateness::Window,
        };
        let request = self.requests.open(connection, outcome, Arc::clone(&bytes), parts);
        for (shard, batch) in (0u32..).zip(&mut self.decoded.batches) {
            if !batch.is_empty() {
                let batch = std::mem::replace(batch, self.requests.take_batch());
                let tenant = TenantId::default();
                let bytes = Arc::clone(&bytes);
                send(shard, Part { request, tenant, lateness, batch, bytes });
            }
        }
        None
    }

    /// Takes in a part's answer: the last one gives the connection and its reply.
    pub fn handle_answer(&mut self, answer: PartAnswer) -> Option<(u64, Reply)> {
        let (connection, outcome) = self.requests.handle_answer(answer)?;
        Some((connection, self.finish(&outcome)))
    }

    /// Requests without an answer.
    pub fn open_count(&self) -> u64 {
        self.requests.open_count()
    }

    /// Bytes that the requests without an answer hold.
    pub fn held_bytes(&self) -> u64 {
        self.requests.held_bytes()
    }

    /// What came in so far.
    pub fn stats(&self) -> &IngestStats {
        &self.stats
    }

    /// Refuses a request before its body is decoded.
    pub fn refuse(&mut self, endpoint: Endpoint, reason: Refusal, text: &str) -> Reply {
        // How many samples it would have held is not known: the request counts as one.
        self.stats.refused.add(reason, 1);
        let reply = reply_to_body_fault(BodyFault { reason, text });
        self.stats.requests.add(request_kind(endpoint), reply.status);
        reply
    }

    /// Counts what a connection answered by itself. A refused request counts as one sample: how
    /// many
    /// it held is not known.
    pub fn count_own_answers(&mut self, answers: OwnAnswers) {
        let counts = [
            (RequestKind::Ingest, 415, answers.refused_heads),
            (RequestKind::Ingest, 204, answers.options),
            (RequestKind::Ingest, 503, answers.overloaded),
            (RequestKind::Unknown, 400, answers.faults),
        ];
        for (kind, status, count) in counts {
            for _ in 0..count {
                self.stats.requests.add(kind, status);
            }
        }
        self.stats.refused.add(Refusal::Overloaded, u64::from(answers.overloaded));
        self.stats.refused.add(Refusal::WrongHeaders, u64::from(answers.refused_heads));
    }

    /// Counts an answer of the control plane.
    pub fn count_control(&mut self, status: u16) {
        self.stats.requests.add(RequestKind::Control, status);
    }

    fn unpack(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        (encoding, received): (Encoding, &mut Vec<u8>),
        bytes: &mut RequestBytes,
    ) -> Result<(), UnpackFault> {
        let limit = usize::try_from(self.limits.body_bytes_max).unwrap_or(usize::MAX);
        let unpack = &mut self.decompressor;
        match encoding {
            Encoding::Identity => {
                std::mem::swap(received, &mut bytes.body);
                Ok(())
            }
            Encoding::Snappy => unpack.snappy_block(received, &mut bytes.body, limit),
            Encoding::Gzip => unpack.gzip(received, &mut bytes.body, limit),
            Encoding::Zlib => unpack.zlib(received, &mut bytes.body, limit),
        }
        .map_err(UnpackFault::Compression)?;
        let rules = DecodeRules {
            tenant: TenantId::default(),
            timestamp_ms_max: now.unix_ms.saturating_add(self.limits.future_window_ms),
            samples_max: self.limits.samples_max,
        };
        match endpoint {
            Endpoint::RemoteWriteV1 => self.remote_write.decode(&rules, bytes, &mut self.decoded),
            Endpoint::VmJson => self.vm_json.decode(&rules, bytes, &mut self.decoded),
        }
        .map_err(UnpackFault::Decode)
    }

    fn refuse_body(&mut self, endpoint: Endpoint, fault: UnpackFault) -> Reply {
        let (reason, text) = match fault {
            UnpackFault::Compression(fault) => (fault.refusal(), fault.to_string()),
            UnpackFault::Decode(fault) => (fault.refusal(), fault.to_string()),
        };
        self.refuse(endpoint, reason, &text)
    }

    fn finish(&mut self, outcome: &Outcome) -> Reply {
        self.stats.samples[outcome.endpoint as usize].accepted += outcome.written;
        self.stats.refused.merge(&outcome.refused);
        self.stats.ignored.exemplars += outcome.ignored.exemplars;
        self.stats.ignored.metadata += outcome.ignored.metadata;
        self.stats.ignored.histograms += outcome.ignored.histograms;
        let reply = outcome.reply();
        self.stats.requests.add(request_kind(outcome.endpoint), reply.status);
        reply
    }
}

fn request_kind(endpoint: Endpoint) -> RequestKind {
    match endpoint {
        Endpoint::RemoteWriteV1 => RequestKind::RemoteWrite,
        Endpoint::VmJson => RequestKind::VmJson,
    }
}
