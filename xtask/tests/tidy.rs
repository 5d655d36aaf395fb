//! Runs `cargo xtask tidy` as a test, so that plain `cargo test` is the gate.

use std::path::Path;

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let report = xtask::tidy::run(&root);
    let lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} findings:\n{}",
        lines.len(),
        lines.join("\n")
    );
    assert!(
        report.files > 50,
        "the walk saw only {} files",
        report.files
    );
}
