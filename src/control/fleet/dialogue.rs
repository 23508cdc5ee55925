//! DRIVER: a gateway's talk with whoever is at an address, about placement.
//!
//! The address is that of a node's first link port. Its welcome says where the node answers
//! questions; there the talk goes on, until the connection is lost, and begins anew. A task an
//! address; questions are bounded, and those that find no room are dropped: what matters is asked
//! again.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::peers::Met;
use crate::base::time::Duration;
use crate::control::reads::client::{NodeClient, NodeStatus};
use crate::control::reads::fault::ReadFault;
use crate::model::placement::NodeId;
use crate::model::placement::agreement::{Answer, Request};
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameKind};
use crate::wire::hello::Welcome;
use crate::wire::link::{Dialler, SilenceLimits};
use crate::wire::proof::LinkSecret;

/// Questions that wait for their turn, or for their answer.
const REQUESTS_MAX: usize = 256;
/// Between dialling and dialling again: at first, and at most.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(2);

/// Who dials, and how.
#[derive(Clone)]
pub(super) struct Dialling {
    pub gateway: u128,
    pub silence: SilenceLimits,
    pub secret: LinkSecret,
}

/// What comes of it.
pub(super) enum Heard {
    /// Somebody is there.
    Met(Met),
    /// Nobody is there, or not any more, and why.
    Lost(String),
    /// To one of the questions.
    Answer(Answer),
}

/// The talk; dropping it ends it.
pub(super) struct Dialogue {
    requests: mpsc::Sender<Request>,
    task: JoinHandle<()>,
}

/// The other half of the gateway is gone.
struct Unheard;

/// One talk's task.
struct Talk {
    address: SocketAddr,
    dialling: Dialling,
    requests: mpsc::Receiver<Request>,
    heard: mpsc::Sender<(SocketAddr, Heard)>,
}

impl Dialogue {
    /// Begins to dial. To be called on a thread of a tokio runtime.
    pub fn start(
        address: SocketAddr,
        dialling: Dialling,
        heard: mpsc::Sender<(SocketAddr, Heard)>,
    ) -> Self {
        let (requests, wanted) = mpsc::channel(REQUESTS_MAX);
        let talk = Talk { address, dialling, requests: wanted, heard };
        let running = tokio::spawn(async move {
            let _unheard = talk.run().await;
        });
        Self { requests, task: running }
    }

    /// Asks, if there is room.
    pub fn ask(&self, request: Request) {
        let _asked_again_later = self.requests.try_send(request);
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Talk {
    async fn run(mut self) -> Result<(), Unheard> {
        let mut again_after = AGAIN_AFTER;
        loop {
            let fault = match self.meet().await {
                Ok((met, client)) => {
                    again_after = AGAIN_AFTER;
                    self.tell(Heard::Met(met)).await?;
                    self.converse(client).await?
                }
                Err(fault) => fault,
            };
            self.tell(Heard::Lost(fault.to_string())).await?;
            tokio::time::sleep(again_after).await;
            again_after = (2 * again_after).min(AGAIN_AFTER_MAX);
            // Whoever asked while nobody was there asks again.
            while self.requests.try_recv().is_ok() {}
        }
    }

    /// Asks at the link port where to ask, and goes there.
    async fn meet(&self) -> Result<(Met, NodeClient), ReadFault> {
        let door = self.client(self.address, (0, 0))?;
        let welcome = door.welcome().await?;
        let port = welcome.read_port().ok_or_else(|| {
            ReadFault::Unreachable("the node names no port for reads: run a newer release".into())
        })?;
        let read = SocketAddr::new(self.address.ip(), port);
        let client = self.client(read, (welcome.node, welcome.shard_count))?;
        let welcome = client.welcome().await?;
        Ok((met(self.address, &welcome, read), client))
    }

    fn client(
        &self,
        address: SocketAddr,
        (node_expected, node_shard): (u128, u32),
    ) -> Result<NodeClient, ReadFault> {
        let Dialling { gateway, silence, secret } = self.dialling.clone();
        let dialler = Dialler {
            gateway,
            gateway_shard: 0,
            gateway_shard_count: 1,
            node_expected,
            node_shard,
        };
        NodeClient::start(address, dialler, silence, secret)
            .map_err(|error| ReadFault::Unreachable(error.to_string()))
    }

    /// Passes questions on until the node is gone; says why it is.
    async fn converse(&mut self, client: NodeClient) -> Result<ReadFault, Unheard> {
        let mut status = client.status();
        let mut under_way = JoinSet::new();
        loop {
            let down = match &*status.borrow_and_update() {
                NodeStatus::Down(fault) => Some(fault.clone()),
                NodeStatus::Dialling | NodeStatus::Up(_) => None,
            };
            if let Some(fault) = down {
                return Ok(fault);
            }
            tokio::select! {
                changed = status.changed() => if changed.is_err() {
                    return Ok(ReadFault::Stopped);
                },
                request = self.requests.recv(), if under_way.len() < REQUESTS_MAX => {
                    let request = request.ok_or(Unheard)?;
                    under_way.spawn(ask(client.clone(), request));
                }
                Some(Ok(answer)) = under_way.join_next(), if !under_way.is_empty() => {
                    if let Some(answer) = answer {
                        self.tell(Heard::Answer(answer)).await?;
                    }
                }
            }
        }
    }

    async fn tell(&self, heard: Heard) -> Result<(), Unheard> {
        self.heard.send((self.address, heard)).await.map_err(|_| Unheard)
    }
}

/// `None`: it got lost, which the connection's end tells too.
async fn ask(client: NodeClient, request: Request) -> Option<Answer> {
    let (header, frame) = client.request(request.encode_frame()).await.ok()?;
    if header.kind != FrameKind::PlacementAnswer {
        return Some(Answer::Failed { text: format!("a {:?} frame answers", header.kind) });
    }
    Some(match Answer::decode(&header, &frame[FRAME_HEADER_BYTES..]) {
        Ok(Ok(answer)) => answer,
        Ok(Err(fault)) => Answer::Failed { text: format!("its document cannot be read: {fault}") },
        Err(fault) => Answer::Failed { text: format!("its answer cannot be read: {fault:?}") },
    })
}

fn met(address: SocketAddr, welcome: &Welcome, read: SocketAddr) -> Met {
    let ports = welcome.link_ports.iter().take(welcome.shard_count as usize);
    Met {
        node: NodeId(welcome.node),
        incarnation: welcome.incarnation,
        shards: ports.map(|port| SocketAddr::new(address.ip(), *port)).collect(),
        read,
    }
}
