//! The configuration: each field documented once, here; a flag, an environment variable and a line
//! of the YAML file.
//!
//! `log_bytes_max` is `--log-bytes-max`, `TIDEGATE_LOG_BYTES_MAX` and `log_bytes_max:`. A flag wins
//! over the environment, that over the file, that over the default. Pure but for `load`, which is
//! handed the environment and reads the file.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::control::config::group_rules::GroupRules;
use crate::control::config::role::Role;
use crate::control::config::units::{AckMode, ByteSize, Listen, Names, Period};
use crate::control::host::HostFacts;

pub mod cluster_command;
pub mod command;
pub mod group_rules;
pub mod load;
pub mod role;
pub mod units;

const MIB_128: ByteSize = ByteSize(128 << 20);
const GIB_4: ByteSize = ByteSize(4 << 30);

/// Declares [`Settings`] (what somebody set) and [`Config`] (what is in force) from one list of
/// fields.
macro_rules! fields {
    ($(
        $(#[doc = $doc:literal])+
        $([$($arg:tt)+])?
        $name:ident: $kind:ty = $default:expr;
    )+) => {
        /// What one source says; `None` where it is silent.
        #[derive(Clone, Debug, Default, PartialEq, clap::Args, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Settings {
            $(
                $(#[doc = $doc])+
                #[arg(long $(, $($arg)+)?)]
                pub $name: Option<$kind>,
            )+
        }

        /// What is in force.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $(
                $(#[doc = $doc])+
                pub $name: $kind,
            )+
        }

        impl Settings {
            /// What this says, and what `lower` says where this is silent.
            pub fn or(self, lower: Self) -> Self {
                Self { $($name: self.$name.or(lower.$name),)+ }
            }

            /// The fields that somebody set.
            pub fn set_fields(&self) -> Vec<&'static str> {
                let fields = [$((stringify!($name), self.$name.is_some()),)+];
                fields.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
            }

            /// What the environment says: `lookup` of `TIDEGATE_<FIELD>`. Empty is silent.
            pub fn from_env(
                lookup: &dyn Fn(&str) -> Option<String>,
            ) -> Result<Self, load::ConfigFault> {
                Ok(Self { $($name: load::parse_variable(stringify!($name), lookup)?,)+ })
            }

            /// Fills in the defaults for this host.
            pub fn into_config(self, host: &HostFacts) -> Config {
                // Most defaults are the same on every host.
                let _ = host;
                Config { $($name: self.$name.unwrap_or_else(|| ($default)(host)),)+ }
            }
        }

        impl Config {
            /// The configuration of a `role` as a YAML file that says what each field means, and
            /// that reads back as itself.
            pub fn to_yaml(&self, role: Role) -> String {
                let mut yaml = String::new();
                $(
                    if role.has(stringify!($name)) {
                        for line in [$($doc),+] {
                            yaml.push('#');
                            yaml.push_str(line);
                            yaml.push('\n');
                        }
                        yaml.push_str(concat!(stringify!($name), ": "));
                        // A JSON scalar or list is YAML.
                        let value = serde_json::to_string(&self.$name);
                        yaml.push_str(&value.expect("fields are text, numbers and lists of text"));
                        yaml.push_str("\n\n");
                    }
                )+
                yaml.truncate(yaml.trim_end().len());
                yaml.push('\n');
                yaml
            }
        }
    };
}

