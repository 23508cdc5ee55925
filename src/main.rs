//! The `tidegate` program: its commands, and nothing else.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tidegate::control::config::command::{
    BackupArguments, CheckCommand, Command, CommandLine, InspectArguments, RestoreArguments,
    ServeArguments,
};
use tidegate::control::config::load;
use tidegate::control::config::role::Role;
use tidegate::control::host::HostFacts;
use tidegate::offline::inspect::InspectOptions;
use tidegate::offline::{backup, check, cluster, inspect, restore};
use tidegate::server::start;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match CommandLine::of_process().command {
        Command::Serve(arguments) => serve(Role::Standalone, &arguments),
        Command::Node(arguments) => serve(Role::Node, &arguments),
        Command::Gateway(arguments) => serve(Role::Gateway, &arguments),
        command => offline(&command),
    }
}

/// The commands that work on files; what they find goes to stdout.
fn offline(command: &Command) -> ExitCode {
    let out = &mut std::io::BufWriter::new(std::io::stdout().lock());
    let (outcome, code_of_fault) = match command {
        Command::Serve(_) | Command::Node(_) | Command::Gateway(_) => {
            unreachable!("it is no command on files")
        }
        Command::Cluster { what } => (cluster::run(what, out), 2),
        Command::Check { what: CheckCommand::Data { dir, json } } => {
            (check::run(dir, *json, out), 2)
        }
        Command::Inspect(InspectArguments { file, json, samples }) => {
            let options = InspectOptions { is_json: *json, series: *samples };
            (inspect::run(file, options, out), 2)
        }
        Command::Backup(BackupArguments { url, target, json }) => {
            (backup::run(url, target, *json, out).map(|()| true), 1)
        }
        Command::Restore(RestoreArguments { target, dir, json }) => {
            (restore::run(target, dir, *json, out).map(|()| true), 1)
        }
    };
    match outcome {
        Ok(is_whole) => ExitCode::from(u8::from(!is_whole)),
        Err(fault) if fault.is_reader_gone() => ExitCode::SUCCESS,
        Err(fault) => {
            // What was found until then.
            let _ = out.flush();
            eprintln!("tidegate: {fault}");
            ExitCode::from(code_of_fault)
        }
    }
}

fn serve(role: Role, arguments: &ServeArguments) -> ExitCode {
    let host = HostFacts::read();
    let config = match load::load((role, arguments), &|name| std::env::var(name).ok(), &host) {
        Ok(config) => config,
        Err(fault) => return fail(&fault),
    };
    if arguments.print_config {
        print!("{}", config.to_yaml(role));
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match start::serve(role, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fail(&fault),
    }
}

fn fail(fault: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("tidegate: {fault}");
    ExitCode::FAILURE
}
