//! DRIVER: a node's port for reads, in the control plane: opened when the node has replayed.

use crate::background::folder::Manifest;
use crate::base::time::Duration;
use crate::control::config::Config;
use crate::control::deletion::Deleter;
use crate::control::readiness::{Readiness, ServerState};
use crate::control::reads::answering::{Answering, AnsweringLimits, NodeIdentity, OtherQuestion};
use crate::control::reads::lacking::NewsWithin;
use crate::control::reads::server::{NodeStanding, ReadServer, ReadServerConfig};
use crate::control::shards::Shards;
use crate::server::fleet_control::keep_placement;
use crate::server::halves::receiver_config;
use crate::server::recover::RecoverFault;
use crate::server::start::StartFault;
use crate::server::threads;
use crate::wire::health::NodeState;
use crate::wire::proof::LinkSecret;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Connections of gateways to the port: each has one that stays, and one for each query.
const CONNECTIONS_MAX: u32 = 1024;
/// How long gateways may take to say what they keep for a node that starts, or that none of them
/// reached: they dial it at least once a second, and wait for an answer as long.
const NEWS_WITHIN: Duration = Duration::from_secs(3);
/// How often it is looked at how the node is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The port, bound and not open yet.
pub struct ReadPort {
    /// Bound and listening.
    pub listener: TcpListener,
    /// What both ends know.
    pub secret: LinkSecret,
    /// The placement that is in force.
    pub epoch: Arc<AtomicU64>,
}

/// The port of a node that knows which placement is in force.
pub struct PlacedPort {
    port: ReadPort,
    placement: flume::Sender<OtherQuestion>,
    deleter: Option<Deleter>,
}

impl ReadPort {
    /// Binds the port behind those of the shards.
    pub fn bind(
        config: &Config,
        secret: LinkSecret,
        epoch: Arc<AtomicU64>,
    ) -> Result<Self, StartFault> {
        let port = u32::from(config.link.port()) + config.shards;
        let port = u16::try_from(port).expect("checked with the configuration");
        let address = SocketAddr::new(config.link.ip(), port);
        let bound = threads::bind_listeners(&[address], 1)?.into_iter().flatten().next();
        let listener: TcpListener = bound.expect("one address, one shard").into();
        let fault = |error| StartFault::Listen { address, error };
        listener.set_nonblocking(true).map_err(fault)?;
        Ok(Self { listener, secret, epoch })
    }

    /// Opens the placement of `node`: the epoch is true from now on.
    pub fn keep_placement(
        self,
        config: &Config,
        node: u128,
        handle: &Handle,
    ) -> Result<PlacedPort, RecoverFault> {
        let placement = keep_placement(config, node, Arc::clone(&self.epoch), handle);
        let placement = placement.map_err(RecoverFault::Placement)?;
        Ok(PlacedPort { port: self, placement, deleter: None })
    }
}

impl PlacedPort {
    /// The same, where gateways may delete.
    pub fn with_deleter(self, deleter: Deleter) -> Self {
        Self { deleter: Some(deleter), ..self }
    }

    /// Lets gateways in from now on, until the control plane ends.
    pub fn open(
        self,
        config: &Config,
        (manifest, shards): (Manifest, Shards),
        (state, handle): (Arc<ServerState>, &Handle),
    ) -> Result<(), RecoverFault> {
        let Self { port: ReadPort { listener, secret, epoch }, placement, deleter } = self;
        let receiver = receiver_config(&manifest, manifest.shards, config.link.port());
        // One that never was in a placement has missed nothing.
        let is_new = epoch.load(Ordering::Relaxed) == 0;
        let first = if is_new { Duration::ZERO } else { NEWS_WITHIN };
        let limits = AnsweringLimits {
            selects_max: config.query_concurrency_max,
            wait_max: config.query_wait_max.duration(),
            news_within: NewsWithin { first, later: NEWS_WITHIN },
        };
        let who = NodeIdentity { node: manifest.node, incarnation: manifest.incarnation };
        let mut answering = Answering::new(shards, who, limits)
            .with_others(placement)
            .with_store(Arc::clone(state.store()));
        if let Some(deleter) = deleter {
            answering = answering.with_deleter(deleter);
        }
        let look = move || NodeStanding {
            state: node_state(&state),
            placement_epoch: epoch.load(Ordering::Relaxed),
        };
        let (teller, standing) = watch::channel(look());
        let config = ReadServerConfig { receiver, connections_max: CONNECTIONS_MAX };
        let server = ReadServer::new(config, secret, answering, standing);
        let server = server.map_err(RecoverFault::ReadPort)?;
        let _inside = handle.enter();
        let listener =
            tokio::net::TcpListener::from_std(listener).map_err(RecoverFault::ReadPort)?;
        handle.spawn(server.serve(listener));
        handle.spawn(async move {
            while !teller.is_closed() {
                tokio::time::sleep(LOOK_EVERY).await;
                let now = look();
                teller.send_if_modified(|was| std::mem::replace(was, now) != now);
            }
        });
        Ok(())
    }
}

fn node_state(state: &ServerState) -> NodeState {
    match state.readiness() {
        Readiness::Ready => NodeState::Ready,
        Readiness::Replaying { .. } | Readiness::NoFleet => NodeState::Replaying,
        Readiness::Draining => NodeState::Draining,
        Readiness::DiskLow => NodeState::DiskFull,
        Readiness::LogFailed { .. } => NodeState::LogFailed,
    }
}
