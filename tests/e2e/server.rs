//! A `tidegate serve` process on a port and a folder of its own.

use crate::http::{Client, Response};
use crate::process::{find_program, signal, tail, wait_for, wait_for_exit};
use std::fs::File;
use std::io::{Read, Seek};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Longer than any replay of a test's log on a slow, busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// A drain has nothing to wait for but one sync.
const EXIT_DEADLINE: Duration = Duration::from_secs(30);

/// A running server. Killed when dropped; if the test failed, the end of its log is shown.
pub struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
    data: PathBuf,
    extra: Vec<String>,
}

impl Server {
    /// Starts with an empty data folder and waits until it is ready.
    pub fn start(shards: u32) -> Self {
        Self::start_with(shards, None, &[])
    }

    /// Starts with its data at `data`, or in a folder of its own, and with more arguments.
    pub fn start_with(shards: u32, data: Option<&Path>, extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = data.map_or_else(|| folder.path().join("data"), Path::to_path_buf);
        let port = free_port();
        let extra: Vec<String> = extra.iter().map(|text| (*text).to_owned()).collect();
        let child = spawn(shards, port, &data, &extra, folder.path());
        let mut server = Self { child, port, folder, data, extra };
        server.wait_until_ready();
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port).expect("a ready server accepts")
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.client()
            .get(path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.log()))
    }

    /// The answer's JSON, which must come with 200.
    #[track_caller]
    pub fn get_json(&self, path: &str) -> serde_json::Value {
        let response = self.get(path);
        assert_eq!(response.status, 200, "GET {path}: {}", response.text());
        response.json()
    }

    /// The sum, over shards, of a metric of `/metrics`, by its name and one more label if given:
    /// `name{label="value"`.
    #[track_caller]
    pub fn metric_sum(&self, metric: &str) -> Option<f64> {
        self.get("/metrics").metric_sum(metric)
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Its standard error since it was started last.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// `kill -9`: nothing is flushed, nobody is told.
    pub fn kill9(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Sends SIGTERM without waiting.
    pub fn begin_termination(&self) {
        signal(&self.child, "TERM");
    }

    /// Waits for the end of a termination; the exit code must be 0.
    #[track_caller]
    pub fn finish_termination(&mut self) {
        let status = wait_for_exit(&mut self.child, EXIT_DEADLINE);
        let status = status.unwrap_or_else(|| panic!("does not end on SIGTERM\n{}", self.log()));
        assert_eq!(status.code(), Some(0), "a drain ends with 0\n{}", self.log());
    }

    /// Waits until its log says `text`.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let said = wait_for(READY_DEADLINE, || self.log().contains(text).then_some(()));
        assert!(said.is_some(), "it does not say `{text}`\n{}", self.log());
    }

    /// Waits for its end, whatever the exit code, which may be none.
    #[track_caller]
    pub fn exit_code(&mut self, deadline: Duration) -> Option<i32> {
        let status = wait_for_exit(&mut self.child, deadline);
        status.unwrap_or_else(|| panic!("runs on after {deadline:?}\n{}", self.log())).code()
    }

    /// SIGTERM, to the end.
    #[track_caller]
    pub fn terminate(&mut self) {
        self.begin_termination();
        self.finish_termination();
    }

    /// Starts again after its end, on the same port and data, and waits until it is ready.
    #[track_caller]
    pub fn restart(&mut self, shards: u32) {
        assert!(!self.is_running(), "end it first");
        self.child = spawn(shards, self.port, &self.data, &self.extra, self.folder.path());
        self.wait_until_ready();
    }

    /// Starts it again and kills it `moment` later, which may be in the middle of its start.
    pub fn kill9_at_start(&mut self, shards: u32, moment: Duration) {
        assert!(!self.is_running(), "end it first");
        self.child = spawn(shards, self.port, &self.data, &self.extra, self.folder.path());
        std::thread::sleep(moment);
        self.kill9();
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        let ready = wait_for(READY_DEADLINE, || {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                panic!("the server ended at its start, {status}\n{}", self.log());
            }
            let response = Client::connect(self.port).and_then(|mut c| c.get("/-/ready")).ok()?;
            (response.status == 200).then_some(())
        });
        assert!(ready.is_some(), "not ready after {READY_DEADLINE:?}\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's last words ---\n{}", tail(&self.log(), 40));
        }
    }
}

/// Runs the program to its end, which must come soon. What it says goes to files: a pipe would be
/// full before anybody reads it.
pub fn run_to_end(arguments: &[&str]) -> Output {
    let mut files = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
    let [stdout, stderr] = &files;
    let own = |file: &File| Stdio::from(file.try_clone().expect("a descriptor"));
    let mut command = Command::new(program());
    let mut child = command
        .args(arguments)
        .stdout(own(stdout))
        .stderr(own(stderr))
        .spawn()
        .expect("tidegate starts");
    let Some(status) = wait_for_exit(&mut child, EXIT_DEADLINE) else {
        child.kill().expect("our own child");
        panic!("`tidegate {}` runs on, but should end", arguments.join(" "));
    };
    let [stdout, stderr] = files.each_mut().map(|file| {
        let mut bytes = Vec::new();
        file.rewind().expect("a file");
        file.read_to_end(&mut bytes).expect("a file");
        bytes
    });
    Output { status, stdout, stderr }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// Where the server's program is.
pub fn program() -> PathBuf {
    find_program("TIDEGATE_BIN", Path::new(env!("CARGO_BIN_EXE_tidegate")), "tidegate")
}

fn spawn(shards: u32, port: u16, data: &Path, extra: &[String], folder: &Path) -> Child {
    let log = File::create(folder.join("stderr")).expect("a file in a temporary folder");
    // Not pinned: the load runs on the same few cores.
    Command::new(program())
        .args(["serve", "--no-pin", "--listen", &format!("127.0.0.1:{port}")])
        .args(["--shards", &shards.to_string(), "--data"])
        .arg(data)
        .args(extra)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be shared"))
        .stderr(log)
        .spawn()
        .expect("tidegate starts")
}
