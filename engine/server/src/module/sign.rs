//! `rustmq module keygen` and `module sign`: a publisher's key, and its signature in a module.
//!
//! Called by: `cli::module`.
//! Invariants: a secret key is written for its owner only, and never over another file; it is in no
//! message; a module is replaced when it is whole.
//! Refuses: files that are no key, keys that others may read, files that the sandbox would not load.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use wasm::{Host, InspectError, ModuleInfo, PublicKey, SigningKey};

/// What a secret key's file may be for others: nothing.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("{} exists already; a key is not written over another file", .path.display())]
    Exists { path: PathBuf },
    #[error("cannot {doing} {}: {error}", .path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error("{}: {why}", .path.display())]
    Key { path: PathBuf, why: String },
    #[error("{} can be read by others; `chmod 600` it, or make a new one", .path.display())]
    Open { path: PathBuf },
    #[error("{} is not a module: {error}", .path.display())]
    Module { path: PathBuf, error: InspectError },
    #[error("{} cannot be signed: {why}", .path.display())]
    Sign { path: PathBuf, why: String },
}

/// Writes a new secret key; returns its public one.
pub fn keygen(path: &Path) -> Result<PublicKey, SignError> {
    let key = SigningKey::generate().map_err(|why| SignError::Key {
        path: path.into(),
        why,
    })?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => SignError::Exists { path: path.into() },
        _ => failed("write", path, error),
    })?;
    file.write_all(key.secret().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| failed("write", path, error))?;
    Ok(key.public())
}

/// Signs a module in its place; returns what it is now. A key that signed it before changes nothing.
pub fn sign(path: &Path, key: &Path) -> Result<ModuleInfo, SignError> {
    let key = read_key(key)?;
    let mut bytes = fs::read(path).map_err(|error| failed("read", path, error))?;
    let inspect = |bytes: &[u8]| {
        Host::inspect(bytes).map_err(|error| SignError::Module {
            path: path.into(),
            error,
        })
    };
    let before = inspect(&bytes)?;
    if before.signers.contains(&key.public()) {
        return Ok(before);
    }
    key.sign(&mut bytes).map_err(|why| SignError::Sign {
        path: path.into(),
        why,
    })?;
    let after = inspect(&bytes)?;
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&beside, &bytes)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|error| failed("write", path, error))?;
    Ok(after)
}

fn read_key(path: &Path) -> Result<SigningKey, SignError> {
    let bytes = fs::read(path).map_err(|error| failed("read", path, error))?;
    // what is no key is said to be none, whatever it is and whoever may read it
    let key =
        SigningKey::parse(&String::from_utf8_lossy(&bytes)).map_err(|why| SignError::Key {
            path: path.into(),
            why,
        })?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let about = fs::metadata(path).map_err(|error| failed("read", path, error))?;
        if about.permissions().mode() & OTHERS != 0 {
            return Err(SignError::Open { path: path.into() });
        }
    }
    Ok(key)
}

fn failed(doing: &'static str, path: &Path, error: io::Error) -> SignError {
    SignError::File {
        doing,
        path: path.into(),
        error,
    }
}
