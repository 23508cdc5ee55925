//! The command line: its commands, and a help that teaches.

use std::path::PathBuf;

use crate::control::config::Settings;

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
}

/// `tidegate serve ...`
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
