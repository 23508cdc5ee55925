//! What is looked at on a host, each with the value that is wanted and what mends it. O(files
//! read), changes nothing but for one empty file in the data folder, which is removed at once.

use crate::host::Host;
use crate::report::{Finding, Level, Want};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// A connection is a descriptor; so is each segment of a log.
const OPEN_FILES_MIN: u64 = 65_536;
/// Rings and registered buffers are locked memory.
const LOCKED_BYTES_MIN: u64 = 8 * MIB;
const ACCEPT_QUEUE_MIN: u64 = 1024;
const SOCKET_BYTES_MIN: u64 = 4 * MIB;

#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const O_DIRECT: i32 = 0o200_000;
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
const O_DIRECT: i32 = 0o40_000;

/// Looks at everything, what must be so first.
pub fn check_host(host: &Host, data: &Path) -> Vec<Finding> {
    vec![
        kernel(host),
        io_uring(host),
        locked_memory(host),
        open_files(host),
        direct_writes(host, data),
        drive_scheduler(host),
        clock(host),
        governor(host),
        smt(host),
        huge_pages(host),
        irqbalance(host),
        accept_queue(host),
        receive_window(host),
        send_window(host),
    ]
}

fn kernel(host: &Host) -> Finding {
    let want = Want {
        name: "kernel",
        wanted: "6.1 or newer",
        otherwise: Level::Fail,
        remedy: "boot a newer kernel: the shards' rings need DEFER_TASKRUN",
    };
    want.judge(host.read("/proc/sys/kernel/osrelease"), |release| {
        let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        let (major, minor) = (parts.next(), parts.next());
        matches!((major, minor), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 1))
    })
}

fn io_uring(host: &Host) -> Finding {
    let want = Want {
        name: "kernel.io_uring_disabled",
        wanted: "0",
        otherwise: Level::Fail,
        remedy: "sysctl kernel.io_uring_disabled=0; in a container also allow io_uring_setup",
    };
    let path = "/proc/sys/kernel/io_uring_disabled";
    // Kernels before 6.6 have no such switch, and no way to be off but seccomp.
    let has_kernel = host.read("/proc/sys/kernel/osrelease").is_some();
    let value = host.read(path).or_else(|| has_kernel.then(|| "0".into()));
    want.judge(value, |value| value == "0")
}

fn locked_memory(host: &Host) -> Finding {
    let want = Want {
        name: "RLIMIT_MEMLOCK",
        wanted: "8 MiB or more",
        otherwise: Level::Fail,
        remedy: "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
    };
    let limit = soft_limit(host, "Max locked memory");
    want.judge(limit, |limit| is_at_least(limit, LOCKED_BYTES_MIN))
}

fn open_files(host: &Host) -> Finding {
    let want = Want {
        name: "RLIMIT_NOFILE",
        wanted: "65536 or more",
        otherwise: Level::Warn,
        remedy: "ulimit -n 1048576, or LimitNOFILE=1048576 in the unit",
    };
    want.judge(soft_limit(host, "Max open files"), |limit| is_at_least(limit, OPEN_FILES_MIN))
}

fn direct_writes(host: &Host, data: &Path) -> Finding {
    let want = Want {
        name: "O_DIRECT on the data folder",
        wanted: "yes",
        otherwise: Level::Warn,
        remedy: "use ext4 or XFS for the data; without it writes go through the page cache",
    };
    let answer = host.is_live().then(|| takes_direct_writes(data)).flatten();
    want.judge(answer.map(|is_so| if is_so { "yes" } else { "no" }), |answer| *answer == "yes")
}

/// `None` where no file can be made, for whatever other reason.
fn takes_direct_writes(data: &Path) -> Option<bool> {
    let path = data.join(format!(".tidegate-tuning-{}", std::process::id()));
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).open(&path);
    made.ok()?;
    let direct = OpenOptions::new().write(true).custom_flags(O_DIRECT).open(&path);
    std::fs::remove_file(&path).ok();
    Some(direct.is_ok())
}

fn drive_scheduler(host: &Host) -> Finding {
    let want = Want {
        name: "scheduler of NVMe drives",
        wanted: "none",
        otherwise: Level::Warn,
        remedy: "echo none > /sys/block/nvme*/queue/scheduler",
    };
    let drives = host.list("/sys/block").into_iter().filter(|name| name.starts_with("nvme"));
    let chosen = drives.filter_map(|name| {
        let schedulers = host.read(&format!("/sys/block/{name}/queue/scheduler"))?;
        Some(format!("{name} {}", bracketed(&schedulers)?))
    });
    let chosen: Vec<String> = chosen.collect();
    if chosen.is_empty() {
        return want.judge(Some("no NVMe drive"), |_| true);
    }
    want.judge(Some(chosen.join(", ")), |_| chosen.iter().all(|one| one.ends_with(" none")))
}

