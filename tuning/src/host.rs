//! Reads and writes settings of a host by their path, below a root, so that tests can make a host
//! up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A host, or a copy of its `/proc` and `/sys`.
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The host below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Whether this is the running host and not a copy, so that it can also be tried out.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A file's text without the white space around it; `None` if it is not there or not ours to
    /// read.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// A file that holds one number.
    pub fn read_number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// Replaces a file's text.
    pub fn write(&self, path: &str, text: &str) -> io::Result<()> {
        fs::write(self.path(path), text)
    }

    /// Names in a folder, sorted; empty if there is no such folder.
    pub fn list(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}
