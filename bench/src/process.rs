//! DRIVER: a program of ours as a process: started on its CPUs, waited for until it is ready, and
//! never left behind: killed when dropped, on an error, on a panic and on SIGINT or SIGTERM.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

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

/// Which CPUs a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// All its threads on CPU 0.
    First,
    /// As the host gives them.
    All,
}

/// A program that runs.
pub struct Process {
    pid: u32,
    address: SocketAddr,
    log: PathBuf,
    started: Instant,
}

impl Process {
    /// Starts `command`, which will answer at `address` and say what it says into `log`.
    pub fn start(
        mut command: Command,
        cpus: Cpus,
        address: SocketAddr,
        log: PathBuf,
    ) -> io::Result<Self> {
        let file = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
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
        Ok(Self { pid: register(child), address, log, started })
    }

    /// Waits for its first 200 on /-/ready; how long that took from its start.
    pub fn wait_until_ready(&self) -> io::Result<Duration> {
        while !self.is_ready() {
            let gone = !self.is_running()?;
            if gone || self.started.elapsed() > READY_WAIT_MAX {
                let what = if gone { "ended" } else { "is not ready" };
                return Err(io::Error::other(format!("the server {what}: {}", self.log_tail())));
            }
            // Polling from outside is all there is; 5 ms is the resolution of the answer.
            thread::sleep(READY_POLL_EVERY);
        }
        Ok(self.started.elapsed())
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All its threads so far.
    pub fn cpu_ns(&self) -> u64 {
        loadgen::cpu::process_cpu_ns(&self.pid.to_string())
    }

    /// `kill -9`, and waits for the end. Already gone is fine too.
    pub fn kill(&self) {
        if let Some(mut child) = unregister(self.pid) {
            drop(child.kill());
            drop(child.wait());
        }
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

    fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let start = log.len().saturating_sub(LOG_TAIL_BYTES);
        String::from_utf8_lossy(&log[start..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
