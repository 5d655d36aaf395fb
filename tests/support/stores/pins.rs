//! Which servers the tests of real object stores are run against, and where they are kept.
//!
//! Called by: `cargo xtask stores`, which builds them, and the tests, which start them; both
//! through `#[path]`. Invariants: a server of another version is another file, so a moved pin is
//! built anew. Refuses: nothing.

use std::path::PathBuf;

/// A server that `go install` makes.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    /// What it stands in for, as messages say it.
    pub what: &'static str,
    /// The file that `go install` makes.
    pub program: &'static str,
    pub package: &'static str,
    pub version: &'static str,
}

/// S3: conditional put, multipart, ranges, list version 2; files in a folder.
pub const S3: Pin = Pin {
    what: "S3",
    program: "versitygw",
    package: "github.com/versity/versitygw/cmd/versitygw",
    version: "v1.8.0",
};

/// GCS: the JSON interface and reading by XML; objects in memory or a folder.
pub const GCS: Pin = Pin {
    what: "GCS",
    program: "fake-gcs-server",
    package: "github.com/fsouza/fake-gcs-server",
    version: "v1.56.1",
};

impl Pin {
    pub fn path(&self) -> PathBuf {
        folder().join(format!("{}-{}", self.program, self.version))
    }
}

/// `RUSTMQ_TEST_BIN`, else a folder of the user's cache.
pub fn folder() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = set("RUSTMQ_TEST_BIN") {
        return folder.into();
    }
    let home = || PathBuf::from(set("HOME").unwrap_or_default()).join(".cache");
    let cache = set("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    cache.join("rustmq-ci").join("bin")
}
