//! Nodes and a gateway over sockets of this host: found, add, ask over HTTP, move.

#![cfg(test)]

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::*;
use crate::base::chance::Chance;
use crate::base::time::monotonic_now;
use crate::control::fleet::answering::answer_placement;
use crate::control::fleet::api;
use crate::control::fleet::report::{PlanReport, StatusReport};
use crate::control::fleet::store::NodePlacement;
use crate::control::reads::answering::{Answering, AnsweringLimits, NodeIdentity};
use crate::control::reads::lacking::NewsWithin;
use crate::control::reads::server::{NodeStanding, ReadServer, ReadServerConfig};
use crate::control::shards::Shards;
use crate::model::placement::{NodeId, SampleBounds, Strategy};
use crate::wire::health::NodeState;
use crate::wire::link::{Receiver, ReceiverConfig, WindowLimits};

const SOON: Duration = Duration::from_secs(20);

/// A node, as far as placement goes: one shard's link port that welcomes, and the port for reads.
struct RunningNode {
    placement: Arc<NodePlacement>,
    in_force: Arc<AtomicU64>,
    address: SocketAddr,
    tasks: JoinSet<()>,
}

fn secret() -> LinkSecret {
    LinkSecret::new(b"the secret of a fleet in a test").expect("long enough")
}

fn receiver_config(node: u128, shard: u32, link_ports: Vec<u16>) -> ReceiverConfig {
    ReceiverConfig {
        node,
        incarnation: 1,
        shard,
        shard_count: 1,
        link_ports,
        window: WindowLimits { frames: 8, bytes: 1 << 20 },
        links_max: 4,
        strangers_max: 16,
        answer_bytes_max: 1 << 20,
        silence: SilenceLimits::default(),
    }
}

async fn start_node(data: &std::path::Path, node: u128) -> RunningNode {
    let zone = Some(format!("z{node}"));
    let placement = NodePlacement::open(data, NodeId(node), zone).expect("a good folder");
    let placement = Arc::new(placement);
    let door = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let reads = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = door.local_addr().expect("bound");
    let ports = [&door, &reads].map(|bound| bound.local_addr().expect("bound").port());
    let (questions, asked) = flume::bounded(4);
    let who = NodeIdentity { node, incarnation: 1 };
    let news_within = NewsWithin { first: SOON, later: SOON };
    let limits = AnsweringLimits { selects_max: 1, wait_max: SOON, news_within };
    let answering = Answering::new(Shards::new(Vec::new()), who, limits).with_others(questions);
    let standing = NodeStanding { state: NodeState::Ready, placement_epoch: 0 };
    let (teller, standing) = watch::channel(standing);
    let receiver = receiver_config(node, 1, ports.to_vec());
    let config = ReadServerConfig { receiver, connections_max: 16 };
    let server = ReadServer::new(config, secret(), answering, standing).expect("chance");
    let in_force = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        server.serve(reads).await;
        drop(teller);
    });
    tasks.spawn(answer_placement(Arc::clone(&placement), asked, Arc::clone(&in_force)));
    tasks.spawn(async move {
        let mut guests = JoinSet::new();
        while let Ok((stream, _)) = door.accept().await {
            guests.spawn(welcome(stream, receiver_config(node, 0, ports.to_vec())));
        }
    });
    RunningNode { placement, in_force, address, tasks }
}

/// As a shard does it, for a reader that asks nothing.
async fn welcome(mut stream: TcpStream, config: ReceiverConfig) {
    let mut receiver = Receiver::new(config, secret());
    let nonce = Chance::open().expect("a source").draw();
    let id = receiver.handle_connected(monotonic_now(), nonce).expect("room");
    let mut bytes = [0; 1024];
    loop {
        while let Some(frame) = receiver.poll_transmit(id) {
            if stream.write_all(&frame).await.is_err() {
                return;
            }
        }
        match stream.read(&mut bytes).await {
            Ok(count) if count > 0 => receiver.handle_bytes(monotonic_now(), id, &bytes[..count]),
            _ => return,
        }
    }
}

fn config(replication: u8) -> FollowingConfig {
    let follower = FollowerConfig {
        replication,
        strategy: Strategy::Hash {},
        is_auto_join: false,
        bounds: SampleBounds { ahead_ms: 1000, behind_ms: 1000 },
        retention_ms: 0,
    };
    let chance = u128::from_le_bytes(Chance::open().expect("a source").draw());
    let silence = SilenceLimits::default();
    FollowingConfig { follower, gateway: 77, silence, secret: secret(), chance }
}

async fn call(fleet: &FleetHandle, method: &str, path: &str, body: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(format!("/api/v1/cluster/{path}"));
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let answer = api::router(fleet.clone()).oneshot(request).await.expect("an answer");
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

/// The data of a successful answer.
#[track_caller]
fn data<T: serde::de::DeserializeOwned>((status, body): (StatusCode, String)) -> T {
    assert_eq!(status, StatusCode::OK, "{body}");
    let mut answer: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["status"], "success");
    serde_json::from_value(answer["data"].take()).expect("the report")
}

