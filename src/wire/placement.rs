//! Placement: what nodes are asked about documents, and what they say, as frames. The meaning is in
//! `model/placement/agreement`.
//!
//! Rare and small, so read by copying. A document travels as its JSON text, at most
//! [`DOCUMENT_BYTES_MAX`] each; several of them in one answer are cut to fit a frame. A document
//! that cannot be read (of a newer program, say) is not the link's fault: it is told apart from
//! frames that cannot.

use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};

use crate::model::placement::agreement::{
    Answer, Ballot, DOCUMENTS_BYTES_MAX, Learned, Request, Vote,
};
use crate::model::placement::{
    DOCUMENT_BYTES_MAX, DocumentFault, EPOCHS_MAX, PlacementDocument, TEXT_BYTES_MAX,
};
use crate::wire::frame::{
    FRAME_BYTES_MAX, FrameFault, FrameHeader, FrameKind, Memory, decode_control, encode_control,
};

/// The version of the payloads in this file.
pub const PLACEMENT_SCHEMA: u16 = 1;
/// Longest text of [`Answer::Failed`]; the rest is cut.
pub const FAILED_TEXT_BYTES_MAX: usize = 4 << 10;

// An answer of documents, or a vote, always fits.
const _: () = assert!(DOCUMENTS_BYTES_MAX + (EPOCHS_MAX + 1) * 64 + 4096 <= FRAME_BYTES_MAX);
const _: () = assert!(DOCUMENT_BYTES_MAX + 4096 <= FRAME_BYTES_MAX);

#[derive(Archive, Serialize, Deserialize)]
enum RequestBody {
    Read { from_epoch: u64 },
    Prepare { epoch: u64, ballot: BallotBody },
    Accept { ballot: BallotBody, document: String },
    Commit { document: String },
}

#[derive(Archive, Serialize, Deserialize)]
enum AnswerBody {
    Documents {
        newest_epoch: u64,
        documents: Vec<LearnedBody>,
        zone: Option<String>,
    },
    Promised {
        epoch: u64,
        ballot: BallotBody,
        vote: Option<VoteBody>,
    },
    Accepted {
        epoch: u64,
        ballot: BallotBody,
    },
    Outbid {
        epoch: u64,
        promised: BallotBody,
    },
    Ahead {
        newest: String,
    },
    Behind {
        newest_epoch: u64,
    },
    Committed {
        newest_epoch: u64,
    },
    Failed {
        text: String,
    },
    /// `Documents` of a node that has a group.
    GroupedDocuments {
        newest_epoch: u64,
        documents: Vec<LearnedBody>,
        zone: Option<String>,
        group: String,
    },
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy)]
struct BallotBody {
    round: u64,
    proposer: u128,
}

#[derive(Archive, Serialize, Deserialize)]
struct LearnedBody {
    learned_ms: i64,
    document: String,
}

#[derive(Archive, Serialize, Deserialize)]
struct VoteBody {
    ballot: BallotBody,
    document: String,
}

impl Request {
    /// Its frame, without a number yet.
    pub fn encode_frame(&self) -> Memory {
        let request = match self {
            Self::Read { from_epoch } => RequestBody::Read { from_epoch: *from_epoch },
            Self::Prepare { epoch, ballot } => {
                RequestBody::Prepare { epoch: *epoch, ballot: (*ballot).into() }
            }
            Self::Accept { ballot, document } => {
                RequestBody::Accept { ballot: (*ballot).into(), document: document.encode() }
            }
            Self::Commit { document } => RequestBody::Commit { document: document.encode() },
        };
        encode_control(FrameKind::PlacementRequest, PLACEMENT_SCHEMA, &request)
    }

