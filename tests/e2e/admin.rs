//! The admin API, and the commands that work on a data folder.

use crate::http::{Client, Response, escape};
use crate::server::{Server, run_to_end};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

/// A merge of a test's data, on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A POST to `/api/v1/admin/tsdb/<what>`, whatever the answer.
pub fn ask(port: u16, what: &str) -> std::io::Result<Response> {
    let mut client = Client::connect(port)?;
    client.set_patience(PATIENCE);
    client.request("POST", &format!("/api/v1/admin/tsdb/{what}"), &[], b"")
}

/// The same; the answer must be 2xx.
#[track_caller]
pub fn admin(server: &Server, what: &str) -> Response {
    let response = ask(server.port(), what).unwrap_or_else(|fault| panic!("{what}: {fault}"));
    assert!(matches!(response.status, 200 | 204), "{what}: {}", response.text());
    response
}

/// Everything in memory into blocks.
#[track_caller]
pub fn flush(server: &Server) {
    admin(server, "flush");
    assert!(!blocks(server).is_empty(), "a flush of something leaves a block\n{}", server.log());
}

/// Blocks into fewer.
#[track_caller]
pub fn compact(server: &Server) {
    admin(server, "compact");
}

/// The files of the blocks.
pub fn blocks(server: &Server) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(server.data().join("blocks")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "blk")).collect();
    files.sort();
    files
}

/// How many samples an export of `selector` has, of all times.
#[track_caller]
pub fn count_samples(server: &Server, selector: &str) -> usize {
    let path = format!("/api/v1/export?match[]={}", escape(selector));
    let response = server.get(&path);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    let text = response.text();
    let lines = text.lines().map(|line| {
        let json: serde_json::Value = serde_json::from_str(line).expect("a line of an export");
        json["timestamps"].as_array().map_or(0, Vec::len)
    });
    lines.sum()
}

/// `tidegate check data` finds nothing wrong with the folder of a server that does not run.
#[track_caller]
pub fn check_clean(data: &Path) {
    let output = check(data);
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
}

/// `tidegate check data DIR --json`.
pub fn check(data: &Path) -> Output {
    run_to_end(&["check", "data", text(data), "--json"])
}

/// A command that must end with 0.
#[track_caller]
pub fn command(arguments: &[&str]) {
    let output = run_to_end(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", both(&output));
}

/// What a command printed.
pub fn both(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// A path that we made ourselves.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("ASCII")
}
