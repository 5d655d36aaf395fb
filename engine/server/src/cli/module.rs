//! `rustmq module new|build|test|bench|keygen|sign|inspect`.
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
        Module::Test { dir } => test(&dir, session).await,
        Module::Bench { dir } => bench(&dir, session).await,
        Module::Keygen { file } => keygen(&file, session),
        Module::Sign { file, key } => sign(&file, &key, session),
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
    let path = built.map_err(|error| Failure::failed(error.in_short()))?;
    if session.json() {
        return written(output::print(&output::json(
            &serde_json::json!({ "path": path }),
        )));
    }
    written(output::print(&format!("{}\n", path.display())))
}

async fn test(dir: &Path, session: &Session) -> Result<(), Failure> {
    let progress = Progress::steps();
    let tried = module::test(dir, &mut |step| progress.line(step)).await;
    drop(progress);
    let tried = tried.map_err(|error| Failure::failed(error.in_short()))?;
    let failed = tried.iter().filter(|case| !case.diff.is_empty());
    let count = failed.clone().count();
    if session.json() {
        let cases = tried.iter().map(
            |case| serde_json::json!({ "case": case.number, "rows": case.rows, "diff": case.diff }),
        );
        let cases: Vec<_> = cases.collect();
        written(output::print(&output::json(&cases)))?;
    } else {
        let diffs = failed.map(|case| format!("case {}:\n{}", case.number, case.diff));
        let rows: usize = tried.iter().map(|case| case.rows).sum();
        let says = match count {
            0 => "the component does what the native tests say".to_owned(),
            count => format!("{count} differ: - native, + component"),
        };
        let cases = output::count(tried.len() as u64, "case");
        let rows = output::count(rows as u64, "row");
        let summary = format!("{cases}, {rows}: {says}\n");
        written(output::print(&(diffs.collect::<String>() + &summary)))?;
    }
    match count {
        0 => Ok(()),
        // what differs has been printed
        _ => Err(Failure::said()),
    }
}

async fn bench(dir: &Path, session: &Session) -> Result<(), Failure> {
    let progress = Progress::steps();
    let timed = module::bench(dir, &mut |step| progress.line(step)).await;
    drop(progress);
    let timed = timed.map_err(|error| Failure::failed(error.in_short()))?;
    if session.json() {
        let cases = timed.iter().map(|case| {
            serde_json::json!({ "case": case.number, "rows": case.rows,
                "native_ns": case.native_ns, "component_ns": case.component_ns })
        });
        let cases: Vec<_> = cases.collect();
        return written(output::print(&output::json(&cases)));
    }
    let rows = timed.iter().map(|case| {
        let ratio = case.native_ns / case.component_ns;
        vec![
            case.number.to_string(),
            case.rows.to_string(),
            format!("{:.0}", case.native_ns),
            format!("{:.0}", case.component_ns),
            format!("{ratio:.2}"),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let heads = ["case", "rows", "native ns/row", "component ns/row", "ratio"];
    written(output::print(&output::table(&heads, &rows)))
}

fn keygen(file: &Path, session: &Session) -> Result<(), Failure> {
    let public = module::keygen(file).map_err(Failure::failed)?;
    if session.json() {
        let json = serde_json::json!({ "path": file, "public": public });
        return written(output::print(&output::json(&json)));
    }
    eprintln!(
        "wrote the secret key to {}; the public one is",
        file.display()
    );
    written(output::print(&format!("{public}\n")))
}

fn sign(file: &Path, key: &Path, session: &Session) -> Result<(), Failure> {
    let info = module::sign(file, key).map_err(Failure::failed)?;
    if session.json() {
        return written(output::print(&output::json(&info)));
    }
    written(output::print(&format!("{}\n", info.digest)))
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
    let migrates = info.migrates().iter();
    let migrates: Vec<String> = migrates.map(|schema| format!("schema {schema}")).collect();
    let signers: Vec<String> = info.signers.iter().map(ToString::to_string).collect();
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
        ("takes over state of", list(&migrates)),
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
        ("deterministic unless granted", list(&info.ambient)),
        ("stubbed (a call traps)", list(&info.stubbed)),
        ("grants needed", list(&info.grants_needed)),
        ("signed by", list(&signers)),
    ])
}
