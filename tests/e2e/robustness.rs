//! Random bytes, truncations and 10,000 mutated bodies on every ingest path, while good requests go
//! on elsewhere:
//! never a crash, always an answer, and a 4xx says why.

use crate::body::{
    IMPORT_PATH, REMOTE_WRITE_HEADERS, REMOTE_WRITE_PATHS, Series, compress, gzip, json_lines,
    now_ms, remote_write, write_request,
};
use crate::http::{Client, Response};
use crate::random::Random;
use crate::server::Server;
use std::sync::atomic::{AtomicBool, Ordering};

/// Mutated bodies for each ingest path.
const MUTATIONS: usize = 10_000;
const RANDOM_BODIES: usize = 500;

#[test]
fn bad_bodies_one_shard() {
    run(1);
}

#[test]
fn bad_bodies_two_shards() {
    run(2);
}

fn run(shards: u32) {
    let mut random = Random::from_environment();
    let mut server = Server::start(shards);
    let stop = AtomicBool::new(false);
    let good_requests = std::thread::scope(|scope| {
        let good = scope.spawn(|| send_good_requests(server.client(), &stop));
        // Stops the other thread on a panic too, so that the scope can end and show it.
        let _stopper = StopOnDrop(&stop);
        for path in REMOTE_WRITE_PATHS {
            attack_remote_write(&server, path, &mut random);
        }
        attack_import(&server, &mut random);
        stop.store(true, Ordering::Relaxed);
        good.join().expect("good requests are answered well")
    });
    assert!(server.is_running(), "it crashed\n{}", server.log());
    assert!(good_requests > 100, "good requests starve: {good_requests}");
    let exported = server.get("/api/v1/export?match[]=good").text();
    let samples = exported.lines().next().map_or(0, |line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        line["values"].as_array().map_or(0, Vec::len)
    });
    assert_eq!(samples, good_requests, "good samples on other connections");
    server.terminate();
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One sample each, all of one series; returns how many.
fn send_good_requests(mut client: Client, stop: &AtomicBool) -> usize {
    let start_ms = now_ms() - 60_000;
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let time_ms = start_ms + i64::try_from(sent).expect("few");
        let body = remote_write(&[Series::new(&[("__name__", "good")], &[(time_ms, 1.0)])]);
        let response = client
            .request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &body)
            .expect("a good request is answered");
        assert_eq!(response.status, 204, "{}", response.text());
        sent += 1;
    }
    sent
}

fn attack_remote_write(server: &Server, path: &str, random: &mut Random) {
    let series = example_series();
    let plain = write_request(&series);
    let packed = compress(&plain);
    let mut attack = Attack::new(server, path, &REMOTE_WRITE_HEADERS);
    for _ in 0..RANDOM_BODIES {
        let len = random.below(2000);
        attack.send(&random.bytes(len));
        let len = random.below(2000);
        attack.send(&compress(&random.bytes(len)));
    }
    for len in 0..packed.len() {
        attack.send(&packed[..len]);
    }
    for round in 0..MUTATIONS {
        // Half of them get past the decompressor, to the decoder.
        let body = match round % 2 {
            0 => random.mutate(&packed),
            _ => compress(&random.mutate(&plain)),
        };
        attack.send(&body);
    }
    attack.finish();
}

fn attack_import(server: &Server, random: &mut Random) {
    let plain = json_lines(&example_series());
    let packed = gzip(&plain);
    let mut attack = Attack::new(server, IMPORT_PATH, &[]);
    for _ in 0..RANDOM_BODIES {
        let len = random.below(2000);
        attack.send(&random.bytes(len));
    }
    for len in 0..plain.len() {
        attack.send(&plain[..len]);
    }
    for _ in 0..MUTATIONS / 2 {
        attack.send(&random.mutate(&plain));
    }
    attack.finish();
    let mut attack = Attack::new(server, IMPORT_PATH, &[("Content-Encoding", "gzip")]);
    for round in 0..MUTATIONS / 2 {
        let body = match round % 2 {
            0 => random.mutate(&packed),
            _ => gzip(&random.mutate(&plain)),
        };
        attack.send(&body);
    }
    attack.finish();
}

/// Small, so that a mutation has a good chance to hit every kind of byte.
fn example_series() -> Vec<Series> {
    let time_ms = now_ms() - 30_000;
    let labels = [("__name__", "mutant"), ("instance", "a:1"), ("job", "ü"), ("le", "+Inf")];
    vec![
        Series::new(&labels, &[(time_ms, 1.5), (time_ms + 1000, f64::INFINITY)]),
        Series::new(
            &labels[..2],
            &[(time_ms, -0.0), (time_ms + 1, 1e300), (time_ms + 2, f64::NAN)],
        ),
    ]
}

/// Bad bodies for one path over one connection, which is made anew when the server has closed it.
struct Attack<'a> {
    server: &'a Server,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    client: Client,
    accepted: usize,
    refused: usize,
}

impl<'a> Attack<'a> {
    fn new(server: &'a Server, path: &'a str, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { server, path, headers, client: server.client(), accepted: 0, refused: 0 }
    }

    #[track_caller]
    fn send(&mut self, body: &[u8]) {
        let answer = self.client.request("POST", self.path, self.headers, body);
        let response = answer.unwrap_or_else(|error| {
            panic!("{}: no answer: {error}\nbody: {}", self.path, hex(body))
        });
        self.judge(&response, body);
        if response.closes() {
            self.client = self.server.client();
        }
    }

    #[track_caller]
    fn judge(&mut self, response: &Response, body: &[u8]) {
        match response.status {
            200 | 204 => self.accepted += 1,
            400 | 413 => {
                self.refused += 1;
                assert!(!response.body.is_empty(), "{} without a reason", response.status);
            }
            status => {
                panic!("{}: {status} {}\nbody: {}", self.path, response.text(), hex(body))
            }
        }
    }

    fn finish(self) {
        println!("{}: {} accepted, {} refused", self.path, self.accepted, self.refused);
        assert!(self.refused > 100, "{}: hardly anything was refused", self.path);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
