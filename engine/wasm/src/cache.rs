//! Compiled code between runs: one file a module, engine and configuration.
//!
//! Called by: `host`.
//! Invariants: a file is written beside its place and renamed; its head carries the SHA-256 of the
//! rest, so a torn or damaged file costs a compilation and nothing else; the folder is ours alone.
//! Refuses: a folder that others may write, because compiled code is trusted like a library.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use model::ids::Digest;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

const MAGIC: &[u8; 8] = b"RMQCODE1";
const HEAD_BYTES: usize = MAGIC.len() + 32;

pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub(crate) fn open(dir: &Path) -> io::Result<Cache> {
        fs::create_dir_all(dir)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
            if fs::metadata(dir)?.permissions().mode() & 0o022 != 0 {
                return Err(io::Error::other("others may write to the folder"));
            }
        }
        Ok(Cache {
            dir: dir.to_owned(),
        })
    }

    pub(crate) fn get(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let path = self.path(engine, digest);
        let bytes = fs::read(&path).ok()?;
        let code = intact(&bytes)?;
        // SAFETY: the code is what an engine of this version and configuration (both in the file's
        // name, and checked again by wasmtime) serialized: the folder has mode 0700 and is written
        // by `put` alone, and the hash in the head excludes damage. Whoever can forge both can
        // write into this process's memory anyway, being the same user.
        match unsafe { Component::deserialize(engine, code) } {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::debug!(%error, "compiled code is of another engine, compiling again");
                None
            }
        }
    }

    /// Keeps compiled code; a failure costs a later compilation and is only logged.
    pub(crate) fn put(&self, engine: &Engine, digest: Digest, component: &Component) {
        let written = component
            .serialize()
            .map_err(|e| io::Error::other(e.to_string()))
            .and_then(|code| self.write(&self.path(engine, digest), &code));
        if let Err(error) = written {
            tracing::warn!(%error, dir = %self.dir.display(), "compiled code was not kept");
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        static SERIAL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let beside = self
            .dir
            .join(format!(".{}-{serial}.part", std::process::id()));
        let mut file = fs::File::create(&beside)?;
        let result = file
            .write_all(MAGIC)
            .and_then(|()| file.write_all(&Sha256::digest(code)))
            .and_then(|()| file.write_all(code))
            .and_then(|()| fs::rename(&beside, path));
        if result.is_err() {
            // what matters is the first error
            let _ = fs::remove_file(&beside);
        }
        result
    }

    pub(crate) fn path(&self, engine: &Engine, digest: Digest) -> PathBuf {
        let mut hash = Hashing(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hash);
        let engine = hash.finish();
        self.dir
            .join(format!("{}-{engine:016x}.code", hex(&digest.0)))
    }
}

fn intact(bytes: &[u8]) -> Option<&[u8]> {
    let (head, code) = bytes.split_at_checked(HEAD_BYTES)?;
    let hash = head.strip_prefix(MAGIC)?;
    (Sha256::digest(code).as_slice() == hash).then_some(code)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 as a `Hasher`: the same on every run and machine, unlike the standard one.
struct Hashing(Sha256);

impl Hasher for Hashing {
    fn finish(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0.clone().finalize()[..8]);
        u64::from_be_bytes(first)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}
