//! The `bench` command: measures the release binary of tidegate from outside, with `loadgen` as its
//! client. `bench list` names the scenarios, `bench run NAME` measures one, `bench report FILE...`
//! makes rows for BENCHMARKS.md.

mod blocks;
mod client;
mod exposition;
mod fleet;
mod load;
mod machine;
mod outcome;
mod process;
mod recording;
mod scenario;
mod server;
mod threads;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use outcome::Outcome;
use scenario::{Round, Scenario};

/// Benchmarks of tidegate: CPU time first, wall time second
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Name the scenarios
    List,
    /// Measure scenarios
    Run(RunOptions),
    /// Markdown rows for BENCHMARKS.md from what `run --json` wrote
    Report {
        /// Files of `bench run --json`
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Options of `bench run`.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// Scenarios, or `all`
    #[arg(required = true)]
    scenarios: Vec<String>,
    /// Length of the measured window
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How often; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Write the results to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// The server [default: `tidegate` beside this command]
    #[arg(long)]
    server: Option<PathBuf>,
    /// Folder for the server's data, cleaned before and after each run [default: bench-data beside
    /// `release`]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Scrapes of node_exporter; recorded if the file is not there [default:
    /// node-exporter.scrapes in the folder for data]
    #[arg(long)]
    recording: Option<PathBuf>,
    /// How long to record, once a second
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(10..=3600))]
    record_seconds: u64,
}

fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            process::kill_all();
            // Without stderr the exit code has to do.
            drop(writeln!(io::stderr(), "bench: {cause}"));
            ExitCode::from(1)
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    match command {
        Command::List => {
            for scenario in &scenario::ALL {
                writeln!(io::stdout(), "{:24} {}", scenario.name, scenario.about)?;
            }
            Ok(())
        }
        Command::Run(options) => run_scenarios(&options),
        Command::Report { files } => {
            writeln!(io::stdout(), "{}", outcome::MARKDOWN_HEAD)?;
            for file in files {
                let outcomes: Vec<Outcome> = serde_json::from_slice(&std::fs::read(file)?)?;
                for outcome in outcomes {
                    write!(io::stdout(), "{}", outcome.markdown())?;
                }
            }
            Ok(())
        }
    }
}

fn run_scenarios(options: &RunOptions) -> io::Result<()> {
    let scenarios = Scenario::named(&options.scenarios)?;
    let mut set_up = server::SetUp::new(options.server.clone(), options.data.clone())?;
    if let Some(recording) = &options.recording {
        set_up.recording.clone_from(recording);
    }
    server::kill_all_on_exit(&set_up)?;
    let machine = machine::describe();
    writeln!(io::stdout(), "machine: {machine}")?;
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        let command = format!("bench run {} --seconds {}", scenario.name, options.seconds);
        let mut outcome = Outcome::new(scenario.name, &machine, &command);
        for round in 1..=options.repeat {
            writeln!(io::stderr(), "{}: {round} of {}", scenario.name, options.repeat)?;
            let RunOptions { seconds, record_seconds, .. } = *options;
            let round = Round { set_up: &set_up, seconds, record_seconds };
            outcome.add(scenario.measure(&round)?);
        }
        writeln!(io::stdout(), "{outcome}")?;
        outcomes.push(outcome);
    }
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&outcomes)?)?;
    }
    Ok(())
}
