//! A message about one place in a file the user wrote.
//!
//! Called by pipelines (which makes them), protocol (which carries them) and the command line
//! (which prints them). Invariant: shown as `FILE:LINE:COL: error: message`; lines and columns
//! count from 1, and 0 means the place is not known and is not shown.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad it is. Only an error stops what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

/// One message: where, how bad, what, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Diagnostic {
    pub file: String,
    /// From 1; 0 is unknown.
    pub line: u32,
    /// From 1, in characters; 0 is unknown.
    pub column: u32,
    pub severity: Severity,
    pub message: String,
    /// What to do; shown after the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(
        file: impl Into<String>,
        line: u32,
        column: u32,
        message: impl Into<String>,
    ) -> Diagnostic {
        let (file, message) = (file.into(), message.into());
        Diagnostic {
            file,
            line,
            column,
            severity: Severity::Error,
            message,
            hint: None,
        }
    }

    /// A warning at a place.
    pub fn warning(
        file: impl Into<String>,
        line: u32,
        column: u32,
        message: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic {
            severity: Severity::Warning,
            ..Self::error(file, line, column, message)
        }
    }

    /// The same with advice added.
    pub fn with_hint(self, hint: impl Into<String>) -> Diagnostic {
        Diagnostic {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Whether it stops what was asked for.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.column > 0 {
                write!(f, ":{}", self.column)?;
            }
        }
        write!(f, ": {}: {}", self.severity, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(diagnostic: Diagnostic, expected: &str) {
        assert_eq!(diagnostic.to_string(), expected);
    }

    #[test]
    fn shown_as_compilers_do() {
        check(Diagnostic::error("p.yaml", 3, 7, "unknown key `nods`"), {
            "p.yaml:3:7: error: unknown key `nods`"
        });
        check(
            Diagnostic::warning("p.yaml", 3, 0, "no schema").with_hint("declare one"),
            "p.yaml:3: warning: no schema (declare one)",
        );
        check(
            Diagnostic::error("p.yaml", 0, 0, "cannot be read"),
            "p.yaml: error: cannot be read",
        );
    }
}
