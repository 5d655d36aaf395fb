//! The command line: parses, sets up logging and the runtime, runs one command, turns its end
//! into an exit code.
//!
//! Called by: `main.rs`. Calls: one file per command.
//! Invariants: results on standard output, everything else on standard error; exit codes 0 done,
//! 1 failed, 2 wrong usage, 3 the server cannot be reached; commands return a `Failure`, only
//! this file ends the process.
//! Refuses: commands that are planned but not built, with exit 2.

pub mod args;
mod canary;
pub(crate) mod connect;
mod consume;
mod exit;
mod group;
mod lanes;
mod module;
pub(crate) mod pipeline;
mod produce;
mod serve;
mod sql;
mod status;
pub(crate) mod topic;
mod translation;
mod values;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
pub use connect::Server;
use connect::run_with;
pub use exit::Failure;
use exit::written;
pub use pipeline::apply_file;

/// Runs the process's own command line.
pub fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|a| a == wasm::compile::ARGUMENT)
    {
        return crate::module::compiler::main();
    }
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
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true)
        .init();
}

fn run(Cli { global, command }: Cli) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo(args, &global),
        Command::Serve(args) => serve::run(args, &global),
        Command::Topic(command) => run_with(global, async |s| topic::run(command, s).await),
        Command::Produce(args) => run_with(global, async |s| produce::run(args, s).await),
        Command::Consume(args) => run_with(global, async |s| consume::run(args, s).await),
        Command::Module(command) => run_with(global, async |s| module::run(command, s).await),
        Command::Pipeline(command) => run_with(global, async |s| pipeline::run(command, s).await),
        Command::Sql(args) => run_with(global, async |s| sql::run(args, s).await),
        Command::Group(command) => run_with(global, async |s| group::run(command, s).await),
        Command::Status(_) => run_with(global, async |s| status::run(s).await),
        Command::Completions(args) => completions(&args),
        Command::Top(_) => Err(Failure::not_built("top")),
        Command::Bench(_) => Err(Failure::not_built("bench")),
    }
}

fn demo(args: args::Demo, global: &args::Global) -> Result<(), Failure> {
    if global.json {
        return Err(Failure::usage(
            "demo prints a report for people; leave --json out",
        ));
    }
    let runtime = connect::runtime()?;
    let agreed = runtime.block_on(Box::pin(crate::demo::run(args)));
    runtime.shutdown_background();
    match agreed {
        Ok(true) => Ok(()),
        // what differs has been printed
        Ok(false) => Err(Failure::said()),
        Err(error) => Err(Failure::failed(format!("{error:#}"))),
    }
}

fn completions(args: &args::Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rustmq", &mut script);
    written(std::io::stdout().write_all(&script))
}
