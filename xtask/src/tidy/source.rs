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
        self.tests_from == 0
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
            inline_tests(&lines).unwrap_or(lines.len())
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
    let rooms: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs");
        if rooms
            .iter()
            .any(|room| stem == room || stem.starts_with(&format!("{room}/")))
        {
            source.tests_from = 0;
        }
    }
    sources
}

/// Where `#[cfg(test)] mod … {` begins.
fn inline_tests(lines: &[String]) -> Option<usize> {
    (0..lines.len()).find(|i| {
        let item = lines.get(i + 1).map_or("", |l| l.trim());
        lines[*i].trim() == "#[cfg(test)]" && item.starts_with("mod ") && item.ends_with('{')
    })
}

/// The files, without `.rs`, that a source declares as `#[cfg(test)] mod NAME;`.
fn test_modules(source: &Source) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let stem = file.trim_end_matches(".rs");
    let base = match stem {
        "mod" | "lib" | "main" => folder.to_owned(),
        _ => format!("{folder}/{stem}"),
    };
    let declared = source.lines.windows(2).filter_map(|pair| {
        let item = pair[1].trim().trim_start_matches("pub(crate) ");
        let name = item.strip_prefix("mod ")?.strip_suffix(';')?;
        (pair[0].trim() == "#[cfg(test)]").then(|| format!("{base}/{name}"))
    });
    declared.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, tests_from: usize, rooms: &[&str]) {
        let source = Source::from_text("engine/a/src/b.rs", text);
        assert_eq!(
            (source.tests_from, test_modules(&source)),
            (tests_from, owned(rooms))
        );
    }

    fn owned(rooms: &[&str]) -> Vec<String> {
        rooms.iter().map(|room| (*room).to_owned()).collect()
    }

    #[test]
    fn tests_are_inline_or_in_files_of_their_own() {
        check("x();\n#[cfg(test)]\nmod tests {\n", 1, &[]);
        check(
            "#[cfg(test)]\nmod storm;\nx();\n",
            3,
            &["engine/a/src/b/storm"],
        );
    }
}
