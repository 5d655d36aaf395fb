//! Telling local clients where this server is.
//!
//! What: writes `server.json` into the user's state folder, removes it on a clean stop.
//! Called by: `node`, before `ready` is printed and when it stops.
//! Invariants: the file is replaced as a whole; only the server that wrote it removes it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use client::state::{FILE_NAME, ServerState};

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write {path}: {error}; local clients find the server there, XDG_STATE_HOME moves it"
)]
pub struct StateError {
    pub path: PathBuf,
    pub error: io::Error,
}

/// Our entry in the state folder; removed by `remove` or when dropped.
pub struct Announced {
    path: PathBuf,
    state: ServerState,
}

impl Announced {
    /// Writes `state` into `dir` (usually `client::state::state_dir()`).
    pub fn write(dir: &Path, state: ServerState) -> Result<Announced, StateError> {
        let path = dir.join(FILE_NAME);
        let failed = |error| StateError {
            path: path.clone(),
            error,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        let text = serde_json::to_vec_pretty(&state).expect("paths and strings are JSON");
        super::tls::write(&path, &text, 0o600).map_err(failed)?;
        Ok(Announced { path, state })
    }

    /// Takes the entry away, unless another server has put its own there since.
    pub fn remove(self) {
        drop(self);
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let ours = fs::read(&self.path)
            .ok()
            .and_then(|text| serde_json::from_slice::<ServerState>(&text).ok())
            .is_some_and(|found| found == self.state);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove");
        }
    }
}
