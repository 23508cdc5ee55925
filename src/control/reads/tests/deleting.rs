//! Deletions of a gateway's API over nodes with real ports, whose blocks write down what they are
//! asked to delete.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::http::StatusCode;

use super::fleet::{Gateway, direct, history, limits, placement};
use super::network::{TestHints, TestNode, soon};
use crate::control::fake_shards::spawn_shard;
use crate::control::shards::{BlocksHandle, Shards};
use crate::model::matcher::Matcher;
use crate::node::block::request::{StoreRefusal, StoreRequest};
use crate::wire::delete::Deletion;

const DELETE: &str = "/api/v1/admin/tsdb/delete_series?match[]=up&start=1&end=2";

/// Whether blocks delete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    Delete,
    Refuse,
}

/// A node, and what its blocks deleted.
async fn node(id: u128, blocks: Blocks) -> (TestNode, flume::Receiver<Deletion>) {
    let (selects, _nobody_asks) = flume::bounded(1);
    let (requests, asked) = flume::bounded(4);
    let (teller, deleted) = flume::unbounded();
    std::thread::spawn(move || {
        for request in asked {
            let StoreRequest::Delete { tombstone, reply } = request else { continue };
            let outcome = match blocks {
                Blocks::Delete => {
                    let _nobody_looks = teller.send(tombstone.clone());
                    Ok(Deletion { id: 9, ..tombstone })
                }
                Blocks::Refuse => Err(StoreRefusal::Disk { errno: libc::ENOSPC }),
            };
            let _gone = reply.send(outcome);
        }
    });
    let shards = Shards::new(vec![spawn_shard(vec![])]);
    let shards = shards.with_blocks(BlocksHandle { selects, requests });
    (TestNode::start_with((Ipv4Addr::LOCALHOST, 0).into(), id, shards).await, deleted)
}

async fn fleet(
    blocks: [Blocks; 2],
    ids: &[u128; 2],
) -> (Gateway, Vec<TestNode>, Vec<flume::Receiver<Deletion>>) {
    let (mut nodes, mut deleted) = (Vec::new(), Vec::new());
    for (id, blocks) in ids.iter().zip(blocks) {
        let (node, of_node) = node(*id, blocks).await;
        nodes.push(node);
        deleted.push(of_node);
    }
    let placement = placement((1, 0), ids, 2);
    let gateway = Gateway::new(history(&[placement]), direct(&nodes), limits());
    (gateway, nodes, deleted)
}

#[tokio::test]
async fn every_owner_deletes() {
    // Red if one node is asked for all of them, or if the range or a matcher gets lost.
    let (gateway, _nodes, deleted) = fleet([Blocks::Delete; 2], &[1, 2]).await;
    assert_eq!(gateway.post(DELETE).await.0, StatusCode::NO_CONTENT);
    for of_node in deleted {
        let Deletion { matchers, start_ms, end_ms, .. } = of_node.try_recv().expect("asked");
        assert_eq!((start_ms, end_ms), (1_000, 2_000));
        assert_eq!(matchers, [Matcher::equal("__name__", "up")]);
        assert!(of_node.is_empty());
    }
}

#[tokio::test]
async fn an_owner_that_did_not_delete_is_named() {
    // Red if one yes is enough, or if nobody says who did not.
    let (gateway, _nodes, deleted) = fleet([Blocks::Delete, Blocks::Refuse], &[1, 2]).await;
    let (status, body) = gateway.post(DELETE).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("node 00000000000000000000000000000002"), "{body}");
    assert!(body.contains("No space left"), "{body}");
    assert!(!body.contains("00000000000000000000000000000001"), "{body}");
    assert_eq!(deleted[0].len(), 1, "the other one did");
}

#[tokio::test]
async fn while_an_owner_is_away_nothing_is_deleted() {
    // Red if the owners that are there delete without the one that is not, or if that is not said.
    let (gateway, mut nodes, deleted) = fleet([Blocks::Delete; 2], &[1, 2]).await;
    assert_eq!(gateway.post(DELETE).await.0, StatusCode::NO_CONTENT);
    nodes.pop();
    // Until the gateway knows.
    let (status, body) = soon(async {
        loop {
            let answer = gateway.post(DELETE).await;
            if answer.1.contains("cannot delete: ") {
                return answer;
            }
            deleted[0].drain().for_each(drop);
        }
    })
    .await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("node 00000000000000000000000000000002"), "{body}");
    deleted[0].drain().for_each(drop);
    assert_eq!(gateway.post(DELETE).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(deleted[0].is_empty());
}

/// A deletion while hints wait would be undone by them, on one of the owners.
#[tokio::test]
async fn while_hints_wait_for_an_owner_nothing_is_deleted() {
    // Red if this gateway's own hints are not looked at, or if a node deletes although another
    // gateway has told it of hints.
    let (mut gateway, nodes, deleted) = fleet([Blocks::Delete; 2], &[1, 2]).await;
    assert_eq!(gateway.post(DELETE).await.0, StatusCode::NO_CONTENT);
    for of_node in &deleted {
        drop(of_node.drain());
    }
    gateway.hints.mute();
    gateway.hints.keep(2, 4);
    let (status, body) = gateway.post(DELETE).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("4 samples wait for it at this gateway"), "{body}");
    assert!(deleted.iter().all(flume::Receiver::is_empty));
    gateway.hints.keep(2, 0);
    let other = TestHints::new(98);
    other.keep(1, 500);
    let told = nodes[0].client_telling(other.own.clone());
    soon(told.welcome()).await.expect("it is there");
    let (status, body) = gateway.post(DELETE).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("500 samples wait for it at gateways"), "{body}");
    assert!(deleted[0].is_empty());
    other.keep(1, 0);
    let done = async {
        while gateway.post(DELETE).await.0 != StatusCode::NO_CONTENT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(done).await;
    assert_eq!(deleted[0].len(), 1);
}

