//! A module in JavaScript: rolldown bundles it, componentize-js puts SpiderMonkey around it.
//!
//! Called by: `build`.
//! Invariants: the tools' versions are pinned by a lock file with the digests of all they depend on, and
//! none of their install scripts is run; the component has no import but ours.
//! Refuses: a `package.json` without name, version, `main` and `rustmq.sdk`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::ids::Digest;
use serde::Deserialize;

use super::kept::{Kept, content};
use super::run::{command, program, run};
use super::tools::Place;
use super::{BuildError, Described, Made, file, place, put, read, whole};

/// What the tools' folder is made of.
const PACKAGE: &[u8] = include_bytes!("../../../../../sdk-guest/js/tools/package.json");
const LOCK: &[u8] = include_bytes!("../../../../../sdk-guest/js/tools/package-lock.json");
/// The script that uses the tools, which lies beside them.
const SCRIPT: &[u8] = include_bytes!("../../../../../sdk-guest/js/tools/build.mjs");

const TOOL: &str = "componentize-js";
const WHAT: &str = "componentize-js 0.23.0 and rolldown";
pub(super) const NEEDS: &str =
    "Node.js 20 or newer with npm (nodejs.org, or your distribution's nodejs and npm)";
const REGISTRY: &str = "the npm registry";
const SETTING: &str = "npm_config_registry";

#[derive(Deserialize)]
struct Manifest {
    name: String,
    version: String,
    main: PathBuf,
    rustmq: Rustmq,
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Rustmq {
    /// The SDK's folder, below the module's.
    sdk: PathBuf,
}

pub(super) async fn build(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<Made, BuildError> {
    let given = dir;
    let dir = whole(dir)?;
    let manifest = manifest(&dir)?;
    let main = dir.join(&manifest.main);
    if !main.is_file() {
        let why = format!("`main` is {}, which is not there", manifest.main.display());
        let path = dir.join("package.json");
        return Err(BuildError::Manifest { path, why });
    }
    let sdk = whole(&dir.join(&manifest.rustmq.sdk))?;
    let tools = tools(&dir, progress).await?;
    if !manifest.dependencies.is_empty() && !dir.join("node_modules").is_dir() {
        let what = "the module's dependencies";
        progress(&format!("installing {what} into node_modules"));
        npm(&dir, what, &["install", "--omit=dev"], progress).await?;
    }
    let wit = sdk.join("../../wit");
    let script = script(&tools)?;
    let building = || {
        let mut building = command(&program("NODE", "node"), &tools);
        building.arg(&script).arg(&main).arg(&sdk).arg(&wit);
        building
    };
    let ran = run(building(), NEEDS, progress).await?;
    let ran = ran.succeeded(TOOL, &dir)?;
    let last = ran
        .answer
        .split(|b| *b == b'\n')
        .rfind(|line| !line.is_empty());
    let described = Described::read(last.unwrap_or_default(), "build.mjs", TOOL, &dir)?;
    let kept = kept(given, &manifest, &wit, &described)?;
    if let Some(there) = kept.as_ref().filter(|kept| kept.is_there()) {
        return Ok(Made::Kept(there.path().to_owned()));
    }
    progress(&format!("building {} with {TOOL}", dir.display()));
    let work = tempfile::tempdir().map_err(|error| file("make a folder beside", &dir, error))?;
    let component = work.path().join("component.wasm");
    let mut building = building();
    building.arg(&component);
    let ran = run(building, NEEDS, progress).await?;
    ran.succeeded(TOOL, &dir)?;
    let bytes = read(&component)?;
    Ok(described.built(manifest.name, manifest.version, bytes, kept))
}

/// What the component is made of: the bundle has all the source, wherever it is.
fn kept(
    dir: &Path,
    manifest: &Manifest,
    wit: &Path,
    described: &Described,
) -> Result<Option<Kept>, BuildError> {
    let Some(wit) = content(&[wit]).map_err(|error| file("read", wit, error))? else {
        return Ok(None);
    };
    let tools = Digest::of(&[PACKAGE, LOCK, SCRIPT].concat());
    let (name, version, bundle) = (&manifest.name, &manifest.version, &described.bundle);
    let made_of = format!("{name} {version} {tools} {wit} {bundle}");
    Ok(Some(Kept::new(place(dir, name), made_of)))
}

fn manifest(dir: &Path) -> Result<Manifest, BuildError> {
    let path = dir.join("package.json");
    let bytes = read(&path)?;
    serde_json::from_slice(&bytes).map_err(|error| BuildError::Manifest {
        path,
        why: error.to_string(),
    })
}

/// The file whose default export is the module.
pub(super) fn main(dir: &Path) -> Result<PathBuf, BuildError> {
    Ok(dir.join(manifest(dir)?.main))
}

/// The folder with the tools.
async fn tools(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, BuildError> {
    let content = Digest::of(&[PACKAGE, LOCK].concat()).hex();
    let place = Place::shared(dir, &format!("{TOOL}-{}", &content[..16]));
    if place.is_there() {
        return Ok(place.path);
    }
    let into = place.path.display();
    progress(&format!("installing {WHAT} into {into} (about 400 MB)"));
    let draft = place.begin()?;
    for (name, bytes) in [("package.json", PACKAGE), ("package-lock.json", LOCK)] {
        let path = draft.join(name);
        fs::write(&path, bytes).map_err(|error| file("write", &path, error))?;
    }
    if let Err(error) = npm(draft, WHAT, &["ci"], progress).await {
        place.give_up();
        return Err(error);
    }
    place.end()?;
    Ok(place.path)
}

/// The script, put beside the tools under a name that says what is in it: another version of this program may
/// use the same tools at the same time, and none of them are fetched anew because it has changed.
fn script(tools: &Path) -> Result<PathBuf, BuildError> {
    let path = tools.join(format!("build-{}.mjs", &Digest::of(SCRIPT).hex()[..16]));
    if !path.is_file() {
        put(&path, SCRIPT)?;
    }
    Ok(path)
}

async fn npm(
    dir: &Path,
    what: &str,
    words: &[&str],
    progress: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let mut installing = command(&program("NPM", "npm"), dir);
    installing.args(words).args([
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]);
    let ran = run(installing, NEEDS, progress).await?;
    if ran.status.success() {
        return Ok(());
    }
    Err(BuildError::Tools {
        what: what.into(),
        output: ran.said,
        registry: REGISTRY,
        setting: SETTING,
    })
}