async fn wait_for(views: &mut watch::Receiver<Arc<FleetView>>, want: impl Fn(&FleetView) -> bool) {
    let found = tokio::time::timeout(SOON, views.wait_for(|view| want(view))).await;
    found.expect("in time").expect("it runs");
}

fn seeds_at(addresses: &[SocketAddr]) -> Arc<Vec<Seed>> {
    Arc::new(addresses.iter().copied().map(Seed::at).collect())
}

fn localhost(v4: SocketAddr) -> Seed {
    let v6 = (Ipv6Addr::LOCALHOST, v4.port()).into();
    Seed { name: format!("localhost:{}", v4.port()).into(), addresses: vec![v4, v6] }
}

fn epoch_of(view: &FleetView) -> u64 {
    view.fleet.as_ref().map_or(0, |fleet| fleet.placement.document().epoch)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_over_sockets() {
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    let one = start_node(folders[0].path(), 1).await;
    let two = start_node(folders[1].path(), 2).await;
    // The second by a name of two families, of which nobody listens on one. Red if a dial that is
    // refused does not count as tried.
    let known = vec![Seed::at(one.address), localhost(two.address)];
    let (seeds, seen) = watch::channel(Arc::new(known));
    let published = Arc::new(AtomicU64::new(0));
    let shown = Arc::clone(&published);
    let publish = move |view: &FleetView| shown.store(epoch_of(view), Ordering::Relaxed);
    let (fleet, work) = follow(config(2), seen, publish);
    let work = tokio::spawn(work);
    let mut views = fleet.view();
    // Red if nothing is dialled, the port for reads not found, or its answers not understood.
    wait_for(&mut views, |view| epoch_of(view) == 1 && view.reads.len() == 2).await;
    assert_eq!(published.load(Ordering::Relaxed), 1);
    // A majority decides; each node is told then.
    let told = one.placement.epoch().wait_for(|epoch| *epoch == 1).await.map(|epoch| *epoch);
    assert_eq!(told.ok(), Some(1));
    let status: StatusReport = data(call(&fleet, "GET", "status", "").await);
    assert_eq!((status.epoch, status.nodes.len(), status.replication), (1, 2, 2));
    assert_eq!(status.nodes[0].zone.as_deref(), Some("z1"), "what the node says of itself");
    assert!(status.nodes.iter().all(|node| node.is_reachable && node.slots == 16384));

    // A third one comes, by a name that has to be looked up.
    let three = start_node(folders[2].path(), 3).await;
    let name = format!("localhost:{}", three.address.port());
    let plan = format!("{{\"add\":[\"{name}\"],\"weights\":{{\"{name}\":50}}}}");
    let (code, text) = call(&fleet, "POST", "plan", &plan).await;
    // Red if only the first of its addresses is tried: `localhost` may be ::1 first, where nobody
    // listens.
    assert_eq!(code, StatusCode::OK, "{text}");
    let add = format!("{{\"nodes\":[\"{}\"]}}", three.address);
    let done: PlanReport = data(call(&fleet, "POST", "add", &add).await);
    assert!(done.is_done && done.epoch_after == 2 && done.groups[0].nodes.len() == 3);
    wait_for(&mut views, |view| epoch_of(view) == 2).await;
    assert_eq!(three.placement.newest().map(|document| document.epoch), Some(2));
    let weights = "{\"weights\":{\"0000000000000000000000000000000\":50}}";
    let (code, text) = call(&fleet, "POST", "weights", weights).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(text.contains("several nodes are"), "{text}");
    let (code, _) = call(&fleet, "POST", "remove", "{\"nodes\":[\"beef\"]}").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    let (code, _) = call(&fleet, "POST", "add", "{\"node\":1}").await;
    assert_eq!(code, StatusCode::BAD_REQUEST);

    // The second one comes back elsewhere, with what it had on its disk.
    let RunningNode { mut tasks, placement, .. } = two;
    tasks.shutdown().await;
    drop(placement);
    let two = start_node(folders[1].path(), 2).await;
    assert_eq!(two.placement.newest().map(|document| document.epoch), Some(2));
    seeds.send_replace(seeds_at(&[one.address, two.address, three.address]));
    // Where it is counts at once; red if only the document says where nodes are.
    let is_there = |view: &FleetView| {
        let nodes = view.fleet.as_ref().map_or(&[][..], |fleet| &fleet.nodes);
        nodes.iter().any(|node| node.shards == [two.address])
    };
    wait_for(&mut views, is_there).await;
    // Red if the clock of the node is not asked.
    let in_force = async {
        while one.in_force.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, in_force).await.expect("it started");
    work.abort();
}
