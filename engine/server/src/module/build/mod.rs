//! `rustmq module build`: a folder with a module's source becomes a component.
//!
//! - `cargo` Rust, `python` and `js` the others, with tools that `tools` installs, unless what is there was
//!   made of the same, which `kept` knows; `run` a program whose lines are passed on; `native` runs a
//!   module's own tests
//!
//! Called by: `cli::module`, `cli::pipeline`, the demo, tests, benches.
//! Invariants: the language is told by the one manifest in the folder; what a program writes passes
//! through; the component is checked as the sandbox would before it is put in place.
//! Refuses: folders without a manifest or with two, components with other imports.

mod cargo;
mod js;
mod kept;
mod native;
mod python;
mod run;
mod tools;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wasm::{Description, Grants, Host, Kind};

use super::lang::Lang;
use super::new::is_name;
use kept::Kept;

pub use cargo::TARGET;
pub(super) use native::{Native, native_tests};

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(
        "{} holds no Cargo.toml, pyproject.toml or package.json; give a module's folder, or make \
         one with `rustmq module new`",
        .dir.display()
    )]
    NoManifest { dir: PathBuf },
    #[error(
        "{} holds {first} and {second}: a module is written in one language; move the other out",
        .dir.display()
    )]
    TwoManifests {
        dir: PathBuf,
        first: &'static str,
        second: &'static str,
    },
    #[error("{}: {why}", .path.display())]
    Manifest { path: PathBuf, why: String },
    #[error("cannot run {program}: {error}; install {needs}")]
    NoProgram {
        program: String,
        needs: &'static str,
        error: io::Error,
    },
    #[error(
        "the Rust target {TARGET} is missing and could not be added: {why}\n\
         add it with `rustup target add {TARGET}`; without rustup, install your distribution's \
         package for it (Debian and Ubuntu: libstd-rust-dev-wasm32, Fedora: \
         rust-std-static-{TARGET}) and build again"
    )]
    NoTarget { why: String },
    #[error(
        "cannot install {what}:\n{output}\n\
         it is fetched once, from {registry}; behind a proxy or without a network, set {setting} to \
         a mirror, or RUSTMQ_TOOLS to a folder where another machine has installed it"
    )]
    Tools {
        what: String,
        output: String,
        registry: &'static str,
        setting: &'static str,
    },
    #[error("{program} could not build {}:\n{output}", .dir.display())]
    Failed {
        program: &'static str,
        dir: PathBuf,
        output: String,
    },
    #[error("{program} could not build {}: {why}", .dir.display())]
    Answer {
        program: &'static str,
        dir: PathBuf,
        why: String,
    },
    #[error("{program} fails in {}:\n{output}", .dir.display())]
    Tests {
        program: &'static str,
        dir: PathBuf,
        output: String,
    },
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

impl BuildError {
    /// For somebody to whom `progress` has passed on what the program wrote.
    pub fn in_short(&self) -> String {
        match self {
            BuildError::Failed { program, dir, .. } => {
                format!(
                    "{program} could not build {}, as it says above",
                    dir.display()
                )
            }
            BuildError::Tests { program, dir, .. } => {
                format!("{program} fails in {}, as it says above", dir.display())
            }
            other => other.to_string(),
        }
    }
}

/// What comes of a module's source.
enum Made {
    New(Box<Built>),
    /// It is there already.
    Kept(PathBuf),
}

/// What a language's tools made.
struct Built {
    /// The module's name, as its manifest says.
    name: String,
    /// A component, or a core module that carries its component type.
    bytes: Vec<u8>,
    /// What it says of itself, where the language's tools cannot put it into the file.
    description: Option<Description>,
    /// What it was made of, where the tools do not make the same of the same.
    kept: Option<Kept>,
}

/// What a module in another language than Rust says of itself: its SDK's script prints it.
#[derive(Deserialize)]
struct Described {
    params: Option<serde_json::Value>,
    ports: Option<Vec<String>>,
    /// Whether it makes requests, where the tools must be told.
    #[serde(default)]
    http: bool,
    state_schema: Option<u32>,
    migrates: Option<Vec<u32>>,
    /// The digest of all its source, where a tool bundles it.
    #[serde(default)]
    bundle: String,
}

impl Described {
    /// Reads what `script` printed, run by `program`.
    fn read(
        answer: &[u8],
        script: &str,
        program: &'static str,
        dir: &Path,
    ) -> Result<Described, BuildError> {
        serde_json::from_slice(answer).map_err(|error| BuildError::Answer {
            program,
            dir: dir.into(),
            why: format!("{script} did not answer: {error}"),
        })
    }

