//! This program as the compiler of modules: a process of its own, with limits on what it may use.
//!
//! Called by: `cli::main` (the process), `cli::serve` and the demo (which program that is).
//! Invariants: the limits are set before a byte of the module is read; the process has no
//! environment, opens nothing and only answers on standard output.

use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use wasm::{COMPILE_CPU_S, COMPILE_MEMORY_BYTES};

/// How far the compiling process stands back behind the server.
const NICE: i32 = 5;

/// The program to compile with: this one, also when its file was replaced meanwhile (Linux).
/// `None` where its file is not known.
pub fn program() -> Option<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() {
        return Some(running);
    }
    std::env::current_exe().ok()
}

/// Compiles one module from standard input to standard output.
pub fn main() -> ExitCode {
    match limited().and_then(|()| wasm::compile::answer()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn limited() -> Result<(), String> {
    // address space is reserved by the terabyte and never used: what is written to counts
    for (resource, most) in [
        (Resource::Data, COMPILE_MEMORY_BYTES),
        (Resource::Cpu, COMPILE_CPU_S),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(|e| format!("cannot limit the compiler: {e}"))?;
    }
    // a compiler that is not nice only takes more of the processor
    let _ = nice(NICE);
    Ok(())
}
