//! `rustmq module new|build|inspect`.
//!
//! Called by: `cli::run`. Calls: `crate::module`, the sandbox's inspection.
//! Invariants: needs no server; `build` prints the path of the module last on standard output.

use std::path::Path;

use wasm::{Host, ModuleInfo};

use super::args::Module;
use super::connect::Session;
use super::exit::{Failure, written};
use crate::module::{self, Lang};
use crate::output::{self, progress::Progress};

pub async fn run(command: Module, session: &Session) -> Result<(), Failure> {
    match command {
        Module::New { name, lang } => new(&name, lang, session),
        Module::Build { dir } => build(&dir, session).await,
        Module::Inspect { file } => inspect(&file, session),
    }
}

fn new(name: &str, lang: Lang, session: &Session) -> Result<(), Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::failed(format!("cannot use the current folder: {error}")))?;
    let dir = module::new(&here, name, lang).map_err(Failure::failed)?;
    if session.json() {
        return written(output::print(&output::json(
            &serde_json::json!({ "path": dir }),
        )));
    }
    let source = lang.source();
    eprintln!("made {name}/; next: edit {name}/{source}, then `rustmq module build {name}`");
    Ok(())
}

async fn build(dir: &Path, session: &Session) -> Result<(), Failure> {
    let progress = Progress::steps();
    let built = module::build(dir, &mut |step| progress.line(step)).await;
    drop(progress);
    let path = built.map_err(Failure::failed)?;
    if session.json() {
        return written(output::print(&output::json(
            &serde_json::json!({ "path": path }),
        )));
    }
    written(output::print(&format!("{}\n", path.display())))
}

fn inspect(file: &Path, session: &Session) -> Result<(), Failure> {
    let name = file.display();
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
    let info = Host::inspect(&bytes)
        .map_err(|error| Failure::failed(format!("{name} is not a module: {error}")))?;
    if session.json() {
        return written(output::print(&output::json(&info)));
    }
    written(output::print(&describe(&info)))
}

fn describe(info: &ModuleInfo) -> String {
    let list = |names: &[String]| {
        if names.is_empty() {
            "none".to_string()
        } else {
            names.join(", ")
        }
    };
    let said = info.describe.as_ref();
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| "not said".to_string());
    output::fields(&[
        ("module", or_nothing(said.map(|d| d.title()))),
        (
            "params",
            or_nothing(
                said.and_then(|d| d.params.as_ref())
                    .map(ToString::to_string),
            ),
        ),
        (
            "ports",
            or_nothing(said.and_then(|d| d.ports.as_deref()).map(list)),
        ),
        (
            "state schema",
            said.and_then(|d| d.state_schema)
                .map_or_else(|| "none".to_string(), |version| version.to_string()),
        ),
        ("digest", info.digest.to_string()),
        ("size", output::bytes(info.size as u64)),
        ("kind", format!("{:?}", info.kind)),
        (
            "built for",
            or_nothing(info.contract.as_ref().map(|v| format!("rustmq:etl {v}"))),
        ),
        ("imports", list(&info.imports)),
        ("exports", list(&info.exports)),
        ("not offered here", list(&info.unknown)),
        ("stubbed (a call traps)", list(&info.stubbed)),
        ("grants needed", list(&info.grants_needed)),
    ])
}
