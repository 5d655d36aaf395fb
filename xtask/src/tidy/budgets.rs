//! How long a file and a function may be.
//!
//! Called by `tidy::run`. A file has at most 700 lines, the 95th percentile of product files at
//! most 450, a function at most 70 (a test 100), a line at most 110 columns. What is over stands in
//! `xtask/allow.txt` with its present length: when it shrinks the entry must shrink too, and an
//! entry that is no longer needed must go.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::source::Source;
use super::{Finding, finding};

const FILE_LINES_MAX: usize = 700;
const FILE_LINES_P95_MAX: usize = 450;
const FUNCTION_LINES_MAX: usize = 70;
/// A test reads from top to bottom, and tables of cases are long.
const TEST_LINES_MAX: usize = 100;
const COLUMNS_MAX: usize = 110;

/// Entries of `xtask/allow.txt`: `path` or `path::function`, then the allowed length.
#[derive(Debug, Default)]
pub struct Allow {
    entries: BTreeMap<String, usize>,
}

impl Allow {
    pub fn read(root: &Path) -> Allow {
        Allow::parse(&fs::read_to_string(root.join("xtask/allow.txt")).unwrap_or_default())
    }

    fn parse(text: &str) -> Allow {
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        let entries = lines.filter_map(|l| {
            let (name, length) = l.rsplit_once(' ')?;
            Some((name.trim().to_owned(), length.parse().ok()?))
        });
        Allow {
            entries: entries.collect(),
        }
    }
}

/// Lines of product files: median and 95th percentile.
pub fn spread(sources: &[Source]) -> (usize, usize) {
    let mut lengths: Vec<usize> = sources
        .iter()
        .filter(|s| !s.is_test_file())
        .map(|s| s.product().len())
        .collect();
    lengths.sort_unstable();
    if lengths.is_empty() {
        return (0, 0);
    }
    let at = |percent: usize| lengths[(lengths.len() - 1) * percent / 100];
    (at(50), at(95))
}

/// Checks files, functions and columns against their budgets.
pub fn check(sources: &[Source], allow: &Allow) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut over = BTreeMap::new();
    for source in sources {
        if source.lines.len() > FILE_LINES_MAX {
            over.insert(source.path.clone(), (1, source.lines.len(), FILE_LINES_MAX));
        }
        for function in functions(source) {
            let is_test = function.line > source.tests_from;
            let max = if is_test {
                TEST_LINES_MAX
            } else {
                FUNCTION_LINES_MAX
            };
            if function.length > max {
                let name = format!("{}::{}", source.path, function.name);
                over.insert(name, (function.line, function.length, max));
            }
        }
        findings.extend(long_lines(source));
    }
    let (_, p95) = spread(sources);
    if p95 > FILE_LINES_P95_MAX {
        let message = format!("95th percentile of files is {p95} lines, at most 450: split some");
        findings.push(finding("engine", 1, message));
    }
    findings.extend(compare(&over, allow));
    findings
}

fn compare(over: &BTreeMap<String, (usize, usize, usize)>, allow: &Allow) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, (line, length, max)) in over {
        let file = name.split("::").next().unwrap_or(name);
        match allow.entries.get(name) {
            Some(allowed) if allowed == length => {}
            Some(allowed) if allowed > length => {
                let message = format!("{name} shrank to {length}: lower its entry in allow.txt");
                findings.push(finding(file, *line, message));
            }
            _ => {
                let message = format!("{name} has {length} lines, at most {max}: split it");
                findings.push(finding(file, *line, message));
            }
        }
    }
    for name in allow.entries.keys().filter(|n| !over.contains_key(*n)) {
        let message = format!("{name} is within its budget now: remove the entry");
        findings.push(finding("xtask/allow.txt", 1, message));
    }
    findings
}

fn long_lines(source: &Source) -> Vec<Finding> {
    let long = |l: &String| l.chars().count() > COLUMNS_MAX && !l.contains("http");
    let lines = source.lines.iter().enumerate().filter(|(_, l)| long(l));
    lines
        .map(|(i, _)| finding(&source.path, i + 1, format!("over {COLUMNS_MAX} columns")))
        .collect()
}

struct Function {
    name: String,
    line: usize,
    length: usize,
}

/// Functions by their layout: rustfmt closes a body with `}` at the indent of its `fn`.
fn functions(source: &Source) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, line) in source.lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let close = format!("{}}}", " ".repeat(indent));
        let rest = &source.lines[start..];
        let Some(length) = rest.iter().position(|l| *l == close) else {
            continue;
        };
        let declared_only = rest[..length].iter().any(|l| {
            l.ends_with(';') && l.len() - l.trim_start().len() == indent && !l.contains('{')
        });
        if !declared_only {
            found.push(Function {
                name,
                line: start + 1,
                length: length + 1,
            });
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.trim_start();
    for prefix in [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "const ",
        "async ",
        "unsafe ",
    ] {
        words = words.strip_prefix(prefix).unwrap_or(words);
    }
    let rest = words.strip_prefix("fn ")?;
    Some(
        rest.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str, allow: &str) -> Vec<String> {
        let sources = [Source::from_text("a/src/b.rs", text)];
        let findings = check(&sources, &Allow::parse(allow));
        findings.into_iter().map(|f| f.message).collect()
    }

    fn function_of(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    x();\n".repeat(lines - 2))
    }

    #[test]
    fn a_long_function_is_found() {
        assert!(check_text(&function_of(70), "").is_empty());
        let expected = "a/src/b.rs::long has 71 lines, at most 70: split it";
        assert_eq!(check_text(&function_of(71), ""), [expected]);
    }

    #[test]
    fn the_allow_list_only_shrinks() {
        assert!(check_text(&function_of(80), "a/src/b.rs::long 80").is_empty());
        assert_eq!(check_text(&function_of(81), "a/src/b.rs::long 80").len(), 1);
        assert_eq!(check_text(&function_of(79), "a/src/b.rs::long 80").len(), 1);
        assert_eq!(check_text(&function_of(10), "a/src/b.rs::long 80").len(), 1);
    }
}
