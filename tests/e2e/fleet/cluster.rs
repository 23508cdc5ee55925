//! A fleet of `scripts/cluster`, taken down when dropped.

use crate::body::{REMOTE_WRITE_HEADERS, Series, now_ms, remote_write};
use crate::http::{Client, Response};
use crate::loadgen::{self, Sender};
use crate::process::{is_root, tail, wait_for};
use crate::server::program;
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// Longer than any replay of a test's log, and than any link takes to come back.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longer than the health timeout and what it takes to connect behind it.
const READS_DEADLINE: Duration = Duration::from_secs(5);
/// Room for all that a test sends.
pub const WIDE_DISK: &str = "1g";
/// How well a clock is set, on a busy machine.
const CLOCK_PRECISION_S: f64 = 0.5;
const CLIENT_PORT: u16 = 8428;
const HTTP_PORT: u16 = 8429;
const LINK_PORT: u16 = 9500;

/// Where the hosts of a fleet are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// On loopback addresses.
    Loopback,
    /// In network namespaces.
    Namespaces,
}

/// Whether this host lets us make namespaces, and mount; says so if it does not.
pub fn has_namespaces() -> bool {
    let tried = Command::new("unshare").args(["--net", "true"]).output();
    let has = is_root() && tried.is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("SKIPPED: no network namespaces here; they need root, iproute2 and util-linux");
    }
    has
}

/// A running fleet: gateways `g1`.., nodes `n1`...
pub struct Fleet {
    folder: TempDir,
    tested: Cell<Tested>,
}

/// What a test has done, for the table of `scripts/e2e`.
#[derive(Clone, Copy, Default)]
struct Tested {
    faults: u64,
    samples: u64,
    reads: u64,
}

/// The commands of `scripts/cluster` that do harm...
const FAULTS: [&str; 9] =
    ["kill", "term", "stop", "netem", "partition", "disk", "clock", "move", "dns"];
/// ...unless they end with one of these words, which mend it.
const MENDING: [&str; 6] = ["0", "none", "update", "cont", "start", WIDE_DISK];

impl Fleet {
    /// Starts it with these options of `scripts/cluster up`, and waits until all are ready.
    #[track_caller]
    pub fn start(network: Network, options: &str) -> Self {
        Self::start_with(network, options, &[])
    }

    /// The same, with options that have blanks.
    #[track_caller]
    pub fn start_with(network: Network, options: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fleet = Self { folder, tested: Cell::default() };
        let network = match network {
            Network::Loopback => "loopback",
            Network::Namespaces => "namespaces",
        };
        let program = program();
        let bin = program.to_str().expect("a path of UTF-8");
        let mut words = vec!["up", "--network", network, "--bin", bin];
        words.extend(options.split_ascii_whitespace());
        words.extend(more);
        fleet.run(&words);
        fleet
    }