    /// Reads a payload, which is 16-aligned: the request, or what is wrong with its document.
    pub fn decode(
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Result<Self, DocumentFault>, FrameFault> {
        let request = match decode_control(header, PLACEMENT_SCHEMA, payload)? {
            RequestBody::Read { from_epoch } => Ok(Self::Read { from_epoch }),
            RequestBody::Prepare { epoch, ballot } => {
                Ok(Self::Prepare { epoch, ballot: ballot.into() })
            }
            RequestBody::Accept { ballot, document } => {
                read(&document).map(|document| Self::Accept { ballot: ballot.into(), document })
            }
            RequestBody::Commit { document } => {
                read(&document).map(|document| Self::Commit { document })
            }
        };
        Ok(request)
    }
}

impl Answer {
    /// Its frame, without the number of the request yet.
    pub fn encode_frame(&self) -> Memory {
        let answer = match self {
            Self::Documents { newest_epoch, documents, zone, group } => {
                let newest_epoch = *newest_epoch;
                let documents = documents.iter().map(LearnedBody::from).collect();
                let zone = zone.clone();
                match group.clone() {
                    None => AnswerBody::Documents { newest_epoch, documents, zone },
                    Some(group) => {
                        AnswerBody::GroupedDocuments { newest_epoch, documents, zone, group }
                    }
                }
            }
            Self::Promised { epoch, ballot, vote } => AnswerBody::Promised {
                epoch: *epoch,
                ballot: (*ballot).into(),
                vote: vote.as_ref().map(|vote| VoteBody {
                    ballot: vote.ballot.into(),
                    document: vote.document.encode(),
                }),
            },
            Self::Accepted { epoch, ballot } => {
                AnswerBody::Accepted { epoch: *epoch, ballot: (*ballot).into() }
            }
            Self::Outbid { epoch, promised } => {
                AnswerBody::Outbid { epoch: *epoch, promised: (*promised).into() }
            }
            Self::Ahead { newest } => AnswerBody::Ahead { newest: newest.encode() },
            Self::Behind { newest_epoch } => AnswerBody::Behind { newest_epoch: *newest_epoch },
            Self::Committed { newest_epoch } => {
                AnswerBody::Committed { newest_epoch: *newest_epoch }
            }
            Self::Failed { text } => AnswerBody::Failed { text: cut(text) },
        };
        encode_control(FrameKind::PlacementAnswer, PLACEMENT_SCHEMA, &answer)
    }

