//! DRIVER: what the server made of its data: asks it to flush and to merge, weighs its folder, and
//! has `tidegate inspect` say how much of a block is its index.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;
use crate::server::{Server, SetUp};

/// What `tidegate inspect --json` calls the bytes of a block's index.
const INDEX_BYTES: &str = "index_bytes";

/// What a flush published leaves the head soon.
const EMPTY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Everything in memory into blocks, while more comes in.
pub fn flush(server: &Server<'_>) -> io::Result<()> {
    Client::connect(server.address())?.post("/api/v1/admin/tsdb/flush", "", b"").map(drop)
}

/// Everything in memory into blocks, and nothing is left: what is measured then is the blocks.
pub fn flush_whole(server: &Server<'_>) -> io::Result<()> {
    flush(server)?;
    let started = Instant::now();
    loop {
        let left = metric(server, "tidegate_head_samples")?;
        // A count in f64 that is not 0 is at least 1.
        if left < 0.5 {
            return Ok(());
        }
        if started.elapsed() > EMPTY_WAIT_MAX {
            return Err(io::Error::other(format!("a flush left {left} samples in memory")));
        }
        // The server reports what its shards told it last: polling is all there is.
        thread::sleep(Duration::from_millis(50));
    }
}

/// The sum over shards of a metric of `/metrics`.
pub fn metric(server: &Server<'_>, name: &str) -> io::Result<f64> {
    let answer = Client::connect(server.address())?.get("/metrics")?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with(['{', ' ']));
    let sum = values
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .reduce(|sum, value| sum + value);
    sum.ok_or_else(|| io::Error::other(format!("/metrics has no {name}")))
}

/// Blocks into fewer, until nothing is left to merge.
pub fn compact(server: &Server<'_>) -> io::Result<()> {
    Client::connect(server.address())?.post("/api/v1/admin/tsdb/compact", "", b"").map(drop)
}

/// What a data folder takes on the disk, in bytes of allocated file system blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskUse {
    /// Everything in `blocks`, its list too.
    pub blocks: u64,
    /// The whole folder: blocks, logs with what is allocated ahead, snapshots.
    pub all: u64,
    /// Log segments, which are allocated ahead and used again.
    pub segments: u64,
}

impl DiskUse {
    /// Weighs the folder of `server`.
    pub fn of(server: &Server<'_>) -> io::Result<Self> {
        let data = server.data();
        let everything = |_: &Path| true;
        let is_segment = |path: &Path| path.extension().is_some_and(|end| end == "log");
        Ok(Self {
            blocks: weigh(&data.join("blocks"), &everything)?,
            all: weigh(&data, &everything)?,
            segments: weigh(&data, &is_segment)?,
        })
    }
}

fn weigh(path: &Path, counts: &dyn Fn(&Path) -> bool) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        // Removed while we look: a spare log segment.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut bytes = if counts(path) { metadata.blocks() * 512 } else { 0 };
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += weigh(&entry?.path(), counts)?;
        }
    }
    Ok(bytes)
}

/// The block files of `server`.
pub fn files(server: &Server<'_>) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(server.data().join("blocks"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = paths.collect::<io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "blk"));
    Ok(files)
}

/// Bytes of the indexes of `files`.
pub fn index_bytes(set_up: &SetUp, files: &[PathBuf]) -> io::Result<u64> {
    let mut sum = 0;
    for file in files {
        let output =
            Command::new(&set_up.server).arg("inspect").arg(file).arg("--json").output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(io::Error::other(format!("tidegate inspect: {text}")));
        }
        let json: Value = serde_json::from_slice(&output.stdout)?;
        let missing = || io::Error::other(format!("tidegate inspect says no {INDEX_BYTES}"));
        sum += find_number(&json, INDEX_BYTES).ok_or_else(missing)?;
    }
    Ok(sum)
}

/// The first number called `key`, however deep.
fn find_number(json: &Value, key: &str) -> Option<u64> {
    match json {
        Value::Object(map) => map
            .get(key)
            .and_then(Value::as_u64)
            .or_else(|| map.values().find_map(|inner| find_number(inner, key))),
        Value::Array(list) => list.iter().find_map(|inner| find_number(inner, key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_its_name() {
        #[track_caller]
        fn check(text: &str, want: Option<u64>) {
            let json = serde_json::from_str(text).expect("JSON");
            assert_eq!(find_number(&json, INDEX_BYTES), want, "{text}");
        }
        check(r#"{"index_bytes": 5}"#, Some(5));
        check(r#"{"block": {"parts": [1, {"index_bytes": 7}]}}"#, Some(7));
        check(r#"{"index_bytes": "5"}"#, None);
        check("[]", None);
    }

    #[test]
    fn a_folder_weighs_what_is_in_it() {
        let folder = std::env::temp_dir().join(format!("bench-weigh-{}", std::process::id()));
        fs::create_dir_all(folder.join("inner")).expect("the temporary folder takes folders");
        let empty = weigh(&folder, &|_| true).expect("ours");
        fs::write(folder.join("inner/file"), vec![1; 100_000]).expect("ours");
        let full = weigh(&folder, &|_| true).expect("ours");
        fs::remove_dir_all(&folder).expect("ours");
        assert!((100_000..120_000).contains(&(full - empty)), "{empty} {full}");
        assert_eq!(weigh(&folder, &|_| true).expect("gone is nothing"), 0);
    }
}
