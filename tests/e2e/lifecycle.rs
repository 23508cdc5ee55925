//! Starts, stops, and starts that must fail: SIGTERM drains, ports and folders in use are named.
//!
//! Seen red when: requests are answered before their write begins and a signal ends the process at
//! once.

use crate::body::{REMOTE_WRITE_HEADERS, Series, now_ms, remote_write};
use crate::disk::Disk;
use crate::http::Client;
use crate::loadgen::Sender;
use crate::random::Random;
use crate::server::{Server, free_port, run_to_end};
use std::time::Duration;

#[test]
fn sigterm_loses_nothing_one_shard() {
    drain(1);
}

#[test]
fn sigterm_loses_nothing_two_shards() {
    drain(2);
}

/// The server is stopped and started three times while load comes in.
fn drain(shards: u32) {
    let mut random = Random::from_environment();
    let mut server = Server::start(shards);
    let mut sender = Sender::start(&server, "remote-write", random.next());
    for _ in 0..3 {
        sender.wait_for_acks(50);
        server.terminate();
        server.restart(shards);
    }
    sender.wait_for_acks(5);
    sender.stop();
    sender.verify(&server);
}

#[test]
fn sigterm_ends_an_idle_server_with_open_connections() {
    let mut server = Server::start(1);
    let mut idle = server.client();
    assert_eq!(idle.get("/-/healthy").expect("an answer").status, 200);
    server.terminate();
    assert!(idle.is_closed_by_server(), "a drained server leaves no connection open");
}

/// Who stops in the middle of a request holds a drain up, but not for long.
#[test]
fn sigterm_does_not_wait_for_a_client_that_sends_no_more() {
    let mut server = Server::start_with(1, None, &["--shutdown-timeout", "1s"]);
    let _client = half_sent(&server);
    server.begin_termination();
    assert_eq!(server.exit_code(Duration::from_secs(5)), Some(0), "{}", server.log());
}

#[test]
fn a_second_signal_ends_at_once() {
    const SIGTERM: i32 = 15;
    let mut server = Server::start_with(1, None, &["--shutdown-timeout", "10m"]);
    let _client = half_sent(&server);
    server.begin_termination();
    // Two signals at once can arrive as one.
    server.wait_for_log("answering what is in flight");
    assert!(server.is_running(), "it does not wait for the request\n{}", server.log());
    server.begin_termination();
    let code = server.exit_code(Duration::from_secs(5));
    assert_eq!(code, Some(128 + SIGTERM), "{}", server.log());
    server.restart(1);
}

/// A connection in the middle of a request, which the server has begun to read.
fn half_sent(server: &Server) -> Client {
    let mut client = server.client();
    let head = "POST /api/v1/import HTTP/1.1\r\nHost: tidegate\r\n\
                Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n";
    client.send_raw(head.as_bytes()).expect("a ready server reads");
    let answer = client.read_status().expect("it wants the body");
    assert_eq!(answer, 100);
    client.send_raw(b"{").expect("a ready server reads");
    client
}

#[test]
fn a_file_system_without_direct_io_works_and_is_named() {
    // ramfs is the one file system of every kernel that refuses O_DIRECT.
    let Some(disk) = Disk::mount("ramfs", "mode=700") else { return };
    let data = disk.path().join("data");
    let mut server = Server::start_with(1, Some(&data), &["--log-segment-bytes", "8MiB"]);
    assert!(server.log().contains("O_DIRECT"), "{}", server.log());
    let sample = Series::new(&[("__name__", "without_direct_io")], &[(now_ms(), 1.0)]);
    let body = remote_write(&[sample]);
    let answer = server.client().request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &body);
    assert_eq!(answer.expect("an answer").status, 204, "{}", server.log());
    server.kill9();
    server.restart(1);
    let lines = server.get("/api/v1/export?match[]=without_direct_io").text();
    assert_eq!(lines.lines().count(), 1, "{lines:?}");
}

#[test]
fn a_read_only_disk_is_named() {
    let Some(disk) = Disk::mount("tmpfs", "ro,size=16m") else { return };
    let data = disk.path().join("data").to_string_lossy().into_owned();
    let listen = format!("127.0.0.1:{}", free_port());
    check_failed_start(&listen, &data, &[&data, "Read-only"]);
}

#[test]
fn a_taken_port_is_named() {
    let server = Server::start(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().to_string_lossy().into_owned();
    // A listener without SO_REUSEPORT, and another tidegate with it: both are in the way.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let foreign = listener.local_addr().expect("bound").port();
    for port in [server.port(), foreign] {
        let listen = format!("127.0.0.1:{port}");
        check_failed_start(&listen, &data, &[&port.to_string(), "port is taken"]);
    }
}

#[test]
fn a_locked_data_folder_is_named() {
    let server = Server::start(1);
    let data = server.data().to_string_lossy().into_owned();
    check_failed_start(&format!("127.0.0.1:{}", free_port()), &data, &[&data, "lock"]);
}

#[test]
fn a_data_folder_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").expect("a temporary file");
    let data = file.to_string_lossy().into_owned();
    check_failed_start(&format!("127.0.0.1:{}", free_port()), &data, &[&data]);
}

/// The start fails with a code that is not 0, and says all of `words`.
#[track_caller]
fn check_failed_start(listen: &str, data: &str, words: &[&str]) {
    let arguments = ["serve", "--no-pin", "--shards", "1", "--listen", listen, "--data", data];
    let output = run_to_end(&arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0), "{}\n{text}", output.status);
    for word in words {
        assert!(text.contains(word), "the message lacks `{word}`:\n{text}");
    }
    assert!(!text.contains("panicked"), "a message, not a panic:\n{text}");
}
