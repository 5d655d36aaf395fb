//! Documents: a room card at the head of each file, every crate on the map, one title a page.
//!
//! Called by `tidy::run`.

use std::fs;
use std::path::Path;

use super::source::Source;
use super::{Finding, finding};

/// Each file opens by saying what it is.
pub fn heads(sources: &[Source]) -> Vec<Finding> {
    let without = |s: &&Source| !s.lines.first().is_some_and(|l| l.starts_with("//!"));
    let message = "begin the file with a //! head: what it is, who calls it, invariants, refusals";
    sources
        .iter()
        .filter(without)
        .map(|s| finding(&s.path, 1, message))
        .collect()
}

/// A crate that the map does not name is a room without a door.
pub fn architecture_names_every_crate(root: &Path) -> Vec<Finding> {
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    let mut findings = Vec::new();
    for folder in super::arrows::crate_folders(root) {
        if !map.contains(&format!("`{folder}`")) && !map.contains(&format!("`{folder}/")) {
            let message = format!("name `{folder}` and say what it is for");
            findings.push(finding("ARCHITECTURE.md", 1, message));
        }
    }
    findings
}

/// The pages at the top and under docs/ have exactly one first-level title.
pub fn one_title_each(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in [root.to_path_buf(), root.join("docs"), root.join("docs/adr")] {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.flatten().map(|e| e.path()) {
            if path.extension().is_none_or(|e| e != "md") {
                continue;
            }
            let titles = titles(&fs::read_to_string(&path).unwrap_or_default());
            if titles != 1 {
                let name = path
                    .strip_prefix(root)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                findings.push(finding(
                    &name,
                    1,
                    format!("one `# ` title a page, found {titles}"),
                ));
            }
        }
    }
    findings
}

fn titles(text: &str) -> usize {
    let mut in_code = false;
    let mut titles = 0;
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        titles += usize::from(!in_code && line.starts_with("# "));
    }
    titles
}
