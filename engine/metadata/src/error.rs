//! Errors of the catalog's handle.
//!
//! Called by: this crate. Invariants: a message names file and position and says what to do.
//! Refuses: nothing.

use std::path::{Path, PathBuf};

use model::CatalogError;

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
}

impl OpenError {
    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> OpenError {
        OpenError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// Why a command did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Nothing changed; it may be tried again.
    #[error("the catalog's disk is full: free space, then try again")]
    DiskFull,
    /// Whether this command is durable is unknown; no later one is taken.
    #[error("the catalog stopped: {reason}; restart the broker")]
    Stopped { reason: String },
}
