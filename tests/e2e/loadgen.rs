//! The load generator as a process: sending with a ledger, and verifying against it.

use crate::process::{find_program, signal, tail, wait_for, wait_for_exit};
use crate::server::{Server, program};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// What a gateway says that lacks an owner of what was asked for.
const INCOMPLETE: &str = "the answer is not complete";
/// A node knows after 3 s whether it missed something.
const COMPLETE_DEADLINE: Duration = Duration::from_secs(8);

/// Longer than any test runs: whoever started the load stops it.
const DURATION: &str = "10m";
const PROGRESS_DEADLINE: Duration = Duration::from_secs(30);

/// A `loadgen send` that runs.
pub struct Sender {
    child: Child,
    folder: TempDir,
}

impl Sender {
    /// Sends to `server` until it is stopped, over eight connections, and
    /// tries again whatever is not acknowledged.
    pub fn start(server: &Server, protocol: &str, seed: u64) -> Self {
        Self::start_to(&[server.url()], protocol, seed)
    }

    /// The same to several servers: a connection that fails goes to the next.
    pub fn start_to(urls: &[String], protocol: &str, seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = File::create(folder.path().join("stderr")).expect("a temporary file");
        let child = Command::new(find_loadgen())
            .args(["send", "--protocol", protocol])
            .args(urls.iter().flat_map(|url| ["--url", url]))
            .args(["--series", "2000", "--labels", "11", "--points-per-request", "500"])
            .args(["--connections", "8", "--rate", "200000"])
            .args(["--retry", "--duration", DURATION])
            .args(["--seed", &seed.to_string()])
            .arg("--ledger")
            .arg(folder.path().join("ledger"))
            .arg("--json")
            .arg(folder.path().join("report"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("loadgen starts");
        Self { child, folder }
    }

    /// How many requests its ledger calls acknowledged.
    pub fn acked_requests(&self) -> usize {
        let ledger = std::fs::read(self.ledger()).unwrap_or_default();
        ledger.split(|byte| *byte == b'\n').filter(|line| is_acked(line)).count()
    }

    /// Waits until `more` requests have been acknowledged since now.
    #[track_caller]
    pub fn wait_for_acks(&mut self, more: usize) {
        let want = self.acked_requests() + more;
        let mut ended = None;
        let done = wait_for(PROGRESS_DEADLINE, || {
            ended = self.child.try_wait().expect("our own child");
            (ended.is_some() || self.acked_requests() >= want).then_some(())
        });
        assert_eq!(ended, None, "the load ended before the test did\n{}", self.log());
        assert!(done.is_some(), "no acknowledgement in {PROGRESS_DEADLINE:?}\n{}", self.log());
    }

    /// Ends the load. What is in flight now may be there or not; its ledger says which that is.
    #[track_caller]
    pub fn stop(&mut self) {
        let ended = self.child.try_wait().expect("our own child");
        assert_eq!(ended, None, "the load ended before the test did\n{}", self.log());
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Ends the load when all that is in flight is settled; its report.
    #[track_caller]
    pub fn finish(&mut self) -> serde_json::Value {
        let ended = self.child.try_wait().expect("our own child");
        assert_eq!(ended, None, "the load ended before the test did\n{}", self.log());
        signal(&self.child, "TERM");
        let status = wait_for_exit(&mut self.child, PROGRESS_DEADLINE);
        let status = status.unwrap_or_else(|| panic!("it sends on and on\n{}", self.log()));
        assert!(status.success(), "{status}\n{}", self.log());
        println!("{}", self.log());
        let report = std::fs::read(self.folder.path().join("report")).expect("a report");
        serde_json::from_slice(&report).expect("JSON was asked for")
    }

    /// The same; no answer was an error.
    #[track_caller]
    pub fn finish_without_refusal(&mut self) {
        let report = self.finish();
        assert_eq!(report["statuses"].as_object().map(serde_json::Map::len), Some(1), "{report}");
    }

    /// Reads everything back: nothing acknowledged is missing, nothing is there that was not sent.
    #[track_caller]
    pub fn verify(&self, server: &Server) {
        verify(server, &self.ledger());
    }

    /// The same while it sends, of a copy of its ledger: what was acknowledged until now is there.
    #[track_caller]
    pub fn verify_while_sending(&self, url: &str) {
        // Requests in flight are in the ledger before their first byte goes out, but what is sent
        // from now on is not: only what is missing or wrong is looked for.
        let copy = self.folder.path().join("ledger-until-now");
        std::fs::copy(self.ledger(), &copy).expect("a temporary file");
        let json = read_back(url, &copy).1;
        for fault in ["missing", "wrong", "repeated"] {
            assert_eq!(json[fault].as_u64(), Some(0), "{fault}: {json}");
        }
    }

    /// What its ledger says so far.
    pub fn ledger_text(&self) -> String {
        std::fs::read_to_string(self.ledger()).expect("it has begun")
    }

    /// The file.
    pub fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
        tail(&text, 20)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

fn is_acked(line: &[u8]) -> bool {
    let wanted = b"\"outcome\":\"acked\"";
    line.windows(wanted.len()).any(|window| window == wanted)
}

fn find_loadgen() -> PathBuf {
    let beside: &Path = &program();
    find_program("LOADGEN_BIN", beside, "loadgen")
}

/// Sends what `options` say, to its end, and appends to `ledger`; everything must be acknowledged.
#[track_caller]
pub fn send(server: &Server, options: &str, ledger: &Path) {
    let output = Command::new(find_loadgen())
        .args(["send", "--url", &server.url(), "--connections", "4", "--retry", "--ledger"])
        .arg(ledger)
        .args(options.split_ascii_whitespace())
        .output()
        .expect("loadgen starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "send {options}: {}\n{text}\n{errors}", output.status);
    assert!(text.contains("0 refused, 0 unknown"), "send {options}\n{text}\n{errors}");
}

/// Reads everything back that `ledger` knows of: nothing acknowledged is missing, nothing is there
/// that was not sent, nothing twice.
#[track_caller]
pub fn verify(server: &Server, ledger: &Path) {
    verify_at(&server.url(), ledger);
}

/// The same of any server; how many acknowledged samples there are.
#[track_caller]
pub fn verify_at(url: &str, ledger: &Path) -> u64 {
    let (output, json) = read_back(url, ledger);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "verify at {url}: {}\n{text}\n{errors}", output.status);
    for fault in ["missing", "extra", "wrong", "repeated"] {
        assert_eq!(json[fault].as_u64(), Some(0), "{fault}\n{text}");
    }
    let present = json["acked_present"].as_u64().unwrap_or(0);
    assert!(present > 0, "nothing was verified\n{text}");
    println!("verified:\n{}", text.trim());
    present
}

/// What `loadgen verify` says, and its report, which it writes unless it could not read.
#[track_caller]
fn read_back(url: &str, ledger: &Path) -> (Output, serde_json::Value) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = folder.path().join("verified.json");
    let mut command = Command::new(find_loadgen());
    command.args(["verify", "--url", url, "--ledger"]).arg(ledger).arg("--json").arg(&report);
    // A node that started a moment ago does not know at once whether it missed something, and says
    // so: whoever wants all of it asks again.
    let mut output = None;
    let read = wait_for(COMPLETE_DEADLINE, || {
        let told = command.output().expect("loadgen starts");
        let is_partial = String::from_utf8_lossy(&told.stderr).contains(INCOMPLETE);
        output = Some(told);
        (!is_partial).then(|| std::fs::read(&report).ok())
    });
    let output = output.expect("it was started");
    let report = read.flatten().unwrap_or_else(|| {
        panic!("verify at {url}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output, serde_json::from_slice(&report).expect("JSON was asked for"))
}
