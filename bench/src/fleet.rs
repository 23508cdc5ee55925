//! DRIVER: a fleet that is measured: a gateway and nodes, one shard each, on this host.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use crate::client::Client;
use crate::exposition;
use crate::load::Target;
use crate::process::{Cpus, Process};
use crate::server::SetUp;

const CLIENT_PORT: u16 = 8428;
const HTTP_PORT: u16 = 8429;
const LINK_PORT: u16 = 9500;

/// A running fleet. Killed when dropped, its data deleted.
pub struct Fleet<'a> {
    set_up: &'a SetUp,
    cpus: Cpus,
    gateway: Process,
    nodes: Vec<Process>,
    /// Where the nodes are, and how many of them store each sample.
    shape: (String, u8),
}

impl<'a> Fleet<'a> {
    /// Starts `nodes` nodes and a gateway that stores each sample on `replication` of them.
    pub fn start(
        set_up: &'a SetUp,
        cpus: Cpus,
        (nodes, replication): (u8, u8),
    ) -> io::Result<Self> {
        set_up.wipe()?;
        let links: Vec<String> =
            (0..nodes).map(|node| format!("{}:{LINK_PORT}", host(node + 1))).collect();
        let nodes = (0..nodes).map(|node| start_node(set_up, cpus, node));
        let nodes = nodes.collect::<io::Result<Vec<_>>>()?;
        for node in &nodes {
            node.wait_until_ready()?;
        }
        let shape = (links.join(","), replication);
        let gateway = start_gateway(set_up, cpus, &shape)?;
        gateway.wait_until_ready()?;
        Ok(Self { set_up, cpus, gateway, nodes, shape })
    }

    /// Kills the gateway and starts one on an empty disk, which knows nothing; how long until it
    /// was ready.
    pub fn replace_gateway(&mut self) -> io::Result<Duration> {
        self.gateway.kill();
        std::fs::remove_dir_all(self.set_up.scratch("gateway"))?;
        self.gateway = start_gateway(self.set_up, self.cpus, &self.shape)?;
        self.gateway.wait_until_ready()
    }

    /// Its last node, to be killed by another thread.
    pub fn last_node(&self) -> &Process {
        self.nodes.last().expect("a fleet has a node")
    }

    /// Starts the last node again on its data; how long until it was ready.
    pub fn restart_last_node(&mut self) -> io::Result<Duration> {
        let Some(old) = self.nodes.pop() else { return Err(io::Error::other("no node")) };
        old.kill();
        let number = u8::try_from(self.nodes.len()).unwrap_or(u8::MAX);
        let node = start_node(self.set_up, self.cpus, number)?;
        let ready_after = node.wait_until_ready()?;
        self.nodes.push(node);
        Ok(ready_after)
    }

    /// The sum of a metric of the gateway; 0 if it has none.
    pub fn metric(&self, name: &str) -> io::Result<f64> {
        let scrape = Client::connect(self.gateway.address())?.get("/metrics")?.body;
        let lines = exposition::parse(&String::from_utf8_lossy(&scrape));
        let lines = lines.ok_or_else(|| io::Error::other("cannot read the gateway's /metrics"))?;
        let of_name = lines.iter().filter(|line| line.labels[0].1 == name);
        Ok(of_name.map(|line| line.value).sum())
    }
}

impl Target for Fleet<'_> {
    fn url(&self) -> String {
        format!("http://{}", self.gateway.address())
    }

    fn cpu_ns(&self) -> u64 {
        self.nodes.iter().map(Process::cpu_ns).sum::<u64>() + self.gateway.cpu_ns()
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        self.gateway.kill();
        for node in &self.nodes {
            node.kill();
        }
        self.set_up.remove();
    }
}

fn start_gateway(
    set_up: &SetUp,
    cpus: Cpus,
    (nodes, replication): &(String, u8),
) -> io::Result<Process> {
    let address = SocketAddr::from((host(0), CLIENT_PORT));
    let mut command = Command::new(&set_up.server);
    command.args(["gateway", "--shards", "1", "--no-pin", "--listen", &address.to_string()]);
    command.args(["--nodes", nodes, "--replication", &replication.to_string()]);
    command.arg("--data").arg(set_up.scratch("gateway"));
    Process::start(command, cpus, address, set_up.scratch("gateway.log"))
}

fn start_node(set_up: &SetUp, cpus: Cpus, node: u8) -> io::Result<Process> {
    let host = host(node + 1);
    let address = SocketAddr::from((host, HTTP_PORT));
    let mut command = Command::new(&set_up.server);
    command.args(["node", "--shards", "1", "--no-pin", "--http", &address.to_string()]);
    command.args(["--link", &format!("{host}:{LINK_PORT}")]);
    command.arg("--data").arg(set_up.scratch(&format!("node-{node}")));
    Process::start(command, cpus, address, set_up.scratch(&format!("node-{node}.log")))
}

/// A loopback address of our own for each process: with fixed ports, because a node needs several
/// in a row, and apart from those of another `bench`.
fn host(number: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, number + 1)
}
