//! The state folder: where a server on this machine says how to reach it.
//!
//! What: `ServerState`, the contents of `$XDG_STATE_HOME/rustmq/server.json`, and its path.
//! Called by: `config` (reads), the server's `door::state_dir` (writes and removes).
//! Invariants: no key is ever in it; the file is replaced as a whole, never changed in place.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::error::ConnectError;

pub const FILE_NAME: &str = "server.json";
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerState {
    pub pid: u32,
    /// Address of the native door, QUIC and TCP.
    pub quic: String,
    /// Address of the HTTP door.
    pub http: String,
    pub certificate_path: PathBuf,
    pub certificate_pem: String,
    pub data_dir: PathBuf,
}

/// `$XDG_STATE_HOME/rustmq`, else `~/.local/state/rustmq`.
pub fn state_dir() -> PathBuf {
    state_dir_from(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"))
}

fn state_dir_from(state_home: Option<OsString>, home: Option<OsString>) -> PathBuf {
    // The XDG specification: a relative path is invalid and ignored.
    let absolute = |path: &PathBuf| path.is_absolute();
    let base = state_home
        .map(PathBuf::from)
        .filter(absolute)
        .unwrap_or_else(|| {
            home.map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
                .join(".local/state")
        });
    base.join("rustmq")
}

impl ServerState {
    /// What the folder says, when the server it names is alive.
    pub fn read(dir: &Path) -> Result<ServerState, ConnectError> {
        let path = dir.join(FILE_NAME);
        let broken = |reason: String| ConnectError::StateFile {
            path: path.clone(),
            reason,
        };
        let text = match fs::metadata(&path).and_then(|meta| {
            if meta.len() > FILE_BYTES_MAX {
                return Err(io::Error::other("larger than 1 MiB"));
            }
            fs::read_to_string(&path)
        }) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ConnectError::NoServer { path });
            }
            Err(error) => return Err(broken(error.to_string())),
        };
        let state: ServerState = serde_json::from_str(&text)
            .map_err(|error| broken(format!("{error}; remove it and start the server again")))?;
        if !is_alive(state.pid) {
            return Err(ConnectError::Stale {
                path,
                pid: state.pid,
            });
        }
        Ok(state)
    }
}

/// Whether a process with this id exists.
pub fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    // Another user's process answers with "not permitted": it exists.
    !matches!(
        rustix::process::test_kill_process(pid),
        Err(rustix::io::Errno::SRCH)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(state_home: Option<&str>, home: Option<&str>, expected: &str) {
        let dir = state_dir_from(state_home.map(Into::into), home.map(Into::into));
        assert_eq!(dir, Path::new(expected));
    }

    #[test]
    fn folder_follows_the_xdg_specification() {
        check(Some("/s"), Some("/h"), "/s/rustmq");
        check(Some("relative"), Some("/h"), "/h/.local/state/rustmq");
        check(Some(""), Some("/h"), "/h/.local/state/rustmq");
        check(None, Some("/h"), "/h/.local/state/rustmq");
    }

    #[test]
    fn missing_broken_and_stale_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let read = || ServerState::read(dir.path());
        assert!(matches!(read(), Err(ConnectError::NoServer { .. })));
        fs::write(dir.path().join(FILE_NAME), "{").unwrap();
        assert!(matches!(read(), Err(ConnectError::StateFile { .. })));
        let mut state = ServerState {
            pid: i32::MAX as u32,
            quic: "127.0.0.1:1".into(),
            http: "127.0.0.1:2".into(),
            certificate_path: "/x/cert.pem".into(),
            certificate_pem: String::new(),
            data_dir: "/x".into(),
        };
        fs::write(
            dir.path().join(FILE_NAME),
            serde_json::to_string(&state).unwrap(),
        )
        .unwrap();
        let stale = read().unwrap_err().to_string();
        assert!(stale.starts_with("no server is running (stale "), "{stale}");
        state.pid = std::process::id();
        fs::write(
            dir.path().join(FILE_NAME),
            serde_json::to_string(&state).unwrap(),
        )
        .unwrap();
        assert_eq!(read().unwrap(), state);
    }
}
