//! A module in Python: componentize-py puts CPython and what `module.py` imports into a component.
//!
//! Called by: `build`.
//! Invariants: the tool's version is pinned; the component has no import but ours, so `random` gives the
//! same numbers each time and files, clocks and sockets are not there; dependencies are pure Python.
//! Refuses: a `pyproject.toml` without name, version and `tool.rustmq.sdk`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use model::ids::Digest;
use tokio::process::Command;
use toml::de::{DeTable, DeValue};

use super::kept::{Kept, content};
use super::run::{command, program, run};
use super::tools::Place;
use super::{BuildError, Described, Made, file, place, read, whole};

/// The tool, from PyPI.
const TOOL: &str = "componentize-py";
const TOOL_VERSION: &str = "0.25.1";
/// The Python inside it, which dependencies are chosen for.
const INSIDE: &str = "3.14";
pub(super) const NEEDS: &str = "Python 3.10 or newer with pip (python.org, or your distribution's python3 and \
                     python3-pip)";
const REGISTRY: &str = "PyPI with pip";
const SETTING: &str = "PIP_INDEX_URL";

/// What `pyproject.toml` says.
struct Manifest {
    name: String,
    version: String,
    dependencies: Vec<String>,
    /// The SDK's folder, below the module's.
    sdk: PathBuf,
}