fn clock(host: &Host) -> Finding {
    let want = Want {
        name: "clocksource",
        wanted: "tsc, kvm-clock or arch_sys_counter",
        otherwise: Level::Warn,
        remedy: "find out in dmesg why the kernel rejects the fast clock; \
                 others need a system call",
    };
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    want.judge(host.read(path), |name| {
        ["tsc", "kvm-clock", "arch_sys_counter"].contains(&name.as_str())
    })
}

fn governor(host: &Host) -> Finding {
    let want = Want {
        name: "CPU governor",
        wanted: "performance",
        otherwise: Level::Warn,
        remedy: "cpupower frequency-set --governor performance",
    };
    let cpus = host.list("/sys/devices/system/cpu").into_iter();
    let mut governors: Vec<String> = cpus
        .filter_map(|cpu| {
            host.read(&format!("/sys/devices/system/cpu/{cpu}/cpufreq/scaling_governor"))
        })
        .collect();
    governors.sort();
    governors.dedup();
    let value = (!governors.is_empty()).then(|| governors.join(", "));
    want.judge(value, |governors| governors == "performance")
}

fn smt(host: &Host) -> Finding {
    let want = Want {
        name: "SMT",
        wanted: "off, or one shard a core",
        otherwise: Level::Warn,
        remedy: "two shards on one core share its caches: give --shards the number of cores",
    };
    want.judge(host.read("/sys/devices/system/cpu/smt/control"), |control| control != "on")
}

