//! The arrows between crates: downward only, and each heavy library behind one door.
//!
//! Called by `tidy::run`. Reads manifests as text: a line under `[dependencies]` that names one
//! of our crates must name a lower layer. Tests may name anything.

use std::fs;
use std::path::Path;

use super::{Finding, finding};

/// Crate folders and their layers, as ARCHITECTURE.md draws them. A folder that is missing here
/// is a finding, so that no crate joins without a place on the map.
const LAYERS: [(&str, &str, u8); 17] = [
    ("engine/model", "model", 1),
    ("engine/codec", "codec", 2),
    ("engine/protocol", "protocol", 2),
    ("engine/storage", "storage", 3),
    ("engine/wasm", "wasm", 3),
    ("engine/expr", "expr", 3),
    ("engine/client", "client", 4),
    ("engine/metadata", "metadata", 4),
    ("engine/broker", "broker", 4),
    ("engine/sql", "sql", 4),
    ("pipelines", "pipelines", 4),
    ("connectors", "connectors", 4),
    ("engine/server", "server", 5),
    ("sdk-guest/macros", "rustmq-sdk-macros", 1),
    ("sdk-guest", "rustmq-sdk", 2),
    ("benches", "benches", 6),
    ("xtask", "xtask", 0),
];

/// Libraries that only the named folders may link.
const DOORS: [(&str, &[&str]); 9] = [
    ("wasmtime", &["engine/wasm"]),
    ("datafusion", &["engine/sql", "engine/expr"]),
    ("object_store", &["engine/storage"]),
    ("parquet", &["engine/storage", "benches"]),
    ("quinn", &["engine/server", "engine/client", "benches"]),
    ("reqwest", &["engine/server"]),
    ("axum", &["engine/server"]),
    ("clap", &["engine/server"]),
    ("anyhow", &["engine/server"]),
];

/// The folders that hold a manifest of the workspace.
pub fn crate_folders(root: &Path) -> Vec<String> {
    let mut folders: Vec<String> = ["pipelines", "connectors", "sdk-guest", "sdk-guest/macros"]
        .into_iter()
        .chain(["benches", "xtask"])
        .map(str::to_owned)
        .collect();
    if let Ok(entries) = fs::read_dir(root.join("engine")) {
        let names = entries
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned());
        folders.extend(names.map(|n| format!("engine/{n}")));
    }
    folders.retain(|f| root.join(f).join("Cargo.toml").exists());
    folders.sort();
    folders
}

/// Checks every manifest against the layers and the doors.
pub fn check(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in crate_folders(root) {
        let manifest = format!("{folder}/Cargo.toml");
        let text = fs::read_to_string(root.join(&manifest)).unwrap_or_default();
        findings.extend(check_manifest(&folder, &manifest, &text));
    }
    findings
}

fn check_manifest(folder: &str, manifest: &str, text: &str) -> Vec<Finding> {
    let Some(&(_, _, layer)) = LAYERS.iter().find(|(f, _, _)| *f == folder) else {
        let message = "this crate has no layer: add it to LAYERS in xtask and to ARCHITECTURE.md";
        return vec![finding(manifest, 1, message)];
    };
    let mut findings = Vec::new();
    for (line, name) in dependencies(text) {
        let ours = LAYERS.iter().find(|(_, n, _)| *n == name);
        if let Some((_, _, theirs)) = ours
            && *theirs >= layer
        {
            let message = format!("`{name}` is not below: siblings meet in a trait of model::port");
            findings.push(finding(manifest, line, message));
        }
        let door = DOORS.iter().find(|(library, _)| *library == name);
        if let Some((_, allowed)) = door
            && !allowed.contains(&folder)
        {
            let message = format!("only {} may link `{name}`", allowed.join(", "));
            findings.push(finding(manifest, line, message));
        }
    }
    findings
}

/// The names under `[dependencies]`, with their lines.
fn dependencies(text: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
            continue;
        }
        let name: String = line
            .chars()
            .take_while(|c| c.is_alphanumeric() || "-_".contains(*c))
            .collect();
        if inside && !name.is_empty() {
            names.push((index + 1, name));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(folder: &str, text: &str) -> Vec<usize> {
        check_manifest(folder, "Cargo.toml", text)
            .into_iter()
            .map(|f| f.line)
            .collect()
    }

    #[test]
    fn a_sibling_is_refused_and_a_lower_layer_is_not() {
        let text = "[dependencies]\nmodel.workspace = true\nsql.workspace = true\n";
        assert_eq!(check_text("engine/broker", text), [3]);
    }

    #[test]
    fn a_heavy_library_has_one_door() {
        assert_eq!(
            check_text("pipelines", "[dependencies]\nwasmtime = \"48\"\n"),
            [2]
        );
        assert!(check_text("engine/wasm", "[dependencies]\nwasmtime = \"48\"\n").is_empty());
    }

    #[test]
    fn tests_may_name_anything() {
        assert!(check_text("pipelines", "[dev-dependencies]\nbroker = \"1\"\n").is_empty());
    }
}
