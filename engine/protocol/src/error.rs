//! What goes wrong on the wire, and what a refused caller is told.
//!
//! What: `WireError` travels to the peer (code, message, advice, diagnostics); `DecodeError`
//! says where a body stopped making sense.
//! Called by: every message family, doors, client.
//! Invariants: each wire error says what to do about it. A body is never half accepted.

use model::diagnostic::Diagnostic;
use model::port::{Advice, LogError};
use serde::{Deserialize, Serialize};

use crate::code;

/// A refusal as it crosses the wire (JSON).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// One of [`crate::code`]; a newer server may send others.
    pub code: String,
    pub message: String,
    pub advice: Advice,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

impl WireError {
    pub fn new(advice: Advice, code: &str, message: impl Into<String>) -> WireError {
        let (code, message) = (code.to_owned(), message.into());
        WireError {
            code,
            message,
            advice,
            diagnostics: Vec::new(),
        }
    }

    /// The same request may succeed later.
    pub fn retry(code: &str, message: impl Into<String>) -> WireError {
        WireError::new(Advice::Retry, code, message)
    }

    /// The caller must change the request.
    pub fn fix(code: &str, message: impl Into<String>) -> WireError {
        WireError::new(Advice::Fix, code, message)
    }

    /// Someone newer has taken over; the caller must stop.
    pub fn fenced(code: &str, message: impl Into<String>) -> WireError {
        WireError::new(Advice::Fenced, code, message)
    }

    /// Our own mistake.
    pub fn bug(message: impl Into<String>) -> WireError {
        WireError::new(Advice::Bug, code::INTERNAL, message)
    }

    pub fn with(mut self, diagnostics: Vec<Diagnostic>) -> WireError {
        self.diagnostics = diagnostics;
        self
    }
}

impl From<LogError> for WireError {
    fn from(error: LogError) -> WireError {
        WireError::new(error.advice(), error.code(), error.to_string())
    }
}

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("{what} needs {need} bytes at offset {at} of the body, {have} are left")]
    Short {
        what: &'static str,
        at: usize,
        need: usize,
        have: usize,
    },
    #[error("{what} ends at offset {at} of the body, but {left} bytes follow")]
    LeftOver {
        what: &'static str,
        at: usize,
        left: usize,
    },
    #[error("{what} is {value}, at most {max} is allowed")]
    TooMany {
        what: &'static str,
        value: u64,
        max: u64,
    },
    #[error("{what} at offset {at} of the body is {value}, which means nothing")]
    Unknown {
        what: &'static str,
        at: usize,
        value: u64,
    },
    #[error("call {0} is not known to this version")]
    UnknownCall(u16),
    #[error("batch {index} at offset {at} of the body: {reason}")]
    Batch {
        index: usize,
        at: usize,
        reason: String,
    },
    #[error("{what} is not the JSON it should be: {reason}")]
    Json { what: &'static str, reason: String },
}

impl From<DecodeError> for WireError {
    fn from(error: DecodeError) -> WireError {
        WireError::fix(code::BAD_REQUEST, error.to_string())
    }
}
