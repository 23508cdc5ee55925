//! DRIVER: starts the server that is measured, waits until it is ready, reads its CPU time and
//! memory, and makes sure that none is left behind: killed when dropped, on an error, on a panic
//! and on SIGINT or SIGTERM.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A replay of many gigabytes takes minutes.
const READY_WAIT_MAX: Duration = Duration::from_secs(600);
const READY_POLL_EVERY: Duration = Duration::from_millis(5);
const LOG_TAIL_BYTES: usize = 2000;

/// Every process that we started and that runs. A panic aborts in release, so destructors are not
/// enough.
static RUNNING: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Kills whatever is left of `RUNNING`.
pub fn kill_all() {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    for mut child in running.drain(..) {
        // Already gone is fine too.
        drop(child.kill());
        drop(child.wait());
    }
}

/// Has `child` killed with the rest from now on; returns its id.
pub fn register(child: Child) -> u32 {
    let pid = child.id();
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    pid
}

/// Takes a child back, to wait for it.
pub fn unregister(pid: u32) -> Option<Child> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let at = running.iter().position(|child| child.id() == pid)?;
    Some(running.swap_remove(at))
}

/// From now on a panic or a signal kills what we started.
pub fn kill_all_on_exit(set_up: &SetUp) -> io::Result<()> {
    let data = set_up.data.clone();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        kill_all();
        before(info);
    }));
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            kill_all();
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
}

/// Which CPUs the server may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// All its threads on CPU 0.
    First,
    /// As the host gives them.
    All,
}

/// A running server.
pub struct Server<'a> {
    set_up: &'a SetUp,
    pid: u32,
    address: SocketAddr,
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
        remove_folder(&set_up.data)?;
        fs::create_dir_all(&set_up.data)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let extra = extra.split_ascii_whitespace().map(str::to_owned).collect();
        let mut server =
            Self { set_up, pid: 0, address, cpus, shards, extra, ready_after: Duration::ZERO };
        server.spawn()?;
        Ok(server)
    }

    /// Kills it, as a power cut of the process would, and starts it again on the same data.
    pub fn kill_and_restart(&mut self) -> io::Result<()> {
        self.kill();
        self.spawn()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.set_up.data.join("server")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `--url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All its threads so far.
    pub fn cpu_ns(&self) -> u64 {
        loadgen::cpu::process_cpu_ns(&self.pid.to_string())
    }

    /// Resident memory.
    pub fn rss_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("the server's memory is unknown"))
    }

    fn spawn(&mut self) -> io::Result<()> {
        let log = File::create(self.log_path())?;
        let mut command = Command::new(&self.set_up.server);
        command.arg("serve").arg("--listen").arg(self.address.to_string());
        command.arg("--data").arg(self.data()).args(&self.extra);
        command.arg("--shards").arg(self.shards.to_string()).arg("--no-pin");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let cpus = self.cpus;
        let started = Instant::now();
        // A child inherits the affinity of the thread that starts it, and its threads inherit the
        // child's.
        let pinned = thread::spawn(move || {
            let first = core_affinity::CoreId { id: 0 };
            if cpus == Cpus::First && !core_affinity::set_for_current(first) {
                return Err(io::Error::other("cannot pin the server: CPU 0 is not allowed here"));
            }
            command.spawn()
        });
        let child = pinned.join().map_err(|_| io::Error::other("the pinned thread panicked"))??;
        self.pid = register(child);
        while !self.is_ready() {
            let gone = !self.is_running()?;
            if gone || started.elapsed() > READY_WAIT_MAX {
                let what = if gone { "ended" } else { "is not ready" };
                return Err(io::Error::other(format!("the server {what}: {}", self.log_tail())));
            }
            // Polling from outside is all there is; 5 ms is the resolution of `ready_after`.
            thread::sleep(READY_POLL_EVERY);
        }
        self.ready_after = started.elapsed();
        Ok(())
    }

    fn is_ready(&self) -> bool {
        let ask = || -> io::Result<bool> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(
                stream,
                "GET /-/ready HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                self.address
            )?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?;
            Ok(status == *b"HTTP/1.1 200")
        };
        ask().unwrap_or(false)
    }

    fn is_running(&self) -> io::Result<bool> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let child = running.iter_mut().find(|child| child.id() == self.pid);
        child.map_or(Ok(false), |child| child.try_wait().map(|status| status.is_none()))
    }

    fn kill(&self) {
        if let Some(mut child) = unregister(self.pid) {
            // Already gone is fine too.
            drop(child.kill());
            drop(child.wait());
        }
    }

    fn log_path(&self) -> PathBuf {
        self.set_up.data.join("server.log")
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let start = log.len().saturating_sub(LOG_TAIL_BYTES);
        String::from_utf8_lossy(&log[start..]).into_owned()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.kill();
        // What is left over is wiped by the next start.
        drop(remove_folder(&self.set_up.data));
    }
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}
