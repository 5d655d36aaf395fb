//! What a component was made of, so that the same source stays the same module.
//!
//! Called by: `python`, `js`. Their tools run the language and keep its memory, which is different each time:
//! without this, each `pipeline apply` of an untouched folder would swap the module.
//! Invariants: what was built is only taken again while the file is as it was written then.
//! Refuses to know a folder with links: what is behind them may change unseen. Such a module is built anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::ids::Digest;
use serde::{Deserialize, Serialize};

use super::{BuildError, put};

/// A component, and what it was made of.
pub(super) struct Kept {
    path: PathBuf,
    made_of: String,
}

#[derive(Serialize, Deserialize)]
struct Note {
    made_of: String,
    component: Digest,
}

impl Kept {
    /// Of a module's component, which is or will be at `path`.
    pub(super) fn new(path: PathBuf, made_of: String) -> Kept {
        Kept { path, made_of }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there, made of the same.
    pub(super) fn is_there(&self) -> bool {
        let there = || {
            let note: Note = serde_json::from_slice(&fs::read(self.note()).ok()?).ok()?;
            let same = note.made_of == self.made_of;
            Some(same && Digest::of(&fs::read(&self.path).ok()?) == note.component)
        };
        there().unwrap_or(false)
    }

    /// Notes what was written.
    pub(super) fn put(&self, component: &[u8]) -> Result<(), BuildError> {
        let note = Note {
            made_of: self.made_of.clone(),
            component: Digest::of(component),
        };
        // text and a digest are always written
        put(&self.note(), &serde_json::to_vec(&note).unwrap_or_default())
    }

    fn note(&self) -> PathBuf {
        self.path.with_extension("made-of.json")
    }
}

/// The digest of these files and folders, names and content; `None` where there is a link in them.
pub(super) fn content(roots: &[&Path]) -> io::Result<Option<Digest>> {
    let mut text = String::new();
    for root in roots {
        if !listed(root, Path::new(""), &mut text)? {
            return Ok(None);
        }
    }
    Ok(Some(Digest::of(text.as_bytes())))
}

/// Lists what is under `root/below`, in order of its names.
fn listed(root: &Path, below: &Path, text: &mut String) -> io::Result<bool> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(below))? {
        names.push(entry?.file_name());
    }
    names.sort();
    for name in names {
        let below = below.join(name);
        if is_left_out(&below) {
            continue;
        }
        let path = root.join(&below);
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_symlink() {
            return Ok(false);
        }
        if kind.is_dir() {
            if !listed(root, &below, text)? {
                return Ok(false);
            }
            continue;
        }
        let digest = Digest::of(&fs::read(&path)?).hex();
        text.push_str(&format!("{digest} {}\n", below.display()));
    }
    Ok(true)
}

/// What tools leave behind, and what has no part in a module.
fn is_left_out(below: &Path) -> bool {
    if below.starts_with(".rustmq/tools") {
        // what a module depends on is in a folder of its own there
        let name = below.iter().nth(2).and_then(|name| name.to_str());
        return name.is_some_and(|name| !name.starts_with("packages-"));
    }
    let name = below.file_name().and_then(|name| name.to_str());
    let name = name.unwrap_or_default();
    below == Path::new("build")
        || matches!(name, "__pycache__" | "node_modules")
        || name.starts_with('.') && name != ".rustmq"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_known_while_neither_it_nor_its_source_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let made_of = || content(&[dir.path()]).unwrap().unwrap().hex();
        file("module.py", "a");
        file(".rustmq/sdk-guest/sdk.py", "b");
        file(".rustmq/tools/packages-1/p.py", "c");
        let path = dir.path().join("build/m.wasm");
        let kept = Kept::new(path.clone(), made_of());
        assert!(!kept.is_there());
        put(&path, b"component").unwrap();
        kept.put(b"component").unwrap();
        assert!(kept.is_there());

        file(".rustmq/tools/componentize/t.py", "no part of it");
        file("__pycache__/module.pyc", "nor this");
        file(".git/HEAD", "nor this");
        assert!(Kept::new(path.clone(), made_of()).is_there());
        for name in [
            "module.py",
            ".rustmq/sdk-guest/sdk.py",
            ".rustmq/tools/packages-1/p.py",
            "new.py",
        ] {
            let before = made_of();
            file(name, "other");
            assert_ne!(made_of(), before, "{name}");
        }
        put(&path, b"signed").unwrap();
        assert!(!kept.is_there());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_behind_a_link_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        assert_eq!(content(&[dir.path()]).unwrap(), None);
    }
}