fields! {
    /// Address and port for clients; several with commas. Each shard listens on all of them.
    /// Default: 127.0.0.1:8428.
    listen: Listen = |_: &HostFacts| Listen(vec![([127, 0, 0, 1], 8428).into()]);
    /// Address and port for queries and administration of a node; several with commas. Default:
    /// 127.0.0.1:8429.
    http: Listen = |_: &HostFacts| Listen(vec![([127, 0, 0, 1], 8429).into()]);
    /// Address and first port for gateways: each shard has a port of its own, counted up from this
    /// one, and reads have the one behind the last. Default: 127.0.0.1:9500.
    link: SocketAddr = |_: &HostFacts| ([127, 0, 0, 1], 9500).into();
    /// Where the node stands: owners of a series are chosen in different zones. All nodes have one,
    /// or none has. Default: none.
    zone: String = |_: &HostFacts| String::new();
    /// Group of the node: it takes the series of the rules that name the group, and no others. It
    /// counts when the node is added, or the rules change. Default: none, for what no rule matches.
    group: String = |_: &HostFacts| String::new();
    /// Nodes to forward to, the first link port of each: HOST:PORT, several with commas. Each
    /// address of a name counts as a node, but its IPv4 and IPv6 may be two ways to the same ones.
    nodes: Names = |_: &HostFacts| Names::default();
    /// Name server to ask about --nodes, IP:PORT. Default: those of /etc/resolv.conf.
    dns_server: String = |_: &HostFacts| String::new();
    /// Add nodes that --nodes names and that belong to no fleet. Default: false.
    [num_args = 0..=1, default_missing_value = "true", require_equals = true]
    auto_join: bool = |_: &HostFacts| false;
    /// Nodes that each sample is stored on, 1 to 3. It counts when a fleet is founded. Default: 1.
    replication: u8 = |_: &HostFacts| 1;
    /// Labels that choose the owners of a series, several with commas: a query that pins them all
    /// asks their owners alone. It counts when a fleet is founded. Default: all labels.
    shard_by: Names = |_: &HostFacts| Names::default();
    /// Series that only some nodes store, as SELECTOR -> GROUP: the first rule that matches names
    /// the group of nodes (see `tidegate node --group`). Several with semicolons, or as a list. It
    /// counts when a fleet is founded. Default: none.
    group_rules: GroupRules = |_: &HostFacts| GroupRules::default();
    /// When a client is answered: when `all` owners of its samples have them on stable storage, or
    /// `one`. Default: all.
    ack: AckMode = |_: &HostFacts| AckMode::All;
    /// Disk for samples of nodes that are down: at the limit those samples are refused with 503.
    /// Default: 16GiB.
    hint_bytes_max: ByteSize = |_: &HostFacts| ByteSize(16 << 30);
    /// How old the oldest sample kept for a node may be before more are refused with 503. Default:
    /// 3d.
    hint_age_max: Period = |_: &HostFacts| Period::from_secs(3 * 24 * 3600);
    /// File with the secret that gateways and nodes of a fleet share, at least 16 bytes. Without
    /// one, links stay on this host.
    link_secret_file: PathBuf = |_: &HostFacts| PathBuf::new();
    /// How long a node may say nothing before it counts as down. Default: 2s.
    health_timeout: Period = |_: &HostFacts| Period::from_secs(2);
    /// Folder for logs and snapshots; made if it is not there. Default: ./tidegate-data.
    data: PathBuf = |_: &HostFacts| "./tidegate-data".into();
    /// Shards: threads that take in and store samples. Default: one per CPU that this process may
    /// use.
    shards: u32 = |host: &HostFacts| host.cpu_count;
    /// Don't pin shards to CPUs: for hosts shared with other busy programs. Default: false.
    [num_args = 0..=1, default_missing_value = "true", require_equals = true]
    no_pin: bool = |_: &HostFacts| false;

    /// Largest request body, decompressed; a larger one is answered 413. Default: 64MiB.
    body_bytes_max: ByteSize = |_: &HostFacts| ByteSize(64 << 20);
    /// Memory for requests in flight, all shards together; at the limit clients get 503 and
    /// Retry-After. Default: an eighth of the memory, at least 128MiB, at most 4GiB.
    request_bytes_max: ByteSize =
        |host: &HostFacts| ByteSize::mebibytes_of(host.memory_bytes / 8).clamp(MIB_128, GIB_4);
    /// Client connections open at once, all shards together. Default: 10000.
    connections_max: u32 = |_: &HostFacts| 10_000;

    /// How much older than the newest sample of its series a sample may be. Default: 1h.
    out_of_order_window: Period = |_: &HostFacts| Period::from_secs(3600);
    /// Take samples through /api/v1/import however late they are. Default: false.
    [num_args = 0..=1, default_missing_value = "true", require_equals = true]
    allow_backfill: bool = |_: &HostFacts| false;
    /// How far ahead of this host's clock a sample may be. Default: 10m.
    future_window: Period = |_: &HostFacts| Period::from_secs(600);
    /// Labels of a series. Default: 64.
    labels_max: u32 = |_: &HostFacts| 64;
    /// Longest name of a label. Default: 1KiB.
    label_name_bytes_max: ByteSize = |_: &HostFacts| ByteSize(1 << 10);
    /// Longest value of a label. Default: 4KiB.
    label_value_bytes_max: ByteSize = |_: &HostFacts| ByteSize(4 << 10);
    /// All labels of a series together. Default: 16KiB.
    labels_bytes_max: ByteSize = |_: &HostFacts| ByteSize(16 << 10);

    /// How long samples are kept; older ones are refused. 0 keeps them for ever. Queries at a
    /// gateway show nothing older than its own: set it to what its nodes have. Default: 30d.
    retention: Period = |_: &HostFacts| Period::from_secs(30 * 24 * 3600);
    /// How large the blocks on disk may become, all together: beyond it the oldest are deleted. 0
    /// is no limit. Default: 0.
    retention_bytes: ByteSize = |_: &HostFacts| ByteSize(0);
    /// Room that stays free on the disk: below it samples are refused with 503, and queries go on.
    /// Default: 1GiB.
    disk_free_min: ByteSize = |_: &HostFacts| ByteSize(1 << 30);
    /// Memory for pages of blocks. Default: a sixteenth of the memory, at least 16MiB.
    block_cache_bytes: ByteSize = |host: &HostFacts| {
        ByteSize::mebibytes_of(host.memory_bytes / 16).clamp(ByteSize(16 << 20), ByteSize(1 << 40))
    };

    /// Memory for series and their samples, all shards together; at the limit samples are refused
    /// with 503. Default: half of the memory that the cgroup or the machine has.
    head_bytes_max: ByteSize = |host: &HostFacts| ByteSize::mebibytes_of(host.memory_bytes / 2);
    /// Size of a log file. Default: 64MiB.
    log_segment_bytes: ByteSize = |_: &HostFacts| ByteSize(64 << 20);
    /// Log that a restart replays at most, per shard: beyond it a snapshot is written and the log
    /// cut. Default: 1GiB.
    log_bytes_max: ByteSize = |_: &HostFacts| ByteSize(1 << 30);

    /// Series that one query may read. Default: 1000000.
    query_series_max: u32 = |_: &HostFacts| 1_000_000;
    /// Samples that one query may hold in memory, 16 bytes each. Default: 50000000.
    query_samples_max: u64 = |_: &HostFacts| 50_000_000;
    /// Queries worked on at once; others wait. Default: 20.
    query_concurrency_max: u32 = |_: &HostFacts| 20;
    /// How long a query waits for its turn before it gets 503. Default: 10s.
    query_wait_max: Period = |_: &HostFacts| Period::from_secs(10);
    /// How long a query may take, waiting included. Default: 2m.
    query_timeout: Period = |_: &HostFacts| Period::from_secs(120);
    /// How old a sample may be to be seen by an instant vector. Default: 5m.
    query_lookback: Period = |_: &HostFacts| Period::from_secs(300);
    /// Threads for queries and everything else but samples. Default: 2.
    control_threads: u32 = |_: &HostFacts| 2;

    /// How long a shutdown waits for requests in flight. Nothing acknowledged depends on it.
    /// Default: 10s.
    shutdown_timeout: Period = |_: &HostFacts| Period::from_secs(10);
}

#[cfg(test)]
mod tests;
