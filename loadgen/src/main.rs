//! The `loadgen` command: parses the command line, runs `send` or `verify`, prints the result.
//! Exit codes: 0 fine, 1 nothing acknowledged or the data differ, 2 could not run.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loadgen::options::{SendOptions, VerifyOptions};

/// Load generator and verifier for metrics servers
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send seeded series and note in a ledger what was acknowledged
    Send(Box<SendOptions>),
    /// Read everything back and compare it with ledgers, sample for sample
    Verify(VerifyOptions),
}

fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(cause) => {
            // Without stderr the exit code has to do.
            drop(writeln!(io::stderr(), "loadgen: {cause}"));
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> io::Result<bool> {
    match command {
        Command::Send(options) => {
            let json = options.json.clone();
            let report = loadgen::send::run(*options)?;
            writeln!(io::stdout(), "{report}")?;
            write_json(json.as_deref(), &report)?;
            Ok(report.points_acked > 0)
        }
        Command::Verify(options) => {
            let result = loadgen::verify::run(&options)?;
            writeln!(io::stdout(), "{result}")?;
            write_json(options.json.as_deref(), &result)?;
            Ok(result.is_clean())
        }
    }
}

fn write_json(path: Option<&Path>, value: &impl serde::Serialize) -> io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    std::fs::write(path, text)
}
