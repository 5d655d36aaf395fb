//! `cargo xtask tidy`: the house rules, checked as text. `cargo xtask stores`: the servers that
//! tests of real object stores need.
//!
//! Called by people and `.ci/run`; `cargo test` runs the rules through `tests/tidy.rs`.
//! Refuses any other word. Names no crate of ours, so that it builds in a second.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["tidy"] => tidy(),
        ["stores"] => stores(),
        _ => {
            eprintln!("usage: cargo xtask tidy | stores");
            ExitCode::from(2)
        }
    }
}

fn tidy() -> ExitCode {
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

fn stores() -> ExitCode {
    match xtask::stores::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
