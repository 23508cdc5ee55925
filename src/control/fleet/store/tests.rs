//! A node's placement over restarts and damage.

#![cfg(test)]

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::placement::{EPOCHS_MAX, PlacedNode, Strategy};
use crate::wire::frame::{FRAME_HEADER_BYTES, check_frame};

const NODE: NodeId = NodeId(7);

fn document(epoch: u64) -> Arc<PlacementDocument> {
    let nodes = vec![PlacedNode::new(NODE, "node-7:9428", 2)];
    let strategy = Strategy::Hash {};
    Arc::new(PlacementDocument { epoch, start_ms: 5, replication: 1, strategy, nodes })
}

fn open(data: &Path) -> Result<NodePlacement, PlacementFault> {
    NodePlacement::open(data, NODE, Some("east".into()))
}

const BALLOT: Ballot = Ballot { round: 4, proposer: 99 };

/// A folder of a node that follows two epochs and has voted on a third.
fn voted() -> tempfile::TempDir {
    let data = tempfile::tempdir().expect("a folder");
    let placement = open(data.path()).expect("an empty folder");
    for epoch in [1, 2] {
        let commit = Request::Commit { document: document(epoch) };
        assert_eq!(placement.handle_request(&commit), Answer::Committed { newest_epoch: epoch });
    }
    let accept = Request::Accept { ballot: BALLOT, document: document(3) };
    let answer = placement.handle_request(&accept);
    assert_eq!(answer, Answer::Accepted { epoch: 3, ballot: BALLOT });
    data
}

#[test]
fn what_was_said_holds_after_a_restart() {
    // Red if `save` writes nothing, or `open` does not read one of the kinds of files.
    let before_ms = unix_now_ms();
    let data = voted();
    let after_ms = unix_now_ms();
    std::fs::write(data.path().join("placement/epoch-9.json.tmp"), "half").expect("a file");
    let placement = open(data.path()).expect("what was written");
    assert!(!data.path().join("placement/epoch-9.json.tmp").exists(), "remains stay");
    assert_eq!(*placement.epoch().borrow(), 2);
    assert_eq!(placement.newest(), Some(document(2)));
    let higher = Ballot { round: 5, proposer: 1 };
    let vote = Some(Vote { ballot: BALLOT, document: document(3) });
    assert_eq!(
        placement.handle_request(&Request::Prepare { epoch: 3, ballot: higher }),
        Answer::Promised { epoch: 3, ballot: higher, vote }
    );
    let documents = read_all(&placement);
    let known: Vec<_> = documents.iter().map(|each| Arc::clone(&each.document)).collect();
    assert_eq!(known, [document(1), document(2)]);
    // Red if the time when it was told is not kept, or is that of the restart.
    assert_eq!(read_all(&open(data.path()).expect("again")), documents);
    assert!(documents.iter().all(|each| (before_ms..=after_ms).contains(&each.learned_ms)));
}

#[test]
fn a_document_of_which_no_time_was_kept_counts_from_its_start() {
    // Red if a file of a program that kept no time stops the start.
    let data = voted();
    let path = data.path().join(PLACEMENT_NAME).join(epoch_name(1));
    std::fs::write(path, seal_content(&document(1).encode())).expect("a file");
    let documents = read_all(&open(data.path()).expect("what was written"));
    assert_eq!(documents[0], Learned { document: document(1), learned_ms: 5 });
}