    /// The smallest world that has all that it uses: tools that componentize import and export all of one.
    fn world(&self) -> &'static str {
        match (self.state_schema, &self.migrates, self.http) {
            (None, _, false) => "transform",
            (None, _, true) => "granted",
            (Some(_), None, false) => "stateful",
            (Some(_), None, true) => "stateful-granted",
            (Some(_), Some(_), false) => "migrating",
            (Some(_), Some(_), true) => "migrating-granted",
        }
    }

    fn built(self, name: String, version: String, bytes: Vec<u8>, kept: Option<Kept>) -> Made {
        let description = Description {
            name: name.clone(),
            version,
            params: self.params,
            ports: self.ports,
            state_schema: self.state_schema,
            migrates: self.migrates,
            module: None,
        };
        Made::New(Box::new(Built {
            name,
            bytes,
            description: Some(description),
            kept,
        }))
    }
}

/// Builds the module in `dir`; returns the path of the component, `dir/build/NAME.wasm`.
/// `progress` is told each step and each line that the tools write.
pub async fn build(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, BuildError> {
    run(dir, None, progress).await
}

/// As [`build`], with cargo's target folder elsewhere: modules that share one compile their
/// dependencies once. Their package names must differ. Other languages have no such folder.
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
    let made = match language(dir)? {
        Lang::Rust => cargo::build(dir, target_dir, progress).await?,
        Lang::Python => python::build(dir, progress).await?,
        Lang::Js => js::build(dir, progress).await?,
    };
    let built = match made {
        Made::New(built) => built,
        Made::Kept(path) => {
            progress(&format!("{} is made of the same already", path.display()));
            return Ok(path);
        }
    };
    if !is_name(&built.name) {
        let name = built.name;
        let why = format!("{name:?} cannot name a module: use small letters, digits, - and _");
        let path = dir.join(language(dir)?.manifest());
        return Err(BuildError::Manifest { path, why });
    }
    let mut component = component(built.bytes)?;
    if let Some(description) = built.description {
        description.append_to(&mut component);
        Host::check(&component, &Grants::http())?;
    }
    let path = place(dir, &built.name);
    put(&path, &component)?;
    if let Some(kept) = built.kept {
        kept.put(&component)?;
    }
    progress(&format!(
        "wrote {} ({} KiB)",
        path.display(),
        component.len().div_ceil(1024)
    ));
    Ok(path)
}

/// Where a module's component is.
fn place(dir: &Path, name: &str) -> PathBuf {
    dir.join("build").join(format!("{name}.wasm"))
}

/// What a module's folder is written in, told by its manifest.
pub fn language(dir: &Path) -> Result<Lang, BuildError> {
    let mut found = Lang::ALL
        .into_iter()
        .filter(|lang| dir.join(lang.manifest()).is_file());
    match (found.next(), found.next()) {
        (None, _) => {
            whole(dir)?;
            Err(BuildError::NoManifest { dir: dir.into() })
        }
        (Some(lang), None) => Ok(lang),
        (Some(first), Some(second)) => Err(BuildError::TwoManifests {
            dir: dir.into(),
            first: first.manifest(),
            second: second.manifest(),
        }),
    }
}

/// Makes a component of what was built, and asks the sandbox whether it would load it.
fn component(bytes: Vec<u8>) -> Result<Vec<u8>, BuildError> {
    let component = match Host::check(&bytes, &Grants::http())?.kind {
        Kind::Component => bytes,
        Kind::CoreWithType => wasm::check::encode(&bytes).map_err(wasm::LoadError::Inspect)?,
    };
    Ok(component)
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(|error| file("read", path, error))
}

fn file(doing: &'static str, path: &Path, error: io::Error) -> BuildError {
    BuildError::File {
        doing,
        path: path.into(),
        error,
    }
}

/// The folder with no `.` or links in its path: programs are run in other folders.
fn whole(dir: &Path) -> Result<PathBuf, BuildError> {
    fs::canonicalize(dir).map_err(|error| file("find", dir, error))
}

/// Writes beside and renames, so that nobody reads half a file.
fn put(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    let written = match path.parent() {
        Some(parent) => fs::create_dir_all(parent),
        None => Ok(()),
    };
    written
        .and_then(|()| fs::write(&beside, bytes))
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|error| file("write", path, error))
}
