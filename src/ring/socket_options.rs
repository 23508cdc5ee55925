//! DRIVER: the options of a connection's socket, the same for connected and accepted ones.
//!
//! In: what is wanted. Out: a blocking socket with it, or the errno of the first option that the
//! kernel refused. A few system calls per connection, none per operation.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::event::Errno;
use crate::base::time::Duration;

/// Options of a connection. The default is what the accepting side of a shard sets: no delay, and
/// the system's values for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// `TCP_NODELAY`: a short frame does not wait for the ack of the one before.
    pub is_nodelay: bool,
    /// Probes on an idle connection, so that a peer whose host vanished is noticed.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`, in whole milliseconds: sent bytes that stay unacknowledged for so long
    /// break the connection (`ETIMEDOUT`).
    pub user_timeout: Option<Duration>,
    /// `SO_SNDBUF`: the kernel doubles it, and caps it at `net.core.wmem_max`. `None`: it is tuned
    /// by the kernel, which is best unless memory matters more.
    pub send_buffer_bytes: Option<u32>,
    /// `SO_RCVBUF`: as above, with `net.core.rmem_max`. Accepted sockets take it over from their
    /// listener; setting it later does not enlarge the window that was agreed on.
    pub receive_buffer_bytes: Option<u32>,
}

/// How an idle connection is probed; all three are whole seconds to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes that break the connection.
    pub probes: u32,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            is_nodelay: true,
            keepalive: None,
            user_timeout: None,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        }
    }
}

impl SocketOptions {
    /// Sets them on a socket, as after [`super::Event::Accepted`].
    /// # Errors
    /// The first refusal of the kernel; options before it stay set.
    pub fn apply(&self, socket: &impl AsFd) -> Result<(), Errno> {
        let socket = SockRef::from(socket);
        if self.is_nodelay {
            socket.set_tcp_nodelay(true).map_err(errno_of)?;
        }
        if let Some(Keepalive { idle, interval, probes }) = self.keepalive {
            let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
            socket.set_tcp_keepalive(&keepalive.with_retries(probes)).map_err(errno_of)?;
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout).map_err(errno_of)?;
        }
        if let Some(bytes) = self.send_buffer_bytes {
            socket.set_send_buffer_size(bytes as usize).map_err(errno_of)?;
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes as usize).map_err(errno_of)?;
        }
        Ok(())
    }

    /// A fresh socket for a connection to `address`: blocking, as the ring needs it, and closed on
    /// exec.
    pub(super) fn open(&self, address: SocketAddr) -> Result<OwnedFd, Errno> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(errno_of)?;
        self.apply(&socket)?;
        Ok(socket.into())
    }
}

/// Whether a connection ends where it begins. Connecting to a free port of this host from the same
/// port, which the kernel may pick, opens both ends at once: a peer that nobody listens for.
pub(super) fn is_connected_to_itself(socket: &OwnedFd) -> bool {
    let socket = SockRef::from(socket);
    match (socket.local_addr(), socket.peer_addr()) {
        (Ok(local), Ok(peer)) => local.as_socket() == peer.as_socket(),
        // Not connected any more: the first operation will say so.
        _ => false,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn errno_of(error: std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}
