//! `cargo xtask tidy`: the house rules, checked as text.
//!
//! Called by people and `.ci/run`; `cargo test` runs the same checks through `tests/tidy.rs`.
//! Refuses any other word. Names no crate of ours, so that it builds in a second.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.len() != 1 || words[0] != "tidy" {
        eprintln!("usage: cargo xtask tidy");
        return ExitCode::from(2);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let report = xtask::tidy::run(&root);
    for finding in &report.findings {
        eprintln!("{finding}");
    }
    println!(
        "tidy: {} files, {} findings; median file {} lines, 95th percentile {}",
        report.files,
        report.findings.len(),
        report.lines_median,
        report.lines_p95
    );
    ExitCode::from(u8::from(!report.findings.is_empty()))
}
