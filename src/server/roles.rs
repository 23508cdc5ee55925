//! DRIVER: what the shards of a gateway, of a node, or of both in one process are given: secrets,
//! link ports, links.

use crate::background::folder::{FolderLock, lock_folder};
use crate::background::hints::{FoundHints, HintBoard, Hints, HintsConfig, StartedHints};
use crate::base::chance::Chance;
use crate::base::time::{Duration, unix_now_ms};
use crate::control::config::Config;
use crate::control::config::role::Role;
use crate::control::reads::own_hints::{HintFiguresSource, OwnHints};
use crate::gateway::fleet::FleetMail;
use crate::gateway::hint::command::HintEvent;
use crate::gateway::hint::log::HintLimits;
use crate::gateway::links::{Links, LinksConfig};
use crate::model::placement::NodeId;
use crate::server::halves::{Halves, WINDOW};
use crate::server::link_port::{LinkPort, LinkPortParts};
use crate::server::link_side::{HintWay, LinkSide};
use crate::server::rules::ack_policy;
use crate::server::start::StartFault;
use crate::server::threads::Queues;
use crate::server::threads::bind_listeners;
use crate::wire::frame::FRAME_BYTES_MAX;
use crate::wire::link::SilenceLimits;
use crate::wire::proof::{LinkSecret, SECRET_BYTES_MIN};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// In the data folder.
const HINTS_NAME: &str = "hints";
const HINT_SEGMENT_BYTES: u64 = 64 << 20;
/// So often nodes are told what is kept for them, at most.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// What both ends take where no secret was given: links stay on this host then.
const SECRET_OF_THIS_HOST: &[u8] = b"tidegate links that stay on this host";

/// What makes the [`Halves`] of each shard.
pub enum Roles {
    /// Gateway and node together.
    Together,
    /// A gateway.
    Gateway(GatewayRole),
    /// A node.
    Node(NodeRole),
}

/// What the shards of a gateway share.
pub struct GatewayRole {
    /// Who it is.
    pub identity: GatewayIdentity,
    shard_count: u32,
    kept_bytes_max: u64,
    data: PathBuf,
    hint_limits: HintLimits,
}

/// A gateway's keeper of hints.
pub struct KeptHints {
    /// To join, when the shards are gone.
    pub hints: Hints,
    /// For `/metrics`.
    pub board: HintBoard,
    /// When it is another.
    changes: flume::Receiver<()>,
    /// Names the folder.
    keeper: u128,
    /// No other process keeps hints in the folder meanwhile.
    _lock: FolderLock,
}

/// A gateway, as it says who it is.
#[derive(Clone)]
pub struct GatewayIdentity {
    /// Drawn when the process started.
    pub gateway: u128,
    /// What both ends know.
    pub secret: LinkSecret,
    /// When a node counts as silent.
    pub silence: SilenceLimits,
}

/// What the shards of a node share.
pub struct NodeRole {
    /// What both ends know.
    pub secret: LinkSecret,
    /// The placement that is in force.
    pub epoch: Arc<AtomicU64>,
    listeners: Vec<Option<socket2::Socket>>,
}

impl Roles {
    /// What the shards of a process with this role need; binds a node's link ports.
    pub fn new(role: Role, config: &Config) -> Result<Self, StartFault> {
        match role {
            Role::Standalone => Ok(Self::Together),
            Role::Gateway => GatewayRole::new(config).map(Self::Gateway),
            Role::Node => {
                let bind = |shard: u32| {
                    let port = u32::from(config.link.port()) + shard;
                    let port = u16::try_from(port).expect("checked with the configuration");
                    let address = SocketAddr::new(config.link.ip(), port);
                    bind_listeners(&[address], 1).map(|listeners| listeners.into_iter().flatten())
                };
                let mut listeners = Vec::new();
                for shard in 0..config.shards {
                    listeners.extend(bind(shard)?.map(Some));
                }
                let (secret, epoch) = (link_secret(config)?, Arc::default());
                Ok(Self::Node(NodeRole { secret, epoch, listeners }))
            }
        }
    }

