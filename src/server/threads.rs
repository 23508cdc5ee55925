//! DRIVER: the shards' threads: listeners, mailboxes between all of them, and the hand-out of what
//! each shard owns.
//!
//! A ring belongs to the thread that makes it, so every thread makes its own first and tells its
//! waker; then the mailboxes are made, and each thread gets its ends and runs.

use crate::background::command::BackgroundEvent;
use crate::background::executor::BackgroundSender;
use crate::background::folder::Manifest;
use crate::base::queue::{QueueSender, Wake};
use crate::base::time::{Duration, Now};
use crate::control::config::Config;
use crate::control::readiness::ServerState;
use crate::control::server::ControlRequest;
use crate::control::shards::ShardRequest;
use crate::gateway::fleet::FleetMail;
use crate::gateway::part::ShardMessage;
use crate::node::shard::NodeShard;
use crate::ring::{Ring, RingOptions, RingSetupError, RingWaker, topology};
use crate::server::life::Life;
use crate::server::roles::{KeptHints, Roles};
use crate::server::shard::{Mailboxes, Neighbours, Shard, ShardParts};
use crate::server::start::{Notice, StartFault};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::{io, thread};

/// Messages that may wait for a shard, of each kind.
const GATEWAY_MAIL: usize = 1024;
const CONTROL_MAIL: usize = 256;
/// Room for every answer to what a shard may have asked of the background.
const BACKGROUND_MAIL: usize = 16;
/// Fleets that may wait: a shard takes the newest at its next turn.
const FLEET_MAIL: usize = 16;
/// Room for the answers to a shard's hints, and for records of several nodes.
const HINT_MAIL: usize = 1024;
const BACKLOG: i32 = 4096;
/// How often and how long apart a taken address is tried again: a second in all.
const TAKEN_TRIES: u32 = 50;
const TAKEN_PAUSE: Duration = Duration::from_millis(20);

/// The way of the background's answers to a shard.
pub type BackgroundQueue = QueueSender<BackgroundEvent>;

/// A shard's node half, replayed, and the way to its background thread.
pub struct NodeHandover {
    /// What recovery made.
    pub node: Box<NodeShard>,
    /// For segments and snapshots.
    pub background: BackgroundSender,
    /// Whose it is, and of how many.
    pub manifest: Manifest,
}

/// What all threads of the process see.
pub struct Process {
    /// Readiness, for clients.
    pub state: Arc<ServerState>,
    /// Shutdown, for shards.
    pub life: Arc<Life>,
}

/// The running shards, in order, and the ways to them.
pub struct ShardThreads {
    /// To join.
    pub threads: Vec<JoinHandle<()>>,
    /// To wake all of them.
    pub wakers: Vec<Arc<RingWaker>>,
    /// For questions.
    pub control: Vec<QueueSender<ShardRequest>>,
    /// For the background's answers.
    pub background: Vec<BackgroundQueue>,
    /// For the node half, once.
    pub handovers: Vec<flume::Sender<NodeHandover>>,
    /// For what a gateway follows.
    pub fleets: Vec<QueueSender<FleetMail>>,
    /// A gateway's keeper of hints.
    pub hints: Option<KeptHints>,
}

/// A thread that has made its ring and waits for what it is to own.
struct Started {
    thread: JoinHandle<()>,
    waker: Arc<RingWaker>,
    parts: flume::Sender<ShardParts>,
}

/// One listener per address and shard, by `SO_REUSEPORT`: the kernel spreads connections over them.
pub fn bind_listeners(
    addresses: &[SocketAddr],
    shard_count: u32,
) -> Result<Vec<Vec<Socket>>, StartFault> {
    // SO_REUSEPORT would let a second process of the same user share the port without a word: this
    // probe finds it.
    for address in addresses {
        await_free(*address).map_err(|error| StartFault::Listen { address: *address, error })?;
    }
    let one_shard = |_| {
        let listeners = addresses.iter().map(|address| {
            bind(*address, Sharing::Shards)
                .map_err(|error| StartFault::Listen { address: *address, error })
        });
        listeners.collect()
    };
    (0..shard_count).map(one_shard).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Shards,
}

