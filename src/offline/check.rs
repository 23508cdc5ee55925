//! DRIVER: a data folder that nobody serves -> everything that is wrong in it. Reads only.
//!
//! In: a folder: of a server, a snapshot or a backup. Out: faults (data is damaged or missing) and
//! notes (normal, but worth knowing). Memory: that of checking one block. `blocks` and `log` check
//! what lies below; what may lie where is said in `background/folder` and
//! `background/blocks/store`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use super::fault::{OfflineFault, io_fault};
use super::progress::Progress;
use super::quantity::{bytes, count, of};
use crate::background::blocks::snapshot::SNAPSHOTS;
use crate::background::folder::{
    BLOCKS_NAME, INCARNATION_PREFIX, LOCK_NAME, MANIFEST_NAME, Manifest, TEMPORARY_SUFFIX,
};
use crate::background::replay::LogPlace;

mod blocks;
mod log;

/// One fault leads to others; people see so many of a file.
const SHOWN_A_FILE: usize = 5;
/// The rest is like them.
const FINDINGS_MAX: usize = 1000;

/// Something in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Below the folder.
    pub file: String,
    /// Near this byte; 0 if it is about the whole file.
    pub offset: u64,
    /// What.
    pub what: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Files that were checked.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Samples that were found in them; one that is in the log and in a block counts twice.
    pub samples: u64,
    /// What is damaged or missing.
    pub faults: Vec<Finding>,
    /// What is normal, but worth knowing.
    pub notes: Vec<Finding>,
}

/// The state of a check.
struct Check<'a> {
    root: &'a Path,
    report: CheckReport,
    progress: &'a mut Progress,
}

/// Checks the folder and prints what it found, for people or as JSON. Whether nothing is wrong.
pub fn run(folder: &Path, is_json: bool, out: &mut dyn Write) -> Result<bool, OfflineFault> {
    let mut progress = Progress::new("checked");
    let report = check_folder(folder, &mut progress)?;
    drop(progress);
    if is_json {
        serde_json::to_writer(&mut *out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(folder, &report, out)?;
    }
    out.flush()?;
    Ok(report.faults.is_empty())
}

fn print(folder: &Path, report: &CheckReport, out: &mut dyn Write) -> io::Result<()> {
    for (kind, findings) in [("FAULT", &report.faults), ("note", &report.notes)] {
        for of_file in findings.chunk_by(|one, next| one.file == next.file) {
            for Finding { file, offset, what } in of_file.iter().take(SHOWN_A_FILE) {
                match offset {
                    0 => writeln!(out, "{kind}  {file}: {what}")?,
                    offset => writeln!(out, "{kind}  {file}, byte {offset}: {what}")?,
                }
            }
            if let Some(more) = of_file.len().checked_sub(SHOWN_A_FILE + 1) {
                let file = &of_file[0].file;
                writeln!(out, "{kind}  {file}: and {} more, which --json lists", more + 1)?;
            }
        }
    }
    let (files, size) = (of(report.files, "file"), bytes(report.bytes));
    let (samples, folder) = (count(report.samples), folder.display());
    let verdict = match report.faults.len() {
        0 => "nothing is wrong".to_owned(),
        faults => format!("{} found", of(faults as u64, "fault")),
    };
    writeln!(out, "{folder}: {files}, {size}, {samples} samples: {verdict}")
}

/// Checks everything below `root`.
pub(super) fn check_folder(
    root: &Path,
    progress: &mut Progress,
) -> Result<CheckReport, OfflineFault> {
    let unfit = |cause: &str| OfflineFault::Unfit { path: root.to_owned(), cause: cause.into() };
    if !root.is_dir() {
        return Err(unfit("it is no folder; give the folder that `serve --data` has"));
    }
    let _lock = lock(root)?;
    let entries = list(root)?;
    let is_data = entries.iter().any(|entry| {
        entry.name == MANIFEST_NAME
            || entry.name == BLOCKS_NAME
            || entry.name.starts_with(INCARNATION_PREFIX)
    });
    if !is_data {
        return Err(unfit("it is no data folder: it has no MANIFEST"));
    }
    progress.add_total(bytes_below(root));
    let mut check = Check { root, report: CheckReport::default(), progress };
    let manifest = check.check_manifest();
    check.check_blocks(manifest.map(|manifest| manifest.node));
    check.check_incarnations(manifest, &entries)?;
    for entry in &entries {
        let path = root.join(&entry.name);
        match entry.name.as_str() {
            MANIFEST_NAME | BLOCKS_NAME | LOCK_NAME => {}
            SNAPSHOTS => {
                let count = list(&path).map_or(0, |snapshots| snapshots.len() as u64);
                if count > 0 {
                    let what = of(count, "snapshot");
                    let what = format!("{what}, not checked: `check data` takes each of them");
                    check.note(&path, what);
                }
            }
            name if name.starts_with(INCARNATION_PREFIX) => {}
            name if name.ends_with(TEMPORARY_SUFFIX) => {
                check.note(&path, "unfinished; the next start removes it");
            }
            _ => check.note(&path, "not ours; left alone"),
        }
    }
    Ok(check.report)
}

/// Keeps servers off the folder. Shared: reading side by side is fine, and needs no right to write.
fn lock(root: &Path) -> Result<Option<Flock<File>>, OfflineFault> {
    let path = root.join(LOCK_NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        // No server ever ran on it: a snapshot, a backup.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_fault("open", &path)(error)),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            Err(OfflineFault::Locked { path: root.to_owned() })
        }
        Err((_, errno)) => Err(io_fault("lock", &path)(errno.into())),
    }
}

