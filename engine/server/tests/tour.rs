//! Runs every command of the README's five-minute tour, in order, as a new user would type them.
//!
//! The tour stands in README.md as `console` blocks: a line that begins with `$ ` is a command, the
//! lines after it are its here-document. The test makes one shell script of them, with the ports free
//! and the state folder fresh, and checks what the last commands print.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");

#[test]
fn the_five_minute_tour_works_as_written() {
    let readme = fs::read_to_string(README).unwrap();
    let commands = commands(&readme);
    assert!(
        commands.len() >= 12,
        "found only {} commands in the tour",
        commands.len()
    );
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &script(&commands));
    let after = |marker: &str| {
        let start = output
            .find(marker)
            .unwrap_or_else(|| panic!("no {marker:?} in:\n{output}"));
        let rest = &output[start + marker.len()..];
        rest[..rest.find("\n$ ").unwrap_or(rest.len())].to_owned()
    };
    let consumed = after("$ rustmq consume orders --format raw");
    assert_eq!(consumed.trim().lines().count(), 3, "{consumed}");
    assert!(consumed.contains("not json"), "{consumed}");
    assert!(after("$ rustmq consume paid").contains("12.5"), "{output}");
    let bad = after("$ rustmq consume bad");
    assert!(
        bad.contains("negative") && bad.contains("-5 cents"),
        "{bad}"
    );
    let sums = after("$ rustmq sql");
    assert!(
        sums.contains("customer,euros") && sums.contains("ann,12.5"),
        "{sums}"
    );
}

/// The commands of all `console` blocks.
fn commands(readme: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            commands.push(command.to_owned());
        } else if let (true, Some(last)) = (inside, commands.last_mut()) {
            write!(last, "\n{line}").unwrap();
        }
    }
    commands
}

/// One script: stops at the first failure, echoes each command, ends the server at its end.
fn script(commands: &[String]) -> String {
    let mut script = String::from("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n");
    for command in commands {
        let first = command.lines().next().unwrap_or_default();
        writeln!(script, "printf '%s\\n' {}", quoted(&format!("$ {first}"))).unwrap();
        match command.strip_suffix('&') {
            Some(server) => {
                writeln!(script, "{server} > serve.out 2> serve.err &").unwrap();
                let ready = "grep -q '^ready' serve.out";
                let alive = "kill -0 $! 2>/dev/null || { cat serve.err; exit 1; }";
                writeln!(script, "until {ready}; do {alive}; sleep 0.05; done").unwrap();
            }
            None => writeln!(script, "{command}").unwrap(),
        }
    }
    script
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Runs the script with the built binary first on the path; `timeout` bounds it.
fn run(folder: &Path, script: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_rustmq"));
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new("timeout")
        .args(["600", "bash", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("XDG_DATA_HOME", folder.join("share"))
        .env("RUSTMQ_LISTEN", "127.0.0.1:0")
        .env("RUSTMQ_HTTP", "127.0.0.1:0")
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}
