//! Random bytes, truncations and 10,000 mutated bodies on every ingest path, and mutated requests
//! as a whole, while good requests go on elsewhere: never a crash, always an answer that says why.

use crate::body::{
    IMPORT_PATH, REMOTE_WRITE_HEADERS, REMOTE_WRITE_PATHS, Series, compress, gzip, json_lines,
    now_ms, remote_write, write_request,
};
use crate::http::{Client, Response, escape};
use crate::random::Random;
use crate::server::Server;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Mutated bodies for each ingest path.
const MUTATIONS: usize = 10_000;
const RANDOM_BODIES: usize = 500;
/// Mutated requests, each on a connection of its own.
const REQUESTS: usize = 3000;
/// Connections that send good requests meanwhile: enough that each shard has one.
const GOOD_CLIENTS: usize = 4;

#[test]
fn bad_bodies_one_shard() {
    run(1, attack_bodies);
}

#[test]
fn bad_bodies_two_shards() {
    run(2, attack_bodies);
}

#[test]
fn bad_requests_one_shard() {
    run(1, attack_requests);
}

#[test]
fn bad_requests_two_shards() {
    run(2, attack_requests);
}

fn run(shards: u32, attack: fn(&Server, &mut Random)) {
    let mut random = Random::from_environment();
    let mut server = Server::start(shards);
    let stop = AtomicBool::new(false);
    let sent: Vec<usize> = std::thread::scope(|scope| {
        let spawn = |index| {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || send_good_requests(server, index, stop))
        };
        let good: Vec<_> = (0..GOOD_CLIENTS).map(spawn).collect();
        // Stops the other threads on a panic too, so that the scope can end and show it.
        let stopper = StopOnDrop(&stop);
        attack(&server, &mut random);
        drop(stopper);
        good.into_iter().map(|one| one.join().expect("good requests are answered well")).collect()
    });
    assert!(server.is_running(), "it crashed\n{}", server.log());
    println!("good requests meanwhile: {sent:?}");
    for (index, sent) in sent.into_iter().enumerate() {
        assert!(sent > 20, "good requests starve: {sent} of connection {index}");
        assert_eq!(count_good(&server, index), sent, "samples of connection {index}");
    }
    server.terminate();
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One sample each, all of one series, by remote write and JSON lines in turns; returns how many.
fn send_good_requests(server: &Server, index: usize, stop: &AtomicBool) -> usize {
    let mut client = server.client();
    let start_ms = now_ms() - 60_000;
    let labels = [("__name__", "good"), ("client", &*index.to_string())];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let time_ms = start_ms + i64::try_from(sent).expect("few");
        let series = [Series::new(&labels, &[(time_ms, 1.0)])];
        let answer = match sent % 2 {
            0 => {
                let body = remote_write(&series);
                client.request("POST", REMOTE_WRITE_PATHS[0], &REMOTE_WRITE_HEADERS, &body)
            }
            _ => client.request("POST", IMPORT_PATH, &[], &json_lines(&series)),
        };
        let response = answer.expect("a good request is answered");
        assert_eq!(response.status, 204, "{}", response.text());
        sent += 1;
        // The attack is to have the larger part of the two cores.
        std::thread::sleep(Duration::from_millis(2));
    }
    sent
}

fn count_good(server: &Server, index: usize) -> usize {
    let selector = escape(&format!("good{{client=\"{index}\"}}"));
    let exported = server.get(&format!("/api/v1/export?match[]={selector}"));
    exported.json()["values"].as_array().map_or(0, Vec::len)
}

fn attack_bodies(server: &Server, random: &mut Random) {
    for path in REMOTE_WRITE_PATHS {
        attack_remote_write(server, path, random);
    }
    attack_import(server, random);
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
        attack.send_refused(&packed[..len]);
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
        // Cut between two lines, or just before a line's end, it is whole.
        let is_whole = len == 0 || plain[len - 1] == b'\n' || plain[len] == b'\n';
        if is_whole { attack.send(&plain[..len]) } else { attack.send_refused(&plain[..len]) }
    }
    for _ in 0..MUTATIONS / 2 {
        attack.send(&random.mutate(&plain));
    }
    attack.finish();
    let mut attack = Attack::new(server, IMPORT_PATH, &[("Content-Encoding", "gzip")]);
    for len in 0..packed.len() {
        attack.send_refused(&packed[..len]);
    }
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

    /// Sends what cannot be good.
    #[track_caller]
    fn send_refused(&mut self, body: &[u8]) {
        let accepted = self.accepted;
        self.send(body);
        assert_eq!(self.accepted, accepted, "{}: accepted: {}", self.path, hex(body));
    }

    #[track_caller]
    fn send(&mut self, body: &[u8]) {
        let answer = self.client.request("POST", self.path, self.headers, body);
        let response = answer.unwrap_or_else(|error| {
            panic!("{}: no answer: {error}\nbody: {}", self.path, hex(body))
        });
        if is_refusal(&response) {
            self.refused += 1;
        } else {
            let is_good = response.status == 204;
            assert!(is_good, "{}: {}\nbody: {}", self.path, response.text(), hex(body));
            self.accepted += 1;
        }
        if response.closes() {
            self.client = self.server.client();
        }
    }

    fn finish(self) {
        println!("{}: {} accepted, {} refused", self.path, self.accepted, self.refused);
        assert!(self.refused > 1000, "{}: hardly anything was refused", self.path);
    }
}

