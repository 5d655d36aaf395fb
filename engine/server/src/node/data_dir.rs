//! The data directory of a node: made, proven writable, locked, and stamped with who it is.
//!
//! Called by: `node::Node::start`. Calls: rustix for `flock`.
//! Invariants: at most one process has the directory at a time (`flock` on `LOCK`, so a crash
//! leaves no stale lock); node id, cluster id and format version are written once, synced and
//! renamed into place; identity is made before anything else is written.
//! Refuses: a directory that another process holds (says which), that cannot be written, that is
//! full, or that a newer format wrote.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// The format of the directory as a whole; rooms have versions of their own.
///
/// 2: the catalog is in a replicated log (`meta/raft`). A rustmq that knows format 1 only would
/// find no catalog and begin an empty one, so it must not open the directory any more.
pub const FORMAT_VERSION: u32 = 2;

/// Who a node is, in `meta/node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub node_id: String,
    pub cluster_id: String,
    pub format_version: u32,
}

/// A directory held by this process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    pub path: PathBuf,
    pub identity: Identity,
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("the data directory {path} is in use by {holder}; stop it, or give another --data-dir")]
    InUse { path: PathBuf, holder: String },
    #[error("cannot write to the data directory {path}: {why}; {advice}")]
    Unwritable {
        path: PathBuf,
        why: std::io::Error,
        advice: &'static str,
    },
    #[error("cannot read {path}: {why}; restore it from a copy, or start with another --data-dir")]
    Identity { path: PathBuf, why: String },
    #[error(
        "the data directory {path} was written by a newer rustmq (format {found}, this one knows \
         {FORMAT_VERSION}); use that version"
    )]
    Newer { path: PathBuf, found: u32 },
}

impl DataDir {
    /// Makes the directory if it is not there and takes it for this process.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let unwritable = |why| DataDirError::Unwritable {
            path: path.to_path_buf(),
            advice: advice(&why),
            why,
        };
        fs::create_dir_all(path.join("meta")).map_err(unwritable)?;
        let path = path.canonicalize().map_err(unwritable)?;
        let lock = lock(&path)?;
        let identity = identity(&path)?;
        Ok(DataDir {
            path,
            identity,
            _lock: lock,
        })
    }
}

fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "check its owner, or give another --data-dir",
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "the disk is full: free some space, or give another --data-dir"
        }
        std::io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only: give another --data-dir"
        }
        std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists => {
            "a file is in the way: give another --data-dir"
        }
        _ => "give another --data-dir",
    }
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let unwritable = |why| DataDirError::Unwritable {
        path: dir.to_path_buf(),
        advice: advice(&why),
        why,
    };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(dir.join("LOCK"))
        .map_err(unwritable)?;
    if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(unwritable(error.into()));
        }
        let mut pid = String::new();
        let read = Read::by_ref(&mut file).take(32).read_to_string(&mut pid);
        let holder = match (read, pid.trim()) {
            (Ok(_), pid) if !pid.is_empty() => format!("process {pid}"),
            _ => "another process".to_string(),
        };
        return Err(DataDirError::InUse {
            path: dir.to_path_buf(),
            holder,
        });
    }
    file.set_len(0).map_err(unwritable)?;
    file.rewind().map_err(unwritable)?;
    // written and synced: this is also the proof that the disk takes bytes
    writeln!(file, "{}", std::process::id()).map_err(unwritable)?;
    file.sync_all().map_err(unwritable)?;
    Ok(file)
}

fn identity(dir: &Path) -> Result<Identity, DataDirError> {
    let path = dir.join("meta").join("node.json");
    let wrong = |why: String| DataDirError::Identity {
        path: path.clone(),
        why,
    };
    let unwritable = |why| DataDirError::Unwritable {
        path: dir.to_path_buf(),
        advice: advice(&why),
        why,
    };
    match fs::read(&path) {
        Ok(bytes) => {
            let found: Identity = serde_json::from_slice(&bytes)
                .map_err(|error| wrong(format!("it is not what was written ({error})")))?;
            if found.format_version > FORMAT_VERSION {
                let found = found.format_version;
                return Err(DataDirError::Newer {
                    path: dir.to_path_buf(),
                    found,
                });
            }
            if found.format_version == FORMAT_VERSION {
                return Ok(found);
            }
            let raised = Identity {
                format_version: FORMAT_VERSION,
                ..found
            };
            write_synced(&path, &raised).map_err(unwritable)?;
            Ok(raised)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let fresh = Identity {
                node_id: random_id().map_err(|why| wrong(why.to_string()))?,
                cluster_id: random_id().map_err(|why| wrong(why.to_string()))?,
                format_version: FORMAT_VERSION,
            };
            write_synced(&path, &fresh).map_err(unwritable)?;
            Ok(fresh)
        }
        Err(error) => Err(wrong(error.to_string())),
    }
}

fn write_synced(path: &Path, identity: &Identity) -> std::io::Result<()> {
    let next = path.with_extension("json.new");
    let mut file = File::create(&next)?;
    serde_json::to_writer_pretty(&mut file, identity)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    let parent = path.parent().expect("the path was made by joining");
    File::open(parent)?.sync_all()
}

/// 128 random bits as hex.
fn random_id() -> std::io::Result<String> {
    let mut bits = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bits)?;
    Ok(bits.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_stays_and_the_lock_is_exclusive() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let identity = first.identity.clone();
        assert_eq!(identity.node_id.len(), 32);
        assert_ne!(identity.node_id, identity.cluster_id);
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("in use by process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        assert_eq!(DataDir::open(dir.path()).unwrap().identity, identity);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataDir::open(&file).unwrap_err().to_string();
        assert!(error.contains("a file is in the way"), "{error}");

        let newer = dir.path().join("newer");
        drop(DataDir::open(&newer).unwrap());
        let path = newer.join("meta/node.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(
            &path,
            text.replace("\"format_version\": 2", "\"format_version\": 3"),
        )
        .unwrap();
        let error = DataDir::open(&newer).unwrap_err().to_string();
        assert!(
            error.contains("written by a newer rustmq (format 3"),
            "{error}"
        );
        let older = text.replace("\"format_version\": 2", "\"format_version\": 1");
        fs::write(&path, older).unwrap();
        drop(DataDir::open(&newer).unwrap());
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text,
            "who knows format 1 only is kept out from now on"
        );

        fs::write(&path, "{").unwrap();
        let error = DataDir::open(&newer).unwrap_err().to_string();
        assert!(
            error.contains("node.json: it is not what was written"),
            "{error}"
        );
    }
}
