//! A program that is run to build something: its lines go to whoever watches, the last ones are kept.
//!
//! Called by: `cargo`, `python`, `js`, `tools`.
//! Invariants: what is kept is bounded; the program ends with the future that waits for it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::BuildError;

/// Lines of a program that are kept for an error.
pub(super) const LINES_MAX: usize = 400;
/// Bytes of a program's answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How a program ended.
pub(super) struct Ran {
    pub(super) status: ExitStatus,
    /// Standard output.
    pub(super) answer: Vec<u8>,
    /// The last lines of standard error.
    pub(super) said: String,
}

impl Ran {
    /// Itself, if the program did its work; else an error with what it said.
    pub(super) fn succeeded(self, program: &'static str, dir: &Path) -> Result<Ran, BuildError> {
        if self.status.success() {
            return Ok(self);
        }
        Err(BuildError::Failed {
            program,
            dir: dir.into(),
            output: self.said,
        })
    }
}

/// The program that a variable names, or the usual one.
pub(super) fn program(variable: &str, usual: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| usual.into())
}

/// A command in that folder, which asks nothing and ends with its future.
pub(super) fn command(program: &OsString, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs it to its end. `needs` is what to install where the program cannot be run.
pub(super) async fn run(
    mut command: Command,
    needs: &'static str,
    progress: &mut dyn FnMut(&str),
) -> Result<Ran, BuildError> {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let failed = |error| BuildError::NoProgram {
        program: program.clone(),
        needs,
        error,
    };
    let spawned = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let answer = async {
        let mut bytes = Vec::new();
        if let Some(stdout) = stdout {
            stdout
                .take(ANSWER_BYTES_MAX)
                .read_to_end(&mut bytes)
                .await?;
        }
        io::Result::Ok(bytes)
    };
    let lines = async {
        let mut kept = VecDeque::new();
        if let Some(stderr) = stderr {
            let mut lines = BufReader::new(stderr).lines();
            while let Some(line) = lines.next_line().await? {
                progress(&line);
                if kept.len() == LINES_MAX {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        }
        io::Result::Ok(Vec::from(kept))
    };
    let (answer, lines, status) = tokio::join!(answer, lines, child.wait());
    Ok(Ran {
        status: status.map_err(failed)?,
        answer: answer.map_err(failed)?,
        said: lines.map_err(failed)?.join("\n"),
    })
}
