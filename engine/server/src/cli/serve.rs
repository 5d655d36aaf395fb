//! `rustmq serve`: a node in the foreground until a signal or a fatal error ends it.
//!
//! Called by: `cli::run`. Calls: `config`, `node`, `signals`.
//! Invariants: `ready …` is printed once, after everything is up and the state folder is
//! written; the first signal stops in order within a deadline, the second ends at once; a log
//! that can no longer be synced ends the process with exit 1.

use std::io::Write;

use super::args::{Global, Serve};
use super::connect::no_workers;
use super::exit::Failure;
use crate::config::{self, Overrides, STOP_DEADLINE};
use crate::node::{Node, NodeConfig};
use crate::signals::Signals;

pub fn run(args: Serve, global: &Global) -> Result<(), Failure> {
    if global.json {
        return Err(Failure::usage("serve prints no data; leave --json out"));
    }
    let overrides = Overrides {
        config: args.config,
        listen: args.listen,
        http: args.http,
        data_dir: args.data_dir,
        memory_bytes: args.memory_bytes,
        disk_bytes: args.disk_bytes,
    };
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let config = config::load(&overrides, &env).map_err(Failure::failed)?;
    let node = NodeConfig {
        compiler: crate::module::compiler::program(),
        ..NodeConfig::from(config)
    };
    let runtime = crate::runtime::node(&node.linger).map_err(no_workers)?;
    let result = runtime.block_on(serve(node));
    // threads that block (a module that still computes) do not hold the exit up
    runtime.shutdown_background();
    result
}

async fn serve(config: NodeConfig) -> Result<(), Failure> {
    let mut signals = Signals::listen()
        .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    // a signal while opening ends the process too: nothing has been promised yet
    let node = tokio::select! {
        node = Box::pin(Node::start(config)) => node.map_err(Failure::failed)?,
        name = signals.next() => return Err(Failure::failed(format!("{name} while starting"))),
    };
    announce(&node)?;
    let failed = tokio::select! {
        name = signals.next() => {
            tracing::info!("{name}: stopping");
            None
        }
        why = node.failed() => Some(why),
    };
    if let Some(why) = failed {
        // what is on disk is decided by recovery at the next start, not by this process
        return Err(Failure::failed(why));
    }
    tokio::select! {
        () = node.stop() => Ok(()),
        name = signals.next() => {
            Err(Failure::failed(format!("second signal ({name}): ended without a clean stop")))
        }
        () = tokio::time::sleep(STOP_DEADLINE) => {
            let seconds = STOP_DEADLINE.as_secs();
            Err(Failure::failed(format!("not stopped after {seconds} s: ended; what was \
                acknowledged is on disk")))
        }
    }
}

fn announce(node: &Node) -> Result<(), Failure> {
    let line = format!(
        "ready quic={} http={}\n",
        node.quic_addr(),
        node.http_addr()
    );
    let mut out = std::io::stdout().lock();
    // whoever started us may have closed its end: that is no reason to stop
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    Ok(())
}
