//! Queries of a gateway's API over nodes with real ports. The series lie on the nodes that the
//! placement says, as they would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::network::{Flow, SILENCE, TestHints, TestNode, Way, secret, soon};
use crate::control::api::{ApiState, QueryLimits, router};
use crate::control::fake_shards::{canonical, series, spawn_shard};
use crate::control::readiness::ServerState;
use crate::control::reads::fleet::FleetReads;
use crate::control::reads::view::{ReadNode, ReadView};
use crate::control::shards::{BlocksHandle, Shards};
use crate::model::placement::{
    History, NodeId, PlacedNode, Placement, PlacementDocument, SampleBounds, Strategy,
};
use crate::model::series::{SeriesHash, TenantId};
use crate::node::block::request::BlockSelect;
use crate::wire::select::{SelectAnswer, SelectedSeries};

const NOW_MS: i64 = 1_000_000;
const BOUNDS: SampleBounds = SampleBounds { ahead_ms: 0, behind_ms: 0 };

pub(super) fn placement(
    (epoch, start_ms): (u64, i64),
    ids: &[u128],
    replication: u8,
) -> Arc<Placement> {
    placement_by(Strategy::Hash {}, (epoch, start_ms), ids, replication)
}

fn placement_by(
    strategy: Strategy,
    (epoch, start_ms): (u64, i64),
    ids: &[u128],
    replication: u8,
) -> Arc<Placement> {
    let nodes = ids.iter().map(|id| PlacedNode::new(NodeId(*id), &format!("n{id}:1"), 1));
    let nodes = nodes.collect();
    let document = PlacementDocument { epoch, start_ms, replication, strategy, nodes };
    Arc::new(Placement::new(document).expect("a good document"))
}

pub(super) fn history(placements: &[Arc<Placement>]) -> History {
    let mut history = History::default();
    for placement in placements {
        history.handle_placement(Arc::clone(placement)).expect("in order");
    }
    history
}

pub(super) fn limits() -> QueryLimits {
    QueryLimits {
        series_max: 100,
        samples_max: 10_000,
        concurrency_max: 4,
        wait_max: Duration::from_secs(1),
        timeout: Duration::from_secs(60),
        lookback: Duration::from_secs(300),
        retention: Duration::ZERO,
    }
}

/// A gateway before nodes.
pub(super) struct Gateway {
    view: watch::Sender<Arc<ReadView>>,
    /// What it keeps for nodes.
    pub hints: TestHints,
    router: Router,
}

impl Gateway {
    pub fn new(history: History, nodes: Vec<ReadNode>, limits: QueryLimits) -> Self {
        Self::keeping(99, history, nodes, limits)
    }

    /// One whose hints bear this name.
    pub fn keeping(
        keeper: u128,
        history: History,
        nodes: Vec<ReadNode>,
        limits: QueryLimits,
    ) -> Self {
        let first = ReadView { nodes, history, bounds: BOUNDS };
        let (view, views) = watch::channel(Arc::new(first));
        let hints = TestHints::new(keeper);
        let who = (99, Some(hints.own.clone()));
        let fleet = FleetReads::new(views, who, SILENCE, secret("the fleet's secret"));
        let server = Arc::new(ServerState::new(0));
        server.set_ready();
        let state = ApiState::new(Shards::new(vec![]), server, limits, || NOW_MS);
        Self { view, hints, router: router(state.with_fleet(fleet)) }
    }

    /// The fleet is another one from now on.
    pub fn see(&self, history: History, nodes: Vec<ReadNode>) {
        self.view.send_replace(Arc::new(ReadView { nodes, history, bounds: BOUNDS }));
    }

    pub async fn get(&self, target: &str) -> (StatusCode, String) {
        self.ask(Request::get(target)).await
    }

    pub async fn post(&self, target: &str) -> (StatusCode, String) {
        self.ask(Request::post(target)).await
    }

    async fn ask(&self, request: axum::http::request::Builder) -> (StatusCode, String) {
        let request = request.body(Body::empty()).expect("a request");
        let response = soon(self.router.clone().oneshot(request)).await.expect("infallible");
        let status = response.status();
        let body = soon(response.into_body().collect()).await.expect("whole").to_bytes();
        (status, String::from_utf8(body.into()).expect("UTF-8"))
    }

