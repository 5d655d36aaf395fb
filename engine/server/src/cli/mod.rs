//! The command line: parses, sets up logging and the runtime, runs one command, turns its end
//! into an exit code.
//!
//! Called by: `main.rs`. Calls: one file per command.
//! Invariants: results on standard output, everything else on standard error; exit codes 0 done,
//! 1 failed, 2 wrong usage, 3 the server cannot be reached; commands return a `Failure`, only
//! this file ends the process.
//! Refuses: commands that are planned but not built, with exit 2.

pub mod args;
mod exit;
mod values;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
pub use exit::Failure;

/// Runs the process's own command line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version go to standard output and are a success
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    log_to_stderr();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{}", failure.text());
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Quiet unless something is wrong; `RUSTMQ_LOG` asks for more.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RUSTMQ_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(true)
        .init();
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Top(_) => Err(Failure::not_built("top")),
        Command::Bench(_) => Err(Failure::not_built("bench")),
        Command::Completions(args) => {
            clap_complete::generate(
                args.shell,
                &mut Cli::command(),
                "rustmq",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        _ => Err(Failure::failed("not wired yet")),
    }
}
