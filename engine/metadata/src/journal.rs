//! The files of the catalog: `catalog.journal`, one frame a command, and `catalog.snapshot`.
//!
//! Called by: the handle, from threads that may block. Invariants: a frame is synced before the
//! next is written, so damage with a whole frame behind it is corruption and other damage is a
//! torn tail; indices follow each other; a snapshot is whole and durable before the journal it
//! replaces goes.
//! Refuses: corruption; anything after a failed sync.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use model::{Catalog, Command};

use crate::error::{OpenError, ProposeError};
use crate::frame;

const JOURNAL: &str = "catalog.journal";
const SNAPSHOT: &str = "catalog.snapshot";

pub(crate) struct Journal {
    dir: PathBuf,
    file: File,
    bytes: u64,
    failure: Option<String>,
}

impl Journal {
    /// Reads snapshot and journal; makes them if they are not there.
    pub(crate) fn open(dir: &Path) -> Result<(Journal, Catalog), OpenError> {
        create_dir(dir).map_err(|error| OpenError::io("create", dir, error))?;
        let mut catalog = read_snapshot(&dir.join(SNAPSHOT))?;
        let path = dir.join(JOURNAL);
        if !path.exists() {
            replace(&path, &[]).map_err(|error| OpenError::io("create", &path, error))?;
        }
        let bytes = std::fs::read(&path).map_err(|error| OpenError::io("read", &path, error))?;
        let end = replay(&path, &bytes, &mut catalog)?;
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(|error| OpenError::io("open", &path, error))?;
        let settle = |file: &File| -> io::Result<()> {
            if end < bytes.len() {
                tracing::warn!(path = %path.display(), at = end, "a torn tail was cut");
                file.set_len(end as u64)?;
            }
            // What was read may never have reached the disk if the process before saw a sync
            // fail: written again, it is what is built on.
            file.write_all_at(&bytes[..end], 0)?;
            file.sync_all()
        };
        settle(&file).map_err(|error| OpenError::io("repair", &path, error))?;
        let dir = dir.to_owned();
        Ok((
            Journal {
                dir,
                file,
                bytes: end as u64,
                failure: None,
            },
            catalog,
        ))
    }

    /// Whether it still takes commands.
    pub(crate) fn check(&self) -> Result<(), ProposeError> {
        match &self.failure {
            None => Ok(()),
            Some(reason) => Err(ProposeError::Stopped {
                reason: reason.clone(),
            }),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    #[cfg(test)]
    pub(crate) fn file_replace(&mut self, file: File) {
        self.file = file;
    }

    /// Makes a command durable. Without room on the disk nothing changes; any other failure is
    /// final.
    pub(crate) fn append(&mut self, index: u64, command: &Command) -> Result<(), ProposeError> {
        let json = serde_json::to_vec(command).map_err(|error| self.stop(&error))?;
        let frame = frame::encode(index, &json);
        if let Err(error) = self.file.write_all_at(&frame, self.bytes) {
            let is_full = error.kind() == io::ErrorKind::StorageFull;
            if is_full && self.file.set_len(self.bytes).is_ok() {
                return Err(ProposeError::DiskFull);
            }
            return Err(self.stop(&error));
        }
        self.file.sync_data().map_err(|error| self.stop(&error))?;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    fn stop(&mut self, error: &dyn std::error::Error) -> ProposeError {
        let reason = format!("{}: {error}", self.dir.join(JOURNAL).display());
        tracing::error!(%reason, "the catalog's journal failed");
        self.failure = Some(reason.clone());
        ProposeError::Stopped { reason }
    }

    /// Writes the whole catalog as snapshot, then begins the journal anew.
    pub(crate) fn replace_by_snapshot(&mut self, catalog: &Catalog) -> io::Result<()> {
        let json = serde_json::to_vec(catalog).map_err(io::Error::other)?;
        replace(
            &self.dir.join(SNAPSHOT),
            &frame::encode(catalog.version(), &json),
        )?;
        let path = self.dir.join(JOURNAL);
        replace(&path, &[])?;
        // From here the old file is gone: without the new one nothing may be appended.
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => {
                self.file = file;
                self.bytes = 0;
                Ok(())
            }
            Err(error) => {
                self.stop(&error);
                Err(error)
            }
        }
    }
}

fn read_snapshot(path: &Path) -> Result<Catalog, OpenError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Catalog::new()),
        Err(error) => return Err(OpenError::io("read", path, error)),
    };
    let corrupt = |reason: String| OpenError::Corrupt {
        path: path.to_owned(),
        position: 0,
        reason,
    };
    let frame = frame::decode(&bytes).filter(|frame| frame.len == bytes.len());
    let frame =
        frame.ok_or_else(|| corrupt("the snapshot's checksum does not match".to_owned()))?;
    let catalog: Catalog =
        serde_json::from_slice(frame.payload).map_err(|error| corrupt(error.to_string()))?;
    if catalog.version() != frame.index {
        return Err(corrupt(format!("it says version {}", frame.index)));
    }
    Ok(catalog)
}

/// Applies the journal's commands; answers where its valid part ends.
fn replay(path: &Path, bytes: &[u8], catalog: &mut Catalog) -> Result<usize, OpenError> {
    let mut at = 0;
    let corrupt = |at: usize, reason: String| OpenError::Corrupt {
        path: path.to_owned(),
        position: at as u64,
        reason,
    };
    while let Some(frame) = frame::decode(&bytes[at..]) {
        // A crash between snapshot and new journal leaves commands the snapshot has.
        if frame.index > catalog.version() {
            if frame.index != catalog.version() + 1 {
                let wanted = catalog.version() + 1;
                return Err(corrupt(
                    at,
                    format!("command {} where {wanted} is due", frame.index),
                ));
            }
            let command: Command = serde_json::from_slice(frame.payload)
                .map_err(|error| corrupt(at, error.to_string()))?;
            catalog
                .apply(&command)
                .map_err(|error| corrupt(at, error.to_string()))?;
            if catalog.version() != frame.index {
                return Err(corrupt(
                    at,
                    format!("command {} changes nothing", frame.index),
                ));
            }
        }
        at += frame.len;
    }
    match frame::find(&bytes[at..]) {
        None => Ok(at),
        Some(ahead) => {
            let reason = format!("a command is damaged; the next whole one is {ahead} bytes on");
            Err(corrupt(at, reason))
        }
    }
}

/// Puts a whole file in place, durably: temporary name, sync, rename, sync of the folder.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes the folder and all above it, durably.
fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    create_dir(parent)?;
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(parent)?.sync_all(),
    }
}
