//! The load generator as a process: sending with a ledger, and verifying against it.

use crate::process::{find_program, tail, wait_for, wait_for_exit};
use crate::server::{Server, program};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long a sender may run on after its own duration: retries while the server restarts.
const FINISH_DEADLINE: Duration = Duration::from_secs(60);
const PROGRESS_DEADLINE: Duration = Duration::from_secs(30);

/// A `loadgen send` that runs.
pub struct Sender {
    child: Child,
    folder: TempDir,
    duration: Duration,
}

impl Sender {
    /// Sends to `server` for `duration`, over two connections, trying again whatever is not
    /// acknowledged.
    pub fn start(server: &Server, protocol: &str, duration: Duration, seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = File::create(folder.path().join("stderr")).expect("a temporary file");
        let child = Command::new(find_loadgen())
            .args(["send", "--url", &server.url(), "--protocol", protocol])
            .args(["--series", "2000", "--labels", "11", "--points-per-request", "500"])
            .args(["--connections", "2", "--rate", "20000", "--retry"])
            .args(["--duration", &format!("{}s", duration.as_secs())])
            .args(["--seed", &seed.to_string()])
            .arg("--ledger")
            .arg(folder.path().join("ledger"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("loadgen starts");
        Self { child, folder, duration }
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

    /// Waits for its end, which must be a good one.
    #[track_caller]
    pub fn finish(&mut self) {
        let status = wait_for_exit(&mut self.child, self.duration + FINISH_DEADLINE);
        let status = status.unwrap_or_else(|| panic!("loadgen runs on\n{}", self.log()));
        assert!(status.success(), "loadgen send: {status}\n{}", self.log());
    }

    /// Reads everything back: nothing acknowledged is missing, nothing is there that was not sent.
    #[track_caller]
    pub fn verify(&self, server: &Server) {
        let output = Command::new(find_loadgen())
            .args(["verify", "--json", "--url", &server.url(), "--ledger"])
            .arg(self.ledger())
            .output()
            .expect("loadgen starts");
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "verify: {}\n{report}\n{errors}", output.status);
        let json: serde_json::Value = serde_json::from_str(&report)
            .unwrap_or_else(|error| panic!("verify's report: {error}\n{report}"));
        for fault in ["missing", "extra", "wrong"] {
            assert_eq!(json[fault].as_u64(), Some(0), "{fault}\n{report}");
        }
        println!("verified: {}", report.trim());
    }

    fn ledger(&self) -> PathBuf {
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
