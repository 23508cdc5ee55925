//! DRIVER: the server that is measured: `tidegate serve` on a folder of its own, its CPU time and
//! memory; and where the programs and the data are.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::load::Target;
use crate::process::{self, Process};

pub use crate::process::Cpus;

/// From now on a panic or a signal kills what we started.
pub fn kill_all_on_exit(set_up: &SetUp) -> io::Result<()> {
    let data = set_up.data.clone();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        process::kill_all();
        before(info);
    }));
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            process::kill_all();
            drop(remove_folder(&data));
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Where the binaries and the data are.
pub struct SetUp {
    /// `tidegate`.
    pub server: PathBuf,
    /// Beside our own executable.
    pub loadgen: PathBuf,
    /// Scrapes of node_exporter, recorded if it is not there.
    pub recording: PathBuf,
    /// Wiped for each server that starts afresh.
    data: PathBuf,
}

impl SetUp {
    /// A file for the length of a scenario.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// Finds `tidegate` and `loadgen` beside our own executable.
    pub fn new(server: Option<PathBuf>, data: Option<PathBuf>) -> io::Result<Self> {
        let own = std::env::current_exe()?;
        let folder = own.parent().unwrap_or(Path::new("."));
        let beside = folder.parent().unwrap_or(folder).join("bench-data");
        let server = server.unwrap_or_else(|| folder.join("tidegate"));
        let loadgen = folder.join("loadgen");
        for binary in [&server, &loadgen] {
            if !binary.is_file() {
                return Err(io::Error::other(format!(
                    "{} is missing: cargo build --release --workspace",
                    binary.display()
                )));
            }
        }
        let data = data.unwrap_or(beside);
        let recording = data.join("node-exporter.scrapes");
        let data = data.join(std::process::id().to_string());
        Ok(Self { server, loadgen, recording, data })
    }

    /// Makes the folder for data, empty.
    pub fn wipe(&self) -> io::Result<()> {
        remove_folder(&self.data)?;
        fs::create_dir_all(&self.data)
    }

    /// Deletes it. What is left over is wiped by the next start.
    pub fn remove(&self) {
        drop(remove_folder(&self.data));
    }
}

/// A running server.
pub struct Server<'a> {
    set_up: &'a SetUp,
    process: Process,
    cpus: Cpus,
    shards: u32,
    extra: Vec<String>,
    /// From the start of the process to its first 200 on /-/ready.
    pub ready_after: Duration,
}

impl<'a> Server<'a> {
    /// Starts a server on an empty data folder.
    pub fn start(set_up: &'a SetUp, cpus: Cpus, shards: u32) -> io::Result<Self> {
        Self::start_with(set_up, cpus, shards, "")
    }

    /// The same with more options of `tidegate serve`, separated by white space.
    pub fn start_with(set_up: &'a SetUp, cpus: Cpus, shards: u32, extra: &str) -> io::Result<Self> {
        set_up.wipe()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let extra: Vec<String> = extra.split_ascii_whitespace().map(str::to_owned).collect();
        let process = spawn(set_up, cpus, address, (shards, &extra))?;
        let ready_after = process.wait_until_ready()?;
        Ok(Self { set_up, process, cpus, shards, extra, ready_after })
    }

    /// Kills it, as a power cut of the process would, and starts it again on the same data.
    pub fn kill_and_restart(&mut self) -> io::Result<()> {
        self.process.kill();
        let address = self.process.address();
        self.process = spawn(self.set_up, self.cpus, address, (self.shards, &self.extra))?;
        self.ready_after = self.process.wait_until_ready()?;
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        data_of(self.set_up)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// Resident memory.
    pub fn rss_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("the server's memory is unknown"))
    }
}

impl Target for Server<'_> {
    fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    fn cpu_ns(&self) -> u64 {
        self.process.cpu_ns()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.process.kill();
        self.set_up.remove();
    }
}

fn spawn(
    set_up: &SetUp,
    cpus: Cpus,
    address: SocketAddr,
    (shards, extra): (u32, &[String]),
) -> io::Result<Process> {
    let mut command = Command::new(&set_up.server);
    command.arg("serve").arg("--listen").arg(address.to_string());
    command.arg("--data").arg(data_of(set_up)).args(extra);
    command.arg("--shards").arg(shards.to_string()).arg("--no-pin");
    Process::start(command, cpus, address, set_up.scratch("server.log"))
}

fn data_of(set_up: &SetUp) -> PathBuf {
    set_up.data.join("server")
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}
