//! Waiting for what other processes do: conditions with a deadline, exits, signals.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How often a condition is looked at. Short against what is waited for, long against its cost.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `condition` gives a value; `None` if it has not within `deadline`.
pub fn wait_for<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if start.elapsed() > deadline {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits for `child` to end by itself.
pub fn wait_for_exit(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    wait_for(deadline, || child.try_wait().expect("our own child"))
}

/// Sends a signal, by name without `SIG`.
pub fn signal(child: &Child, name: &str) {
    // The shell's own `kill`: std has only SIGKILL, and a system call needs `unsafe`.
    let command = format!("kill -{name} {}", child.id());
    let status = Command::new("sh").args(["-c", &command]).status().expect("sh runs");
    assert!(status.success(), "cannot send SIG{name} to {}", child.id());
}

/// Whether this test runs as root, and so may mount.
pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    output.stdout.trim_ascii() == b"0"
}

/// Where a program is that is named by `variable`, or lies beside the tests' own programs.
pub fn find_program(variable: &str, beside: &Path, name: &str) -> PathBuf {
    let path =
        std::env::var_os(variable).map_or_else(|| beside.with_file_name(name), PathBuf::from);
    assert!(
        path.is_file(),
        "there is no {}: `scripts/test` builds it; by hand: \
         cargo build --package tidegate --package tidegate-loadgen --bins, or set {variable}",
        path.display()
    );
    path
}

/// The last lines of a text, for messages.
pub fn tail(text: &str, line_count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(line_count)..].join("\n")
}
