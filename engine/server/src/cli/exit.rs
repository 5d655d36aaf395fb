//! How a command ends when it does not end well: an exit code and a message for people.
//!
//! Called by: every command. Invariants: 1 failed, 2 wrong usage, 3 the server cannot be
//! reached; the message goes to standard error, once, here and nowhere else. A failure that is about
//! places of a file carries them as data, for a command that was asked for JSON.

use std::fmt::Display;

use model::Diagnostic;

use crate::output;

/// A command's failure. `message` says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: u8,
    pub message: String,
    /// What the message says of a file, for programs; empty where it is about something else.
    pub diagnostics: Vec<Diagnostic>,
}

impl Failure {
    fn new(code: u8, message: impl Display) -> Failure {
        Failure {
            code,
            message: message.to_string(),
            diagnostics: Vec::new(),
        }
    }

    pub fn failed(message: impl Display) -> Failure {
        Failure::new(1, message)
    }

    /// Exit code 1, of which nothing is left to say: what went wrong has been printed.
    pub fn said() -> Failure {
        Failure::new(1, "")
    }

    /// What is wrong with a file, a line each.
    pub fn diagnosed(diagnostics: Vec<Diagnostic>) -> Failure {
        let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        Failure {
            diagnostics,
            ..Failure::failed(lines.join("\n"))
        }
    }

    pub fn usage(message: impl Display) -> Failure {
        Failure::new(2, message)
    }

    pub fn unreachable(message: impl Display) -> Failure {
        Failure::new(3, message)
    }

    /// `error: …`, unless the lines already say so (diagnostics of a file do).
    pub fn text(&self) -> String {
        let diagnostic = self
            .message
            .lines()
            .next()
            .is_some_and(|line| line.contains(": error: ") || line.contains(": warning: "));
        if diagnostic {
            self.message.clone()
        } else {
            format!("error: {}", self.message)
        }
    }

    pub fn not_built(what: &str) -> Failure {
        Failure::usage(format!(
            "`rustmq {what}` is not built yet; `rustmq --help` lists what is"
        ))
    }
}

/// What a program hears of something that was deleted.
pub fn deleted(name: &str) -> Result<(), Failure> {
    let json = serde_json::json!({ "deleted": name });
    written(output::print(&output::json(&json)))
}

/// Writing to a pipe whose reader has gone (`rustmq consume … | head`) is a quiet end.
pub fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::new(0, "")),
        Err(error) => Err(Failure::failed(format!(
            "cannot write to standard output: {error}"
        ))),
    }
}