/// Waits a little while the address is taken: of a process that was killed, the kernel takes the
/// ring down after its end, and until then the ring's accept keeps the listener alive. That takes a
/// few milliseconds.
fn await_free(address: SocketAddr) -> io::Result<()> {
    for _ in 0..TAKEN_TRIES {
        match bind(address, Sharing::Alone) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(TAKEN_PAUSE),
            outcome => return outcome.map(drop),
        }
    }
    bind(address, Sharing::Alone).map(drop)
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Shards {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    if sharing == Sharing::Shards {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Starts a thread per element of `listeners`, pinned if so configured, and connects them all.
pub(super) fn start_shards(
    config: &Config,
    (listeners, mut roles): (Vec<Vec<Socket>>, Roles),
    process: &Process,
    (control, notices): (flume::Sender<ControlRequest>, flume::Sender<Notice>),
) -> Result<ShardThreads, StartFault> {
    let cpus = if config.no_pin { Vec::new() } else { topology::ordered_cpus() };
    let started = (0u32..).zip(&listeners).map(|(shard, _)| {
        let cpu = cpus.get(shard as usize % cpus.len().max(1)).copied();
        start_thread(shard, cpu, notices.clone())
    });
    let started: Vec<_> = started.collect::<Result<_, _>>()?;
    let wakers: Vec<_> = started.iter().map(|one| Arc::clone(&one.waker)).collect();
    let (gateway_senders, gateway) = queues(&wakers, GATEWAY_MAIL);
    let (control_senders, control_mail) = queues(&wakers, CONTROL_MAIL);
    let (background_senders, background) = queues(&wakers, BACKGROUND_MAIL);
    let (fleet_senders, fleets) = queues(&wakers, FLEET_MAIL);
    let (hints, ways) = roles.start_hints(queues(&wakers, HINT_MAIL))?;
    let mut all = ShardThreads {
        threads: Vec::new(),
        wakers,
        control: control_senders,
        background: background_senders,
        handovers: Vec::new(),
        fleets: fleet_senders,
        hints,
    };
    let ways = ways.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    let mail = gateway.into_iter().zip(control_mail).zip(background.into_iter().zip(fleets));
    let mail = mail.zip(ways);
    for (((shard, started), listeners), (((gateway, control_mail), (background, fleets)), way)) in
        (0u32..).zip(started).zip(listeners).zip(mail)
    {
        let (handover, node) = flume::bounded(1);
        let parts = ShardParts {
            index: shard,
            config: config.clone(),
            listeners,
            halves: roles.halves(shard, fleets, way)?,
            mail: Mailboxes { gateway, control: control_mail, background, node },
            neighbours: neighbours_of(shard, &gateway_senders),
            control: control.clone(),
            life: Arc::clone(&process.life),
            state: Arc::clone(&process.state),
        };
        // The thread waits for it; if it died, joining it says so.
        let _ = started.parts.send(parts);
        all.threads.push(started.thread);
        all.handovers.push(handover);
    }
    Ok(all)
}

fn start_thread(
    shard: u32,
    cpu: Option<usize>,
    notices: flume::Sender<Notice>,
) -> Result<Started, StartFault> {
    let (ring_sender, ring) = flume::bounded::<Result<Arc<RingWaker>, RingSetupError>>(1);
    let (parts, parts_receiver) = flume::bounded::<ShardParts>(1);
    let thread = thread::Builder::new().name(format!("shard-{shard}")).spawn(move || {
        let pinned = cpu.filter(|cpu| topology::pin_current_thread(*cpu));
        match Ring::new(RingOptions::default(), Now::read().monotonic) {
            Ok(ring) => {
                let _ = ring_sender.send(Ok(ring.waker()));
                let Ok(parts) = parts_receiver.recv() else { return };
                if let Some(cpu) = pinned {
                    tracing::info!(shard, cpu, "shard runs, pinned");
                } else {
                    tracing::info!(shard, "shard runs, not pinned");
                }
                Shard::new(ring, parts).run();
                let _ = notices.send(Notice::ShardEnded);
            }
            Err(fault) => {
                let _ = ring_sender.send(Err(fault));
            }
        }
    });
    let thread = thread.map_err(StartFault::Thread)?;
    let waker = ring.recv().expect("the thread tells of its ring").map_err(StartFault::Ring)?;
    Ok(Started { thread, waker, parts })
}

/// Senders and receivers, one of each per shard.
pub(super) type Queues<T> = (Vec<QueueSender<T>>, Vec<flume::Receiver<T>>);

fn queues<T>(wakers: &[Arc<RingWaker>], capacity: usize) -> Queues<T> {
    let queue = |waker: &Arc<RingWaker>| {
        let (sender, receiver) = flume::bounded(capacity);
        let wake: Arc<dyn Wake> = Arc::clone(waker) as Arc<dyn Wake>;
        (QueueSender::new(sender, wake), receiver)
    };
    wakers.iter().map(queue).unzip()
}

fn neighbours_of(shard: u32, senders: &[QueueSender<ShardMessage>]) -> Neighbours {
    let others = (0u32..).zip(senders);
    others.map(|(other, sender)| (other != shard).then(|| sender.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A supervisor that restarts a killed server at once got "the port is taken": the dead
    /// process' ring still held the listener. Here a thread holds it for a while; one that keeps it
    /// is reported.
    #[test]
    fn an_address_that_is_taken_for_a_moment_is_waited_for() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = bind(any, Sharing::Shards).expect("a free port");
        let address = listener.local_addr().expect("bound").as_socket().expect("an IP address");
        let fault = bind_listeners(&[address], 1).expect_err("it is taken");
        let is_in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        assert!(matches!(fault, StartFault::Listen { error, .. } if is_in_use(&error)));
        let holder = thread::spawn(move || {
            thread::sleep(TAKEN_PAUSE * 5);
            drop(listener);
        });
        let listeners = bind_listeners(&[address], 2).expect("it becomes free");
        assert_eq!(listeners.len(), 2);
        holder.join().expect("it only sleeps");
    }
}
