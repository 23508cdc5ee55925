//! The command line: its commands, and a help that teaches.

use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches};

use crate::control::config::Settings;
use crate::control::config::cluster_command::{CLUSTER_AFTER_HELP, ClusterCommand};
use crate::control::config::role::Role;

const ABOUT: &str =
    "Takes in metrics from the clients you already run, stores them durably, answers queries.";

const AFTER_HELP: &str = "\
First steps:
  tidegate serve                        listens on 127.0.0.1:8428, data in ./tidegate-data
  curl http://127.0.0.1:8428/           says where everything is

Let Prometheus send to it, in prometheus.yml:
  remote_write:
    - url: http://127.0.0.1:8428/api/v1/write

See what arrived:
  curl 'http://127.0.0.1:8428/api/v1/query?query=up'

Several hosts:
  tidegate node --data /var/lib/tidegate --link 10.0.0.1:9500 --link-secret-file link.secret
  tidegate gateway --nodes 10.0.0.1:9500,10.0.0.2:9500 --link-secret-file link.secret

Keep it safe:
  tidegate backup --url http://127.0.0.1:8428 /mnt/backup/tidegate
  tidegate check data ./tidegate-data   of a server that is stopped
";

const SERVE_AFTER_HELP: &str = "\
Examples:
  tidegate serve
      listens on 127.0.0.1:8428, data in ./tidegate-data, one shard per CPU
  tidegate serve --listen 0.0.0.0:8428 --data /var/lib/tidegate --head-bytes-max 8GiB
      for a network: nobody is asked for a password yet, so keep strangers out by other means
  tidegate serve --print-config > tidegate.yaml
      writes a file with every field, its meaning and its value; edit it, then:
  tidegate serve --config tidegate.yaml

Each flag is also a field of the file and an environment variable: --log-bytes-max is
log_bytes_max: and TIDEGATE_LOG_BYTES_MAX. A flag wins over the environment, the environment
over the file, the file over the default.
Sizes are written 64MiB, 1GiB or 4096; lengths of time 10s, 1h30m or 0.";

const NODE_AFTER_HELP: &str = "\
Examples:
  head -c 32 /dev/urandom | base64 > link.secret
      the secret that all gateways and nodes of a fleet share
  tidegate node --data /var/lib/tidegate --http 10.0.0.1:8429 --link 10.0.0.1:9500 \\
      --link-secret-file link.secret
      stores what gateways bring to the ports 9500, 9501, ... (one for each shard, one for reads)
  tidegate node --zone rack-7 ...
      owners of a series are chosen in different zones
  curl http://10.0.0.1:8429/metrics
      how it does; queries here see what this node stores, queries to a gateway see the fleet

Restart it as often as you like: gateways wait for --health-timeout, and lose nothing.";

const GATEWAY_AFTER_HELP: &str = "\
Examples:
  tidegate gateway --listen 0.0.0.0:8428 --nodes 10.0.0.1:9500,10.0.0.2:9500 \\
      --replication 2 --link-secret-file link.secret
      takes in what clients send, and has each sample stored by two nodes
  tidegate gateway ... --ack one
      answers when one of them has it; the other follows

Run as many gateways as you like, in front of the same nodes: any client may use any of them. The
first one founds the fleet with the nodes and the replication that it was given.";

