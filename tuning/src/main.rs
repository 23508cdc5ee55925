//! `tuning`: looks at a host and says what keeps it from taking in metrics at full speed; sets what
//! can be set.
//! In: `/proc` and `/sys` (or a copy of them below `--root`). Out: a table or JSON; with `apply`,
//! new settings.

mod apply;
mod checks;
mod host;
mod report;

use clap::{Parser, Subcommand, ValueEnum};
use host::Host;
use report::Level;
use std::path::PathBuf;
use std::process::ExitCode;

/// Checks and sets a host for taking in metrics.
#[derive(Parser)]
#[command(name = "tuning", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where `/proc` and `/sys` are found; for looking at a copy.
    #[arg(long, global = true, default_value = "/")]
    root: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Prints what is as it should be and what is not. Exit code 1 if something must be mended.
    Check {
        /// The folder that will hold the data.
        #[arg(long, default_value = ".")]
        data: PathBuf,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Sets the kernel's parameters. They last until the next boot; `undo` takes them back.
    Apply {
        /// Only prints what would be set.
        #[arg(long)]
        dry_run: bool,
        /// Which settings.
        #[arg(long, value_enum, default_value = "ingest")]
        profile: Profile,
        /// Where the old values are kept for `undo`.
        #[arg(long, default_value = "/var/lib/tidegate-tuning-undo.json")]
        undo_file: PathBuf,
    },
    /// Sets back what `apply` has changed.
    Undo {
        /// Where `apply` kept the old values.
        #[arg(long, default_value = "/var/lib/tidegate-tuning-undo.json")]
        undo_file: PathBuf,
    },
}

/// A set of settings.
#[derive(Clone, Copy, ValueEnum)]
enum Profile {
    /// Many connections that send much.
    Ingest,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let host = Host::new(&arguments.root);
    let default = Command::Check { data: ".".into(), json: false };
    let outcome = match arguments.command.unwrap_or(default) {
        Command::Check { data, json } => Ok(check(&host, &data, json)),
        Command::Apply { dry_run, profile: Profile::Ingest, undo_file } => {
            apply::apply(&host, &apply::INGEST, &undo_file, dry_run)
        }
        Command::Undo { undo_file } => apply::undo(&host, &undo_file),
    };
    match outcome {
        Ok(code) => code,
        Err(message) => {
            eprintln!("tuning: {message}");
            ExitCode::FAILURE
        }
    }
}

fn check(host: &Host, data: &std::path::Path, json: bool) -> ExitCode {
    let findings = checks::check_host(host, data);
    print!("{}", if json { report::to_json(&findings) } else { report::to_table(&findings) });
    let must_mend = findings.iter().any(|finding| finding.level == Level::Fail);
    if must_mend { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
