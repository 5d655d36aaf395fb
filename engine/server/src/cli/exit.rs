//! How a command ends when it does not end well: an exit code and a message for people.
//!
//! Called by: every command. Invariants: 1 failed, 2 wrong usage, 3 the server cannot be
//! reached; the message goes to standard error, once, here and nowhere else.

use std::fmt::Display;

/// A command's failure. `message` says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    pub fn failed(message: impl Display) -> Failure {
        Failure {
            code: 1,
            message: message.to_string(),
        }
    }

    pub fn usage(message: impl Display) -> Failure {
        Failure {
            code: 2,
            message: message.to_string(),
        }
    }

    pub fn unreachable(message: impl Display) -> Failure {
        Failure {
            code: 3,
            message: message.to_string(),
        }
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

/// Writing to a pipe whose reader has gone (`rustmq consume … | head`) is a quiet end.
pub fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure {
            code: 0,
            message: String::new(),
        }),
        Err(error) => Err(Failure::failed(format!(
            "cannot write to standard output: {error}"
        ))),
    }
}
