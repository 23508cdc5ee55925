//! DRIVER: nodes with real ports on this host, and a way to them that can stop and be cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::control::deletion::Deleter;
use crate::control::reads::answering::{Answering, AnsweringLimits, NodeIdentity};
use crate::control::reads::client::NodeClient;
use crate::control::reads::lacking::NewsWithin;
use crate::control::reads::own_hints::{HintFiguresSource, OwnHints};
use crate::control::reads::server::{NodeStanding, ReadServer, ReadServerConfig};
use crate::control::shards::{ShardHandle, Shards};
use crate::gateway::hint::log::HintFigures;
use crate::gateway::owner::AckPolicy;
use crate::model::placement::NodeId;
use crate::node::block::request::StoreHealth;
use crate::wire::health::NodeState;
use crate::wire::link::{Dialler, ReceiverConfig, SilenceLimits, WindowLimits};
use crate::wire::proof::LinkSecret;

pub const INCARNATION: u64 = 4;
/// Short, so that tests are.
pub const SILENCE: SilenceLimits = SilenceLimits {
    ping_after: Duration::from_millis(100),
    unhealthy_after: Duration::from_millis(400),
    close_after: Duration::from_secs(5),
    handshake_within: Duration::from_secs(5),
};

pub fn secret(text: &str) -> LinkSecret {
    LinkSecret::new(text.as_bytes()).expect("long enough")
}

/// A node whose port for reads is open until it is dropped.
pub struct TestNode {
    pub address: SocketAddr,
    pub shard_count: u32,
    id: u128,
    task: JoinHandle<()>,
    standing: watch::Sender<NodeStanding>,
    /// How its blocks are.
    pub store: Arc<StoreHealth>,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestNode {
    pub async fn start(id: u128, shards: Vec<ShardHandle>) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), id, shards).await
    }

    pub async fn start_at(address: SocketAddr, id: u128, shards: Vec<ShardHandle>) -> Self {
        Self::start_with(address, id, Shards::new(shards)).await
    }

    pub async fn start_with(address: SocketAddr, id: u128, shards: Shards) -> Self {
        let at_once = NewsWithin { first: Duration::ZERO, later: Duration::ZERO };
        Self::start_awaiting(at_once, (address, id), shards).await
    }

    /// One that waits for gateways to tell what it missed.
    pub async fn start_awaiting(
        news_within: NewsWithin,
        (address, id): (SocketAddr, u128),
        shards: Shards,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shard_count = u32::try_from(shards.len()).expect("few");
        let receiver = ReceiverConfig {
            node: id,
            incarnation: INCARNATION,
            shard: shard_count,
            shard_count,
            link_ports: vec![1; shards.len() + 1],
            window: WindowLimits { frames: 16, bytes: 1 << 20 },
            links_max: 1,
            strangers_max: 4,
            answer_bytes_max: 1 << 20,
            silence: SILENCE,
        };
        let identity = NodeIdentity { node: id, incarnation: INCARNATION };
        let wait_max = Duration::from_millis(100);
        let limits = AnsweringLimits { selects_max: 4, wait_max, news_within };
        let deleter = Deleter::new(shards.clone());
        let store = Arc::<StoreHealth>::default();
        let answering = Answering::new(shards, identity, limits)
            .with_deleter(deleter)
            .with_store(Arc::clone(&store));
        let standing = NodeStanding { state: NodeState::Ready, placement_epoch: 1 };
        let (teller, standing) = watch::channel(standing);
        let config = ReadServerConfig { receiver, connections_max: 64 };
        let server = ReadServer::new(config, secret("the fleet's secret"), answering, standing);
        let task = tokio::spawn(server.expect("a kernel").serve(listener));
        Self { address, shard_count, id, task, standing: teller, store }
    }

    /// It follows this placement from now on.
    pub fn follow(&self, placement_epoch: u64) {
        self.standing.send_modify(|standing| standing.placement_epoch = placement_epoch);
    }

    pub fn dialler(&self) -> Dialler {
        Dialler {
            gateway: 99,
            gateway_shard: 0,
            gateway_shard_count: 1,
            node_expected: self.id,
            node_shard: self.shard_count,
        }
    }

    pub fn id(&self) -> u128 {
        self.id
    }

    pub fn client(&self) -> NodeClient {
        self.client_at(self.address)
    }

    /// A gateway that keeps `hints`.
    pub fn client_telling(&self, hints: OwnHints) -> NodeClient {
        let way = (self.address, self.dialler());
        let secret = secret("the fleet's secret");
        NodeClient::start_telling(hints, way, SILENCE, secret).expect("a kernel")
    }

    pub fn client_at(&self, address: SocketAddr) -> NodeClient {
        let secret = secret("the fleet's secret");
        NodeClient::start(address, self.dialler(), SILENCE, secret).expect("a kernel")
    }
}

