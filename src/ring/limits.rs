//! DRIVER: what the host must allow before a ring works, asked once at start, with the remedy in
//! each error.
//!
//! Linux 6.1 is the oldest kernel that has all we use: `DEFER_TASKRUN` (6.1), `SINGLE_ISSUER` and
//! multishot receive (6.0), multishot accept, the provided buffer ring and cancellation by
//! descriptor (5.19), multishot poll (5.13), a timeout as an argument of `io_uring_enter` (5.11).

use std::fmt;
use std::io;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::event::Errno;

/// The oldest kernel that the ring works on: major, minor.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// Why a ring cannot be made. Displays as cause and remedy; all of them are the host's or its
/// operator's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingSetupError {
    KernelTooOld {
        major: u32,
        minor: u32,
    },
    /// `kernel.io_uring_disabled` is set: 1 for unprivileged processes outside of its group, 2 for
    /// all.
    DisabledBySysctl {
        level: u32,
    },
    /// A seccomp filter or security module says no: `EPERM`, `EACCES` or `ENOSYS` on a kernel that
    /// has it.
    Forbidden {
        errno: Errno,
    },
    /// `ENOMEM`, with the limit on locked memory in force.
    LockedMemory {
        limit_bytes: u64,
    },
    /// `ENOMEM` although locked memory is unlimited.
    OutOfMemory,
    /// `EMFILE` or `ENFILE`.
    TooManyOpenFiles,
    /// Sizes that no ring can have.
    Options,
    Other {
        errno: Errno,
    },
}

impl fmt::Display for RingSetupError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min_major, min_minor) = KERNEL_MIN;
        formatter.write_str("cannot set up io_uring: ")?;
        match self {
            Self::KernelTooOld { major, minor } => write!(
                formatter,
                "Linux {major}.{minor} is too old; boot {min_major}.{min_minor} or newer"
            ),
            Self::DisabledBySysctl { level } => write!(
                formatter,
                "it is disabled (kernel.io_uring_disabled = {level}); \
                 run `sysctl -w kernel.io_uring_disabled=0` as root"
            ),
            Self::Forbidden { errno } => write!(
                formatter,
                "a seccomp or security profile forbids it ({errno}); allow io_uring_setup, \
                 io_uring_enter and io_uring_register, in a container for example by \
                 `--security-opt seccomp=unconfined`"
            ),
            Self::LockedMemory { limit_bytes } => write!(
                formatter,
                "out of memory while {limit_bytes} bytes may be locked; raise it by `ulimit -l \
                 unlimited` or `LimitMEMLOCK=infinity` in the systemd unit, or free memory"
            ),
            Self::OutOfMemory => formatter.write_str(
                "out of memory; free some, raise the cgroup's limit, or run fewer shards",
            ),
            Self::TooManyOpenFiles => formatter.write_str(
                "too many open files; raise `ulimit -n` or `LimitNOFILE` in the systemd unit",
            ),
            Self::Options => formatter.write_str(
                "the sizes are impossible; entries go from 1 to 32768, buffer counts are powers \
                 of two up to 32768",
            ),
            Self::Other { errno } => write!(formatter, "{errno}"),
        }
    }
}

impl std::error::Error for RingSetupError {}

/// What failed, which decides what an error number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetupStep {
    /// `io_uring_setup`.
    Create,
    /// Mapping memory, opening the eventfd.
    Memory,
    /// `io_uring_register`.
    Register,
}

/// What the host says of itself, as far as it bears on a failure.
#[derive(Clone, Copy, Debug)]
struct Host {
    kernel: Option<(u32, u32)>,
    disabled_level: u32,
    locked_limit_bytes: u64,
}

impl RingSetupError {
    pub(super) fn diagnose(step: SetupStep, error: &io::Error) -> Self {
        explain(step, error.raw_os_error().unwrap_or(libc::EIO), &read_host(Path::new("/")))
    }
}

/// Checks what can be known before a ring is made, so that the first error names the cause.
pub fn check_host() -> Result<(), RingSetupError> {
    check_known(&read_host(Path::new("/")))
}

fn check_known(host: &Host) -> Result<(), RingSetupError> {
    if let Some((major, minor)) = host.kernel
        && (major, minor) < KERNEL_MIN
    {
        return Err(RingSetupError::KernelTooOld { major, minor });
    }
    // Level 1 lets privileged processes and a group through: that, making the ring will tell.
    if host.disabled_level >= 2 {
        return Err(RingSetupError::DisabledBySysctl { level: host.disabled_level });
    }
    Ok(())
}

