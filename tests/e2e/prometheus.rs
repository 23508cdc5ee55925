//! Debian's Prometheus scrapes itself and two tidegates, of one and of two shards, and
//! remote-writes all of it to both; then all three must answer the same to the same questions:
//! labels, values to the last digit, gaps and stale series. One Prometheus, because a minute for
//! each would be two.

use crate::http::{Client, escape};
use crate::process::{tail, wait_for};
use crate::server::{Server, free_port};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);
const INTERVAL: &str = "global: {scrape_interval: 1s, scrape_timeout: 1s}\n";
/// Every series.
const ALL: &str = "{__name__=~\".+\"}";
/// Instants that are compared.
const INSTANTS: u32 = 12;

struct Prometheus {
    child: Child,
    port: u16,
    folder: TempDir,
    remote_write: String,
}

impl Prometheus {
    fn start(servers: &[Server]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let remote_write: String = servers.iter().map(remote_write_to).collect();
        let targets: Vec<_> =
            servers.iter().map(|server| format!("'127.0.0.1:{}'", server.port())).collect();
        let config = format!(
            "{INTERVAL}\
             scrape_configs:\n\
             \x20 - job_name: prometheus\n    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n\
             \x20 - job_name: tidegate\n    static_configs: [{{targets: [{}]}}]\n\
             remote_write:\n{remote_write}",
            targets.join(", ")
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("a temporary file");
        let log = File::create(folder.path().join("log")).expect("a temporary file");
        let child = Command::new("prometheus")
            .current_dir(folder.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .args(["--web.enable-lifecycle", "--log.level=warn"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        Self { child, port, folder, remote_write }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let response = Client::connect(self.port).and_then(|mut c| c.get(path)).ok()?;
        (response.status == 200).then(|| response.json())
    }

    /// Drops all targets, which ends their series with stale markers, and keeps the remote write.
    fn stop_scraping(&self) {
        let path = self.folder.path().join("prometheus.yml");
        // The jobs must stay: the series of a job that is dropped as a whole get no markers.
        let jobs = "scrape_configs: [{job_name: prometheus}, {job_name: tidegate}]\n";
        let config = format!("{INTERVAL}{jobs}remote_write:\n{}", self.remote_write);
        std::fs::write(path, config).expect("a temporary file");
        let reload =
            Client::connect(self.port).and_then(|mut c| c.request("POST", "/-/reload", &[], b""));
        assert_eq!(reload.expect("prometheus answers").status, 200, "{}", self.log());
    }

    /// The values of one name on its own `/metrics`, one for each remote.
    fn metric(&self, name: &str) -> Option<Vec<f64>> {
        let text = Client::connect(self.port).and_then(|mut c| c.get("/metrics")).ok()?.text();
        let of_name =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(of_name).map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
    }

    /// Whether all that was scraped has been sent and acknowledged.
    fn has_sent_all(&self) -> Option<()> {
        let pending = self.metric("prometheus_remote_storage_samples_pending")?;
        let newest = self.metric("prometheus_remote_storage_highest_timestamp_in_seconds")?;
        let sent = self.metric("prometheus_remote_storage_queue_highest_sent_timestamp_seconds")?;
        let is_sent = sent.len() == 2 && sent.iter().all(|sent| *sent >= newest[0]);
        (is_sent && pending == [0.0, 0.0]).then_some(())
    }

    fn log(&self) -> String {
        tail(&std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default(), 20)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

fn remote_write_to(server: &Server) -> String {
    format!(
        "  - url: {}/api/v1/write\n    queue_config: {{batch_send_deadline: 1s}}\n",
        server.url()
    )
}

#[test]
fn one_and_two_shards() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("CI").is_none(),
            "prometheus is not installed: scripts/test does it"
        );
        eprintln!("SKIPPED: prometheus is not installed; `apt-get install prometheus`");
        return;
    }
    let servers = [Server::start(1), Server::start(2)];
    let prometheus = Prometheus::start(&servers);
    let all_up = format!("/api/v1/query?query={}", escape("up == 1"));
    let is_up = |answer: &Value| answer["data"]["result"].as_array().is_some_and(|r| r.len() == 3);
    let up = wait_for(DEADLINE, || prometheus.get(&all_up).filter(is_up));
    assert!(up.is_some(), "prometheus does not see its targets up\n{}", prometheus.log());

    let start = unix_seconds(&prometheus) + 1.0;
    scrape_for(duration());
    prometheus.stop_scraping();
    let end = wait_for(DEADLINE, || {
        let path = format!("/api/v1/query?query={}", escape(ALL));
        let answer = prometheus.get(&path)?;
        answer["data"]["result"].as_array()?.is_empty().then(|| unix_seconds(&prometheus))
    });
    let end = end.unwrap_or_else(|| panic!("series do not end\n{}", prometheus.log()));
    let sent = wait_for(DEADLINE, || prometheus.has_sent_all());
    assert!(sent.is_some(), "remote write does not catch up\n{}", prometheus.log());
    for server in &servers {
        compare_all(server, &prometheus, start, end);
        check_metrics_page(server);
    }
}

fn compare_all(server: &Server, prometheus: &Prometheus, start: f64, end: f64) {
    let all = escape(ALL);
    for step in 0..=INSTANTS {
        let time = start + (end - start) * f64::from(step) / f64::from(INSTANTS);
        let path = format!("/api/v1/query?query={all}&time={time:.3}");
        compare(server, prometheus, &path, step < INSTANTS / 2);
    }
    let range = format!("start={start:.3}&end={end:.3}");
    for path in [
        format!("/api/v1/query_range?query={all}&{range}&step=1"),
        format!("/api/v1/query_range?query=up&{range}&step=0.3"),
        // Every sample as it is, but stale markers.
        format!("/api/v1/query?query={}&time={end:.3}", escape(&format!("{ALL}[10m]"))),
        format!("/api/v1/series?match[]={all}&{range}"),
        format!("/api/v1/labels?{range}"),
        format!("/api/v1/label/__name__/values?{range}"),
        format!("/api/v1/label/job/values?{range}"),
    ] {
        compare(server, prometheus, &path, true);
    }
}

/// Prometheus' own checker reads the page, and finds nothing to say about names and types.
fn check_metrics_page(server: &Server) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool comes with prometheus");
    let page = server.get("/metrics").body;
    let mut input = promtool.stdin.take().expect("piped");
    input.write_all(&page).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("our own child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn duration() -> Duration {
    let text = std::env::var("TIDEGATE_E2E_PROMETHEUS_SECONDS").unwrap_or_else(|_| "60".into());
    Duration::from_secs(text.parse().expect("TIDEGATE_E2E_PROMETHEUS_SECONDS is a number"))
}

/// The length of the test is its subject: so many scrapes.
fn scrape_for(duration: Duration) {
    let start = Instant::now();
    std::thread::sleep(duration.saturating_sub(start.elapsed()));
}

/// Prometheus' own clock, as its queries see it.
fn unix_seconds(prometheus: &Prometheus) -> f64 {
    let answer = prometheus.get("/api/v1/query?query=time()").expect("prometheus answers");
    answer["data"]["result"][0].as_f64().expect("a scalar")
}

/// Asks both and compares; with `must_answer` an empty answer is a fault too.
#[track_caller]
fn compare(server: &Server, prometheus: &Prometheus, path: &str, must_answer: bool) {
    let theirs = prometheus.get(path).unwrap_or_else(|| panic!("prometheus: {path}"));
    let theirs = normal(&theirs);
    let ours = normal(&server.get_json(path));
    assert!(!must_answer || !theirs.is_empty(), "prometheus has nothing to compare: {path}");
    let missing: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).take(5).collect();
    let extra: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).take(5).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{path}: {} of prometheus, {} of tidegate\n\
         only prometheus: {missing:#?}\nonly tidegate: {extra:#?}",
        theirs.len(),
        ours.len()
    );
    assert_eq!(ours.len(), theirs.len(), "{path}: repeats");
    println!("equal: {} of {}", theirs.len(), path.chars().take(60).collect::<String>());
}

/// One string for each series or name, in order; numbers in one form, values as they are.
fn normal(answer: &Value) -> Vec<String> {
    assert_eq!(answer["status"], "success", "{answer}");
    let data = &answer["data"];
    let list = data["result"].as_array().or_else(|| data.as_array());
    let list = list.unwrap_or_else(|| panic!("no list: {answer}"));
    let mut lines: Vec<String> = list.iter().map(|one| floats(one).to_string()).collect();
    lines.sort();
    lines
}

/// A time may be written `5` or `5.0`: all numbers become floats. Values are strings and stay as
/// they are.
fn floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(list) => list.iter().map(floats).collect(),
        Value::Object(map) => map.iter().map(|(name, v)| (name.clone(), floats(v))).collect(),
        other => other.clone(),
    }
}
