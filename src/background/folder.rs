//! DRIVER: the data folder of a node: its lock, its manifest, and a folder per incarnation and
//! shard.
//!
//! ```text
//! DIR/LOCK                            locked while a process uses the folder; holds its pid
//! DIR/MANIFEST                        see `manifest`
//! DIR/incarnation-<n>/shard-<k>/      segment-*.log, retired-*.log, snapshot-*.snap
//! DIR/blocks/, DIR/snapshots/         see `blocks/store` and `blocks/snapshot`
//! ```
//! Only the incarnation that the manifest names counts. Another shard count makes a new one: it is
//! built fully beside the old one, then the manifest is switched, then the old one deleted. A crash
//! anywhere leaves one that is whole, and the remains of the other are removed at the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::base::bytes::{AlignedBuffer, BUFFER_ALIGN_BYTES};
use crate::base::chance::Chance;
use crate::node::log::LogIdentity;

use super::blocks::block::parse_block_file_name;

pub use super::manifest::{Manifest, ManifestFault};

/// The file that is locked.
pub const LOCK_NAME: &str = "LOCK";
/// The file of the manifest.
pub const MANIFEST_NAME: &str = "MANIFEST";
/// The folder of the blocks.
pub const BLOCKS_NAME: &str = "blocks";
/// What the folders of incarnations begin with; their number follows.
pub const INCARNATION_PREFIX: &str = "incarnation-";
/// What is not complete ends with it.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// A data folder that this process has locked.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    manifest: Manifest,
    _lock: Flock<File>,
}

/// An incarnation that is being built; it counts once it is committed.
#[derive(Debug)]
pub struct NewIncarnation {
    folder: PathBuf,
    manifest: Manifest,
}

/// Whether the file system of the folder takes `O_DIRECT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectIo {
    /// It does.
    Works,
    /// It does not; everything works through the page cache, slower.
    Refused,
}

