//! DRIVER: one line that says what the figures were measured on, from /proc.

use std::fs;
use std::thread;

/// `CPU model, N cores, Linux VERSION`.
pub fn describe() -> String {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu_info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value.trim())
    };
    let cores = thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} (family {}, model {}), {cores} cores, Linux {}",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        kernel.trim()
    )
}