fn explain(step: SetupStep, errno: i32, host: &Host) -> RingSetupError {
    if let Err(known) = check_known(host) {
        return known;
    }
    match errno {
        libc::EPERM if step == SetupStep::Create && host.disabled_level > 0 => {
            RingSetupError::DisabledBySysctl { level: host.disabled_level }
        }
        libc::EPERM | libc::EACCES | libc::ENOSYS if step != SetupStep::Memory => {
            RingSetupError::Forbidden { errno: Errno(errno) }
        }
        libc::ENOMEM if host.locked_limit_bytes == u64::MAX || step == SetupStep::Memory => {
            RingSetupError::OutOfMemory
        }
        libc::ENOMEM => RingSetupError::LockedMemory { limit_bytes: host.locked_limit_bytes },
        libc::EMFILE | libc::ENFILE => RingSetupError::TooManyOpenFiles,
        _ => RingSetupError::Other { errno: Errno(errno) },
    }
}

fn read_host(root: &Path) -> Host {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let disabled = read("proc/sys/kernel/io_uring_disabled");
    Host {
        kernel: read("proc/sys/kernel/osrelease").and_then(|release| parse_release(&release)),
        disabled_level: disabled.and_then(|level| level.trim().parse().ok()).unwrap_or(0),
        locked_limit_bytes: getrlimit(Resource::RLIMIT_MEMLOCK).map_or(u64::MAX, |limit| limit.0),
    }
}

/// `6.1.0-18-amd64` -> (6, 1). `None` for what does not begin so.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.trim().splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?;
    let digits = minor.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor[..digits].parse().ok()?))
}

/// Raises the soft limit on open files to the hard one, as each connection is a file; returns the
/// limit now in force. Call it before `Ring::accept`: the kernel reads the limit when a multishot
/// accept is armed, and keeps to it.
pub fn raise_open_files() -> Result<u64, Errno> {
    let failed = |errno: nix::errno::Errno| Errno(errno as i32);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Host =
        Host { kernel: Some((6, 18)), disabled_level: 0, locked_limit_bytes: 8 << 20 };

    #[test]
    fn releases() {
        #[track_caller]
        fn check(release: &str, want: Option<(u32, u32)>) {
            assert_eq!(parse_release(release), want, "release={release:?}");
        }
        check("6.1.0-18-amd64\n", Some((6, 1)));
        check("6.18.44-fc", Some((6, 18)));
        check("7.0-rc1", Some((7, 0)));
        check("6.12+", Some((6, 12)));
        check("6", None);
        check("", None);
        check("x.y.z", None);
    }

    #[test]
    fn each_failure_has_its_cause() {
        use RingSetupError as E;
        use SetupStep::{Create, Memory, Register};
        #[track_caller]
        fn check(step: SetupStep, errno: i32, host: Host, want: RingSetupError) {
            assert_eq!(explain(step, errno, &host), want);
            let text = want.to_string();
            assert!(text.starts_with("cannot set up io_uring: ") && text.len() > 40, "{text}");
        }
        let old = Host { kernel: Some((5, 15)), ..FINE };
        check(Create, libc::EINVAL, old, E::KernelTooOld { major: 5, minor: 15 });
        let disabled = Host { disabled_level: 2, ..FINE };
        check(Create, libc::EPERM, disabled, E::DisabledBySysctl { level: 2 });
        let restricted = Host { disabled_level: 1, ..FINE };
        check(Create, libc::EPERM, restricted, E::DisabledBySysctl { level: 1 });
        check(Create, libc::EPERM, FINE, E::Forbidden { errno: Errno(libc::EPERM) });
        check(Register, libc::ENOSYS, FINE, E::Forbidden { errno: Errno(libc::ENOSYS) });
        check(Create, libc::ENOMEM, FINE, E::LockedMemory { limit_bytes: 8 << 20 });
        check(Memory, libc::ENOMEM, FINE, E::OutOfMemory);
        let unlimited = Host { locked_limit_bytes: u64::MAX, ..FINE };
        check(Register, libc::ENOMEM, unlimited, E::OutOfMemory);
        check(Memory, libc::EMFILE, FINE, E::TooManyOpenFiles);
        check(Create, libc::EINVAL, FINE, E::Other { errno: Errno(libc::EINVAL) });
    }

    #[test]
    fn reads_a_made_up_host() {
        let root = tempfile::tempdir().expect("temporary folder");
        let folder = root.path().join("proc/sys/kernel");
        std::fs::create_dir_all(&folder).expect("folder");
        std::fs::write(folder.join("osrelease"), "6.0.9-generic\n").expect("file");
        std::fs::write(folder.join("io_uring_disabled"), "2\n").expect("file");
        let host = read_host(root.path());
        assert_eq!((host.kernel, host.disabled_level), (Some((6, 0)), 2));
        let old = Err(RingSetupError::KernelTooOld { major: 6, minor: 0 });
        assert_eq!(check_known(&host), old);
        // A host that does not say is given the benefit of the doubt.
        let silent = read_host(&root.path().join("nothing"));
        assert_eq!((silent.kernel, silent.disabled_level), (None, 0));
        assert_eq!(check_known(&silent), Ok(()));
    }

    #[test]
    fn open_files_reach_the_hard_limit() {
        let raised = raise_open_files().expect("raising to the hard limit needs no privilege");
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
        assert_eq!((soft, hard), (raised, raised));
    }
}
