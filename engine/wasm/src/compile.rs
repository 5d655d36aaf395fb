//! Compiling a module in a process of its own, whose time and memory are limited: a compiler can be
//! made to take hours and gigabytes by a small module, and nothing in this process can stop it.
//!
//! Called by: `host` (`apart`, where a program is configured), that program (`answer`).
//! Invariants: the process gets the component and nothing else (no environment, no arguments but one),
//! and it is killed with whatever it does when its time is over; what it answers is taken for code only
//! if it ended well. Its limits are set by the program before it calls `answer`.
//! Refuses: an answer above [`CODE_SIZE_MAX`], one that comes late, one of another engine.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::LoadError;
use crate::host::{engine_config, text};
use crate::limits::{
    CODE_SIZE_MAX, COMPILE_CPU_S, COMPILE_MEMORY_BYTES, COMPILE_WALL_S, COMPONENT_BYTES_MAX,
};

/// The only argument of the compiling process.
pub const ARGUMENT: &str = "__compile-module";
/// Answers of the process: one.
const ANSWERS: usize = 1;
/// A process that has closed its answer is about to end; how often it is looked for.
const ENDING: Duration = Duration::from_millis(1);
/// Longest message of the process that is shown, in bytes.
const SAID_BYTES_MAX: u64 = 4096;

/// The compiling process's side: a component from standard input, code to standard output. The
/// error goes to standard error, and the process should end with a failure.
pub fn answer() -> Result<(), String> {
    let mut component = Vec::new();
    std::io::stdin()
        .lock()
        .take(COMPONENT_BYTES_MAX as u64 * 2)
        .read_to_end(&mut component)
        .map_err(|e| format!("cannot read the component: {e}"))?;
    // its pool would count as memory, and the code is the same without
    let engine = Engine::new(&engine_config(false)).map_err(|e| text(&e))?;
    let code = engine
        .precompile_component(&component)
        .map_err(|e| text(&e))?;
    let mut out = std::io::stdout().lock();
    out.write_all(&code)
        .and_then(|()| out.flush())
        .map_err(|e| format!("cannot write the code: {e}"))
}

/// Compiles with that program.
pub(crate) fn apart(
    program: &Path,
    engine: &Engine,
    component: &[u8],
) -> Result<Component, LoadError> {
    let code = run(
        program.as_os_str(),
        component,
        Duration::from_secs(COMPILE_WALL_S),
    )
    .map_err(LoadError::Compile)?;
    // SAFETY: the bytes come over a pipe from a process that this one started from its own program
    // file, and that ended well: they are what an engine serialized, as trusted as this program is.
    // Its version and configuration are checked by wasmtime.
    unsafe { Component::deserialize(engine, &code) }.map_err(|e| LoadError::Compile(text(&e)))
}

/// Answer of the program, or why there is none.
fn run(program: &OsStr, component: &[u8], time: Duration) -> Result<Vec<u8>, String> {
    let mut child = Command::new(program)
        .arg(ARGUMENT)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("the compiler does not start: {e}"))?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        end(&mut child);
        return Err("the compiler has no pipes".into());
    };
    let late = Instant::now() + time;
    let (done, ended) = mpsc::sync_channel(ANSWERS);
    let (code, said, status) = std::thread::scope(|scope| {
        // a process that ends early does not read to the end: its status says why
        scope.spawn(move || stdin.write_all(component));
        let code = scope.spawn(move || {
            let code = whole(stdout, CODE_SIZE_MAX);
            // nobody listens when the time is over
            let _ = done.send(());
            code
        });
        let said = scope.spawn(move || whole(stderr, SAID_BYTES_MAX));
        let answered = ended.recv_timeout(time).is_ok();
        let status = answered.then(|| status(&mut child, late)).flatten();
        if status.is_none() {
            end(&mut child);
        }
        (code.join(), said.join(), status)
    });
    let Some(status) = status else {
        return Err(format!(
            "it took more than {} s; the module is too large or made to be slow",
            time.as_secs()
        ));
    };
    if !status.success() {
        let said = said.unwrap_or_default();
        return Err(why(status, String::from_utf8_lossy(&said).trim()));
    }
    Ok(code.unwrap_or_default())
}

/// How the process ended, if it does so before it is late: it may have closed its pipes and stay.
fn status(child: &mut Child, late: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < late => std::thread::park_timeout(ENDING),
            ended => return ended.ok().flatten(),
        }
    }
}

/// Kills the process and waits for it.
fn end(child: &mut Child) {
    // one that ended by itself meanwhile is no error
    let _ = child.kill();
    let _ = child.wait();
}

/// All of a pipe, up to so many bytes; what was read before an error.
fn whole(pipe: impl Read, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut pipe = pipe.take(limit);
    // the status says more than the pipe
    let _ = pipe.read_to_end(&mut bytes);
    bytes
}

fn why(status: ExitStatus, said: &str) -> String {
    if !said.is_empty() && status.code().is_some() {
        return said.to_owned();
    }
    format!(
        "the compiler ended with {status}: it may use {COMPILE_CPU_S} s of processor time and {} MiB \
         of memory{}{said}; the module is too large or made to be slow",
        COMPILE_MEMORY_BYTES >> 20,
        if said.is_empty() { "" } else { "; it said: " },
    )
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Runs a shell script as the compiler.
    fn script(text: &str, time: Duration) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("compiler");
        // by another process: a child that another thread forks meanwhile would hold it open for
        // writing, and what is written cannot be executed
        let written = Command::new("sh")
            .args(["-c", r#"printf '%s' "$0" > "$1" && chmod 700 "$1""#])
            .arg(format!("#!/bin/sh\n{text}\n"))
            .arg(&path)
            .status();
        assert!(written.is_ok_and(|status| status.success()));
        run(path.as_os_str(), &[7; 1 << 20], time)
    }

    fn fails(text: &str, part: &str) {
        let why = script(text, Duration::from_secs(600)).expect_err("it fails");
        assert!(why.contains(part), "{why}");
    }

    #[test]
    fn what_the_process_says_is_taken_only_if_it_ends_well() {
        let long = Duration::from_secs(600);
        assert_eq!(
            script("echo $1$HOME", long),
            Ok(format!("{ARGUMENT}\n").into())
        );
        let count = script("wc -c", long).expect("it counts");
        assert_eq!(String::from_utf8_lossy(&count).trim(), "1048576");
        fails("echo code; echo too bad >&2; exit 3", "too bad");
        fails("echo code; kill -9 $$", "2048 MiB of memory");
        fails("exit 1", "exit status: 1");
    }

    #[test]
    fn a_process_that_never_ends_is_killed() {
        let why = script("exec sleep 1000", Duration::from_millis(1)).expect_err("it is late");
        assert!(why.starts_with("it took more than 0 s"), "{why}");
        let closed = "exec >&- 2>&-; exec sleep 1000";
        let why = script(closed, Duration::from_millis(200)).expect_err("it stays");
        assert!(why.starts_with("it took more than 0 s"), "{why}");
    }

    #[test]
    fn no_program_no_code() {
        let missing = run(OsStr::new("/nowhere/at/all"), &[], Duration::from_secs(1));
        assert!(missing.is_err_and(|why| why.contains("does not start")));
    }
}
