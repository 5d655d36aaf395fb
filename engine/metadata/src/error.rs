//! Why the catalog did not open.
//!
//! Called by: this crate. Invariants: a message names file and position and says what to do.
//! Refuses: nothing. Why a command was not taken is `model::port::ProposeError`.

use std::path::{Path, PathBuf};

/// Why the catalog did not open. Nothing was changed but a torn tail cut off.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {what} {path}: {source}; check that the folder exists and is writable")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "the catalog is damaged: {path} at byte {position}: {reason}; nothing was cut: restore \
         this file from a copy"
    )]
    Corrupt {
        path: PathBuf,
        position: u64,
        reason: String,
    },
    #[error("it does not start: {reason}; check the disk, then start again")]
    Start { reason: String },
}

impl OpenError {
    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> OpenError {
        OpenError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn start(reason: String) -> OpenError {
        OpenError::Start { reason }
    }
}