fn huge_pages(host: &Host) -> Finding {
    let want = Want {
        name: "transparent huge pages",
        wanted: "madvise or never",
        otherwise: Level::Warn,
        remedy: "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    };
    let modes = host.read("/sys/kernel/mm/transparent_hugepage/enabled");
    want.judge(modes.as_deref().and_then(bracketed), |mode| mode != "always")
}

fn irqbalance(host: &Host) -> Finding {
    let want = Want {
        name: "irqbalance",
        wanted: "not running, or kept off the shards' CPUs",
        otherwise: Level::Warn,
        remedy: "systemctl disable --now irqbalance and spread the NIC's queues by hand, or set \
                 IRQBALANCE_BANNED_CPULIST to the shards' CPUs",
    };
    let processes: Vec<String> = host.list("/proc");
    let comms = processes.iter().filter_map(|id| host.read(&format!("/proc/{id}/comm")));
    let mut comms = comms.peekable();
    let can_tell = comms.peek().is_some();
    let runs = comms.any(|comm| comm == "irqbalance");
    let value = if runs { "running" } else { "not running" };
    want.judge(can_tell.then_some(value), |value| *value == "not running")
}

fn accept_queue(host: &Host) -> Finding {
    let want = Want {
        name: "net.core.somaxconn",
        wanted: "1024 or more",
        otherwise: Level::Warn,
        remedy: "tuning apply",
    };
    want.judge(host.read_number("/proc/sys/net/core/somaxconn"), |queue| *queue >= ACCEPT_QUEUE_MIN)
}

fn receive_window(host: &Host) -> Finding {
    let want = Want {
        name: "net.ipv4.tcp_rmem",
        wanted: "4 MiB or more at most",
        otherwise: Level::Warn,
        remedy: "tuning apply",
    };
    want.judge(host.read("/proc/sys/net/ipv4/tcp_rmem"), |sizes| has_room(sizes))
}

fn send_window(host: &Host) -> Finding {
    let want = Want {
        name: "net.ipv4.tcp_wmem",
        wanted: "4 MiB or more at most",
        otherwise: Level::Warn,
        remedy: "tuning apply",
    };
    want.judge(host.read("/proc/sys/net/ipv4/tcp_wmem"), |sizes| has_room(sizes))
}

/// The last of `least, default, most`.
fn has_room(sizes: &str) -> bool {
    let most = sizes.split_whitespace().nth(2).and_then(|most| most.parse::<u64>().ok());
    most.is_some_and(|most| most >= SOCKET_BYTES_MIN)
}

/// The `[chosen]` of a list.
fn bracketed(choices: &str) -> Option<String> {
    let (_, rest) = choices.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// The soft limit of this process, as its parent's shell or unit handed it down.
fn soft_limit(host: &Host, name: &str) -> Option<String> {
    let limits = host.read("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next().map(str::to_owned)
}

fn is_at_least(limit: &str, min: u64) -> bool {
    limit == "unlimited" || limit.parse().is_ok_and(|limit: u64| limit >= min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that has only these files.
    fn made_up(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let full = folder.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(full.parent().expect("a folder")).expect("a folder");
            std::fs::write(full, text).expect("a file");
        }
        let host = Host::new(folder.path());
        (folder, host)
    }

    #[track_caller]
    fn check(look: fn(&Host) -> Finding, path: &str, text: &str, want: Level) {
        let (_folder, host) = made_up(&[(path, text)]);
        let finding = look(&host);
        assert_eq!(finding.level, want, "{finding:?}");
        assert_eq!(finding.remedy.is_empty(), matches!(want, Level::Ok | Level::Unknown));
    }

    #[test]
    fn kernel_and_its_switches() {
        let release = "/proc/sys/kernel/osrelease";
        check(kernel, release, "6.1.0-18-amd64\n", Level::Ok);
        check(kernel, release, "6.18.44\n", Level::Ok);
        check(kernel, release, "10.0\n", Level::Ok);
        check(kernel, release, "5.15.0-100-generic\n", Level::Fail);
        check(kernel, release, "6.0.19\n", Level::Fail);
        check(kernel, release, "unheard of\n", Level::Fail);
        check(kernel, "/elsewhere", "", Level::Unknown);
        check(io_uring, release, "6.1.0\n", Level::Ok);
        check(io_uring, "/proc/sys/kernel/io_uring_disabled", "2\n", Level::Fail);
        check(io_uring, "/proc/sys/kernel/io_uring_disabled", "0\n", Level::Ok);
    }

    #[test]
    fn limits() {
        let limits =
            |name: &str, soft: &str| format!("Limit  Soft  Hard\n{name}  {soft}  9  bytes\n");
        let path = "/proc/self/limits";
        let locked = |soft: &str| limits("Max locked memory", soft);
        check(locked_memory, path, &locked("unlimited"), Level::Ok);
        check(locked_memory, path, &locked("8388608"), Level::Ok);
        check(locked_memory, path, &locked("65536"), Level::Fail);
        check(open_files, path, &limits("Max open files", "1024"), Level::Warn);
        check(open_files, path, &limits("Max open files", "1048576"), Level::Ok);
        check(open_files, path, "nothing", Level::Unknown);
    }

    #[test]
    fn drives_and_cpus() {
        let scheduler = "/sys/block/nvme0n1/queue/scheduler";
        check(drive_scheduler, scheduler, "[none] mq-deadline\n", Level::Ok);
        check(drive_scheduler, scheduler, "none [mq-deadline]\n", Level::Warn);
        check(drive_scheduler, "/sys/block/sda/queue/scheduler", "[bfq]\n", Level::Ok);
        let governors = "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor";
        check(governor, governors, "performance\n", Level::Ok);
        check(governor, governors, "powersave\n", Level::Warn);
        check(governor, "/elsewhere", "", Level::Unknown);
        let pages = "/sys/kernel/mm/transparent_hugepage/enabled";
        check(huge_pages, pages, "always [madvise] never\n", Level::Ok);
        check(huge_pages, pages, "[always] madvise never\n", Level::Warn);
        check(smt, "/sys/devices/system/cpu/smt/control", "on\n", Level::Warn);
        check(smt, "/sys/devices/system/cpu/smt/control", "notsupported\n", Level::Ok);
        check(irqbalance, "/proc/7/comm", "irqbalance\n", Level::Warn);
        check(irqbalance, "/proc/7/comm", "init\n", Level::Ok);
        let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        check(clock, source, "hpet\n", Level::Warn);
        check(clock, source, "tsc\n", Level::Ok);
    }

    #[test]
    fn network() {
        check(accept_queue, "/proc/sys/net/core/somaxconn", "128\n", Level::Warn);
        check(accept_queue, "/proc/sys/net/core/somaxconn", "4096\n", Level::Ok);
        check(receive_window, "/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n", Level::Ok);
        check(send_window, "/proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t212992\n", Level::Warn);
    }

    #[test]
    fn a_folder_says_whether_it_takes_direct_writes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(takes_direct_writes(folder.path()).is_some());
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
        assert_eq!(takes_direct_writes(&folder.path().join("missing")), None);
    }
}