    /// Reads a payload, which is 16-aligned: the answer, or what is wrong with one of its
    /// documents.
    pub fn decode(
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Result<Self, DocumentFault>, FrameFault> {
        let answer = match decode_control(header, PLACEMENT_SCHEMA, payload)? {
            AnswerBody::Documents { newest_epoch, documents, zone } => {
                read_documents(newest_epoch, &documents, (zone, None))?
            }
            AnswerBody::GroupedDocuments { newest_epoch, documents, zone, group } => {
                read_documents(newest_epoch, &documents, (zone, Some(group)))?
            }
            AnswerBody::Promised { epoch, ballot, vote } => {
                let vote = vote.map(|vote| {
                    let document = read(&vote.document)?;
                    Ok(Vote { ballot: vote.ballot.into(), document })
                });
                let promised = |vote| Self::Promised { epoch, ballot: ballot.into(), vote };
                vote.transpose().map(promised)
            }
            AnswerBody::Accepted { epoch, ballot } => {
                Ok(Self::Accepted { epoch, ballot: ballot.into() })
            }
            AnswerBody::Outbid { epoch, promised } => {
                Ok(Self::Outbid { epoch, promised: promised.into() })
            }
            AnswerBody::Ahead { newest } => read(&newest).map(|newest| Self::Ahead { newest }),
            AnswerBody::Behind { newest_epoch } => Ok(Self::Behind { newest_epoch }),
            AnswerBody::Committed { newest_epoch } => Ok(Self::Committed { newest_epoch }),
            AnswerBody::Failed { text } => Ok(Self::Failed { text: cut(&text) }),
        };
        Ok(answer)
    }
}

impl From<Ballot> for BallotBody {
    fn from(Ballot { round, proposer }: Ballot) -> Self {
        Self { round, proposer }
    }
}

impl From<BallotBody> for Ballot {
    fn from(BallotBody { round, proposer }: BallotBody) -> Self {
        Self { round, proposer }
    }
}

impl From<&Learned> for LearnedBody {
    fn from(Learned { document, learned_ms }: &Learned) -> Self {
        Self { learned_ms: *learned_ms, document: document.encode() }
    }
}

fn read_documents(
    newest_epoch: u64,
    documents: &[LearnedBody],
    (zone, group): (Option<String>, Option<String>),
) -> Result<Result<Answer, DocumentFault>, FrameFault> {
    let is_short =
        |name: &Option<String>| name.as_ref().is_none_or(|name| name.len() <= TEXT_BYTES_MAX);
    if documents.len() > EPOCHS_MAX || !is_short(&zone) || !is_short(&group) {
        return Err(FrameFault::BadPayload);
    }
    // A time before the start says nothing: [`Learned::at`].
    let learned = |body: &LearnedBody| Ok(Learned::at(read(&body.document)?, body.learned_ms));
    let documents: Result<_, _> = documents.iter().map(learned).collect();
    Ok(documents.map(|documents| Answer::Documents { newest_epoch, documents, zone, group }))
}

/// Checked whole; a text that is too long is a fault like others.
fn read(text: &str) -> Result<Arc<PlacementDocument>, DocumentFault> {
    PlacementDocument::decode(text).map(Arc::new)
}

fn cut(text: &str) -> String {
    let mut text = text.to_owned();
    while text.len() > FAILED_TEXT_BYTES_MAX {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::placement::{NodeId, PlacedNode, Strategy};
    use crate::wire::frame::FRAME_HEADER_BYTES;
    use crate::wire::golden::check_control_frame;

    fn document(epoch: u64) -> Arc<PlacementDocument> {
        let zone = Some("east".to_owned());
        let node = PlacedNode { zone, ..PlacedNode::new(NodeId(7), "node-7:9428", 2) };
        let strategy = Strategy::Hash {};
        let nodes = vec![node];
        Arc::new(PlacementDocument { epoch, start_ms: 5, replication: 1, strategy, nodes })
    }

    const BALLOT: Ballot = Ballot { round: 3, proposer: 9 << 100 };

    #[test]
    fn requests_round_trip_in_frozen_bytes() {
        #[track_caller]
        fn check(name: &str, request: Request) {
            let frame = request.encode_frame();
            let name = format!("placement_{name}");
            check_control_frame(&name, &frame, &Ok(request), Request::decode);
        }
        check("read", Request::Read { from_epoch: 4 });
        check("prepare", Request::Prepare { epoch: 5, ballot: BALLOT });
        check("accept", Request::Accept { ballot: BALLOT, document: document(5) });
        check("commit", Request::Commit { document: document(5) });
    }

    #[test]
    fn answers_round_trip_in_frozen_bytes() {
        #[track_caller]
        fn check(name: &str, answer: Answer) {
            let frame = answer.encode_frame();
            let name = format!("placement_{name}");
            check_control_frame(&name, &frame, &Ok(answer), Answer::decode);
        }
        let learned = |epoch, learned_ms| Learned { document: document(epoch), learned_ms };
        let (zone, documents) = (Some("east".to_owned()), vec![learned(4, 5), learned(5, 77)]);
        let of = |zone, group| {
            let documents = documents.clone();
            Answer::Documents { newest_epoch: 5, documents, zone, group }
        };
        check("documents", of(zone.clone(), None));
        check("grouped_documents", of(zone, Some("payments".to_owned())));
        let vote = Some(Vote { ballot: BALLOT, document: document(5) });
        check("promised", Answer::Promised { epoch: 5, ballot: BALLOT, vote });
        check("accepted", Answer::Accepted { epoch: 5, ballot: BALLOT });
        check("outbid", Answer::Outbid { epoch: 5, promised: BALLOT });
        check("ahead", Answer::Ahead { newest: document(5) });
        check("behind", Answer::Behind { newest_epoch: 3 });
        check("committed", Answer::Committed { newest_epoch: 5 });
        check("failed", Answer::Failed { text: "cannot vote".into() });
    }

    #[test]
    fn a_document_that_cannot_be_read_is_told_apart() {
        // Red if it ends the link as a bad frame: then nobody could say what is wrong.
        let newer = document(5).encode().replace("\"version\":1", "\"version\":2");
        let request = RequestBody::Commit { document: newer };
        let frame = encode_control(FrameKind::PlacementRequest, PLACEMENT_SCHEMA, &request);
        let header = crate::wire::frame::check_frame(&frame).expect("sealed");
        let request = Request::decode(&header, &frame[FRAME_HEADER_BYTES..]).expect("a good frame");
        let fault = request.expect_err("it is newer").to_string();
        assert!(fault.contains("version 2, and this program knows 1"), "{fault}");
        // Red if it is not cut.
        let text = "é".repeat(FAILED_TEXT_BYTES_MAX);
        assert!(Answer::Failed { text }.encode_frame().len() < FAILED_TEXT_BYTES_MAX + 200);
    }
}
