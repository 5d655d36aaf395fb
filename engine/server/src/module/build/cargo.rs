//! A module in Rust: cargo builds it.
//!
//! Called by: `build`.
//! Invariants: cargo does the building, in the target folder that its configuration says (the
//! module's own, if nothing does); a missing target is added through rustup.
//! Refuses: crates without a `cdylib`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::run::{self, program, run};
use super::{BuildError, Built, Made, read};

/// What a guest is compiled for: no operating system, so no imports but ours.
pub const TARGET: &str = "wasm32-unknown-unknown";

pub(super) const NEEDS: &str = "Rust from https://rustup.rs";

pub(super) async fn build(
    dir: &Path,
    target_dir: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<Made, BuildError> {
    let manifest = super::whole(&dir.join("Cargo.toml"))?;
    need_target(dir, progress).await?;
    progress(&format!("building {} for {TARGET}", dir.display()));
    let (name, core) = cargo(dir, &manifest, target_dir, progress).await?;
    Ok(Made::New(Box::new(Built {
        name,
        bytes: read(&core)?,
        description: None,
        kept: None,
    })))
}

/// Sees to it that the target's standard library is there.
async fn need_target(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    let rustc = program("RUSTC", "rustc");
    let mut asked = command(&rustc, dir);
    asked.args(["--print", "target-libdir", "--target", TARGET]);
    let answer = asked
        .output()
        .await
        .map_err(|error| no_program(&rustc, error))?;
    let libdir = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    if answer.status.success() && has_std(Path::new(&libdir)) {
        return Ok(());
    }
    progress(&format!(
        "the Rust target {TARGET} is missing: rustup target add {TARGET}"
    ));
    let mut adding = command(&"rustup".into(), dir);
    adding.args(["target", "add", TARGET]);
    let added = match adding.output().await {
        Ok(added) => added,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BuildError::NoTarget {
                why: "there is no rustup here".into(),
            });
        }
        Err(error) => return Err(no_program(&"rustup".into(), error)),
    };
    if !added.status.success() {
        let said = String::from_utf8_lossy(&added.stderr).trim().to_owned();
        return Err(BuildError::NoTarget {
            why: format!("rustup says: {said}"),
        });
    }
    Ok(())
}

fn has_std(libdir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(libdir) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Runs cargo; returns the package's name and the file it built.
async fn cargo(
    dir: &Path,
    manifest: &Path,
    target_dir: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<(String, PathBuf), BuildError> {
    let mut building = command(&program("CARGO", "cargo"), dir);
    building
        .args(["build", "--release", "--target", TARGET, "--color", "never"])
        .args(["--message-format", "json-render-diagnostics"])
        .args([
            "--config",
            &format!("target.{TARGET}.rustflags={}", rustflags()),
        ])
        .arg("--manifest-path")
        .arg(manifest);
    if let Some(target_dir) = target_dir {
        let path = std::path::absolute(target_dir).unwrap_or_else(|_| target_dir.into());
        building.arg("--target-dir").arg(path);
    }
    let ran = run(building, NEEDS, progress).await?;
    if !ran.status.success() {
        return Err(BuildError::Failed {
            program: "cargo",
            dir: dir.into(),
            output: ran.said,
        });
    }
    built(&ran.answer, manifest).ok_or_else(|| BuildError::NoCdylib { dir: dir.into() })
}

/// Finds our own artifact among cargo's messages: the name and the `.wasm` file.
fn built(messages: &[u8], manifest: &Path) -> Option<(String, PathBuf)> {
    let manifest = manifest.to_str()?;
    for line in messages
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
    {
        let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else {
            continue;
        };
        if message["reason"] != "compiler-artifact" || message["manifest_path"] != manifest {
            continue;
        }
        let file = message["filenames"]
            .as_array()?
            .iter()
            .filter_map(|name| name.as_str())
            .find(|name| name.ends_with(".wasm"));
        if let Some(file) = file {
            let id = message["package_id"].as_str().unwrap_or_default();
            let name = package_name(id).unwrap_or_else(|| message["target"]["name"].to_string());
            return Some((name, file.into()));
        }
    }
    None
}

/// The name in a package id: `path+file:///work/tidy#0.1.0` or `…/dir#name@0.1.0`.
fn package_name(id: &str) -> Option<String> {
    let (place, rest) = id.rsplit_once('#')?;
    match rest.split_once('@') {
        Some((name, _)) => Some(name.to_owned()),
        None => Some(place.rsplit_once('/')?.1.to_owned()),
    }
}

/// SIMD is in every engine; paths of this machine do not belong into a module.
fn rustflags() -> String {
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .unwrap_or_default();
    let mut flags = vec!["-Ctarget-feature=+simd128".to_owned()];
    if !home.is_empty() {
        flags.push(format!("--remap-path-prefix={home}=cargo"));
    }
    serde_json::Value::from(flags).to_string()
}

/// A command in the module's folder, without the flags meant for another target.
pub(super) fn command(program: &OsString, dir: &Path) -> Command {
    let mut command = run::command(program, dir);
    for flag in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
    ] {
        command.env_remove(flag);
    }
    command
}

fn no_program(program: &OsString, error: io::Error) -> BuildError {
    BuildError::NoProgram {
        program: program.to_string_lossy().into_owned(),
        needs: NEEDS,
        error,
    }
}
