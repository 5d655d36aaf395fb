//! `rustmq module build`: a folder with a Rust crate becomes a component.
//!
//! Called by: `cli::module`, `cli::pipeline`, the demo, tests, benches.
//! Invariants: cargo does the building, in the target folder that its configuration says (the
//! module's own, if nothing does); its messages pass through; a missing target is added through
//! rustup; the component is checked as the sandbox would before it is put in place.
//! Refuses: folders that are no crate, crates without a `cdylib`, components with other imports.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use wasm::{Grants, Host, Kind};

/// What a guest is compiled for: no operating system, so no imports but ours.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Lines of cargo's output that are kept for an error.
const LINES_MAX: usize = 400;
/// Bytes of cargo's message stream that are read.
const MESSAGES_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(
        "{} holds no Cargo.toml; give a module's folder, or make one with `rustmq module new`",
        .dir.display()
    )]
    NoCrate { dir: PathBuf },
    #[error("cannot run {program}: {error}; install Rust from https://rustup.rs")]
    NoProgram { program: String, error: io::Error },
    #[error(
        "the Rust target {TARGET} is missing and could not be added: {why}\n\
         add it with `rustup target add {TARGET}`; without rustup, install your distribution's \
         package for it (Debian and Ubuntu: libstd-rust-dev-wasm32, Fedora: \
         rust-std-static-{TARGET}) and build again"
    )]
    NoTarget { why: String },
    #[error("cargo could not build {}:\n{output}", .dir.display())]
    Cargo { dir: PathBuf, output: String },
    #[error(
        "{} builds no `cdylib`; put `crate-type = [\"cdylib\"]` under `[lib]` in its Cargo.toml",
        .dir.display()
    )]
    NoCdylib { dir: PathBuf },
    #[error("what was built is not a module: {0}")]
    Refused(#[from] wasm::LoadError),
    #[error("cannot {doing} {}: {error}", .path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
}

/// Builds the module in `dir`; returns the path of the component, `dir/build/NAME.wasm`.
/// `progress` is told each step and each line that cargo writes.
pub async fn build(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, BuildError> {
    run(dir, None, progress).await
}

/// As [`build`], with cargo's target folder elsewhere: modules that share one compile their
/// dependencies once. Their package names must differ.
pub async fn build_into(
    dir: &Path,
    target_dir: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    run(dir, Some(target_dir), progress).await
}

async fn run(
    dir: &Path,
    target_dir: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    let manifest = dir.join("Cargo.toml");
    let manifest =
        fs::canonicalize(&manifest).map_err(|_| BuildError::NoCrate { dir: dir.into() })?;
    need_target(dir, progress).await?;
    progress(&format!("building {} for {TARGET}", dir.display()));
    let (package, core) = cargo(dir, &manifest, target_dir, progress).await?;
    let bytes = read(&core)?;
    let component = component(bytes)?;
    let path = dir.join("build").join(format!("{package}.wasm"));
    put(&path, &component)?;
    progress(&format!(
        "wrote {} ({} KiB)",
        path.display(),
        component.len().div_ceil(1024)
    ));
    Ok(path)
}

/// Makes a component of what cargo built, and asks the sandbox whether it would load it.
fn component(bytes: Vec<u8>) -> Result<Vec<u8>, BuildError> {
    let component = match Host::check(&bytes, &Grants::default())?.kind {
        Kind::Component => bytes,
        Kind::CoreWithType => wasm::check::encode(&bytes).map_err(wasm::LoadError::Inspect)?,
    };
    Ok(component)
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
    let cargo = program("CARGO", "cargo");
    let mut building = command(&cargo, dir);
    building
        .args(["build", "--release", "--target", TARGET, "--color", "never"])
        .args(["--message-format", "json-render-diagnostics"])
        .args([
            "--config",
            &format!("target.{TARGET}.rustflags={}", rustflags()),
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(target_dir) = target_dir {
        let path = std::path::absolute(target_dir).unwrap_or_else(|_| target_dir.into());
        building.arg("--target-dir").arg(path);
    }
    let mut child = building
        .spawn()
        .map_err(|error| no_program(&cargo, error))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let messages = async {
        let mut text = Vec::new();
        if let Some(stdout) = stdout {
            stdout
                .take(MESSAGES_BYTES_MAX)
                .read_to_end(&mut text)
                .await?;
        }
        io::Result::Ok(text)
    };
    let lines = async {
        let mut kept = VecDeque::new();
        if let Some(stderr) = stderr {
            let mut lines = BufReader::new(stderr).lines();
            while let Some(line) = lines.next_line().await? {
                progress(&line);
                if kept.len() == LINES_MAX {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        }
        io::Result::Ok(kept)
    };
    let (messages, kept, status) = tokio::join!(messages, lines, child.wait());
    let failed = |error| no_program(&cargo, error);
    let (messages, kept) = (messages.map_err(failed)?, kept.map_err(failed)?);
    if !status.map_err(failed)?.success() {
        let output = Vec::from(kept).join("\n");
        return Err(BuildError::Cargo {
            dir: dir.into(),
            output,
        });
    }
    built(&messages, manifest).ok_or_else(|| BuildError::NoCdylib { dir: dir.into() })
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

fn program(variable: &str, default: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| default.into())
}

/// A command in the module's folder, without the flags meant for another target.
fn command(program: &OsString, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .stdin(Stdio::null())
        .kill_on_drop(true);
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
        error,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(|error| BuildError::File {
        doing: "read",
        path: path.into(),
        error,
    })
}

/// Writes beside and renames, so that nobody reads half a component.
fn put(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    let written = match path.parent() {
        Some(parent) => fs::create_dir_all(parent),
        None => Ok(()),
    };
    written
        .and_then(|()| fs::write(&beside, bytes))
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|error| BuildError::File {
            doing: "write",
            path: path.into(),
            error,
        })
}