    /// The `data` of a complete answer.
    pub async fn data(&self, target: &str) -> Value {
        let (status, body) = self.get(target).await;
        assert_eq!(status, StatusCode::OK, "{target}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body.get("warnings"), None, "{target}: {body}");
        body["data"].clone()
    }

    /// The `data` of an answer that lacks something, and what.
    pub async fn partial(&self, target: &str) -> (Value, String) {
        let (status, body) = self.get(target).await;
        assert_eq!(status, StatusCode::OK, "{target}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let warnings = body["warnings"].as_array().expect("warnings");
        (body["data"].clone(), warnings.iter().map(Value::to_string).collect())
    }

    pub async fn refused(&self, target: &str, status: u16) -> String {
        let (found, body) = self.get(target).await;
        assert_eq!(found.as_u16(), status, "{target}: {body}");
        body
    }
}

fn read_node(node: &TestNode, address: SocketAddr) -> ReadNode {
    ReadNode { id: NodeId(node.id()), shard_count: node.shard_count, address }
}

/// Series `up{instance="00"}` and so on, each with three samples, on all their owners.
pub(super) fn spread(placement: &Placement, count: usize) -> BTreeMap<u128, Vec<SelectedSeries>> {
    let document = placement.document();
    let mut held: BTreeMap<u128, Vec<_>> =
        document.nodes.iter().map(|node| (node.id.0, Vec::new())).collect();
    for number in 0..count {
        let instance = format!("{number:02}");
        let labels = [("__name__", "up"), ("instance", &*instance)];
        let one = series(&labels, &[(970_000, 1.0), (985_000, 2.0), (1_000_000, 3.0)]);
        let bytes = canonical(&labels);
        let hash = SeriesHash::of(TenantId(0), &bytes);
        for owner in placement.owners_of(TenantId(0), hash, &bytes) {
            let owner = document.nodes[usize::from(*owner)].id.0;
            held.get_mut(&owner).expect("of the document").push(one.clone());
        }
    }
    held
}

pub(super) async fn start(held: BTreeMap<u128, Vec<SelectedSeries>>) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for (id, series) in held {
        nodes.push(TestNode::start(id, vec![spawn_shard(series)]).await);
    }
    nodes
}

pub(super) fn direct(nodes: &[TestNode]) -> Vec<ReadNode> {
    nodes.iter().map(|node| read_node(node, node.address)).collect()
}

pub(super) fn count(data: &Value) -> usize {
    let list = if data.is_array() { data } else { &data["result"] };
    list.as_array().expect("a list").len()
}

#[tokio::test]
async fn a_node_that_died_is_not_missed_when_every_slot_has_another_owner() {
    // Red if the answer needs every owner, if a replica's series come twice, or if only one owner
    // of a slot is asked.
    let placement = placement((1, 0), &[1, 2, 3], 2);
    let mut nodes = start(spread(&placement, 40)).await;
    let gateway = Gateway::new(history(&[placement]), direct(&nodes), limits());
    for _ in 0..2 {
        let data = gateway.data("/api/v1/query?query=up").await;
        assert_eq!(count(&data), 40);
        assert_eq!(data["result"][7]["value"], json!([1000, "3"]));
        let range = "/api/v1/query_range?query=up&start=970&end=1000&step=15";
        let data = gateway.data(range).await;
        assert_eq!(count(&data), 40);
        assert_eq!(data["result"][7]["values"], json!([[970, "1"], [985, "2"], [1000, "3"]]));
        assert_eq!(count(&gateway.data("/api/v1/series?match[]=up").await), 40);
        assert_eq!(count(&gateway.data("/api/v1/label/instance/values").await), 40);
        assert_eq!(gateway.data("/api/v1/labels").await, json!(["__name__", "instance"]));
        let (status, lines) = gateway.get("/api/v1/export?match[]=up").await;
        assert_eq!((status, lines.lines().count()), (StatusCode::OK, 40));
        // The second time without it.
        nodes.pop();
    }
}

#[tokio::test]
async fn what_nobody_answers_for_is_said() {
    // Red if an answer that lacks slots is taken for a complete one.
    let placement = placement((1, 0), &[1, 2, 3], 1);
    let held = spread(&placement, 40);
    let lost = held[&3].len();
    assert!(lost > 0);
    let mut nodes = start(held).await;
    let gateway = Gateway::new(history(&[placement]), direct(&nodes), limits());
    assert_eq!(count(&gateway.data("/api/v1/query?query=up").await), 40);
    nodes.pop();
    for target in [
        "/api/v1/query?query=up",
        "/api/v1/query_range?query=up&start=970&end=1000&step=15",
        "/api/v1/series?match[]=up",
        "/api/v1/label/instance/values?match[]=up",
    ] {
        let (data, warning) = gateway.partial(target).await;
        assert_eq!(count(&data), 40 - lost, "{target}");
        assert!(warning.contains("node 00000000000000000000000000000003"), "{warning}");
        let and = if target.contains('?') { '&' } else { '?' };
        gateway.refused(&format!("{target}{and}partial_response=false"), 503).await;
    }
    // Lines have no room for warnings.
    gateway.refused("/api/v1/export?match[]=up", 503).await;
    let (status, lines) = gateway.get("/api/v1/export?match[]=up&partial_response=true").await;
    assert_eq!((status, lines.lines().count()), (StatusCode::OK, 40 - lost));
    nodes.clear();
    let body = gateway.refused("/api/v1/query?query=up", 503).await;
    assert!(body.contains("nobody answers"), "{body}");
}

#[tokio::test]
async fn a_node_that_stops_costs_the_health_timeout_once() {
    // Red if silence is noticed when the connection is given up only (after 5 s here), or if each
    // query waits for it anew.
    let placement = placement((1, 0), &[1, 2], 2);
    let nodes = start(spread(&placement, 10)).await;
    let way = Way::to(nodes[1].address).await;
    let known = vec![read_node(&nodes[0], nodes[0].address), read_node(&nodes[1], way.address)];
    let gateway = Gateway::new(history(&[placement]), known, limits());
    assert_eq!(count(&gateway.data("/api/v1/query?query=up").await), 10);
    way.flow.send_replace(Flow::Stops);
    let patience = SILENCE.unhealthy_after * 5;
    let query = "/api/v1/query?query=up";
    let first = tokio::time::timeout(patience, gateway.data(query)).await;
    assert_eq!(count(&first.expect("in time")), 10);
    let ten = async {
        for _ in 0..10 {
            assert_eq!(count(&gateway.data(query).await), 10);
        }
    };
    tokio::time::timeout(patience, ten).await.expect("in time");
    // And back again: the other one goes.
    way.flow.send_replace(Flow::Passes);
    soon(async { while gateway.get("/api/v1/query?query=up").await.0 != StatusCode::OK {} }).await;
}

#[tokio::test]
async fn replicas_make_up_for_what_the_other_missed() {
    // Red if one replica's run is taken for the whole, if a timestamp comes twice, or if the
    // emptier one wins.
    let placement = placement((1, 0), &[1, 2], 2);
    let labels = [("__name__", "up")];
    let full = series(&labels, &[(1_000, 1.0), (2_000, 1.0), (3_000, 1.0), (5_000, 1.0)]);
    let holes = series(&labels, &[(2_000, 7.0), (4_000, 7.0)]);
    for (one, other) in [(&full, &holes), (&holes, &full)] {
        let held = BTreeMap::from([(1, vec![one.clone()]), (2, vec![other.clone()])]);
        let nodes = start(held).await;
        let known = direct(&nodes);
        let gateway = Gateway::new(history(&[Arc::clone(&placement)]), known, limits());
        let data = gateway.data("/api/v1/query?query=up[10s]&time=6").await;
        let want = json!([[1, "1"], [2, "1"], [3, "1"], [4, "7"], [5, "1"]]);
        assert_eq!(data["result"][0]["values"], want);
    }
}

#[tokio::test]
async fn memory_wins_over_blocks_also_from_afar() {
    // Red if the layer is not said (`AnswerSender::pass_on`), lost on the way (`SeriesView`) or not
    // looked at (`Runs::take`): what was written anew in memory would come back from a block.
    let labels = [("__name__", "up")];
    let head = spawn_shard(vec![series(&labels, &[(5_000, 1.0), (7_000, 1.0)])]);
    let below = series(&labels, &[(1_000, 2.0), (5_000, 2.0), (6_000, 2.0)]);
    let (selects, asked) = flume::bounded::<BlockSelect>(4);
    let (requests, _no_reports) = flume::bounded(4);
    std::thread::spawn(move || {
        for BlockSelect { reply, .. } in asked {
            let _gone = reply.send(SelectAnswer::Series(vec![below.clone()]));
            let _gone = reply.send(SelectAnswer::End { series_count: 1 });
        }
    });
    let shards = Shards::new(vec![head]).with_blocks(BlocksHandle { selects, requests });
    let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let nodes = [TestNode::start_with(any, 1, shards).await];
    let placement = placement((1, 0), &[1], 1);
    let gateway = Gateway::new(history(&[placement]), direct(&nodes), limits());
    let data = gateway.data("/api/v1/query?query=up[10s]&time=8").await;
    let want = json!([[1, "2"], [5, "1"], [6, "2"], [7, "1"]]);
    assert_eq!(data["result"][0]["values"], want);
}

#[tokio::test]
async fn a_pinned_shard_key_asks_its_owners_alone() {
    // Red if all nodes are asked: those that died would be missed.
    let strategy = Strategy::ShardBy { labels: vec!["instance".into()] };
    let placement = placement_by(strategy, (1, 0), &[1, 2, 3], 1);
    let held = spread(&placement, 40);
    let of_first = held[&1].len();
    let mut nodes = start(held).await;
    let gateway = Gateway::new(history(&[placement]), direct(&nodes), limits());
    nodes.truncate(1);
    let mut complete = 0;
    for number in 0..40 {
        let target = format!("/api/v1/query?query=up{{instance=%22{number:02}%22}}");
        let (status, body) = gateway.get(&target).await;
        if status == StatusCode::OK {
            let body: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!((body.get("warnings"), count(&body["data"])), (None, 1), "{target}");
            complete += 1;
        } else {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        }
    }
    assert_eq!(complete, of_first);
    let (data, _) = gateway.partial("/api/v1/query?query=up").await;
    assert_eq!(count(&data), of_first);
}

#[tokio::test]
async fn every_epoch_that_overlaps_is_asked_and_no_other() {
    // Red if only the newest placement is asked, or always all.
    let (old, new) = (placement((1, 0), &[1], 1), placement((2, 990_000), &[2], 1));
    let labels = [("__name__", "up")];
    let before = series(&labels, &[(970_000, 1.0), (985_000, 1.0)]);
    let after = series(&labels, &[(995_000, 2.0)]);
    let mut nodes = start(BTreeMap::from([(2, vec![after]), (1, vec![before])])).await;
    let gateway = Gateway::new(history(&[old, new]), direct(&nodes), limits());
    let data = gateway.data("/api/v1/query?query=up[100s]&time=1000").await;
    assert_eq!(data["result"][0]["values"], json!([[970, "1"], [985, "1"], [995, "2"]]));
    nodes.remove(0);
    let (data, _) = gateway.partial("/api/v1/query?query=up[100s]&time=1000").await;
    assert_eq!(data["result"][0]["values"], json!([[995, "2"]]));
    let data = gateway.data("/api/v1/query?query=up[9s]&time=1000").await;
    assert_eq!(data["result"][0]["values"], json!([[995, "2"]]));
}

#[tokio::test]
async fn a_gateway_that_is_behind_says_that_it_may_miss_something() {
    // Red if only gaps between epochs are looked at, or if the answer stays doubtful.
    let old = placement((1, 0), &[1, 2], 2);
    let nodes = start(spread(&old, 10)).await;
    nodes[1].follow(2);
    let gateway = Gateway::new(history(&[Arc::clone(&old)]), direct(&nodes), limits());
    let (data, warning) = gateway.partial("/api/v1/query?query=up").await;
    assert_eq!(count(&data), 10);
    assert!(warning.contains("placement epoch 2 is in force"), "{warning}");
    let new = placement((2, 990_000), &[1, 2], 2);
    gateway.see(history(&[old, new]), direct(&nodes));
    assert_eq!(count(&gateway.data("/api/v1/query?query=up").await), 10);
}

#[tokio::test]
async fn the_fleet_may_change_between_queries() {
    // Red if a client is kept whose node has another address now, or if nothing is known of a node
    // and that is not said.
    let placement = placement((1, 0), &[1], 1);
    let history = history(&[Arc::clone(&placement)]);
    let nodes = start(spread(&placement, 3)).await;
    let gateway = Gateway::new(History::default(), vec![], limits());
    let body = gateway.refused("/api/v1/query?query=up", 503).await;
    assert!(body.contains("placement"), "{body}");
    let change = |nodes: Vec<ReadNode>| {
        let history = history.clone();
        gateway.view.send_replace(Arc::new(ReadView { nodes, history, bounds: BOUNDS }))
    };
    change(vec![]);
    let body = gateway.refused("/api/v1/query?query=up", 503).await;
    assert!(body.contains("address is not known"), "{body}");
    // Nobody listens there any more.
    let gone = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.local_addr().expect("bound")
    };
    change(vec![read_node(&nodes[0], gone)]);
    gateway.refused("/api/v1/query?query=up", 503).await;
    change(direct(&nodes));
    assert_eq!(count(&gateway.data("/api/v1/query?query=up").await), 3);
}

#[tokio::test]
async fn limits_hold_over_the_whole_query() {
    // Red if they hold for each node, or if replicas count twice.
    let placement = placement((1, 0), &[1, 2, 3], 2);
    let nodes = start(spread(&placement, 40)).await;
    let history = history(&[placement]);
    let gateway = |series_max, samples_max| {
        let limits = QueryLimits { series_max, samples_max, ..limits() };
        Gateway::new(history.clone(), direct(&nodes), limits)
    };
    let range = "/api/v1/query?query=up[100s]";
    assert_eq!(count(&gateway(40, 240).data(range).await), 40);
    let body = gateway(39, 240).refused(range, 422).await;
    assert!(body.contains("more than 39 series"), "{body}");
    // 120 samples are decoded, and 120 points made of them.
    let body = gateway(40, 239).refused(range, 422).await;
    assert!(body.contains("too many samples"), "{body}");
    let body = gateway(40, 119).refused(range, 422).await;
    assert!(body.contains("too many samples"), "{body}");
    gateway(39, 240).refused("/api/v1/series?match[]=up", 422).await;
    gateway(39, 240).refused("/api/v1/label/instance/values", 422).await;
}
