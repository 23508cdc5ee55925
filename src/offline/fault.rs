//! Why a command did not do its work.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// See the module's description. Each says what to do, or what the system said.
#[derive(Debug)]
pub enum OfflineFault {
    /// A server uses the folder.
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// Not what the command works on.
    Unfit {
        /// The file or folder.
        path: PathBuf,
        /// Why, and what would be.
        cause: String,
    },
    /// A file operation failed.
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What should be copied is damaged.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The server did not do what it was asked.
    Server {
        /// The request.
        url: String,
        /// What came back.
        cause: String,
    },
    /// A gateway did not do what it was asked.
    Gateway {
        /// The request.
        url: String,
        /// What came back.
        cause: String,
    },
    /// What was found cannot be printed.
    Output(io::Error),
}

impl fmt::Display for OfflineFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { path } => {
                let path = path.display();
                write!(out, "cannot use {path}: a server runs on it; stop it first")
            }
            Self::Unfit { path, cause } => {
                write!(out, "cannot use {}: {cause}", path.display())
            }
            Self::Io { action, path, error } => {
                write!(out, "cannot {action} {}: {error}", path.display())
            }
            Self::Damaged { path, what } => {
                write!(out, "cannot use {}: it is damaged: {what}", path.display())
            }
            Self::Server { url, cause } => write!(out, "cannot POST {url}: {cause}"),
            Self::Gateway { url, cause } => write!(out, "cannot ask {url}: {cause}"),
            Self::Output(error) => write!(out, "cannot print: {error}"),
        }
    }
}

impl std::error::Error for OfflineFault {}

impl From<io::Error> for OfflineFault {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl OfflineFault {
    /// Whether it is only that the reader of the output has left, as `head` does.
    pub fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Makes an error of the system one of a command.
pub(super) fn io_fault(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> OfflineFault {
    let path = path.to_owned();
    move |error| OfflineFault::Io { action, path, error }
}

/// The same of an errno.
pub(super) fn errno_fault(action: &'static str, path: &Path) -> impl FnOnce(i32) -> OfflineFault {
    let path = path.to_owned();
    move |errno| OfflineFault::Io { action, path, error: io::Error::from_raw_os_error(errno) }
}