/// A name in a folder.
struct Entry {
    name: String,
    is_folder: bool,
}

/// What lies in a folder, by name.
fn list(folder: &Path) -> Result<Vec<Entry>, OfflineFault> {
    let read = || -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(Entry { name, is_folder: entry.file_type()?.is_dir() });
        }
        Ok(entries)
    };
    let mut entries = read().map_err(io_fault("list", folder))?;
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// For the progress only: a folder that cannot be listed is reported when it is checked.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(facts) if facts.is_dir() && entry.file_name() != SNAPSHOTS => bytes_below(&entry.path()),
        Ok(facts) if facts.is_file() => facts.len(),
        _ => 0,
    });
    bytes.sum()
}

impl Check<'_> {
    fn finding(&self, path: &Path, offset: u64, what: String) -> Finding {
        let below = path.strip_prefix(self.root).unwrap_or(path);
        Finding { file: below.to_string_lossy().into_owned(), offset, what }
    }

    fn fault(&mut self, path: &Path, offset: u64, what: impl Into<String>) {
        if self.report.faults.len() < FINDINGS_MAX {
            let finding = self.finding(path, offset, what.into());
            self.report.faults.push(finding);
        }
    }

    fn note(&mut self, path: &Path, what: impl Into<String>) {
        if self.report.notes.len() < FINDINGS_MAX {
            let finding = self.finding(path, 0, what.into());
            self.report.notes.push(finding);
        }
    }

    /// A file counts as checked whatever is wrong with it.
    fn count_file(&mut self, path: &Path) {
        self.report.files += 1;
        self.report.bytes += fs::metadata(path).map_or(0, |facts| facts.len());
    }

    /// The text of a small file; `None` and a fault if it cannot be read.
    fn read_text(&mut self, path: &Path) -> Option<String> {
        self.count_file(path);
        match fs::read(path) {
            Ok(bytes) => {
                self.progress.add(bytes.len() as u64);
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            Err(error) => {
                self.fault(path, 0, format!("cannot read: {error}"));
                None
            }
        }
    }

    fn check_manifest(&mut self) -> Option<Manifest> {
        let path = self.root.join(MANIFEST_NAME);
        if !path.exists() {
            self.fault(&path, 0, "missing: nothing says whose the data is; no server starts");
            return None;
        }
        let text = self.read_text(&path)?;
        match Manifest::decode(&text) {
            Ok(manifest) => {
                if manifest.encode() != text {
                    self.fault(&path, 0, "bytes that belong to nothing");
                }
                Some(manifest)
            }
            Err(fault) => {
                self.fault(&path, 0, format!("not a manifest: {fault:?}"));
                None
            }
        }
    }

    fn check_incarnations(
        &mut self,
        manifest: Option<Manifest>,
        entries: &[Entry],
    ) -> Result<(), OfflineFault> {
        let current =
            manifest.map(|manifest| format!("{INCARNATION_PREFIX}{}", manifest.incarnation));
        let mut is_there = false;
        for entry in entries.iter().filter(|entry| entry.name.starts_with(INCARNATION_PREFIX)) {
            let path = self.root.join(&entry.name);
            if current.as_ref().is_some_and(|current| *current != entry.name) {
                self.note(&path, "not the one that counts; the next start removes it");
                continue;
            }
            is_there = true;
            self.check_shards(&path, manifest)?;
        }
        if !is_there {
            let path = self.root.join(current.unwrap_or(INCARNATION_PREFIX.into()));
            self.note(&path, "no log: a snapshot or a backup that no server ran on");
        }
        Ok(())
    }

    fn check_shards(
        &mut self,
        incarnation: &Path,
        manifest: Option<Manifest>,
    ) -> Result<(), OfflineFault> {
        let mut shards: Vec<u32> = Vec::new();
        for entry in list(incarnation)? {
            let number = entry.name.strip_prefix("shard-").and_then(|rest| rest.parse().ok());
            match number {
                Some(shard) if entry.is_folder => shards.push(shard),
                _ => self.note(&incarnation.join(&entry.name), "not ours; left alone"),
            }
        }
        shards.sort_unstable();
        let count = manifest.map_or(0, |manifest| manifest.shards);
        for shard in (0..count).filter(|shard| !shards.contains(shard)) {
            if !shards.is_empty() {
                self.fault(&incarnation.join(format!("shard-{shard}")), 0, "missing");
            }
        }
        for shard in shards {
            self.check_shard(&incarnation.join(format!("shard-{shard}")), shard, manifest)?;
        }
        Ok(())
    }
}

/// The file of a place in a log.
fn path_of(folder: &Path, place: LogPlace) -> PathBuf {
    folder.join(crate::node::log::segment_file_name(place.segment))
}
