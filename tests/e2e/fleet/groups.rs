//! Rules and groups of nodes, from founding on, and what reads ask. On loopback addresses.
//!
//! Red when: series go to nodes without regard to rules (`Router::place`), a query that pins
//! the tag asks all nodes (`Router::reach`), or reads leave out the owners of an earlier epoch.

use crate::http::{Client, Response};
use crate::process::{tail, wait_for};
use crate::server::program;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DEADLINE: Duration = Duration::from_secs(30);
const CLIENT_PORT: u16 = 8428;
const HTTP_PORT: u16 = 8429;
const LINK_PORT: u16 = 9500;
const SERIES: usize = 30;

/// A process with a host of its own among the loopback addresses.
struct Member {
    address: String,
    arguments: Vec<String>,
    folder: std::path::PathBuf,
    child: Child,
}

/// Addresses that no other test's processes have.
fn address(number: u32) -> String {
    let process = std::process::id();
    format!("127.{}.{}.{number}", 100 + process % 100, process / 100 % 250 + 1)
}

fn spawn(arguments: &[String], folder: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log"));
    let log = log.expect("a log");
    let mut command = Command::new(program());
    command.args(arguments).arg("--data").arg(folder.join("data")).args(["--shards", "1"]);
    command.args(["--no-pin", "--disk-free-min", "0"]);
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    child.spawn().expect("tidegate starts")
}

impl Member {
    fn start(folder: &Path, number: u32, arguments: &[&str]) -> Self {
        let folder = folder.join(number.to_string());
        std::fs::create_dir(&folder).expect("a folder");
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let child = spawn(&arguments, &folder);
        Self { address: address(number), arguments, folder, child }
    }

    fn node(folder: &Path, number: u32, extra: &[&str], secret: &str) -> Self {
        let address = address(number);
        let (http, link) = (format!("{address}:{HTTP_PORT}"), format!("{address}:{LINK_PORT}"));
        let words = ["node", "--http", &http, "--link", &link, "--link-secret-file", secret];
        let words = [&words[..], &["--log-segment-bytes", "8MiB"]].concat();
        Self::start(folder, number, &[&words[..], extra].concat())
    }

    fn port(&self) -> u16 {
        if self.arguments[0] == "node" { HTTP_PORT } else { CLIENT_PORT }
    }

