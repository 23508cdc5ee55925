//! DRIVER: from a configuration to a running process, and to its end.
//!
//! Order: data folder, listeners, shards (each makes its ring on its own thread), control plane,
//! recovery on a thread of its own while clients already get 503. Errors before that name the cause
//! and what to do.

use crate::background::executor::Background;
use crate::background::folder::{DataFolder, DirectIo, FolderFault, Manifest};
use crate::background::hints::HintsFault;
use crate::base::time::{Duration, unix_now_ms};
use crate::control::api::{self, ApiState};
use crate::control::config::Config;
use crate::control::config::role::Role;
use crate::control::deletion::Deleter;
use crate::control::fleet;
use crate::control::readiness::ServerState;
use crate::control::server::{ControlPlane, ControlRequest};
use crate::control::shards::{BlocksHandle, ShardHandle, Shards};
use crate::ring::{RingSetupError, limits};
use crate::server::fleet_control::{Followed, Followers, follow_fleet};
use crate::server::life::Life;
use crate::server::read_port::ReadPort;
use crate::server::recover::{BlockQueues, RecoverFault, Recovered, recover};
use crate::server::roles::{GatewayRole, Roles};
use crate::server::rules::{self, NodeRules};
use crate::server::signals;
use crate::server::threads::{
    BackgroundQueue, NodeHandover, Process, ShardThreads, bind_listeners, start_shards,
};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io, thread};

/// Requests that may wait for the control plane.
const CONTROL_REQUESTS: usize = 1024;
/// Selects on blocks that may wait for a reader, and other requests to the blocks.
const BLOCK_SELECTS: usize = 64;
const BLOCK_REQUESTS: usize = 16;
/// How long the control plane's threads may take to end.
const CONTROL_GRACE: Duration = Duration::from_secs(1);

/// Why the process cannot serve.
#[derive(Debug)]
pub enum StartFault {
    /// The data folder.
    Folder(FolderFault),
    /// A listener.
    Listen { address: SocketAddr, error: io::Error },
    /// A shard's ring.
    Ring(RingSetupError),
    /// A thread.
    Thread(io::Error),
    /// What is on disk.
    Recover(RecoverFault),
    /// The secret of the links.
    Secret { path: PathBuf, cause: String },
    /// The hints on a gateway's disk.
    Hints(HintsFault),
    /// What `--nodes` or `--dns-server` say.
    Nodes { cause: String },
    /// The kernel's source of chance.
    Chance(io::Error),
}

impl fmt::Display for StartFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(fault) => fault.fmt(out),
            Self::Listen { address, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                out,
                "cannot listen on {address}: the port is taken; stop the process that has it \
                 (`ss -ltnp` names it) or choose another address"
            ),
            Self::Listen { address, error } => {
                write!(out, "cannot listen on {address}: {error}; choose an address of this host")
            }
            Self::Ring(fault) => fault.fmt(out),
            Self::Thread(error) => write!(out, "cannot start a thread: {error}"),
            Self::Recover(fault) => fault.fmt(out),
            Self::Secret { path, cause } => write!(
                out,
                "cannot use the link secret {}: {cause}; make one with \
                 `head -c 32 /dev/urandom | base64`, the same for all gateways and nodes",
                path.display()
            ),
            Self::Hints(fault) => fault.fmt(out),
            Self::Nodes { cause } => out.write_str(cause),
            Self::Chance(error) => write!(out, "cannot open /dev/urandom: {error}"),
        }
    }
}

impl std::error::Error for StartFault {}

/// What the main thread is told while it waits.
pub(super) enum Notice {
    /// A first signal arrived.
    Drain,
    /// A shard's thread has ended.
    ShardEnded,
    /// Recovery ended, well or not.
    Recovered(Result<Background, RecoverFault>),
}

/// What a process of each role has in common, once its shards run.
struct Running {
    process: Process,
    shards: ShardThreads,
    control_requests: flume::Receiver<ControlRequest>,
    notices: flume::Sender<Notice>,
    inbox: flume::Receiver<Notice>,
}

/// Runs a process of `role` until a signal ends it; returns once everything accepted is answered,
/// or the time for that is over.
pub fn serve(role: Role, config: &Config) -> Result<(), StartFault> {
    limits::check_host().map_err(StartFault::Ring)?;
    match role {
        Role::Standalone | Role::Node => serve_node(role, config),
        Role::Gateway => serve_gateway(config),
    }
}

