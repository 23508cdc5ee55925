//! DRIVER: from a configuration to a running process, and to its end.
//!
//! Order: data folder, listeners, shards (each makes its ring on its own thread), control plane, recovery in the
//! background while clients already get 503. Errors before that name the cause and what to do.

use crate::background::executor::Background;
use crate::background::folder::{DataFolder, DirectIo, FolderFault};
use crate::base::queue::QueueSender;
use crate::base::time::{Duration, Now};
use crate::control::api;
use crate::control::config::ServeConfig;
use crate::control::readiness::ServerState;
use crate::control::server::{ControlPlane, ControlRequest};
use crate::control::shards::{ShardHandle, Shards};
use crate::ring::{Ring, RingOptions, RingSetupError, RingWaker, topology};
use crate::server::life::Life;
use crate::server::recover::{NodeRules, RecoverFault, recover};
use crate::server::shard::{Mailboxes, NodeHandover, Shard, ShardParts};
use crate::server::signals;
use std::net::SocketAddr;
use std::sync::Arc;
use std::{fmt, io, thread};

/// Messages that may wait for a shard, of each kind.
const GATEWAY_MAIL: usize = 1024;
const CONTROL_MAIL: usize = 256;
const BACKGROUND_MAIL: usize = 16;
/// Requests that may wait for the control plane.
const CONTROL_REQUESTS: usize = 1024;
const CONTROL_THREADS: usize = 2;
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
}

impl fmt::Display for StartFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(fault) => fault.fmt(out),
            Self::Listen { address, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                out,
                "cannot listen on {address}: another process does; stop it (`ss -ltnp` names it) or \
                 choose another address with --listen"
            ),
            Self::Listen { address, error } => write!(
                out,
                "cannot listen on {address}: {error}; choose an address of this host with --listen"
            ),
            Self::Ring(fault) => fault.fmt(out),
            Self::Thread(error) => write!(out, "cannot start a thread: {error}"),
            Self::Recover(fault) => fault.fmt(out),
        }
    }
}

/// What the main thread is told while it waits.
enum Notice {
    /// A first signal arrived.
    Drain,
    /// A shard's thread has ended.
    ShardEnded,
    /// Recovery ended, well or not.
    Recovered(Result<Background, RecoverFault>),
}