/// What a gateway keeps, as a test has it.
pub struct TestHints {
    figures: Arc<Mutex<Vec<(NodeId, HintFigures)>>>,
    teller: watch::Sender<()>,
    pub own: OwnHints,
}

impl TestHints {
    /// Nothing yet.
    pub fn new(keeper: u128) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (teller, changes) = watch::channel(());
        let shown = Arc::clone(&kept);
        let read = move || shown.lock().expect("nobody panics with it").clone();
        let figures: HintFiguresSource = Arc::new(read);
        let ack = AckPolicy::All;
        let own = OwnHints { keeper, ack, figures, changes, view: None };
        Self { figures: kept, teller, own }
    }

    /// Says nothing of changes from now on.
    pub fn mute(&mut self) {
        (self.teller, _) = watch::channel(());
    }

    /// So many samples for one node, and for no other.
    pub fn keep(&self, node: u128, samples: u64) {
        let one = HintFigures { samples, ..HintFigures::default() };
        *self.figures.lock().expect("nobody panics with it") = vec![(NodeId(node), one)];
        self.teller.send_replace(());
    }
}

/// Nobody who takes answers lets them wait so long.
const STUCK_AFTER: Duration = Duration::from_millis(500);

/// What becomes of bytes from a node to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They arrive.
    Passes,
    /// They wait.
    Stops,
    /// So many more of a connection arrive, then it is cut.
    CutAfter(usize),
}

/// A way to a node.
pub struct Way {
    pub address: SocketAddr,
    pub flow: watch::Sender<Flow>,
    task: JoinHandle<()>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Way {
    pub async fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (flow, flowing) = watch::channel(Flow::Passes);
        let task = tokio::spawn(async move {
            while let Ok((gateway, _)) = listener.accept().await {
                let Ok(node) = TcpStream::connect(node).await else { continue };
                tokio::spawn(carry(gateway, node, flowing.clone()));
            }
        });
        Self { address, flow, task }
    }
}

async fn carry(gateway: TcpStream, node: TcpStream, mut flow: watch::Receiver<Flow>) {
    let (mut from_gateway, mut to_gateway) = gateway.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let up = async move {
        let _is_closed = tokio::io::copy(&mut from_gateway, &mut to_node).await;
    };
    let down = async move {
        let mut bytes = vec![0; 4096];
        let mut passed_since = (Flow::Passes, 0);
        loop {
            let Ok(count @ 1..) = from_node.read(&mut bytes).await else { return };
            let Ok(now) = flow.wait_for(|flow| *flow != Flow::Stops).await.map(|flow| *flow) else {
                return;
            };
            if passed_since.0 != now {
                passed_since = (now, 0);
            }
            passed_since.1 += count;
            if matches!(now, Flow::CutAfter(most) if passed_since.1 > most) {
                return;
            }
            if to_gateway.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// Waits for what must come soon.
#[track_caller]
pub fn soon<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let patience = Duration::from_secs(20);
        let done = tokio::time::timeout(patience, work).await;
        done.unwrap_or_else(|_| panic!("{caller}: it takes too long"))
    }
}

/// As a test's shard list.
pub fn shards(handles: impl IntoIterator<Item = ShardHandle>) -> Vec<ShardHandle> {
    handles.into_iter().collect()
}

/// A shard whose answers are endless. Tells when there was no room for one for a while, and when
/// nobody wants more.
pub fn endless_shard(label: &str) -> (ShardHandle, flume::Receiver<&'static str>) {
    use crate::base::queue::{NoWake, QueueSender};
    use crate::control::fake_shards::series;
    use crate::control::shards::ShardRequest;
    use crate::wire::select::SelectAnswer;

    let (sender, requests) = flume::bounded(8);
    let (teller, told) = flume::unbounded();
    let samples: Vec<(i64, f64)> = (0..20_000).map(|at| (at, at as f64 * 0.1)).collect();
    let one = series(&[("__name__", label)], &samples);
    std::thread::spawn(move || {
        for request in requests {
            let ShardRequest::Select { reply, .. } = request else { continue };
            let mut answer = SelectAnswer::Series(vec![one.clone()]);
            loop {
                answer = match reply.send_timeout(answer, STUCK_AFTER) {
                    Ok(()) => SelectAnswer::Series(vec![one.clone()]),
                    Err(flume::SendTimeoutError::Timeout(same)) => {
                        let _nobody_listens = teller.send("stuck");
                        same
                    }
                    Err(flume::SendTimeoutError::Disconnected(_)) => break,
                };
            }
            let _nobody_listens = teller.send("unwanted");
        }
    });
    (ShardHandle::new(QueueSender::new(sender, Arc::new(NoWake))), told)
}