pub(super) async fn build(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<Made, BuildError> {
    let given = dir;
    let dir = whole(dir)?;
    let manifest = manifest(&dir)?;
    let here = |name: &str| dir.join(name).is_file();
    if !here("module.py") && !here("module/__init__.py") {
        let path = dir.join("module.py");
        let why = "it is not there, and is what a module in Python begins with".to_owned();
        return Err(BuildError::Manifest { path, why });
    }
    let sdk = whole(&dir.join(&manifest.sdk))?;
    let tools = componentize(&dir, progress).await?;
    let packages = packages(&dir, &manifest.dependencies, progress).await?;
    let mut paths = vec![dir.clone(), sdk.clone()];
    paths.extend(packages);
    let wit = sdk.join("../../wit");
    let described = describe(&dir, &sdk, &paths, progress).await?;
    let kept = kept(place(given, &manifest.name), &[&dir, &sdk, &wit])?;
    if let Some(there) = kept.as_ref().filter(|kept| kept.is_there()) {
        return Ok(Made::Kept(there.path().to_owned()));
    }
    progress(&format!(
        "building {} with {TOOL} {TOOL_VERSION}",
        dir.display()
    ));
    let work = tempfile::tempdir().map_err(|error| file("make a folder beside", &dir, error))?;
    let component = work.path().join("component.wasm");
    let mut building = python(&dir, std::slice::from_ref(&tools));
    building
        .args(["-c", "from componentize_py import script; script()", "-d"])
        .arg(&wit)
        .args(["-w", described.world(), "componentize", "component"])
        .args(["--stub-wasi", "-o"])
        .arg(&component);
    for path in &paths {
        building.arg("-p").arg(path);
    }
    let ran = run(building, NEEDS, progress).await?;
    ran.succeeded(TOOL, &dir)?;
    let bytes = read(&component)?;
    Ok(described.built(manifest.name, manifest.version, bytes, kept))
}

/// What the component is made of: nothing else can be imported when it is made.
fn kept(component: PathBuf, roots: &[&Path]) -> Result<Option<Kept>, BuildError> {
    let content = content(roots).map_err(|error| file("read", roots[0], error))?;
    let made_of = |content| format!("{TOOL} {TOOL_VERSION} {content}");
    Ok(content.map(|content| Kept::new(component, made_of(content))))
}

fn manifest(dir: &Path) -> Result<Manifest, BuildError> {
    let path = dir.join("pyproject.toml");
    let text = String::from_utf8_lossy(&read(&path)?).into_owned();
    let wrong = |why: String| BuildError::Manifest {
        path: path.clone(),
        why,
    };
    let table = DeTable::parse(&text).map_err(|error| wrong(error.to_string()))?;
    let wanted = |keys: &[&str]| {
        let found = at(table.get_ref(), keys).and_then(DeValue::as_str);
        let missing = || wrong(format!("it has no text `{}`", keys.join(".")));
        found.map(str::to_owned).ok_or_else(missing)
    };
    let listed = at(table.get_ref(), &["project", "dependencies"]).and_then(DeValue::as_array);
    let listed = listed.into_iter().flatten();
    Ok(Manifest {
        name: wanted(&["project", "name"])?,
        version: wanted(&["project", "version"])?,
        dependencies: listed
            .filter_map(|entry| entry.get_ref().as_str().map(str::to_owned))
            .collect(),
        sdk: wanted(&["tool", "rustmq", "sdk"])?.into(),
    })
}

/// The value at the end of a path of keys.
fn at<'a, 'i>(table: &'a DeTable<'i>, keys: &[&str]) -> Option<&'a DeValue<'i>> {
    let (first, rest) = keys.split_first()?;
    let value = table.get(*first)?.get_ref();
    match rest {
        [] => Some(value),
        rest => at(value.as_table()?, rest),
    }
}

/// Python in the module's folder, with these folders to import from and no traces of its own.
fn python(dir: &Path, paths: &[PathBuf]) -> Command {
    let mut command = command(&program("PYTHON", "python3"), dir);
    let joined = std::env::join_paths(paths).unwrap_or_else(|_| OsString::new());
    command
        .env("PYTHONPATH", joined)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONNOUSERSITE", "1")
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .env("RUST_BACKTRACE", "0")
        .env_remove("VIRTUAL_ENV");
    command
}

/// Runs `module.py` natively: what it says of itself, and its errors with their own lines.
async fn describe(
    dir: &Path,
    sdk: &Path,
    paths: &[PathBuf],
    progress: &mut dyn FnMut(&str),
) -> Result<Described, BuildError> {
    let mut asking = python(dir, paths);
    asking.arg(sdk.join("describe.py"));
    let ran = run(asking, NEEDS, progress).await?;
    let ran = ran.succeeded("python3", dir)?;
    Described::read(&ran.answer, "describe.py", "python3", dir)
}

/// The folder with the tool.
async fn componentize(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, BuildError> {
    let place = Place::shared(dir, &format!("{TOOL}-{TOOL_VERSION}"));
    let what = format!("{TOOL} {TOOL_VERSION}");
    install(
        dir,
        &place,
        &what,
        &[format!("{TOOL}=={TOOL_VERSION}")],
        &[],
        progress,
    )
    .await?;
    Ok(place.path)
}

/// The folder with what the module depends on, if it does.
async fn packages(
    dir: &Path,
    dependencies: &[String],
    progress: &mut dyn FnMut(&str),
) -> Result<Option<PathBuf>, BuildError> {
    if dependencies.is_empty() {
        return Ok(None);
    }
    let digest = Digest::of(dependencies.join("\n").as_bytes()).hex();
    let place = Place::own(dir, &format!("packages-{}", &digest[..16]));
    // wheels of machine code would not run in the sandbox
    let pure = [
        "--only-binary",
        ":all:",
        "--platform",
        "any",
        "--implementation",
        "py",
    ];
    let pure: Vec<&str> = pure
        .into_iter()
        .chain(["--abi", "none", "--python-version", INSIDE])
        .collect();
    let what = format!("{} as pure Python", dependencies.join(", "));
    install(dir, &place, &what, dependencies, &pure, progress).await?;
    Ok(Some(place.path))
}

async fn install(
    dir: &Path,
    place: &Place,
    what: &str,
    wanted: &[String],
    options: &[&str],
    progress: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    if place.is_there() {
        return Ok(());
    }
    progress(&format!("installing {what} into {}", place.path.display()));
    let draft = place.begin()?;
    let mut installing = python(dir, &[]);
    installing
        .args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--quiet",
        ])
        .args(["--no-compile", "--target"])
        .arg(draft)
        .args(options)
        .args(wanted)
        .env_remove("PYTHONPATH");
    let ran = run(installing, NEEDS, progress).await?;
    if !ran.status.success() {
        place.give_up();
        return Err(BuildError::Tools {
            what: what.into(),
            output: ran.said,
            registry: REGISTRY,
            setting: SETTING,
        });
    }
    place.end()
}
