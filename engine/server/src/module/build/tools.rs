//! The tools of a language, installed once from its registry.
//!
//! Called by: `python`, `js`.
//! Invariants: they lie in the module's `.rustmq/tools`, or in `RUSTMQ_TOOLS` for modules that share
//! them; a folder appears under its name only when it is whole; its name says what is in it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{BuildError, file};

/// A folder to be filled, and the place it gets when it is.
pub(super) struct Place {
    pub(super) path: PathBuf,
    draft: PathBuf,
}

impl Place {
    /// Of tools that modules may share.
    pub(super) fn shared(dir: &Path, name: &str) -> Place {
        match std::env::var_os("RUSTMQ_TOOLS") {
            Some(folder) => Place::in_folder(Path::new(&folder), name),
            None => Place::own(dir, name),
        }
    }

    /// Of what belongs to this module.
    pub(super) fn own(dir: &Path, name: &str) -> Place {
        Place::in_folder(&dir.join(".rustmq/tools"), name)
    }

    fn in_folder(folder: &Path, name: &str) -> Place {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
        Place {
            path: folder.join(name),
            draft: folder.join(format!(".{name}-{}", std::process::id())),
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.path.is_dir()
    }

    /// An empty folder to fill.
    pub(super) fn begin(&self) -> Result<&Path, BuildError> {
        // what another process with this number left behind
        let _ = fs::remove_dir_all(&self.draft);
        fs::create_dir_all(&self.draft).map_err(|error| file("make", &self.draft, error))?;
        Ok(&self.draft)
    }

    /// It is whole.
    pub(super) fn end(&self) -> Result<(), BuildError> {
        match fs::rename(&self.draft, &self.path) {
            Ok(()) => Ok(()),
            // somebody else was quicker, with the same
            Err(_) if self.is_there() => {
                let _ = fs::remove_dir_all(&self.draft);
                Ok(())
            }
            Err(error) => Err(file("make", &self.path, error)),
        }
    }

    /// It will not be.
    pub(super) fn give_up(&self) {
        // what could not be installed is of no use
        let _ = fs::remove_dir_all(&self.draft);
    }
}
