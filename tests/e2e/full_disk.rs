//! A full disk: 503 while it is full, 204 again once there is room, and nothing acknowledged is
//! lost.
//! The disk is a tmpfs of this test's own, so it needs root.

use crate::body::{REMOTE_WRITE_HEADERS, Series, now_ms, remote_write};
use crate::http::{Client, Response, escape};
use crate::process::{is_root, wait_for};
use crate::server::Server;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const DISK_MIB: u32 = 512;
/// Series of one request: enough that the rest of a segment is soon used up.
const SERIES: usize = 5000;
const DEADLINE: Duration = Duration::from_secs(60);

struct Disk(TempDir);

impl Disk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_MIB}m"), "tidegate-e2e"])
            .arg(folder.path())
            .status()
            .expect("mount runs");
        assert!(status.success(), "cannot mount a tmpfs");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Uses up all room that is left.
    fn fill(&self) {
        let mut ballast = File::create(self.path().join("ballast")).expect("room for a name");
        let zeros = [0; 4096];
        while ballast.write_all(&zeros).is_ok() {}
    }

    fn make_room(&self) {
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

#[test]
fn one_shard() {
    run(1);
}

#[test]
fn two_shards() {
    run(2);
}

fn run(shards: u32) {
    if !is_root() {
        eprintln!("SKIPPED: a full disk needs root, to mount a small one");
        return;
    }
    let disk = Disk::mount();
    let mut server = Server::start_with(shards, Some(&disk.path().join("data")), &[]);
    let mut client = server.client();
    let mut acked = Vec::new();
    let first = send(&mut client, 0);
    assert_eq!(first.status, 204, "{}", first.text());
    acked.push(0);

    disk.fill();
    let mut request = 0;
    let full = wait_for(DEADLINE, || {
        request += 1;
        let response = send(&mut client, request);
        if response.status == 204 {
            acked.push(request);
            return None;
        }
        Some(response)
    });
    let full = full.unwrap_or_else(|| panic!("no 503 on a full disk\n{}", server.log()));
    assert_eq!(full.status, 503, "{}", full.text());
    assert!(full.header("retry-after").is_some(), "503 says when to come again: {full:?}");
    assert!(server.is_running());
    assert_eq!(server.get("/-/healthy").status, 200);

    disk.make_room();
    let recovered = wait_for(DEADLINE, || {
        request += 1;
        let response = send(&mut client, request);
        (response.status == 204).then_some(request)
    });
    acked.push(recovered.unwrap_or_else(|| panic!("no recovery\n{}", server.log())));
    check_all_there(&server, &acked);
    server.kill9();
    server.restart(shards);
    check_all_there(&server, &acked);
}

/// Sends one sample of each of [`SERIES`] series that are named after the request.
fn send(client: &mut Client, request: usize) -> Response {
    let number = request.to_string();
    let time_ms = now_ms();
    let filler = "x".repeat(100);
    let series: Vec<Series> = (0..SERIES)
        .map(|index| {
            let index = index.to_string();
            let labels = [
                ("__name__", "full_disk"),
                ("filler", &filler),
                ("index", &index),
                ("request", &number),
            ];
            Series::new(&labels, &[(time_ms, 1.0)])
        })
        .collect();
    let body = remote_write(&series);
    client
        .request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &body)
        .expect("an answer, full or not")
}

/// A sample of each acknowledged request, picked by index, reads back.
fn check_all_there(server: &Server, acked: &[usize]) {
    for request in acked {
        for index in [0, SERIES / 2, SERIES - 1] {
            let selector = format!("full_disk{{request=\"{request}\",index=\"{index}\"}}");
            let path = format!("/api/v1/export?match[]={}", escape(&selector));
            let lines = server.get(&path).text();
            assert_eq!(lines.lines().count(), 1, "request {request}, series {index}: {lines:?}");
        }
    }
}
