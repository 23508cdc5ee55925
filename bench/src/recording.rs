//! DRIVER: scrapes of a real node_exporter, kept in a file as they came, so that every round and
//! every program is measured on the same bytes. Installs Debian's package if it is not there.
//!
//! ```text
//! # scraped at 1700000000000       Unix milliseconds, when the answer began
//! <the answer's body>
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::client::Client;
use crate::exposition::{self, Line};
use crate::process::{register, unregister};

const PROGRAM: &str = "prometheus-node-exporter";
const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/install");
const MARK: &str = "# scraped at ";
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
const START_WAIT_MAX: Duration = Duration::from_secs(20);

/// One scrape.
pub struct Scrape {
    /// Unix milliseconds.
    pub timestamp_ms: i64,
    /// Its series.
    pub lines: Vec<Line>,
}

/// Scrapes for `length`, once a second, into a new file at `path`.
pub fn record(path: &Path, length: Duration) -> io::Result<()> {
    install()?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let child = Command::new(PROGRAM)
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = register(child);
    let result = scrape_into(path, address, length);
    if let Some(mut child) = unregister(pid) {
        // Already gone is fine too.
        drop(child.kill());
        drop(child.wait());
    }
    result
}

fn install() -> io::Result<()> {
    let found = Command::new(PROGRAM).arg("--version").stderr(Stdio::null()).output();
    if found.is_ok() {
        return Ok(());
    }
    let status = Command::new(INSTALL).arg(PROGRAM).status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("cannot install {PROGRAM}: {status}")))
}

fn scrape_into(path: &Path, address: SocketAddr, length: Duration) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension("partial");
    let mut file = BufWriter::new(File::create(&partial)?);
    let started = Instant::now();
    let mut client = loop {
        match Client::connect(address) {
            Ok(client) => break client,
            Err(cause) if started.elapsed() > START_WAIT_MAX => return Err(cause),
            // Polling from outside is all there is.
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    };
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < length {
        let timestamp_ms = now_ms();
        let answer = client.get("/metrics")?;
        writeln!(file, "{MARK}{timestamp_ms}")?;
        file.write_all(&answer.body)?;
        count += 1;
        // The rhythm of a scraper, which is what is recorded.
        thread::sleep((started + SCRAPE_EVERY * count).saturating_duration_since(Instant::now()));
    }
    file.into_inner()?.sync_all()?;
    std::fs::rename(partial, path)
}

/// Reads a recording back.
/// # Errors
/// Also where a scrape cannot be parsed.
pub fn read(path: &Path) -> io::Result<Vec<Scrape>> {
    let text = std::fs::read_to_string(path)?;
    let bad = || io::Error::other(format!("{} is not a recording of scrapes", path.display()));
    let mut scrapes = Vec::new();
    let body = text.strip_prefix(MARK).ok_or_else(bad)?;
    for part in body.split(&format!("\n{MARK}")) {
        let (timestamp, body) = part.split_once('\n').ok_or_else(bad)?;
        let timestamp_ms = timestamp.parse().map_err(|_| bad())?;
        scrapes.push(Scrape { timestamp_ms, lines: exposition::parse(body).ok_or_else(bad)? });
    }
    Ok(scrapes)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_reads_back() {
        let path = std::env::temp_dir().join(format!("bench-recording-{}", std::process::id()));
        std::fs::write(&path, "# scraped at 5\n# TYPE a gauge\na 1\nb 2\n# scraped at 6\na 3\n")
            .expect("the temporary folder takes files");
        let scrapes = read(&path).expect("a recording");
        std::fs::remove_file(&path).expect("ours");
        let counts: Vec<_> = scrapes.iter().map(|s| (s.timestamp_ms, s.lines.len())).collect();
        assert_eq!(counts, [(5, 2), (6, 1)]);
    }
}
