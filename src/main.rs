//! The `tidegate` program: its commands, and nothing else.

use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;
use tidegate::control::config::command::{Command, CommandLine, ServeArguments};
use tidegate::control::config::load;
use tidegate::control::host::HostFacts;
use tidegate::server::start;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Serve(arguments) => serve(&arguments),
    }
}

fn serve(arguments: &ServeArguments) -> ExitCode {
    let host = HostFacts::read();
    let config = match load::load(arguments, &|name| std::env::var(name).ok(), &host) {
        Ok(config) => config,
        Err(fault) => return fail(&fault),
    };
    if arguments.print_config {
        print!("{}", config.to_yaml());
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match start::serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fail(&fault),
    }
}

fn fail(fault: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("tidegate: {fault}");
    ExitCode::FAILURE
}
