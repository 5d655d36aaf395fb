//! A program that is run to build or to test something: what it writes to standard error goes to whoever
//! watches, the last lines are kept; its standard output is an answer, of which `last_lines` are shown where
//! it is none.
//!
//! Called by: `cargo`, `python`, `js`, `tools`, `native`.
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
const LINES_MAX: usize = 400;
/// Bytes of an answer that are shown to a person.
const SHOWN_BYTES_MAX: usize = 128 << 10;
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

/// The last lines of a program's answer, as much as is shown to a person. What is left out is counted.
pub(super) fn last_lines(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let text = text.trim_end();
    let lines: Vec<&str> = text.lines().collect();
    let mut bytes = 0;
    let fits = |line: &&&str| {
        bytes += line.len() + 1;
        bytes <= SHOWN_BYTES_MAX
    };
    let shown = lines.iter().rev().take_while(fits).count();
    let (left_out, shown) = lines.split_at(lines.len() - shown);
    if left_out.is_empty() {
        return text.to_owned();
    }
    let count = left_out.len();
    let before = format!("(lines before these: {count}, left out)");
    [&[before.as_str()], shown].concat().join("\n")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_shown_and_those_before_counted() {
        assert_eq!(last_lines(b""), "");
        assert_eq!(last_lines(b"a\n\nb\n\n"), "a\n\nb");
        let many = "some line\n".repeat(SHOWN_BYTES_MAX / 10);
        assert_eq!(last_lines(many.as_bytes()), many.trim_end());
        let shown = last_lines(format!("aa\nbb\n{many}").as_bytes());
        assert_eq!(
            shown,
            format!("(lines before these: 2, left out)\n{}", many.trim_end())
        );
        let wide = format!("a\n{}\nb", "x".repeat(SHOWN_BYTES_MAX));
        assert_eq!(
            last_lines(wide.as_bytes()),
            "(lines before these: 2, left out)\nb"
        );
    }
}