/// Hints for a node that left go to those who own its series now: what was deleted came back.
#[tokio::test]
async fn while_hints_wait_for_a_node_that_left_nothing_is_deleted() {
    // Red if a gateway looks at hints of the owners that it asks only, be they its own or, by the
    // word of a node, another gateway's; or if that word is not renewed when the placement changes.
    let (_, nodes, deleted) = fleet([Blocks::Delete; 2], &[1, 2]).await;
    let placements = || {
        let old = placement((1, 0), &[1, 2, 3], 2);
        history(&[old, placement((2, 1_000), &[1, 2], 2)])
    };
    let late = "/api/v1/admin/tsdb/delete_series?match[]=up&start=9";
    let [gateway, other] =
        [99, 98].map(|keeper| Gateway::keeping(keeper, placements(), direct(&nodes), limits()));
    gateway.hints.keep(3, 4);
    let (status, body) = gateway.post(late).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("node 00000000000000000000000000000003: 4 samples wait"), "{body}");
    assert!(deleted.iter().all(flume::Receiver::is_empty));
    gateway.hints.keep(3, 0);
    // Until nodes know, too.
    soon(async { while gateway.post(late).await.0 != StatusCode::NO_CONTENT {} }).await;
    for of_node in &deleted {
        drop(of_node.drain());
    }
    // Nodes are told by the other gateway when it has heard of the second placement.
    let first = history(&[placement((1, 0), &[1, 2, 3], 2)]);
    other.see(first, direct(&nodes));
    other.hints.keep(3, 500);
    other.get("/api/v1/query?query=up").await;
    other.see(placements(), direct(&nodes));
    let refused = async {
        loop {
            let (status, body) = gateway.post(late).await;
            if status == StatusCode::SERVICE_UNAVAILABLE {
                return body;
            }
        }
    };
    let body = soon(refused).await;
    assert!(body.contains("500 samples wait for it at gateways (keeper-"), "{body}");
    let alone = history(&[placement((1, 0), &[1, 2, 3], 2), placement((2, 1_000), &[1, 2, 3], 2)]);
    other.see(alone, direct(&nodes));
    soon(async { while gateway.post(late).await.0 != StatusCode::NO_CONTENT {} }).await;
}

/// A disk was lost, its node taken out: nothing of its time could be deleted until retention ended.
#[tokio::test]
async fn a_node_that_was_lost_and_taken_out_stops_no_deletion() {
    // Red if what nobody can bring back makes every deletion of its time impossible; if the others
    // do not delete; or if a node that left and is there is left out, or one that a gateway that
    // has just started has merely not met yet.
    let ids = [1, 2, 3];
    let (mut nodes, mut deleted) = (Vec::new(), Vec::new());
    for id in ids {
        let blocks = if id == 2 { Blocks::Refuse } else { Blocks::Delete };
        let (node, of_node) = node(id, blocks).await;
        nodes.push(node);
        deleted.push(of_node);
    }
    let placements = [placement((1, 0), &[1, 2], 2), placement((2, 1_000), &[1, 3], 2)];
    let all = "/api/v1/admin/tsdb/delete_series?match[]=up";
    let named = "node 00000000000000000000000000000002";
    let met = Gateway::new(history(&placements), direct(&nodes), limits());
    let (status, body) = met.post(all).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains(named) && body.contains("No space left"), "{body}");
    nodes.remove(1);
    let never_met = Gateway::new(history(&placements), direct(&nodes), limits());
    let (status, body) = never_met.post(all).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains(named) && body.contains("address is not known"), "{body}");
    for gateway in [met, never_met] {
        for of_node in &deleted {
            drop(of_node.drain());
        }
        soon(async { while gateway.post(all).await.0 != StatusCode::NO_CONTENT {} }).await;
        assert!(!deleted[0].is_empty() && !deleted[2].is_empty());
    }
    nodes.pop();
    let one_away = Gateway::new(history(&placements), direct(&nodes), limits());
    let (status, body) = one_away.post(all).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("node 00000000000000000000000000000003"), "{body}");
}

/// A gateway whose first answer came from a node that was behind deleted on the owners of old, and
/// called that all.
#[tokio::test]
async fn a_gateway_that_is_behind_deletes_nothing() {
    // Red if only gaps between epochs are looked at, or if what a node said when its connection was
    // made is taken for what it follows now.
    let (gateway, nodes, deleted) = fleet([Blocks::Delete; 2], &[1, 2]).await;
    assert_eq!(gateway.post(DELETE).await.0, StatusCode::NO_CONTENT);
    for of_node in &deleted {
        drop(of_node.drain());
    }
    nodes[1].follow(2);
    let (status, body) = gateway.post(DELETE).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("placement epoch 2 is in force"), "{body}");
    assert!(deleted.iter().all(flume::Receiver::is_empty));
    let both = [placement((1, 0), &[1, 2], 2), placement((2, 1_000), &[1, 2], 2)];
    gateway.see(history(&both), direct(&nodes));
    assert_eq!(gateway.post(DELETE).await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_a_gateway_cannot_do_it_leaves_to_nodes_with_a_word() {
    // Red if a gateway says that its blocks do not answer: it has none.
    let (gateway, _nodes, _) = fleet([Blocks::Delete; 2], &[1, 2]).await;
    for path in ["clean_tombstones", "snapshot", "flush", "compact"] {
        let (status, body) = gateway.post(&format!("/api/v1/admin/tsdb/{path}")).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{path}: {body}");
        assert!(body.contains("ask each node"), "{path}: {body}");
    }
    let (status, body) = gateway.get("/api/v1/status/tsdb").await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{body}");
}
