//! DRIVER: the CPU time of a process, all its threads, from /proc. Nanoseconds where the kernel
//! counts them.

use std::fs;
use std::path::Path;

/// CPU time of process `pid` (or `self`) so far. The threads' own counters are exact but lose
/// threads that have ended; the process's counter keeps those but ticks a hundred times a second.
/// The larger is nearer.
pub fn process_cpu_ns(pid: &str) -> u64 {
    let root = Path::new("/proc").join(pid);
    threads_cpu_ns(&root).max(ticks_cpu_ns(&root))
}

fn threads_cpu_ns(root: &Path) -> u64 {
    let Ok(tasks) = fs::read_dir(root.join("task")) else { return 0 };
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// A thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadCpu {
    /// Its number; no other thread of the host has it.
    pub id: u32,
    /// As it calls itself, 15 bytes at most. The kernel's workers for a thread's ring are called
    /// `iou-wrk-<id>` after that thread.
    pub name: String,
    /// CPU time so far.
    pub cpu_ns: u64,
}

/// The threads that process `pid` has now.
pub fn threads(pid: u32) -> Vec<ThreadCpu> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let thread = |folder: &Path| {
        let id = folder.file_name()?.to_str()?.parse().ok()?;
        let name = fs::read_to_string(folder.join("comm")).ok()?.trim_end().to_owned();
        let text = fs::read_to_string(folder.join("schedstat")).ok()?;
        let cpu_ns = text.split_ascii_whitespace().next()?.parse().ok()?;
        Some(ThreadCpu { id, name, cpu_ns })
    };
    // One that ends while it is looked at is gone.
    tasks.filter_map(|task| thread(&task.ok()?.path())).collect()
}

/// Fields 14 and 15 of `stat`: user and system time in ticks of 10 ms (USER_HZ is 100 on every
/// Linux we run on).
fn ticks_cpu_ns(root: &Path) -> u64 {
    let stat = fs::read_to_string(root.join("stat")).unwrap_or_default();
    // The command's name, in parentheses, may hold spaces: fields are counted from behind it.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks * 10_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_names() {
        let (up, is_up) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let named = std::thread::Builder::new().name("a-name".into());
        let thread = named.spawn(move || {
            // A thread names itself before it does what it is for.
            up.send(()).ok();
            ended.recv().ok();
        });
        is_up.recv().expect("it says so");
        let found = threads(std::process::id());
        drop(end);
        thread.expect("a thread").join().expect("it waits");
        assert!(found.iter().any(|thread| thread.name == "a-name"), "{found:?}");
    }

    #[test]
    fn work_is_seen() {
        let before = process_cpu_ns("self");
        let mut value = 1_u64;
        for _ in 0..40_000_000_u32 {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
        assert!(process_cpu_ns("self") - before > 5_000_000, "40 M multiplications take > 5 ms");
        let ticks = ticks_cpu_ns(Path::new("/proc/self"));
        assert!(
            ticks.abs_diff(threads_cpu_ns(Path::new("/proc/self"))) < 3_000_000_000,
            "same unit"
        );
    }
}
