//! Answers of nodes that gateways keep samples for: complete only if somebody else makes up for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::fleet::{Gateway, count, direct, history, limits, placement, spread, start};
use super::network::{TestHints, TestNode, soon};
use crate::control::fake_shards::spawn_shard;
use crate::control::reads::client::NodeStatus;
use crate::control::reads::lacking::NewsWithin;
use crate::control::shards::Shards;
use crate::wire::frame::FRAME_HEADER_BYTES;
use crate::wire::hints::{HintsHeld, Lacking};

const QUERY: &str = "/api/v1/query?query=up";
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a node knows to lack, asked by a gateway that keeps nothing.
async fn lacking(node: &TestNode) -> Lacking {
    let nothing = HintsHeld { keeper: 77, ..HintsHeld::default() };
    let answer = soon(node.client().request(nothing.encode_frame())).await;
    let (header, frame) = answer.expect("it is there");
    Lacking::decode(&header, &frame[FRAME_HEADER_BYTES..]).expect("it answers")
}

/// Waits until the node knows that it lacks so many samples.
async fn wait_for(node: &TestNode, waiting_samples: u64) {
    soon(async {
        while lacking(node).await.waiting_samples != waiting_samples {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A replica that was down came back before its hints, and the other one went: the answer lacked
/// what another gateway still kept, without a word.
#[tokio::test]
async fn an_owner_that_waits_for_hints_is_not_enough() {
    // Red if a node does not hear what gateways keep, hears it at the start only, forgets to say it
    // at the end of an answer, or if the reader does not look at it.
    let placement = placement((1, 0), &[1, 2], 2);
    let mut nodes = start(spread(&placement, 10)).await;
    let gateway = Gateway::new(history(&[placement]), direct(&nodes), limits());
    let other = TestHints::new(98);
    other.keep(1, 500);
    let _told = nodes[0].client_telling(other.own.clone());
    wait_for(&nodes[0], 500).await;
    // Whoever lacks a sample, the other one has it.
    assert_eq!(count(&gateway.data(QUERY).await), 10);
    nodes.pop();
    for target in [
        QUERY,
        "/api/v1/query_range?query=up&start=970&end=1000&step=15",
        "/api/v1/series?match[]=up",
        "/api/v1/label/instance/values?match[]=up",
    ] {
        let (data, warning) = gateway.partial(target).await;
        assert_eq!(count(&data), 10, "{target}");
        assert!(warning.contains("waits for 500 samples"), "{warning}");
        assert!(warning.contains("node 00000000000000000000000000000002"), "{warning}");
        gateway.refused(&format!("{target}&partial_response=false"), 503).await;
    }
    gateway.refused("/api/v1/export?match[]=up", 503).await;
    other.keep(1, 3);
    wait_for(&nodes[0], 3).await;
    assert!(gateway.partial(QUERY).await.1.contains("waits for 3 samples"));
    other.keep(1, 0);
    wait_for(&nodes[0], 0).await;
    assert_eq!(count(&gateway.data(QUERY).await), 10);
}

#[tokio::test]
async fn a_gateway_knows_what_it_keeps_itself() {
    // Red if the gateway that reads waits for the node to say what it keeps itself, or looks at
    // what it keeps for other nodes.
    let placement = placement((1, 0), &[1, 2], 2);
    let mut nodes = start(spread(&placement, 10)).await;
    let mut gateway = Gateway::new(history(&[placement]), direct(&nodes), limits());
    nodes.pop();
    assert_eq!(count(&gateway.data(QUERY).await), 10);
    // Nobody is told of it any more.
    gateway.hints.mute();
    gateway.hints.keep(2, 4);
    assert_eq!(count(&gateway.data(QUERY).await), 10);
    gateway.hints.keep(1, 4);
    let (_, warning) = gateway.partial(QUERY).await;
    assert!(warning.contains("waits for 4 samples that a gateway kept"), "{warning}");
}

#[tokio::test]
async fn one_owner_of_one_lacks_nothing_that_another_has() {
    // Red if what a node waits for is held against slots of which it is the only owner.
    let placement = placement((1, 0), &[1, 2], 1);
    let held = spread(&placement, 10);
    let of_first = held[&1].len();
    let mut nodes = start(held).await;
    let gateway = Gateway::new(history(&[placement]), direct(&nodes), limits());
    gateway.hints.keep(1, 4);
    assert_eq!(count(&gateway.data(QUERY).await), 10);
    nodes.pop();
    let (data, warning) = gateway.partial(QUERY).await;
    assert_eq!(count(&data), of_first);
    assert!(!warning.contains("waits for"), "{warning}");
}

/// A block of the only owner was damaged: a gateway answered without it, and without a word.
#[tokio::test]
async fn a_node_that_lost_blocks_is_enough_only_beside_a_whole_one() {
    // Red if a node does not say that it lost blocks, if that is looked at only while somebody is
    // away, or if it is held against slots that a whole owner answers for.
    let alone = placement((1, 0), &[1, 2], 1);
    let nodes = start(spread(&alone, 10)).await;
    let gateway = Gateway::new(history(&[alone]), direct(&nodes), limits());
    assert_eq!(count(&gateway.data(QUERY).await), 10);
    nodes[0].store.set_blocks_lost(3);
    let (data, warning) = gateway.partial(QUERY).await;
    assert_eq!(count(&data), 10);
    assert!(warning.contains("00000000000000000000000000000001: 3 of its blocks"), "{warning}");
    assert!(!warning.contains("did not answer"), "{warning}");
    gateway.refused("/api/v1/export?match[]=up", 503).await;
    let (status, _) = gateway.get("/api/v1/export?match[]=up&partial_response=true").await;
    assert_eq!(status.as_u16(), 200);

    let both = placement((1, 0), &[1, 2], 2);
    let mut nodes = start(spread(&both, 10)).await;
    let gateway = Gateway::new(history(&[both]), direct(&nodes), limits());
    nodes[0].store.set_blocks_lost(3);
    assert_eq!(count(&gateway.data(QUERY).await), 10);
    nodes[1].store.set_blocks_lost(1);
    assert!(gateway.partial(QUERY).await.1.contains("1 of its blocks"));
    nodes.pop();
    let (_, warning) = gateway.partial(QUERY).await;
    assert!(warning.contains("did not answer: node 00000000000000000000000000000002"), "{warning}");
}

#[tokio::test]
async fn a_node_that_comes_back_says_that_it_may_have_missed_something() {
    // Red if a node takes the first gateway's word for all, if it is taken for whole before any
    // gateway has come, or if it stays doubtful.
    let placement = placement((1, 0), &[1, 2], 2);
    let mut held = spread(&placement, 10);
    let shards = Shards::new(vec![spawn_shard(held.remove(&1).expect("of the placement"))]);
    let a_while = Duration::from_millis(700);
    let news_within = NewsWithin { first: a_while, later: a_while };
    let mut nodes = vec![TestNode::start_awaiting(news_within, (ANY, 1), shards).await];
    nodes.extend(start(held).await);
    assert!(lacking(&nodes[0]).await.is_news_awaited, "nobody has come");
    let gateway = Gateway::new(history(&[placement]), direct(&nodes), limits());
    assert_eq!(count(&gateway.data(QUERY).await), 10, "the other one answers");
    nodes.pop();
    let (_, warning) = gateway.partial(QUERY).await;
    assert!(warning.contains("reached a moment ago"), "{warning}");
    soon(async { while gateway.get(QUERY).await.1.contains("warnings") {} }).await;
}

#[tokio::test]
async fn what_is_kept_is_told_again_to_a_node_that_starts_again() {
    // Red if it is told once a client, or after the node counts as up.
    let held = spread(&placement((1, 0), &[1], 1), 1);
    let node = start(held.clone()).await.remove(0);
    let hints = TestHints::new(98);
    hints.keep(1, 500);
    let client = node.client_telling(hints.own.clone());
    soon(client.welcome()).await.expect("it is there");
    assert_eq!(lacking(&node).await.waiting_samples, 500);
    let address = node.address;
    let mut status = client.status();
    drop(node);
    soon(status.wait_for(|now| matches!(now, NodeStatus::Down(_)))).await.expect("it lives");
    let shards = held.into_values().map(spawn_shard).collect();
    let again = TestNode::start_at(address, 1, shards).await;
    soon(status.wait_for(|now| matches!(now, NodeStatus::Up(_)))).await.expect("it lives");
    assert_eq!(lacking(&again).await.waiting_samples, 500);
}
