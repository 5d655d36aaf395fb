//! Real object stores for tests: an S3 and a GCS server on loopback, and a wire that fails.
//!
//! - `pins` which servers, and where `cargo xtask stores` puts them
//! - `s3` the S3 server; `gcs` the GCS one behind a front that gives it what it lacks
//! - `wire` a proxy in between that answers wrongly, late or not at all
//! - `report`, for test files with a harness of ours, which cases ran and which could not
//!
//! Called by: tests of `engine/storage` and `engine/server`, through `#[path]`.
//! Invariants: servers listen on 127.0.0.1 only, keep what they have in a folder of the test,
//! and die with it, also when it panics. Refuses: to pass where a server is missing: such a case
//! is skipped and said to be, and fails where `RUSTMQ_STORES=required`.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    reason = "support of tests: a failure here fails the test"
)]

pub mod gcs;
pub mod http;
pub mod pins;
pub mod s3;
#[path = "../wait.rs"]
#[allow(
    clippy::duplicate_mod,
    reason = "a program with support of its own has it there, too"
)]
mod wait;
pub mod wire;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pins::Pin;

/// Where the server is, or why what needs it cannot run.
pub fn find(pin: &Pin) -> Result<PathBuf, String> {
    let path = pin.path();
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("no {} server: run cargo xtask stores", pin.what))
}

/// For tests under libtest, which knows no skipping at run time: says so where nobody captures
/// it, and fails where the server is required.
pub fn is_there_or_skipped(pin: &Pin, test: &str) -> bool {
    let Err(why) = find(pin) else { return true };
    assert!(!is_required(), "{test}: {why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
    false
}

/// Whether a missing server is a failure.
pub fn is_required() -> bool {
    std::env::var("RUSTMQ_STORES").is_ok_and(|word| word == "required")
}

/// A port that was free a moment ago. The servers do not say which one they took for port 0.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A server process that dies with its owner.
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts it and waits until it answers; `None` if it ended at once, as it does when its
    /// port was taken meanwhile.
    fn start(path: &Path, args: &[String], log: &Path, port: u16, health: &str) -> Option<Program> {
        let log = std::fs::File::create(log).unwrap();
        let child = Command::new(path)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut program = Program { child };
        wait::until("the object store to answer", || {
            if program.child.try_wait().unwrap().is_some() {
                return Some(None);
            }
            TcpStream::connect(("127.0.0.1", port)).ok()?;
            let asked = http::forward(port, &http::Request::get(health));
            asked.ok().filter(|answer| answer.status == 200)?;
            Some(Some(()))
        })
        .map(|()| program)
    }

    /// `kill -9`.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
