//! Starts, stops, and starts that must fail: SIGTERM drains, ports and folders in use are named.

use crate::loadgen::Sender;
use crate::random::Random;
use crate::server::{Server, free_port, run_to_end};

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
