//! DRIVER: what of a fleet is in the control plane: a gateway finds and follows it, a node keeps
//! its placement and answers for it.

use crate::base::chance::Chance;
use crate::base::queue::QueueSender;
use crate::base::time::unix_now_ms;
use crate::control::config::Config;
use crate::control::discovery::driver::{self, AskOptions};
use crate::control::discovery::entry::parse_entries;
use crate::control::discovery::schedule::DiscoveryCounts;
use crate::control::fleet::answering::answer_placement;
use crate::control::fleet::follower::{FleetView, FollowerConfig};
use crate::control::fleet::following::{FleetHandle, FollowingConfig, follow};
use crate::control::fleet::store::{NodePlacement, PlacementFault};
use crate::control::readiness::ServerState;
use crate::control::reads::answering::OtherQuestion;
use crate::control::reads::fleet::FleetReads;
use crate::control::reads::own_hints::OwnHints;
use crate::control::reads::view::{ReadNode, ReadView};
use crate::control::reads::warm::warm;
use crate::gateway::fleet::FleetMail;
use crate::model::placement::{NodeId, SampleBounds, Strategy};
use crate::server::roles::GatewayIdentity;
use crate::server::rules::sample_bounds;
use crate::server::start::StartFault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Questions about placement that wait for an answer.
const QUESTIONS_MAX: usize = 64;

/// What the shards of a gateway are told by, and its readiness.
pub struct Followers {
    /// A queue to each shard.
    pub shards: Vec<QueueSender<FleetMail>>,
    /// Ready once there is a fleet.
    pub state: Arc<ServerState>,
    /// What the gateway keeps for nodes.
    pub hints: Option<OwnHints>,
}

/// What the control plane has of the fleet.
pub struct Followed {
    /// For commands.
    pub fleet: FleetHandle,
    /// For queries.
    pub reads: FleetReads,
    /// For metrics.
    pub discovery: watch::Receiver<DiscoveryCounts>,
}

/// Finds the nodes, and follows what they agree on, for as long as the control plane runs.
pub fn follow_fleet(
    config: &Config,
    identity: GatewayIdentity,
    followers: Followers,
    handle: &Handle,
) -> Result<Followed, StartFault> {
    let fault = |cause: String| StartFault::Nodes { cause };
    let entries = parse_entries(&config.nodes.0).map_err(|error| fault(error.to_string()))?;
    let dns_server = match config.dns_server.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| fault(format!("`{text}` is no IP:PORT")))?),
    };
    let seeds = driver::start(entries, AskOptions { dns_server, ..AskOptions::default() }, handle);
    let GatewayIdentity { gateway, secret, silence } = identity;
    let following = FollowingConfig {
        follower: FollowerConfig {
            replication: config.replication,
            strategy: Strategy::of(config.group_rules.0.clone(), config.shard_by.0.clone()),
            is_auto_join: config.auto_join,
            bounds: sample_bounds(config),
            retention_ms: config.retention.as_ms(),
        },
        gateway,
        silence,
        secret,
        chance: u128::from_le_bytes(Chance::open().map_err(StartFault::Chance)?.draw()),
    };
    let (gateway, secret) = (following.gateway, following.secret.clone());
    let bounds = following.follower.bounds;
    let (fleet, following) = follow(following, seeds.seeds, |_| {});
    handle.spawn(following);
    let (teller, view) = watch::channel(Arc::new(ReadView::unknown(bounds)));
    let reads = FleetReads::new(view, (gateway, followers.hints.clone()), silence, secret);
    handle.spawn(tell_reads(fleet.view(), teller, bounds));
    handle.spawn(reads.clone().follow());
    handle.spawn(warm(reads.clone(), followers.shards.clone()));
    handle.spawn(tell_shards(fleet.view(), followers));
    Ok(Followed { fleet, reads, discovery: seeds.counts })
}

/// Keeps what reads go by true.
async fn tell_reads(
    mut view: watch::Receiver<Arc<FleetView>>,
    teller: watch::Sender<Arc<ReadView>>,
    bounds: SampleBounds,
) {
    loop {
        let now = Arc::clone(&view.borrow_and_update());
        let history = now.history.clone();
        let node = |(&id, &(address, shard_count))| ReadNode { id, shard_count, address };
        let nodes = now.reads.iter().map(node).collect();
        teller.send_replace(Arc::new(ReadView { nodes, history, bounds }));
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// Hands every fleet to every shard, in order.
async fn tell_shards(mut view: watch::Receiver<Arc<FleetView>>, followers: Followers) {
    let Followers { shards, state, .. } = followers;
    loop {
        let fleet = view.borrow_and_update().fleet.clone();
        if let Some(fleet) = fleet {
            for shard in &shards {
                if shard.push(FleetMail::Fleet(Arc::clone(&fleet))).await.is_err() {
                    return;
                }
            }
            state.set_ready();
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// Opens a node's placement and answers for it; `epoch` is true when this returns, and kept so. The
/// way for questions.
pub fn keep_placement(
    config: &Config,
    node: u128,
    epoch: Arc<AtomicU64>,
    handle: &Handle,
) -> Result<flume::Sender<OtherQuestion>, PlacementFault> {
    let said = |text: &String| (!text.is_empty()).then(|| text.clone());
    let placement = NodePlacement::open(&config.data, NodeId(node), said(&config.zone))?;
    let placement = placement.in_group(said(&config.group));
    epoch.store(placement.epoch_in_force(unix_now_ms()), Ordering::Relaxed);
    let (sender, questions) = flume::bounded(QUESTIONS_MAX);
    handle.spawn(answer_placement(Arc::new(placement), questions, epoch));
    Ok(sender)
}
