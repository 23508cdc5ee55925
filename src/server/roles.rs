//! DRIVER: what the shards of a gateway, of a node, or of both in one process are given: secrets,
//! link ports, links.

use crate::base::chance::Chance;
use crate::control::config::Config;
use crate::control::config::role::Role;
use crate::gateway::fleet::Fleet;
use crate::gateway::links::{Links, LinksConfig};
use crate::server::halves::{Halves, WINDOW};
use crate::server::link_port::{LinkPort, LinkPortParts};
use crate::server::link_side::LinkSide;
use crate::server::start::StartFault;
use crate::server::threads::bind_listeners;
use crate::wire::frame::FRAME_BYTES_MAX;
use crate::wire::link::SilenceLimits;
use crate::wire::proof::{LinkSecret, SECRET_BYTES_MIN};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

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

    /// The halves of a shard; each shard once.
    pub fn halves(
        &mut self,
        shard: u32,
        fleets: flume::Receiver<Arc<Fleet>>,
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
                Ok(Halves::Gateway(Box::new(LinkSide::new(shard, links, fleets))))
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

impl GatewayRole {
    /// A gateway that nobody has heard of.
    pub fn new(config: &Config) -> Result<Self, StartFault> {
        let gateway = u128::from_le_bytes(Chance::open().map_err(StartFault::Chance)?.draw());
        let (secret, silence) = (link_secret(config)?, silence_limits(config));
        Ok(Self {
            identity: GatewayIdentity { gateway, secret, silence },
            shard_count: config.shards,
            kept_bytes_max: 2 * FRAME_BYTES_MAX as u64 + WINDOW.bytes,
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
