//! The rules of the house as one list of checks over one walk of the tree.
//!
//! Called by `cargo xtask tidy` and the test of the same name. Every check takes the files
//! that were read once and returns findings; a finding names file, line, rule and the mend.
//! Budgets are ratchets: what stands in `xtask/allow.txt` may shrink and must not grow.

mod arrows;
mod budgets;
mod docs;
mod source;
mod words;

use std::fmt;
use std::path::Path;

/// One breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub file: String,
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// What a run saw.
#[derive(Debug)]
pub struct Report {
    pub files: usize,
    pub lines_median: usize,
    pub lines_p95: usize,
    pub findings: Vec<Finding>,
}

/// Runs every check over the checkout at `root`.
pub fn run(root: &Path) -> Report {
    let sources = source::read_all(root);
    let allow = budgets::Allow::read(root);
    let mut findings = Vec::new();
    findings.extend(docs::heads(&sources));
    findings.extend(docs::architecture_names_every_crate(root));
    findings.extend(docs::one_title_each(root));
    findings.extend(arrows::check(root));
    findings.extend(words::check(&sources));
    findings.extend(budgets::check(&sources, &allow));
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let (lines_median, lines_p95) = budgets::spread(&sources);
    Report {
        files: sources.len(),
        lines_median,
        lines_p95,
        findings,
    }
}

fn finding(file: &str, line: usize, message: impl Into<String>) -> Finding {
    Finding {
        file: file.to_owned(),
        line,
        message: message.into(),
    }
}
