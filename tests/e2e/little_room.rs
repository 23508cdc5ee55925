//! A disk that runs low: writes are refused before it is full, reads go on, and with room again so
//! do writes. The disk is a tmpfs of this test's own, so it needs root.

use crate::admin::{count_samples, flush};
use crate::body::{IMPORT_PATH, Series, json_lines, now_ms};
use crate::disk::Disk;
use crate::http::Response;
use crate::process::wait_for;
use crate::server::Server;
use std::time::Duration;

const DISK: &str = "size=256m";
const FLOOR_BYTES: u64 = 64 << 20;
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
    let options = ["--log-segment-bytes", "8MiB", "--disk-free-min", "64MiB"];
    let mut server = Server::start_with(shards, Some(&disk.path().join("data")), &options);
    assert_eq!(write(&server, "before").status, 204);
    flush(&server);

    disk.fill_until(FLOOR_BYTES - (1 << 20));
    let refused = wait_for(DEADLINE, || {
        let response = write(&server, "meanwhile");
        (response.status != 204).then_some(response)
    });
    let refused = refused.unwrap_or_else(|| panic!("no 503 below the floor\n{}", server.log()));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("disk-free-min"), "the setting: {}", refused.text());
    assert!(refused.header("retry-after").is_some(), "503 says when to come again: {refused:?}");
    assert_eq!(count_samples(&server, "{job=\"before\"}"), 100, "reads go on");
    assert!(server.is_running());

    disk.make_room();
    let recovered = wait_for(DEADLINE, || (write(&server, "after").status == 204).then_some(()));
    assert!(recovered.is_some(), "no recovery\n{}", server.log());
    server.kill9();
    server.restart(shards);
    for job in ["before", "after"] {
        assert_eq!(count_samples(&server, &format!("{{job=\"{job}\"}}")), 100, "{job}");
    }
}

/// The same 100 series each time, a sample each at a time of their own.
fn write(server: &Server, job: &str) -> Response {
    let time_ms = now_ms() / 3_600_000 * 3_600_000;
    let series: Vec<Series> = (0..100)
        .map(|number| {
            let number = number.to_string();
            let labels = [("__name__", "little_room"), ("job", job), ("number", &number)];
            Series::new(&labels, &[(time_ms, 1.0)])
        })
        .collect();
    let response = server.client().request("POST", IMPORT_PATH, &[], &json_lines(&series));
    response.expect("an answer, whatever the room")
}
