//! DRIVER: puts the configuration together: flags, environment, file, defaults. Reads the file that
//! the flags name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::control::config::command::ServeArguments;
use crate::control::config::role::Role;
use crate::control::config::units::ByteSize;
use crate::control::config::{Config, Settings};
use crate::control::host::HostFacts;
use crate::gateway::decode;
use crate::gateway::owner::LABELS_BYTES_LIMIT;
use crate::model::placement::REPLICATION_MAX;
use crate::wire::frame::FRAME_BYTES_MAX;

/// No decoder takes a longer one.
const BODY_BYTES_LIMIT: u64 = decode::BODY_BYTES_MAX as u64;
/// Beyond any machine; a typing error.
const SHARDS_LIMIT: u32 = 1024;
/// A ping and its answer must fit in.
const HEALTH_TIMEOUT_MS_MIN: i64 = 500;

/// Why there is no configuration. Each says where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigFault {
    /// The file cannot be read.
    Unreadable {
        /// It.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// The file's text is not a configuration.
    File {
        /// It.
        path: PathBuf,
        /// What and where, by line.
        cause: String,
    },
    /// An environment variable cannot be read.
    Variable {
        /// Its name.
        name: String,
        /// What is wrong.
        cause: String,
    },
    /// A field's value makes no sense.
    Field {
        /// It.
        name: &'static str,
        /// What is wrong.
        cause: String,
    },
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, cause } => {
                write!(f, "cannot read the configuration {}: {cause}", path.display())
            }
            Self::File { path, cause } => {
                write!(f, "cannot use the configuration {}: {cause}", path.display())
            }
            Self::Variable { name, cause } => write!(f, "cannot use {name}: {cause}"),
            Self::Field { name, cause } => write!(f, "cannot use {name}: {cause}"),
        }
    }
}

impl std::error::Error for ConfigFault {}

/// The configuration in force of a process that is to be `role`. `lookup` is the environment.
pub fn load(
    (role, arguments): (Role, &ServeArguments),
    lookup: &dyn Fn(&str) -> Option<String>,
    host: &HostFacts,
) -> Result<Config, ConfigFault> {
    let path = match &arguments.config {
        Some(path) => Some(path.clone()),
        None => parse_variable::<PathBuf>("config", lookup)?,
    };
    let file = match path {
        Some(path) => read_file(&path)?,
        None => Settings::default(),
    };
    let said = arguments.settings.clone().or(file.clone());
    if let Some(name) = said.set_fields().into_iter().find(|field| !role.has(field)) {
        let cause = format!("`tidegate {}` has no such field", role.command());
        return Err(ConfigFault::Field { name, cause });
    }
    let settings = arguments.settings.clone().or(Settings::from_env(lookup)?).or(file);
    let config = settings.into_config(host);
    check_config(&config)?;
    check_fleet(role, &config)?;
    Ok(config)
}

fn read_file(path: &Path) -> Result<Settings, ConfigFault> {
    let text = std::fs::read_to_string(path)
        .map_err(|fault| ConfigFault::Unreadable { path: path.into(), cause: fault.to_string() })?;
    parse_file(&text).map_err(|cause| ConfigFault::File { path: path.into(), cause })
}

/// Reads a YAML file's text; a field that we do not know is a fault, with its line.
pub fn parse_file(text: &str) -> Result<Settings, String> {
    // A file of comments only is no document at all.
    let is_empty = text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#'));
    if is_empty {
        return Ok(Settings::default());
    }
    serde_saphyr::from_str(text).map_err(|fault| fault.to_string())
}

/// Reads `TIDEGATE_<FIELD>`; an empty one counts as not set.
pub fn parse_variable<T>(
    field: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<T>, ConfigFault>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    let name = format!("TIDEGATE_{}", field.to_ascii_uppercase());
    let Some(text) = lookup(&name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed = text.parse().map_err(|fault: T::Err| fault.to_string());
    parsed.map(Some).map_err(|cause| ConfigFault::Variable { name, cause })
}

/// What a part of a fleet needs.
fn check_fleet(role: Role, config: &Config) -> Result<(), ConfigFault> {
    let fault = |name, cause: &str| Err(ConfigFault::Field { name, cause: cause.into() });
    if role == Role::Gateway && config.nodes.0.is_empty() {
        return fault("nodes", "it must name a node at least, such as --nodes 10.0.0.1:9500");
    }
    if !(1..=REPLICATION_MAX).contains(&config.replication) {
        return fault("replication", "it must be from 1 to 3");
    }
    if config.health_timeout.as_ms() < HEALTH_TIMEOUT_MS_MIN {
        return fault("health_timeout", "it must be at least 500ms");
    }
    let segment = ByteSize(64 << 20);
    if role == Role::Gateway && config.hint_bytes_max < segment {
        return fault("hint_bytes_max", "it must be at least 64MiB");
    }
    let ports = u32::from(config.link.port()) + config.shards;
    if role == Role::Node && (config.link.port() == 0 || ports > u32::from(u16::MAX)) {
        return fault("link", "its port, and one more for each shard, must be from 1 to 65535");
    }
    let is_here = config.link.ip().is_loopback();
    if role == Role::Node && !is_here && config.link_secret_file.as_os_str().is_empty() {
        return fault(
            "link",
            "other hosts may reach it, so give every gateway and node the same \
             --link-secret-file: head -c 32 /dev/urandom | base64 > link.secret",
        );
    }
    Ok(())
}

/// What no single value shows.
fn check_config(config: &Config) -> Result<(), ConfigFault> {
    let check = |is_good: bool, name: &'static str, cause: &str| {
        if is_good { Ok(()) } else { Err(ConfigFault::Field { name, cause: cause.into() }) }
    };
    let segment_min = ByteSize(2 * FRAME_BYTES_MAX as u64);
    check((1..=SHARDS_LIMIT).contains(&config.shards), "shards", "it must be from 1 to 1024")?;
    check(
        (1..=BODY_BYTES_LIMIT).contains(&config.body_bytes_max.0),
        "body_bytes_max",
        "it must be from 1 byte to 1GiB",
    )?;
    check(
        config.request_bytes_max >= config.body_bytes_max,
        "request_bytes_max",
        "it must be at least body_bytes_max, or the largest bodies never fit",
    )?;
    check(
        config.log_segment_bytes >= segment_min && config.log_segment_bytes.0.is_multiple_of(4096),
        "log_segment_bytes",
        "it must be at least 8MiB and a multiple of 4096 bytes",
    )?;
    check(
        config.log_bytes_max >= config.log_segment_bytes,
        "log_bytes_max",
        "it must be at least log_segment_bytes",
    )?;
    check(config.connections_max > 0, "connections_max", "it must be at least 1")?;
    check(config.labels_max > 0, "labels_max", "it must be at least 1")?;
    check(
        config.labels_bytes_max.0 <= LABELS_BYTES_LIMIT as u64,
        "labels_bytes_max",
        "it must be at most 1MiB, so that a series fits into a frame",
    )?;
    check(config.query_series_max > 0, "query_series_max", "it must be at least 1")?;
    check(config.query_samples_max > 0, "query_samples_max", "it must be at least 1")?;
    check(config.query_concurrency_max > 0, "query_concurrency_max", "it must be at least 1")?;
    check(config.query_lookback.as_ms() > 0, "query_lookback", "it must be above 0")?;
    check((1..=64).contains(&config.control_threads), "control_threads", "it must be from 1 to 64")
}
