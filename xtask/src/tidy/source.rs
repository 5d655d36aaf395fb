//! The Rust files of the checkout, read once and split into product and test lines.
//!
//! Called by `tidy::run`. Skips what is built, generated or a copy of something else.

use std::fs;
use std::path::Path;

/// Folders that hold no source of ours.
const SKIPPED: [&str; 6] = [
    "target",
    ".git",
    ".rustmq",
    "build",
    "node_modules",
    "corpus",
];

/// One Rust file.
#[derive(Debug)]
pub struct Source {
    /// Path from the root of the checkout, with `/`.
    pub path: String,
    pub lines: Vec<String>,
    /// Lines from here on (0-based) are tests; all of them in a file that is only tests.
    pub tests_from: usize,
}

impl Source {
    /// Whether the whole file is test, benchmark or example code.
    pub fn is_test_file(&self) -> bool {
        is_test_path(&self.path)
    }

    /// Lines that ship.
    pub fn product(&self) -> &[String] {
        &self.lines[..self.tests_from]
    }

    /// Builds a source from text, as if it stood at `path`.
    pub fn from_text(path: &str, text: &str) -> Source {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let tests_from = if is_test_path(path) {
            0
        } else {
            lines
                .iter()
                .position(|l| l.trim() == "#[cfg(test)]")
                .unwrap_or(lines.len())
        };
        Source {
            path: path.to_owned(),
            lines,
            tests_from,
        }
    }
}

/// Every Rust file below `root`, in the order of its path.
pub fn read_all(root: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    walk(root, root, &mut sources);
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn walk(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                walk(root, &path, sources);
            }
            continue;
        }
        if !name.ends_with(".rs") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let relative = path.strip_prefix(root).unwrap_or(&path);
        let relative = relative.to_string_lossy().replace('\\', "/");
        sources.push(Source::from_text(&relative, &text));
    }
}

fn is_test_path(path: &str) -> bool {
    let is_dir = |d: &str| path.starts_with(&format!("{d}/")) || path.contains(&format!("/{d}/"));
    is_dir("tests") || is_dir("benches") || is_dir("fuzz") || path.ends_with("/tests.rs")
}