const CHECK_AFTER_HELP: &str = "\
Examples:
  tidegate check data /var/lib/tidegate
      reads every byte of a stopped server's folder, and says what is wrong where
  tidegate check data /mnt/backup/tidegate --json
      the same of a backup or snapshot: {\"files\":..,\"bytes\":..,\"samples\":..,
      \"faults\":[{\"file\":..,\"offset\":..,\"what\":..}],\"notes\":[..]}

A fault is data that is damaged or missing. A note is normal, but worth knowing: the torn end of
the log after a crash, a file that is not ours.
Nothing is written. A sample that is in the log and in a block counts twice.
Exit: 0 nothing is wrong, 1 faults were found, 2 it could not be checked.";

const INSPECT_AFTER_HELP: &str = "\
Examples:
  tidegate inspect tidegate-data/blocks/block-00000000000000000001.blk
      times, sizes by section, codecs, the labels with the most values
  tidegate inspect tidegate-data/blocks/block-00000000000000000001.blk --samples 2
      and all samples of its first two series
  tidegate inspect tidegate-data/incarnation-1/shard-0/segment-00000000000000000001.log
      the records of the log
  tidegate inspect tidegate-data/incarnation-1/shard-0/snapshot-00000000000000000002.snap
  tidegate inspect tidegate-data/blocks/BLOCKS --json | jq .blocks

The kind is told by the first bytes, not by the name. A server may run on the folder.
Exit: 0 the file is whole, 1 a part of it is damaged, 2 it cannot be read.";

const BACKUP_AFTER_HELP: &str = "\
Examples:
  tidegate backup --url http://127.0.0.1:8428 /mnt/backup/tidegate
      everything acknowledged until now; the first time all blocks, later only new ones
  0 3 * * *  tidegate backup --url http://127.0.0.1:8428 /mnt/backup/tidegate --json
      each night, from cron

The server keeps running, on this host. TARGET is a whole backup of one moment at all times:
interrupted, it is the one before. To keep several, copy TARGET (cp -al makes links), or give each
weekday a TARGET of its own.
  tidegate check data /mnt/backup/tidegate
      reads it to the last byte
Exit: 0 done, 1 not done; the backup before is untouched.";

const RESTORE_AFTER_HELP: &str = "\
Examples:
  tidegate restore /mnt/backup/tidegate /var/lib/tidegate
  tidegate serve --data /var/lib/tidegate

DIR must be missing or empty. Every byte is checked; if a block is damaged nothing is restored, and
the message names it. A snapshot (DATA/snapshots/NAME) can be restored as well.
A restored folder is the same node as before: don't run it beside the one that it was copied from.
Exit: 0 done, 1 not done; DIR is as it was.";

impl CommandLine {
    /// Reads the process' arguments; each command shows only the fields that it has. Ends the
    /// process with a text if they are wrong, or ask for help.
    pub fn of_process() -> Self {
        let mut command = Self::command();
        for role in [Role::Standalone, Role::Gateway, Role::Node] {
            command = command.mut_subcommand(role.command(), |of_role| {
                of_role.mut_args(|argument| {
                    let is_foreign = !role.has(argument.get_id().as_str());
                    if is_foreign { argument.hide(true) } else { argument }
                })
            });
        }
        let read = Self::from_arg_matches(&command.get_matches());
        read.unwrap_or_else(|fault| fault.exit())
    }
}

/// `tidegate ...`
#[derive(Debug, clap::Parser)]
#[command(name = "tidegate", version, about = ABOUT, after_help = AFTER_HELP, max_term_width = 100)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Runs gateway and node in one process.
    #[command(after_help = SERVE_AFTER_HELP)]
    Serve(Box<ServeArguments>),
    /// Runs a node of a fleet: stores what gateways bring, and answers their queries.
    #[command(after_help = NODE_AFTER_HELP)]
    Node(Box<ServeArguments>),
    /// Runs a gateway of a fleet: takes in, forwards to nodes, and asks them for queries.
    #[command(after_help = GATEWAY_AFTER_HELP)]
    Gateway(Box<ServeArguments>),
    /// Shows and changes the nodes of a fleet.
    #[command(after_help = CLUSTER_AFTER_HELP)]
    Cluster {
        /// What to do.
        #[command(subcommand)]
        what: ClusterCommand,
    },
    /// Checks every checksum and invariant of files that no server uses.
    #[command(after_help = CHECK_AFTER_HELP)]
    Check {
        /// What to check.
        #[command(subcommand)]
        what: CheckCommand,
    },
    /// Prints what a block, a log segment, a head snapshot or a list of blocks holds.
    #[command(after_help = INSPECT_AFTER_HELP)]
    Inspect(InspectArguments),
    /// Copies a running server's data, incrementally.
    #[command(after_help = BACKUP_AFTER_HELP)]
    Backup(BackupArguments),
    /// Makes a data folder of a backup.
    #[command(after_help = RESTORE_AFTER_HELP)]
    Restore(RestoreArguments),
}

/// `tidegate check ...`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum CheckCommand {
    /// Checks a data folder, a snapshot or a backup.
    #[command(after_help = CHECK_AFTER_HELP)]
    Data {
        /// The folder that `serve --data` has, or a copy of it.
        dir: PathBuf,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// `tidegate inspect ...`
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArguments {
    /// The file.
    pub file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Of a block: print the first N series with all their samples.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub samples: u64,
}

/// `tidegate backup ...`
#[derive(Clone, Debug, clap::Args)]
pub struct BackupArguments {
    /// The server, which runs on this host: http://ADDRESS:PORT.
    #[arg(long)]
    pub url: String,
    /// The folder of the backup; made if it is not there.
    pub target: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `tidegate restore ...`
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArguments {
    /// The folder of a backup or snapshot.
    pub target: PathBuf,
    /// The data folder to make: missing or empty.
    pub dir: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `tidegate serve ...`, `tidegate node ...`, `tidegate gateway ...`
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct ServeArguments {
    /// YAML file with any of the fields below.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the configuration in force as a commented YAML file, and exit.
    #[arg(long)]
    pub print_config: bool,
    /// The fields.
    #[command(flatten)]
    pub settings: Settings,
}