    /// Runs a command of `scripts/cluster`, which must succeed; what it says.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        if FAULTS.contains(&words[0]) && words.last().is_some_and(|last| !MENDING.contains(last)) {
            let tested = self.tested.get();
            self.tested.set(Tested { faults: tested.faults + 1, ..tested });
        }
        let output = self.command(words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cluster {words:?}: {}\n{errors}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a member has said since the fleet was started.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.member(name).join("log")).unwrap_or_default()
    }

    /// Waits until a member has said `text`.
    #[track_caller]
    pub fn wait_for_log(&self, name: &str, text: &str) {
        let said = wait_for(DEADLINE, || self.log(name).contains(text).then_some(()));
        assert!(said.is_some(), "{name} does not say `{text}`");
    }

    /// `kill -9`.
    #[track_caller]
    pub fn kill(&self, name: &str) {
        self.run(&["kill", name]);
    }

    /// Starts it again, and waits until it is ready.
    #[track_caller]
    pub fn start_again(&self, name: &str) {
        self.run(&["start", name]);
    }

    /// The address of a member.
    #[track_caller]
    pub fn address(&self, name: &str) -> String {
        let path = self.member(name).join("address");
        std::fs::read_to_string(path).expect("a member has an address").trim().to_owned()
    }

    /// Where gateways reach a node.
    #[track_caller]
    pub fn link(&self, name: &str) -> String {
        let path = self.member(name).join("link");
        let address = std::fs::read_to_string(path).expect("a node has an address for links");
        // As the program writes it: without leading zeros.
        let address: SocketAddr = format!("{}:{LINK_PORT}", address.trim()).parse().expect("one");
        address.to_string()
    }

    /// For `--url`, of a gateway.
    #[track_caller]
    pub fn url(&self, gateway: &str) -> String {
        format!("http://{}:{CLIENT_PORT}", self.address(gateway))
    }

    /// Those of all gateways.
    #[track_caller]
    pub fn urls(&self) -> Vec<String> {
        self.run(&["urls"]).lines().map(str::to_owned).collect()
    }

    /// A connection to a gateway or a node.
    #[track_caller]
    pub fn client(&self, name: &str) -> Client {
        let port = if name.starts_with('g') { CLIENT_PORT } else { HTTP_PORT };
        let client = Client::connect_to(&self.address(name), port);
        client.unwrap_or_else(|error| panic!("cannot connect to {name}: {error}"))
    }

    /// One GET, of a gateway or a node.
    #[track_caller]
    pub fn get(&self, name: &str, path: &str) -> Response {
        let answer = self.client(name).get(path);
        answer.unwrap_or_else(|error| panic!("GET {path} of {name}: {error}"))
    }

    /// The same, if somebody answers.
    pub fn try_get(&self, name: &str, path: &str) -> Option<Response> {
        let port = if name.starts_with('g') { CLIENT_PORT } else { HTTP_PORT };
        Client::connect_to(&self.address(name), port).and_then(|mut it| it.get(path)).ok()
    }

    /// Sends a sample of each of some series to a gateway, which must answer. They are too many for
    /// a node to own none of them by chance.
    #[track_caller]
    pub fn write(&self, gateway: &str) -> Response {
        let time_ms = now_ms();
        let series: Vec<Series> = (0..200)
            .map(|number| {
                let number = number.to_string();
                let labels = [("__name__", "written"), ("gateway", gateway), ("number", &number)];
                Series::new(&labels, &[(time_ms, 1.0)])
            })
            .collect();
        let body = remote_write(&series);
        let mut client = self.client(gateway);
        let answer = client.request("POST", "/api/v1/write", &REMOTE_WRITE_HEADERS, &body);
        answer.unwrap_or_else(|error| panic!("{gateway} does not answer: {error}"))
    }

    /// Sets how far a member's clock is off, and waits until its program sees it.
    #[track_caller]
    pub fn set_clock(&self, name: &str, offset_s: i32) {
        self.run(&["clock", name, &offset_s.to_string()]);
        // The time of an instant query that names none is the server's own.
        let path = "/api/v1/query?query=1";
        let is_set = || {
            let time = self.get(name, path).json()["data"]["result"][0].as_f64()?;
            let off = time - now_ms() as f64 / 1000.0 - f64::from(offset_s);
            (off.abs() < CLOCK_PRECISION_S).then_some(())
        };
        let done = wait_for(DEADLINE, is_set);
        assert!(done.is_some(), "{name} does not see its clock: {}", self.get(name, path).text());
    }

    /// The sum of a metric of `/metrics`: by its name, and by a label if given: `name{label="v"`.
    #[track_caller]
    pub fn metric(&self, name: &str, metric: &str) -> f64 {
        self.get(name, "/metrics").metric_sum(metric).unwrap_or(0.0)
    }

    /// Waits until a metric is as it should be.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, metric: &str, is_good: impl Fn(f64) -> bool) {
        self.wait_for_sum(&[name], metric, is_good);
    }

    /// The same for the sum over members, of what one of them sees and chance says which.
    #[track_caller]
    pub fn wait_for_sum(&self, names: &[&str], metric: &str, is_good: impl Fn(f64) -> bool) {
        let sum = || names.iter().map(|name| self.metric(name, metric)).sum();
        let done = wait_for(DEADLINE, || is_good(sum()).then_some(()));
        assert!(done.is_some(), "{metric} of {names:?} is {}", sum());
    }

    /// `tidegate cluster ...`, asked of gateway `g1`, which must succeed; what it says.
    #[track_caller]
    pub fn cluster(&self, words: &[&str]) -> String {
        let said = cluster_at(&self.url("g1"), words);
        said.unwrap_or_else(|errors| panic!("tidegate cluster {words:?}: {errors}"))
    }

    /// The id of the node at this member's address.
    #[track_caller]
    pub fn node_id(&self, name: &str) -> String {
        let found = self.find_node(name);
        let status = || self.get("g1", "/api/v1/cluster/status").text();
        found.unwrap_or_else(|| panic!("{} is not in {}", self.link(name), status()))
    }

    /// The same, if the newest document says that a node is there.
    #[track_caller]
    pub fn find_node(&self, name: &str) -> Option<String> {
        let status = self.get("g1", "/api/v1/cluster/status").json();
        let nodes = status["data"]["nodes"].as_array().expect("a list of nodes");
        let link = self.link(name);
        let found = nodes.iter().find(|node| node["address"] == link.as_str())?;
        Some(found["id"].as_str().expect("an id").to_owned())
    }

    /// Sends over connections that are spread over the gateways and go to another when they fail.
    pub fn send(&self, protocol: &str, seed: u64) -> Sender {
        Sender::start_to(&self.urls(), protocol, seed)
    }

    /// Reads everything back through each gateway.
    #[track_caller]
    pub fn verify(&self, sender: &Sender) {
        for url in self.urls() {
            let samples = loadgen::verify_at(&url, &sender.ledger());
            let Tested { faults, samples: before, reads } = self.tested.get();
            self.tested.set(Tested { faults, samples: before.max(samples), reads: reads + 1 });
        }
    }

    /// The same, and once more when `node` is gone: what it had, its replicas have.
    #[track_caller]
    pub fn verify_with_and_without(&self, node: &str, sender: &Sender) {
        self.verify(sender);
        self.kill(node);
        self.verify(sender);
    }

    /// Waits until no gateway has anything left to deliver: samples of a node that was down.
    #[track_caller]
    pub fn wait_for_hints(&self, gateways: &[&str]) {
        for gateway in gateways {
            self.wait_for_metric(gateway, "tidegate_hint_samples", |samples| samples == 0.0);
        }
    }

    /// Waits until a gateway's answers lack nothing: after a network that was cut, and after a node
    /// started, which does not know at once whether it missed something.
    #[track_caller]
    pub fn wait_for_reads(&self, gateway: &str) {
        let whole = || {
            let answer = self.get(gateway, "/api/v1/labels");
            let is_whole = answer.status == 200 && answer.json()["warnings"].is_null();
            is_whole.then_some(())
        };
        let done = wait_for(READS_DEADLINE, whole);
        assert!(done.is_some(), "{}", self.get(gateway, "/api/v1/labels").text());
    }

    /// What a gateway's answer lacks; `null` if nothing.
    #[track_caller]
    pub fn warnings(&self, gateway: &str) -> serde_json::Value {
        let answer = self.get(gateway, "/api/v1/labels");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["warnings"].clone()
    }

    /// One POST without a body, of a gateway or a node.
    #[track_caller]
    pub fn post(&self, name: &str, path: &str) -> Response {
        let port = if name.starts_with('g') { CLIENT_PORT } else { HTTP_PORT };
        let answer = Client::connect_to(&self.address(name), port)
            .and_then(|mut client| client.request("POST", path, &[], b""));
        answer.unwrap_or_else(|error| panic!("POST {path} of {name}: {error}"))
    }

    /// More words for the program of a member, from its next start on, instead of those given here
    /// before.
    pub fn change_command(&self, name: &str, words: &[&str]) {
        let (path, first) = (self.member(name).join("command"), self.member(name).join("first"));
        if !first.exists() {
            std::fs::copy(&path, &first).expect("a member has a command");
        }
        let mut command = std::fs::read(&first).expect("just written");
        for word in words {
            command.extend_from_slice(word.as_bytes());
            command.push(0);
        }
        std::fs::write(&path, command).expect("a file");
    }

    fn member(&self, name: &str) -> PathBuf {
        self.folder.path().join("fleet").join(name)
    }

    fn command(&self, words: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster");
        let mut command = Command::new(script);
        command.arg("--dir").arg(self.folder.path().join("fleet")).args(words);
        command.output().expect("bash runs")
    }
}

/// `tidegate cluster ...`, asked of any gateway; what it says, or why it failed.
pub fn cluster_at(url: &str, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program());
    let output = command.arg("cluster").args(words).args(["--url", url]).output();
    let output = output.expect("tidegate starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(said) } else { Err(errors) }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", String::from_utf8_lossy(&self.command(&["status"]).stdout));
            for name in ["g1", "g2", "n1", "n2", "n3", "n4", "d1"] {
                let last = tail(&self.log(name), 15);
                eprintln!("--- the last words of {name} ---\n{last}");
            }
        }
        let Tested { faults, samples, reads } = self.tested.get();
        println!("tested: {faults} faults, {samples} samples, read {reads} times");
        // A failure here leaves processes behind, which the next line would hide.
        let output = self.command(&["down"]);
        if !output.status.success() {
            eprintln!("not taken down: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