/// Why a data folder cannot be used.
#[derive(Debug)]
pub enum FolderFault {
    /// Another process uses it; its pid, if it could be read.
    Locked { path: PathBuf, pid: Option<u32> },
    /// The manifest is not one, or not of this program's version.
    Manifest { path: PathBuf, fault: ManifestFault },
    /// There is data, but no manifest that says whose.
    NoManifest { path: PathBuf },
    /// A file operation failed.
    Io { action: &'static str, path: PathBuf, error: io::Error },
}

impl std::fmt::Display for FolderFault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked { path, pid: Some(pid) } => {
                let path = path.display();
                write!(out, "cannot use the data folder {path}: process {pid} has locked it")
            }
            Self::Locked { path, pid: None } => {
                let path = path.display();
                write!(out, "cannot use the data folder {path}: another process has locked it")
            }
            Self::Manifest { path, fault } => {
                write!(out, "cannot read {}: {fault:?}", path.display())
            }
            Self::NoManifest { path } => {
                let path = path.display();
                write!(
                    out,
                    "cannot use the data folder {path}: it has data but no {MANIFEST_NAME}; after \
                     an interrupted restore empty it and restore again"
                )
            }
            Self::Io { action, path, error } => {
                write!(out, "cannot {action} {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for FolderFault {}

impl DataFolder {
    /// Locks the folder at `path`, made if it is missing; a new one gets a random node id and
    /// `shards` shards. The remains of interrupted work are removed. `manifest().shards` may differ
    /// from `shards`: see `begin_incarnation`.
    pub fn open(path: &Path, shards: u32) -> Result<Self, FolderFault> {
        assert!(shards > 0);
        fs::create_dir_all(path).map_err(fault("make", path))?;
        // glommio opens a path that is not absolute below folder -1 (EBADF), and who asks for a
        // snapshot is in another working directory.
        let path = &fs::canonicalize(path).map_err(fault("find", path))?;
        let lock = take_lock(path)?;
        let manifest = match read_manifest(path)? {
            Some(manifest) => manifest,
            None => make_first(path, shards)?,
        };
        let folder = Self { path: path.to_owned(), manifest, _lock: lock };
        folder.begin_restored()?;
        folder.remove_remains()?;
        Ok(folder)
    }

    /// A restored backup has blocks and a manifest, but no log: it begins with an empty one. One
    /// that was interrupted here has shard folders without a file.
    fn begin_restored(&self) -> Result<(), FolderFault> {
        let folder = self.incarnation_folder(self.manifest.incarnation);
        if has_files(&folder) {
            return Ok(());
        }
        if !folder.exists() {
            let path = folder.display();
            tracing::warn!(
                "there is no {path}: a snapshot or a backup, which begins with an empty log; if \
                 it is neither, what was only in the log is lost"
            );
        }
        make_shard_folders(&folder, self.manifest.shards)?;
        sync_folder(&self.path)
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of a shard of the current incarnation.
    pub fn shard_folder(&self, shard: u32) -> PathBuf {
        shard_folder(&self.incarnation_folder(self.manifest.incarnation), shard)
    }

    /// What the files of that shard are marked with.
    pub fn identity(&self, shard: u32) -> LogIdentity {
        identity(&self.manifest, shard)
    }

    /// Makes the empty folders of the next incarnation, with `shards` shards. It counts for nothing
    /// yet.
    pub fn begin_incarnation(&self, shards: u32) -> Result<NewIncarnation, FolderFault> {
        assert!(shards > 0);
        let incarnation = self.manifest.incarnation + 1;
        let manifest = Manifest { incarnation, shards, ..self.manifest };
        let folder = self.incarnation_folder(incarnation);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(fault("remove", &folder))?;
        }
        make_shard_folders(&folder, shards)?;
        Ok(NewIncarnation { folder, manifest })
    }

    /// Makes `new`, whose files are complete and synced, the one that counts; then deletes the old
    /// one.
    pub fn commit_incarnation(&mut self, new: NewIncarnation) -> Result<(), FolderFault> {
        let NewIncarnation { folder, manifest } = new;
        sync_folder(&folder)?;
        sync_folder(&self.path)?;
        write_manifest(&self.path, &manifest)?;
        self.manifest = manifest;
        self.remove_remains()
    }

    /// Tries a direct write in the folder.
    pub fn probe_direct_io(&self) -> Result<DirectIo, FolderFault> {
        let path = self.path.join("probe.tmp");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
        let mut block = AlignedBuffer::with_capacity(BUFFER_ALIGN_BYTES);
        block.extend_from_slice(&[0; BUFFER_ALIGN_BYTES]);
        let outcome = options.open(&path).and_then(|file| file.write_all_at(&block, 0));
        // EINVAL may come from the open, which has made the file by then.
        let _ = fs::remove_file(&path);
        match outcome {
            Ok(()) => Ok(DirectIo::Works),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(DirectIo::Refused),
            Err(error) => Err(fault("write a probe in", &self.path)(error)),
        }
    }

    fn incarnation_folder(&self, incarnation: u64) -> PathBuf {
        self.path.join(format!("{INCARNATION_PREFIX}{incarnation}"))
    }

    /// Removes other incarnations and temporary files.
    fn remove_remains(&self) -> Result<(), FolderFault> {
        let current = self.incarnation_folder(self.manifest.incarnation);
        for path in list(&self.path)? {
            if has_prefix(&path, INCARNATION_PREFIX) && path != current {
                fs::remove_dir_all(&path).map_err(fault("remove", &path))?;
            }
        }
        let mut folders = vec![self.path.clone()];
        folders.extend((0..self.manifest.shards).map(|shard| self.shard_folder(shard)));
        for folder in &folders {
            for path in list(folder)? {
                if path.as_os_str().as_encoded_bytes().ends_with(TEMPORARY_SUFFIX.as_bytes()) {
                    fs::remove_file(&path).map_err(fault("remove", &path))?;
                }
            }
        }
        Ok(())
    }
}

impl NewIncarnation {
    /// The folder of one of its shards.
    pub fn shard_folder(&self, shard: u32) -> PathBuf {
        shard_folder(&self.folder, shard)
    }

    /// What the files of that shard are marked with.
    pub fn identity(&self, shard: u32) -> LogIdentity {
        identity(&self.manifest, shard)
    }
}

fn identity(manifest: &Manifest, shard: u32) -> LogIdentity {
    assert!(shard < manifest.shards);
    LogIdentity { node: manifest.node, incarnation: manifest.incarnation, shard }
}

fn shard_folder(incarnation: &Path, shard: u32) -> PathBuf {
    incarnation.join(format!("shard-{shard}"))
}

/// Nobody else has the folder while this lives.
#[derive(Debug)]
pub struct FolderLock {
    _lock: Flock<File>,
}

/// Locks a folder that is no node's, made if it is missing.
pub fn lock_folder(folder: &Path) -> Result<FolderLock, FolderFault> {
    fs::create_dir_all(folder).map_err(fault("make", folder))?;
    take_lock(folder).map(|lock| FolderLock { _lock: lock })
}

fn take_lock(folder: &Path) -> Result<Flock<File>, FolderFault> {
    let path = folder.join(LOCK_NAME);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(&path).map_err(fault("open", &path))?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(FolderFault::Locked { path: folder.to_owned(), pid });
        }
        Err((_, errno)) => return Err(fault("lock", &path)(io::Error::from(errno))),
    };
    let pid = std::process::id();
    let written = lock.set_len(0).and_then(|()| writeln!(lock, "{pid}"));
    written.map_err(fault("write", &path))?;
    Ok(lock)
}

fn read_manifest(folder: &Path) -> Result<Option<Manifest>, FolderFault> {
    let path = folder.join(MANIFEST_NAME);
    match fs::read_to_string(&path) {
        Ok(text) => match Manifest::decode(&text) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(fault) => Err(FolderFault::Manifest { path, fault }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault("read", &path)(error)),
    }
}

/// The first start: the folders, then the manifest, so that a manifest never names a folder that is
/// not there.
fn make_first(folder: &Path, shards: u32) -> Result<Manifest, FolderFault> {
    let incarnation = folder.join(format!("{INCARNATION_PREFIX}1"));
    // A first start that was interrupted leaves shard folders without a file. Files without a
    // manifest are someone's data, or what an interrupted restore left: with a manifest made anew
    // all blocks would be those of another node.
    let is_data = |path: &PathBuf| {
        has_prefix(path, INCARNATION_PREFIX) && has_files(path)
            || has_prefix(path, BLOCKS_NAME) && list(path).is_ok_and(|files| has_blocks(&files))
    };
    if list(folder)?.iter().any(is_data) {
        return Err(FolderFault::NoManifest { path: folder.to_owned() });
    }
    make_shard_folders(&incarnation, shards)?;
    sync_folder(folder)?;
    let mut chance = Chance::open().map_err(fault("draw the id of the node of", folder))?;
    let node = u128::from_le_bytes(chance.draw());
    let manifest = Manifest { node, incarnation: 1, shards };
    write_manifest(folder, &manifest)?;
    Ok(manifest)
}

fn has_blocks(files: &[PathBuf]) -> bool {
    let names = files.iter().filter_map(|path| path.file_name()?.to_str());
    names.filter_map(parse_block_file_name).count() > 0
}

fn has_files(incarnation: &Path) -> bool {
    let shards = list(incarnation).unwrap_or_default();
    shards.iter().any(|shard| list(shard).is_ok_and(|files| !files.is_empty()))
}

fn make_shard_folders(incarnation: &Path, shards: u32) -> Result<(), FolderFault> {
    for shard in 0..shards {
        let path = shard_folder(incarnation, shard);
        fs::create_dir_all(&path).map_err(fault("make", &path))?;
        sync_folder(&path)?;
    }
    sync_folder(incarnation)
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), FolderFault> {
    let path = folder.join(MANIFEST_NAME);
    let temporary = folder.join("MANIFEST.tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(manifest.encode().as_bytes())?;
        file.sync_all()
    });
    written.map_err(fault("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(fault("rename", &temporary))?;
    sync_folder(folder)
}

fn sync_folder(path: &Path) -> Result<(), FolderFault> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(fault("sync", path))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, FolderFault> {
    let entries = fs::read_dir(folder).map_err(fault("list", folder))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<io::Result<_>>().map_err(fault("list", folder))
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(prefix.as_bytes())
}

fn fault(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderFault {
    let path = path.to_owned();
    move |error| FolderFault::Io { action, path, error }
}
