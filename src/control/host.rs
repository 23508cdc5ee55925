//! DRIVER: what the machine allows this process, and what the process uses: /proc and the cgroup.
//! Linux.

use std::fs;
use std::path::Path;

/// What defaults are derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The cgroup's limit, or the machine's memory if that is less or there is none.
    pub memory_bytes: u64,
    /// CPUs in the affinity mask, no more than the cgroup's quota; at least 1.
    pub cpu_count: u32,
}

impl HostFacts {
    /// Reads them.
    pub fn read() -> Self {
        let total_bytes = fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| parse_meminfo_bytes(&text))
            .unwrap_or(1 << 30);
        let limit_bytes = cgroup_memory_max_bytes().unwrap_or(u64::MAX);
        // Honours affinity and the cgroup's CPU quota.
        let cpu_count = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            memory_bytes: total_bytes.min(limit_bytes),
            cpu_count: u32::try_from(cpu_count).unwrap_or(u32::MAX),
        }
    }
}

/// What the process uses now; `None` where /proc does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// User and system time.
    pub cpu_seconds: Option<f64>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl ProcessUsage {
    /// Reads it.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self {
            cpu_seconds: parse_stat_cpu_seconds(&stat),
            resident_bytes: parse_kib_bytes(&status, "VmRSS:"),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
            threads: field(&status, "Threads:").and_then(|count| count.parse().ok()),
        }
    }
}

/// The least limit on the way from the process' cgroup to the root (version 2).
fn cgroup_memory_max_bytes() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    root.join(path)
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(|folder| fs::read_to_string(folder.join("memory.max")).ok())
        .filter_map(|limit| limit.trim().parse().ok())
        .min()
}

fn parse_meminfo_bytes(text: &str) -> Option<u64> {
    parse_kib_bytes(text, "MemTotal:")
}

fn parse_kib_bytes(text: &str, name: &str) -> Option<u64> {
    let kib: u64 = field(text, name)?.parse().ok()?;
    kib.checked_mul(1024)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

/// Fields 14 and 15 of `/proc/<pid>/stat`, in ticks of 1/100 s on every Linux that we run on.
fn parse_stat_cpu_seconds(text: &str) -> Option<f64> {
    // The second field is the name in parentheses and may hold spaces and parentheses.
    let (_, after_name) = text.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_formats() {
        let meminfo = "MemTotal:       16303428 kB\nMemFree:  1 kB\n";
        assert_eq!(parse_meminfo_bytes(meminfo), Some(16_303_428 * 1024));
        assert_eq!(parse_meminfo_bytes("x"), None);
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 1 0 5 6 7";
        assert_eq!(parse_stat_cpu_seconds(stat), Some(3.0));
        assert_eq!(parse_stat_cpu_seconds(""), None);
    }

    #[test]
    fn this_host_says_something() {
        let facts = HostFacts::read();
        assert!(facts.memory_bytes > 1 << 26 && facts.cpu_count >= 1);
        let usage = ProcessUsage::read();
        assert!(usage.resident_bytes > Some(1 << 20) && usage.open_fds > Some(0));
    }
}
