//! Sets kernel parameters, keeps their old values, and sets them back.
//! Only raises: a limit that is already higher than wanted stays. Not here: what needs a reboot or
//! a tool.

use crate::host::Host;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::ExitCode;

/// A kernel parameter by its path, and what it should be. Several numbers are compared one by one.
pub struct Setting {
    pub path: &'static str,
    pub wanted: &'static str,
}

/// Many connections that send much: deep accept queues, room for the windows of fast senders.
pub const INGEST: [Setting; 6] = [
    Setting { path: "/proc/sys/net/core/somaxconn", wanted: "4096" },
    Setting { path: "/proc/sys/net/ipv4/tcp_max_syn_backlog", wanted: "8192" },
    Setting { path: "/proc/sys/net/core/rmem_max", wanted: "16777216" },
    Setting { path: "/proc/sys/net/core/wmem_max", wanted: "16777216" },
    Setting { path: "/proc/sys/net/ipv4/tcp_rmem", wanted: "4096 131072 16777216" },
    Setting { path: "/proc/sys/net/ipv4/tcp_wmem", wanted: "4096 65536 16777216" },
];

/// What a setting was before it was changed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    path: String,
    old: String,
    new: String,
}

/// Sets what is below `settings`. The old values are in `undo_file` before the first is changed.
pub fn apply(
    host: &Host,
    settings: &[Setting],
    undo_file: &Path,
    dry_run: bool,
) -> Result<ExitCode, String> {
    let changes = plan(host, settings);
    for Change { path, old, new } in &changes {
        println!("{path}: {old} -> {new}");
    }
    if changes.is_empty() {
        println!("nothing to set: all is at least as wanted");
    }
    if dry_run || changes.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    keep(&changes, undo_file)?;
    for change in &changes {
        set(host, &change.path, &change.new)?;
    }
    println!("old values are in {}; `tuning undo` sets them back", undo_file.display());
    Ok(ExitCode::SUCCESS)
}

/// Sets everything back that `undo_file` names, and removes the file.
pub fn undo(host: &Host, undo_file: &Path) -> Result<ExitCode, String> {
    for change in kept(undo_file)? {
        println!("{}: {} -> {}", change.path, change.new, change.old);
        set(host, &change.path, &change.old)?;
    }
    std::fs::remove_file(undo_file)
        .map_err(|error| format!("cannot remove {}: {error}", undo_file.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn plan(host: &Host, settings: &[Setting]) -> Vec<Change> {
    let change = |setting: &Setting| {
        let old = host.read(setting.path)?;
        let new = raised(&old, setting.wanted)?;
        Some(Change { path: setting.path.into(), old, new })
    };
    settings.iter().filter_map(change).collect()
}

/// The larger of each pair of numbers; `None` if that changes nothing or they do not pair up.
fn raised(old: &str, wanted: &str) -> Option<String> {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.split_whitespace().map(|number| number.parse().ok()).collect()
    };
    let (old, wanted) = (numbers(old)?, numbers(wanted)?);
    let new: Vec<u64> = old.iter().zip(&wanted).map(|(old, wanted)| *old.max(wanted)).collect();
    let is_change = old.len() == wanted.len() && new != old;
    is_change.then(|| new.iter().map(u64::to_string).collect::<Vec<_>>().join(" "))
}

/// Adds to what an earlier `apply` kept: the oldest value of a setting is the one to go back to.
fn keep(changes: &[Change], undo_file: &Path) -> Result<(), String> {
    let mut all = if undo_file.exists() { kept(undo_file)? } else { Vec::new() };
    for Change { path, old, new } in changes {
        match all.iter_mut().find(|earlier| earlier.path == *path) {
            Some(earlier) => earlier.new.clone_from(new),
            None => all.push(Change { path: path.clone(), old: old.clone(), new: new.clone() }),
        }
    }
    let json = serde_json::to_string_pretty(&all).expect("strings only");
    std::fs::write(undo_file, json + "\n")
        .map_err(|error| format!("cannot write {}: {error}", undo_file.display()))
}

fn kept(undo_file: &Path) -> Result<Vec<Change>, String> {
    let cannot = |error: String| format!("cannot read {}: {error}", undo_file.display());
    let text = std::fs::read_to_string(undo_file).map_err(|error| cannot(error.to_string()))?;
    let changes: Vec<Change> =
        serde_json::from_str(&text).map_err(|error| cannot(error.to_string()))?;
    // Root writes what this file says where it says: only to the parameters that `apply` knows.
    match changes.iter().find(|change| !is_parameter(&change.path)) {
        Some(change) => Err(cannot(format!("{} is not a kernel parameter of ours", change.path))),
        None => Ok(changes),
    }
}

fn is_parameter(path: &str) -> bool {
    INGEST.iter().any(|setting| setting.path == path)
}

fn set(host: &Host, path: &str, value: &str) -> Result<(), String> {
    host.write(path, value).map_err(|error| format!("cannot set {path}: {error} (root?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
    const TCP_RMEM: &str = "/proc/sys/net/ipv4/tcp_rmem";

    fn made_up() -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let host = Host::new(folder.path());
        for (path, value) in [(SOMAXCONN, "128"), (TCP_RMEM, "4096\t131072\t33554432")] {
            let full = folder.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(full.parent().expect("a folder")).expect("a folder");
            std::fs::write(full, value).expect("a file");
        }
        (folder, host)
    }

    #[test]
    fn only_raises() {
        assert_eq!(raised("128", "4096"), Some("4096".into()));
        assert_eq!(raised("8192", "4096"), None);
        assert_eq!(raised("1\t9\t1", "2 2 2"), Some("2 9 2".into()));
        assert_eq!(raised("max", "4096"), None);
        assert_eq!(raised("1 2", "4096"), None);
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let (folder, host) = made_up();
        let undo_file = folder.path().join("undo");
        apply(&host, &INGEST, &undo_file, true).expect("a dry run");
        assert_eq!(host.read(SOMAXCONN).as_deref(), Some("128"));
        assert!(!undo_file.exists());
    }

    #[test]
    fn undo_goes_back_to_the_oldest() {
        let (folder, host) = made_up();
        let undo_file = folder.path().join("undo");
        apply(&host, &INGEST, &undo_file, false).expect("applied");
        assert_eq!(host.read(SOMAXCONN).as_deref(), Some("4096"));
        assert_eq!(host.read(TCP_RMEM).as_deref(), Some("4096\t131072\t33554432"));
        host.write(SOMAXCONN, "1024").expect("written");
        apply(&host, &INGEST, &undo_file, false).expect("applied");
        assert_eq!(host.read(SOMAXCONN).as_deref(), Some("4096"));
        undo(&host, &undo_file).expect("undone");
        assert_eq!(host.read(SOMAXCONN).as_deref(), Some("128"));
        assert!(undo(&host, &undo_file).is_err());
    }

    #[test]
    fn an_undo_file_sets_nothing_else() {
        let (folder, host) = made_up();
        let undo_file = folder.path().join("undo");
        let other = r#"[{"path": "/etc/passwd", "old": "root::0:0", "new": ""}]"#;
        std::fs::write(&undo_file, other).expect("a file");
        assert!(undo(&host, &undo_file).is_err());
    }
}
