//! DRIVER: runs `loadgen send` against a server and measures the server meanwhile: the clock starts
//! when the generator has built its requests, and stops when it has its last answer.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use loadgen::report::Report;

use crate::process;
use crate::server::SetUp;

/// What is measured: a server, or a fleet of them.
pub trait Target {
    /// For `--url`.
    fn url(&self) -> String;

    /// All threads of all its processes so far.
    fn cpu_ns(&self) -> u64;
}

/// The generator's report, and what the server used between its start and its end.
pub struct Measured {
    /// What was sent and acknowledged.
    pub report: Report,
    /// CPU time of all the server's threads.
    pub server_cpu_ns: u64,
}

impl Measured {
    /// The figure that counts.
    pub fn cpu_ns_per_point(&self) -> f64 {
        self.server_cpu_ns as f64 / self.report.points_acked.max(1) as f64
    }
}

/// Sends with `options` to the server `measured`.
/// # Errors
/// Also when anything was not acknowledged: then the figures would be of something else.
pub fn send(set_up: &SetUp, measured: &dyn Target, options: &str) -> io::Result<Measured> {
    let report_path =
        std::env::temp_dir().join(format!("bench-report-{}.json", std::process::id()));
    let mut child = Command::new(&set_up.loadgen)
        .args(["send", "--wait", "--url", &measured.url(), "--json"])
        .arg(&report_path)
        .args(["--give-up", "20s"])
        .args(options.split_ascii_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("loadgen has no pipes"));
    };
    let pid = process::register(child);
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let cpu_before_ns = measured.cpu_ns();
    input.write_all(b"go\n")?;
    // Its end is the end of its output: until then the registry keeps it, for a signal to find.
    io::copy(&mut output, &mut io::sink())?;
    let stopped = || io::Error::other("loadgen was stopped");
    let status = process::unregister(pid).ok_or_else(stopped)?.wait()?;
    let server_cpu_ns = measured.cpu_ns().saturating_sub(cpu_before_ns);
    if !status.success() || line.trim() != "ready" {
        return Err(io::Error::other(format!("loadgen send {options} ended with {status}")));
    }
    let report: Report = serde_json::from_slice(&std::fs::read(&report_path)?)?;
    std::fs::remove_file(&report_path)?;
    if report.points_refused + report.points_unknown > 0 {
        return Err(io::Error::other(format!("not everything was acknowledged:\n{report}")));
    }
    Ok(Measured { report, server_cpu_ns })
}

/// Reads back what `ledger` says was sent.
/// # Errors
/// Also when anything is missing, wrong, or too much.
pub fn verify(set_up: &SetUp, server: &dyn Target, ledger: &Path) -> io::Result<()> {
    let mut command = Command::new(&set_up.loadgen);
    command.args(["verify", "--url", &server.url(), "--ledger"]).arg(ledger);
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(io::Error::other(format!("not what was sent: {}", String::from_utf8_lossy(&text))))
}