    #[track_caller]
    fn get(&self, path: &str) -> Response {
        let client = Client::connect_to(&self.address, self.port());
        let answer = client.and_then(|mut client| client.get(path));
        answer.unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.last_words()))
    }

    #[track_caller]
    fn wait_until_ready(&self) {
        let is_ready = || {
            let client = Client::connect_to(&self.address, self.port());
            let answer = client.and_then(|mut client| client.get("/-/ready"));
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        };
        assert!(wait_for(DEADLINE, is_ready).is_some(), "{}", self.last_words());
    }

    /// How many series match, and whether somebody was missed.
    #[track_caller]
    fn count(&self, selector: &str) -> (usize, bool) {
        let path = format!("/api/v1/query?query={}", crate::http::escape(selector));
        let answer = self.get(&path);
        let (status, answer) = (answer.status, answer.json());
        let found = answer["data"]["result"].as_array().map_or(0, Vec::len);
        (found, status != 200 || answer["warnings"].is_array())
    }

    fn last_words(&self) -> String {
        tail(&std::fs::read_to_string(self.folder.join("log")).unwrap_or_default(), 15)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sample of each of some series of a team.
#[track_caller]
fn import(gateway: &Member, team: &str, round: u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis();
    let line = |n: usize| {
        format!(
            "{{\"metric\":{{\"__name__\":\"m\",\"team\":\"{team}\",\"n\":\"{n}\",\
             \"round\":\"{round}\"}},\"values\":[1],\"timestamps\":[{now}]}}\n"
        )
    };
    let body: String = (0..SERIES).map(line).collect();
    // As clients do while links to a node that was away come back.
    let is_taken = || {
        let mut client = Client::connect_to(&gateway.address, CLIENT_PORT).expect("it listens");
        let answer = client.request("POST", "/api/v1/import", &[], body.as_bytes());
        (answer.expect("an answer").status == 204).then_some(())
    };
    assert!(wait_for(DEADLINE, is_taken).is_some(), "{}", gateway.last_words());
}

/// `tidegate cluster ...`.
#[track_caller]
fn cluster(gateway: &Member, words: &[&str]) -> String {
    let url = format!("http://{}:{CLIENT_PORT}", gateway.address);
    let output = Command::new(program()).arg("cluster").args(words).args(["--url", &url]).output();
    let output = output.expect("tidegate starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Three nodes, the last two in a group, and two gateways that found the fleet with a rule.
#[track_caller]
fn start_fleet(folder: &Path) -> (Vec<Member>, [Member; 2]) {
    let secret = folder.join("link.secret");
    std::fs::write(&secret, "the secret of a fleet in a test").expect("written");
    let secret = secret.to_str().expect("UTF-8");
    let group = ["--group", "pay"];
    let nodes = vec![
        Member::node(folder, 1, &[], secret),
        Member::node(folder, 2, &group, secret),
        Member::node(folder, 3, &group, secret),
    ];
    let links: Vec<String> =
        nodes.iter().map(|node| format!("{}:{LINK_PORT}", node.address)).collect();
    let config = folder.join("gateway.yaml");
    let text = format!(
        "nodes: {links:?}\nlink_secret_file: {secret:?}\n\
         group_rules:\n  - '{{team=\"pay\"}} -> pay'\n"
    );
    std::fs::write(&config, text).expect("written");
    let config = config.to_str().expect("UTF-8");
    let gateway = |number| {
        let listen = format!("{}:{CLIENT_PORT}", address(number));
        Member::start(folder, number, &["gateway", "--listen", &listen, "--config", config])
    };
    let gateways = [gateway(8), gateway(9)];
    for member in nodes.iter().chain(&gateways) {
        member.wait_until_ready();
    }
    (nodes, gateways)
}

#[test]
fn series_of_a_rule_live_in_its_group() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut nodes, gateways) = start_fleet(folder.path());
    import(&gateways[0], "pay", 1);
    import(&gateways[1], "web", 1);
    let of = |node: &Member, team: &str| node.count(&format!("m{{team=\"{team}\"}}")).0;
    let have = |team| nodes.iter().map(|node| of(node, team)).collect::<Vec<_>>();
    let pay = have("pay");
    assert!(pay[0] == 0 && pay[1] > 0 && pay[2] > 0 && pay[1] + pay[2] == SERIES, "{pay:?}");
    assert_eq!(have("web"), [SERIES, 0, 0]);
    let status = cluster(&gateways[1], &["status"]);
    assert!(status.contains("placed by tags, 1 rule\n  {team=\"pay\"} -> pay\n"), "{status}");

    // A query that pins the tag misses nobody else.
    nodes[0].child.kill().expect("our own child");
    nodes[0].child.wait().expect("our own child");
    for gateway in &gateways {
        assert_eq!(gateway.count("m{team=\"pay\"}"), (SERIES, false));
    }
    let missed = wait_for(DEADLINE, || gateways[0].count("m{team=\"web\"}").1.then_some(()));
    assert!(missed.is_some(), "the other group is not missed");
    nodes[0].child = spawn(&nodes[0].arguments, &nodes[0].folder);
    nodes[0].wait_until_ready();

    // Another strategy: first shown, then done; what came before is found where it is.
    let plan = cluster(&gateways[0], &["plan", "--hash"]);
    assert!(plan.contains("would become 2; nothing was done."), "{plan}");
    assert!(plan.contains("Series find their slots in another way"), "{plan}");
    assert!(cluster(&gateways[0], &["strategy", "--hash"]).starts_with("Done: placement epoch 2"));
    for member in nodes.iter().chain(&gateways) {
        let metric = match member.port() {
            HTTP_PORT => "tidegate_link_port_epoch",
            _ => "tidegate_placement_epoch",
        };
        let epoch = || member.get("/metrics").metric_sum(metric).filter(|epoch| *epoch >= 2.0);
        assert!(wait_for(DEADLINE, epoch).is_some(), "{}", member.last_words());
    }
    import(&gateways[1], "pay", 2);
    import(&gateways[0], "web", 2);
    for node in &nodes {
        let (found, _) = node.count("m{team=\"pay\",round=\"2\"}");
        assert!((1..SERIES).contains(&found), "{found} series of {}", node.address);
    }
    for gateway in &gateways {
        let whole = || (gateway.count("m") == (4 * SERIES, false)).then_some(());
        let is_whole = wait_for(DEADLINE, whole).is_some();
        assert!(is_whole, "{:?} {}", gateway.count("m"), gateway.last_words());
    }
}