fn read_all(placement: &NodePlacement) -> Vec<Learned> {
    match placement.handle_request(&Request::Read { from_epoch: 0 }) {
        Answer::Documents { newest_epoch: 2, documents, zone: Some(zone), group: None }
            if zone == "east" =>
        {
            documents
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_is_found_and_says_what_to_do() {
    let data = voted();
    let folder = data.path().join(PLACEMENT_NAME);
    for (name, want) in [
        (epoch_name(1), "Delete it: a gateway brings it back"),
        (AGREEMENT_NAME.into(), "no `tidegate cluster` command is under way"),
    ] {
        let path = folder.join(name);
        let good = std::fs::read(&path).expect("a file");
        // Red if the checksum is not compared.
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            std::fs::write(&path, &bad).expect("a file");
            let fault = open(data.path()).expect_err("it is damaged").to_string();
            assert!(fault.contains(want), "byte {at}: {fault}");
        }
        std::fs::write(&path, &good).expect("a file");
        open(data.path()).expect("whole again");
    }
    // Red if the name is believed.
    std::fs::rename(folder.join(epoch_name(2)), folder.join(epoch_name(5))).expect("renamed");
    assert!(matches!(open(data.path()), Err(PlacementFault::Damaged { .. })));
}

#[test]
fn what_cannot_be_saved_is_not_said() {
    // Red if the answer does not wait for the disk, or what was not saved is applied.
    let data = voted();
    let placement = open(data.path()).expect("what was written");
    let folder = data.path().join(PLACEMENT_NAME);
    let moved = data.path().join("elsewhere");
    std::fs::rename(&folder, &moved).expect("moved");
    let commit = Request::Commit { document: document(3) };
    let Answer::Failed { text } = placement.handle_request(&commit) else { panic!("it was said") };
    assert!(text.starts_with("cannot make "), "{text}");
    assert_eq!(*placement.epoch().borrow(), 2);
    std::fs::rename(&moved, &folder).expect("moved back");
    let waiting = placement.epoch();
    assert_eq!(placement.handle_request(&commit), Answer::Committed { newest_epoch: 3 });
    // Red if nobody is told.
    assert!(waiting.has_changed().expect("it is there") && *waiting.borrow() == 3);
    let mode = std::fs::metadata(folder.join(epoch_name(3))).expect("a file").permissions().mode();
    assert_eq!(mode & 0o200, 0o200);
}

#[test]
fn the_oldest_documents_leave_the_disk() {
    let data = tempfile::tempdir().expect("a folder");
    let placement = open(data.path()).expect("an empty folder");
    let last = EPOCHS_MAX as u64 + 3;
    for epoch in 1..=last {
        placement.handle_request(&Request::Commit { document: document(epoch) });
    }
    // Red without `remove_old`.
    let count = std::fs::read_dir(data.path().join(PLACEMENT_NAME)).expect("a folder").count();
    assert_eq!(count, EPOCHS_MAX);
    assert_eq!(open(data.path()).expect("whole").newest(), Some(document(last)));
}

#[test]
fn frames_are_answered_with_frames() {
    let data = voted();
    let placement = open(data.path()).expect("what was written");
    let frame = Request::Read { from_epoch: 3 }.encode_frame();
    let header = check_frame(&frame).expect("sealed");
    let answer = placement.handle_frame(&header, &frame[FRAME_HEADER_BYTES..]).expect("a frame");
    let header = check_frame(&answer).expect("sealed");
    let answer = Answer::decode(&header, &answer[FRAME_HEADER_BYTES..]).expect("an answer");
    let zone = Some("east".into());
    assert_eq!(
        answer,
        Ok(Answer::Documents { newest_epoch: 2, documents: vec![], zone, group: None })
    );
    // Red if a frame that is none of ours is answered.
    assert!(placement.handle_frame(&header, b"no payload").is_err());
}

#[test]
fn a_gateway_whose_clock_is_ahead_does_not_stop_the_fleet() {
    // Red if any start is voted for: the next change could not start before it.
    let data = voted();
    let placement = open(data.path()).expect("what was written");
    let higher = Ballot { round: 9, proposer: 1 };
    let starting = |start_ms| {
        let document = PlacementDocument { start_ms, ..(*document(3)).clone() };
        placement.handle_request(&Request::Accept { ballot: higher, document: Arc::new(document) })
    };
    let Answer::Failed { text } = starting(unix_now_ms() + 3_600_000) else { panic!("it voted") };
    assert!(text.contains("set the clocks"), "{text}");
    let soon = starting(unix_now_ms() + 3_000);
    assert_eq!(soon, Answer::Accepted { epoch: 3, ballot: higher });
}
