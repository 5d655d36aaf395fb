//! `rustmq module new`: a folder that builds, tests and explains itself.
//!
//! Called by: `cli::module`, tests.
//! Invariants: an existing path is never written into; a failure takes back what it wrote; in the
//! templates, NAME stands for the module's name.
//! Refuses: names that are no package names in every language.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::lang::Lang;
use super::sdk::sdk_files;

const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum NewError {
    #[error(
        "{name:?} cannot name a module: use small letters, digits, - and _, beginning with a \
         letter, {NAME_BYTES_MAX} at most"
    )]
    Name { name: String },
    #[error("{} exists already; take another name, or remove it", .path.display())]
    Exists { path: PathBuf },
    #[error("cannot write {}: {error}", .path.display())]
    Write { path: PathBuf, error: io::Error },
}

/// Writes a new module into the folder `parent/name` and returns that folder.
pub fn new(parent: &Path, name: &str, lang: Lang) -> Result<PathBuf, NewError> {
    if !is_name(name) {
        return Err(NewError::Name { name: name.into() });
    }
    let dir = parent.join(name);
    if fs::symlink_metadata(&dir).is_ok() {
        return Err(NewError::Exists { path: dir });
    }
    write_all(&dir, name, lang).inspect_err(|_| {
        // what could be written of it is of no use
        let _ = fs::remove_dir_all(&dir);
    })?;
    Ok(dir)
}

/// Whether it can name a module: a package in each language, and a file.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    begins && name.len() <= NAME_BYTES_MAX && name.bytes().all(fits)
}

fn write_all(dir: &Path, name: &str, lang: Lang) -> Result<(), NewError> {
    let write = |path: PathBuf, bytes: &[u8]| {
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|error| NewError::Write { path, error })
    };
    let templates: &[(&str, &str)] = match lang {
        Lang::Rust => &RUST,
        Lang::Python => &PYTHON,
        Lang::Js => &JS,
    };
    for (path, text) in templates {
        write(dir.join(path), text.replace("NAME", name).as_bytes())?;
    }
    for (path, bytes) in sdk_files(lang) {
        write(dir.join(".rustmq").join(path), bytes)?;
    }
    Ok(())
}

const RUST: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("template/rust/Cargo.toml.in")),
    ("src/lib.rs", include_str!("template/rust/lib.rs.in")),
    ("README.md", include_str!("template/rust/README.md")),
    (".gitignore", "/target\n/build\n"),
];

const PYTHON: [(&str, &str); 6] = [
    (
        "pyproject.toml",
        include_str!("template/python/pyproject.toml"),
    ),
    ("module.py", include_str!("template/python/module.py")),
    (
        "tests/__init__.py",
        include_str!("template/python/tests/__init__.py"),
    ),
    (
        "tests/test_module.py",
        include_str!("template/python/tests/test_module.py"),
    ),
    ("README.md", include_str!("template/python/README.md")),
    (".gitignore", "/build\n/.rustmq/tools\n__pycache__/\n"),
];

const JS: [(&str, &str); 5] = [
    ("package.json", include_str!("template/js/package.json")),
    ("module.js", include_str!("template/js/module.js")),
    (
        "test/module.test.js",
        include_str!("template/js/test/module.test.js"),
    ),
    ("README.md", include_str!("template/js/README.md")),
    (".gitignore", "/build\n/.rustmq/tools\n/node_modules\n"),
];