    /// Starts a gateway's keeper of hints; a way to it for each shard.
    pub fn start_hints(
        &self,
        (senders, receivers): Queues<HintEvent>,
    ) -> Result<(Option<KeptHints>, Vec<HintWay>), StartFault> {
        let Self::Gateway(role) = self else { return Ok((None, Vec::new())) };
        let lock = lock_folder(&role.data).map_err(StartFault::Folder)?;
        let folder = role.data.join(HINTS_NAME);
        let keeper_if_new = role.identity.gateway;
        let config = HintsConfig { folder, limits: role.hint_limits, keeper_if_new };
        let started = Hints::start(&config, senders).map_err(StartFault::Hints)?;
        let StartedHints { hints, sender, board, changes, keeper, found } = started;
        for FoundHints { node, segments, figures, damaged } in &found {
            let (samples, bytes) = (figures.samples, figures.bytes);
            tracing::info!(%node, segments, samples, bytes, "hints wait for a node");
            if !damaged.is_empty() {
                tracing::error!(%node, ?damaged, "hints are damaged; what is whole is kept");
            }
        }
        let waiting: Vec<NodeId> = found.iter().map(|found| found.node).collect();
        let started_ms = unix_now_ms();
        let way = |events| HintWay {
            sender: sender.clone(),
            events,
            waiting: waiting.clone(),
            started_ms,
        };
        let ways = receivers.into_iter().map(way).collect();
        Ok((Some(KeptHints { hints, board, changes, keeper, _lock: lock }), ways))
    }

    /// The halves of a shard; each shard once.
    pub fn halves(
        &mut self,
        shard: u32,
        fleets: flume::Receiver<FleetMail>,
        hints: Option<HintWay>,
    ) -> Result<Halves, StartFault> {
        match self {
            Self::Together => Ok(Halves::Together),
            Self::Gateway(role) => {
                let config = LinksConfig {
                    gateway: role.identity.gateway,
                    shard,
                    shard_count: role.shard_count,
                    secret: role.identity.secret.clone(),
                    silence: role.identity.silence,
                    kept_bytes_max: role.kept_bytes_max,
                };
                let mut chance = Chance::open().map_err(StartFault::Chance)?;
                let links = Links::new(config, Box::new(move || chance.draw()));
                let hints = hints.expect("a gateway's shards have a way to its hints");
                Ok(Halves::Gateway(Box::new(LinkSide::new(shard, links, fleets, hints))))
            }
            Self::Node(role) => {
                let listener = role.listeners[shard as usize].take();
                let parts = LinkPortParts {
                    listener: listener.expect("each shard once"),
                    secret: role.secret.clone(),
                    chance: Chance::open().map_err(StartFault::Chance)?,
                    epoch: Arc::clone(&role.epoch),
                };
                Ok(Halves::Node(Box::new(LinkPort::new(parts))))
            }
        }
    }
}

impl KeptHints {
    /// What is kept, for the gateway's reads and for the nodes, told on `handle`.
    pub fn own(&self, config: &Config, handle: &Handle) -> OwnHints {
        let (teller, changes) = watch::channel(());
        let of_board = self.changes.clone();
        handle.spawn(async move {
            while of_board.recv_async().await.is_ok() {
                teller.send_replace(());
                tokio::time::sleep(TELL_EVERY).await;
            }
        });
        let board = self.board.clone();
        let figures: HintFiguresSource = Arc::new(move || board.read());
        let ack = ack_policy(config);
        OwnHints { keeper: self.keeper, ack, figures, changes, view: None }
    }
}

impl GatewayRole {
    /// A gateway that nobody has heard of.
    pub fn new(config: &Config) -> Result<Self, StartFault> {
        let gateway = u128::from_le_bytes(Chance::open().map_err(StartFault::Chance)?.draw());
        let (secret, silence) = (link_secret(config)?, silence_limits(config));
        Ok(Self {
            identity: GatewayIdentity { gateway, secret, silence },
            shard_count: config.shards,
            kept_bytes_max: 2 * FRAME_BYTES_MAX as u64 + WINDOW.bytes,
            data: config.data.clone(),
            hint_limits: HintLimits {
                node_bytes_max: config.hint_bytes_max.0,
                bytes_max: config.hint_bytes_max.0,
                age_max_ms: config.hint_age_max.as_ms(),
                segment_bytes: HINT_SEGMENT_BYTES,
            },
        })
    }
}

/// The secret of the fleet.
fn link_secret(config: &Config) -> Result<LinkSecret, StartFault> {
    let path = &config.link_secret_file;
    let fault = |cause: String| StartFault::Secret { path: path.clone(), cause };
    let text = if path.as_os_str().is_empty() {
        SECRET_OF_THIS_HOST.to_vec()
    } else {
        std::fs::read(path).map_err(|error| fault(error.to_string()))?
    };
    // What an editor or `base64` puts at the end is no part of it.
    LinkSecret::new(text.trim_ascii_end()).map_err(|short| {
        fault(format!("it has {} bytes, and needs {SECRET_BYTES_MIN}", short.len_bytes))
    })
}

/// Silence as `health-timeout` has it: four pings fit in.
pub fn silence_limits(config: &Config) -> SilenceLimits {
    let unhealthy_after = config.health_timeout.duration();
    SilenceLimits {
        ping_after: unhealthy_after / 4,
        unhealthy_after,
        close_after: unhealthy_after * 5,
        handshake_within: unhealthy_after,
    }
}
