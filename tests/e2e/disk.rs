//! A small file system of a test's own, to fill up or to be without a feature. Mounting needs root.

use crate::process::is_root;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Unmounted when dropped.
pub struct Disk(TempDir);

impl Disk {
    /// Mounts a file system that lives in memory; `None`, and a word about it, without root.
    pub fn mount(kind: &str, options: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("SKIPPED: mounting a {kind} needs root");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let status = Command::new("mount")
            .args(["-t", kind, "-o", options, "tidegate-e2e"])
            .arg(folder.path())
            .status()
            .expect("mount runs");
        assert!(status.success(), "cannot mount a {kind}");
        Some(Self(folder))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Uses up all room that is left.
    pub fn fill(&self) {
        self.fill_until(0);
    }

    /// Uses up room until no more than `free_bytes` are left.
    pub fn fill_until(&self, free_bytes: u64) {
        let mut ballast = File::create(self.path().join("ballast")).expect("room for a name");
        let zeros = [0; 4096];
        while self.free_bytes() > free_bytes {
            if ballast.write_all(&zeros).is_err() {
                break;
            }
        }
    }

    fn free_bytes(&self) -> u64 {
        let found = nix::sys::statvfs::statvfs(self.path()).expect("a file system");
        found.blocks_available() * found.fragment_size()
    }

    /// Gives back what `fill` took.
    pub fn make_room(&self) {
        std::fs::remove_file(self.path().join("ballast")).expect("the ballast");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.path().display());
        }
    }
}