/// Whether the answer refuses the body, or lines of it, and says why.
fn is_refusal(response: &Response) -> bool {
    match response.status {
        400 | 413 => !response.body.is_empty(),
        // Lines are refused one by one, and the answer quotes them.
        200 => {
            let report = response.json();
            let quoted = report["failed_lines"].as_array().expect("a list");
            let is_cut = |line: &Value| line.as_str().is_some_and(|text| text.len() <= 200);
            assert!(quoted.len() <= 3 && quoted.iter().all(is_cut), "{report}");
            let is_named = report["refused"].as_object().is_some_and(|reasons| !reasons.is_empty());
            report["errors"].as_u64() > Some(0) && (is_named || !quoted.is_empty())
        }
        _ => false,
    }
}

/// Whole requests with their heads, cut and mutated, one connection each.
fn attack_requests(server: &Server, random: &mut Random) {
    let bodies = [remote_write(&example_series()), json_lines(&example_series())];
    let post = |path: &str, more: &str, body: &[u8]| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a:1\r\n{more}\r\n");
        [head.as_bytes(), body].concat()
    };
    let of_length = |body: &[u8]| format!("Content-Length: {}\r\n", body.len());
    let chunks = |body: &[u8]| {
        let (first, rest) = body.split_at(body.len() / 2);
        let size = |bytes: &[u8]| format!("{:x}\r\n", bytes.len()).into_bytes();
        let end = b"\r\n0\r\nTrailer: a\r\n\r\n".as_slice();
        [&size(first), first, b"\r\n", &size(rest), rest, end].concat()
    };
    let get = b"GET /api/v1/query?query=good&time=1 HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
    let import = post(IMPORT_PATH, "Transfer-Encoding: chunked\r\n", &chunks(&bodies[1]));
    let seeds = [
        post(REMOTE_WRITE_PATHS[0], &of_length(&bodies[0]), &bodies[0]),
        post(
            IMPORT_PATH,
            &format!("Expect: 100-continue\r\n{}", of_length(&bodies[1])),
            &bodies[1],
        ),
        [import, get.to_vec()].concat(),
        [get, get, b"HEAD /metrics HTTP/1.0\r\n\r\n"].concat(),
        b"GET /api/v1/export?match[]=good&max_rows_per_line=2 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ];
    let mut statuses = std::collections::BTreeMap::new();
    for round in 0..REQUESTS {
        let seed = &seeds[round % seeds.len()];
        let request = match round / seeds.len() {
            0..50 => random.bytes(200),
            50..150 => seed[..random.below(seed.len())].to_vec(),
            _ => random.mutate(seed),
        };
        let status = first_status(server, &request);
        assert!(
            status.is_none_or(|status| status < 500 || matches!(status, 501 | 505)),
            "{status:?} of {}",
            hex(&request)
        );
        *statuses.entry(status.unwrap_or_default()).or_insert(0) += 1;
    }
    println!("first statuses (0: none): {statuses:?}");
    assert!(statuses[&400] > 500 && statuses.len() > 4, "hardly anything was tried: {statuses:?}");
}

/// Sends bytes and that they are all; the status of the first answer, before the server closes.
#[track_caller]
fn first_status(server: &Server, request: &[u8]) -> Option<u16> {
    let mut client = server.client();
    client.send_raw(request).ok(); // It may have closed already.
    client.finish_sending();
    let answers = client.read_to_close();
    let answers = answers.unwrap_or_else(|| panic!("stays open: {}", hex(request)));
    if answers.is_empty() {
        return None;
    }
    let status = answers.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Some(status.unwrap_or_else(|| panic!("no HTTP: {}", hex(&answers))))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
