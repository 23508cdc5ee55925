//! A full disk: 503 while it is full, 204 again once there is room, and nothing acknowledged is
//! lost.
//! The disk is a tmpfs of this test's own, so it needs root.
//!
//! Seen red when: a segment that could not be made is not asked for again.

use crate::body::{REMOTE_WRITE_HEADERS, Series, now_ms, remote_write};
use crate::disk::Disk;
use crate::http::{Client, Response, escape};
use crate::process::wait_for;
use crate::server::Server;
use std::time::Duration;

/// Room for the first segments, without `fill` taking long.
const DISK: &str = "size=128m";
/// Series of one request: enough that the rest of a segment is soon used up.
const SERIES: usize = 5000;
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn one_shard() {
    run(1);
}

#[test]
fn two_shards() {
    run(2);
}

fn run(shards: u32) {
    let Some(disk) = Disk::mount("tmpfs", DISK) else { return };
    let mut server = Server::start_with(
        shards,
        Some(&disk.path().join("data")),
        &["--log-segment-bytes", "8MiB", "--disk-free-min", "4KiB"],
    );
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
    assert!(full.text().contains("disk_full"), "the reason comes first: {}", full.text());
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
    // What is left of the segment in use may serve until the next can be made.
    for words in ["cannot make the next log segment", "log segments can be made again"] {
        let said = wait_for(DEADLINE, || server.log().contains(words).then_some(()));
        assert!(said.is_some(), "it does not say `{words}`:\n{}", server.log());
    }
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