/// What stores: gateway and node in one, or a node.
fn serve_node(role: Role, config: &Config) -> Result<(), StartFault> {
    let folder = open_folder(config, config.shards)?;
    let addresses = if role == Role::Node { &config.http.0 } else { &config.listen.0 };
    let halves = Roles::new(role, config)?;
    let read_port = match &halves {
        Roles::Node(node) => {
            Some(ReadPort::bind(config, node.secret.clone(), Arc::clone(&node.epoch))?)
        }
        Roles::Together | Roles::Gateway(_) => None,
    };
    let Running { process, shards, control_requests, notices, inbox } =
        start(addresses, config, halves)?;
    let ShardThreads { threads, wakers, control, background, handovers, .. } = shards;
    let (selects, select_inbox) = flume::bounded(BLOCK_SELECTS);
    let (requests, request_inbox) = flume::bounded(BLOCK_REQUESTS);
    let queues = BlockQueues { selects: select_inbox, requests: request_inbox };
    let handles = Shards::new(control.into_iter().map(ShardHandle::new).collect())
        .with_blocks(BlocksHandle { selects, requests });
    let deleter = Deleter::new(handles.clone());
    let api = api_state(config, handles.clone(), &process).with_deleter(deleter.clone());
    let control_plane = start_control_plane(config, api, control_requests)?;
    watch_signals(&process, &wakers, notices.clone())?;
    let rules = rules::node_rules(config);
    let state = Arc::clone(&process.state);
    let (reads_config, handle) = (config.clone(), control_plane.handle().clone());
    let job = move |folder: DataFolder| {
        let queues = (&background[..], &handovers[..], queues);
        // Before the link ports open: a node that knows of no epoch takes what follows an old one.
        let node = folder.manifest().node;
        let keep = |port: ReadPort| port.keep_placement(&reads_config, node, &handle);
        let placed_port = read_port.map(keep).transpose()?;
        let (thread, manifest) = run_recovery(folder, &rules, &state, queues)?;
        if let Some(port) = placed_port {
            let port = port.with_deleter(deleter);
            port.open(&reads_config, (manifest, handles), (state, &handle))?;
        }
        tracing::info!("ready");
        Ok(thread)
    };
    spawn_recovery(folder, job, notices)?;
    crate::server::greeting::greet(role, addresses, config);
    let background = wait_for_end(config, &inbox, config.shards)?;
    for thread in threads {
        // Each has told that it ended; a shard that panicked has ended the process.
        let _ = thread.join();
    }
    control_plane.stop(CONTROL_GRACE);
    // The shards held the last senders, so the thread has nothing left to do.
    if let Some(background) = background
        && let Err(error) = background.join()
    {
        tracing::warn!(%error, "the background thread ended badly");
    }
    tracing::info!("everything accepted is answered and durable; bye");
    Ok(())
}

/// What forwards.
fn serve_gateway(config: &Config) -> Result<(), StartFault> {
    let addresses = &config.listen.0;
    let role = GatewayRole::new(config)?;
    let identity = role.identity.clone();
    let Running { process, shards, control_requests, notices, inbox } =
        start(addresses, config, Roles::Gateway(role))?;
    let ShardThreads { threads, wakers, control, fleets, hints, .. } = shards;
    let handles = Shards::new(control.into_iter().map(ShardHandle::new).collect());
    let control_plane = ControlPlane::threads(config.control_threads as usize);
    let control_plane = control_plane.map_err(StartFault::Thread)?;
    process.state.set_no_fleet();
    let state = Arc::clone(&process.state);
    let own = hints.as_ref().map(|kept| kept.own(config, control_plane.handle()));
    let followers = Followers { shards: fleets, state, hints: own.clone() };
    let Followed { fleet, reads, discovery } =
        follow_fleet(config, identity, followers, control_plane.handle())?;
    let api = api_state(config, handles, &process).with_fleet(reads).with_discovery(discovery);
    let api = match own {
        Some(own) => api.with_hints(own.figures),
        None => api,
    };
    let api = api::router(api).merge(fleet::api::router(fleet));
    control_plane.serve(api, control_requests);
    watch_signals(&process, &wakers, notices)?;
    crate::server::greeting::greet(Role::Gateway, addresses, config);
    wait_for_end(config, &inbox, config.shards)?;
    for thread in threads {
        // As above.
        let _ = thread.join();
    }
    control_plane.stop(CONTROL_GRACE);
    // The shards held the last ways to it.
    if let Some(kept) = hints
        && !kept.hints.join()
    {
        tracing::warn!("the thread of the hints ended badly");
    }
    tracing::info!("everything accepted is answered and durable; bye");
    Ok(())
}

/// Binds the listeners and starts the shards.
fn start(addresses: &[SocketAddr], config: &Config, roles: Roles) -> Result<Running, StartFault> {
    let shard_count = config.shards;
    let listeners = bind_listeners(addresses, shard_count)?;
    raise_open_files(config.connections_max);
    let process = Process {
        state: Arc::new(ServerState::new(shard_count as usize)),
        life: Arc::new(Life::new(shard_count)),
    };
    let (control_sender, control_requests) = flume::bounded(CONTROL_REQUESTS);
    let (notices, inbox) = flume::unbounded();
    let senders = (control_sender, notices.clone());
    let shards = start_shards(config, (listeners, roles), &process, senders)?;
    Ok(Running { process, shards, control_requests, notices, inbox })
}

fn start_control_plane(
    config: &Config,
    api: ApiState,
    requests: flume::Receiver<ControlRequest>,
) -> Result<ControlPlane, StartFault> {
    let control_plane = ControlPlane::threads(config.control_threads as usize);
    let control_plane = control_plane.map_err(StartFault::Thread)?;
    control_plane.serve(api::router(api), requests);
    Ok(control_plane)
}

fn api_state(config: &Config, handles: Shards, process: &Process) -> ApiState {
    let limits = rules::query_limits(config);
    ApiState::new(handles, Arc::clone(&process.state), limits, unix_now_ms)
}

fn open_folder(config: &Config, shard_count: u32) -> Result<DataFolder, StartFault> {
    let folder = DataFolder::open(&config.data, shard_count).map_err(StartFault::Folder)?;
    if let DirectIo::Refused = folder.probe_direct_io().map_err(StartFault::Folder)? {
        tracing::warn!(
            data = %config.data.display(),
            "the file system refuses O_DIRECT: everything works, through the page cache and slower"
        );
    }
    Ok(folder)
}

fn raise_open_files(connections_max: u32) {
    /// Segments, rings, folders and the like, generously.
    const OTHER_FILES: u64 = 256;
    let want = u64::from(connections_max) + OTHER_FILES;
    match limits::raise_open_files() {
        Ok(limit) if limit < want => tracing::warn!(
            limit,
            want,
            "the limit on open files is below connections-max: raise it (`ulimit -n`, LimitNOFILE)"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the limit on open files"),
    }
}

fn watch_signals(
    process: &Process,
    wakers: &[Arc<crate::ring::RingWaker>],
    notices: flume::Sender<Notice>,
) -> Result<(), StartFault> {
    use crate::base::queue::Wake;
    let (state, life) = (Arc::clone(&process.state), Arc::clone(&process.life));
    let wakers = wakers.to_vec();
    signals::watch(move || {
        tracing::info!(
            "signal: answering what is in flight, then ending; a second one ends at once"
        );
        // The main thread lives as long as there is somebody to tell. It is told first, so that it
        // never hears of a shard's end before.
        let _ = notices.send(Notice::Drain);
        state.set_draining();
        life.begin_drain();
        for waker in &wakers {
            waker.wake();
        }
    })
    .map_err(StartFault::Thread)
}

fn spawn_recovery(
    folder: DataFolder,
    job: impl FnOnce(DataFolder) -> Result<Background, RecoverFault> + Send + 'static,
    notices: flume::Sender<Notice>,
) -> Result<(), StartFault> {
    let thread = thread::Builder::new().name("recovery".into());
    let spawned = thread.spawn(move || {
        let _ = notices.send(Notice::Recovered(job(folder)));
    });
    spawned.map(drop).map_err(StartFault::Thread)
}

fn run_recovery(
    mut folder: DataFolder,
    rules: &NodeRules,
    state: &Arc<ServerState>,
    (events, handovers, blocks): (&[BackgroundQueue], &[flume::Sender<NodeHandover>], BlockQueues),
) -> Result<(Background, Manifest), RecoverFault> {
    let Recovered { nodes, background, sender } =
        recover(&mut folder, rules, state, (events, blocks))?;
    let manifest = *folder.manifest();
    for ((node, handover), queue) in nodes.into_iter().zip(handovers).zip(events) {
        // A shard that has ended by now needs no node.
        let _ = handover.send(NodeHandover {
            node: Box::new(node),
            background: sender.clone(),
            manifest,
        });
        queue.wake();
    }
    state.set_ready();
    // The lock on the folder lasts until the process ends.
    std::mem::forget(folder);
    Ok((background, manifest))
}

/// Waits for a signal and then for the shards; gives the background thread back, if recovery had
/// come so far.
fn wait_for_end(
    config: &Config,
    inbox: &flume::Receiver<Notice>,
    shard_count: u32,
) -> Result<Option<Background>, StartFault> {
    let mut background = None;
    loop {
        match inbox.recv().expect("this function's caller holds a sender") {
            Notice::Drain => break,
            Notice::ShardEnded => unreachable!("shards end only when the process drains"),
            Notice::Recovered(outcome) => background = Some(outcome.map_err(StartFault::Recover)?),
        }
    }
    let mut running = shard_count;
    while running > 0 {
        match inbox.recv_timeout(config.shutdown_timeout.duration()) {
            Ok(Notice::ShardEnded) => running -= 1,
            Ok(Notice::Recovered(Ok(thread))) => background = Some(thread),
            Ok(Notice::Drain | Notice::Recovered(Err(_))) => {}
            Err(_) => {
                tracing::warn!(
                    "shutdown-timeout is over with clients in mid-request: ending without them; \
                     nothing acknowledged is lost"
                );
                std::process::exit(0);
            }
        }
    }
    Ok(background)
}
